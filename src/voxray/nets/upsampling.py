"""Volumes on voxels half as large."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from voxray.nets.patches import from_patches

# What is added to the interpolated volume is of this size; with it, the first steps of Adam do not go far beyond.
_CHANGE = 0.05


def doubled(volumes: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b c 2z 2y 2x"]:
    """Interpolate volumes to voxels half as large that fill the same box."""
    return F.interpolate(volumes, scale_factor=2, mode="trilinear", align_corners=False)


class DetailNet(nn.Module):
    """What interpolation leaves out of a volume on voxels half as large.

    Residual blocks without normalisation on the given voxels (EDSR: Lim et al. 2017, arXiv 1707.02921), of MONAI's
    parts, then a convolution that says eight voxels for each (sub-pixel convolution: Shi et al. 2016, arXiv
    1609.05158). So nearly all work is done on an eighth of the voxels. Before it has learned, it says nothing.

    Args:
        features: channels.
        blocks: residual blocks, of two convolutions each.
    """

    def __init__(self, features: int, blocks: int) -> None:
        super().__init__()
        from monai.networks.blocks import ResidualUnit  # slow to import

        self.first = nn.Conv3d(1, features, 3, padding=1)
        self.blocks = nn.Sequential(
            *(
                ResidualUnit(3, features, features, adn_ordering="A", act="RELU", last_conv_only=True)
                for _ in range(blocks)
            )
        )
        self.last = nn.Conv3d(features, 8, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        if self.last.bias is not None:
            nn.init.zeros_(self.last.bias)

    def forward(self, unit: Float[Tensor, "b 1 z y x"]) -> Float[Tensor, "b 8 z y x"]:
        """Return what to add to each of the eight voxels of `doubled` that a voxel becomes, in float32."""
        x = self.first(unit)
        return _CHANGE * self.last(x + self.blocks(x)).float()


def placed(detail: Float[Tensor, "b 8 z y x"]) -> Float[Tensor, "b 1 2z 2y 2x"]:
    """Bring what `DetailNet` says to its places."""
    return from_patches(detail, 2)[:, None]
