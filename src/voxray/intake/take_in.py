"""From display values, as hospitals export them, to line integrals of a chest about the isocentre."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp

import numpy as np
import torch

from voxray.errors import VoxrayWarning
from voxray.geometry import FloatArray, ViewGeometry, VolumeGrid
from voxray.images import Radiograph
from voxray.images.types import Known
from voxray.intake.align import USUAL, Correction, align
from voxray.intake.canvas import family_of
from voxray.intake.find import Found, find
from voxray.intake.findings import NO_CHEST, Finding
from voxray.intake.framing import field_box
from voxray.intake.gauge import Gauged, canvas_grid, gauge
from voxray.intake.look import Sighting
from voxray.intake.masses import corrections as mass_corrections
from voxray.intake.masses import mass_ratio, row_masses
from voxray.intake.tone import ToneCurve

# So many times are size and height gauged, each time with what was told before; ours.
_TIMES = 2


@dataclass(frozen=True, eq=False)
class Intake:
    """X-rays as a model takes them, and what was found on the way.

    Attributes:
        radiograph: estimated line integrals of what the model sees; borders and letters are not valid.
        views: the geometry of the whole images, as taken in the end.
        findings: one a view.
    """

    radiograph: Radiograph
    views: ViewGeometry
    findings: tuple[Finding, ...]

    def times(self, factor: float) -> "Intake":
        """Return the same with all line integrals multiplied."""
        findings = tuple(finding.times(factor) for finding in self.findings)
        return replace(self, radiograph=self.radiograph.times(factor), findings=findings)


def can_take_in(radiograph: Radiograph) -> bool:
    """Tell whether X-rays are grey values of frontal and lateral views, of which statistics are known."""
    views = radiograph.views
    return radiograph.kind == "display" and all(family_of(views, view) is not None for view in range(len(views)))


def take_in(radiograph: Radiograph, grid: VolumeGrid, *, aligned: bool = True) -> Intake:
    """Find the chest, mask what is none, and estimate line integrals.

    For each view: (1) borders and burnt-in letters are masked; (2) the chest is found (`find_chest`), which gives the
    size of the pixels where nobody knows it, which way a lateral faces where nothing says it, and where the isocentre
    is. (3) A network says what is still wrong with heights and with the size of one view against the other, and how
    dense the chest is (`gauge`); a tone curve brings grey values to that (`match_tones`). Then a frontal and a lateral
    view are brought to the same mass, also in each row (`align`), and images are cropped to what shows the volume.

    Args:
        radiograph: for which `can_take_in` holds.
        grid: of the volume that is wanted.
        aligned: correct size, place and tones of two views by what they have in common.
    """
    found = find(radiograph)
    knowns = radiograph.known or (Known(),) * len(found.looks)
    unknown = [_unknown(*one) for one in zip(found.sightings, knowns, strict=True)]
    found, curves = _gauged(found, unknown)
    warnings.warn(
        "The X-rays are grey values of unknown scale: a curve brings each to the line integrals that a chest like it "
        "would show. HU are as rough as that.",
        VoxrayWarning,
        stacklevel=3,
    )
    corrections: Sequence[Correction | None] = [None] * len(curves)
    if _are_two_sides(found):
        curves = _of_one_mass(found.xrays, curves)
        if aligned and all(map(_is_chest, found.sightings)):
            so = align(_estimated(found.xrays, curves), found.xrays.views, unknown)
            curves = [curve.bent(c.bend).times(exp(c.factor)) for curve, c in zip(curves, so, strict=True)]
            found, corrections = found.moved(so), so
    for look, said, off, column_mm in zip(found.looks, knowns, unknown, found.whole.u_mm, strict=True):
        if off.size and said.size == "nobody":
            _say_size(look.label, float(np.linalg.norm(column_mm)))
    images = tuple(torch.from_numpy(image).float() for image in _estimated(found.xrays, curves))
    estimated = replace(found.xrays, images=images, kind="estimated")
    boxes = [field_box(estimated.views, view, grid.size_mm) for view in range(len(curves))]
    masked = [1 - float(valid.float().mean()) for valid in found.xrays.valid]
    families = [look.family for look in found.looks]
    each = zip(estimated.views.names, families, found.sightings, curves, masked, corrections, strict=True)
    return Intake(estimated.cropped(boxes), found.whole, tuple(Finding(*one) for one in each))


def _unknown(seen: Sighting, known: Known) -> Correction:
    """Return how far off size, place and tones of a view may be; size and place by 0 where they were not estimated."""
    chest = seen.best > NO_CHEST
    return replace(
        USUAL,
        size=USUAL.size if chest and seen.sized else 0.0,
        up_mm=USUAL.up_mm if chest and not known.centre else 0.0,
    )


def _gauged(found: Found, unknown: Sequence[Correction]) -> tuple[Found, list[ToneCurve]]:
    """Correct what is unknown of size and height, and estimate the tone curves.

    Sizes are corrected against each other alone, or against those that are known: whether a chest is large or
    the X-ray source near, an image hardly tells, and the place of the chest says as much (`find_chest`). A view that
    shows no chest stays as it is.
    """
    for _ in range(_TIMES):
        told = _told(found)
        chests = [(one.size, seen.sized) for one, seen in zip(told, found.sightings, strict=True) if _is_chest(seen)]
        known = [size for size, sized in chests if not sized]
        common = float(np.mean(known or [size for size, _ in chests] or [0.0]))
        each = zip(told, unknown, strict=True)
        found = found.moved(
            [Correction(t.size - common if u.size else 0.0, t.up_mm if u.up_mm else 0.0) for t, u in each]
        )
    last = zip(found.looks, _told(found), strict=True)
    return found, [look.tones(found.xrays.views, told.line_integrals) for look, told in last]


def _told(found: Found) -> list[Gauged]:
    """Gauge each view: a frontal and a lateral one together, if both show a chest, others alone."""
    shown = [(look.family, look.canvas(found.xrays.views, *canvas_grid())) for look in found.looks]
    if _are_two_sides(found) and all(map(_is_chest, found.sightings)):
        told = gauge(dict(shown))
        return [told[family] for family, _ in shown]
    return [gauge({family: canvas})[family] for family, canvas in shown]


def _is_chest(seen: Sighting) -> bool:
    return seen.best > NO_CHEST


def _estimated(xrays: Radiograph, curves: Sequence[ToneCurve]) -> list[FloatArray]:
    return [curve(image.double().numpy()) for curve, image in zip(curves, xrays.images, strict=True)]


def _are_two_sides(found: Found) -> bool:
    """Tell whether these are a frontal and a lateral view."""
    return len(found.looks) == 2 and {look.family for look in found.looks} == {"frontal", "lateral"}


def _of_one_mass(xrays: Radiograph, curves: Sequence[ToneCurve]) -> list[ToneCurve]:
    """Bring the curves of two sides to the same mass in the central rows, where these show it."""
    masses = [row_masses(image, xrays.views, n) for n, image in enumerate(_estimated(xrays, curves))]
    factors = mass_corrections(mass_ratio(*masses))
    return [curve.times(factor) for curve, factor in zip(curves, factors, strict=True)]


def _say_size(label: str, pixel_mm: float) -> None:
    warnings.warn(
        f"{label}: by the size of the chest in it, its pixels are taken to be {pixel_mm:.3g} mm on the detector "
        "instead (--pixel-mm).",
        VoxrayWarning,
        stacklevel=4,
    )
