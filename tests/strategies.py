"""Hypothesis strategies: grids and views that are valid by construction, small, and of every kind."""

import numpy as np
from hypothesis import strategies as st

from voxray.geometry import Setup, ViewGeometry, VolumeGrid


def rotation(a_deg: float, b_deg: float, c_deg: float) -> np.ndarray:
    """Return the rotation about z by a, after the one about x by b, after the one about z by c."""

    def about(axis: int, degrees: float) -> np.ndarray:
        angle = np.deg2rad(degrees)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        matrix = np.eye(3)
        matrix[[i, j], [i, j]] = np.cos(angle)
        matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
        return matrix

    return about(2, a_deg) @ about(0, b_deg) @ about(2, c_deg)


def _numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False)


def _angles() -> st.SearchStrategy[float]:
    return _numbers(-180, 180)


@st.composite
def volume_grids(draw: st.DrawFn, upright: bool = False, largest: int = 9) -> VolumeGrid:
    """Grids of 1 to `largest` voxels a side: anisotropic, off-centre and, unless `upright`, turned and flipped."""
    shape = draw(st.tuples(*[st.integers(1, largest)] * 3))
    spacing = draw(st.tuples(*[_numbers(0.5, 4)] * 3))
    affine = np.eye(4)
    affine[:3, :3] = np.diag(spacing)
    if not upright:
        turn = draw(st.one_of(st.just((0.0, 0.0, 0.0)), st.tuples(_angles(), _angles(), _angles())))
        signs = draw(st.tuples(*[st.sampled_from([1.0, -1.0])] * 3))
        affine[:3, :3] = rotation(*turn) @ np.diag(signs) @ affine[:3, :3]
    affine[:3, 3] = draw(st.tuples(*[_numbers(-50, 50)] * 3))
    return VolumeGrid(shape, affine)


def half_diagonal_mm(grid: VolumeGrid) -> float:
    return float(np.linalg.norm(grid.size_mm)) / 2


@st.composite
def view_geometries(draw: st.DrawFn, grid: VolumeGrid | None = None, most_views: int = 3) -> ViewGeometry:
    """Views at any pose about a grid, with tilted and shifted detectors of different shapes.

    Sources stand outside of the grid. Detectors may stand inside of it, and see all, part or nothing of it.
    """
    centre = np.zeros(3) if grid is None else grid.centre_mm
    radius = 20.0 if grid is None else half_diagonal_mm(grid)
    source, middle, u, v, shapes = [], [], [], [], []
    for _ in range(draw(st.integers(1, most_views))):
        pose = rotation(draw(_angles()), draw(_angles()), draw(_angles()))
        tilt = rotation(*draw(st.one_of(st.just((0.0, 0.0, 0.0)), st.tuples(*[_numbers(-20, 20)] * 3))))
        shift = np.array(draw(st.tuples(*[_numbers(-0.5, 0.5)] * 3))) * radius
        shape = draw(st.tuples(st.integers(1, 8), st.integers(1, 8)))
        size = draw(_numbers(0.3, 3)) * radius
        source.append(centre + radius * draw(_numbers(1.1, 8)) * pose[:, 2])
        middle.append(centre - radius * draw(_numbers(-0.5, 3)) * pose[:, 2] + shift)
        u.append(size / shape[1] * (pose @ tilt)[:, 0])
        v.append(size / shape[0] * draw(_numbers(0.5, 2)) * (pose @ tilt)[:, 1])
        shapes.append(shape)
    return ViewGeometry(np.array(source), np.array(middle), np.array(u), np.array(v), tuple(shapes))


@st.composite
def circular_views(draw: st.DrawFn, grid: VolumeGrid) -> ViewGeometry:
    """Views whose rows are perpendicular to z, as of a chest stand, about a point near an upright grid."""
    radius = half_diagonal_mm(grid)
    isocentre = draw(st.tuples(*[_numbers(-0.5, 0.5)] * 3))
    distance = radius * draw(_numbers(2, 8))
    shape = draw(st.tuples(st.integers(1, 8), st.integers(1, 8)))
    setup = Setup(distance + radius * draw(_numbers(0.1, 3)), distance, radius * draw(_numbers(0.05, 1)), shape)
    angles = draw(st.lists(_angles(), min_size=1, max_size=3))
    return ViewGeometry.from_angles(angles, setup=setup, isocentre_mm=grid.centre_mm + radius * np.array(isocentre))


@st.composite
def set_ups(draw: st.DrawFn) -> tuple[VolumeGrid, ViewGeometry]:
    """A grid and views of it: one in two upright with circular views, the others of any kind."""
    if draw(st.booleans()):
        grid = draw(volume_grids(upright=True))
        return grid, draw(circular_views(grid))
    grid = draw(volume_grids())
    return grid, draw(view_geometries(grid))
