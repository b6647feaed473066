"""A plain U-Net, of images or volumes."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn


class PlainUNet(nn.Module):
    """A U-Net of nnU-Net's blocks: two convolutions with instance normalisation, strides between levels.

    Isensee et al. 2021, doi 10.1038/s41592-020-01008-z, as MONAI has them; its `DynUNet` puts each weight into the
    state twice. It returns the features of its finest level.

    Args:
        dimensions: 2 for images, 3 for volumes.
        features: channels of the levels, each half as fine as the one before.
        channels: of the input.
    """

    def __init__(self, dimensions: Literal[2, 3], features: Sequence[int], channels: int) -> None:
        super().__init__()
        from monai.networks.blocks.dynunet_block import UnetBasicBlock, UnetUpBlock  # slow to import

        norm = ("instance", {"affine": True})
        self.downs = nn.ModuleList(
            UnetBasicBlock(dimensions, before, own, kernel_size=3, stride=1 if level == 0 else 2, norm_name=norm)
            for level, (before, own) in enumerate(pairwise([channels, *features]))
        )
        self.ups = nn.ModuleList(
            UnetUpBlock(dimensions, before, own, kernel_size=3, stride=2, upsample_kernel_size=2, norm_name=norm)
            for before, own in pairwise(reversed(features))
        )

    def forward(self, x: Float[Tensor, "b c *place"]) -> Float[Tensor, "b features *place"]:
        """Return the features; sizes are multiples of 2 for each level but the last."""
        levels = []
        for down in self.downs:
            x = down(x)
            levels.append(x)
        x = levels.pop()
        for up in self.ups:
            x = up(x, levels.pop())
        return x
