"""The autoencoder: its sizes are the paper's, and its borders, codes and gradients what they should be."""

import pytest
import torch
from torch import nn

from voxray.nets.autoencoder import AutoencoderConfig, Doubling, Padding, VQAutoencoder

SMALL = AutoencoderConfig(widths=(4, 8, 8), decoder_widths=(8, 4), decoder_blocks=(1, 0), codes=32)


def built(**changes: object) -> VQAutoencoder:
    with torch.random.fork_rng():
        torch.set_rng_state(torch.Generator().manual_seed(3).get_state())
        return VQAutoencoder(SMALL.model_copy(update=changes)).eval()


def volumes(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_sizes_are_the_papers() -> None:
    """Encoder 0.44 M, decoder 0.95 M parameters, latents of 8 x 32^3, 16384 codes (arXiv 2503.17804)."""
    with torch.device("meta"):
        net = VQAutoencoder(AutoencoderConfig())
        latents = net.encode(torch.empty(2, 1, 128, 128, 128))
        assert net.decode(latents, quantise=False).shape == (2, 1, 128, 128, 128)
    assert latents.shape == (2, 8, 32, 32, 32)
    assert net.codebook.codes.shape == (16384, 8)
    assert round(parameters(net.encoder) / 1e6, 2) == 0.44
    assert round(parameters(net.decoder) / 1e6, 2) == 0.95


def test_layers_are_the_releases() -> None:
    with torch.device("meta"):
        net = VQAutoencoder(AutoencoderConfig())
    shapes = {key: tuple(tensor.shape) for key, tensor in net.state_dict().items()}
    assert shapes["encoder.first.weight"] == (16, 1, 3, 3, 3)
    assert shapes["encoder.levels.1.0.weight"] == (64, 32, 4, 4, 4)
    assert shapes["to_latents.weight"] == (8, 64, 1, 1, 1)
    assert shapes["decoder.levels.1.0.conv.weight"] == (64, 32, 4, 4, 4)
    assert shapes["decoder.last.weight"] == (1, 32, 3, 3, 3)
    norms = [module for module in net.modules() if isinstance(module, nn.GroupNorm)]
    assert {norm.num_groups for norm in norms} == {32}
    modes = {
        module.padding_mode for module in net.modules() if isinstance(module, nn.Conv3d) and module.kernel_size[0] > 1
    }
    assert modes == {"replicate"}


@pytest.mark.parametrize("padding", ["replicate", "zeros"])
@pytest.mark.parametrize("shape", [(8, 8, 8), (16, 8, 12)])
def test_shapes_are_halved_twice_and_doubled_twice(shape: tuple[int, ...], padding: str) -> None:
    net = built(padding=padding)
    again, quantised = net(volumes(2, 1, *shape))
    assert again.shape == (2, 1, *shape)
    assert quantised.latents.shape == (2, 8, *(n // 4 for n in shape))
    assert quantised.indices.shape == (2, *(n // 4 for n in shape))


def test_decoding_takes_codes_unless_told_otherwise() -> None:
    net, volume = built(), volumes(1, 1, 8, 8, 8)
    latents = net.encode(volume)
    assert torch.equal(net.decode(latents), net(volume)[0])
    assert torch.equal(net.decode(latents), net.decode(net.codebook(latents).latents, quantise=False))
    assert not torch.equal(net.decode(latents), net.decode(latents, quantise=False))


def test_replicated_borders_leave_no_edge() -> None:
    """A volume that is the same everywhere stays so up to the border; with zeros around it, it does not."""
    for padding, flat in (("replicate", True), ("zeros", False)):
        net = built(padding=padding)
        latents = net.encode(torch.full((1, 1, 16, 16, 16), 0.7))
        assert (float(latents.detach().flatten(2).std(2).max()) < 1e-4) == flat


@pytest.mark.parametrize("padding", ["replicate", "zeros"])
def test_doubling_is_a_transposed_convolution(padding: Padding) -> None:
    """Both paddings make twice the size, and the same inside."""
    with torch.random.fork_rng():
        layer = Doubling(3, 5, padding)
    x = volumes(1, 3, 4, 5, 6)
    plain = nn.functional.conv_transpose3d(x, layer.conv.weight, layer.conv.bias, stride=2, padding=1)
    found = layer(x)
    assert found.shape == (1, 5, 8, 10, 12)
    inside = (..., slice(1, -1), slice(1, -1), slice(1, -1))
    assert torch.allclose(found[inside], plain[inside], atol=1e-5)
    assert torch.allclose(found, plain, atol=1e-5) == (padding == "zeros")


def test_D2_a_volume_does_not_depend_on_its_batch_mates() -> None:
    net, batch = built(), volumes(3, 1, 8, 8, 8)
    whole = net.encode(batch)
    decoded = net.decode(whole, quantise=False)
    for i in range(3):
        alone = net.encode(batch[i : i + 1])
        assert torch.allclose(alone[0], whole[i], atol=1e-5)
        assert torch.equal(net.codebook(alone).indices[0], net.codebook(whole).indices[i])
        assert torch.allclose(net.decode(alone, quantise=False)[0], decoded[i], atol=1e-5)


def test_gradients_reach_encoder_and_decoder_through_the_codes() -> None:
    net, volume = built(), volumes(1, 1, 8, 8, 8)
    net(volume)[0].square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
    assert net.encoder.first.weight.grad is not None
    assert bool(net.encoder.first.weight.grad.any())


def test_it_works_in_half_precision_and_channels_last() -> None:
    net, volume = built(), volumes(1, 1, 8, 8, 8)
    expected = net.decode(net.encode(volume), quantise=False)
    last = net.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = last.decode(last.encode(volume), quantise=False)
    assert (found.float() - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize("changes", [{"decoder_widths": (8,)}, {"decoder_blocks": (1, 0, 0)}, {"widths": (4, 8)}])
def test_a_decoder_that_is_not_the_encoders_mirror_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="double as often"):
        VQAutoencoder(SMALL.model_copy(update=changes))


@pytest.mark.parametrize("changes", [{"widths": (8,)}, {"codes": 1}, {"latent_channels": 0}, {"heads": 2}])
def test_settings_are_strict(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        AutoencoderConfig.model_validate(changes)
