"""The 3D U-Net that keeps a volume coherent by attention within shifted windows."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from voxray.methods.diffux2ct.config import DenoiserConfig, WindowsConfig
from voxray.nets.patches import from_patches, patches


class CoherentUNet(nn.Module):
    """Residual blocks that are told the time, and pairs of Swin blocks at the coarse levels.

    Conditions are added to what enters their level on the way down; skip connections carry them on. The paper has "a
    3D U-Net with shifted-window attention"; the rest is ours: MONAI's residual blocks of diffusion models, and its
    Swin layer (Liu et al. 2021, arXiv 2103.14030: windows, then the same shifted by half, so that neighbours meet)
    after the blocks of a level, where windows of 4^3 places reach furthest for their price. The last convolution begins
    at zero.

    Args:
        config: sizes.
    """

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        channels, self.patch, self.checkpointing = config.channels, config.patch, config.checkpointing
        self.width = channels[0]
        time = 4 * self.width
        self.time = nn.Sequential(nn.Linear(self.width, time), nn.SiLU(), nn.Linear(time, time))
        self.first = nn.Conv3d(self.patch**3, channels[0], 3, padding=1)

        def level(number: int, given: int) -> _Level:
            windows = config.windows
            if windows is not None and number < len(channels) - windows.levels:
                windows = None
            return _Level(given, channels[number], time, config.blocks, windows)

        last = len(channels) - 1
        self.downs = nn.ModuleList(level(i, n) for i, n in enumerate(channels))
        self.shrink = nn.ModuleList(nn.Conv3d(channels[i], channels[i + 1], 3, 2, 1) for i in range(last))
        self.grow = nn.ModuleList(nn.Conv3d(channels[i + 1], channels[i], 3, 1, 1) for i in reversed(range(last)))
        self.ups = nn.ModuleList(level(i, 2 * channels[i]) for i in reversed(range(last)))
        self.norm = nn.GroupNorm(math.gcd(8, channels[0]), channels[0])
        self.last = nn.Conv3d(channels[0], self.patch**3, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        if self.last.bias is not None:
            nn.init.zeros_(self.last.bias)

    def forward(
        self, x: Float[Tensor, "b Z Y X"], t: Int64[Tensor, " b"], conditions: Sequence[Float[Tensor, "b _ _ _ _"]]
    ) -> Float[Tensor, "b Z Y X"]:
        """Denoise volumes; returns what the process says that is predicted, in float32.

        Args:
            x: noisy volumes.
            t: the step of each, from 0.
            conditions: of each level, from fine to coarse, with the level's channels and size.
        """
        from monai.networks.nets.diffusion_model_unet import get_timestep_embedding

        time = self.time(get_timestep_embedding(t, self.width).to(x))
        x = self.first(patches(x[:, None], self.patch))
        skips = []
        for i, (level, told) in enumerate(zip(self.downs, conditions, strict=True)):
            x = self._run(level, x + told.to(x), time)
            skips.append(x)
            x = self.shrink[i](x) if i < len(self.shrink) else x
        skips.pop()
        for grow, level in zip(self.grow, self.ups, strict=True):
            x = grow(F.interpolate(x, scale_factor=2.0, mode="nearest"))
            x = self._run(level, torch.cat([x, skips.pop()], 1), time)
        return from_patches(self.last(F.silu(self.norm(x))).float(), self.patch)

    def _run(self, level: nn.Module, x: Tensor, time: Tensor) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            found: Tensor = checkpoint(level, x, time, use_reentrant=False, preserve_rng_state=False)
        else:
            found = level(x, time)
        return found


class _Level(nn.Module):
    """What happens at one resolution: residual blocks, then attention within windows and within shifted ones."""

    def __init__(self, given: int, own: int, time: int, blocks: int, windows: WindowsConfig | None) -> None:
        super().__init__()
        from monai.networks.nets.diffusion_model_unet import DiffusionUNetResnetBlock  # slow to import
        from monai.networks.nets.swin_unetr import BasicLayer

        self.blocks = nn.ModuleList(
            DiffusionUNetResnetBlock(3, before, time, own, norm_num_groups=math.gcd(8, before, own))
            for before in [given, *[own] * (blocks - 1)]
        )
        self.windows: nn.Module = nn.Identity()
        if windows is not None:
            self.windows = BasicLayer(
                own, 2, own // windows.head_channels, (windows.size,) * 3, [0.0, 0.0], qkv_bias=True
            )  # fmt: skip

    def forward(self, x: Float[Tensor, "b c z y x"], time: Float[Tensor, "b e"]) -> Float[Tensor, "b d z y x"]:
        """Apply the level."""
        for block in self.blocks:
            x = block(x, time)
        found: Tensor = self.windows(x)
        return found
