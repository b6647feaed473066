"""Borders and burnt-in letters are found; the patient, and the air beside, are not taken for them."""

import numpy as np
import pytest

from voxray.images.fill import fill
from voxray.intake.masks import find_borders, find_marks

ROWS, COLUMNS = 200, 160


def chest() -> np.ndarray:
    """A body between air: smooth, brighter below, with ribs."""
    row, column = np.mgrid[:ROWS, :COLUMNS]
    body = np.clip(1.3 - ((column - 80) / (50 + 20 * np.sin(row / 50.0))) ** 2, 0, 1) ** 0.5
    return np.asarray(120 * body * (0.7 + 0.3 * row / ROWS + 0.04 * np.sin(row / 5.0)))


def test_a_chest_in_air_has_no_borders_and_no_marks() -> None:
    assert not find_borders(chest()).any()
    assert not find_marks(chest()).any()


@pytest.mark.parametrize("side", range(4))
@pytest.mark.parametrize("value", [0.0, 140.0])
def test_flat_bands_with_a_sharp_straight_edge_are_borders(side: int, value: float) -> None:
    image = np.rot90(chest() + 40, side).copy()
    image[:, :12] = value
    image = np.rot90(image, -side)
    expected = np.rot90(np.rot90(np.zeros(image.shape, dtype=bool), side), -side).copy()
    np.rot90(expected, side)[:, :12] = True
    found = find_borders(image)
    assert found[expected].all()
    assert found.sum() < 1.6 * expected.sum()


def test_a_tilted_border_is_found() -> None:
    image = chest() + 40
    wedge = np.arange(COLUMNS) < 5 + 0.08 * np.arange(ROWS)[:, None]
    image[wedge] = 0.0
    found = find_borders(image)
    assert found[wedge].all()
    assert found.sum() < 2 * wedge.sum()


def test_letters_are_marks_and_large_bright_things_are_not() -> None:
    image = chest()
    letter = np.zeros(image.shape, dtype=bool)
    letter[20:32, 20:22] = letter[30:32, 20:28] = True
    image[letter] = 200.0
    found = find_marks(image)
    assert found[letter].all()
    assert found.sum() < 6 * letter.sum()
    image = chest()
    image[60:100, 60:100] = 200.0
    assert not find_marks(image)[70:90, 70:90].any()


def test_missing_pixels_get_the_values_of_their_neighbours() -> None:
    image, missing = np.arange(12.0).reshape(3, 4), np.zeros((3, 4), dtype=bool)
    missing[:, 0] = True
    assert (fill(image, missing)[:, 0] == image[:, 1]).all()
    assert (fill(image, missing)[~missing] == image[~missing]).all()
    assert fill(image, ~np.zeros_like(missing)) is image, "with nothing left, nothing changes"


@pytest.mark.parametrize("gamma", [0.8, 1.0, 1.6])
def test_air_behind_a_straight_back_is_no_border(gamma: float) -> None:
    """Behind the skin, the body only begins: a chord of a circle, and whatever curve shows it."""
    depth = np.clip(np.arange(COLUMNS) - 25.0, 0, 60)
    chord = (depth * (120 - depth)) ** 0.5 / 60
    assert not find_borders(np.tile(255 * chord**gamma, (ROWS, 1))).any()
