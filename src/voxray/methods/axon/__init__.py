"""AXON-style: a bridge from the lifted X-rays to the CT, then a ControlNet on a latent diffusion.

config.py: everything that can be chosen, and why. control.py: the latent diffusion and its ControlNet. method.py: the
method.
"""

from voxray.methods.axon.method import Axon

__all__ = ["Axon"]
