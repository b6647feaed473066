"""HaarPSI by hand and from its definition; the power spectrum of noise whose spectrum is known."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.signal import convolve2d
from small_models import SETUP, patient

from voxray.evaluation.perceptual import (
    HIGH_BAND,
    METRICS,
    haarpsi,
    radial_power,
    slice_haarpsi,
    spectrum_error,
)
from voxray.evaluation.trial import Trial
from voxray.geometry import ViewGeometry
from voxray.images import CTVolume, Radiograph
from voxray.methods.base import Estimate


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- HaarPSI


def test_haarpsi_of_a_dot_by_hand() -> None:
    """A dot is one pixel after halving: 100 in the truth, 60 in the image. It is alone in 2^j x 2^j coefficients of
    scale j, where they are 2^-j of it. So 64 places have one weight, 16 of them differ at scale 2, 4 also at scale 1.
    """
    images = torch.zeros(2, 32, 32)
    images[0, 14:16, 14:16], images[1, 14:16, 14:16] = 100.0, 60.0

    def alike(a: float, b: float) -> float:
        return (2 * a * b + 30) / (a * a + b * b + 30)

    def sigmoid(s: float) -> float:
        return 1 / (1 + math.exp(-4.2 * s))

    one, two = alike(50, 30), alike(25, 15)
    mean = (4 * sigmoid((one + two) / 2) + 12 * sigmoid((1 + two) / 2) + 48 * sigmoid(1)) / 64
    expected = (math.log(mean / (1 - mean)) / 4.2) ** 2
    assert haarpsi(images[:1], images[1:], data_range=255).tolist() == pytest.approx([expected], abs=1e-5)
    assert haarpsi(images[1:] / 255, images[:1] / 255, data_range=1).tolist() == pytest.approx([expected], abs=1e-5)
    assert 0.8 < expected < 0.99


@pytest.mark.parametrize("shape", [(40, 44), (41, 33)])
def test_haarpsi_is_its_definition(shape: tuple[int, int]) -> None:
    """The formulas one after another with scipy's convolution; an even kernel is centred as in MATLAB's conv2."""

    def centred(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        full, first = convolve2d(image, kernel), kernel.shape[0] // 2
        return full[first : first + image.shape[0], first : first + image.shape[1]]

    def sizes(image: np.ndarray) -> list[list[np.ndarray]]:
        halved = centred(image, np.full((2, 2), 0.25))[::2, ::2]
        found = []
        for scale in (1, 2, 3):
            kernel = np.full((2**scale, 2**scale), 2.0**-scale)
            kernel[: 2**scale // 2] *= -1
            found.append([abs(centred(halved, k)) for k in (kernel, kernel.T)])
        return found

    image, truth = 255 * torch.rand(2, *shape, generator=torch.Generator().manual_seed(1)).double()
    a, b = sizes(image.numpy()), sizes(truth.numpy())
    bent, weights = 0.0, 0.0
    for way in range(2):
        alike = [(2 * a[j][way] * b[j][way] + 30) / (a[j][way] ** 2 + b[j][way] ** 2 + 30) for j in range(2)]
        weight = np.maximum(a[2][way], b[2][way])
        bent += (weight / (1 + np.exp(-4.2 * (alike[0] + alike[1]) / 2))).sum()
        weights += weight.sum()
    expected = (math.log(bent / weights / (1 - bent / weights)) / 4.2) ** 2
    assert haarpsi(image[None], truth[None], data_range=255).tolist() == pytest.approx([expected], abs=1e-9)


def test_haarpsi_is_1_of_equals_and_falls_with_blur_and_with_noise() -> None:
    truth = torch.from_numpy(gaussian_filter(noise(1, 64, 64).numpy(), (0, 2, 2), mode="wrap"))
    truth = (truth - truth.min()) / (truth.max() - truth.min())
    scores = [float(haarpsi(truth + x * noise(1, 64, 64, seed=1), truth, data_range=1)) for x in (0, 0.02, 0.05, 0.2)]
    assert scores[0] == pytest.approx(1, abs=1e-5)
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < 0.6
    blurred = [
        float(haarpsi(torch.from_numpy(gaussian_filter(truth.numpy(), (0, s, s))), truth, data_range=1)) for s in (1, 3)
    ]
    assert 1 > blurred[0] > blurred[1]


def test_volumes_are_scored_by_their_slices_and_empty_slices_left_out() -> None:
    """The lower half is empty in both: its slices do not count; slices along the other axes do."""
    rng = torch.Generator().manual_seed(4)
    truth, image = torch.rand(2, 24, 26, 28, generator=rng)
    truth[:12], image[:12] = 0, 0
    axes = [haarpsi(image.movedim(k, 0), truth.movedim(k, 0), data_range=1.0) for k in range(3)]
    assert torch.isnan(axes[0]).tolist() == [True] * 12 + [False] * 12
    expected = (axes[0][12:].mean() + axes[1].mean() + axes[2].mean()) / 3
    assert slice_haarpsi(image, truth, data_range=1.0) == pytest.approx(float(expected), abs=1e-6)
    assert slice_haarpsi(torch.zeros(16, 16, 16), torch.zeros(16, 16, 16), data_range=1.0) == 1


# ---------------------------------------------------------------- power spectrum


def test_white_noise_has_its_variance_at_every_frequency() -> None:
    frequencies, power = radial_power(3 * noise(64, 48, 56))
    assert frequencies.tolist() == [k / 64 for k in range(33)]
    assert power[12:].mean().item() == pytest.approx(9, rel=0.04)  # the standard error is 1 %
    assert power[8:].tolist() == pytest.approx([9] * 25, rel=0.25)


def test_a_wave_is_at_its_frequency() -> None:
    wave = torch.cos(2 * torch.pi * 0.25 * torch.arange(32.0)).expand(32, 32, 32)
    _, power = radial_power(wave)
    assert int(power.argmax()) == 8  # of 32, at a quarter of a cycle per voxel


def test_spectrum_error_of_a_factor_is_that_factor() -> None:
    truth = noise(32, 32, 32)
    assert spectrum_error(truth, truth) == 0
    assert spectrum_error(truth / 10, truth) == pytest.approx(-20, abs=1e-6)
    assert spectrum_error(2 * truth + 5, truth) == pytest.approx(20 * math.log10(2), abs=1e-5)


def test_blur_is_negative_by_its_transfer_function() -> None:
    """White noise keeps of its power at a frequency what the filter makes of an impulse there."""
    truth, impulse = noise(48, 48, 48), np.zeros((48, 48, 48))
    impulse[0, 0, 0] = 1
    blurred = torch.from_numpy(gaussian_filter(truth.numpy(), 0.8, mode="wrap"))
    kept = np.abs(np.fft.fftn(gaussian_filter(impulse, 0.8, mode="wrap"))) ** 2
    radius = np.sqrt(sum(f**2 for f in np.meshgrid(*[np.fft.fftfreq(48)] * 3))) * 48
    decibels = [10 * np.log10(kept[np.abs(radius - shell) < 0.5].mean()) for shell in range(12, 25)]
    assert spectrum_error(blurred, truth) == pytest.approx(np.mean(decibels), abs=0.2)
    assert np.mean(decibels) < -10


def test_independent_noise_is_positive() -> None:
    """The powers of independent noises add: with twice the standard deviation on top, five times as much."""
    truth = noise(48, 48, 48)
    assert spectrum_error(truth + 2 * noise(48, 48, 48, seed=1), truth) == pytest.approx(10 * math.log10(5), abs=0.1)


def test_low_frequencies_do_not_count() -> None:
    """A smooth bump under the same noise changes PSNR very much, and the finest octave not at all."""
    z, y, x = torch.meshgrid(*[torch.arange(48.0) - 24] * 3, indexing="ij")
    bump = 5 * torch.exp(-(x**2 + y**2 + z**2) / (2 * 8**2))
    truth = noise(48, 48, 48)
    assert HIGH_BAND == (0.25, 0.5)
    assert abs(spectrum_error(truth + bump, truth)) < 0.05
    assert spectrum_error(truth + bump, truth, band=(0.0, 0.1)) > 5


def test_volumes_without_any_detail_are_compared_at_the_floor_of_float32() -> None:
    flat = torch.full((16, 16, 16), 0.5)
    assert spectrum_error(flat, flat) == 0
    assert 100 < spectrum_error(noise(16, 16, 16), flat) < 160


# ---------------------------------------------------------------- metrics


def test_metrics_of_a_trial() -> None:
    """A smoother copy has less fine detail, and is less alike."""
    case, views = patient(20), ViewGeometry.biplanar(setup=SETUP)
    radiograph = Radiograph(tuple(torch.zeros(shape) for shape in views.shapes), views)
    grid, hu = case.volume.grid.shifted(-case.isocentre_mm), case.volume.hu

    def scores(sigma: float) -> dict[str, float | None]:
        volume = CTVolume(torch.from_numpy(gaussian_filter(hu.numpy(), sigma)), grid)
        return {
            metric.name: metric.of(Trial(case, "closed", radiograph, "air", Estimate(volume))) for metric in METRICS
        }

    assert scores(0) == {"haarpsi": pytest.approx(1, abs=1e-5), "spectrum": pytest.approx(0)}
    smooth = scores(1.0)
    assert smooth["spectrum"] is not None
    assert smooth["spectrum"] < -10
    assert smooth["haarpsi"] is not None
    assert 0.2 < smooth["haarpsi"] < 0.95
