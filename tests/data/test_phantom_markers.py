"""The marker phantom: every ball is where it is said to be, on any grid, and nothing maps it onto itself."""

import itertools

import numpy as np
import pytest
import torch

from voxray.data.phantom import MarkerPhantom, marker_phantom
from voxray.data.phantom.canvas import Canvas
from voxray.geometry import VolumeGrid


def turned_grid(shape: tuple[int, int, int] = (72, 70, 68), spacing_mm: float = 4.0) -> VolumeGrid:
    """A grid turned by 30 degrees about z and 20 about x, with its first axis flipped, off the origin."""
    a, b = np.deg2rad(30), np.deg2rad(20)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag([-spacing_mm, spacing_mm, spacing_mm])
    affine[:3, 3] = (40, -30, 900)
    return VolumeGrid(shape, affine)


GRIDS = {
    "upright": VolumeGrid.centred((10, -20, 300), (64, 64, 64), 5.0),
    "anisotropic": VolumeGrid.centred((0, 0, 0), (60, 96, 80), (4.0, 3.0, 5.0)),
    "turned": turned_grid(),
}


@pytest.fixture(params=GRIDS)
def phantom(request: pytest.FixtureRequest) -> MarkerPhantom:
    return marker_phantom(GRIDS[request.param])


def voxel_at(phantom: MarkerPhantom, name: str) -> float:
    i, j, k = np.rint(phantom.volume.grid.mm_to_index(phantom.markers[name])).astype(int)
    return float(phantom.volume.hu[k, j, i])


def test_N4_each_marker_is_where_it_is_said_to_be(phantom: MarkerPhantom) -> None:
    for name, hu in phantom.marker_hu.items():
        assert voxel_at(phantom, name) == pytest.approx(hu, abs=1)


def test_N4_markers_point_to_their_names(phantom: MarkerPhantom) -> None:
    offset = {name: np.array(p) - phantom.volume.grid.centre_mm for name, p in phantom.markers.items()}
    signs = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}
    for name, (axis, sign) in signs.items():
        assert np.argmax(np.abs(offset[name])) == axis
        assert np.sign(offset[name][axis]) == sign


def test_N4_no_mirror_or_turn_maps_the_markers_onto_themselves() -> None:
    hu = marker_phantom(VolumeGrid.centred(shape=(48, 48, 48), spacing_mm=5.0)).volume.hu
    for axes in itertools.permutations((0, 1, 2)):
        for flips in itertools.product((False, True), repeat=3):
            other = hu.permute(axes).flip([n for n in range(3) if flips[n]])
            same = axes == (0, 1, 2) and not any(flips)
            assert bool(torch.equal(other, hu)) == same


def test_N3_mass_is_that_of_the_shapes(phantom: MarkerPhantom) -> None:
    density = phantom.volume.hu.double() / 1000 + 1  # water is 1, air is 0
    a, b, c = phantom.body_mm
    balls = sum(hu / 1000 for hu in phantom.marker_hu.values()) * 4 / 3 * np.pi * phantom.radius_mm**3
    expected = 4 / 3 * np.pi * a * b * c + balls
    assert float(density.sum()) * float(np.prod(phantom.volume.grid.spacing_mm)) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("radius_mm", [0.5, 1.5, 2.5, 4.0, 9.0])
def test_N3_a_ball_keeps_its_mass_where_it_is_thinner_than_a_voxel(radius_mm: float) -> None:
    grid = VolumeGrid.centred(shape=(12, 12, 12), spacing_mm=4.0)
    masses = []
    for shift in itertools.product((0.0, 1.0, 2.0, 3.0), repeat=3):  # over a whole voxel
        canvas = Canvas(grid, 0.0)
        canvas.ball(shift, radius_mm, 1.0)
        masses.append(float(canvas.hu.sum()) * float(np.prod(grid.spacing_mm)))
    assert np.mean(masses) == pytest.approx(4 / 3 * np.pi * radius_mm**3, rel=3e-2)
    assert np.ptp(masses) < 0.7 * np.mean(masses)
