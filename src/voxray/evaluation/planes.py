"""The three central planes of a volume, small enough to be kept with every score."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from voxray.images import CTVolume

NAMES = ("axial", "coronal", "sagittal")

# Pixels along the longer side; larger planes are thinned out (ours: what a figure of three columns can show).
_MOST = 192


@dataclass(frozen=True, eq=False)
class Planes:
    """Axial, coronal and sagittal plane through the middle, turned as radiologists look at them.

    Attributes:
        hu: one image a plane, int16; the first row at the top.
        size_mm: (width, height) of each.
    """

    hu: tuple[npt.NDArray[np.int16], ...]
    size_mm: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, volume: CTVolume) -> "Planes":
        """Cut the planes of a volume, as `images.preview.planes` does."""
        from voxray.images.preview import planes  # matplotlib

        pictures = planes(volume, "", {})
        images = []
        for picture in pictures:
            step = math.ceil(max(picture.pixels.shape) / _MOST)
            kept = np.clip(np.rint(picture.pixels[::step, ::step]), -32768, 32767)
            images.append(np.ascontiguousarray(kept.astype(np.int16)))
        return cls(tuple(images), tuple(picture.size_mm for picture in pictures))

    def tensors(self) -> dict[str, Tensor]:
        """Return the images by the names of the planes, to be written; `sizes` goes with them."""
        return {name: torch.from_numpy(image) for name, image in zip(NAMES, self.hu, strict=True)}

    @classmethod
    def read(cls, tensors: dict[str, Tensor], size_mm: Any) -> "Planes":
        """Return what `tensors` and `size_mm` were written from."""
        sizes = tuple((float(width), float(height)) for width, height in size_mm)
        return cls(tuple(tensors[name].numpy() for name in NAMES), sizes)
