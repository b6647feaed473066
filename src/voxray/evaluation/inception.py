"""InceptionV3 (Szegedy et al. 2015, arXiv 1512.00567) up to its last pooling, whose 2048 features FID compares.

Written out because torchvision does not work with every build of PyTorch. Layers have the names of torchvision's, so
that two published files of weights fit:

| file | whose | pooling |
|---|---|---|
| `pt_inception-2015-12-05-6726825d.pth` | TensorFlow's of 2015, ported by pytorch-fid; what papers use | its own |
| `inception_v3_google-0cc3c7bd.pth` | torchvision's | as published |

TensorFlow's network of 2015 does not count the zeros around an image in its averages, and takes the maximum in its last
block (pytorch-fid's `FIDInceptionA` to `FIDInceptionE_2`); features of the two are not comparable.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["SIDE", "Inception", "Mixed", "inception_features"]

SIDE = 299  # pixels that the network was trained with

# A convolution: channels in and out, (height, width) of its kernel, stride, (height, width) of the zeros around it.
Shape = tuple[int, int, tuple[int, int], int, tuple[int, int]]
# What follows one after another; where two names stand together, both are given the same, and are joined.
Chain = Sequence[str | tuple[str, str]]
Pool = Callable[[Tensor], Tensor]


class Convolution(nn.Module):
    """A convolution without bias, batch normalisation and ReLU.

    Args:
        shape: see `Shape`.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        inputs, outputs, kernel, stride, padding = shape
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        """Return the features."""
        out: Tensor = self.bn(self.conv(x)).relu()
        return out


class Mixed(nn.Module):
    """A block: branches side by side, the last of them behind a pooling.

    Args:
        convolutions: by their names.
        chains: the branches, in the order in which their channels are joined.
        pool: the pooling; a convolution `branch_pool` follows where there is one.
    """

    def __init__(self, convolutions: Mapping[str, Shape], chains: Sequence[Chain], pool: Pool) -> None:
        super().__init__()
        for name, shape in convolutions.items():
            self.add_module(name, Convolution(shape))
        self.chains, self.pool = chains, pool

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        """Return the joined features of the branches."""
        pooled = self._follow([name for name in ("branch_pool",) if hasattr(self, name)], self.pool(x))
        return torch.cat([*(self._follow(chain, x) for chain in self.chains), pooled], 1)

    def _follow(self, chain: Chain, x: Tensor) -> Tensor:
        for step in chain:
            if isinstance(step, str):
                x = self.get_submodule(step)(x)
            else:
                x = torch.cat([self.get_submodule(name)(x) for name in step], 1)
        return x


class Inception(nn.Module):
    """InceptionV3 without what classifies.

    Args:
        ported: pool as TensorFlow's network of 2015 did.
    """

    def __init__(self, *, ported: bool) -> None:
        super().__init__()

        def average(x: Tensor) -> Tensor:
            return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=not ported)

        def highest(x: Tensor) -> Tensor:
            return F.max_pool2d(x, 3, stride=1, padding=1)

        self.Conv2d_1a_3x3 = Convolution((3, 32, (3, 3), 2, (0, 0)))
        self.Conv2d_2a_3x3 = Convolution(_square(32, 32, 3))
        self.Conv2d_2b_3x3 = Convolution(_same(32, 64, 3, 3))
        self.Conv2d_3b_1x1 = Convolution(_square(64, 80, 1))
        self.Conv2d_4a_3x3 = Convolution(_square(80, 192, 3))
        for name, inputs, pooled in (("Mixed_5b", 192, 32), ("Mixed_5c", 256, 64), ("Mixed_5d", 288, 64)):
            self.add_module(name, _block_35(inputs, pooled, average))
        self.Mixed_6a = _to_17()
        for name, narrow in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
            self.add_module(name, _block_17(narrow, average))
        self.Mixed_7a = _to_8()
        self.Mixed_7b = _block_8(1280, average)
        self.Mixed_7c = _block_8(2048, highest if ported else average)

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 2048"]:
        """Return the features of images of -1..1; 299 x 299 pixels as in training, at least 75."""
        for name, layer in self.named_children():
            if name in ("Conv2d_3b_1x1", "Mixed_5b"):
                x = F.max_pool2d(x, 3, stride=2)
            x = layer(x)
        return x.mean((2, 3))


