"""A body of water with a different marker for each direction: what is mirrored or turned is found out."""

from dataclasses import dataclass

import numpy as np

from voxray.data.phantom.canvas import Canvas, Ellipsoid, Point
from voxray.geometry import VolumeGrid
from voxray.images import CTVolume

# Half axes of the body and places of the balls, as fractions of the size of the phantom (x, y, z); HU of the
# balls. All are our choice: any two differ in HU, no mirror or turn maps the places onto themselves, and
# no ball covers another in a frontal or a lateral X-ray.
BODY = (0.45, 0.35, 0.48)
BALLS: dict[str, tuple[Point, float]] = {
    "L": ((0.30, 0.00, 0.11), 600.0),
    "R": ((-0.29, 0.02, -0.06), 1200.0),
    "A": ((0.10, -0.22, 0.18), 400.0),
    "P": ((-0.12, 0.21, -0.17), 800.0),
    "S": ((0.02, 0.00, 0.36), 1000.0),
    "I": ((0.00, 0.02, -0.35), -1000.0),
}
RADIUS = 0.045


@dataclass(frozen=True, eq=False)
class MarkerPhantom:
    """A water body in air with six balls, one a direction.

    Attributes:
        volume: water is 0 HU, air is -1000 HU.
        markers: the centre of the ball of each direction ("L", "R", "A", "P", "S" the head, "I" the feet), in
            LPS mm.
        marker_hu: the HU of each ball; no two are equal.
        radius_mm: the radius of all balls.
        body_mm: half axes (x, y, z) of the body, an ellipsoid about the middle of the grid.
    """

    volume: CTVolume
    markers: dict[str, Point]
    marker_hu: dict[str, float]
    radius_mm: float
    body_mm: Point


def marker_phantom(grid: VolumeGrid, *, size_mm: float | None = None) -> MarkerPhantom:
    """Return an ellipsoid of water with a ball of its own HU towards each of L, R, A, P, S and I.

    Places are in LPS, whatever way the axes of the grid point. Edges are soft over one voxel; a ball thinner
    than that keeps its mass.

    Args:
        grid: any grid; the body stands about its middle.
        size_mm: what the phantom fits into; the smallest extent of the grid where none is given. Give it to
            have the same phantom on two grids.
    """
    size = float(grid.size_mm.min()) if size_mm is None else size_mm
    canvas = Canvas(grid, -1000.0)
    half_axes = _scaled(BODY, size)
    canvas.ellipsoid(Ellipsoid((0.0, 0.0, 0.0), half_axes), 0.0)
    markers = {}
    for name, (place, hu) in BALLS.items():
        canvas.ball(_scaled(place, size), RADIUS * size, hu)
        x, y, z = (float(p) for p in np.array(_scaled(place, size)) + grid.centre_mm)
        markers[name] = (x, y, z)
    marker_hu = {name: hu for name, (_, hu) in BALLS.items()}
    return MarkerPhantom(CTVolume(canvas.hu, grid), markers, marker_hu, RADIUS * size, half_axes)


def _scaled(point: Point, size_mm: float) -> Point:
    return (point[0] * size_mm, point[1] * size_mm, point[2] * size_mm)
