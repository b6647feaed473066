"""The generator: an encoder and a decoder for each view, with links along its rays, and a decoder that fuses them."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from voxray.methods.x2ct.config import GeneratorConfig
from voxray.nets.convolution import convolution
from voxray.nets.lifting import along_rays

_convolution = partial(convolution, norm="instance")


class Generator(nn.Module):
    """X2CT-GAN's generator (Ying et al. 2019, arXiv 1905.06902), for any number of views.

    Each view has an encoder, links and a decoder of its own. What the decoders of several views hold at a level is
    averaged, goes back to each of them, and on to one more decoder, which draws the volume.

    The original copies a 2D map along the axis that its view looks along, in a frame turned for each view, and turns
    back to average. Here each voxel has what the ray through it shows (`along_rays`), in the frame of the CT: for
    parallel beams along an axis the same network, but for the order of its weights; right for any other beam.

    Args:
        config: sizes.
        views: how many.
        side: voxels along each axis, and pixels of an X-ray.
    """

    def __init__(self, config: GeneratorConfig, views: int, side: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(_Branch(config, side) for _ in range(views))
        self.decoders = nn.ModuleList(_Decoder(config.widths) for _ in range(views))
        self.fusion = _Decoder(config.widths) if views > 1 else None
        finest = config.widths[0]
        last = nn.Conv3d(finest, 1, 7, padding=3)
        assert last.bias is not None
        # Ours: about the mean of a volume. Begun at 0, some nets come to draw nothing above 0, and then learn no more.
        nn.init.constant_(last.bias, 0.3)
        self.draw = nn.Sequential(_convolution(3, finest, finest), last, nn.ReLU())

    def forward(self, images: Float[Tensor, "b v p p"], pinholes: Float[Tensor, "b v 3 4"]) -> Float[Tensor, "b z y x"]:
        """Return the volumes; no number is below 0."""
        told = [branch(images[:, i, None], pinholes[:, i, None]) for i, branch in enumerate(self.branches)]
        first, *levels = zip(*told, strict=True)  # from coarse to fine, of each view
        shared = fused = _mean(first)
        for level, links in enumerate(levels):
            pairs = zip(self.decoders, links, strict=True)
            shared = _mean([decoder(level, shared, link) for decoder, link in pairs])
            fused = shared if self.fusion is None else self.fusion(level, fused, shared)
        drawn: Tensor = self.draw(fused)
        return drawn[:, 0]


class DenseEncoder(nn.Module):
    """Dense blocks (Huang et al. 2017, arXiv 1608.06993) as MONAI has them, each after a convolution of stride 2.

    Args:
        stem: channels of the first convolution.
        blocks: layers of each dense block.
        growth: channels that a layer adds, from a bottleneck of four times as many.
    """

    def __init__(self, stem: int, blocks: Sequence[int], growth: int) -> None:
        super().__init__()
        from monai.networks.nets.densenet import _DenseBlock  # slow to import

        self.first = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(1, stem, 7))
        self.stages, self.channels, now = nn.ModuleList(), [stem], stem
        for i, layers in enumerate(blocks):
            stage = nn.Sequential(
                *_before(now), nn.Conv2d(now, now, 3, stride=2, padding=1, bias=False),
                _DenseBlock(2, layers, now, 4, growth, 0.0, norm="instance"),
            )  # fmt: skip
            now += layers * growth
            if i + 1 < len(blocks):
                stage.extend([*_before(now), nn.Conv2d(now, now // 2, 1, bias=False)])
                now //= 2
            self.stages.append(stage)
            self.channels.append(now)
        self.last = nn.Sequential(*_before(now), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x: Float[Tensor, "b 1 p p"]) -> tuple[list[Float[Tensor, "b c h w"]], Float[Tensor, "b c"]]:
        """Return maps from fine to coarse, but for the coarsest, of which it is the mean."""
        x = self.first(x)
        maps = [x]
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[:-1], self.last(maps[-1])


class _Branch(nn.Module):
    """The encoder of a view, and its links.

    Connection-A is fully connected, from the mean of the coarsest map to the coarsest level of the decoder;
    connection-B leads each other map along the rays of the view.
    """

    def __init__(self, config: GeneratorConfig, side: int) -> None:
        super().__init__()
        *widths, coarsest = config.widths
        self.sides = [side >> level for level in range(len(config.widths))]
        self.encoder = DenseEncoder(config.stem, config.blocks, config.growth)
        *channels, pooled = self.encoder.channels
        self.whole = nn.Sequential(
            nn.Linear(pooled, coarsest * self.sides[-1] ** 3), nn.Dropout(config.dropout), nn.ReLU(),
            nn.Unflatten(1, (coarsest, *[self.sides[-1]] * 3)),
        )  # fmt: skip
        self.flat = nn.ModuleList(_convolution(2, *pair) for pair in zip(channels, widths, strict=True))
        self.deep = nn.ModuleList(_convolution(3, own, own) for own in widths)

    def forward(self, image: Float[Tensor, "b 1 p p"], pinholes: Float[Tensor, "b 1 3 4"]) -> list[Tensor]:
        """Return what each level of the decoder is told, from coarse to fine."""
        maps, pooled = self.encoder(image)
        links = [
            deep(along_rays(flat(x)[:, None], pinholes, [side] * 3)[:, 0])
            for flat, deep, x, side in zip(self.flat, self.deep, maps, self.sides, strict=False)
        ]
        return [self.whole(pooled), *reversed(links)]


class _Decoder(nn.Module):
    """Doubles the volume several times, and joins to each level what it is told.

    Args:
        widths: channels of the levels, from fine to coarse.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.rise, self.joining = nn.ModuleList(), nn.ModuleList()
        for level, (coarse, fine) in enumerate(pairwise(reversed(widths))):
            refine = [_convolution(3, coarse, coarse)] if level else []
            self.rise.append(nn.Sequential(*refine, _convolution(3, coarse, fine, stride=2, transposed=True)))
            self.joining.append(_convolution(3, 2 * fine, fine))

    def forward(self, level: int, held: Float[Tensor, "b c z y x"], told: Float[Tensor, "b d Z Y X"]) -> Tensor:
        """Return what it holds at a level, the first being one above the coarsest."""
        found: Tensor = self.joining[level](torch.cat([self.rise[level](held), told], 1))
        return found


def _before(channels: int) -> list[nn.Module]:
    return [nn.InstanceNorm2d(channels), nn.ReLU()]


def _mean(volumes: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(volumes)).mean(0)
