"""Local contrast: what stays of an image when its tone curve is unknown."""

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from voxray.intake.canvas import Canvas

# Standard deviation of the window, about half a lung; of 30, 50 and 80 mm the best on chests with little contrast
# (ours).
WINDOW_MM = 50.0
# Of the contrast of the whole image; keeps flat places flat.
_FLOOR = 0.3


def local_contrast(canvas: Canvas) -> Float[np.ndarray, "rows columns"]:
    """Return how much brighter each place is than its surroundings, in standard deviations of these.

        (x - m) / (s + 0.3 s_all), with mean m and deviation s in a Gaussian window, and s_all of the whole image

    Local contrast normalisation (Jarrett et al., "What is the best multi-stage architecture for object recognition?",
    ICCV 2009). A change of brightness or contrast leaves it as it is, and a monotone curve nearly so; it changes its
    sign where the image is inverted.
    """
    sigma = [WINDOW_MM / step for step in canvas.step_mm]
    weight = canvas.seen.astype(np.float64)
    total = np.maximum(ndimage.gaussian_filter(weight, sigma, mode="constant"), 1e-3)

    def mean(values: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
        return np.asarray(ndimage.gaussian_filter(values * weight, sigma, mode="constant") / total)

    above = (canvas.picture - mean(canvas.picture)) * weight
    everywhere = np.sqrt((above**2).sum() / max(weight.sum(), 1.0))
    return np.asarray(above / (np.sqrt(mean(above**2)) + _FLOOR * everywhere + 1e-9))


def stretched(values: Float[np.ndarray, "rows columns"], seen: Bool[np.ndarray, "rows columns"]) -> np.ndarray:
    """Bring the 1st and 99th percentile of what is seen to 0 and 1, and leave what is beyond."""
    low, high = np.percentile(values[seen], (1, 99)) if seen.any() else (0.0, 1.0)
    return np.asarray((values - low) / max(high - low, 1e-9))
