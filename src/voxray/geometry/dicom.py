"""What the DICOM tags of an X-ray say about where source and detector stood."""

import warnings
from collections.abc import Sequence
from math import isfinite

from pydicom import Dataset

from voxray.errors import GeometryError, VoxrayWarning
from voxray.geometry.placing import ViewOptions, ViewTags, join_views, place_view
from voxray.geometry.view_names import mismatch, with_side
from voxray.geometry.views import ViewGeometry

# PS3.3 C.8.11.5 (DX), C.8.3 (CR): terms of ViewPosition; the longer words are what vendors write.
_VIEW_POSITIONS = {
    "PA": "pa", "AP": "ap", "LL": "left_lateral", "RL": "right_lateral", "LAT": "lateral",
    "LATERAL": "lateral", "L": "lateral", "LLAT": "left_lateral", "RLAT": "right_lateral",
    "LEFT LATERAL": "left_lateral", "RIGHT LATERAL": "right_lateral",
}  # fmt: skip
# ViewCodeSequence, PS3.16 CID 4010: the code of SNOMED CT, and the code that it replaces.
_VIEW_CODES = {
    "272479007": "pa", "R-10214": "pa", "R-40888": "pa", "399348003": "ap", "R-10206": "ap",
    "399173006": "left_lateral", "R-10236": "left_lateral", "399198007": "right_lateral",
    "R-10232": "right_lateral", "399067008": "lateral", "R-102CD": "lateral",
}  # fmt: skip
# Plausible values; these limits are ours. What lies outside (zeros, centimetres) counts as absent.
_PIXEL_LIMITS_MM = (0.01, 20.0)
_DISTANCE_LIMITS_MM = (300.0, 20000.0)
_MAGNIFICATION_LIMITS = (1.01, 5.0)


def view_tags(dataset: Dataset, *, label: str = "the X-ray", frame: int = 0) -> ViewTags:
    """Collect the tags that describe the pose of an X-ray.

    Values that are empty, zero, malformed or implausible count as absent. The spacing is PixelSpacing, else
    ImagerPixelSpacing (detector plane), else NominalScannedPixelSpacing (detector plane). PixelSpacing is
    measured in the patient if PixelSpacingCalibrationType is GEOMETRY or FIDUCIAL, or if it differs from
    ImagerPixelSpacing as a magnification would (DICOM PS3.3 10.7.1; up to a factor of 2, our choice); then
    ImagerPixelSpacing, where there is one, is the detector's. Without any sign of a calibration the
    standard leaves open where PixelSpacing is measured: we take the detector plane, as uncalibrated CR and
    DX write it.

    Args:
        dataset: a DICOM X-ray with Rows and Columns.
        label: the file, for messages.
        frame: the frame of a multi-frame image, from 0; it selects the positioner angle increments.

    Raises:
        GeometryError: if Rows or Columns are missing.
    """
    rows, columns = (_numbers(dataset, key, 1, (1, 2**16)) for key in ("Rows", "Columns"))
    if rows is None or columns is None:
        raise GeometryError(f"{label}: the tags Rows and Columns are missing.")
    distances = [
        _numbers(dataset, key, 1, _DISTANCE_LIMITS_MM)
        for key in ("DistanceSourceToDetector", "DistanceSourceToPatient")
    ]
    magnification = _numbers(dataset, "EstimatedRadiographicMagnificationFactor", 1, _MAGNIFICATION_LIMITS)
    pixel, in_patient = _pixel_spacing(dataset)
    aspect = _numbers(dataset, "PixelAspectRatio", 2, (1e-3, 1e6))
    ratio = pixel or aspect or (1.0, 1.0)
    orientation = _strings(dataset, "PatientOrientation")
    return ViewTags(
        shape=(int(rows[0]), int(columns[0])),
        label=label,
        view=_view_position(dataset),
        angles_deg=_angles(dataset, frame),
        c_arm=_text(dataset, "Modality") in ("XA", "RF") or _text(dataset, "PositionerType") == "CARM",
        pixel_mm=(pixel[0], pixel[1]) if pixel else None,
        pixel_in_patient=in_patient,
        aspect=ratio[0] / ratio[1],
        source_detector_mm=distances[0][0] if distances[0] else None,
        source_patient_mm=distances[1][0] if distances[1] else None,
        magnification=magnification[0] if magnification else None,
        orientation=(orientation[0], orientation[1]) if len(orientation) == 2 and all(orientation) else None,
    )


