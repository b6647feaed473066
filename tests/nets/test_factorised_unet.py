"""The factorised U-Net: its sizes, what may depend on what, its attention against their formulas."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from voxray.nets.factorised_attention import (
    DepthAttention,
    DepthBias,
    LinearAttention,
    SliceAttention,
    distance_bucket,
    rotated,
)
from voxray.nets.factorised_unet import FactorisedUNet

STEP = torch.tensor([7])


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def volume(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=rng(seed))


def with_drawn_weights(net: nn.Module) -> Any:
    """Give every tensor of `net` random values, the same at each call."""
    generator = rng(1)
    for parameter in net.parameters():
        spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
        nn.init.normal_(parameter, float(parameter.ndim == 1), spread, generator=generator)
    return net


def small(time: bool = True) -> FactorisedUNet:
    return with_drawn_weights(FactorisedUNet(3, 2, 8, (1, 2), heads=2, head_channels=4, time=time))


@pytest.mark.parametrize(
    ("c_in", "width", "time", "count"),
    [
        (24, 128, True, 134_508_040),
        (24, 128, False, 126_037_000),
        (8, 64, True, 35_709_832),
        (8, 64, False, 33_587_848),
    ],
)
def test_sizes_are_those_of_the_release(c_in: int, width: int, time: bool, count: int) -> None:
    """134.5 M and 35.7 M parameters; the coarse model without time, as in the paper, has 33.6 M."""
    with torch.device("meta"):
        net = FactorisedUNet(c_in, 8, width, time=time)
    assert sum(parameter.numel() for parameter in net.parameters()) == count
    assert {p.shape[2:] for p in net.parameters() if p.ndim == 5} == {(1, 1, 1), (1, 3, 3), (1, 4, 4)}


def test_values_are_those_of_a_second_implementation() -> None:
    """It was written apart, from what the release computes with each tensor, by the names that tensors have there."""
    values = small()(volume(1, 3, 11, 4, 4), STEP).flatten()[::50]
    want = [0.3983083, -0.3698654, 2.0875859, -0.7303991, 10.1060877, 11.0439882, 6.4048958, 6.3993521]
    torch.testing.assert_close(values, torch.tensor(want), rtol=1e-4, atol=1e-4)


def test_output_has_the_size_of_the_input() -> None:
    net = with_drawn_weights(FactorisedUNet(3, 2, 8))
    assert net(volume(2, 3, 5, 8, 16), torch.tensor([0, 99])).shape == (2, 2, 5, 8, 16)


def test_sizes_and_steps_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 2"):
        small()(volume(1, 3, 4, 4, 5), STEP)
    with pytest.raises(ValueError, match="time=True"):
        small()(volume(1, 3, 4, 4, 4))
    with pytest.raises(ValueError, match="time=True"):
        small(time=False)(volume(1, 3, 4, 4, 4), STEP)


@pytest.mark.parametrize("time", [True, False])
def test_every_parameter_gets_a_finite_gradient(time: bool) -> None:
    net = small(time)
    net(volume(1, 3, 4, 8, 8), STEP if time else None).square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def test_the_step_counts() -> None:
    net, x = small(), volume(1, 3, 4, 4, 4)
    assert not torch.allclose(net(x, STEP), net(x, STEP + 1), atol=1e-3)


def test_D2_an_item_does_not_depend_on_its_batch_mates() -> None:
    net, x, t = small(), volume(3, 3, 4, 8, 8), torch.tensor([1, 50, 99])
    together = net(x, t)
    for i in range(3):
        torch.testing.assert_close(together[i], net(x[i : i + 1], t[i : i + 1])[0], rtol=1e-4, atol=1e-4)


def influence(net: nn.Module, x: Tensor) -> Tensor:
    """Which slices of the output depend on slice 2 of the input."""
    x = x.clone().requires_grad_()
    reached = []
    for depth in range(x.shape[2]):
        (gradient,) = torch.autograd.grad(net(x, STEP)[:, :, depth].square().sum(), x)
        reached.append(bool(gradient[:, :, 2].any()))
    return torch.tensor(reached)


def test_slices_meet_in_depth_attention_and_group_norms_only() -> None:
    net, x = small(), volume(1, 3, 5, 4, 4)
    for block in list(net.modules()):
        for name, child in list(block.named_children()):
            if isinstance(child, nn.GroupNorm):
                setattr(block, name, nn.Identity())
    assert influence(net, x).all()
    for block in net.modules():
        if isinstance(block, DepthAttention):
            nn.init.zeros_(block.out.weight)
    assert influence(net, x).tolist() == [False, False, True, False, False]


def test_slices_have_an_order_through_depth_attention_only() -> None:
    net, x, order = small(), volume(1, 3, 5, 4, 4), torch.tensor([3, 0, 4, 1, 2])

    def moved() -> float:
        return float((net(x, STEP)[:, :, order] - net(x[:, :, order], STEP)).detach().abs().max())

    assert moved() > 1e-2
    for block in net.modules():
        if isinstance(block, DepthAttention):
            nn.init.zeros_(block.out.weight)
    assert moved() < 1e-4


def test_bfloat16_and_channels_last_change_little() -> None:
    net, x = small(), volume(1, 3, 4, 16, 16)
    exact = net(x, STEP)
    net = net.to(memory_format=torch.channels_last_3d)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(net(x, STEP), exact, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        rough = net(x, STEP)
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).square().mean() < 2e-3 * exact.square().mean()
    rough.float().square().mean().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in net.parameters())


def test_weights_make_the_net() -> None:
    x, net = volume(1, 3, 4, 4, 4), small()
    other = FactorisedUNet(3, 2, 8, (1, 2), heads=2, head_channels=4)
    assert not torch.equal(other(x, STEP), net(x, STEP))
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(x, STEP), net(x, STEP))


@contextmanager
def counted_bytes(kept: list[int]) -> Iterator[None]:
    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield


def test_checkpointing_keeps_less_and_gives_the_same_gradients() -> None:
    gradients, sizes = [], []
    for checkpointing in (False, True):
        net, kept = small(), list[int]()
        net.checkpointing = checkpointing
        with counted_bytes(kept):
            loss = net(volume(1, 3, 4, 8, 8), STEP).square().mean()
        loss.backward()
        gradients.append([parameter.grad for parameter in net.parameters()])
        sizes.append(sum(kept))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0)
    assert sizes[1] < sizes[0] / 2


# The parts, each beside its formula, written out for one head at a time.


def heads_of(block: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v of `block`, each (b, d, h, w, heads, e), from the norm's definition."""
    x = x.movedim(1, -1)
    normed = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt() * block.scale
    return tuple((normed @ block.qkv.weight.T).unflatten(-1, (3, block.heads, -1)).unbind(-3))


