"""The first stages of ResNet-50, as torchvision has it."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from voxray.errors import CheckpointError
from voxray.nets.resnet_features import ResNetFeatures

STAGES = ((3, 64, 1), (4, 128, 2), (6, 256, 2))  # blocks, width, stride


def published_shapes(scale: float = 1.0) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield names and shapes of torchvision's weights, written down from its documentation and He et al. 2016."""

    def norm(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        for part in ("weight", "bias", "running_mean", "running_var"):
            yield f"{name}.{part}", (channels,)
        yield f"{name}.num_batches_tracked", ()

    given = round(64 * scale)
    yield "conv1.weight", (given, 3, 7, 7)
    yield from norm("bn1", given)
    for stage, (blocks, width, _) in enumerate(STAGES, start=1):
        inner = round(width * scale)
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            for n, shape in enumerate([(inner, given, 1, 1), (inner, inner, 3, 3), (4 * inner, inner, 1, 1)], start=1):
                yield f"{name}.conv{n}.weight", shape
                yield from norm(f"{name}.bn{n}", shape[0])
            if block == 0:
                yield f"{name}.downsample.0.weight", (4 * inner, given, 1, 1)
                yield from norm(f"{name}.downsample.1", 4 * inner)
            given = 4 * inner


def published(scale: float) -> dict[str, torch.Tensor]:
    """Return random weights with torchvision's names, its classifier and last stage included."""
    rng = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in published_shapes(scale):
        values = torch.randn(shape, generator=rng)
        fan_in = max(1, values[0].numel() if len(shape) == 4 else 1)
        weights[name] = values / fan_in**0.5 if len(shape) == 4 else 1 + 0.2 * values.clamp(-2, 2)
        if name.endswith("num_batches_tracked"):
            weights[name] = torch.tensor(7)
    return {**weights, "layer4.0.conv1.weight": torch.zeros(1), "fc.weight": torch.zeros(1), "fc.bias": torch.zeros(1)}


def reference(images: torch.Tensor, weights: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Compute conv2_x to conv4_x as torchvision does: the stride is in the 3x3 convolution, no bias anywhere."""

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, var, weight, bias = (weights[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, weight, bias)

    grey = images[:, None].expand(-1, 3, -1, -1)
    x = (grey - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    x = F.max_pool2d(norm(F.conv2d(x, weights["conv1.weight"], stride=2, padding=3), "bn1").relu(), 3, 2, 1)
    found = []
    for stage, (blocks, _, stride) in enumerate(STAGES, start=1):
        for block in range(blocks):
            name, step = f"layer{stage}.{block}", stride if block == 0 else 1
            y = norm(F.conv2d(x, weights[f"{name}.conv1.weight"]), f"{name}.bn1").relu()
            y = norm(F.conv2d(y, weights[f"{name}.conv2.weight"], stride=step, padding=1), f"{name}.bn2").relu()
            y = norm(F.conv2d(y, weights[f"{name}.conv3.weight"]), f"{name}.bn3")
            if block == 0:
                x = norm(F.conv2d(x, weights[f"{name}.downsample.0.weight"], stride=step), f"{name}.downsample.1")
            x = (x + y).relu()
        found.append(x)
    return found


def test_features_have_the_sizes_of_the_paper() -> None:
    with torch.device("meta"):
        found = ResNetFeatures()(torch.zeros(1, 128, 128))
    assert [tuple(f.shape[1:]) for f in found] == [(256, 32, 32), (512, 16, 16), (1024, 8, 8)]


def test_names_and_shapes_are_those_of_torchvision() -> None:
    with torch.device("meta"):
        own = {name: tuple(value.shape) for name, value in ResNetFeatures().net.state_dict().items()}
    assert own == dict(published_shapes())


def test_published_weights_give_the_published_features() -> None:
    weights = published(0.125)
    made = ResNetFeatures(0.125).eval()
    made.load_published(weights)
    images = torch.rand(2, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for own, expected in zip(made(images), reference(images, weights), strict=True):
            assert torch.allclose(own, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_old_files_without_counters_fit() -> None:
    weights = {name: value for name, value in published(0.125).items() if "num_batches" not in name}
    ResNetFeatures(0.125).load_published(weights)


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"ResNet-50.*conv1\.weight"):
        ResNetFeatures(0.25).load_published(published(0.125))
