"""Schedules against their formulas, and the process against its own definition."""

import math

import pytest
import torch
from torch import Tensor

from voxray.diffusion import GaussianDiffusion, cosine_betas, linear_betas
from voxray.errors import InputError


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_N8_cosine_schedule_is_the_published_one() -> None:
    """alpha_bar in closed form, at every step that the cap leaves alone."""
    betas = cosine_betas(100)
    alpha_bar = torch.cumprod(1 - betas, dim=0)
    level = [math.cos((t / 100 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(101)]
    published = torch.tensor([value / level[0] for value in level[1:]], dtype=torch.float64)
    assert betas.dtype == torch.float64
    assert torch.allclose(alpha_bar[:-1], published[:-1], rtol=1e-10)


@pytest.mark.parametrize("cap", [0.999, 0.9999])
def test_N8_cosine_schedule_equals_diffusers(cap: float) -> None:
    from diffusers.schedulers.scheduling_ddpm import betas_for_alpha_bar

    assert torch.allclose(cosine_betas(1000, cap=cap).float(), betas_for_alpha_bar(1000, max_beta=cap), rtol=1e-4)


@pytest.mark.parametrize(("steps", "cap"), [(100, 0.9999), (1000, 0.999), (10, 0.5)])
def test_N8_cosine_betas_are_capped(steps: int, cap: float) -> None:
    betas = cosine_betas(steps, cap=cap)
    assert betas.max() == cap == betas[-1]
    assert (betas[1:] >= betas[:-1]).all()


def test_N8_linear_betas() -> None:
    assert torch.allclose(linear_betas(3, 0.1, 0.3), torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64))


def test_N8_noise_has_the_variance_of_the_schedule() -> None:
    """By recursion, one step at a time: x_t = sqrt(1 - beta) x_(t-1) + sqrt(beta) noise."""
    process = GaussianDiffusion(cosine_betas(20))
    signal, variance = 1.0, 0.0
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    for step, beta in enumerate(process.betas.tolist()):
        signal, variance = math.sqrt(1 - beta) * signal, (1 - beta) * variance + beta
        t = torch.tensor([step])
        assert float(process.add_noise(one, zero, t)) == pytest.approx(signal, rel=1e-9)
        assert float(process.add_noise(zero, one, t)) ** 2 == pytest.approx(variance, rel=1e-9)
        assert float(process.sigma[step]) ** 2 == pytest.approx(variance, rel=1e-9)


@pytest.mark.parametrize("prediction", ["sample", "epsilon", "v_prediction"])
def test_N8_the_sample_comes_back_from_the_target(prediction: str) -> None:
    process = GaussianDiffusion(linear_betas(50, 1e-3, 0.1), prediction)
    x0, drowned, t = noise(4, 2, 3), noise(4, 2, 3, seed=1), torch.tensor([0, 10, 30, 49])
    x_t = process.add_noise(x0, drowned, t)
    assert torch.allclose(process.to_sample(process.target(x0, drowned, t), x_t, t), x0, atol=1e-5)


def test_N8_v_turns_with_the_angle_between_signal_and_noise() -> None:
    """v = cos(phi) noise - sin(phi) x0, tan(phi) = sigma / signal (Salimans and Ho 2022, appendix D)."""
    process = GaussianDiffusion(linear_betas(50, 1e-3, 0.1), "v_prediction")
    x0, drowned = noise(1, 5), noise(1, 5, seed=1)
    phi = math.atan2(float(process.sigma[20]), float(process.alpha_bar[20]) ** 0.5)
    expected = math.cos(phi) * drowned - math.sin(phi) * x0
    assert torch.allclose(process.target(x0, drowned, torch.tensor([20])), expected, atol=1e-6)


@pytest.mark.parametrize("prediction", ["sample", "epsilon", "v_prediction"])
def test_N8_a_half_precision_output_becomes_a_float32_sample(prediction: str) -> None:
    process = GaussianDiffusion(cosine_betas(10), prediction)
    x0 = process.to_sample(noise(2, 3).bfloat16(), noise(2, 3), torch.tensor([3, 9]))
    assert x0.dtype == torch.float32


@pytest.mark.parametrize("betas", [[], [0.1, 0.0], [0.1, 1.0], [0.1, float("nan")], [[0.1]]])
def test_betas_that_are_no_schedule_are_refused(betas: list) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        GaussianDiffusion(torch.tensor(betas))


def test_unknown_prediction_is_refused() -> None:
    with pytest.raises(InputError, match=r"'sample', 'epsilon', 'v_prediction'.*'x0'"):
        GaussianDiffusion(cosine_betas(10), "x0")  # type: ignore[arg-type]


@pytest.mark.parametrize("clamp", [0.0, -1.0, float("nan")])
def test_impossible_clamp_is_refused(clamp: float) -> None:
    with pytest.raises(InputError, match="positive"):
        GaussianDiffusion(cosine_betas(10), clamp=clamp)


def test_a_process_is_made_whole_on_any_default_device() -> None:
    """Models are built on `meta` first, to compare their weights' shapes."""
    with torch.device("meta"):
        process = GaussianDiffusion(cosine_betas(10))
        linear = linear_betas(3, 0.1, 0.2)
    assert process.betas.device.type == process.sigma.device.type == linear.device.type == "cpu"
