"""X-rays in which the chest was found: masked, and in a geometry by which it stands about the isocentre."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp

import numpy as np
import torch

from voxray.geometry import ViewGeometry
from voxray.images import Radiograph
from voxray.images.fill import fill
from voxray.images.types import Known
from voxray.intake.align import Correction
from voxray.intake.findings import NO_CHEST
from voxray.intake.framing import framed
from voxray.intake.locate import Place
from voxray.intake.look import Look, Sighting
from voxray.intake.masks import find_borders, find_marks

# The longer side of an image while it is worked on, in pixels; ours.
_PIXELS = 512


@dataclass(frozen=True, eq=False)
class Found:
    """Grey values, and where the chest is in them.

    Attributes:
        xrays: display values, made smaller; borders and letters are not valid, and filled from beside. By their
            geometry, the chest stands about the isocentre.
        whole: the same geometry for the images as they were read.
        looks, sightings: one a view.
    """

    xrays: Radiograph
    whole: ViewGeometry
    looks: tuple[Look, ...]
    sightings: tuple[Sighting, ...]

    def moved(self, corrections: Sequence[Correction]) -> "Found":
        """Return the same with size and place of each view corrected."""
        views, whole = (_moved(one, corrections) for one in (self.xrays.views, self.whole))
        return replace(self, xrays=replace(self.xrays, views=views), whole=whole)


def find(radiograph: Radiograph) -> Found:
    """Mask what is no patient, and find the chest in each view.

    A chest that is hardly one stays where it was said to be, and so does one whose place is known.

    Args:
        radiograph: grey values of frontal and lateral views.
    """
    working = radiograph.binned([(-(-max(shape) // _PIXELS),) * 2 for shape in radiograph.views.shapes])
    views, whole = working.views, radiograph.views
    images, valid, looks, sightings = [], [], [], []
    for view, name in enumerate(views.names):
        image = working.images[view].numpy().astype(np.float64)
        borders = find_borders(image)
        missing = borders | find_marks(fill(image, borders))
        known = radiograph.known[view] if radiograph.known else Known()
        label = radiograph.origins[view].path.name if radiograph.origins else f"The X-ray {name!r}"
        look = Look(fill(image, missing), ~missing, working.views, view, known, label)
        seen = look.find()
        if not known.centre and seen.best > NO_CHEST:
            views, whole = (framed(v, view, seen.place, seen.faces_other_way) for v in (views, whole))
        images.append(torch.from_numpy(fill(image, missing)))
        valid.append(torch.from_numpy(~missing))
        looks.append(look)
        sightings.append(seen)
    return Found(
        replace(working, images=tuple(images), valid=tuple(valid), views=views), whole, tuple(looks), tuple(sightings)
    )


def _moved(views: ViewGeometry, corrections: Sequence[Correction]) -> ViewGeometry:
    for view, so in enumerate(corrections):
        views = framed(views, view, Place(1.0, exp(so.size), 1.0, -so.up_mm, 0.0), mirrored=False)
    return views
