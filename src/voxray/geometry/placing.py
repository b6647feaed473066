"""From what is known about one X-ray to its place in space; what is unknown is assumed aloud."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from voxray.errors import GeometryError, InputError, VoxrayWarning
from voxray.geometry._frozen import FloatArray
from voxray.geometry.presets import Setup, setup_named
from voxray.geometry.views import ViewGeometry

_SIDES = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "H": (0, 0, 1), "F": (0, 0, -1)}
# A body's middle is no nearer to the detector than this (our choice; half a thin adult chest, 200 mm).
_NEAREST_MIDDLE_MM = 100.0


@dataclass(frozen=True)
class ViewTags:
    """What is known about the pose of one X-ray image; None where nothing is known.

    Attributes:
        shape: (rows, columns) of the image.
        label: the file, for messages.
        view: `pa`, `ap`, `lateral`, `left_lateral` or `right_lateral`.
        angles_deg: primary and secondary positioner angle.
        c_arm: the image was taken on a C-arm: its angles are more exact than the name of the view, and the
            distance to the patient is the distance to the isocentre.
        pixel_mm: step from row to row, and from column to column.
        pixel_in_patient: `pixel_mm` is measured in the patient, not on the detector.
        aspect: row step / column step, also where `pixel_mm` is unknown.
        source_detector_mm, source_patient_mm: distances along the central ray.
        magnification: source to detector / source to patient, where a distance is unknown.
        orientation: the sides of the patient at the right and at the bottom of the image (L, R, A, P, H, F).
    """

    shape: tuple[int, int]
    label: str = "the X-ray"
    view: str | None = None
    angles_deg: tuple[float, float] | None = None
    c_arm: bool = False
    pixel_mm: tuple[float, float] | None = None
    pixel_in_patient: bool = False
    aspect: float = 1.0
    source_detector_mm: float | None = None
    source_patient_mm: float | None = None
    magnification: float | None = None
    orientation: tuple[str, str] | None = None

    @property
    def angle_name(self) -> str | None:
        """The positioner angles as the name of a view: `30`, or `30_-20` with a secondary angle."""
        if self.angles_deg is None:
            return None
        primary, secondary = (angle + 0.0 for angle in self.angles_deg)
        return f"{primary:g}" if secondary == 0 else f"{primary:g}_{secondary:g}"

    @property
    def name(self) -> str | None:
        """The name of the view: on a C-arm its angles, else the view position; else what there is."""
        first, second = (self.angle_name, self.view) if self.c_arm else (self.view, self.angle_name)
        return first or second


@dataclass(frozen=True)
class ViewOptions:
    """What the user knows about the set-up, and what to do about what nobody knows.

    Attributes:
        setup: a preset's name, or a `Setup`: the defaults.
        pixel_mm: distance of neighbouring columns on the detector; overrides the tags.
        sdd_mm: source to detector; overrides the tags.
        sid_mm: source to isocentre (the middle of the body); overrides the tags.
        lateral_anterior: the side of a lateral image at which the front of the patient is shown.
        strict: refuse instead of assuming.

    Raises:
        InputError: if a length is not positive, or a choice is none of the valid ones.
    """

    setup: str | Setup = "chest"
    pixel_mm: float | None = None
    sdd_mm: float | None = None
    sid_mm: float | None = None
    lateral_anterior: Literal["right", "left"] | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        for name in ("pixel_mm", "sdd_mm", "sid_mm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"{name} must be a positive number of millimetres, not {value!r}.")
        if self.lateral_anterior not in (None, "right", "left"):
            raise InputError(f"lateral_anterior must be 'right' or 'left', not {self.lateral_anterior!r}.")


def place_view(tags: ViewTags, name: str, options: ViewOptions) -> ViewGeometry:
    """Stand source and detector of one view about the isocentre (0, 0, 0).

    Args:
        tags: what is known of the image.
        name: its view: as in `ViewGeometry.from_names`, or `tags.name`.
        options: the defaults, and what overrides the tags.

    Returns:
        One view called `name`. Steps along rows and columns may differ.

    Raises:
        GeometryError: if there is no view of that name, or distances are impossible.
        InputError: under `options.strict`, if something had to be assumed.
    """
    preset = setup_named(options.setup)
    sdd_mm, sid_mm = _distances(tags, preset, options)
    row_mm, column_mm = _pixel_mm(tags, preset, sdd_mm / sid_mm, options)
    setup = Setup(sdd_mm, sid_mm, column_mm, tags.shape)
    if tags.angles_deg is not None and name == tags.angle_name:
        primary, secondary = tags.angles_deg
        view = ViewGeometry.from_angles([primary], [secondary], setup=setup, names=(name,))
        lateral = False
    else:
        anterior = options.lateral_anterior or "right"
        view = ViewGeometry.from_names((name,), setup=setup, lateral_anterior=anterior)
        lateral = "lateral" in name
    u, v = view.u_mm[0] / column_mm, view.v_mm[0] / column_mm
    if not (lateral and options.lateral_anterior):
        u, v = _shown(u, v, tags, lateral, options.strict)
    return replace(view, u_mm=u[None] * column_mm, v_mm=v[None] * row_mm)


def join_views(views: Sequence[ViewGeometry]) -> ViewGeometry:
    """Put views of one isocentre into one geometry.

    Raises:
        GeometryError: if there is none, or two have the same name.
    """
    if not views:
        raise GeometryError("A view geometry needs at least one view.")
    arrays = {
        key: np.concatenate([getattr(view, key) for view in views])
        for key in ("source_mm", "centre_mm", "u_mm", "v_mm")
    }
    return ViewGeometry(
        **arrays,
        shapes=tuple(shape for view in views for shape in view.shapes),
        names=tuple(name for view in views for name in view.names),
        isocentre_mm=views[0].isocentre_mm,
    )


def _distances(tags: ViewTags, preset: Setup, options: ViewOptions) -> tuple[float, float]:
    """Return source to detector and source to isocentre, in mm.

    DistanceSourceToPatient is the distance to the isocentre on a C-arm (PS3.3 C.8.7.5), but to the near side
    of table or bucky in CR and DX (C.8.11.5), though many write the distance to the body. We believe it where
    it leaves half a body before the detector. Where one distance is unknown, the magnification of the tags gives it;
    else the isocentre stands as far from the detector as in the preset (our choice: a body stands at its detector,
    however far the tube is).
    """
    unknown = []
    gap_mm = preset.source_detector_mm - preset.source_isocentre_mm
    sdd_mm, sid_mm = options.sdd_mm or tags.source_detector_mm, options.sid_mm
    if sid_mm is None and tags.source_patient_mm is not None:
        nearest = 0.0 if tags.c_arm else _NEAREST_MIDDLE_MM
        believed = sdd_mm is None or sdd_mm - tags.source_patient_mm > nearest
        sid_mm = tags.source_patient_mm if believed else None
    if sdd_mm is None and sid_mm is not None and tags.magnification is not None:
        sdd_mm = sid_mm * tags.magnification
    elif sdd_mm is None:
        unknown.append("to the detector (--sdd-mm)")
        sdd_mm = preset.source_detector_mm if sid_mm is None else sid_mm + gap_mm
    if sid_mm is None and tags.magnification is not None:
        sid_mm = sdd_mm / tags.magnification
    elif sid_mm is None:
        unknown.append("to the middle of the patient (--sid-mm)")
        sid_mm = sdd_mm - gap_mm
    if unknown:
        _assume(
            f"{tags.label}: the distance of the source {' and '.join(unknown)} is not known; by the preset "
            f"{_preset_name(options)}: {sdd_mm:g} mm to the detector, {sid_mm:g} mm to the patient.",
            options.strict,
        )
    return sdd_mm, sid_mm


def _pixel_mm(tags: ViewTags, preset: Setup, magnification: float, options: ViewOptions) -> tuple[float, float]:
    """Return the steps from row to row and from column to column on the detector, in mm."""
    if options.pixel_mm is not None:
        return options.pixel_mm * tags.aspect, options.pixel_mm
    if tags.pixel_mm is not None:
        scale = magnification if tags.pixel_in_patient else 1.0
        return tags.pixel_mm[0] * scale, tags.pixel_mm[1] * scale
    rows, columns = tags.shape
    field_mm = max(preset.shape) * preset.pixel_mm
    column_mm = field_mm / max(rows * tags.aspect, columns)
    _assume(
        f"{tags.label}: the size of its pixels is not known; its longer side is taken to span the detector of "
        f"the preset {_preset_name(options)}, {field_mm:.0f} mm: {column_mm:.3g} mm a pixel (--pixel-mm).",
        options.strict,
    )
    return column_mm * tags.aspect, column_mm


def _shown(u: FloatArray, v: FloatArray, tags: ViewTags, lateral: bool, strict: bool) -> tuple[FloatArray, FloatArray]:
    """Turn the unit steps along columns and rows to how the image is shown, by the tag PatientOrientation.

    The detector stays where it is; its axes are taken from u, -u, v and -v, whichever point nearest to the
    sides of the patient that the tag names at the right and at the bottom (PS3.3 C.7.6.1.1.1).
    """
    axes = np.stack([u, -u, v, -v])
    if tags.orientation is not None:
        said = f"PatientOrientation ({tags.orientation[0]} at the right, {tags.orientation[1]} at the bottom)"
        sides = [np.array(_SIDES.get(side[0], (0, 0, 0)), dtype=float) for side in tags.orientation]
        right, down = (axes @ side for side in sides)
        if min(right.max(), down.max()) > 0.5 and right.argmax() // 2 != down.argmax() // 2:
            if not lateral and (right.argmax(), down.argmax()) != (0, 2):
                _assume(f"{tags.label}: shown mirrored or turned, as the tag {said} has it.", strict=False)
            return axes[right.argmax()], axes[down.argmax()]
        _assume(f"{tags.label}: the tag {said} does not fit the view; it is ignored.", strict)
    if lateral:
        _assume(
            f"{tags.label}: nothing says which way the lateral is shown; the front of the patient is taken to "
            "be at the right of the image. If it is at the left, say --lateral-anterior left.",
            strict,
        )
    return u, v


def _preset_name(options: ViewOptions) -> str:
    return repr(options.setup) if isinstance(options.setup, str) else "of the options"


def _assume(message: str, strict: bool) -> None:
    if strict:
        raise InputError(f"{message} (Refused: strict.)")
    warnings.warn(message, VoxrayWarning, stacklevel=4)
