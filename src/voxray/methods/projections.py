"""Losses of projections: those of a predicted volume against those of the true one."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.physics.projector import Projector


def along_axes(difference: Float[Tensor, "b z y x"]) -> Float[Tensor, " b"]:
    """Return the mean absolute difference of parallel projections along the three axes.

    Each is a mean along its lines, so that it is of the size of a voxel's difference. Three orthogonal parallel
    projections, by L1, are the loss of X2CT-GAN (arXiv 1905.06902) and of Diff2CT (arXiv 2408.09731); which norm
    the same group's DiffuX2CT has is not known.
    """
    return torch.stack([difference.mean(axis).abs().mean((1, 2)) for axis in (1, 2, 3)]).mean(0)


def along_rays(
    difference: Float[Tensor, "b z y x"], grid: VolumeGrid, views: Sequence[ViewGeometry]
) -> Float[Tensor, " b"]:
    """Return the mean absolute difference of what the X-rays' own views would show (ours).

    Line integrals are divided by the longest side of the volume, so that they are of the size of a voxel's difference.

    Args:
        difference: of volumes.
        grid: of the volumes.
        views: of each, about the origin.
    """
    length_mm = float(grid.size_mm.max())
    found = []
    for volume, seen in zip(difference, views, strict=True):
        images = Projector(grid, seen).forward(volume)
        found.append(torch.stack([image.abs().mean() for image in images]).mean() / length_mm)
    return torch.stack(found)
