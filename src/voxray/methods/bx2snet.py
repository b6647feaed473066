"""BX2S-Net: X-rays tiled through the volume, and a decoder that attends to all scales of the encoder."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from voxray.geometry import VolumeGrid
from voxray.methods.one_pass import Angles, OnePass, OnePassConfig, side_of
from voxray.methods.stages import Batch, Losses, StageOptions
from voxray.nets.convolution import convolution
from voxray.nets.lifting import along_rays

_convolution = partial(convolution, 3, norm="batch")


class Bx2snetConfig(OnePassConfig):
    """BX2S-Net; the defaults are the sizes that are known."""

    angles_deg: Angles = Field(
        default=(0.0, 90.0), strict=False, min_length=1, description="primary angles of the views, a channel each"
    )
    features: tuple[int, ...] = Field(
        default=(32, 64, 128, 256), strict=False, min_length=2, description="of the encoder, from fine to coarse"
    )
    squeeze: int = Field(default=8, gt=0, description="by which the channels' attention is narrower inside")
    training: StageOptions = StageOptions(
        steps=45_800, batch_size=2, learning_rate=1e-3, weight_decay=1e-4, clip=None, decay="cosine"
    )


class Bx2snet(OnePass):
    """BX2S-Net (Chen et al., Comput. Biol. Med. 2023), for any number of views at known angles.

    The paper's text could not be read; this is after descriptions of it. Each X-ray is spread along its rays, a channel
    each. The original draws the shapes of lumbar vertebrae; here the volume itself is drawn, by its absolute error, as
    DVG-Diffusion must have changed it, too. docs/methods/bx2snet.md says what is ours.
    """

    name = "bx2snet"
    Config = Bx2snetConfig

    def __init__(self, config: Bx2snetConfig, grid: VolumeGrid) -> None:
        side = side_of(self.name, grid, config.coarser, 2 ** (len(config.features) - 1))
        network = _Network(len(config.angles_deg), config.features, config.squeeze)
        super().__init__(config, grid, network, side, config.angles_deg)

    def draw(self, seen: Batch) -> Float[Tensor, "b z y x"]:
        """Return what the network makes of the X-rays, spread along their rays."""
        spread = along_rays(seen["images"][:, :, None], self.shown(seen), self.coarse.shape)
        found: Tensor = self.network(spread[:, :, 0])
        return found[:, 0]

    def losses(self, batch: Batch, rng: torch.Generator, critic: nn.Module | None) -> Losses:
        """Return the mean absolute error."""
        return {"loss": F.l1_loss(self.draw(batch).float(), batch["ct"])}


class _Network(nn.Module):
    """VGG's pairs of convolutions down, and guided ones up."""

    def __init__(self, views: int, features: Sequence[int], squeeze: int) -> None:
        super().__init__()
        self.downs = nn.ModuleList(_pair(*given) for given in pairwise([views, *features]))
        self.ups = nn.ModuleList(
            _GuidedUp(features, level, squeeze) for level in reversed(range(len(features) - 1))
        )  # fmt: skip
        self.last = nn.Conv3d(features[0], 1, 1)

    def forward(self, x: Float[Tensor, "b v z y x"]) -> Float[Tensor, "b 1 z y x"]:
        scales = []
        for level, down in enumerate(self.downs):
            x = down(x if level == 0 else F.max_pool3d(x, 2))
            scales.append(x)
        for up in self.ups:
            x = up(x, scales)
        found: Tensor = self.last(x)
        return found


class _GuidedUp(nn.Module):
    """A level of the decoder: features of all scales of the encoder, by attention to channels and places.

    Each scale is brought to the level's size (by the maximum, or interpolation) and width; attention is that of CBAM
    (Woo et al. 2018, arXiv 1807.06521). The paper's own is not known.
    """

    def __init__(self, features: Sequence[int], level: int, squeeze: int) -> None:
        super().__init__()
        self.level, own, above = level, features[level], features[level + 1]
        self.gather = nn.ModuleList(_convolution(given, own) for given in features)
        wide = own * len(features)
        self.channels = nn.Sequential(
            nn.Linear(wide, max(1, wide // squeeze)), nn.ReLU(), nn.Linear(max(1, wide // squeeze), wide)
        )
        self.places = nn.Conv3d(2, 1, 7, padding=3)
        self.fuse = _convolution(wide, wide)
        self.rise = nn.Sequential(nn.Upsample(scale_factor=2.0, mode="trilinear"), _convolution(above, above))
        self.join = _pair(wide + above, own)

    def forward(self, below: Tensor, scales: Sequence[Tensor]) -> Tensor:
        size = scales[self.level].shape[2:]
        guide = torch.cat([net(_sized(x, size)) for net, x in zip(self.gather, scales, strict=True)], 1)
        weights = self.channels(guide.mean((2, 3, 4))) + self.channels(guide.amax((2, 3, 4)))
        guide = guide * weights.sigmoid()[:, :, None, None, None]
        guide = guide * self.places(torch.cat([guide.mean(1, True), guide.amax(1, True)], 1)).sigmoid()
        found: Tensor = self.join(torch.cat([self.fuse(guide), self.rise(below)], 1))
        return found


def _sized(x: Tensor, size: Sequence[int]) -> Tensor:
    if x.shape[2] > size[0]:
        return F.adaptive_max_pool3d(x, tuple(size))
    return F.interpolate(x, tuple(size), mode="trilinear") if x.shape[2] < size[0] else x


def _pair(given: int, own: int) -> nn.Sequential:
    return nn.Sequential(_convolution(given, own), _convolution(own, own))
