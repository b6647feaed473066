"""2DCNN: an image whose channels are the slices of the volume."""

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from voxray.geometry import VolumeGrid
from voxray.methods.one_pass import Angles, OnePass, OnePassConfig, side_of
from voxray.methods.stages import Batch, StageOptions
from voxray.nets.convolution import convolution
from voxray.nets.lifting import from_slices


class Cnn2dConfig(OnePassConfig):
    """2DCNN; the defaults are the sizes of X2CT's code, but for the second view."""

    angles_deg: Angles = Field(
        default=(0.0, 90.0), strict=False, min_length=1,
        description="primary angles of the views, a channel each; the original has one view",
    )  # fmt: skip
    width: int = Field(default=256, gt=0, multiple_of=8, description="channels of most layers")
    levels: int = Field(default=4, gt=0, description="how often images are halved, after the first convolution")
    training: StageOptions = StageOptions(
        steps=22_900, batch_size=4, learning_rate=2e-4, betas=(0.5, 0.99), clip=None, decay="cosine"
    )


class Cnn2d(OnePass):
    """Single-image tomography (Henzler et al. 2018, arXiv 1710.04867), as the code of X2CT-GAN has it.

    The depth of a volume is the channels of an image, in the frame of the first view, along its rays (`from_slices`).
    A second view is a second channel, as its image is: rows are along the body in both. DVG-Diffusion has results of
    two views, and does not say how.
    """

    name = "cnn2d"
    Config = Cnn2dConfig

    def __init__(self, config: Cnn2dConfig, grid: VolumeGrid) -> None:
        side = side_of(self.name, grid, config.coarser, 2**config.levels)
        network = _Network(len(config.angles_deg), config.width, config.levels, side)
        super().__init__(config, grid, network, 2 * side, config.angles_deg)

    def draw(self, seen: Batch) -> Float[Tensor, "b z y x"]:
        """Return the slices that the network draws, as a volume."""
        return from_slices(self.network(seen["images"]), self.shown(seen)[:, 0], self.coarse.shape)


class _Network(nn.Module):
    """An encoder and a decoder of residual blocks, whose maps of one size are added."""

    def __init__(self, views: int, width: int, levels: int, slices: int) -> None:
        super().__init__()
        self.begin = nn.Sequential(
            convolution(2, views, width // 4, norm="batch", kernel=7, stride=2),
            _Residual(width // 4, width // 2), _Residual(width // 2, width // 2), _Residual(width // 2, width // 2),
            _Residual(width // 2, width),
        )  # fmt: skip

        def blocks(count: int) -> list[nn.Module]:
            return [_Residual(width, width) for _ in range(count)]

        self.downs = nn.ModuleList(nn.Sequential(nn.MaxPool2d(2), *blocks(3)) for _ in range(levels - 1))
        self.middle = nn.Sequential(nn.MaxPool2d(2), *blocks(5), _doubling(width))
        self.ups = nn.ModuleList(nn.Sequential(*blocks(1), _doubling(width)) for _ in range(levels - 1))
        self.end = nn.Sequential(
            convolution(2, width, width, norm="batch", kernel=1), nn.Conv2d(width, slices, 1), nn.ReLU()
        )

    def forward(self, images: Float[Tensor, "b v P P"]) -> Float[Tensor, "b d p p"]:
        x = self.begin(images)
        kept = []
        for down in self.downs:
            x = down(x)
            kept.append(x)
        x = self.middle(x)
        for up in self.ups:
            x = up(x + kept.pop())
        found: Tensor = self.end(x)
        return found


class _Residual(nn.Module):
    """Convolutions of 1x1, 3x3 and 3x3, and a shortcut, which is a convolution of 1x1 where widths differ."""

    def __init__(self, given: int, own: int) -> None:
        super().__init__()
        middle = given if given != own else own // 2
        self.block = nn.Sequential(
            convolution(2, given, middle, norm="batch", kernel=1), convolution(2, middle, middle, norm="batch"),
            convolution(2, middle, own, norm="batch"),
        )  # fmt: skip
        self.shortcut = nn.Identity() if given == own else convolution(2, given, own, norm="batch", kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.block(x) + self.shortcut(x))


def _doubling(channels: int) -> nn.Module:
    return nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1, groups=channels)
