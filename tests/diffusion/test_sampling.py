"""Samplers against a Gaussian, of which everything is known in closed form, and what they promise besides."""

import random
from collections.abc import Callable
from itertools import count, pairwise

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from voxray.diffusion import (
    GaussianDiffusion,
    Sampler,
    antithetic_noise,
    cosine_betas,
    draw,
    linear_betas,
)
from voxray.errors import InputError, NumericalError

MEAN = torch.tensor([0.3, -0.5])
COVARIANCE = torch.tensor([[0.2, 0.08], [0.08, 0.05]])
SOLVERS = {
    "ddpm": {"solver": "ddpm"},
    "ddim": {"solver": "ddim"},
    "ddim-eta": {"solver": "ddim", "eta": 0.5},
    "dpm-solver++": {},
}
every_solver = pytest.mark.parametrize("solver", SOLVERS)

Network = Callable[[Tensor, Tensor], Tensor]
Noise = Callable[..., Tensor]


def sampler_of(solver: str, steps: int) -> Sampler:
    return Sampler(**SOLVERS[solver], steps=steps)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cosine(steps: int = 100, **options: object) -> GaussianDiffusion:
    return GaussianDiffusion(cosine_betas(steps), **{"clamp": None, **options})


def gaussian(process: GaussianDiffusion) -> Network:
    """The perfect network for data from N(MEAN, COVARIANCE): E[x0 | x_t], as what the process predicts."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        signal, sigma = float(process.alpha_bar[t[0]]) ** 0.5, float(process.sigma[t[0]])
        gain = signal * COVARIANCE @ torch.linalg.inv(signal**2 * COVARIANCE + sigma**2 * torch.eye(2))
        x0 = MEAN + (x - signal * MEAN) @ gain.T
        return process.target(x0, (x - signal * x0) / sigma, t)

    return denoise


@pytest.fixture
def impulse(monkeypatch: pytest.MonkeyPatch) -> Noise:
    """Noise that is 1 in one component of two elements of the batch, and 0 elsewhere; with each call in other ones.

    It takes the place of the noise in the solvers' steps.
    """
    number = count()

    def draw_impulse(shape: tuple[int, ...], again: bool = False, **_: object) -> Tensor:
        nonlocal number
        number = count() if again else number
        values, call = torch.zeros(shape), next(number)
        values[2 * call + 1 : 2 * call + 3] = torch.eye(2)
        return values

    for solver in ("ddpm", "ddim", "dpmsolver_multistep"):
        monkeypatch.setattr(f"diffusers.schedulers.scheduling_{solver}.randn_tensor", draw_impulse)
    return draw_impulse


def moments(process: GaussianDiffusion, sampler: Sampler, impulse: Noise) -> tuple[Tensor, Tensor]:
    """Return the exact mean and covariance of the samples: the map from all noise to a sample is affine here."""
    noise = impulse((1 + 2 * (1 + sampler.steps), 2), again=True)
    samples = draw(process, sampler, gaussian(process), noise, rng=rng(), device="cpu")
    shares = samples[1:] - samples[0]
    return samples[0], shares.T @ shares


@pytest.mark.parametrize("betas", [cosine_betas(4000), linear_betas(4000, 2.5e-5, 5e-3)], ids=["cosine", "linear"])
@every_solver
def test_N8_samples_of_a_gaussian_have_its_mean_and_covariance(solver: str, betas: Tensor, impulse: Noise) -> None:
    mean, covariance = moments(GaussianDiffusion(betas, clamp=None), sampler_of(solver, 4000), impulse)
    assert torch.allclose(mean, MEAN, rtol=0, atol=1e-3)
    assert torch.allclose(covariance, COVARIANCE, rtol=0, atol=1e-3)


@pytest.mark.parametrize("solver", ["ddpm", "ddim-eta"])
def test_N8_noise_of_the_steps_is_standard_normal_and_new(solver: str, request: pytest.FixtureRequest) -> None:
    """Else the moments of many samples, to four standard errors, are not those computed from impulses."""
    process, sampler, number = cosine(40), sampler_of(solver, 40), 40_000
    samples = draw(process, sampler, gaussian(process), (2, number // 2, 2), rng=rng(), device="cpu").reshape(-1, 2)
    mean, covariance = moments(process, sampler, request.getfixturevalue("impulse"))
    variance = covariance.diag()
    error = ((torch.outer(variance, variance) + covariance**2) / number).sqrt()
    assert ((samples.mean(0) - mean).abs() < 4 * (variance / number).sqrt()).all()
    assert ((samples.T.cov() - covariance).abs() < 4 * error).all()


@pytest.mark.parametrize("steps", [5, 10, 15, 20])
def test_N8_few_steps_of_dpm_solver_are_better_than_as_many_of_ddim(steps: int, impulse: Noise) -> None:
    first, second = (
        (moments(cosine(), sampler_of(solver, steps), impulse)[1] - COVARIANCE).abs().max()
        for solver in ("dpm-solver++", "ddim")
    )
    assert first < 0.85 * second
    assert first < 2.5 / steps**2  # of second order


@pytest.mark.parametrize("steps", [1, 2, 7, 15, 99])
@every_solver
def test_N8_any_number_of_steps_keeps_the_mean(solver: str, steps: int, impulse: Noise) -> None:
    """Also where there is less signal at the last time than float32 could tell from none."""
    mean, covariance = moments(cosine(1000), sampler_of(solver, steps), impulse)
    assert torch.allclose(mean, MEAN, rtol=0, atol=1e-3)
    assert bool(torch.isfinite(covariance).all())


@every_solver
def test_N8_more_steps_are_better_where_they_are_uneven_too(solver: str, impulse: Noise) -> None:
    errors = []
    for steps in (2, 3, 7, 15, 32, 67, 99):
        _, covariance = moments(cosine(), sampler_of(solver, steps), impulse)
        errors.append(float((covariance - COVARIANCE).abs().max()))
    assert all(more < fewer for fewer, more in pairwise(errors)), errors


@pytest.mark.parametrize("solver", ["ddim", "dpm-solver++"])
def test_N8_without_eta_the_sample_is_a_function_of_its_noise(solver: str) -> None:
    noise = torch.randn(3, 2, generator=rng())
    samples = [
        draw(cosine(), sampler_of(solver, 10), gaussian(cosine()), noise, rng=rng(i), device="cpu") for i in (1, 2)
    ]
    assert torch.equal(*samples)


@pytest.mark.parametrize("solver", ["ddpm", "ddim-eta"])
def test_N8_random_steps_take_their_noise_from_the_generator(solver: str) -> None:
    noise = torch.randn(3, 2, generator=rng())
    a, b, c = (
        draw(cosine(), sampler_of(solver, 10), gaussian(cosine()), noise, rng=rng(i), device="cpu") for i in (1, 1, 2)
    )
    assert torch.equal(a, b)
    assert (a != c).all()


@pytest.mark.parametrize("betas", [cosine_betas(100), linear_betas(100, 1e-3, 0.1)], ids=["cosine", "linear"])
@pytest.mark.parametrize("clamp", [None, 0.6])
@every_solver
def test_N8_parametrisations_take_the_same_path(solver: str, clamp: float | None, betas: Tensor) -> None:
    paths = []
    for prediction in ("sample", "epsilon", "v_prediction"):
        process, path = GaussianDiffusion(betas, prediction, clamp), []
        draw(
            process, sampler_of(solver, 10), gaussian(process), (4, 2), rng=rng(), device="cpu",
            between=lambda x0, step, steps, path=path: path.append(x0) or x0,
        )  # fmt: skip
        paths.append(torch.stack(path))
    # The cosine schedule leaves 1.5e-4 of the signal at its end: noise predicted in float32 says little of x0 there.
    tolerance = 2e-3 if betas[-1] > 0.9 else 2e-6
    assert torch.allclose(paths[1], paths[0], rtol=0, atol=tolerance)
    assert torch.allclose(paths[2], paths[0], rtol=0, atol=tolerance)


@every_solver
def test_between_is_given_the_clamped_x0_and_has_the_last_word(solver: str) -> None:
    seen = []

    def between(x0: Tensor, step: int, steps: int) -> Tensor:
        seen.append((step, steps, x0))
        return x0 + 7 + step

    process = cosine(clamp=0.4)
    sample = draw(
        process, sampler_of(solver, 5), lambda x, t: 100 * x, (2, 3), rng=rng(), device="cpu", between=between
    )
    assert [(step, steps) for step, steps, _ in seen] == [(i, 5) for i in range(5)]
    assert all(torch.allclose(x0.abs(), torch.tensor(0.4)) for *_, x0 in seen)
    assert torch.equal(sample, seen[-1][2] + 11)


@every_solver
def test_between_steers_what_the_network_sees_next(solver: str) -> None:
    """With little noise left, x_t is near the corrected x0."""
    seen = []
    process = cosine()
    draw(
        process, sampler_of(solver, 100), lambda x, t: seen.append(x) or 0 * x, (2, 3), rng=rng(), device="cpu",
        between=lambda x0, step, steps: x0 + 3,
    )  # fmt: skip
    assert torch.allclose(seen[-1], torch.tensor(3.0), atol=0.3)


def test_between_may_use_gradients() -> None:
    def between(x0: Tensor, step: int, steps: int) -> Tensor:
        assert not x0.requires_grad
        with torch.enable_grad():
            x0 = x0.requires_grad_()
            (slope,) = torch.autograd.grad((x0**2).sum(), x0)
        return (x0 - 0.5 * slope).detach()

    sample = draw(cosine(), Sampler(), gaussian(cosine()), (2, 2), rng=rng(), device="cpu", between=between)
    assert torch.equal(sample, torch.zeros(2, 2))


@pytest.mark.parametrize(("strength", "steps", "times"), [
    (0.5, 5, [49, 39, 29, 19, 9]), (1.0, 4, [99, 74, 49, 24]), (0.03, 10, [2, 1, 0]), (0.001, 10, [0]),
])  # fmt: skip
@every_solver
def test_start_is_a_guess_with_noise_of_its_strength(
    solver: str, strength: float, steps: int, times: list[int]
) -> None:
    seen: list[tuple[int, Tensor]] = []
    process, guess = cosine(), torch.full((2, 3), 0.7)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        seen.append((int(t[0]), x))
        return guess

    noise = torch.randn(2, 3, generator=rng())
    sample = draw(process, sampler_of(solver, steps), denoise, noise, rng=rng(), device="cpu", start=(guess, strength))
    assert [t for t, _ in seen] == times
    expected = process.alpha_bar[times[0]].sqrt() * guess + process.sigma[times[0]] * noise
    assert torch.allclose(seen[0][1], expected.float(), atol=1e-6)
    assert torch.allclose(sample, guess, atol=1e-5)


@every_solver
def test_D2_a_sample_does_not_depend_on_its_batch(solver: str) -> None:
    """One batch of five, or of two and three one after another: the same bits, as the network here has no batch."""
    process, sampler = cosine(), sampler_of(solver, 10)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return (x * 0.3).tanh()

    whole = draw(process, sampler, denoise, (5, 3, 7), rng=rng(), device="cpu")
    one = rng()
    parts = [draw(process, sampler, denoise, (size, 3, 7), rng=one, device="cpu") for size in (2, 3)]
    assert torch.equal(torch.cat(parts), whole)
    assert len(torch.unique(whole)) == whole.numel()


@every_solver
def test_D1_D3_same_seed_same_bits_and_nothing_global_changes(solver: str) -> None:
    def states() -> tuple[object, ...]:
        return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()

    before, process = states(), cosine()
    a, b, c = (
        draw(process, sampler_of(solver, 10), gaussian(process), (2, 2), rng=rng(i), device="cpu") for i in (1, 1, 2)
    )
    assert torch.equal(a, b)
    assert (a != c).all()
    assert states() == before


def test_antithetic_noise_is_normal_in_pairs_whose_mean_is_nothing() -> None:
    noise = antithetic_noise((5, 3, 40, 40), torch.Generator().manual_seed(1))
    assert noise.shape == (5, 3, 40, 40)
    assert torch.equal(noise[0], -noise[1])
    assert torch.equal(noise[2], -noise[3])
    independent = noise[[0, 2, 4]].flatten(1)
    assert independent.mean(1).abs().max() < 0.05
    assert (independent.std(1) - 1).abs().max() < 0.05
    assert torch.corrcoef(independent).triu(1).abs().max() < 0.06
    two = antithetic_noise((2, 3, 40, 40), torch.Generator().manual_seed(1))
    assert torch.equal(two, noise[:2]), "whatever else is in the batch"


def test_the_network_is_given_float32_and_times_of_the_process() -> None:
    def denoise(x: Tensor, t: Tensor) -> Tensor:
        assert (x.dtype, t.dtype, t.shape) == (torch.float32, torch.int64, (3,))
        assert not torch.is_grad_enabled()
        times.append(t.tolist())
        return x.bfloat16()

    times: list[list[int]] = []
    noise = torch.randn(3, 2, generator=rng(), dtype=torch.float64)
    sample = draw(cosine(), Sampler(steps=3), denoise, noise, rng=rng(), device="cpu")
    assert times == [[99] * 3, [66] * 3, [32] * 3]
    assert sample.dtype == torch.float32


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    draw(
        cosine(), Sampler(steps=3), gaussian(cosine()), (1, 2), rng=rng(), device="cpu",
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@every_solver
def test_N11_what_is_not_finite_is_named_with_step_and_sigma(solver: str, value: float) -> None:
    """The clamp would make 1 of infinity."""
    process = cosine(clamp=1.0)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(torch.arange(len(x))[:, None] == 1, value, x) if int(t[0]) == 59 else x

    with pytest.raises(NumericalError, match=rf"network.*step 3 of 5 \(t = 59, sigma = {process.sigma[59]:.4f}\)"):
        draw(process, sampler_of(solver, 5), denoise, (2, 3), rng=rng(), device="cpu")


def test_N11_a_correction_that_is_not_finite_is_named() -> None:
    with pytest.raises(NumericalError, match=r"correction between steps .* step 1 of 10"):
        draw(
            cosine(), Sampler(), gaussian(cosine()), (1, 2), rng=rng(), device="cpu",
            between=lambda x0, step, steps: x0 / 0,
        )  # fmt: skip


def test_more_steps_than_the_process_has_are_refused() -> None:
    with pytest.raises(InputError, match=r"101 sampling steps.* 100"):
        draw(cosine(), Sampler(steps=101), gaussian(cosine()), (1, 2), rng=rng(), device="cpu")


@pytest.mark.parametrize(("guess", "strength", "said"), [
    (torch.zeros(1, 2), 0.0, "strength"), (torch.zeros(1, 2), 1.1, "strength"),
    (torch.zeros(1, 2), float("nan"), "strength"), (torch.zeros(2), 0.5, r"shape \(2,\).*\(1, 2\)"),
])  # fmt: skip
def test_an_impossible_start_is_refused(guess: Tensor, strength: float, said: str) -> None:
    with pytest.raises(InputError, match=said):
        draw(cosine(), Sampler(), gaussian(cosine()), (1, 2), rng=rng(), device="cpu", start=(guess, strength))


@pytest.mark.parametrize("settings", [
    {"solver": "euler"}, {"steps": 0}, {"steps": "10"}, {"eta": 0.5}, {"solver": "ddpm", "eta": 1.0},
    {"solver": "ddim", "eta": 1.5}, {"solver": "ddim", "eta": float("nan")}, {"order": 3},
])  # fmt: skip
def test_impossible_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Sampler(**settings)
