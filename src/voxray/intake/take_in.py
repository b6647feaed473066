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
from voxray.images.fill import fill
from voxray.images.types import Known
from voxray.intake.align import USUAL, Correction, align
from voxray.intake.canvas import Family, checked_family, family_of
from voxray.intake.findings import NO_CHEST, Finding
from voxray.intake.framing import field_box, framed
from voxray.intake.locate import Place
from voxray.intake.look import Look, Sighting
from voxray.intake.masks import find_borders, find_marks
from voxray.intake.masses import corrections, mass_ratio, row_masses
from voxray.intake.tone import ToneCurve

# The longer side of an image while it is worked on, in pixels; ours.
_PIXELS = 512


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
    is; (3) a tone curve brings grey values to the line integrals of an average chest (`match_tones`). Then a frontal
    and a lateral view are brought to the same mass, also in each row (`align`), and images are cropped to what shows
    the volume.

    Args:
        radiograph: for which `can_take_in` holds.
        grid: of the volume that is wanted.
        aligned: correct size, place and tones of two views by what they have in common.
    """
    working = radiograph.binned([(-(-max(shape) // _PIXELS),) * 2 for shape in radiograph.views.shapes])
    views, whole = working.views, radiograph.views
    images, masks, sightings, curves = [], [], [], []
    for view in range(len(views)):
        image = working.images[view].numpy().astype(np.float64)
        borders = find_borders(image)
        missing = borders | find_marks(fill(image, borders))
        known = radiograph.known[view] if radiograph.known else Known()
        look = Look(fill(image, missing), ~missing, working.views, view, known, _label(radiograph, view))
        seen = look.find()
        if not known.centre and seen.best > NO_CHEST:
            views, whole = (framed(v, view, seen.place, seen.faces_other_way) for v in (views, whole))
            if known.size == "nobody":
                _say_size(_label(radiograph, view), float(np.linalg.norm(whole.u_mm[view])))
        images.append(fill(image, missing))
        masks.append(~missing)
        sightings.append(seen)
        curves.append(look.tones(views, seen.place.stretch))
    warnings.warn(
        "The X-rays are grey values of unknown scale: a curve brings each to the line integrals that an average chest "
        "would show. HU are as rough as that.",
        VoxrayWarning,
        stacklevel=3,
    )
    found: list[Correction] | list[None] = [None] * len(views)
    if _are_two_sides(views):
        curves = _of_one_mass(images, curves, views)
        if aligned and min(seen.best for seen in sightings) > NO_CHEST:
            knowns = radiograph.known or (Known(),) * 2
            unknown = [_unknown(checked_family(views, n), sightings[n], knowns[n]) for n in range(2)]
            found = align([curve(i) for curve, i in zip(curves, images, strict=True)], views, unknown)
            curves = [c.bent(so.bend).times(exp(so.factor)) for c, so in zip(curves, found, strict=True)]
            views, whole = (_moved(v, found) for v in (views, whole))
    estimated = replace(
        working,
        images=tuple(torch.from_numpy(c(image)).float() for c, image in zip(curves, images, strict=True)),
        views=views,
        kind="estimated",
        valid=tuple(torch.from_numpy(mask) for mask in masks),
    )
    boxes = [field_box(views, view, grid.size_mm) for view in range(len(views))]
    findings = tuple(
        Finding(name, checked_family(views, n), sightings[n], curves[n], 1 - float(masks[n].mean()), found[n])
        for n, name in enumerate(views.names)
    )
    return Intake(estimated.cropped(boxes), whole, findings)


def _are_two_sides(views: ViewGeometry) -> bool:
    """Tell whether these are a frontal and a lateral view."""
    return len(views) == 2 and {family_of(views, view) for view in range(2)} == {"frontal", "lateral"}


def _of_one_mass(images: list[FloatArray], curves: list[ToneCurve], views: ViewGeometry) -> list[ToneCurve]:
    """Bring the curves of two sides to the same mass in the central rows, where these show it."""
    masses = [row_masses(curve(image), views, n) for n, (curve, image) in enumerate(zip(curves, images, strict=True))]
    factors = corrections(mass_ratio(*masses))
    return [curve.times(factor) for curve, factor in zip(curves, factors, strict=True)]


def _unknown(family: Family, seen: Sighting, known: Known) -> Correction:
    """Return how far off size, place and tones of a view may be; size and place by 0 where they were not estimated."""
    usual, sized = USUAL[family], seen.place.scale != 1.0
    return replace(usual, size=usual.size if sized else 0.0, up_mm=0.0 if known.centre else usual.up_mm)


def _moved(views: ViewGeometry, found: Sequence[Correction]) -> ViewGeometry:
    """Return the geometry with size and place of each view corrected."""
    for view, so in enumerate(found):
        views = framed(views, view, Place(1.0, exp(so.size), 1.0, -so.up_mm, 0.0), mirrored=False)
    return views


def _label(radiograph: Radiograph, view: int) -> str:
    return radiograph.origins[view].path.name if radiograph.origins else f"The X-ray {radiograph.views.names[view]!r}"


def _say_size(label: str, pixel_mm: float) -> None:
    warnings.warn(
        f"{label}: by the size of the chest in it, its pixels are taken to be {pixel_mm:.3g} mm on the detector "
        "instead (--pixel-mm).",
        VoxrayWarning,
        stacklevel=4,
    )
