"""What doubles a volume: each voxel becomes eight, in their places."""

import torch

from voxray.nets.upsampling import DetailNet, doubled, placed


def test_each_of_the_eight_voxels_has_a_channel() -> None:
    detail = torch.arange(8.0).reshape(1, 8, 1, 1, 1)
    assert placed(detail)[0, 0].flatten().tolist() == list(range(8))


def test_interpolation_keeps_the_middle_of_a_slope_where_it_is() -> None:
    """Two voxels of 1 mm at 0.5 and 1.5 mm; four of 0.5 mm at 0.25, 0.75, 1.25 and 1.75 mm."""
    slope = torch.tensor([0.5, 1.5]).expand(1, 1, 2, 2, 2)
    assert doubled(slope)[0, 0, 0, 0].tolist() == [0.5, 0.75, 1.25, 1.5]


def test_a_network_that_has_not_learned_says_nothing_and_every_layer_is_heard_later() -> None:
    x = torch.rand(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        net = DetailNet(4, 2)
        assert net(x).shape == (1, 8, 8, 8, 8)
        assert not net(x).any()
        torch.nn.init.normal_(net.last.weight)
    net(x).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in net.parameters())
