"""Which series is meant, where a DICOM file or folder holds one or several."""

import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxray.errors import InputError, VoxrayWarning
from voxray.images.ct_slices import Slice, has_place, is_localizer, slices_of
from voxray.images.ct_sources import CT_CLASSES, Header


@dataclass(frozen=True)
class SeriesInfo:
    """What a user needs to choose a series.

    Attributes:
        uid: SeriesInstanceUID.
        description: SeriesDescription, or "".
        modality: "CT", "PT", ...
        slices: number of images, localizers not counted.
        spacing_mm: (x, y, z); z is the median distance of neighbouring slices; 0 where unknown.
    """

    uid: str
    description: str
    modality: str
    slices: int
    spacing_mm: tuple[float, float, float]

    def __str__(self) -> str:
        size = " x ".join(f"{value:.4g}" for value in self.spacing_mm)
        return f"{self.uid}  {self.modality}  {self.slices} slices, {size} mm  {self.description!r}"


def series_of(headers: list[Header]) -> dict[str, list[Header]]:
    """Sort the headers of images by SeriesInstanceUID; files that are no images are left out."""
    series: dict[str, list[Header]] = defaultdict(list)
    for header in headers:
        if header.text("SeriesInstanceUID") and header.get("Rows") and header.get("Columns"):
            series[header.text("SeriesInstanceUID")].append(header)
    return dict(series)


def describe(uid: str, headers: list[Header]) -> SeriesInfo:
    """Sum a series up; nothing in it is checked."""
    slices = [s for header in headers if usable(header) for s in slices_of(header)]
    first = headers[0]
    spacing = (0.0, 0.0, 0.0)
    if slices:
        gaps = np.diff(sorted({round(float(s.position_mm @ slices[0].normal), 3) for s in slices}))
        row_mm, column_mm = slices[0].spacing_mm
        spacing = (column_mm, row_mm, float(np.median(gaps)) if len(gaps) else 0.0)
    count = len(slices) or len(headers)
    return SeriesInfo(uid, first.text("SeriesDescription"), first.text("Modality"), count, spacing)


def usable(header: Header) -> bool:
    """Tell whether a file is a slice: no localizer, and with a place in space."""
    return not is_localizer(header) and has_place(header)


def choose(
    path: Path, headers: list[Header], wanted: str | None, force_modality: bool
) -> tuple[list[Slice], list[Header]]:
    """Return the slices, and the headers, of the series that is meant.

    Without `wanted` there must be one series of CT slices; a series of localizers alone does not count.

    Raises:
        InputError: if there is none, or several (they are listed), or the modality is another.
    """
    series = series_of(headers)
    if not series:
        raise InputError(f"{str(path)!r} holds no DICOM images.")
    listing = "\n".join(f"  {describe(uid, members)}" for uid, members in series.items())
    if wanted is not None and wanted not in series:
        raise InputError(f"{str(path)!r} has no series {wanted!r}; it has:\n{listing}")
    candidates = [wanted] if wanted is not None else list(series)
    if not force_modality:
        candidates = [uid for uid in candidates if series[uid][0].text("Modality") == "CT"]
        if not candidates:
            raise InputError(
                f"{str(path)!r} holds no CT (only modality CT is read as a volume; --force-modality reads others):\n"
                f"{listing}"
            )
    candidates = [uid for uid in candidates if any(map(usable, series[uid]))]
    if not candidates:
        raise InputError(f"{str(path)!r} holds no CT slices, only localizers or images without a position:\n{listing}")
    if len(candidates) > 1:
        raise InputError(f"{str(path)!r} holds {len(candidates)} series; choose one with --series UID:\n{listing}")
    chosen = series[candidates[0]]
    if chosen[0].text("Modality") != "CT":
        _warn(f"{str(path)!r} has the modality {chosen[0].text('Modality')!r}, and is read as a CT on request.")
    return _without_localizers(path, chosen), [header for header in chosen if usable(header)]


def _without_localizers(path: Path, headers: list[Header]) -> list[Slice]:
    """Return the slices of a series; say what was left out of it."""
    localizers = sum(map(is_localizer, headers))
    if localizers:
        _warn(f"{str(path)!r}: {localizers} localizer image(s) in the series were left out.")
    for header in headers:
        if not is_localizer(header) and not has_place(header) and header.text("SOPClassUID") in CT_CLASSES:
            raise InputError(
                f"{header.source.label!r} is a CT image without ImagePositionPatient, ImageOrientationPatient or "
                "PixelSpacing: damaged, or stripped of them. Export the series again."
            )
    placeless = sum(not is_localizer(header) and not has_place(header) for header in headers)
    if placeless:
        _warn(f"{str(path)!r}: {placeless} image(s) without a position (screenshots?) were left out.")
    return [s for header in headers if usable(header) for s in slices_of(header)]


def _warn(message: str) -> None:
    warnings.warn(message, VoxrayWarning, stacklevel=5)
