"""DiffuX2CT: a diffusion of voxels, told by planes of X-ray features that can be queried at any place.

config.py: everything that can be chosen. sight.py: which ray goes through which point. triplane.py: X-rays to planes.
field.py: planes to features at points. denoiser.py: the U-Net. method.py: the method.
"""

from voxray.methods.diffux2ct.method import Diffux2ct

__all__ = ["Diffux2ct"]
