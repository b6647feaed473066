"""What is in an image: a CT volume, and the X-rays of one examination."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from voxray.errors import GeometryError, InputError, NotFiniteError
from voxray.geometry import ViewGeometry, VolumeGrid

Kind = Literal["counts", "line_integral", "display"]


@dataclass(frozen=True)
class Origin:
    """Where an image came from. Holds patient data: never written to a report or log unless the user asks.

    Attributes:
        path: the file (or folder) that was read.
        sop_class_uid, sop_instance_uid, study_uid, patient_id, patient_name, study_date, body_part: DICOM tags,
            else "".
    """

    path: Path
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    study_uid: str = ""
    patient_id: str = ""
    patient_name: str = ""
    study_date: str = ""
    body_part: str = ""


@dataclass(frozen=True, eq=False)
class CTVolume:
    """A CT in Hounsfield units on its grid.

    Args:
        hu: float32, axes (z, y, x).
        grid: where the voxels are.
        origin: where it was read from, if it was.

    Raises:
        InputError: if the shape is not the grid's, or a number is not finite.
    """

    hu: Float[Tensor, "z y x"]
    grid: VolumeGrid
    origin: Origin | None = None

    def __post_init__(self) -> None:
        if tuple(self.hu.shape) != self.grid.shape:
            raise GeometryError(f"A volume of shape {tuple(self.hu.shape)} on a grid of {self.grid.shape}.")
        object.__setattr__(self, "hu", self.hu.to(torch.float32))
        if not bool(torch.isfinite(self.hu).all()):
            raise NotFiniteError("The volume has voxels that are not finite numbers.")


@dataclass(frozen=True, eq=False)
class Radiograph:
    """The X-rays of one examination, and where source and detector stood.

    Args:
        images: one 2D float32 image (rows, columns) a view; shapes may differ.
        views: the geometry, with the same number of views and the same shapes.
        kind: `counts` (photons; air bright), `line_integral` (of linear attenuation, no unit; bone high), or
            `display` (grey values with bone high, on an unknown monotone scale).
        origins: where each image was read from, if they were.

    Raises:
        GeometryError: if images and views do not fit together.
        InputError: if a number is not finite.
    """

    images: tuple[Float[Tensor, "_ _"], ...]
    views: ViewGeometry
    kind: Kind = "line_integral"
    origins: tuple[Origin, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(f"The kind of a radiograph is one of {get_args(Kind)}, not {self.kind!r}.")
        images = tuple(image.to(torch.float32) for image in self.images)
        if len(images) != len(self.views):
            raise GeometryError(f"{len(images)} X-ray images, but the geometry has {len(self.views)} views.")
        for image, shape, name in zip(images, self.views.shapes, self.views.names, strict=True):
            if tuple(image.shape) != shape:
                raise GeometryError(
                    f"The image of view {name!r} has {tuple(image.shape)} pixels (rows, columns), but its "
                    f"geometry says {shape}."
                )
            if not bool(torch.isfinite(image).all()):
                raise NotFiniteError(f"The image of view {name!r} has pixels that are not finite numbers.")
        if self.origins and len(self.origins) != len(images):
            raise InputError(f"{len(images)} X-ray images, but {len(self.origins)} origins.")
        object.__setattr__(self, "images", images)

    def binned(self, factors: Sequence[tuple[int, int]]) -> "Radiograph":
        """Average blocks of (rows, columns) pixels of each view into one."""
        images = tuple(F.avg_pool2d(image[None], factor)[0] for image, factor in zip(self.images, factors, strict=True))
        return replace(self, images=images, views=self.views.binned(factors))
