"""X2CT-CNN and X2CT-GAN: dense features of X-rays, linked along their rays into a 3D decoder."""

from voxray.methods.x2ct.method import X2ct

__all__ = ["X2ct"]
