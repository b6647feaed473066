"""Which U-Net works on latents."""

from typing import Literal

from pydantic import Field
from torch import nn

from voxray.methods.stages import MethodConfig


class UNetConfig(MethodConfig):
    """A U-Net on the latents: the release's, which mixes depth by attention alone, or MONAI's isotropic one."""

    kind: Literal["factorised", "isotropic"] = Field(default="factorised", description="see voxray.nets")
    width: int = Field(default=128, gt=0, description="of the factorised net's first level; 1, 2, 4, 8 times that")
    channels: tuple[int, ...] = Field(default=(32, 64, 128), strict=False, description="of the isotropic net's levels")
    blocks: int = Field(default=1, gt=0, description="of the isotropic net, a level")
    checkpointing: bool = Field(default=False, description="of the factorised net: less memory in training, slower")

    def build(self, in_channels: int, out_channels: int, *, time: bool) -> nn.Module:
        """Return the net with fresh weights."""
        if self.kind == "factorised":
            from voxray.nets.factorised_unet import FactorisedUNet

            net = FactorisedUNet(in_channels, out_channels, self.width, time=time)
            net.checkpointing = self.checkpointing
            return net
        from voxray.nets.isotropic_unet import IsotropicUNet

        attention = [False] * (len(self.channels) - 1) + [True]
        return IsotropicUNet(in_channels, out_channels, self.channels, self.blocks, attention, time=time)
