"""The U-Net that treats a volume as a stack of slices: convolutions within slices, attention across them."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from voxray.nets.factorised_attention import DepthAttention, DepthBias, LinearAttention, SliceAttention

GROUPS = 8


class FactorisedUNet(nn.Module):
    """The denoiser of DVG-Diffusion: a video U-Net whose frames are the slices along the first axis of the volume.

    Ho et al., Video Diffusion Models, 2022, arXiv 2204.03458, section 3; sizes and details as in the published weights
    of Xie et al., DVG-Diffusion, 2025, arXiv 2503.17804, whose text gives none of them. Kernels are 1 x 3 x 3, height
    and width are halved between levels, depth never is. Each level has two residual blocks, linear attention within
    slices and attention along depth. It has 134.5 M parameters at width 128 (24 -> 8 channels) and 35.7 M at
    width 64 (8 -> 8).

    Args:
        in_channels: of the input; conditions are concatenated to it by the caller.
        out_channels: of the output.
        width: channels of the first level, a multiple of 8.
        multipliers: of the width, one a level.
        heads: of every attention.
        head_channels: of each head.
        time: whether the net is told the step of the diffusion. The paper's coarse model (eq. 8) is not; its release
            is, and saw random steps in training.

    Attributes:
        checkpointing: trades time for memory in training: activations within a level are computed again when they are
            needed. Off at first.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: int,
        multipliers: tuple[int, ...] = (1, 2, 4, 8),
        heads: int = 8,
        head_channels: int = 32,
        time: bool = True,
    ) -> None:
        super().__init__()
        self.checkpointing = False
        self.reduction = 2 ** (len(multipliers) - 1)
        time_channels = 4 * width if time else None
        levels = list(pairwise([width, *(width * multiplier for multiplier in multipliers)]))
        deepest = width * multipliers[-1]

        self.time = TimeEmbedding(width) if time else None
        self.depth_bias = DepthBias(heads)
        self.first = _convolution(in_channels, width)
        self.first_depth = DepthAttention(width, heads, head_channels)
        self.down = nn.ModuleList(Level(a, b, time_channels, heads, head_channels) for a, b in levels)
        self.shrink = nn.ModuleList(nn.Conv3d(b, b, (1, 4, 4), (1, 2, 2), (0, 1, 1)) for _, b in levels[:-1])
        self.middle_first = ResidualBlock(deepest, deepest, time_channels)
        self.middle_slice = SliceAttention(deepest, heads, head_channels)
        self.middle_depth = DepthAttention(deepest, heads, head_channels)
        self.middle_last = ResidualBlock(deepest, deepest, time_channels)
        levels.reverse()
        self.up = nn.ModuleList(Level(2 * b, a, time_channels, heads, head_channels) for a, b in levels)
        self.grow = nn.ModuleList(nn.ConvTranspose3d(a, a, (1, 4, 4), (1, 2, 2), (0, 1, 1)) for a, _ in levels[:-1])
        self.last_block = ResidualBlock(2 * width, width, None)
        self.last = nn.Conv3d(width, out_channels, 1)

    def forward(
        self, x: Float[Tensor, "b c_in d h w"], t: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b c_out d h w"]:
        """Denoise.

        Args:
            x: height and width are multiples of 2 for each level but the last (of 8 with four levels).
            t: the step of each item, from 0; exactly where the net was made with `time`.

        Raises:
            ValueError: if a size or `t` does not fit the net.
        """
        if (t is None) != (self.time is None):
            raise ValueError("The step t is given exactly to a net with time=True.")
        if x.shape[3] % self.reduction or x.shape[4] % self.reduction:
            raise ValueError(f"Height and width must be multiples of {self.reduction}, not {tuple(x.shape[3:])}.")
        time = self.time(t) if self.time is not None else None
        bias = self.depth_bias(x.shape[2])

        first = self.first(x)
        x = self.first_depth(first, bias)
        skips = []
        for i, level in enumerate(self.down):
            x = self._run(level, x, time, bias)
            skips.append(x)
            x = self.shrink[i](x) if i < len(self.shrink) else x
        x = self.middle_first(x, time)
        x = self.middle_depth(self.middle_slice(x), bias)
        x = self.middle_last(x, time)
        for i, level in enumerate(self.up):
            x = self._run(level, torch.cat([x, skips.pop()], dim=1), time, bias)
            x = self.grow[i](x) if i < len(self.grow) else x
        result: Tensor = self.last(self.last_block(torch.cat([x, first], dim=1), None))
        return result

    def _run(self, level: nn.Module, x: Tensor, time: Tensor | None, bias: Tensor) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            result: Tensor = checkpoint(level, x, time, bias, use_reentrant=False, preserve_rng_state=False)
        else:
            result = level(x, time, bias)
        return result


class Level(nn.Module):
    """What happens at one resolution: two residual blocks, attention within slices, attention along depth."""

    def __init__(self, c_in: int, c_out: int, time_channels: int | None, heads: int, head_channels: int) -> None:
        super().__init__()
        self.first = ResidualBlock(c_in, c_out, time_channels)
        self.last = ResidualBlock(c_out, c_out, time_channels)
        self.slice = LinearAttention(c_out, heads, head_channels)
        self.depth = DepthAttention(c_out, heads, head_channels)

    def forward(
        self, x: Float[Tensor, "b c_in d h w"], time: Float[Tensor, "b e"] | None, bias: Float[Tensor, "heads d d"]
    ) -> Float[Tensor, "b c_out d h w"]:
        """Apply the level; `time` is None where its blocks have no time, `bias` is that of depth attention."""
        x = self.last(self.first(x, time), time)
        result: Tensor = self.depth(self.slice(x), bias)
        return result


class ResidualBlock(nn.Module):
    """Two times convolution, group norm and SiLU; time scales and shifts what the first norm returns."""

    def __init__(self, c_in: int, c_out: int, time_channels: int | None) -> None:
        super().__init__()
        self.time = nn.Linear(time_channels, 2 * c_out) if time_channels is not None else None
        self.conv_first = _convolution(c_in, c_out)
        self.norm_first = nn.GroupNorm(GROUPS, c_out)
        self.conv_last = _convolution(c_out, c_out)
        self.norm_last = nn.GroupNorm(GROUPS, c_out)
        self.skip = nn.Conv3d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(
        self, x: Float[Tensor, "b c_in d h w"], time: Float[Tensor, "b e"] | None
    ) -> Float[Tensor, "b c_out d h w"]:
        """Apply the block; `time` is used where the block was made with time channels."""
        h = self.norm_first(self.conv_first(x))
        if self.time is not None and time is not None:
            scale, shift = self.time(F.silu(time))[:, :, None, None, None].chunk(2, dim=1)
            h = h * (scale + 1) + shift
        h = F.silu(self.norm_last(self.conv_last(F.silu(h))))
        result: Tensor = h + self.skip(x)
        return result


class TimeEmbedding(nn.Module):
    """Sines and cosines of the step (Ho et al. 2020, arXiv 2006.11239, appendix B), and two layers upon them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, 4 * width))

    def forward(self, t: Int[Tensor, " b"]) -> Float[Tensor, "b e"]:
        """Embed steps, with wavelengths from 2 pi to 20000 pi."""
        half = self.width // 2
        exponents = torch.arange(half, device=t.device) / (half - 1)
        angles = t[:, None] * torch.exp(-math.log(10000) * exponents)
        result: Tensor = self.layers(torch.cat([angles.sin(), angles.cos()], dim=1))
        return result


def _convolution(c_in: int, c_out: int) -> nn.Conv3d:
    return nn.Conv3d(c_in, c_out, (1, 3, 3), padding=(0, 1, 1))
