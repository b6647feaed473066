"""A latent diffusion that knows nothing of X-rays, and a ControlNet that steers it."""

import math
from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from voxray.nets.isotropic_unet import IsotropicUNet

_HEAD = 32


class ControlledUNet(nn.Module):
    """A U-Net of latents, and a trainable copy of its way down whose features are added to its own.

    MONAI's `ControlNet` on its `DiffusionModelUNet` (Zhang et al., "Adding conditional control to text-to-image
    diffusion models", 2023, arXiv 2302.05543). What is copied, and the convolutions of zeros through which it speaks,
    are theirs: before it has learned, the ControlNet changes nothing. Its conditions come at the size of the latents.

    The U-Net's own last convolution, which MONAI begins at zero, begins as differences of two channels: through zeros,
    a ControlNet on a U-Net that has not learned could not say anything.

    Args:
        latents: channels of what is denoised.
        conditions: channels of what the ControlNet is told.
        channels: one a level.
        blocks: residual blocks a level.
    """

    def __init__(self, latents: int, conditions: int, channels: Sequence[int], blocks: int) -> None:
        super().__init__()
        from monai.networks.nets import ControlNet  # slow to import

        attention = [False] * (len(channels) - 1) + [True]
        self.prior = IsotropicUNet(latents, latents, channels, blocks, attention, _HEAD)
        last = cast(nn.Conv3d, self.prior.net.out[-1].conv)
        _begin_as_differences(last)
        self.control = ControlNet(
            spatial_dims=3,
            in_channels=latents,
            channels=tuple(channels),
            num_res_blocks=blocks,
            attention_levels=tuple(attention),
            num_head_channels=_HEAD,
            norm_num_groups=math.gcd(8, *channels),
            conditioning_embedding_in_channels=conditions,
            conditioning_embedding_num_channels=(channels[0],),
            use_flash_attention=True,
        )

    def copy_prior(self) -> None:
        """Begin the ControlNet as the U-Net's way down is."""
        shared = self.control.state_dict().keys() & self.prior.net.state_dict().keys()
        weights = {name: tensor for name, tensor in self.prior.net.state_dict().items() if name in shared}
        self.control.load_state_dict(weights, strict=False)

    def forward(
        self, x: Float[Tensor, "b c d h w"], t: Int[Tensor, " b"], conditions: Float[Tensor, "b k d h w"]
    ) -> Float[Tensor, "b c d h w"]:
        """Return what the U-Net predicts where the ControlNet has its say."""
        down, middle = self.control(x, t, conditions)
        found: Tensor = self.prior.net(
            x, t, down_block_additional_residuals=tuple(down), mid_block_additional_residual=middle
        )
        return found


@torch.no_grad()
def _begin_as_differences(convolution: nn.Conv3d) -> None:
    """Make each output the difference of two inputs; behind SiLU, silu(a) - silu(-a) = a has either sign."""
    convolution.weight.zero_()
    middle, half = convolution.kernel_size[0] // 2, convolution.in_channels // 2
    for i in range(convolution.out_channels):
        convolution.weight[i, i % half, middle, middle, middle] = 1
        convolution.weight[i, i % half + half, middle, middle, middle] = -1
