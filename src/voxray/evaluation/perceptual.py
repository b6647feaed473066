"""What a volume looks like, measured without any weights: HaarPSI, and how much fine detail there is.

The libraries that have HaarPSI (`piq`, `piqa`) need torchvision, and torchmetrics does not have it; so it is written
out here.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from voxray.evaluation.trial import Metric

# Reisenhofer et al. 2018: fitted to people's opinions of images of 0..255.
HAARPSI_C, HAARPSI_ALPHA = 30.0, 4.2
# Cycles per voxel, the finest octave of a grid: details of two to four voxels. Vessels, fissures, the walls of airways
# and ribs live there, and a smooth result loses them first; the octaves below hold the outlines of body and organs,
# which PSNR measures already. The choice of the band is ours.
HIGH_BAND = (0.25, 0.5)
# Power per voxel that float32 leaves behind of a unit range, (1e-7)^2: below it there is nothing to compare.
POWER_FLOOR = 1e-14


def haarpsi(
    images: Float[Tensor, "n h w"], truths: Float[Tensor, "n h w"], *, data_range: float
) -> Float[Tensor, " n"]:
    """Return the Haar wavelet perceptual similarity index of each pair of images, 0..1, 1 if equal.

    `HaarPSI = logit(sum w sigmoid(alpha s) / sum w)^2` over places and both orientations of the wavelets; `s` is the
    mean over the two finer scales of `(2ab + C) / (a^2 + b^2 + C)` of the coefficients' sizes a and b, and `w` the
    larger size at the third scale (Reisenhofer, Bosse, Kutyniok and Wiegand 2018, arXiv 1607.06140). As in the released
    code, images are halved first (a usual viewing distance), and go on with zeros beyond their borders. NaN where both
    images are zero everywhere.

    Args:
        images: to be scored.
        truths: to score them against; the index is symmetric.
        data_range: the value that counts as white, 255 in the paper.
    """
    a, b = (_haar_sizes(x * (255 / data_range)) for x in (images, truths))
    weights = torch.maximum(a[2], b[2])
    alike = [(2 * x * y + HAARPSI_C) / (x.square() + y.square() + HAARPSI_C) for x, y in zip(a[:2], b[:2], strict=True)]
    bent = torch.sigmoid(HAARPSI_ALPHA * (alike[0] + alike[1]) / 2)
    mean = (weights * bent).sum((1, 2, 3)) / weights.sum((1, 2, 3))
    return (torch.logit(mean) / HAARPSI_ALPHA).square()


def _haar_sizes(images: Float[Tensor, "n h w"]) -> list[Float[Tensor, "n 2 h w"]]:
    """Return the sizes of horizontal and vertical Haar coefficients at scales 1, 2 and 3 of the halved images.

    At scale j they are `2^-j` times the sum of one half of a square of `2^j` pixels without that of the other half.
    """
    height, width = images.shape[1:]
    x = F.avg_pool2d(F.pad(images[:, None], (0, width % 2, 0, height % 2)), 2)
    found = []
    for scale in (1, 2, 3):
        half = 2 ** (scale - 1)
        # The wavelet's four quadrants are means of half^2 pixels; an even kernel is centred as in MATLAB's conv2.
        mean = F.avg_pool2d(F.pad(x, (half - 1, half, half - 1, half)), half, stride=1)
        apart = mean[..., :-half, :] - mean[..., half:, :]
        together = mean[..., :-half, :] + mean[..., half:, :]
        ways = (apart[..., :-half] + apart[..., half:], together[..., :-half] - together[..., half:])
        found.append(torch.cat(ways, 1).abs() * 2.0 ** (scale - 2))
    return found


def slice_haarpsi(image: Float[Tensor, "z y x"], truth: Float[Tensor, "z y x"], *, data_range: float) -> float:
    """Return HaarPSI of 2D slices, averaged over the slices of an axis, then over the three axes.

    Slices that are zero in both volumes have no HaarPSI and are left out; 1 if none is left.
    """
    axes = [haarpsi(image.movedim(k, 0), truth.movedim(k, 0), data_range=data_range).nanmean() for k in range(3)]
    mean = float(torch.stack(axes).mean())
    return 1.0 if math.isnan(mean) else mean


def radial_power(volume: Float[Tensor, "z y x"]) -> tuple[Float[Tensor, " r"], Float[Tensor, " r"]]:
    """Return the radially averaged power spectrum of a volume: frequencies in cycles per voxel, and mean power there.

    Of the volume without its mean, under a Hann window on each axis, since the borders of a scan do not fit together;
    per voxel, so that white noise has its variance as power at every frequency. The shells are one cycle per longest
    axis wide, and go up to 0.5.
    """
    power = (volume - volume.mean()).double()
    scale = 1.0
    for axis, length in enumerate(volume.shape):
        window = torch.hann_window(length, periodic=True, dtype=torch.float64)
        power = power * window.reshape([-1 if k == axis else 1 for k in range(3)])
        scale *= float(window.square().sum())
    power = torch.fft.fftn(power).abs().square() / scale
    axes = [torch.fft.fftfreq(length, dtype=torch.float64) for length in volume.shape]
    radius = sum(f.square() for f in torch.meshgrid(*axes, indexing="ij")).sqrt()  # type: ignore[union-attr]
    shells = max(volume.shape)
    index = (radius * shells).round().long().flatten()
    sums = torch.bincount(index, power.flatten()) / torch.bincount(index).clamp_min(1)
    upto = shells // 2 + 1
    return torch.arange(upto, dtype=torch.float64) / shells, sums[:upto]


def spectrum_error(
    image: Float[Tensor, "z y x"], truth: Float[Tensor, "z y x"], band: tuple[float, float] = HIGH_BAND
) -> float:
    """Return how much more power an image has than the truth at high frequencies, in dB: negative if over-smooth.

    The mean over the shells of the band of `10 log10(P_image / P_truth)`, P of `radial_power`: each shell counts alike,
    where the ratio of sums would show the lowest alone, as power falls steeply.

    Args:
        image: to be scored.
        truth: to score it against.
        band: cycles per voxel, both ends in it.
    """
    frequencies, of_image = radial_power(image)
    of_truth = radial_power(truth)[1]
    inside = (frequencies >= band[0]) & (frequencies <= band[1])
    ratio = of_image[inside].clamp_min(POWER_FLOOR) / of_truth[inside].clamp_min(POWER_FLOOR)
    return float(10 * ratio.log10().mean())


METRICS: tuple[Metric, ...] = (
    Metric(
        "haarpsi", "HaarPSI", "", "higher",
        "Haar wavelet perceptual similarity (Reisenhofer et al. 2018) of 2D slices, mean over all three axes, HU "
        "-1024..1476 as unit range.",
        lambda trial: slice_haarpsi(trial.unit, trial.unit_truth, data_range=1.0), digits=3,
    ),
    Metric(
        "spectrum", "fine detail", "dB", None,
        "Power of the reconstruction over that of the truth in the finest octave (details of 2 to 4 voxels): negative "
        "where it is too smooth, positive where it has noise or invented detail, 0 where the amount is right.",
        lambda trial: spectrum_error(trial.unit, trial.unit_truth),
    ),
)  # fmt: skip
