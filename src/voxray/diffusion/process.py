"""The Gaussian diffusion of data into noise, and what a network may predict of it."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from voxray.errors import InputError

Prediction = Literal["sample", "epsilon", "v_prediction"]


def times_and_noise(
    x0: Float[Tensor, "batch ..."], steps: int, rng: torch.Generator
) -> tuple[Int64[Tensor, " batch"], Float[Tensor, "batch ..."]]:
    """Draw a time below `steps` and a noise for each element of a batch, for a step of training.

    Args:
        x0: data, whose shape and device are taken.
        steps: of the process.
        rng: of the CPU.
    """
    t = torch.randint(steps, (len(x0),), generator=rng).to(x0.device)
    return t, torch.randn(x0.shape, generator=rng).to(x0)


@dataclass(frozen=True, eq=False)
class GaussianDiffusion:
    """Data x0 drown in noise step by step: x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) noise.

    alpha_bar_t is the product of 1 - beta up to t (Ho et al., "Denoising diffusion probabilistic models", 2020, arXiv
    2006.11239, eq. 4). Times t are int64, one for each element of the batch, from 0 (the least noise) to `steps` - 1.
    The coefficients are computed in float64 and used in the tensors' own type, on the tensors' device.

    Args:
        betas: of every step, between 0 and 1.
        prediction: what the network's output is: `sample` (x0), `epsilon` (the noise), or `v_prediction`
            (Salimans and Ho 2022, arXiv 2202.00512, section 4 and appendix D).
        clamp: the largest magnitude of x0, to which samplers cut what the network predicts; None for data without
            limits.

    Raises:
        InputError: if the betas are no schedule, or the prediction has another name.
    """

    betas: Float64[Tensor, " steps"]
    prediction: Prediction = "sample"
    clamp: float | None = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", self.betas.to("cpu", torch.float64))
        if self.betas.ndim != 1 or not len(self.betas) or not bool(((self.betas > 0) & (self.betas < 1)).all()):
            raise InputError("The betas of a diffusion are a list of numbers between 0 and 1 (both excluded).")
        if self.prediction not in get_args(Prediction):
            raise InputError(f"The prediction is one of {get_args(Prediction)}, not {self.prediction!r}.")
        if self.clamp is not None and not self.clamp > 0:
            raise InputError(f"x0 is clamped to a positive magnitude, or None, not to {self.clamp}.")

    @property
    def steps(self) -> int:
        """Number of steps from data to noise."""
        return len(self.betas)

    @cached_property
    def alpha_bar(self) -> Float64[Tensor, " steps"]:
        """The part of the variance of x_t that is signal, if that of x0 is 1."""
        return torch.cumprod(1 - self.betas, dim=0)

    @cached_property
    def sigma(self) -> Float64[Tensor, " steps"]:
        """Standard deviation of the noise in x_t."""
        return (1 - self.alpha_bar).sqrt()

    def add_noise(
        self, x0: Float[Tensor, "batch ..."], noise: Float[Tensor, "batch ..."], t: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch ..."]:
        """Return x_t."""
        signal, sigma = self._coefficients(t, x0)
        return signal * x0 + sigma * noise

    def target(
        self, x0: Float[Tensor, "batch ..."], noise: Float[Tensor, "batch ..."], t: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch ..."]:
        """Return what the network should predict: x0, the noise, or v = sqrt(alpha_bar) noise - sigma x0."""
        if self.prediction == "sample":
            return x0
        if self.prediction == "epsilon":
            return noise
        signal, sigma = self._coefficients(t, x0)
        return signal * noise - sigma * x0

    def to_sample(
        self, output: Float[Tensor, "batch ..."], x_t: Float[Tensor, "batch ..."], t: Int64[Tensor, " batch"]
    ) -> Float32[Tensor, "batch ..."]:
        """Return the x0 that a network's output stands for, not clamped; float32 whatever the output is."""
        output, x_t = output.float(), x_t.float()
        if self.prediction == "sample":
            return output
        signal, sigma = self._coefficients(t, x_t)
        if self.prediction == "epsilon":
            return (x_t - sigma * output) / signal
        return signal * x_t - sigma * output

    def _coefficients(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return sqrt(alpha_bar) and sigma at the times t, shaped to multiply `like`."""
        shape = (-1, *[1] * (like.ndim - 1))
        signal, sigma = (values.to(like)[t].reshape(shape) for values in (self.alpha_bar.sqrt(), self.sigma))
        return signal, sigma
