"""What must hold for any volume: linearity, and that a turned patient in a turned room is the same patient."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import rotation, set_ups
from torch import Tensor

from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.physics import Projector

BACKENDS = ("numba", "torch")
GRID = VolumeGrid.centred((10, -20, 30), (18, 20, 22), (12.0, 14.0, 13.0))
TURNS = [(0.0, 0.0, 0.0), (90.0, 0.0, 0.0), (25.0, 40.0, -70.0)]


def some_views(secondary: float) -> ViewGeometry:
    views = ViewGeometry.from_angles((0, 50, 90), (secondary,) * 3, isocentre_mm=GRID.centre_mm)
    return views.resized([(24, 20)] * 3)


def moved(views: ViewGeometry, turn: np.ndarray, shift: np.ndarray) -> ViewGeometry:
    """Return the views after x -> turn x + shift."""
    return dataclasses.replace(
        views,
        source_mm=views.source_mm @ turn.T + shift,
        centre_mm=views.centre_mm @ turn.T + shift,
        u_mm=views.u_mm @ turn.T,
        v_mm=views.v_mm @ turn.T,
        isocentre_mm=None,
    )


def volume(seed: int = 0) -> Tensor:
    return torch.rand(GRID.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_same(images: list[Tensor], others: list[Tensor]) -> None:
    for image, other in zip(images, others, strict=True):
        torch.testing.assert_close(image, other, rtol=0, atol=1e-9 * float(image.abs().max()))


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=20)
@given(set_up=set_ups(), a=st.floats(-3, 3), b=st.floats(-3, 3))
def test_N5_linearity(backend: str, set_up: tuple[VolumeGrid, ViewGeometry], a: float, b: float) -> None:
    grid, views = set_up
    projector = Projector(grid, views, backend)  # type: ignore[arg-type]
    x, y = torch.randn(2, *grid.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    both = zip(projector.forward(a * x + b * y), projector.forward(x), projector.forward(y), strict=True)
    for image, p, q in both:
        scale = float((a * p).abs().max() + (b * q).abs().max())
        torch.testing.assert_close(image, a * p + b * q, rtol=0, atol=1e-12 * scale + 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("secondary", [0.0, 20.0])
def test_N5_translation_by_whole_voxels(backend: str, secondary: float) -> None:
    """The body moves by voxels within its grid, and source and detector by as many millimetres: same images."""
    mu = torch.zeros(GRID.shape, dtype=torch.float64)
    mu[4:-4, 4:-4, 4:-4] = volume()[4:-4, 4:-4, 4:-4]
    views = some_views(secondary)
    shift = np.array([3, -2, 1]) * GRID.spacing_mm
    rolled = mu.roll((1, -2, 3), (0, 1, 2))
    images = Projector(GRID, views, backend).forward(mu)  # type: ignore[arg-type]
    assert_same(images, Projector(GRID, moved(views, np.eye(3), shift), backend).forward(rolled))  # type: ignore[arg-type]
    assert not torch.allclose(images[0], Projector(GRID, views, backend).forward(rolled)[0], rtol=1e-3)  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("secondary", [0.0, 20.0])
@pytest.mark.parametrize("turn", TURNS)
def test_N5_rotation_of_grid_and_views(backend: str, secondary: float, turn: tuple[float, ...]) -> None:
    matrix, shift = rotation(*turn), np.array([5.0, -7.0, 11.0])
    affine = np.array(GRID.affine)
    affine[:3, :3] = matrix @ GRID.affine[:3, :3]
    affine[:3, 3] = matrix @ GRID.affine[:3, 3] + shift
    views = some_views(secondary)
    images = Projector(GRID, views, backend).forward(volume())  # type: ignore[arg-type]
    turned = Projector(VolumeGrid(GRID.shape, affine), moved(views, matrix, shift), backend)  # type: ignore[arg-type]
    assert_same(images, turned.forward(volume()))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("secondary", [0.0, 20.0])
def test_N5_quarter_turn_of_the_voxels(backend: str, secondary: float) -> None:
    """Voxels turned by 90 degrees about z on an upright grid, and views turned with them: same images."""
    grid = VolumeGrid.centred(shape=(18, 20, 20), spacing_mm=13.0)
    views = ViewGeometry.from_angles((0, 50, 90), (secondary,) * 3).resized([(24, 20)] * 3)
    mu = torch.rand(grid.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # x -> -y, y -> x: the voxel at (x, y) goes to (-y, x), so new[y, x] = old[-x, y]: rot90 from x to y.
    turned = torch.rot90(mu, 1, (2, 1))
    images = Projector(grid, views, backend).forward(mu)  # type: ignore[arg-type]
    after = Projector(grid, moved(views, rotation(90, 0, 0), np.zeros(3)), backend).forward(turned)  # type: ignore[arg-type]
    assert_same(images, after)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("flip", [0, 1, 2])
def test_N5_array_axes_may_point_the_other_way(backend: str, flip: int) -> None:
    """The same voxels at the same places, stored in the opposite order along an axis: same images."""
    affine = np.array(GRID.affine)
    axis = 2 - flip
    affine[:3, 3] += (GRID.shape[flip] - 1) * affine[:3, axis]
    affine[:3, axis] *= -1
    images = Projector(GRID, some_views(0.0), backend).forward(volume())  # type: ignore[arg-type]
    other = Projector(VolumeGrid(GRID.shape, affine), some_views(0.0), backend)  # type: ignore[arg-type]
    assert_same(images, other.forward(volume().flip(flip)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_N5_views_in_another_order_and_their_sum(backend: str) -> None:
    views = some_views(0.0)
    images = Projector(GRID, views, backend).forward(volume())  # type: ignore[arg-type]
    turned = Projector(GRID, views.subset([2, 0, 1]), backend)  # type: ignore[arg-type]
    assert all(torch.equal(a, images[i]) for a, i in zip(turned.forward(volume()), (2, 0, 1), strict=True))
    one = Projector(GRID, views.subset([1]), backend).adjoint([images[1]])  # type: ignore[arg-type]
    whole = Projector(GRID, views, backend)  # type: ignore[arg-type]
    rest = whole.adjoint([images[0], torch.zeros_like(images[1]), images[2]])
    torch.testing.assert_close(whole.adjoint(images), one + rest, rtol=1e-10, atol=1e-12)
