"""CT volumes and radiographs: what they are, and how they are read and written."""

from voxray.images.types import CTVolume, Origin, Radiograph

__all__ = ["CTVolume", "Origin", "Radiograph"]
