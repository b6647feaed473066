"""Rectified flow: paths are straight, and whoever knows the end may correct it."""

import pytest
import torch

from voxray.diffusion import follow, on_path
from voxray.errors import NumericalError


def test_a_path_runs_straight_from_start_to_end() -> None:
    start, end = torch.zeros(3, 2, 2), torch.full((3, 2, 2), 4.0)
    x, velocity = on_path(start, end, torch.tensor([0.0, 0.25, 1.0]))
    assert x[:, 0, 0].tolist() == [0, 1, 4]
    assert torch.equal(velocity, end)


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_a_straight_flow_is_followed_exactly_in_any_number_of_steps(steps: int) -> None:
    start, end = torch.rand(2, 4), torch.rand(2, 4)
    assert torch.allclose(follow(lambda x, t: end - start, start, steps), end, atol=1e-6)


def test_the_flow_of_a_gaussian_ends_with_its_mean_and_standard_deviation() -> None:
    """From N(0, 1) to N(3, 0.5) the perfect velocity is linear in x: E[end - start | x_t]."""

    def velocity(x: torch.Tensor, t: float) -> torch.Tensor:
        variance = (1 - t) ** 2 + (0.5 * t) ** 2
        return 3 + (0.25 * t - (1 - t)) / variance * (x - 3 * t)

    rng = torch.Generator().manual_seed(0)
    ends = follow(velocity, torch.randn(1, 20000, generator=rng), 50)
    assert float(ends.mean()) == pytest.approx(3, abs=0.02)
    assert float(ends.std()) == pytest.approx(0.5, rel=0.05)


def test_what_is_known_of_the_end_is_kept() -> None:
    seen: list[tuple[int, int]] = []

    def between(end: torch.Tensor, step: int, steps: int) -> torch.Tensor:
        seen.append((step, steps))
        return torch.full_like(end, 7.0)

    found = follow(lambda x, t: torch.ones_like(x), torch.zeros(1, 3), 4, between=between)
    assert torch.allclose(found, torch.full((1, 3), 7.0))
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_N11_a_flow_that_leaves_the_finite_numbers_is_stopped() -> None:
    with pytest.raises(NumericalError, match=r"step 2 of 3 \(t = 0.33\)"):
        follow(lambda x, t: x / (0.0 if t > 0 else 1.0), torch.ones(1, 1), 3)
