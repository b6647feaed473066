"""Two projections of one body have the same mass in each row: what this says about two X-rays."""

import numpy as np
from jaxtyping import Float

from voxray.geometry import ViewGeometry
from voxray.intake.canvas import lay_out

# Rows within this of the isocentre count, on a canvas as wide as this: further up there are arms, further down there
# are more oblique rays. Ours.
_HALF_HEIGHT_MM, _WIDTH_MM, _STEP_MM = 75.0, 480.0, 5.0
# Where a body goes on beyond the image, it is taken to end within this, falling evenly; rows that lose more than this
# part of their mass so do not count.
_BEYOND_MM, _MOST_LOST = 20.0, 0.06
# Of fewer rows than these nothing is said: of a factor, which is within 6 % of 1 in all training scans, and of a
# correlation, which is 0.88 or more in them.
_FEWEST, _FEWEST_TO_AGREE = 8, 20
# The factor between the views that is corrected; beyond this something else is wrong.
_LARGEST = 1.3


def row_masses(line_integrals: Float[np.ndarray, "_ _"], views: ViewGeometry, view: int) -> Float[np.ndarray, " rows"]:
    """Return the mass in each of some rows about the isocentre, from the head on: line integrals times mm.

    NaN where nothing is seen, or much of the body lies beyond the image.
    """
    shape = (round(2 * _HALF_HEIGHT_MM / _STEP_MM), round(_WIDTH_MM / _STEP_MM))
    everywhere = np.ones(line_integrals.shape, dtype=bool)
    canvas = lay_out(line_integrals, everywhere, views, view, (_STEP_MM, _STEP_MM), shape)
    inside = (canvas.picture * canvas.seen).sum(1) * _STEP_MM
    rows, seen = np.arange(shape[0]), canvas.seen
    ends = canvas.picture[rows, seen.argmax(1)] + canvas.picture[rows, shape[1] - 1 - seen[:, ::-1].argmax(1)]
    beyond = ends * _BEYOND_MM / 2
    whole = seen.any(1) & (beyond <= _MOST_LOST * inside)
    return np.where(whole, inside + beyond, np.nan)


def mass_ratio(first: Float[np.ndarray, " rows"], second: Float[np.ndarray, " rows"]) -> float | None:
    """Return by what the second view has more mass than the first: the median over the rows that both show whole."""
    both = np.isfinite(first) & np.isfinite(second) & (np.minimum(first, second) > 0)
    return float(np.median(second[both] / first[both])) if both.sum() >= _FEWEST else None


def corrections(ratio: float | None) -> tuple[float, float]:
    """Return the factors that bring two views to their common mass: each goes half of the way (geometric mean)."""
    limited = float(np.clip(1.0 if ratio is None else ratio, 1 / _LARGEST, _LARGEST))
    return limited**0.5, limited**-0.5


def agreement(first: Float[np.ndarray, " rows"], second: Float[np.ndarray, " rows"]) -> float | None:
    """Return the correlation of the masses in the rows that both views show whole; None for too few."""
    both = np.isfinite(first) & np.isfinite(second)
    if both.sum() < _FEWEST_TO_AGREE or min(first[both].std(), second[both].std()) == 0:
        return None
    return float(np.corrcoef(first[both], second[both])[0, 1])
