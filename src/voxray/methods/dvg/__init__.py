"""DVG-Diffusion: dual-view guided diffusion (Xie et al. 2025, arXiv 2503.17804).

config.py: everything that can be chosen. lifting.py: X-rays into the volume (the back-projection of VPGE).
new_view.py: where the synthesised view stands. autoencoding.py: how the autoencoders learn. method.py: the method.
"""

from voxray.methods.dvg.method import Dvg

__all__ = ["Dvg"]
