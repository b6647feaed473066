"""The U-Net that treats all three axes of a volume alike: MONAI's, behind our call signature."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class IsotropicUNet(nn.Module):
    """A 3D U-Net with residual blocks of 3 x 3 x 3 convolutions, and self-attention at the levels that ask for it.

    MONAI's `DiffusionModelUNet` (after Rombach et al. 2022, arXiv 2112.10752), with PyTorch's fused attention, which
    keeps no matrix of n^2 weights: the attention of 16^3 voxels would be 64 MiB a head in float32. Group norms have 8
    groups as in `FactorisedUNet`, our choice: MONAI's 32 would leave one channel a group at small widths. The last
    convolution, and the last one of each residual block, begin at zero, so a net that was not trained returns zeros.

    Args:
        in_channels: of the input; conditions are concatenated to it by the caller.
        out_channels: of the output.
        channels: one a level; each size is halved between levels.
        blocks: residual blocks a level.
        attention: whether a level has self-attention; the middle always has.
        head_channels: of each head; divides the channels of levels with attention, and the last level's.
        time: whether the net is told the step of the diffusion. Without, MONAI's layers for it are fed step 0: they add
            a constant to each channel, which is learned as one more bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (64, 128, 256),
        blocks: int = 2,
        attention: Sequence[bool] = (False, False, True),
        head_channels: int = 32,
        time: bool = True,
    ) -> None:
        super().__init__()
        from monai.networks.nets import DiffusionModelUNet  # slow to import

        self.time = time
        self.net = DiffusionModelUNet(
            spatial_dims=3,
            in_channels=in_channels,
            out_channels=out_channels,
            channels=tuple(channels),
            num_res_blocks=blocks,
            attention_levels=tuple(attention),
            num_head_channels=head_channels,
            norm_num_groups=math.gcd(8, *channels),
            use_flash_attention=True,
        )

    def forward(
        self, x: Float[Tensor, "b c_in d h w"], t: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b c_out d h w"]:
        """Denoise.

        Args:
            x: sizes are multiples of 2 for each level but the last.
            t: the step of each item, from 0; exactly where the net was made with `time`.

        Raises:
            ValueError: if `t` does not fit the net.
        """
        if (t is None) == self.time:
            raise ValueError("The step t is given exactly to a net with time=True.")
        step = t if t is not None else torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
        result: Tensor = self.net(x, step)
        return result
