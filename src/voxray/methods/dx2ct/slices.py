"""Slices of a volume, and places in it: coordinates from -1 to 1 between its faces."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from voxray.geometry import ViewGeometry, VolumeGrid

Plane = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")


def slices_of(volume: Float[Tensor, "z y x"], plane: Plane) -> Float[Tensor, "n h w"]:
    """Return all slices in a plane; a view of the volume."""
    return volume.movedim(PLANES.index(plane), 0)


def volume_of(slices: Float[Tensor, "n h w"], plane: Plane) -> Float[Tensor, "z y x"]:
    """Undo `slices_of`."""
    return slices.movedim(0, PLANES.index(plane))


def voxel_places(grid: VolumeGrid) -> Float[Tensor, "z y x 3"]:
    """Return the places (x, y, z) of all voxels; -1 and 1 are the faces of the volume, patient LPS."""
    axes = [(2 * torch.arange(n) + 1) / n - 1 for n in grid.shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], -1)


def xray_places(views: ViewGeometry, grid: VolumeGrid, size: int) -> Float[Tensor, "views h w 3"]:
    """Return the places of the X-rays' pixels: where their rays leave the volume's innermost sphere's far plane.

    The paper gives an X-ray's pixels coordinates in the volume, with that along the beam held at one of its ends. For
    any angle, and for beams that diverge, that is the plane through the far end of the volume, across the central ray:
    for PA the front of the patient (y = -1).

    Args:
        views: about the origin.
        grid: of the volume, about the origin.
        size: the images are brought to size x size pixels.
    """
    half = grid.size_mm / 2
    resized = views.resized([(size, size)] * len(views))
    found = []
    for n in range(len(views)):
        axis = views.centre_mm[n] - views.source_mm[n]
        axis = axis / np.linalg.norm(axis)
        rays = resized.pixels_mm(n) - views.source_mm[n]
        reach = (half.min() - views.source_mm[n] @ axis) / (rays @ axis)
        found.append((views.source_mm[n] + reach[..., None] * rays) / half)
    return torch.from_numpy(np.stack(found).astype(np.float32))
