"""How far a volume is from the truth.

Every metric works on Hounsfield units clipped to -1024..1476 and scaled to 0..1, the range of the X2CT-GAN pipeline
that all papers of this field share, and is given that range by name.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from skimage.metrics import structural_similarity
from torch import Tensor

from voxray.physics.attenuation import HU_RANGE, to_unit_range

__all__ = [
    "HU_RANGE", "mae_hu", "psnr", "rank_correlation", "residual_rms", "slice_ssim", "to_unit_range",
]  # fmt: skip


def psnr(image: Float[Tensor, "*shape"], truth: Float[Tensor, "*shape"], *, data_range: float) -> float:
    """Return the peak signal-to-noise ratio over all elements in dB, `10 log10(data_range^2 / MSE)`; inf if equal."""
    error = float((image.double() - truth.double()).square().mean())
    return math.inf if error == 0 else 10 * math.log10(data_range**2 / error)


def slice_ssim(image: Float[Tensor, "z y x"], truth: Float[Tensor, "z y x"], *, data_range: float) -> float:
    """Return the structural similarity of 2D slices, averaged over the slices of an axis, then over the three axes.

    Each slice by scikit-image's defaults (7 x 7 uniform window, sample covariance): the convention of the released
    evaluation code of X2CT-GAN (Ying et al. 2019).
    """
    a, b = image.numpy(), truth.numpy()
    axes = []
    for axis in range(3):
        pairs = zip(np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0), strict=True)
        axes.append(np.mean([structural_similarity(x, y, data_range=data_range) for x, y in pairs]))
    return float(np.mean(axes))


def mae_hu(image: Float[Tensor, "z y x"], truth: Float[Tensor, "z y x"]) -> float:
    """Return the mean absolute difference in HU, both clipped to `HU_RANGE`."""
    low, high = HU_RANGE
    return float((image.clamp(low, high) - truth.clamp(low, high)).abs().mean())


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
