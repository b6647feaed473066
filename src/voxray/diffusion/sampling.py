"""Samplers: from noise to a sample, along a diffusion.

Whatever the network predicts is turned into x0 first, so the three parametrisations take the same path, and whoever
knows something about the data (what the X-rays say) can correct x0 at every step.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Float32, Int64
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from voxray.diffusion.process import GaussianDiffusion
from voxray.errors import InputError, NumericalError

Denoise = Callable[[Float32[Tensor, "batch ..."], Int64[Tensor, " batch"]], Float[Tensor, "batch ..."]]
Between = Callable[[Float32[Tensor, "batch ..."], int, int], Float32[Tensor, "batch ..."]]
# From x0, the time on the sampler's own chain, and x_t to the x of the time before; noise from the streams.
_Back = Callable[[Tensor, int, Tensor, list[torch.Generator]], Tensor]


class Sampler(BaseModel):
    """How samples are drawn; a part of a method's configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    solver: Literal["ddpm", "ddim", "dpm-solver++"] = Field(
        default="dpm-solver++",
        description="ddpm: random steps, as published when there are as many as in training; ddim: fewer, without "
        "noise; dpm-solver++: fewest",
    )
    steps: int = Field(default=10, gt=0, description="calls of the network")
    eta: float = Field(default=0.0, ge=0, le=1, description="noise of ddim's steps; 1 for that of ddpm")

    @model_validator(mode="after")
    def _eta_belongs_to_ddim(self) -> "Sampler":
        if self.eta and self.solver != "ddim":
            raise ValueError(f"eta is a setting of ddim; {self.solver} has none: leave it out")
        return self


