"""One slice of a CT: where it is, and how its numbers become Hounsfield units."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom

from voxray.errors import InputError
from voxray.images.ct_sources import Header, Source
from voxray.images.reading import reading

Vector = npt.NDArray[np.float64]

# Functional group of an enhanced (multi-frame) CT that holds each tag (DICOM PS3.3 C.7.6.16.2).
_GROUPS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "RescaleType": "PixelValueTransformationSequence",
}
_PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")


@dataclass(frozen=True, eq=False)
class Slice:
    """One CT slice.

    Attributes:
        source: the file.
        frame: its number in the file, from 0; 0 in a file of one slice.
        patient_id: PatientID.
        shape: pixels (rows, columns).
        spacing_mm: distance of neighbouring (rows, columns): DICOM's order.
        position_mm: LPS centre of the first pixel.
        axes: 2 x 3, the directions along a row and down a column.
        slope, intercept: HU = slope * stored + intercept; None where the file has none.
    """

    source: Source
    frame: int
    patient_id: str
    shape: tuple[int, int]
    spacing_mm: tuple[float, float]
    position_mm: Vector
    axes: Vector
    slope: float | None
    intercept: float | None

    @property
    def normal(self) -> Vector:
        """The unit vector perpendicular to the slice (direction along rows x direction down columns)."""
        return np.asarray(np.cross(self.axes[0], self.axes[1]))

    def __str__(self) -> str:
        return f"{self.source.label!r}" + (f" frame {self.frame + 1}" if self.frame else "")


def frames_in(header: Header) -> int:
    """Return the number of frames of a file (1 where it does not say)."""
    with reading(header.source.label):
        return int(header.tags.get("NumberOfFrames") or 1)


def is_localizer(header: Header) -> bool:
    """Tell whether an image is a localizer (scout, topogram): "LOCALIZER" in its ImageType."""
    kinds = header.get("ImageType") or ()
    return "LOCALIZER" in ((kinds,) if isinstance(kinds, str) else tuple(kinds))


def has_place(header: Header) -> bool:
    """Tell whether an image has position, orientation and pixel spacing."""
    with reading(header.source.label):
        return all(_find(header.tags, name, 0) is not None for name in _PLACE)


def slices_of(header: Header) -> list[Slice]:
    """Return the slices of a file: one, or one a frame.

    Raises:
        InputError: if a tag is missing or impossible, or the pixels are not grey (MONOCHROME2).
    """
    tags, label = header.tags, header.source.label
    with reading(label):
        if tags.get("SamplesPerPixel", 1) != 1 or tags.get("PhotometricInterpretation") != "MONOCHROME2":
            raise InputError(
                f"{label!r} has pixels of kind {tags.get('PhotometricInterpretation')!r}; a CT has MONOCHROME2."
            )
        count = frames_in(header)
        groups = tags.get("PerFrameFunctionalGroupsSequence")
        if count < 1 or count != (len(groups) if groups is not None else 1):
            raise InputError(f"{label!r} says it has {count} frames, but does not say where each of them is.")
        return [_slice(header, frame) for frame in range(count)]


def _slice(header: Header, frame: int) -> Slice:
    tags, label = header.tags, header.source.label
    position = _numbers(label, tags, "ImagePositionPatient", frame, 3)
    axes = _numbers(label, tags, "ImageOrientationPatient", frame, 6).reshape(2, 3)
    spacing = _numbers(label, tags, "PixelSpacing", frame, 2)
    if np.abs(axes @ axes.T - np.eye(2)).max() > 1e-3:
        raise InputError(f"{label!r}: ImageOrientationPatient {axes.tolist()} are not two perpendicular unit vectors.")
    if not spacing.min() > 0:
        raise InputError(f"{label!r}: PixelSpacing {spacing.tolist()} is not positive.")
    slope, intercept = (
        None if _find(tags, name, frame) is None else float(_numbers(label, tags, name, frame, 1)[0])
        for name in ("RescaleSlope", "RescaleIntercept")
    )
    if (_find(tags, "RescaleType", frame) or "HU") not in ("HU", "US"):
        raise InputError(f"{label!r} holds {_find(tags, 'RescaleType', frame)!r}, not Hounsfield units.")
    return Slice(
        header.source, frame, header.text("PatientID"), (int(tags.Rows), int(tags.Columns)),
        (float(spacing[0]), float(spacing[1])), position, axes, slope, intercept,
    )  # fmt: skip


def _find(tags: pydicom.Dataset, name: str, frame: int) -> Any:
    """Return a tag of a frame: from its own functional group, else the shared one, else the top level."""
    for sequence, index in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        groups = tags.get(sequence)
        if groups is not None and index < len(groups):
            group = groups[index].get(_GROUPS[name])
            if group and group[0].get(name) is not None:
                return group[0].get(name)
    return tags.get(name)


def _numbers(label: str, tags: pydicom.Dataset, name: str, frame: int, count: int) -> Vector:
    value = _find(tags, name, frame)
    numbers = np.atleast_1d(np.asarray([] if value is None else value, dtype=np.float64))
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise InputError(f"{label!r}: {name} must be {count} finite number(s), not {value!r}.")
    return numbers
