"""The network of a block and of the texture: from what is known of a volume to what is to be added to it."""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from voxray.nets.patches import from_patches
from voxray.nets.plain_unet import PlainUNet


class PatchUNet(PlainUNet):
    """A 3D U-Net on patches of voxels.

    Volumes come with all voxels of a patch as channels of one place (`patches`), so that the network works on a
    grid that is coarser by `patch` and yet sees and returns every voxel. The last convolution begins at zero, so that
    an untrained network changes nothing.

    Args:
        features: channels of the levels, each half as fine as the one before.
        channels: of the input, on the coarse grid.
        patch: voxels along each side of a patch.
        volumes: how many are returned.
    """

    def __init__(self, features: Sequence[int], channels: int, patch: int, volumes: int) -> None:
        super().__init__(3, features, channels)
        self.patch, self.volumes = patch, volumes
        self.last = nn.Conv3d(features[0], volumes * patch**3, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(cast(Tensor, self.last.bias))

    def forward(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b v Z Y X"]:
        """Return the volumes, in float32."""
        parts = self.last(super().forward(x)).float().chunk(self.volumes, dim=1)
        return torch.stack([from_patches(part, self.patch) for part in parts], 1)
