"""DVG-Diffusion: dual-view guided diffusion (Xie et al. 2025, arXiv 2503.17804).

config.py: everything that can be chosen. new_view.py: where the synthesised view stands. method.py: the method. Beside
this folder, for others too: lifted.py: X-rays into the volume (the back-projection of VPGE). autoencoding.py: how the
autoencoders learn.
"""

from voxray.methods.dvg.method import Dvg

__all__ = ["Dvg"]
