"""From display values, as hospitals export them, to line integrals of a chest about the isocentre."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from voxray.errors import VoxrayWarning
from voxray.geometry import FloatArray, ViewGeometry, VolumeGrid
from voxray.images import Radiograph
from voxray.images.fill import fill
from voxray.images.types import Known
from voxray.intake.canvas import checked_family, family_of
from voxray.intake.findings import NO_CHEST, Finding
from voxray.intake.framing import field_box, framed
from voxray.intake.look import Look
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


def can_take_in(radiograph: Radiograph) -> bool:
    """Tell whether X-rays are grey values of frontal and lateral views, of which statistics are known."""
    views = radiograph.views
    return radiograph.kind == "display" and all(family_of(views, view) is not None for view in range(len(views)))


def take_in(radiograph: Radiograph, grid: VolumeGrid) -> Intake:
    """Find the chest, mask what is none, and estimate line integrals.

    For each view: (1) borders and burnt-in letters are masked; (2) the chest is found (`find_chest`), which gives the
    size of the pixels where nobody knows it, which way a lateral faces where nothing says it, and where the isocentre
    is; (3) a tone curve brings grey values to the line integrals of an average chest (`match_tones`). Then a frontal
    and a lateral view are brought to the same mass, and images are cropped to what shows the volume.

    Args:
        radiograph: for which `can_take_in` holds.
        grid: of the volume that is wanted.
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
    curves = _of_one_mass(images, curves, views)
    estimated = replace(
        working,
        images=tuple(torch.from_numpy(c(image)).float() for c, image in zip(curves, images, strict=True)),
        views=views,
        kind="estimated",
        valid=tuple(torch.from_numpy(mask) for mask in masks),
    )
    boxes = [field_box(views, view, grid.size_mm) for view in range(len(views))]
    findings = tuple(
        Finding(name, checked_family(views, n), seen, curve, 1 - float(mask.mean()))
        for n, (name, seen, curve, mask) in enumerate(zip(views.names, sightings, curves, masks, strict=True))
    )
    return Intake(estimated.cropped(boxes), whole, findings)


def _of_one_mass(images: Sequence[FloatArray], curves: list[ToneCurve], views: ViewGeometry) -> list[ToneCurve]:
    """Bring the curves of a frontal and a lateral view to the same mass in the central rows, where they show it."""
    if {family_of(views, view) for view in range(len(views))} != {"frontal", "lateral"} or len(views) != 2:
        return curves
    masses = [row_masses(curve(image), views, n) for n, (curve, image) in enumerate(zip(curves, images, strict=True))]
    factors = corrections(mass_ratio(*masses))
    return [curve.times(factor) for curve, factor in zip(curves, factors, strict=True)]


def _label(radiograph: Radiograph, view: int) -> str:
    return radiograph.origins[view].path.name if radiograph.origins else f"The X-ray {radiograph.views.names[view]!r}"


def _say_size(label: str, pixel_mm: float) -> None:
    warnings.warn(
        f"{label}: by the size of the chest in it, its pixels are taken to be {pixel_mm:.3g} mm on the detector "
        "instead (--pixel-mm).",
        VoxrayWarning,
        stacklevel=4,
    )
