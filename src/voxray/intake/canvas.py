"""An X-ray image laid on the plane through the isocentre, in millimetres of the patient: what `intake` works on."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from voxray.errors import GeometryError
from voxray.geometry import FloatArray, ViewGeometry
from voxray.geometry.axial import primary_angles_deg

Family = Literal["frontal", "lateral"]

# Views further from the front or the side than this are neither; our choice.
_OBLIQUE_DEG = 20.0
# Rightwards in the canvas, LPS: to the patient's left in frontal views, to the front in lateral ones, as PA and lateral
# images of the preset are shown.
_RIGHT = {"frontal": (1.0, 0.0, 0.0), "lateral": (0.0, -1.0, 0.0)}
UP = np.array((0.0, 0.0, 1.0))


@dataclass(frozen=True, eq=False)
class Canvas:
    """An image on the plane through the isocentre, head up.

    Attributes:
        picture: (rows, columns), about the isocentre.
        seen: where the image shows something.
        step_mm: from row to row, and from column to column.
    """

    picture: Float[np.ndarray, "rows columns"]
    seen: Bool[np.ndarray, "rows columns"]
    step_mm: tuple[float, float]


def family_of(views: ViewGeometry, view: int) -> Family | None:
    """Return `frontal` or `lateral`, or None for a view that looks in between."""
    angle = np.deg2rad(primary_angles_deg(views)[view])
    if abs(np.sin(angle)) < np.sin(np.deg2rad(_OBLIQUE_DEG)):
        return "frontal"
    return "lateral" if abs(np.cos(angle)) < np.sin(np.deg2rad(_OBLIQUE_DEG)) else None


def checked_family(views: ViewGeometry, view: int) -> Family:
    """Return `frontal` or `lateral`.

    Raises:
        GeometryError: if the view looks in between.
    """
    family = family_of(views, view)
    if family is None:
        raise GeometryError(
            f"The view {views.names[view]!r} is neither frontal nor lateral; there are no statistics of it."
        )
    return family


def rightwards(views: ViewGeometry, view: int) -> FloatArray:
    """Return the direction in the patient that is to the right in the canvas of a frontal or lateral view, LPS."""
    return np.array(_RIGHT[checked_family(views, view)])


def lay_out(
    image: Float[np.ndarray, "_ _"],
    valid: Bool[np.ndarray, "_ _"],
    views: ViewGeometry,
    view: int,
    step_mm: tuple[float, float],
    shape: tuple[int, int],
) -> Canvas:
    """Interpolate an image at the places where a view shows the points of a grid about the isocentre.

    Args:
        image: of the view.
        valid: pixels of it that show the patient; others are not seen.
        views: the geometry.
        view: its number; a frontal or lateral one.
        step_mm: of the grid, from row to row and from column to column.
        shape: of the grid.
    """
    rows, columns = ((np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, step_mm, strict=True))
    points = views.isocentre() - rows[:, None, None] * UP + columns[:, None] * rightwards(views, view)
    places = np.moveaxis(views.project_mm(points, view), -1, 0)
    picture = ndimage.map_coordinates(image, places, order=1, mode="nearest")
    seen = ndimage.map_coordinates(valid.astype(np.uint8), np.round(places), order=0, mode="constant") > 0
    return Canvas(picture, seen, step_mm)


def size_at_isocentre(views: ViewGeometry, view: int) -> FloatArray:
    """Return height and width of an image, as large as it shows what is at the isocentre, mm, (2,)."""
    steps = np.linalg.norm([views.v_mm[view], views.u_mm[view]], axis=1) * views.shapes[view]
    to_detector, to_isocentre = (
        np.linalg.norm(end - views.source_mm[view]) for end in (views.centre_mm[view], views.isocentre())
    )
    return np.asarray(steps * to_isocentre / to_detector)
