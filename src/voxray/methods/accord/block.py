"""The network of a block and of the texture: from what is known of a volume to what is to be added to it."""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn


class PatchUNet(nn.Module):
    """A 3D U-Net on patches of voxels.

    Volumes come with all voxels of a patch as channels of one place (`patches`), so that the network works on a
    grid that is coarser by `patch` and yet sees and returns every voxel. Blocks are those of nnU-Net (Isensee et al.
    2021, doi 10.1038/s41592-020-01008-z: two convolutions with instance normalisation, strides between levels), as
    MONAI has them; its `DynUNet` puts each weight into the state twice. The last convolution begins at zero, so that
    an untrained network changes nothing.

    Args:
        features: channels of the levels, each half as fine as the one before.
        channels: of the input, on the coarse grid.
        patch: voxels along each side of a patch.
        volumes: how many are returned.
    """

    def __init__(self, features: Sequence[int], channels: int, patch: int, volumes: int) -> None:
        super().__init__()
        self.patch, self.volumes = patch, volumes
        from monai.networks.blocks.dynunet_block import UnetBasicBlock, UnetUpBlock  # slow to import

        norm = ("instance", {"affine": True})
        self.downs = nn.ModuleList(
            UnetBasicBlock(3, before, own, kernel_size=3, stride=1 if level == 0 else 2, norm_name=norm)
            for level, (before, own) in enumerate(pairwise([channels, *features]))
        )
        self.ups = nn.ModuleList(
            UnetUpBlock(3, before, own, kernel_size=3, stride=2, upsample_kernel_size=2, norm_name=norm)
            for before, own in pairwise(reversed(features))
        )
        self.last = nn.Conv3d(features[0], volumes * patch**3, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(cast(Tensor, self.last.bias))

    def forward(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b v Z Y X"]:
        """Return the volumes, in float32."""
        levels = []
        for down in self.downs:
            x = down(x)
            levels.append(x)
        x = levels.pop()
        for up in self.ups:
            x = up(x, levels.pop())
        parts = self.last(x).float().chunk(self.volumes, dim=1)
        return torch.stack([from_patches(part, self.patch) for part in parts], 1)


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
