"""The Brownian bridge against its closed forms, and crossed where everything is Gaussian and the answer is known."""

from collections.abc import Callable
from itertools import count, pairwise

import pytest
import torch
from torch import Tensor

from voxray.diffusion import BridgeSampler, BrownianBridge, cross
from voxray.diffusion.sampling import spaced_times
from voxray.errors import InputError, NumericalError

PREDICTIONS = ["grad", "epsilon", "difference", "sample"]
# x0 ~ N(MEAN, COVARIANCE), and y = GAIN x0 + an error of this covariance.
MEAN, COVARIANCE = torch.tensor([0.3, -0.5]), torch.tensor([[0.2, 0.08], [0.08, 0.05]])
GAIN, ERROR = torch.tensor([[0.9, 0.2], [0.0, 0.7]]), torch.tensor([[0.1, 0.0], [0.0, 0.3]])
Y = torch.tensor([0.5, -0.1])

Noise = Callable[..., Tensor]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=rng(seed))


def given(y: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and covariance of x0 where y is known."""
    gain = COVARIANCE @ GAIN.T @ torch.linalg.inv(GAIN @ COVARIANCE @ GAIN.T + ERROR)
    return MEAN + gain @ (y - GAIN @ MEAN), COVARIANCE - gain @ GAIN @ COVARIANCE


def perfect(bridge: BrownianBridge) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the perfect network for y = Y: E[x0 | x_t, y], as what the bridge predicts; at y itself E[x0 | y]."""
    mean, covariance = given(Y)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        y = Y.expand_as(x)
        m, sigma = float(bridge.share[t[0]]), float(bridge.delta[t[0]]) ** 0.5
        gain = (1 - m) * covariance @ torch.linalg.inv((1 - m) ** 2 * covariance + sigma**2 * torch.eye(2))
        x0 = mean + (x - (1 - m) * mean - m * y) @ gain.T
        return bridge.target(x0, y, (x - (1 - m) * x0 - m * y) / sigma, t)

    return denoise


@pytest.fixture
def impulse(monkeypatch: pytest.MonkeyPatch) -> Noise:
    """Noise that is 1 in one component of two elements of the batch, and 0 elsewhere; with each call in other ones."""
    number = count()

    def draw_impulse(like: Tensor, *_: object, again: bool = False) -> Tensor:
        nonlocal number
        number = count() if again else number
        values, call = torch.zeros_like(like), -1 if again else next(number)
        if call >= 0:
            values[2 * call + 1 : 2 * call + 3] = torch.eye(2)
        return values

    monkeypatch.setattr("voxray.diffusion.bridge._noise", draw_impulse)
    return draw_impulse


def moments(bridge: BrownianBridge, sampler: BridgeSampler, impulse: Noise) -> tuple[Tensor, Tensor]:
    """Return the exact mean and covariance of the samples: the map from all noise to a sample is affine here."""
    impulse(Y, again=True)
    samples = cross(bridge, sampler, perfect(bridge), Y.expand(1 + 2 * sampler.steps, 2), rng=rng())
    shares = samples[1:] - samples[0]
    return samples[0], shares.T @ shares


# ---------------------------------------------------------------- the process


def test_N8_the_schedule_is_the_published_one() -> None:
    bridge = BrownianBridge(1000, variance=2.0)
    assert float(bridge.share[0]) == pytest.approx(0.001)
    assert float(bridge.share[-1]) == pytest.approx(0.999)
    steps = bridge.share.diff()
    assert torch.allclose(steps, steps[0].expand_as(steps))
    assert torch.allclose(bridge.delta, 2 * (bridge.share - bridge.share**2) * 2.0)
    assert float(bridge.delta.max()) == pytest.approx(2.0 / 2, rel=1e-5), "half of the variance, in the middle"


def test_N8_the_ends_are_the_data_and_y() -> None:
    bridge = BrownianBridge(ends=1e-6)
    x0, y = noise(2, 3), noise(2, 3, seed=1)
    first, last = (bridge.add_noise(x0, y, noise(2, 3, seed=2), torch.full((2,), t)) for t in (0, 999))
    assert torch.allclose(first, x0, atol=1e-2)
    assert torch.allclose(last, y, atol=1e-2)


def test_N8_noise_has_the_moments_of_the_bridge() -> None:
    bridge, t = BrownianBridge(variance=0.7), torch.full((200_000,), 300)
    x = bridge.add_noise(torch.full((200_000, 1), 2.0), torch.full((200_000, 1), -1.0), noise(200_000, 1), t)
    m = float(bridge.share[300])
    assert float(x.mean()) == pytest.approx((1 - m) * 2 - m, abs=0.01)
    assert float(x.var()) == pytest.approx(2 * (m - m * m) * 0.7, rel=0.02)


def test_N8_steps_forward_and_back_make_one_joint_distribution() -> None:
    """Of x_s and x_t, given both ends: the Markov chain x0 -> x_s -> x_t of the paper, and `back`, have the same."""
    bridge, s, t = BrownianBridge(variance=0.5), 200, 650
    m, d = bridge.share, bridge.delta
    ratio = (1 - m[t]) / (1 - m[s])
    covariance = ratio * d[s]  # of x_t = ratio x_s + ... + noise
    zero, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    gain = bridge.back(zero, zero, one, t, s)[0]
    sigma = bridge.back(zero, zero, one, t, s)[1]
    assert float(gain) == pytest.approx(float(covariance / d[t]))
    assert sigma**2 == pytest.approx(float(d[s] - covariance**2 / d[t]))


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("t", [None, 999, 500])
def test_N8_a_step_back_keeps_the_moments_of_the_bridge(t: int | None, eta: float) -> None:
    """Whatever the noise of the step: from x_t with its mean and variance, x_s has its own."""
    bridge, s = BrownianBridge(), 150
    x0, y = torch.full((1, 1), 3.0, dtype=torch.float64), torch.full((1, 1), -2.0, dtype=torch.float64)
    x_t = y if t is None else (1 - bridge.share[t]) * x0 + bridge.share[t] * y
    mean, sigma = bridge.back(x0, y, x_t, t, s, eta)
    gain = bridge.back(x0, y, x_t + 1, t, s, eta)[0] - mean
    before = 0.0 if t is None else float(bridge.delta[t])
    assert float(mean) == pytest.approx(float((1 - bridge.share[s]) * 3 - bridge.share[s] * 2))
    assert float(gain) ** 2 * before + sigma**2 == pytest.approx(float(bridge.delta[s]))


def test_N8_the_first_step_is_the_limit_of_steps_from_near_y() -> None:
    bridge = BrownianBridge(ends=1e-9)
    x0, y = noise(1, 2), noise(1, 2, seed=1)
    (mean, sigma), (expected, limit) = (bridge.back(x0, y, y, t, 700) for t in (999, None))
    assert torch.allclose(mean, expected, atol=1e-4)
    assert sigma == pytest.approx(limit, abs=1e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_N8_the_sample_comes_back_from_the_target(prediction: str) -> None:
    bridge = BrownianBridge(50, 0.3, prediction)  # type: ignore[arg-type]
    x0, y, eps, t = noise(4, 2, 3), noise(4, 2, 3, seed=1), noise(4, 2, 3, seed=2), torch.tensor([0, 10, 30, 45])
    x_t = bridge.add_noise(x0, y, eps, t)
    assert torch.allclose(bridge.to_sample(bridge.target(x0, y, eps, t), x_t, y, t), x0, atol=1e-4)
    assert bridge.to_sample(eps.bfloat16(), x_t, y, t).dtype == torch.float32


# ---------------------------------------------------------------- the way across


@pytest.mark.parametrize(("variance", "eta"), [(0.1, 0.0), (0.1, 1.0), (0.25, 0.5)])
def test_N8_samples_of_a_gaussian_have_its_mean_and_covariance(variance: float, eta: float, impulse: Noise) -> None:
    """Of x0 where y is known; the ends are finer than the paper's, for the last step leaves out what noise hides."""
    bridge = BrownianBridge(3000, variance, ends=1e-5)
    mean, covariance = moments(bridge, BridgeSampler(steps=3000, eta=eta), impulse)
    assert torch.allclose(mean, given(Y)[0], rtol=0, atol=1e-3)
    assert torch.allclose(covariance, given(Y)[1], rtol=0, atol=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_N8_any_number_of_steps_keeps_the_mean(steps: int, impulse: Noise) -> None:
    mean, _ = moments(BrownianBridge(), BridgeSampler(steps=steps), impulse)
    assert torch.allclose(mean, given(Y)[0], atol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_N8_more_steps_are_better(eta: float, impulse: Noise) -> None:
    """Few are far from enough for the spread: in 20 steps, most of it is lost."""
    found = [moments(BrownianBridge(ends=1e-5), BridgeSampler(steps=n, eta=eta), impulse)[1] for n in (20, 200, 800)]
    errors = [float((covariance - given(Y)[1]).abs().max()) for covariance in found]
    assert all(later < 0.5 * before for before, later in pairwise(errors))


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_N8_quadratic_spacing_loses_less_of_the_spread(eta: float, impulse: Noise) -> None:
    found = [
        moments(BrownianBridge(), BridgeSampler(steps=20, eta=eta, spacing=spacing), impulse)[1]
        for spacing in ("linear", "quadratic")
    ]
    linear, quadratic = (float((covariance - given(Y)[1]).abs().max()) for covariance in found)
    assert quadratic < 0.6 * linear


def test_times_never_meet_and_end_with_the_last() -> None:
    for steps in (1, 2, 10, 99, 100):
        times = spaced_times(100, steps, power=2)
        assert times == sorted(set(times))
        assert (times[-1], times[0] >= 0) == (99, True)
    assert spaced_times(100, 4) == [24, 49, 74, 99]


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("clamp", [None, 0.4])
def test_N8_predictions_take_the_same_path(prediction: str, clamp: float | None) -> None:
    bridges = [BrownianBridge(100, prediction=p, clamp=clamp) for p in ("sample", prediction)]  # type: ignore[arg-type]
    one, two = (cross(b, BridgeSampler(steps=9), perfect(b), Y.expand(6, 2), rng=rng()) for b in bridges)
    assert torch.allclose(one, two, atol=1e-4)
    assert clamp is None or float(one.abs().max()) <= clamp + 1e-6


def test_N8_without_eta_the_sample_is_a_function_of_its_first_noise() -> None:
    bridge, calls = BrownianBridge(100), []

    def between(x0: Tensor, step: int, steps: int) -> Tensor:
        calls.append((step, steps))
        return x0

    sampler = BridgeSampler(steps=6, eta=0.0)
    one = cross(bridge, sampler, perfect(bridge), Y.expand(2, 2), rng=rng(), between=between)
    assert calls == [(i, 6) for i in range(6)]
    assert torch.equal(one, cross(bridge, sampler, perfect(bridge), Y.expand(2, 2), rng=rng()))
    assert not torch.allclose(one[0], one[1])


def test_what_is_known_of_the_data_is_kept_and_the_steps_are_told() -> None:
    seen: list[tuple[int, int]] = []
    found = cross(
        BrownianBridge(100), BridgeSampler(steps=4), lambda x, t: x, torch.zeros(2, 3), rng=rng(),
        between=lambda x0, step, steps: torch.full_like(x0, 7.0), progress=lambda *at: seen.append(at),
    )  # fmt: skip
    assert torch.equal(found, torch.full((2, 3), 7.0))
    assert seen == [(i, 4) for i in range(1, 5)]


def test_D1_a_sample_does_not_depend_on_its_batch() -> None:
    bridge, sampler = BrownianBridge(100), BridgeSampler(steps=5)
    generator = rng()
    whole = cross(bridge, sampler, perfect(bridge), Y.expand(4, 2), rng=rng())
    parts = [cross(bridge, sampler, perfect(bridge), Y.expand(2, 2), rng=generator) for _ in range(2)]
    assert torch.allclose(whole, torch.cat(parts), atol=1e-6)


def test_paired_samples_lie_opposite_about_the_mean() -> None:
    """For this map is affine; in general what is odd in the noise cancels."""
    bridge = BrownianBridge(100)
    samples = cross(bridge, BridgeSampler(steps=8), perfect(bridge), Y.expand(5, 2), rng=rng(), paired=True)
    assert torch.allclose((samples[0] + samples[1]) / 2, (samples[2] + samples[3]) / 2, atol=1e-5)
    assert (samples[0] - samples[2]).abs().min() > 1e-3


@pytest.mark.parametrize("wrong", [{"steps": 1}, {"variance": 0.0}, {"ends": 0.5}, {"ends": 0.0}])
def test_numbers_that_make_no_bridge_are_refused(wrong: dict) -> None:
    with pytest.raises(InputError, match="at least 2 steps"):
        BrownianBridge(**wrong)


def test_other_words_and_clamps_are_refused() -> None:
    with pytest.raises(InputError, match=r"'grad', 'epsilon', 'difference', 'sample'.*'noise'"):
        BrownianBridge(prediction="noise")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="positive"):
        BrownianBridge(clamp=0.0)
    with pytest.raises(InputError, match="20 sampling steps, but the diffusion has 10"):
        cross(BrownianBridge(10), BridgeSampler(steps=20), lambda x, t: x, torch.zeros(1, 2), rng=rng())


def test_N11_a_way_that_leaves_the_finite_numbers_is_stopped() -> None:
    with pytest.raises(NumericalError, match=r"the network.*step 1 of 3 \(t = 99, m = 0.9990\)"):
        cross(BrownianBridge(100), BridgeSampler(steps=3), lambda x, t: x / 0.0, torch.ones(1, 2), rng=rng())


def test_a_bridge_is_made_whole_on_any_default_device() -> None:
    with torch.device("meta"):
        bridge = BrownianBridge(10)
        assert bridge.share.device.type == bridge.delta.device.type == "cpu"
