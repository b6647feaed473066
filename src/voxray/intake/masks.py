"""What in an X-ray image is no measurement of the patient: collimator borders, burnt-in letters."""

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage, stats
from skimage.morphology import disk

from voxray.intake.contrast import stretched

Image = Float[np.ndarray, "rows columns"]
Mask = Bool[np.ndarray, "rows columns"]

# All ours, as parts of the image's range (1st to 99th percentile) or of its longer side.
# A border is flat to this, ends in a step of this, on a line that is straight to this, over this part of its side; and
# the step is over within this part of what it comes to twice as far in: at the skin, the body only begins. Rims, up to
# twice as deep as lines are straight, may be blurred.
_FLAT, _STEP, _STRAIGHT, _SHARE, _SHARP = 0.04, 0.10, 0.01, 0.6, 0.85
# Never more than this part of the image is border.
_DEEPEST = 0.3
# Letters are brighter than all around by this, within a disc of this radius; no larger than so, and as bright as this.
_MARK_STEP, _MARK_RADIUS, _LARGEST_MARK, _MARK_LEVEL = 0.3, 0.012, 0.09, 0.9


def find_borders(image: Image) -> Mask:
    """Mark what collimators and scanners leave at the sides of an image: flat bands that end in a straight, sharp edge.

    Air beside the body is flat, too, but ends at the skin, which is neither straight nor sharp; it is a measurement,
    and stays. Bands may be tilted. For each side: where each line from there is no longer flat, and the straight line
    that most of these ends lie on (Siegel's repeated medians, Biometrika 69, 1982).
    """
    image = stretched(image, np.ones(image.shape, dtype=bool))
    border = np.zeros(image.shape, dtype=bool)
    for turns in range(4):
        turned, marked = np.rot90(image, turns), np.rot90(border, turns)
        marked |= np.arange(turned.shape[1]) < _band(turned)[:, None]
    return border


def find_marks(image: Image) -> Mask:
    """Mark burnt-in letters and other small, bright things with sharp outlines, and a pixel around them.

    They are what a white top-hat (Serra, "Image Analysis and Mathematical Morphology", 1982) leaves of an image above
    a threshold that no rib comes to.
    """
    longest = max(image.shape)
    image = stretched(image, np.ones(image.shape, dtype=bool))
    radius = max(2, round(_MARK_RADIUS * longest))
    bright = ndimage.white_tophat(image, footprint=disk(radius), mode="nearest") > _MARK_STEP
    labels, _ = ndimage.label(ndimage.binary_dilation(bright, iterations=2))
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        own = labels[rows, columns] == number
        too_large = max(own.shape) > _LARGEST_MARK * longest
        if too_large or image[rows, columns][own].max() < _MARK_LEVEL:
            labels[rows, columns][own] = 0
    return np.asarray(labels > 0)


def _band(image: Image) -> Float[np.ndarray, " rows"]:
    """Return how many columns from the left are a border, for each row; 0 where there is none."""
    rows, columns = image.shape
    limit = max(2, round(_STRAIGHT * max(rows, columns)))
    uneven = np.abs(image - image[:, :1]) > _FLAT
    depth = np.where(uneven.any(1), uneven.argmax(1), columns).astype(np.float64)
    ends = np.flatnonzero((depth > 0) & (depth < _DEEPEST * columns))
    if len(ends) < _SHARE * rows:
        return np.zeros(rows)
    slope, offset = stats.siegelslopes(depth[ends], ends)
    line = offset + slope * np.arange(rows)
    further = np.minimum(depth[ends].astype(int) + limit * np.array([[1], [2]]), columns - 1)
    step, later = np.abs(image[ends, further] - image[ends, 0])
    sharp = (step > _SHARP * later) | (depth[ends] <= 2 * limit)
    straight = (np.abs(depth[ends] - line[ends]) <= limit) & (step > _STEP) & sharp
    return line + limit if straight.sum() >= _SHARE * rows and line.max() >= 1 else np.zeros(rows)
