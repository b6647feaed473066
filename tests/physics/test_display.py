"""From counts and grey values to line integrals."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from voxray.errors import InputError, VoxrayWarning
from voxray.physics.attenuation import transmit
from voxray.physics.display import as_line_integrals, counts_as_line_integrals


def pictures(*shapes: tuple[int, int], seed: int = 0) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [5 * torch.rand(shape, generator=rng, dtype=torch.float64) for shape in shapes]


def matched(images: Sequence[Tensor], expected: Sequence[Tensor]) -> list[Tensor]:
    with pytest.warns(VoxrayWarning, match="unknown scale"):
        return as_line_integrals(images, "display", expected)


def test_I4_line_integrals_are_left_alone() -> None:
    images = pictures((3, 4), (5, 2))
    assert all(a is b for a, b in zip(as_line_integrals(images, "line_integral", images), images, strict=True))


def test_I4_counts_are_taken_against_the_brightest_pixels_and_it_is_said() -> None:
    truth = pictures((40, 50))[0]
    truth[:5] = 0  # air
    with pytest.warns(VoxrayWarning, match="taken to show air"):
        (found,) = counts_as_line_integrals([transmit(truth, 3e4)])
    assert torch.allclose(found, truth, atol=1e-9)


def test_I4_one_hot_pixel_does_not_count_as_air() -> None:
    truth = pictures((64, 64))[0]
    truth[:5] = 0
    counts = transmit(truth, 3e4)
    counts[60, 60] *= 50
    with pytest.warns(VoxrayWarning, match="taken to show air"):
        (found,) = counts_as_line_integrals([counts])
    assert float((found - truth).abs().flatten().sort().values[-2]) < 1e-9


def test_I4_photons_are_not_taken_for_another_kind() -> None:
    with pytest.raises(InputError, match="not 'counts'"):
        as_line_integrals(pictures((3, 4)), "counts", pictures((3, 4)))


@given(scale=st.floats(1e-3, 1e5), offset=st.floats(-1e5, 1e5))
def test_I4_the_scale_of_grey_values_does_not_matter(scale: float, offset: float) -> None:
    (image, expected) = pictures((13, 17), (13, 17))
    (one,), (other,) = matched([image], [expected]), matched([scale * image + offset], [expected])
    assert torch.allclose(one, other, atol=1e-9 * (1 + abs(offset) / scale))


def test_I4_display_values_keep_their_order_and_get_the_range_that_is_expected() -> None:
    image, expected = pictures((20, 21), (20, 21))
    image, expected = 255 * image, 2 + expected
    (found,) = matched([image], [expected])
    order = image.flatten().argsort()
    assert (found.flatten()[order].diff() >= 0).all()
    ranks = [21, 398]  # 5th and 95th percentile of 420 values
    assert found.flatten().sort().values[ranks] == pytest.approx(expected.flatten().sort().values[ranks])
    assert found.min() >= 0


def test_I4_views_are_matched_one_by_one() -> None:
    images, expected = pictures((6, 7), (9, 4), seed=1), pictures((6, 7), (9, 4), seed=2)
    both = matched(images, expected)
    for one, other in zip(both, (matched(images[i : i + 1], expected[i : i + 1])[0] for i in (0, 1)), strict=True):
        assert torch.equal(one, other)


def test_I4_a_picture_of_one_grey_stays_finite() -> None:
    (expected,) = pictures((6, 7))
    (found,) = matched([torch.full((6, 7), 7.0, dtype=torch.float64)], [expected])
    assert found.min() == found.max() <= expected.median()
