"""What is in an image: a CT volume, and the X-rays of one examination."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from voxray.errors import GeometryError, InputError, NotFiniteError
from voxray.geometry import ViewGeometry, VolumeGrid

Kind = Literal["counts", "line_integral", "display", "estimated"]


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


@dataclass(frozen=True)
class Known:
    """What is known of how one X-ray was taken; the rest was assumed when it was read.

    Attributes:
        size: who knows the size of a pixel: the user, the tags, or nobody.
        facing: whether it is known which way the image is shown.
        centre: whether it is known where in the image the isocentre is.
    """

    size: Literal["user", "tags", "nobody"] = "user"
    facing: bool = True
    centre: bool = True


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
        kind: `counts` (photons; air bright), `line_integral` (of linear attenuation, no unit; bone high), `display`
            (grey values with bone high, on an unknown monotone scale), or `estimated` (line integrals that were
            estimated from grey values, and are as rough as that).
        origins: where each image was read from, if they were.
        valid: which pixels of each image are measurements of the patient, as against borders and burnt-in letters; all,
            where nothing is given. The others hold values that disturb nobody.
        known: what is known of each view; everything, where nothing is given.

    Raises:
        GeometryError: if images and views do not fit together.
        InputError: if a number is not finite.
    """

    images: tuple[Float[Tensor, "_ _"], ...]
    views: ViewGeometry
    kind: Kind = "line_integral"
    origins: tuple[Origin, ...] = ()
    valid: tuple[Bool[Tensor, "_ _"], ...] = ()
    known: tuple[Known, ...] = ()

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
        for name in ("origins", "valid", "known"):
            count = len(getattr(self, name))
            if count not in (0, len(images)):
                raise InputError(f"{len(images)} X-ray images, but `{name}` has {count} entries.")
        if any(mask.shape != image.shape for mask, image in zip(self.valid, images, strict=bool(self.valid))):
            raise GeometryError("The mask of valid pixels has another shape than its image.")
        object.__setattr__(self, "images", images)

    @property
    def rough(self) -> bool:
        """Whether the line integrals are, or will be, a guess from grey values."""
        return self.kind in ("display", "estimated")

    def times(self, factor: float) -> "Radiograph":
        """Multiply all pixels."""
        return replace(self, images=tuple(factor * image for image in self.images))

    def binned(self, factors: Sequence[tuple[int, int]]) -> "Radiograph":
        """Average blocks of (rows, columns) pixels of each view into one; it is valid if more than half of them are."""
        images = tuple(_pooled(image, factor) for image, factor in zip(self.images, factors, strict=True))
        valid = tuple(_pooled(v.float(), f) > 0.5 for v, f in zip(self.valid, factors, strict=bool(self.valid)))
        return replace(self, images=images, views=self.views.binned(factors), valid=valid)

    def cropped(self, boxes: Sequence[tuple[slice, slice]]) -> "Radiograph":
        """Keep a box (rows, columns) of each image."""
        images = tuple(image[box] for image, box in zip(self.images, boxes, strict=True))
        valid = tuple(mask[box] for mask, box in zip(self.valid, boxes, strict=bool(self.valid)))
        return replace(self, images=images, views=self.views.cropped(boxes), valid=valid)


def _pooled(image: Float[Tensor, "_ _"], factor: tuple[int, int]) -> Float[Tensor, "_ _"]:
    return F.avg_pool2d(image[None], factor)[0]
