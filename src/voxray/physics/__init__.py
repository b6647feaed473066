"""How X-rays come about: attenuation, projection, noise; and how a volume is made to agree with them."""

from voxray.physics.projector import Projector

__all__ = ["Projector"]
