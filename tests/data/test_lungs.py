"""Which voxels are lung."""

import numpy as np

from voxray.data.lungs import lung_mask

SPACING_MM = np.full(3, 2.5)


def test_the_side_of_a_cube_is_no_skin_where_the_body_is_cut_off() -> None:
    """Two voxels, 5 mm, are taken off at the skin within each slice, and nothing above and below."""
    body = np.ones((3, 12, 10), dtype=bool)
    hu = np.full(body.shape, -850.0)
    assert lung_mask(hu, body, SPACING_MM, cut_off=True).all()
    inside = np.zeros_like(body)
    inside[:, 2:-2, 2:-2] = True
    np.testing.assert_array_equal(lung_mask(hu, body, SPACING_MM), inside)


def test_the_second_part_counts_above_a_tenth_of_the_first_and_a_third_never() -> None:
    body = np.ones((1, 1, 40), dtype=bool)
    hu = np.full(body.shape, 40.0)
    hu[..., :20], hu[..., 22:25], hu[..., 30:32] = -850.0, -850.0, -850.0
    expected = (hu < 0) & (np.arange(40) < 26)
    np.testing.assert_array_equal(lung_mask(hu, body, SPACING_MM, cut_off=True), expected)
    hu[..., 23:25] = 40.0  # the second is now the one of two voxels: a tenth, and no more
    np.testing.assert_array_equal(lung_mask(hu, body, SPACING_MM, cut_off=True), np.arange(40)[None, None] < 20)


def test_without_air_there_is_no_lung() -> None:
    body = np.ones((2, 3, 4), dtype=bool)
    assert not lung_mask(np.zeros(body.shape), body, SPACING_MM).any()