def inception_features(model: Inception, images: Float[Tensor, "n h w"]) -> Float[Tensor, "n 2048"]:
    """Return the features of grey images of 0..1, as pytorch-fid computes them.

    Three channels alike, brought to 299 x 299 pixels by linear interpolation, and to -1..1.
    """
    shown = F.interpolate(images[:, None], size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    found: Tensor = model(2 * shown.expand(-1, 3, -1, -1) - 1)
    return found


# ---------------------------------------------------------------- blocks, by the size of the image in them


def _square(inputs: int, outputs: int, side: int, stride: int = 1) -> Shape:
    return inputs, outputs, (side, side), stride, (0, 0)


def _same(inputs: int, outputs: int, height: int, width: int) -> Shape:
    return inputs, outputs, (height, width), 1, (height // 2, width // 2)


def _highest_of_two(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2)


def _block_35(inputs: int, pooled: int, pool: Pool) -> Mixed:
    shapes = {
        "branch1x1": _square(inputs, 64, 1),
        "branch5x5_1": _square(inputs, 48, 1),
        "branch5x5_2": _same(48, 64, 5, 5),
        "branch3x3dbl_1": _square(inputs, 64, 1),
        "branch3x3dbl_2": _same(64, 96, 3, 3),
        "branch3x3dbl_3": _same(96, 96, 3, 3),
        "branch_pool": _square(inputs, pooled, 1),
    }
    doubled = ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
    return Mixed(shapes, (("branch1x1",), ("branch5x5_1", "branch5x5_2"), doubled), pool)


def _to_17() -> Mixed:
    shapes = {
        "branch3x3": _square(288, 384, 3, 2),
        "branch3x3dbl_1": _square(288, 64, 1),
        "branch3x3dbl_2": _same(64, 96, 3, 3),
        "branch3x3dbl_3": _square(96, 96, 3, 2),
    }
    return Mixed(shapes, (("branch3x3",), ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")), _highest_of_two)


def _block_17(narrow: int, pool: Pool) -> Mixed:
    shapes = {
        "branch1x1": _square(768, 192, 1),
        "branch7x7_1": _square(768, narrow, 1),
        "branch7x7_2": _same(narrow, narrow, 1, 7),
        "branch7x7_3": _same(narrow, 192, 7, 1),
        "branch7x7dbl_1": _square(768, narrow, 1),
        "branch7x7dbl_2": _same(narrow, narrow, 7, 1),
        "branch7x7dbl_3": _same(narrow, narrow, 1, 7),
        "branch7x7dbl_4": _same(narrow, narrow, 7, 1),
        "branch7x7dbl_5": _same(narrow, 192, 1, 7),
        "branch_pool": _square(768, 192, 1),
    }
    single = tuple(f"branch7x7_{i}" for i in (1, 2, 3))
    doubled = tuple(f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5))
    return Mixed(shapes, (("branch1x1",), single, doubled), pool)


def _to_8() -> Mixed:
    shapes = {
        "branch3x3_1": _square(768, 192, 1),
        "branch3x3_2": _square(192, 320, 3, 2),
        "branch7x7x3_1": _square(768, 192, 1),
        "branch7x7x3_2": _same(192, 192, 1, 7),
        "branch7x7x3_3": _same(192, 192, 7, 1),
        "branch7x7x3_4": _square(192, 192, 3, 2),
    }
    chains = (("branch3x3_1", "branch3x3_2"), tuple(f"branch7x7x3_{i}" for i in (1, 2, 3, 4)))
    return Mixed(shapes, chains, _highest_of_two)


def _block_8(inputs: int, pool: Pool) -> Mixed:
    shapes = {
        "branch1x1": _square(inputs, 320, 1),
        "branch3x3_1": _square(inputs, 384, 1),
        "branch3x3_2a": _same(384, 384, 1, 3),
        "branch3x3_2b": _same(384, 384, 3, 1),
        "branch3x3dbl_1": _square(inputs, 448, 1),
        "branch3x3dbl_2": _same(448, 384, 3, 3),
        "branch3x3dbl_3a": _same(384, 384, 1, 3),
        "branch3x3dbl_3b": _same(384, 384, 3, 1),
        "branch_pool": _square(inputs, 192, 1),
    }
    single = ("branch3x3_1", ("branch3x3_2a", "branch3x3_2b"))
    doubled = ("branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b"))
    return Mixed(shapes, (("branch1x1",), single, doubled), pool)
