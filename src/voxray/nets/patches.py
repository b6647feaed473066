"""Volumes as grids of patches, whose voxels are channels."""

import torch
from jaxtyping import Float
from torch import Tensor


def patches(volumes: Float[Tensor, "b c Z Y X"], side: int) -> Float[Tensor, "b cp z y x"]:
    """Bring the voxels of each cube of `side` voxels into channels."""
    b, c, z, y, x = volumes.shape
    split = volumes.reshape(b, c, z // side, side, y // side, side, x // side, side)
    return split.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(b, c * side**3, z // side, y // side, x // side)


def from_patches(values: Float[Tensor, "b p z y x"], side: int) -> Float[Tensor, "b Z Y X"]:
    """Undo `patches` of one volume an item."""
    b, _, z, y, x = values.shape
    split = values.reshape(b, side, side, side, z, y, x).permute(0, 4, 1, 5, 2, 6, 3)
    return torch.reshape(split, (b, z * side, y * side, x * side))