def views_from_dicom(
    datasets: Sequence[Dataset], *, views: Sequence[str] | None = None, options: ViewOptions | None = None
) -> ViewGeometry:
    """Read the geometry of X-rays from their DICOM tags, one view a dataset, about a common isocentre.

    The isocentre is the origin of patient coordinates (an X-ray does not say where in the patient it is), and
    the central ray is taken to meet the middle of each image.

    Args:
        datasets: DICOM X-rays with one frame each (`read_radiograph` takes several frames).
        views: names as in `ViewGeometry.from_names`, one a dataset; else the tags must say them. The side of a
            `lateral` is that of the tags.
        options: what to take where the tags are silent.

    Raises:
        GeometryError: if a view is unknown, contradicts the tags, or two are the same.
        InputError: under `options.strict`, if something had to be assumed.
    """
    options = options or ViewOptions()
    tags = [view_tags(dataset, label=f"X-ray {i + 1}") for i, dataset in enumerate(datasets)]
    if views is not None and len(views) != len(tags):
        raise GeometryError(f"{len(tags)} X-rays, but {len(views)} views: {', '.join(views)}.")
    names = list(views) if views is not None else [tag.name for tag in tags]
    placed = []
    for tag, name in zip(tags, names, strict=True):
        if name is None:
            raise GeometryError(f"{tag.label}: no tag says which view it is; name the views (pa, lateral, ...).")
        if mismatch(tag.name, name) >= 1:
            raise GeometryError(f"{tag.label} cannot be the view {name!r}: its tags say that it is {tag.name!r}.")
        if mismatch(tag.name, name) > 0:
            warnings.warn(
                f"{tag.label} is read as {name!r}, though its tags say {tag.name!r}.", VoxrayWarning, stacklevel=3
            )
        placed.append(place_view(tag, with_side(name, tag.view), options))
    return join_views(placed)


def _pixel_spacing(dataset: Dataset) -> tuple[tuple[float, ...] | None, bool]:
    """Return (row step, column step) in mm or None, and whether it is measured in the patient."""
    pixel = _numbers(dataset, "PixelSpacing", 2, _PIXEL_LIMITS_MM)
    imager = _numbers(dataset, "ImagerPixelSpacing", 2, _PIXEL_LIMITS_MM)
    if pixel is None:
        return imager or _numbers(dataset, "NominalScannedPixelSpacing", 2, _PIXEL_LIMITS_MM), False
    magnified = imager is not None and 1.001 < imager[0] / pixel[0] <= 2.0
    if magnified or _text(dataset, "PixelSpacingCalibrationType") in ("GEOMETRY", "FIDUCIAL"):
        return (imager, False) if imager is not None else (pixel, True)
    return pixel, False


def _angles(dataset: Dataset, frame: int) -> tuple[float, float] | None:
    """Return both positioner angles of one frame (PS3.3 C.8.7.5.1.3), or None without a primary angle.

    An increment with one value is the change from each frame to the next; with a value for each frame, they
    are offsets from the first angle.
    """
    angles: list[float] = []
    for axis in ("Primary", "Secondary"):
        value = _numbers(dataset, f"Positioner{axis}Angle", 1, (-360.0, 360.0))
        if value is None and axis == "Primary":
            return None
        steps = _strings(dataset, f"Positioner{axis}AngleIncrement")
        offsets = _numbers(dataset, f"Positioner{axis}AngleIncrement", len(steps), (-360.0, 360.0))
        angle = value[0] if value else 0.0
        if offsets and (len(offsets) == 1 or frame < len(offsets)):
            angle += offsets[0] * frame if len(offsets) == 1 else offsets[frame]
        angles.append(angle)
    return angles[0], angles[1]


def _view_position(dataset: Dataset) -> str | None:
    view = _VIEW_POSITIONS.get(_text(dataset, "ViewPosition").replace("_", " "))
    codes = dataset.get("ViewCodeSequence") or []
    return view or next((v for c in codes if (v := _VIEW_CODES.get(_text(c, "CodeValue")))), None)


def _strings(dataset: Dataset, keyword: str) -> list[str]:
    value = dataset.get(keyword)
    if value is None or value == "":
        return []
    several = not isinstance(value, str) and hasattr(value, "__iter__")
    return [str(item).strip().upper() for item in (value if several else [value])]


def _text(dataset: Dataset, keyword: str) -> str:
    return next(iter(_strings(dataset, keyword)), "")


def _numbers(dataset: Dataset, keyword: str, count: int, limits: tuple[float, float]) -> tuple[float, ...] | None:
    """Return the `count` numbers of a tag, or None where one is missing, malformed or outside of `limits`."""
    try:
        values = tuple(float(text) for text in _strings(dataset, keyword))
    except ValueError:
        return None
    low, high = limits
    good = len(values) == count and all(isfinite(value) and low <= value <= high for value in values)
    return values if good and values else None
