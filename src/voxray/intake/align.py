"""A frontal and a lateral view of one body: what they have in common corrects size, place and tones of both."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from jaxtyping import Float
from scipy import ndimage
from scipy.optimize import least_squares

from voxray.geometry import FloatArray, ViewGeometry
from voxray.intake.canvas import lay_out, rightwards
from voxray.intake.tone import bent

# Rows within this of the isocentre are compared; they may be seen so much further out, on a canvas as wide as this.
# Ours; of 85, 100 and 110 mm the best on the training scans.
_HALF_MM, _MARGIN_MM, _WIDTH_MM, _STEP_MM = 100.0, 40.0, 480.0, 5.0
# Standard deviation of what turned views and cut bodies do to the logarithm of a row's mass, and over which length it
# is the same: what gives the best sizes on the training scans, where it is so many times what a first fit leaves. Real
# X-rays leave two to three times as much, and are trusted less.
_SPREAD, _LENGTH_MM, _OF_REST = 0.015, 20.0, 2.0
# Where a body goes on beyond the image, it is taken to end within this, falling evenly; rows that lose more than this
# part of their mass so, or have less than this part of the middle row's, do not count; nor do fewer rows than these.
_BEYOND_MM, _MOST_LOST, _LEAST, _FEWEST = 20.0, 0.06, 0.5, 20


@dataclass(frozen=True)
class Correction:
    """What is still wrong with a view, or the standard deviation of that.

    Attributes:
        size: logarithm of the true size over the assumed one.
        up_mm: by what everything truly is further up.
        factor: logarithm of the factor of its line integrals p.
        bend: of its tone curve (`tone.bent`).
    """

    size: float = 0.0
    up_mm: float = 0.0
    factor: float = 0.0
    bend: float = 0.0


# How far off each view is once it was gauged (`intake.gauge`), by training scans that the network had not learned from,
# but for what views have in common: that, nobody can see.
USUAL = Correction(0.03, 4.2, 0.04, 0.12)


@dataclass(frozen=True, eq=False)
class _Rows:
    """A view by rows, from the feet on."""

    heights_mm: FloatArray
    picture: FloatArray
    whole: FloatArray

    @classmethod
    def of(cls, line_integrals: Float[np.ndarray, "_ _"], views: ViewGeometry, view: int) -> "_Rows":
        shape = (2 * round((_HALF_MM + _MARGIN_MM) / _STEP_MM) + 1, round(_WIDTH_MM / _STEP_MM))
        everywhere = np.ones(line_integrals.shape, dtype=bool)
        canvas = lay_out(line_integrals, everywhere, views, view, (_STEP_MM, _STEP_MM), shape)
        picture, seen = canvas.picture[::-1] * canvas.seen[::-1], canvas.seen[::-1]
        picture = _as_both_see_it(picture, views, view)
        rows, mass = np.arange(shape[0]), picture.sum(1)
        ends = picture[rows, seen.argmax(1)] + picture[rows, shape[1] - 1 - seen[:, ::-1].argmax(1)]
        lost = ends * _BEYOND_MM / 2 / _STEP_MM
        whole = (lost <= _MOST_LOST * mass) & (mass > _LEAST * mass[shape[0] // 2])
        return cls(np.asarray((rows - (shape[0] - 1) / 2) * _STEP_MM), picture, whole.astype(np.float64))

    def masses(self, at_mm: FloatArray, so: Correction) -> tuple[FloatArray, FloatArray]:
        """Return the logarithm of the mass at true heights, if the view is corrected so, and whether it is known."""
        mass = np.log(bent(self.picture, so.bend).sum(1) * _STEP_MM) + so.factor + so.size
        assumed = (at_mm - so.up_mm) * np.exp(-so.size)
        return np.interp(assumed, self.heights_mm, mass), np.interp(assumed, self.heights_mm, self.whole)


def _as_both_see_it(picture: FloatArray, views: ViewGeometry, view: int) -> FloatArray:
    """Return a view's picture (rows from the feet on) with the spread of the other view's rays in it, too.

    A view shows what is at the distance d from its source, of D to the isocentre, D / d times as far from the axis, and
    as much larger. Where that is in a column of the other view, the other view tells: there, heights are stretched and
    masses weighed by it. Then the sums of the rows of both views are equal up to second order in 1 / D.
    """
    rows, columns = picture.shape
    away = views.source_mm[1 - view] - views.isocentre()
    across = (np.arange(columns) - (columns - 1) / 2) * _STEP_MM
    nearer = 1 - across * (rightwards(views, view) @ away) / (away @ away)
    middle = (rows - 1) / 2
    places = middle + (np.arange(rows)[:, None] - middle) * nearer
    spread = ndimage.map_coordinates(picture, [places, np.broadcast_to(np.arange(columns), picture.shape)], order=1)
    return np.maximum(spread / nearer, 1e-6)


def align(
    line_integrals: Sequence[Float[np.ndarray, "_ _"]], views: ViewGeometry, usual: Sequence[Correction]
) -> list[Correction]:
    """Find the likeliest corrections that give a frontal and a lateral view the same mass in each row.

    Whatever the direction, all the mass at a height is in the row that shows it: the first of the consistency
    conditions of Helgason and Ludwig (Natterer, "The Mathematics of Computerized Tomography", 1986, theorem II.4.2),
    but for the spread of the rays. Least squares, with a prior on each of the eight numbers; what both views have in
    common (a larger body, further up, denser) cannot be seen, and stays. Solved twice: the second time, masses count as
    much as they agreed the first time.

    Args:
        line_integrals: estimated, one image a view.
        views: their geometry, a frontal and a lateral one.
        usual: standard deviation of what may be wrong with each view; 0 for what is known.

    Returns:
        What is wrong with each view; nothing where too few rows show the body whole.
    """
    rows = [_Rows.of(image, views, view) for view, image in enumerate(line_integrals)]
    heights = np.arange(-_HALF_MM, _HALF_MM + 1, _STEP_MM)
    spread = np.array([astuple(one) for one in usual])

    def corrections(x: FloatArray) -> list[Correction]:
        return [Correction(*map(float, one)) for one in spread * x.reshape(spread.shape)]

    def unequal(x: FloatArray) -> FloatArray:
        (first, known), (second, also) = (r.masses(heights, c) for r, c in zip(rows, corrections(x), strict=True))
        return (first - second) * known * also

    def off(x: FloatArray, mass_spread: float) -> FloatArray:
        return np.concatenate([(_STEP_MM / _LENGTH_MM) ** 0.5 / mass_spread * unequal(x), x])

    x = np.zeros(spread.size)
    if np.count_nonzero(unequal(x)) < _FEWEST:
        return corrections(x)
    x = least_squares(off, x, args=(_SPREAD,)).x
    rest = unequal(x)
    rest_spread = _OF_REST * float(np.sqrt((rest**2).sum() / max(np.count_nonzero(rest), 1)))
    return corrections(least_squares(off, x, args=(max(_SPREAD, rest_spread),)).x)
