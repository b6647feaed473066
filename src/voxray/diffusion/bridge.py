"""The Brownian bridge: a diffusion from data to something that is like them, instead of to noise."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import torch
from jaxtyping import Float, Float32, Float64, Int64
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from voxray.diffusion.sampling import Between, Denoise, finite, spaced_times, streams_of
from voxray.errors import InputError

BridgePrediction = Literal["grad", "epsilon", "difference", "sample"]
_POWERS = {"linear": 1, "quadratic": 2}


@dataclass(frozen=True, eq=False)
class BrownianBridge:
    """Data x0 go over into y, of the same shape: x_t = (1 - m_t) x0 + m_t y + sqrt(delta_t) noise.

    delta_t = 2 (m_t - m_t^2) variance, with m_t rising linearly from `ends` to 1 - `ends` (Li et al., "BBDM:
    image-to-image translation with Brownian bridge diffusion models", CVPR 2023, arXiv 2205.07680; `ends` and
    `variance`, there s, as in its published code). What x0 and y share is never lost on the way. Times and tensors are
    as for `GaussianDiffusion`: t from 0, the nearest to x0, to `steps` - 1, the nearest to y.

    Args:
        steps: T.
        variance: twice the largest variance of the noise, which is there in the middle: the diversity of the samples.
        prediction: what the network's output is: `grad` (x_t - x0, the published choice), `epsilon` (the noise),
            `difference` (y - x0) or `sample` (x0).
        clamp: as for `GaussianDiffusion`.
        ends: the least m_t.

    Raises:
        InputError: if a number is out of range, or the prediction has another name.
    """

    steps: int = 1000
    variance: float = 1.0
    prediction: BridgePrediction = "grad"
    clamp: float | None = None
    ends: float = 0.001

    def __post_init__(self) -> None:
        if self.steps < 2 or not self.variance > 0 or not 0 < self.ends < 0.5:
            raise InputError(
                f"A bridge has at least 2 steps, a variance above 0 and ends between 0 and 0.5, not {self.steps}, "
                f"{self.variance} and {self.ends}."
            )
        if self.prediction not in get_args(BridgePrediction):
            raise InputError(f"The prediction is one of {get_args(BridgePrediction)}, not {self.prediction!r}.")
        if self.clamp is not None and not self.clamp > 0:
            raise InputError(f"x0 is clamped to a positive magnitude, or None, not to {self.clamp}.")

    @cached_property
    def share(self) -> Float64[Tensor, " steps"]:
        """Return m_t, the part of y in the mean of x_t."""
        return torch.linspace(self.ends, 1 - self.ends, self.steps, dtype=torch.float64, device="cpu")

    @cached_property
    def delta(self) -> Float64[Tensor, " steps"]:
        """Return the variance of the noise in x_t."""
        return 2 * (self.share - self.share**2) * self.variance

    def add_noise(
        self,
        x0: Float[Tensor, "batch ..."],
        y: Float[Tensor, "batch ..."],
        noise: Float[Tensor, "batch ..."],
        t: Int64[Tensor, " batch"],
    ) -> Float[Tensor, "batch ..."]:
        """Return x_t."""
        m, sigma = self._coefficients(t, x0)
        return (1 - m) * x0 + m * y + sigma * noise

    def target(
        self,
        x0: Float[Tensor, "batch ..."],
        y: Float[Tensor, "batch ..."],
        noise: Float[Tensor, "batch ..."],
        t: Int64[Tensor, " batch"],
    ) -> Float[Tensor, "batch ..."]:
        """Return what the network should predict, as `prediction` says."""
        if self.prediction == "sample":
            return x0
        if self.prediction == "difference":
            return y - x0
        if self.prediction == "epsilon":
            return noise
        m, sigma = self._coefficients(t, x0)
        return m * (y - x0) + sigma * noise

    def to_sample(
        self,
        output: Float[Tensor, "batch ..."],
        x_t: Float[Tensor, "batch ..."],
        y: Float[Tensor, "batch ..."],
        t: Int64[Tensor, " batch"],
    ) -> Float32[Tensor, "batch ..."]:
        """Return the x0 that a network's output stands for, not clamped; float32 whatever the output is."""
        output, x_t, y = output.float(), x_t.float(), y.float()
        if self.prediction == "sample":
            return output
        if self.prediction == "difference":
            return y - output
        if self.prediction == "grad":
            return x_t - output
        m, sigma = self._coefficients(t, x_t)
        return (x_t - m * y - sigma * output) / (1 - m)

    def back(
        self,
        x0: Float[Tensor, "batch ..."],
        y: Float[Tensor, "batch ..."],
        x_t: Float[Tensor, "batch ..."],
        t: int | None,
        s: int,
        eta: float = 1.0,
    ) -> tuple[Float[Tensor, "batch ..."], float]:
        """Return mean and standard deviation of x_s, given x0, y and x_t, for s < t.

        With eta = 1 that is the bridge's posterior (BBDM, for any s):

            var = (delta_t - delta_s (1 - m_t)^2 / (1 - m_s)^2) delta_s / delta_t
            mean = (1 - m_s) x0 + m_s y + sqrt((delta_s - var) / delta_t) (x_t - (1 - m_t) x0 - m_t y)

        With less, var is eta^2 times that, and the mean takes more of the noise that is in x_t: x_s keeps its variance
        delta_s, as in DDIM (Song et al. 2021, arXiv 2010.02502, eq. 12; BBDM's code leaves the mean as it is, which
        loses variance).

        Args:
            x0: what is expected at the one end.
            y: the other end.
            x_t: the present.
            t: None for the very end y, where there is no noise yet: var is then delta_s whatever eta is.
            s: the time to go to.
            eta: from 0 to 1.
        """
        m_s, delta_s = float(self.share[s]), float(self.delta[s])
        mean = (1 - m_s) * x0 + m_s * y
        if t is None:
            return mean, delta_s**0.5
        m_t, delta_t = float(self.share[t]), float(self.delta[t])
        variance = eta**2 * (delta_t - delta_s * ((1 - m_t) / (1 - m_s)) ** 2) * delta_s / delta_t
        left = ((delta_s - variance) / delta_t) ** 0.5
        return mean + left * (x_t - (1 - m_t) * x0 - m_t * y), variance**0.5

    def _coefficients(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return m and sqrt(delta) at the times t, shaped to multiply `like`."""
        shape = (-1, *[1] * (like.ndim - 1))
        m, sigma = (values.to(like)[t].reshape(shape) for values in (self.share, self.delta.sqrt()))
        return m, sigma


class BridgeSampler(BaseModel):
    """How a bridge is crossed; a part of a method's configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    steps: int = Field(default=20, gt=0, description="calls of the network; the paper takes 200 of 1000")
    spacing: Literal["linear", "quadratic"] = Field(
        default="linear",
        description="of the times; quadratic (ours) has more of them near the data, where noise hides them least",
    )
    eta: float = Field(default=1.0, ge=0, le=1, description="noise of the steps after the first; 1 for the posterior's")


@torch.no_grad()
def cross(
    bridge: BrownianBridge,
    sampler: BridgeSampler,
    denoise: Denoise,
    y: Float[Tensor, "batch ..."],
    *,
    rng: torch.Generator,
    between: Between | None = None,
    paired: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Float32[Tensor, "batch ..."]:
    """Draw one sample for each y of the batch (BBDM's sampling, with skipped steps).

    Streams of noise and the place of `between` are as for `draw`. The way begins at y itself, which the network is told
    as time T - 1, and its first step draws from what x0 and y say alone (BBDM takes y for the x of that time, and so
    lacks its noise). The sample is the last x0.

    Args:
        bridge: that the network was trained for.
        sampler: steps, and their noise.
        denoise: the network, with its conditions, of which y may be one: x_t and t to the output that
            `bridge.prediction` names.
        y: where the way begins.
        rng: of the CPU.
        between: as for `draw`.
        paired: the noise of the second, fourth, ... element is that of the one before, negated (`antithetic_noise`).
        progress: called with (steps done, steps).

    Raises:
        InputError: if there are more steps than in the bridge.
        NumericalError: if the network or `between` returns something that is not finite.
    """
    y = y.float()
    times, count = spaced_times(bridge.steps, sampler.steps, power=_POWERS[sampler.spacing]), len(y)
    streams = streams_of(rng, -(-count // 2) if paired else count)
    x, before = y, None
    for step, index in enumerate(reversed(range(len(times)))):
        t = torch.full((count,), times[index], device=y.device)
        where = f"step {step + 1} of {len(times)} (t = {times[index]}, m = {float(bridge.share[times[index]]):.4f})"
        x0 = finite(bridge.to_sample(denoise(x, t), x, y, t), "the network", where)
        if bridge.clamp is not None:
            x0 = x0.clamp(-bridge.clamp, bridge.clamp)
        if between is not None:
            x0 = finite(between(x0, step, len(times)), "the correction between steps", where)
        if index > 0:
            mean, sigma = bridge.back(x0, y, x, before, times[index - 1], sampler.eta)
            x0, before = mean + sigma * _noise(y, streams, paired), times[index - 1]
        x = x0
        if progress is not None:
            progress(step + 1, len(times))
    return x


def _noise(like: Tensor, streams: list[torch.Generator], paired: bool) -> Tensor:
    drawn = [torch.randn(like.shape[1:], generator=stream, dtype=torch.float32) for stream in streams]
    if paired:
        drawn = [sign * one for one in drawn for sign in (1, -1)][: len(like)]
    return torch.stack(drawn).to(like)
