"""The critic of slices and volumes: what it is made of, whom its losses teach, and that it learns."""

import pytest
import torch
from torch import Tensor, nn

from voxray.nets.discriminators import SliceAndVolumeCritic, axial_slices


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def volumes(count: int = 1, size: int = 16, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, size, size, size, generator=rng(seed))


@pytest.fixture
def critic() -> SliceAndVolumeCritic:
    with torch.random.fork_rng():
        torch.set_rng_state(rng(5).get_state())
        return SliceAndVolumeCritic(width=4)


def test_sizes_are_those_of_the_release() -> None:
    """64 channels and 3 layers: 2.76 M (2D) and 11.05 M (3D) parameters; five results, the last with one channel."""
    with torch.device("meta"):
        critic = SliceAndVolumeCritic()
        results = critic.volume(torch.empty(1, 1, 32, 32, 32))
    assert [sum(p.numel() for p in net.parameters()) for net in (critic.slice, critic.volume)] == [
        2_763_585,
        11_048_769,
    ]
    assert [tuple(result.shape[1:3]) for result in results] == [(64, 17), (128, 9), (256, 5), (512, 6), (1, 5)]


class Judge(nn.Module):
    """A discriminator whose only feature is its input, and whose judgement is `gain` times it."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x, self.gain * x]


def judged(slice_gain: float, volume_gain: float) -> SliceAndVolumeCritic:
    critic = SliceAndVolumeCritic(width=4)
    critic.slice, critic.volume = Judge(slice_gain), Judge(volume_gain)
    return critic


def test_losses_are_their_formulas() -> None:
    critic = judged(0.5, 4.0)
    fake, real = torch.full((2, 1, 3, 4, 4), -0.5), torch.ones(2, 1, 3, 4, 4)
    learned = critic.critic_loss(fake, real, rng())
    assert learned["slice"].item() == pytest.approx((0.5 + 0.75) / 2)
    assert learned["volume"].item() == 0  # sure of both, by a margin
    assert learned["loss"] == learned["slice"] + learned["volume"]
    wanted = critic.generator_loss(fake, real, rng())
    assert {name: value.item() for name, value in wanted.items()} == {"slice": 0.25, "volume": 2.0, "features": 3.0}


def test_the_slice_is_axial_one_of_each_volume_and_drawn() -> None:
    x = torch.arange(2 * 3 * 4 * 5.0).view(2, 1, 3, 4, 5)
    assert torch.equal(axial_slices(x, torch.tensor([2, 0])), torch.stack([x[0, :, 2], x[1, :, 0]]))
    critic, levels = judged(1.0, 0.0), torch.arange(64.0).view(1, 1, 64, 1, 1).expand(1, 1, 64, 2, 2)
    first, again, other = (
        critic.generator_loss(levels, levels, rng(seed))["slice"].item() for seed in (0, 0, 1)
    )  # fmt: skip
    assert first == again != other
    assert first == round(first)  # of a single slice
    together = critic.generator_loss(levels, levels, rng())
    assert together["features"] == 0  # the same slice of both


def test_gradients_reach_only_whoever_learns(critic: SliceAndVolumeCritic) -> None:
    fake, real = volumes(seed=1).requires_grad_(), volumes(seed=2).requires_grad_()
    sum(critic.generator_loss(fake, real, rng()).values()).backward()
    assert fake.grad.isfinite().all()
    assert fake.grad.all(dim=(0, 1, 3, 4)).any()
    assert real.grad is None
    assert all(parameter.grad is None for parameter in critic.parameters())

    fake.grad = None
    critic.critic_loss(fake, real, rng())["loss"].backward()
    assert fake.grad is None
    assert real.grad is None
    for name, parameter in critic.named_parameters():
        assert parameter.grad.isfinite().all(), name
        # What is added to every judgement helps with the real as much as it harms with the fake.
        assert parameter.grad.any() or name.endswith("final_conv.conv.bias"), name


def test_D3_judging_changes_neither_the_critic_nor_the_global_generator(critic: SliceAndVolumeCritic) -> None:
    weights, state = {k: v.clone() for k, v in critic.state_dict().items()}, torch.get_rng_state()
    training = critic.critic_loss(volumes(seed=1), volumes(seed=2), rng())["loss"]
    critic.eval()
    assert torch.equal(critic.critic_loss(volumes(seed=1), volumes(seed=2), rng())["loss"], training)
    critic.generator_loss(volumes(seed=1), volumes(seed=2), rng())
    assert all(torch.equal(value, weights[name]) for name, value in critic.state_dict().items())
    assert set(weights) == {name for name, _ in critic.named_parameters()}
    assert torch.equal(torch.get_rng_state(), state)


def test_losses_in_bfloat16_are_float32_and_near(critic: SliceAndVolumeCritic) -> None:
    fake, real = volumes(seed=1), volumes(seed=2)
    exact = {**critic.generator_loss(fake, real, rng()), "loss": critic.critic_loss(fake, real, rng())["loss"]}
    with torch.autocast("cpu", torch.bfloat16):
        rough = {**critic.generator_loss(fake, real, rng()), "loss": critic.critic_loss(fake, real, rng())["loss"]}
    for name, value in exact.items():
        assert rough[name].dtype == torch.float32
        assert rough[name].item() == pytest.approx(value.item(), abs=0.05)


def test_it_learns_to_tell_two_volumes_apart(critic: SliceAndVolumeCritic) -> None:
    fake, real = volumes(2, seed=1), volumes(2, seed=2).round()
    optimiser, generator = torch.optim.Adam(critic.parameters(), 2e-3), rng()
    before = critic.critic_loss(fake, real, rng())["loss"]
    for _ in range(40):
        loss = critic.critic_loss(fake, real, generator)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert before > 1.8
    assert critic.critic_loss(fake, real, rng())["loss"] < 0.5
    assert critic.generator_loss(real, real, rng())["volume"] < critic.generator_loss(fake, real, rng())["volume"] - 1
