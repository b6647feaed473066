"""The network of a block: from what is known of a volume to what is to be added to it."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from voxray.methods.accord.config import BlockConfig


class Block(nn.Module):
    """A 3D U-Net on patches of voxels.

    Volumes come with all voxels of a patch as channels of one place (`patches`), so that the network works on a
    grid that is coarser by `patch` and yet sees and returns every voxel. MONAI's `BasicUNet` (after Falk et al. 2019,
    doi 10.1038/s41592-018-0261-2) with instance normalisation. Its last convolution begins at zero, so that an
    untrained block changes nothing.

    Args:
        config: sizes.
        channels: of the input, on the coarse grid.
    """

    def __init__(self, config: BlockConfig, channels: int) -> None:
        super().__init__()
        from monai.networks.nets import BasicUNet  # slow to import

        self.net = BasicUNet(
            spatial_dims=3, in_channels=channels, out_channels=2 * config.patch**3, upsample="nontrainable",
            features=(*config.features, config.features[0]), norm=("instance", {"affine": True}),
        )  # fmt: skip
        nn.init.zeros_(self.net.final_conv.weight)
        nn.init.zeros_(self.net.final_conv.bias)

    def forward(self, x: Float[Tensor, "b c z y x"]) -> tuple[Float[Tensor, "b p z y x"], Float[Tensor, "b p z y x"]]:
        """Return what is to be added and the logarithm of how far off that may be, both in patches."""
        change, spread = self.net(x).float().chunk(2, dim=1)
        return change, spread


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
