"""The convolutions of three networks trained on ImageNet, whose features LPIPS compares.

Layers have the places and the names of torchvision's, so that its published weights fit (`features.0.weight` ...); what
comes after the last convolution is left out. torchvision itself is not used: it does not work with every build of
PyTorch.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["TAPS", "feature_layers"]

# After which layers LPIPS compares (Zhang et al. 2018, released code), with the channels there.
TAPS: dict[str, dict[int, int]] = {
    "vgg": {3: 64, 8: 128, 15: 256, 22: 512, 29: 512},
    "alex": {1: 64, 4: 192, 7: 384, 9: 256, 11: 256},
    "squeeze": {1: 64, 4: 128, 7: 256, 9: 384, 10: 384, 11: 512, 12: 512},
}


def feature_layers(net: str) -> nn.Sequential:
    """Return the layers of `vgg` (VGG16), `alex` (AlexNet) or `squeeze` (SqueezeNet 1.1), for images (n, 3, h, w)."""
    return nn.Sequential(*{"vgg": _vgg16, "alex": _alexnet, "squeeze": _squeezenet}[net]())


class Fire(nn.Module):
    """The block of SqueezeNet (Iandola et al. 2016): few channels, then 1x1 and 3x3 convolutions side by side.

    Args:
        inputs: channels.
        squeezed: channels between.
        expanded: channels of each of the two convolutions.
    """

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
        """Return twice `expanded` channels."""
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x).relu(), self.expand3x3(x).relu()], 1)


def _vgg16() -> Iterator[nn.Module]:
    """Configuration D of Simonyan and Zisserman 2015."""
    channels = 3
    for block, (width, convolutions) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]):
        if block:
            yield nn.MaxPool2d(2)
        for _ in range(convolutions):
            yield nn.Conv2d(channels, width, 3, padding=1)
            yield nn.ReLU()
            channels = width


def _alexnet() -> Iterator[nn.Module]:
    """Krizhevsky 2014, "One weird trick", as in torchvision."""
    yield from (nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2))
    yield from (nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2))
    yield from (nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1), nn.ReLU())
    yield from (nn.Conv2d(256, 256, 3, padding=1), nn.ReLU())


def _squeezenet() -> Iterator[nn.Module]:
    """SqueezeNet 1.1, as in torchvision."""
    yield from (nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True))
    yield from (Fire(64, 16, 64), Fire(128, 16, 64), nn.MaxPool2d(3, 2, ceil_mode=True))
    yield from (Fire(128, 32, 128), Fire(256, 32, 128), nn.MaxPool2d(3, 2, ceil_mode=True))
    yield from (Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256))
