"""An ensemble says the mean of its members."""

import torch
from small_models import rng
from torch import nn

from voxray.nets.ensemble import Ensemble


def test_it_is_the_mean_of_its_members() -> None:
    members = [nn.Linear(3, 2), nn.Linear(3, 2)]
    x = torch.randn(5, 3, generator=rng())
    expected = (members[0](x) + members[1](x)) / 2
    assert torch.allclose(Ensemble(members)(x), expected)
