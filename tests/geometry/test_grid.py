"""VolumeGrid: valid or not there, frozen, and the same place whatever way it is asked."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import volume_grids

from voxray.errors import GeometryError
from voxray.geometry import VolumeGrid


def sheared() -> np.ndarray:
    affine = np.eye(4)
    affine[1, 2] = 0.2
    return affine


@pytest.mark.parametrize(
    ("shape", "affine", "message"),
    [
        ((4, 4), np.eye(4), "three positive numbers"),
        ((4, 0, 4), np.eye(4), "three positive numbers"),
        ((4, 4, -1), np.eye(4), "three positive numbers"),
        ((4, 4, 4), np.eye(3), r"shape \(4, 4\)"),
        ((4, 4, 4), np.full((4, 4), np.nan), "not finite"),
        ((4, 4, 4), [["a"] * 4] * 4, "must be numbers"),
        ((4, 4, 4), np.ones((4, 4)), "last row"),
        ((4, 4, 4), np.diag([1.0, 1.0, 0.0, 1.0]), "singular"),
        ((4, 4, 4), sheared(), "not perpendicular"),
    ],
)
def test_an_impossible_grid_is_refused(shape: tuple[int, ...], affine: object, message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        VolumeGrid(shape, affine)  # type: ignore[arg-type]


def test_a_grid_is_frozen_and_independent_of_what_it_was_made_from() -> None:
    affine = np.eye(4)
    grid = VolumeGrid((2, 3, 4), affine)
    affine[0, 3] = 7
    assert grid.origin_mm[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 3] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        grid.shape = (1, 1, 1)  # type: ignore[misc]


def test_equal_grids_are_equal_and_hash_alike() -> None:
    one, same = VolumeGrid.centred(), VolumeGrid.centred()
    others = [VolumeGrid.centred((0, 0, 1)), VolumeGrid.centred(shape=(128, 128, 127)), "grid"]
    assert one == same
    assert hash(one) == hash(same)
    assert all(one != other for other in others)


def test_centred_puts_the_middle_where_it_is_told() -> None:
    grid = VolumeGrid.centred((10, -20, 30), (4, 6, 8), (1.0, 2.0, 3.0))
    np.testing.assert_allclose(grid.centre_mm, (10, -20, 30))
    np.testing.assert_allclose(grid.spacing_mm, (1, 2, 3))
    np.testing.assert_allclose(grid.size_mm, (8, 12, 12))
    np.testing.assert_allclose(grid.origin_mm, (10 - 3.5, -20 - 5, 30 - 4.5))
    np.testing.assert_allclose(grid.direction, np.eye(3))
    assert float(np.prod(grid.spacing_mm)) == pytest.approx(6)


@given(volume_grids(), st.tuples(*[st.floats(-20, 20)] * 3))
def test_indices_and_millimetres_are_inverse_to_each_other(grid: VolumeGrid, ijk: tuple[float, float, float]) -> None:
    np.testing.assert_allclose(grid.mm_to_index(grid.index_to_mm(ijk)), ijk, atol=1e-9)
    np.testing.assert_allclose(grid.index_to_mm((0, 0, 0)), grid.origin_mm, atol=1e-9)


@given(volume_grids())
def test_corners_are_voxel_edges(grid: VolumeGrid) -> None:
    corners = grid.mm_to_index(grid.corners_mm())
    np.testing.assert_allclose(corners.min(0), -0.5, atol=1e-9)
    np.testing.assert_allclose(corners.max(0), np.array(grid.shape[::-1]) - 0.5, atol=1e-9)
    inward = grid.centre_mm + 0.99 * (grid.corners_mm() - grid.centre_mm)
    outward = grid.centre_mm + 1.01 * (grid.corners_mm() - grid.centre_mm)
    assert all(grid.contains_mm(corner) for corner in inward)
    assert not any(grid.contains_mm(corner) for corner in outward)


@given(volume_grids(), st.tuples(*[st.integers(1, 9)] * 3))
def test_resized_fills_the_same_box(grid: VolumeGrid, shape: tuple[int, int, int]) -> None:
    other = grid.resized(shape)
    assert other.shape == shape
    np.testing.assert_allclose(other.corners_mm(), grid.corners_mm(), atol=1e-9)
    assert other.resized(grid.shape).is_close(grid, 1e-9)


def test_a_coarser_grid_fills_the_same_box() -> None:
    grid = VolumeGrid.centred(shape=(8, 12, 16), spacing_mm=(2.0, 3.0, 4.0), centre_mm=(1.0, 2.0, 3.0))
    coarse = grid.coarser(4)
    assert coarse.shape == (2, 3, 4)
    assert np.allclose(coarse.corners_mm(), grid.corners_mm())
    assert grid.coarser(1).is_close(grid)
    assert coarse.finer(4).is_close(grid)


@given(volume_grids(), st.tuples(*[st.floats(-900, 900)] * 3))
def test_I8_shifted_moves_every_corner_alike(grid: VolumeGrid, offset: tuple[float, float, float]) -> None:
    other = grid.shifted(offset)
    assert other.shape == grid.shape
    np.testing.assert_allclose(other.corners_mm(), grid.corners_mm() + offset, atol=1e-9)


def test_is_close_sees_a_shift_of_a_hundredth_of_a_millimetre() -> None:
    grid = VolumeGrid.centred()
    assert grid.is_close(VolumeGrid.centred((1e-4, 0, 0)))
    assert not grid.is_close(VolumeGrid.centred((1e-2, 0, 0)))
    assert not grid.is_close(VolumeGrid.centred(shape=(64, 64, 64), spacing_mm=5.0))
