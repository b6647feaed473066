"""The network of a block: from what is known of a volume to what is to be added to it."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from voxray.methods.accord.config import BlockConfig


class Block(nn.Module):
    """A 3D U-Net on patches of voxels.

    Volumes come with all voxels of a patch as channels of one place (`patches`), so that the network works on a
    grid that is coarser by `patch` and yet sees and returns every voxel. MONAI's `SegResNet` (Myronenko 2018, arXiv
    1810.11654, without its autoencoder branch); its last convolution begins at zero, so that an untrained block
    changes nothing.

    Args:
        config: sizes.
        channels: of the input, on the coarse grid.
    """

    def __init__(self, config: BlockConfig, channels: int) -> None:
        super().__init__()
        from monai.networks.nets import SegResNet  # slow to import

        self.net = SegResNet(
            spatial_dims=3, init_filters=config.filters, in_channels=channels, out_channels=config.patch**3,
            blocks_down=config.down, blocks_up=config.up,
        )  # fmt: skip
        last = self.net.conv_final[-1].conv
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b p z y x"]:
        """Return what is to be added, in patches."""
        found: Tensor = self.net(x)
        return found


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
