"""DX2CT: slices drawn one by one, each guided by what a transformer finds in the X-rays for its places."""

from voxray.methods.dx2ct.method import Dx2ct

__all__ = ["Dx2ct"]
