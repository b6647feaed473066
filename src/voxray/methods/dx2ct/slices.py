"""Slices of a volume, and the places of its voxels: coordinates from -1 to 1 between its faces."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from voxray.geometry import VolumeGrid

Plane = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")


def slices_of(volume: Float[Tensor, "z y x *c"], plane: Plane) -> Float[Tensor, "n h w *c"]:
    """Return all slices in a plane; a view of the volume."""
    return volume.movedim(PLANES.index(plane), 0)


def volume_of(slices: Float[Tensor, "n h w"], plane: Plane) -> Float[Tensor, "z y x"]:
    """Undo `slices_of`."""
    return slices.movedim(0, PLANES.index(plane))


def voxel_places(grid: VolumeGrid) -> Float[Tensor, "z y x 3"]:
    """Return the places (x, y, z) of all voxels; -1 and 1 are the faces of the volume, patient LPS."""
    axes = [(2 * torch.arange(n) + 1) / n - 1 for n in grid.shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], -1)
