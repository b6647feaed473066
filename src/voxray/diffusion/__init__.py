"""Diffusion: how data turn into noise (processes), and how noise is turned back (sampling)."""

from voxray.diffusion.process import GaussianDiffusion
from voxray.diffusion.sampling import Sampler, antithetic_noise, draw
from voxray.diffusion.schedules import cosine_betas, linear_betas

__all__ = ["GaussianDiffusion", "Sampler", "antithetic_noise", "cosine_betas", "draw", "linear_betas"]