def added(block: Any, x: Tensor, result: Tensor) -> Tensor:
    """`x` plus what `result` (b, d, h, w, heads, e) is projected to."""
    return x + block.out(result.flatten(-2)).movedim(-1, 1)


def attended(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    """softmax(q k^T / sqrt(e) + bias) v for one sequence (n, e)."""
    return torch.softmax(q @ k.T / math.sqrt(q.shape[1]) + bias, dim=1) @ v


def test_slice_attention_is_its_formula() -> None:
    block, x = with_drawn_weights(SliceAttention(6, 2, 4)).double(), volume(2, 6, 3, 2, 4).double()
    q, k, v = heads_of(block, x)
    want = torch.empty_like(v)
    for b, d, head in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(2)):
        flat = [part[b, d, :, :, head].flatten(0, 1) for part in (q, k, v)]
        want[b, d, :, :, head] = attended(*flat).unflatten(0, (2, 4))
    torch.testing.assert_close(block(x), added(block, x, want))


def test_linear_attention_is_its_formula() -> None:
    block, x = with_drawn_weights(LinearAttention(6, 2, 4)).double(), volume(2, 6, 3, 2, 4).double()
    q, k, v = heads_of(block, x)
    weight = torch.einsum("bdhwne,bdyxne->bdhwnyx", q.softmax(-1) / 2, k.flatten(2, 3).softmax(2).view_as(k))
    torch.testing.assert_close(block(x), added(block, x, torch.einsum("bdhwnyx,bdyxne->bdhwne", weight, v)))


def test_depth_attention_is_its_formula() -> None:
    block, x = with_drawn_weights(DepthAttention(6, 2, 4)).double(), volume(2, 6, 5, 2, 1).double()
    bias = volume(2, 5, 5, seed=3).double()
    q, k, v = heads_of(block, x)
    want = torch.empty_like(v)
    for b, h, head in torch.cartesian_prod(torch.arange(2), torch.arange(2), torch.arange(2)):
        q1, k1, v1 = (part[b, :, h, 0, head] for part in (q, k, v))
        want[b, :, h, 0, head] = attended(turned(q1), turned(k1), v1, bias[head])
    torch.testing.assert_close(block(x, bias), added(block, x, want), rtol=1e-5, atol=1e-5)


def turned(x: Tensor) -> Tensor:
    """Rotate pairs (0, 1), (2, 3) of each row by its number times 1 and 1/100."""
    result = torch.empty_like(x)
    for n in range(len(x)):
        for pair, angle in enumerate((n, n / 100)):
            c, s, (a, b) = math.cos(angle), math.sin(angle), x[n, 2 * pair : 2 * pair + 2]
            result[n, 2 * pair], result[n, 2 * pair + 1] = c * a - s * b, s * a + c * b
    return result


def test_rotation_tells_distances_only() -> None:
    q, k = volume(1, 8, seed=1), volume(1, 8, seed=2)
    products = rotated(q.expand(6, 8)) @ rotated(k.expand(6, 8)).T
    for offset in range(-5, 6):
        diagonal = products.diagonal(offset)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert products[0].std() > 0.1


def test_distances_fall_into_the_buckets_of_the_release() -> None:
    behind = [*range(8), 8, 8, 9, 9, 10, 10, 11, 11, *[12] * 4, *[13] * 3, *[14] * 4, *[15] * 13]
    assert distance_bucket(-torch.arange(40), 32, 32).tolist() == behind
    assert distance_bucket(torch.arange(1, 40), 32, 32).tolist() == [16 + bucket for bucket in behind[1:]]


def test_bias_is_that_of_the_key_seen_from_the_query() -> None:
    bias = DepthBias(3)
    table = bias.values.weight
    torch.testing.assert_close(bias(5)[1], torch.stack([
        torch.stack([table[16 + key - query if key > query else query - key, 1] for key in range(5)])
        for query in range(5)
    ]))  # fmt: skip
