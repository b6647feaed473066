"""The plain U-Net: features of the finest level, from all levels, of images and volumes."""

from typing import Literal

import pytest
import torch

from voxray.nets.plain_unet import PlainUNet


@pytest.mark.parametrize("dimensions", [2, 3])
def test_all_levels_are_heard_at_the_finest(dimensions: Literal[2, 3]) -> None:
    with torch.random.fork_rng():
        net = PlainUNet(dimensions, (4, 6, 8), 3)
    x = torch.rand(2, 3, *(16,) * dimensions, generator=torch.Generator().manual_seed(0))
    found = net(x)
    assert found.shape == (2, 4, *(16,) * dimensions)
    found.square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
