"""A 2D U-Net that is guided at several levels by maps of these levels' sizes."""

import math
from collections.abc import Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

Guide = Literal["spade", "concat"]


class GuidedUNet(nn.Module):
    """The denoiser of DX2CT: residual blocks, self-attention at coarse levels, and conditions at the coarsest ones.

    Conditions enter every block of their level, in encoder, middle and decoder: by SPADE (Park et al. 2019, arXiv
    1903.07291; for diffusion: Wang et al. 2022, arXiv 2207.00050), or by concatenation. The blocks are MONAI's; its own
    SPADE U-Net has SPADE in the decoder alone, and one condition for all levels.

    Args:
        channels: of the levels, each half as fine as the one before.
        conditions: channels of the maps that guide the last levels, from fine to coarse.
        blocks: residual blocks a level; one more in the decoder.
        attention: how many of the last levels have self-attention; the middle always has.
        guide: how conditions enter.
        spade_channels: hidden channels of each SPADE.
    """

    def __init__(
        self,
        channels: Sequence[int] = (64, 64, 128, 192, 256),
        conditions: Sequence[int] = (256, 256, 256),
        blocks: int = 2,
        attention: int = 2,
        guide: Guide = "spade",
        spade_channels: int = 128,
    ) -> None:
        super().__init__()
        self.width, self.levels, self.guided = channels[0], len(channels), len(channels) - len(conditions)
        time = 4 * self.width
        self.time = nn.Sequential(nn.Linear(self.width, time), nn.SiLU(), nn.Linear(time, time))

        def block(level: int, given: int, *, attend: bool = False) -> nn.Module:
            told = conditions[level - self.guided] if level >= self.guided else 0
            return _Block(
                given, channels[level], time, told, guide, spade_channels, attend or level >= self.levels - attention
            )

        self.first = nn.Conv2d(1, channels[0], 3, padding=1)
        kept, now = [channels[0]], channels[0]
        self.downs, self.shrink = nn.ModuleList(), nn.ModuleList()
        for level, own in enumerate(channels):
            self.downs.append(nn.ModuleList(block(level, own if i else now) for i in range(blocks)))
            kept += [own] * blocks
            if level + 1 < self.levels:
                self.shrink.append(nn.Conv2d(own, own, 3, stride=2, padding=1))
                kept.append(own)
            now = own
        self.middle = nn.ModuleList(block(self.levels - 1, now, attend=i == 0) for i in range(2))
        self.ups, self.grow = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(self.levels)):
            own = channels[level]
            self.ups.append(
                nn.ModuleList(block(level, (own if i else now) + kept.pop()) for i in range(blocks + 1))
            )  # fmt: skip
            if level > 0:
                self.grow.append(nn.Conv2d(own, own, 3, padding=1))
            now = own
        self.last = nn.Sequential(nn.GroupNorm(math.gcd(32, now), now), nn.SiLU(), nn.Conv2d(now, 1, 3, padding=1))

    def forward(
        self, x: Float[Tensor, "b 1 h w"], t: Int64[Tensor, " b"], conditions: Sequence[Float[Tensor, "b _ _ _"]]
    ) -> Float[Tensor, "b 1 h w"]:
        """Denoise slices.

        Args:
            x: noisy slices.
            t: the step of each, from 0.
            conditions: maps of the sizes of the last levels, from fine to coarse.
        """
        from monai.networks.nets.diffusion_model_unet import get_timestep_embedding

        time = self.time(get_timestep_embedding(t, self.width).to(x))
        maps: list[Tensor | None] = [None] * self.guided
        maps += conditions
        x = self.first(x)
        kept = [x]
        for level, (blocks, told) in enumerate(zip(_levels(self.downs), maps, strict=True)):
            for block in blocks:
                x = block(x, time, told)
                kept.append(x)
            if level + 1 < self.levels:
                x = self.shrink[level](x)
                kept.append(x)
        for block in self.middle:
            x = block(x, time, maps[-1])
        for i, (blocks, told) in enumerate(zip(_levels(self.ups), reversed(maps), strict=True)):
            for block in blocks:
                x = block(torch.cat([x, kept.pop()], 1), time, told)
            if i + 1 < self.levels:
                x = self.grow[i](F.interpolate(x, scale_factor=2.0, mode="nearest"))
        found: Tensor = self.last(x)
        return found


def _levels(modules: nn.ModuleList) -> list[nn.ModuleList]:
    """Tell the type checker what is in it."""
    return [cast(nn.ModuleList, blocks) for blocks in modules]


class _Block(nn.Module):
    """A residual block that is told the time, and a condition where its level has one; and self-attention."""

    def __init__(
        self, given: int, own: int, time: int, told: int, guide: Guide, spade_channels: int, attend: bool
    ) -> None:
        super().__init__()
        from monai.networks.blocks.spatialattention import SpatialAttentionBlock  # slow to import
        from monai.networks.nets.diffusion_model_unet import DiffusionUNetResnetBlock
        from monai.networks.nets.spade_diffusion_model_unet import SPADEDiffResBlock

        self.concat = bool(told) and guide == "concat"
        given += told if self.concat else 0
        groups = math.gcd(32, given, own)
        self.spade = bool(told) and not self.concat
        if self.spade:
            self.residual: nn.Module = SPADEDiffResBlock(
                2, given, time, told, own, norm_num_groups=groups, spade_intermediate_channels=spade_channels
            )
        else:
            self.residual = DiffusionUNetResnetBlock(2, given, time, own, norm_num_groups=groups)
        per_head = math.gcd(32, own)
        self.attention = SpatialAttentionBlock(2, own, per_head, norm_num_groups=per_head) if attend else nn.Identity()

    def forward(self, x: Tensor, time: Tensor, told: Tensor | None) -> Tensor:
        if self.concat and told is not None:
            x = torch.cat([x, told], 1)
        x = self.residual(x, time, told) if self.spade else self.residual(x, time)
        found: Tensor = self.attention(x)
        return found
