"""From display values to line integrals: one monotone curve for each image."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.interpolate import PchipInterpolator

from voxray.geometry import FloatArray
from voxray.intake.statistics import LEVELS

# Ours. The part of all pixels that tells the darkest level. It is air if by this part of the body's contrast it is
# darker than anything in the body, or if so many pixels are within a part of the contrast of it: lungs are not flat.
_DARKEST, _DARKER, _FLAT, _FLAT_PIXELS = 0.005, 0.05, 0.02, 0.03
# The line integral that bending leaves as it is: about the middle of a chest's.
PIVOT = 4.0


def bent(line_integrals: FloatArray, bend: float) -> FloatArray:
    """Return `PIVOT (p / PIVOT)^(1 + bend)` of line integrals p that are not negative."""
    return np.asarray(PIVOT * (line_integrals / PIVOT) ** (1 + bend))


@dataclass(frozen=True, eq=False)
class ToneCurve:
    """A monotone curve of six parameters: where on the display four line integrals are, a factor, and a bend.

    The line integrals are 0 (air) and some quantiles of those in the body (`intake.gauge`). Between them the curve
    is the monotone cubic of Fritsch and Carlson (SIAM J. Numer. Anal. 17, 1980), above them a straight line.

    Attributes:
        display: four display values, rising.
        line_integrals: what they stand for, before the factor.
        factor: brings the views to the same mass.
        bend: b in `PIVOT (p / PIVOT)^(1 + b)`, before the factor.
    """

    display: FloatArray
    line_integrals: FloatArray
    factor: float = 1.0
    bend: float = 0.0

    def __call__(self, image: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
        """Return the line integrals of display values; below air there is nothing."""
        display, values = self.display, self.line_integrals
        slope = (values[-1] - values[-2]) / (display[-1] - display[-2])
        inside = PchipInterpolator(display, values)(np.clip(image, display[0], display[-1]))
        return self._bent(inside + slope * np.maximum(image - display[-1], 0.0))

    def points(self) -> list[tuple[float, float]]:
        """Return display value and line integral of each point that the curve goes through."""
        values = self._bent(self.line_integrals)
        return [(float(shown), float(value)) for shown, value in zip(self.display, values, strict=True)]

    def times(self, factor: float) -> "ToneCurve":
        """Return the curve with all line integrals multiplied."""
        return replace(self, factor=self.factor * factor)

    def bent(self, bend: float) -> "ToneCurve":
        """Return the curve with all line integrals bent."""
        return replace(self, factor=self.factor ** (1 + bend), bend=(1 + self.bend) * (1 + bend) - 1)

    def _bent(self, values: FloatArray) -> FloatArray:
        return np.asarray(self.factor * bent(values, self.bend))


def match_tones(
    body: Float[np.ndarray, " places"], pixels: Float[np.ndarray, " pixels"], line_integrals: FloatArray
) -> ToneCurve:
    """Match quantiles of the display values inside the body to line integrals.

    What the display shows as air is found among the darkest pixels of the image, if these are flat or darker than all
    the body; else air is where the straight line through the two lowest quantiles comes to 0.

    Args:
        body: display values at the places that lie in the body in every training scan, so that air, borders and letters
            do not count: the chest must have been found.
        pixels: display values of all pixels that are measurements.
        line_integrals: what the quantiles `LEVELS` of the places in the body are, rising.
    """
    shown, values = np.quantile(body, LEVELS), line_integrals
    contrast = max(shown[-1] - shown[0], 1e-9)
    air = np.quantile(pixels, _DARKEST)
    flat = np.mean(pixels < air + _FLAT * contrast) > _FLAT_PIXELS
    if not flat and air > np.quantile(body, _DARKEST) - _DARKER * contrast:
        air = shown[0] - values[0] * (shown[1] - shown[0]) / (values[1] - values[0])
    display = np.maximum.accumulate([min(air, shown[0]), *shown])
    # Saturated displays repeat values; a curve needs rising ones.
    step = max(1e-4 * contrast, 1e-9 * float(np.abs(display).max()), 1e-12)
    return ToneCurve(display + step * np.arange(len(display)), np.array([0.0, *values]))
