"""How far a volume is from the truth.

PSNR, SSIM and cosine work on Hounsfield units clipped to -1024..1476 and scaled to 0..1, the range of the X2CT-GAN
pipeline that all papers of this field share; the range is given to them by name. What single papers make of these
figures is in `conventions`.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from skimage.metrics import structural_similarity
from torch import Tensor

from voxray.data.body_mask import AIR_HU
from voxray.evaluation.trial import Metric, Trial
from voxray.physics.attenuation import HU_RANGE, to_unit_range

__all__ = [
    "HU_RANGE", "METRICS", "cosine", "gaussian_ssim3d", "mae_hu", "psnr", "rank_correlation", "residual_rms",
    "rmse_hu", "slice_psnr", "slice_ssim", "ssim3d", "to_unit_range",
]  # fmt: skip


def psnr(image: Float[Tensor, "*shape"], truth: Float[Tensor, "*shape"], *, data_range: float) -> float:
    """Return the peak signal-to-noise ratio over all elements in dB, `10 log10(data_range^2 / MSE)`; inf if equal."""
    error = float((image.double() - truth.double()).square().mean())
    return math.inf if error == 0 else 10 * math.log10(data_range**2 / error)


def slice_psnr(
    image: Float[Tensor, "z y x"], truth: Float[Tensor, "z y x"], *, data_range: float, error_free_db: float | None
) -> float:
    """Return the PSNR of 2D slices in dB, averaged over the slices of an axis, then over the three axes.

    Args:
        image: to be scored.
        truth: to score it against.
        data_range: the peak.
        error_free_db: what a slice without any error counts, whose PSNR is infinite: 100 in the released code of this
            field, where padded slices so raise the average; None leaves such slices out (then inf if no other is left).
    """
    squares = (image.double() - truth.double()).square()
    axes = []
    for axis in range(3):
        error = squares.movedim(axis, 0).flatten(1).mean(1)
        decibels = 10 * torch.log10(data_range**2 / error)  # inf without error
        if error_free_db is None:
            decibels = decibels[error > 0]
        else:
            decibels[error == 0] = error_free_db
        axes.append(float(decibels.mean()) if len(decibels) else math.inf)
    return float(np.mean(axes))


def slice_ssim(image: Float[Tensor, "z y x"], truth: Float[Tensor, "z y x"], *, data_range: float) -> float:
    """Return the structural similarity of 2D slices, averaged over the slices of an axis, then over the three axes.

    Each slice by scikit-image's defaults (7 x 7 uniform window, sample covariance): the convention of the released
    evaluation code of X2CT-GAN (Ying et al. 2019). Slice after slice is twice as fast as whole stacks: a slice stays in
    the processor's cache.
    """
    a, b = image.numpy(), truth.numpy()
    axes = []
    for axis in range(3):
        pairs = zip(np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0), strict=True)
        axes.append(np.mean([structural_similarity(x, y, data_range=data_range) for x, y in pairs]))
    return float(np.mean(axes))


def ssim3d(image: Float[Tensor, "z y x"], truth: Float[Tensor, "z y x"], *, data_range: float) -> float:
    """Return the structural similarity in windows of 7^3 voxels, all alike, with sample covariance (scikit-image)."""
    return float(structural_similarity(image.numpy(), truth.numpy(), data_range=data_range))


def gaussian_ssim3d(image: Float[Tensor, "z y x"], truth: Float[Tensor, "z y x"], *, data_range: float) -> float:
    """Return the structural similarity in 3D with the window of Wang et al. 2004, a Gaussian of 1.5 voxels cut at 11.

    By scikit-image; MONAI's `SSIMMetric` gives the same.
    """
    return float(
        structural_similarity(
            image.numpy(), truth.numpy(), data_range=data_range,
            gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        )
    )  # fmt: skip


def mae_hu(image: Float[Tensor, "*shape"], truth: Float[Tensor, "*shape"]) -> float:
    """Return the mean absolute difference in HU, both clipped to `HU_RANGE`."""
    low, high = HU_RANGE
    return float((image.clamp(low, high) - truth.clamp(low, high)).abs().mean())


def rmse_hu(image: Float[Tensor, "z y x"], truth: Float[Tensor, "z y x"]) -> float:
    """Return the root mean square difference in HU, both clipped to `HU_RANGE`."""
    low, high = HU_RANGE
    return float((image.clamp(low, high).double() - truth.clamp(low, high).double()).square().mean().sqrt())


def cosine(image: Float[Tensor, "z y x"], truth: Float[Tensor, "z y x"]) -> float:
    """Return `<a, b> / (|a| |b|)` over all voxels, as the released code of X2CT-GAN prints it for volumes in 0..1."""
    return float(torch.cosine_similarity(image.double().flatten(), truth.double().flatten(), dim=0))


def residual_rms(images: list[Tensor], measured: list[Tensor]) -> float:
    """Return the root mean square difference of line integrals over all pixels of all views (no unit)."""
    differences = torch.cat([(a - b).flatten() for a, b in zip(images, measured, strict=True)])
    return float(differences.square().mean().sqrt())


def rank_correlation(std: Float[Tensor, "z y x"], error: Float[Tensor, "z y x"], where: Tensor) -> float:
    """Return Spearman's correlation of an uncertainty with the absolute error, over the voxels `where`.

    1 where the voxels of larger error are those of larger uncertainty; 0 where it says nothing.
    """
    from scipy.stats import spearmanr

    return float(spearmanr(std[where].numpy(), error[where].abs().numpy()).statistic)


def _uncertainty(trial: Trial) -> float | None:
    std = trial.estimate.std
    if std is None:
        return None
    found = rank_correlation(std.hu, trial.hu - trial.truth, trial.truth > AIR_HU)
    return found if math.isfinite(found) else None  # no ranks where all voxels are alike


METRICS: tuple[Metric, ...] = (
    Metric(
        "psnr3d", "3D PSNR", "dB", "higher",
        "Peak signal-to-noise ratio over the whole cube, HU -1024..1476 as unit range: the headline figure of voxray.",
        lambda trial: psnr(trial.unit, trial.unit_truth, data_range=1.0),
    ),
    Metric(
        "ssim", "SSIM", "", "higher",
        "Structural similarity of 2D slices (7 x 7 uniform window, scikit-image), mean over the slices of all three "
        "axes, HU -1024..1476 as unit range: the convention of X2CT-GAN (Ying et al. 2019).",
        lambda trial: slice_ssim(trial.unit, trial.unit_truth, data_range=1.0), digits=3,
    ),
    Metric(
        "mae_hu", "MAE", "HU", "lower", "Mean absolute difference, both volumes clipped to HU -1024..1476.",
        lambda trial: mae_hu(trial.hu, trial.truth), digits=1,
    ),
    Metric(
        "rmse_hu", "RMSE", "HU", "lower", "Root mean square difference, both volumes clipped to HU -1024..1476.",
        lambda trial: rmse_hu(trial.hu, trial.truth), digits=1,
    ),
    Metric(
        "cosine", "cosine", "", "higher",
        "Cosine similarity of all voxels, HU -1024..1476 as unit range, as the code of X2CT-GAN prints it.",
        lambda trial: cosine(trial.unit, trial.unit_truth), digits=4,
    ),
    Metric(
        "residual", "residual RMS", "", "lower",
        "Root mean square difference between the X-rays and the re-projections of the result (line integrals).",
        lambda trial: residual_rms(list(trial.estimate.reprojections), list(trial.radiograph.images)), digits=4,
    ),
    Metric(
        "uncertainty", "std / error", "", "higher",
        "Spearman's correlation of the standard deviation with the absolute error over the body.",
        _uncertainty,
    ),
)  # fmt: skip
