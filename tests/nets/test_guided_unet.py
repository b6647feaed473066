"""The U-Net that is guided at several levels."""

from typing import Any

import pytest
import torch

from voxray.nets.guided_unet import GuidedUNet


def guided(guide: Any) -> GuidedUNet:
    """Return a small one; MONAI begins second convolutions of residual blocks at zero, here they are not."""
    torch.manual_seed(0)
    made = GuidedUNet((8, 8, 12, 16, 16), (4, 4, 4), blocks=1, guide=guide)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made


@pytest.mark.parametrize("guide", ["spade", "concat"])
def test_conditions_reach_the_result_from_every_scale(guide: Any) -> None:
    made = guided(guide)
    rng = torch.Generator().manual_seed(0)
    x, t = torch.randn(2, 1, 32, 32, generator=rng), torch.tensor([3, 700])
    maps = [torch.randn(2, 4, size, size, generator=rng) for size in (8, 4, 2)]
    with torch.no_grad():
        found = made(x, t, maps)
        assert found.shape == x.shape
        for scale in range(3):
            other = [m + (i == scale) for i, m in enumerate(maps)]
            assert (made(x, t, other) - found).abs().max() > 1e-4
        assert (made(x, t.flip(0), maps) - found).abs().max() > 1e-4


def test_spade_is_in_encoder_middle_and_decoder_at_the_sizes_of_the_conditions() -> None:
    """Unlike in MONAI's own SPADE U-Net: two blocks at three levels, two in the middle, three at three levels.

    SPADE brings its map to any size without a word, so sizes are looked at.
    """
    from monai.networks.blocks.spade_norm import SPADE

    sizes: list[tuple[int, int]] = []

    def note(_: torch.nn.Module, given: tuple[torch.Tensor, torch.Tensor], __: torch.Tensor) -> None:
        sizes.append((given[0].shape[-1], given[1].shape[-1]))

    with torch.device("meta"):
        made = GuidedUNet()
        for module in made.modules():
            if isinstance(module, SPADE):
                module.register_forward_hook(
                    lambda _, given, __: sizes.append((given[0].shape[-1], given[1].shape[-1]))
                )
        made(torch.zeros(1, 1, 128, 128), torch.zeros(1).long(), [torch.zeros(1, 256, n, n) for n in (32, 16, 8)])
    assert all(x == told for x, told in sizes)
    assert [sizes.count((n, n)) for n in (32, 16, 8)] == [2 * (2 + 3), 2 * (2 + 3), 2 * (2 + 2 + 3)]
