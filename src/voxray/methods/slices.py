"""Slices of a volume, in the planes of anatomy."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Plane = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")


def slices_of(volume: Float[Tensor, "z y x *c"], plane: Plane) -> Float[Tensor, "n h w *c"]:
    """Return all slices in a plane; a view of the volume."""
    return volume.movedim(PLANES.index(plane), 0)


def volume_of(slices: Float[Tensor, "n h w"], plane: Plane) -> Float[Tensor, "z y x"]:
    """Undo `slices_of`."""
    return slices.movedim(0, PLANES.index(plane))


def points_of(
    plane: Plane, along: Float[Tensor, " n"], middles: Float[Tensor, "n 2"], halves: Float[Tensor, " n"], side: int
) -> Float[Tensor, "n h w 3"]:
    """Return the places (x, y, z) of the pixels of square windows in slices; -1 and 1 are the faces of the volume.

    Args:
        plane: of the slices.
        along: where the slices lie, along the axis across their plane.
        middles: of the windows, along the two axes of a slice, the first of them along its rows.
        halves: half the side of each window; 1 for a whole slice.
        side: pixels along each.
    """
    line = halves[:, None] * ((2 * torch.arange(side, device=along.device) + 1) / side - 1)
    rows, columns = (line + middles[:, i, None] for i in range(2))
    axes = [rows[:, :, None].expand(-1, -1, side), columns[:, None].expand(-1, side, -1)]
    axes.insert(PLANES.index(plane), along[:, None, None].expand(-1, side, side))
    return torch.stack(axes[::-1], -1)
