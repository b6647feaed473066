"""ReconNet: a 2D network that takes an X-ray apart, and a 3D network that puts a volume together."""

from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from voxray.geometry import VolumeGrid
from voxray.methods.one_pass import Angles, OnePass, OnePassConfig, side_of
from voxray.methods.stages import Batch, StageOptions
from voxray.nets.convolution import convolution
from voxray.nets.lifting import from_slices


class ReconnetConfig(OnePassConfig):
    """ReconNet; the defaults are the sizes of its code."""

    angles_deg: Angles = Field(
        default=(0.0, 90.0), strict=False, min_length=1, description="primary angles of the views, a channel each"
    )
    features: tuple[int, ...] = Field(
        default=(256, 512, 1024, 2048, 4096), strict=False, min_length=2,
        description="channels of the 2D network, from fine to coarse; the 3D one begins with half of the last",
    )  # fmt: skip
    training: StageOptions = StageOptions(steps=22_900, batch_size=4, learning_rate=2e-4, clip=None)


class Reconnet(OnePass):
    """ReconNet or PatRecon (Shen, Zhao and Xing 2019, doi 10.1038/s41551-019-0466-4), for any number of views.

    X-rays are channels of one image. The original knows no geometry: a voxel of its result is a row, a column and a
    slice. Here these are of the frame of the first view, along its rays (`from_slices`).
    """

    name = "reconnet"
    Config = ReconnetConfig

    def __init__(self, config: ReconnetConfig, grid: VolumeGrid) -> None:
        side = side_of(self.name, grid, config.coarser, 2 ** len(config.features))
        network = _Network(len(config.angles_deg), config.features, side)
        super().__init__(config, grid, network, side, config.angles_deg)

    def draw(self, seen: Batch) -> Float[Tensor, "b z y x"]:
        """Return the slices that the network draws, as a volume."""
        return from_slices(self.network(seen["images"]), self.shown(seen)[:, 0], self.coarse.shape)


class _Network(nn.Module):
    """Representation, transformation and generation.

    Depth begins with two places and doubles as often as width was halved; in the end a 1x1 convolution brings its
    places, as channels, to the number of slices. What is 2 x 2048 channels before the reshape is the paper's for five
    levels.
    """

    def __init__(self, views: int, features: tuple[int, ...], slices: int) -> None:
        super().__init__()
        last = features[-1]
        self.represent = nn.Sequential(
            *(_Halving(given, own, first=i == 0) for i, (given, own) in enumerate(pairwise([views, *features])))
        )
        self.transform = convolution(2, last, last, norm=None, kernel=1)
        widths = [last // 2 ** (level + 1) for level in range(len(features) + 1)]
        layers = [convolution(3, widths[0], widths[0], norm=None, kernel=1, transposed=True)]
        for level, (before, own) in enumerate(pairwise(widths)):
            layers.append(convolution(3, before, own, norm="batch", kernel=4, stride=2, transposed=True))
            if level > 0:
                layers.append(convolution(3, own, own, norm="batch", transposed=True))
        self.generate = nn.Sequential(*layers, nn.Conv3d(widths[-1], 1, 1))
        self.slices = nn.Conv2d(2 ** (len(features) + 1), slices, 1)

    def forward(self, images: Float[Tensor, "b v p p"]) -> Float[Tensor, "b d p p"]:
        x = self.transform(self.represent(images)).unflatten(1, (-1, 2))
        found: Tensor = self.slices(self.generate(x)[:, 0])
        return found


class _Halving(nn.Module):
    """A convolution of stride 2, and a residual block of one more; the first of the network is not normalised."""

    def __init__(self, given: int, own: int, *, first: bool) -> None:
        super().__init__()
        self.halve = (
            nn.Conv2d(given, own, 4, 2, 1) if first else convolution(2, given, own, norm="batch", kernel=4, stride=2)
        )
        self.refine = nn.Sequential(nn.Conv2d(own, own, 3, padding=1, bias=False), nn.BatchNorm2d(own))

    def forward(self, x: Tensor) -> Tensor:
        x = self.halve(x)
        return F.relu(x + self.refine(x))
