"""The tone curve: monotone, of six parameters, blind to brightness and contrast."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxray.intake.statistics import LEVELS, SHAPE, chest_statistics
from voxray.intake.tone import ToneCurve, match_tones

FRONTAL = chest_statistics()["frontal"]
QUANTILES = (1.9, 3.1, 5.1)


def average_chest(seed: int = 0) -> np.ndarray:
    """Line integrals whose quantiles inside the body are known."""
    rng, levels = np.random.default_rng(seed), (0.0, *LEVELS, 1.0)
    first, *_, last = values = QUANTILES
    picture = np.zeros(SHAPE)
    count = int(FRONTAL.inside.sum())
    ranks = rng.permutation((np.arange(count) + 0.5) / count)
    picture[FRONTAL.inside] = np.interp(ranks, levels, (first - 0.2, *values, last + 0.5))
    return picture


def match(shown: np.ndarray) -> ToneCurve:
    return match_tones(shown[FRONTAL.inside], shown.ravel(), np.array(QUANTILES))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_a_gamma_curve_is_undone(gamma: float) -> None:
    truth = average_chest()
    found = match((truth / 8) ** gamma)((truth / 8) ** gamma)
    inside = FRONTAL.inside & (truth < np.quantile(truth[FRONTAL.inside], 0.97))
    assert np.abs(found - truth)[inside].max() < 0.35
    assert np.abs(found - truth)[inside].mean() < 0.08


@given(scale=st.floats(0.01, 1000), offset=st.floats(-1000, 1000))
def test_brightness_and_contrast_do_not_matter(scale: float, offset: float) -> None:
    truth = average_chest()
    shown = scale * truth + offset
    assert np.allclose(match(shown)(shown), match(truth)(truth), atol=1e-5)


@given(st.lists(st.integers(0, 4095), min_size=5, max_size=40))
def test_the_curve_never_falls(values: list[int]) -> None:
    shown = np.resize(np.array(values, dtype=float), SHAPE)
    curve = match(shown)
    line_integrals = curve(np.linspace(-100, 5000, 400))
    assert (np.diff(line_integrals) >= -1e-9).all()
    assert line_integrals.min() >= 0
    assert np.isfinite(line_integrals).all()
    assert len(curve.points()) == len(LEVELS) + 1, "and the factor: six parameters"


@pytest.mark.parametrize("grey", [0.0, 7.0, 60000.0])
def test_a_picture_of_one_grey_has_a_curve(grey: float) -> None:
    assert np.isfinite(match(np.full(SHAPE, grey))(np.full(SHAPE, grey))).all()


def test_a_factor_scales_line_integrals() -> None:
    truth = average_chest()
    assert np.allclose(match(truth).times(1.1)(truth), 1.1 * match(truth)(truth))
