"""How much noise each step of a diffusion adds: betas, the variance that a step brings in.

Schedules are on the CPU whatever the default device is: models are built on the device `meta` to learn their sizes.
"""

from math import pi

import torch
from jaxtyping import Float64
from torch import Tensor


def cosine_betas(steps: int, s: float = 0.008, cap: float = 0.9999) -> Float64[Tensor, " steps"]:
    """Return the betas of the cosine schedule.

    alpha_bar(t) = f(t) / f(0) with f(t) = cos^2((t / steps + s) / (1 + s) * pi / 2), and
    beta_t = min(1 - alpha_bar(t) / alpha_bar(t - 1), cap), t = 1 .. steps: Nichol and Dhariwal, "Improved denoising
    diffusion probabilistic models", 2021, arXiv 2102.09672, eq. 17.

    Args:
        steps: of the chain.
        s: keeps the first betas from being tiny.
        cap: the largest beta. The paper has 0.999; 0.9999 is that of DVG-Diffusion's released code (and of most code
            that goes back to lucidrains' video diffusion).
    """
    t = torch.arange(steps + 1, dtype=torch.float64, device="cpu") / steps
    signal = torch.cos((t + s) / (1 + s) * pi / 2) ** 2
    return (1 - signal[1:] / signal[:-1]).clamp(max=cap)


def linear_betas(steps: int, first: float, last: float) -> Float64[Tensor, " steps"]:
    """Return betas that rise linearly from `first` to `last` (Ho et al. 2020, arXiv 2006.11239, section 4)."""
    return torch.linspace(first, last, steps, dtype=torch.float64, device="cpu")
