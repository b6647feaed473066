"""Diffusion: how data turn into noise (processes), and how noise is turned back (sampling)."""

from voxray.diffusion.bridge import BridgeSampler, BrownianBridge, cross
from voxray.diffusion.flow import follow, on_path
from voxray.diffusion.process import GaussianDiffusion, times_and_noise
from voxray.diffusion.sampling import Sampler, antithetic_noise, draw
from voxray.diffusion.schedules import cosine_betas, linear_betas

__all__ = [
    "BridgeSampler", "BrownianBridge", "GaussianDiffusion", "Sampler", "antithetic_noise", "cosine_betas", "cross",
    "draw", "follow", "linear_betas", "on_path", "times_and_noise",
]  # fmt: skip
