"""From where the chest is in an image to where source and detector stood, and to the part of it that a model sees."""

from dataclasses import replace
from typing import Any

import numpy as np

from voxray.geometry import FloatArray, ViewGeometry
from voxray.intake.canvas import UP, rightwards
from voxray.intake.locate import Place

# Around the volume, for what the cone spreads of its corners; ours.
_MARGIN_MM = 20.0


def framed(views: ViewGeometry, view: int, place: Place, mirrored: bool) -> ViewGeometry:
    """Return the geometry with which the chest of one view stands about the isocentre, in its true size.

    The detector moves in its plane, and its pixels change their size; source and isocentre stay.

    Args:
        views: the geometry that the chest was found with.
        view: number of the view.
        place: where it was found, on the canvas of that geometry.
        mirrored: the image is shown from the other side than the geometry says.
    """
    u, v, centre, source = (np.array(a[view]) for a in (views.u_mm, views.v_mm, views.centre_mm, views.source_mm))
    normal, ray = np.cross(u, v), views.isocentre() - source
    magnification = np.dot(centre - source, normal) / np.dot(ray, normal)
    hit = source + magnification * ray
    off, right = centre - hit, place.right_mm
    if mirrored:
        off -= 2 * np.dot(off, u) / np.dot(u, u) * u
        u, right = -u, -right
    centre = hit + place.scale * off - magnification * (right * rightwards(views, view) + place.up_mm * UP)
    changed = {"u_mm": place.scale * u, "v_mm": place.scale * v, "centre_mm": centre}
    arrays: dict[str, Any] = {name: np.array(getattr(views, name)) for name in changed}
    for name, value in changed.items():
        arrays[name][view] = value
    return replace(views, isocentre_mm=views.isocentre(), **arrays)


def field_box(views: ViewGeometry, view: int, size_mm: FloatArray) -> tuple[slice, slice]:
    """Return the rows and columns of an image that show a volume about the isocentre; all, where it shows none of it.

    Args:
        views: the geometry.
        view: number of the view, a frontal or lateral one.
        size_mm: of the volume, along x, y, z.
    """
    half = size_mm.max() / 2 + _MARGIN_MM
    corners = [right * rightwards(views, view) + up * UP for right in (-half, half) for up in (-half, half)]
    places = views.project_mm(views.isocentre() + np.array(corners), view)
    shape = np.array(views.shapes[view])
    low = np.clip(np.floor(places.min(0)), 0, shape).astype(int)
    high = np.clip(np.ceil(places.max(0)) + 1, 0, shape).astype(int)
    if (high - low).min() < 2:
        return slice(0, int(shape[0])), slice(0, int(shape[1]))
    return slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))
