"""Feature maps of images at several scales: the first stages of a ResNet."""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from voxray.errors import CheckpointError

# Of ImageNet, whose statistics published weights expect (torchvision's documentation).
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


# Blocks of conv2_x, conv3_x and conv4_x.
_BLOCKS = {50: (3, 4, 6), 101: (3, 4, 23)}


class ResNetFeatures(nn.Module):
    """conv2_x, conv3_x and conv4_x of ResNet-50 or -101 (He et al. 2016, arXiv 1512.03385), for grey images.

    MONAI's ResNet in 2D, with the strides and without the biases in which torchvision's differs from it, so that the
    published weights fit.

    Args:
        width: of all layers, as a part of the published ones.
        depth: of the network.
        stages: how many of them there are.
    """

    mean: Float[Tensor, "3 1 1"]
    std: Float[Tensor, "3 1 1"]

    def __init__(self, width: float = 1.0, depth: Literal[50, 101] = 50, stages: int = 3) -> None:
        super().__init__()
        from monai.networks.nets import ResNet  # slow to import

        blocks, widths = _BLOCKS[depth][:stages], (64, 128, 256, 512)
        self.net = ResNet(
            "bottleneck", [*blocks, *[1] * (4 - stages)], list(widths), spatial_dims=2, n_input_channels=3,
            conv1_t_stride=2, bias_downsample=False, feed_forward=False, widen_factor=width,
        )  # fmt: skip
        self.stages = [f"layer{stage + 1}" for stage in range(stages)]
        for name in ("avgpool", *(f"layer{stage + 1}" for stage in range(stages, 4))):
            delattr(self.net, name)
        self.depth, self.channels = depth, tuple(round(width * n) * 4 for n in widths[:stages])
        self.register_buffer("mean", torch.tensor(_MEAN).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).reshape(3, 1, 1), persistent=False)

    def forward(self, images: Float[Tensor, "n h w"]) -> list[Float[Tensor, "n c y x"]]:
        """Return the maps, of a quarter, an eighth, a sixteenth of the images' size; images are about 0..1."""
        net = self.net
        x = (images[:, None] - self.mean) / self.std
        x = net.maxpool(net.act(net.bn1(net.conv1(x))))
        found = []
        for name in self.stages:
            x = getattr(net, name)(x)
            found.append(x)
        return found

    def load_published(self, weights: Mapping[str, Tensor]) -> None:
        """Take over torchvision's weights (`resnet50-*.pth`, `resnet101-*.pth`), as far as they are of these stages.

        Raises:
            CheckpointError: if they are of another network.
        """
        expected = self.net.state_dict()
        wrong = [
            name for name, own in expected.items()
            if not name.endswith("num_batches_tracked") and (name not in weights or weights[name].shape != own.shape)
        ]  # fmt: skip
        if wrong:
            raise CheckpointError(
                f"These are not torchvision's weights of ResNet-{self.depth}: missing or of another shape are "
                f"{', '.join(wrong[:5])}."
            )
        self.net.load_state_dict({name: weights.get(name, own) for name, own in expected.items()})
