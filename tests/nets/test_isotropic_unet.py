"""MONAI's U-Net behind our signature: what it learns from, and what it keeps in memory."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from voxray.nets.isotropic_unet import IsotropicUNet

STEP = torch.tensor([7])


def volume(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def small(time: bool = True, attention: tuple[bool, bool] = (False, True)) -> IsotropicUNet:
    """A small net, its convolutions that begin at zero drawn as well."""
    net = IsotropicUNet(3, 2, (8, 16), blocks=1, attention=attention, head_channels=4, time=time)
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
        nn.init.normal_(parameter, float(parameter.ndim == 1), spread, generator=generator)
    return net


def test_output_has_the_size_of_the_input_and_begins_at_zero() -> None:
    net = IsotropicUNet(5, 2, (4, 8, 8), blocks=1, head_channels=4)
    y = net(volume(2, 5, 4, 8, 12), torch.tensor([0, 99]))
    assert y.shape == (2, 2, 4, 8, 12)
    assert not y.any()


def test_the_step_is_given_exactly_to_a_net_that_has_time() -> None:
    x = volume(1, 3, 4, 4, 4)
    with pytest.raises(ValueError, match="time=True"):
        small()(x)
    with pytest.raises(ValueError, match="time=True"):
        small(time=False)(x, STEP)


def test_the_step_counts() -> None:
    net, x = small(), volume(1, 3, 4, 4, 4)
    assert not torch.allclose(net(x, STEP), net(x, STEP + 1), atol=1e-3)


@pytest.mark.parametrize("time", [True, False])
def test_every_parameter_gets_a_finite_gradient(time: bool) -> None:
    net = small(time)
    net(volume(1, 3, 8, 8, 8), STEP if time else None).square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def test_D2_an_item_does_not_depend_on_its_batch_mates() -> None:
    net, x, t = small(), volume(3, 3, 4, 8, 8), torch.tensor([1, 50, 99])
    together = net(x, t)
    for i in range(3):
        torch.testing.assert_close(together[i], net(x[i : i + 1], t[i : i + 1])[0], rtol=1e-4, atol=1e-4)


def test_bfloat16_and_channels_last_change_little() -> None:
    net, x = small(), volume(1, 3, 8, 8, 8)
    exact = net(x, STEP)
    net = net.to(memory_format=torch.channels_last_3d)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(net(x, STEP), exact, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        rough = net(x, STEP)
    assert (rough.float() - exact).square().mean() < 2e-3 * exact.square().mean()
    rough.float().square().mean().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in net.parameters())


def test_attention_keeps_no_matrix_of_all_pairs() -> None:
    sizes: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        small(attention=(True, True))(volume(1, 3, 8, 8, 8), STEP)
    assert max(sizes) < (8**3) ** 2


def test_weights_make_the_net() -> None:
    x, net = volume(1, 3, 4, 4, 4), small()
    other = IsotropicUNet(3, 2, (8, 16), blocks=1, attention=(False, True), head_channels=4)
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(x, STEP), net(x, STEP))


def test_T5_networks_are_imported_without_monai_and_what_builds_on_it() -> None:
    code = (
        "import sys, voxray.nets.isotropic_unet, voxray.nets.factorised_unet, voxray.nets.discriminators\n"
        "sys.stdout.write(str([name for name in ('monai', 'diffusers', 'lightning') if name in sys.modules]))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]"