@torch.no_grad()
def draw(
    process: GaussianDiffusion,
    sampler: Sampler,
    denoise: Denoise,
    shape_or_noise: Sequence[int] | Float[Tensor, "batch ..."],
    *,
    rng: torch.Generator,
    device: torch.device | str,
    between: Between | None = None,
    start: tuple[Float[Tensor, "batch ..."], float] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Float32[Tensor, "batch ..."]:
    """Draw one sample for each element of the batch.

    The solvers are those of diffusers: ancestral sampling (`ddpm`: Ho et al. 2020, arXiv 2006.11239, algorithm 2, with
    the posterior's variance), DDIM (Song et al. 2021, arXiv 2010.02502, eq. 12) and DPM-Solver++ (2M, midpoint; Lu et
    al. 2022, arXiv 2211.01095, algorithm 2). With fewer steps than the process has, each is run on the chain of the
    times it visits (Nichol and Dhariwal 2021, arXiv 2102.09672, section 4). These are spaced evenly and end with the
    last, which is pure noise (`trailing` in Lin et al. 2023, arXiv 2305.08891, table 2). The sample is the last x0.

    A float of noise is used by one element only: `rng` gives each element, in their order, the seed of a stream of
    its own. So no result depends on the batch it is in, and two batches after another from one `rng` are the same as
    one of both.

    Args:
        process: the diffusion that the network was trained for.
        sampler: solver and steps.
        denoise: the network, with its conditions: x_t and t (of the process, the same for all elements) to the
            output that `process.prediction` names.
        shape_or_noise: the batch's shape, or x_T itself.
        rng: of the CPU.
        device: where the samples are made.
        between: called with (x0, step from 0, steps) after each call of the network; what it returns takes the place
            of x0, and is not clamped again. Gradients are off; whoever needs them turns them on.
        start: (x0, strength): begin from this guess with the noise of the fraction `strength` of the process instead
            of from pure noise (SDEdit: Meng et al. 2022, arXiv 2108.01073). The steps are spread over what remains.
        progress: called with (steps done, steps).

    Raises:
        InputError: if there are more steps than in the process, or the guess or its strength is impossible.
        NumericalError: if the network or `between` returns something that is not finite.
    """
    shape = tuple(shape_or_noise.shape if isinstance(shape_or_noise, Tensor) else shape_or_noise)
    streams = streams_of(rng, shape[0])
    if isinstance(shape_or_noise, Tensor):
        x = shape_or_noise.to(device, torch.float32)
    else:
        noise = [torch.randn(shape[1:], generator=stream, dtype=torch.float32) for stream in streams]
        x = torch.stack(noise).to(device)
    times = spaced_times(process.steps, sampler.steps, 1.0 if start is None else start[1])
    if start is not None:
        if tuple(start[0].shape) != shape:
            raise InputError(f"A guess of shape {tuple(start[0].shape)} to start samples of shape {shape} from.")
        x = process.add_noise(start[0].to(x), x, torch.full(shape[:1], times[-1], device=device))
    back, steps = _solver(sampler, process.alpha_bar[times]), len(times)
    for step, index in enumerate(reversed(range(steps))):
        t = torch.full(shape[:1], times[index], device=device)
        where = f"step {step + 1} of {steps} (t = {times[index]}, sigma = {float(process.sigma[times[index]]):.4f})"
        x0 = finite(process.to_sample(denoise(x, t), x, t), "the network", where)
        if process.clamp is not None:
            x0 = x0.clamp(-process.clamp, process.clamp)
        if between is not None:
            x0 = finite(between(x0, step, steps), "the correction between steps", where)
        x = back(x0, index, x, streams)
        if progress is not None:
            progress(step + 1, steps)
    return x


def antithetic_noise(shape: Sequence[int], rng: torch.Generator) -> Float32[Tensor, "batch ..."]:
    """Return noise whose second, fourth, ... element is the one before, negated.

    Antithetic variates (Hammersley and Morton 1956): each sample that begins from it is as random as any, but in the
    mean of a pair all that is odd in the noise cancels, so that few samples have the mean of many. Because that mean is
    no guess, the mean square of the differences to it estimates the variance, without the correction for one.

    Args:
        shape: of the batch.
        rng: of the CPU; each pair has a stream of its own, as in `draw`.
    """
    pairs = []
    for _ in range(-(-shape[0] // 2)):
        one = torch.randn(tuple(shape[1:]), generator=torch.Generator().manual_seed(_seed(rng)), dtype=torch.float32)
        pairs += [one, -one]
    return torch.stack(pairs[: shape[0]])


def streams_of(rng: torch.Generator, count: int) -> list[torch.Generator]:
    """Return so many streams of noise, seeded by `rng`."""
    return [torch.Generator().manual_seed(_seed(rng)) for _ in range(count)]


def _seed(rng: torch.Generator) -> int:
    return int(torch.randint(2**63 - 1, (), generator=rng))


def finite(x0: Tensor, source: str, where: str) -> Tensor:
    """Return x0; raise `NumericalError` that names its source if it holds infinity or NaN."""
    if not bool(torch.isfinite(x0).all()):
        raise NumericalError(
            f"Sampling left the finite numbers: {source} returned infinity or NaN in {where}. The weights may be "
            "damaged, or the numbers too large for half precision."
        )
    return x0


def spaced_times(total: int, steps: int, strength: float = 1.0, power: int = 1) -> list[int]:
    """Return the times of a process that are visited, least noise first; the last is where sampling begins.

    Args:
        total: steps of the process.
        steps: calls of the network, at most.
        strength: the part of the process that is gone through.
        power: 1 for even distances, 2 for ones that shrink evenly towards the least noise (a few steps may coincide).

    Raises:
        InputError: if there are more steps than in the process, or the strength is impossible.
    """
    if steps > total:
        raise InputError(f"{steps} sampling steps, but the diffusion has {total}: ask for at most those.")
    if not 0 < strength <= 1:
        raise InputError(f"The strength with which a guess is changed is over 0 and at most 1, not {strength}.")
    last = max(1, round(strength * total))
    steps = min(steps, last)
    return sorted({max(1, round((i + 1) ** power * last / steps**power)) - 1 for i in range(steps)})


def _solver(sampler: Sampler, alpha_bar: Tensor) -> _Back:
    """Return the solver's step on the chain with this `alpha_bar`.

    The chain is not given by its betas: diffusers rounds them to float32, where those of few steps are 1 (the signal
    is gone, and NaN follows). Chains without gaps also keep clear of how its schedulers skip steps: DDIM's goes to
    t - (T // steps), which is not the next time unless `steps` divides T.
    """
    # Slow (diffusers takes a second), and only who samples needs it. By the files' names, for the type checker.
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    steps = len(alpha_bar)
    if sampler.solver == "ddpm":
        ddpm = DDPMScheduler(steps, prediction_type="sample", clip_sample=False)
        ddpm.alphas_cumprod = alpha_bar
        return lambda x0, t, x, streams: ddpm.step(x0, t, x, generator=streams, return_dict=False)[0]
    if sampler.solver == "ddim":
        ddim = DDIMScheduler(steps, prediction_type="sample", clip_sample=False)
        ddim.alphas_cumprod = alpha_bar
        ddim.set_timesteps(steps)
        return lambda x0, t, x, streams: ddim.step(x0, t, x, sampler.eta, generator=streams, return_dict=False)[0]
    dpm = DPMSolverMultistepScheduler(steps, prediction_type="sample")
    dpm.alphas_cumprod = alpha_bar
    dpm.set_timesteps(timesteps=list(reversed(range(steps))))
    return lambda x0, t, x, streams: dpm.step(x0, t, x, return_dict=False)[0]
