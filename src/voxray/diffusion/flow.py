"""Rectified flow: straight paths from where a sample begins to where it ends."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from voxray.diffusion.sampling import Between, finite

Velocity = Callable[[Float32[Tensor, "batch ..."], float], Float[Tensor, "batch ..."]]


def on_path(
    start: Float[Tensor, "batch ..."], end: Float[Tensor, "batch ..."], t: Float[Tensor, " batch"]
) -> tuple[Float[Tensor, "batch ..."], Float[Tensor, "batch ..."]]:
    """Return x_t = (1 - t) start + t end, and the velocity end - start that a network learns there.

    Liu et al. 2022 (arXiv 2209.03003), eq. 1. The start may be noise or, as in posterior-mean rectified flow (Ohayon et
    al. 2024, arXiv 2410.00418, section 3), an estimate of the end.

    Args:
        start: x_0.
        end: x_1.
        t: from 0 (start) to 1 (end), one for each element.
    """
    return start.lerp(end, t.reshape(-1, *[1] * (start.ndim - 1))), end - start


@torch.no_grad()
def follow(
    velocity: Velocity,
    start: Float[Tensor, "batch ..."],
    steps: int,
    between: Between | None = None,
) -> Float32[Tensor, "batch ..."]:
    """Return x_1: the flow is followed from x_0 in steps of Euler.

    Each step first says where the path would end, x_t + (1 - t) v; whoever knows more of the end may correct that.
    (diffusers' `FlowMatchEulerDiscreteScheduler` takes the same steps, with time reversed and no room for that.)

    Args:
        velocity: the network, with its conditions: x_t and t to dx/dt.
        start: x_0.
        steps: calls of the network.
        between: called with (expected x_1, step from 0, steps); what it returns takes its place.

    Raises:
        NumericalError: if the network or `between` returns something that is not finite.
    """
    x = start.float()
    for step in range(steps):
        t = step / steps
        where = f"step {step + 1} of {steps} (t = {t:.2f})"
        end = finite(x + (1 - t) * velocity(x, t).float(), "the network", where)
        if between is not None:
            end = finite(between(end, step, steps), "the correction between steps", where)
        x = x.lerp(end, 1 / (steps - step))
    return x
