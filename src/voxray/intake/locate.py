"""Where the chest is in an X-ray image, how large it is shown, and how much it looks like one."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import numpy as np
from jaxtyping import Bool, Float
from scipy import signal

from voxray.geometry import FloatArray, ViewGeometry
from voxray.intake.canvas import lay_out, size_at_isocentre
from voxray.intake.contrast import local_contrast
from voxray.intake.statistics import STEP_MM

# All ours. How large the longer side of an image may be, mm at the isocentre, where nothing tells; then, about the best
# of these, finer steps of size, and how tall the chest may be for its width, against the mean of the training scans.
SIZES_MM = tuple(np.geomspace(240.0, 520.0, 11))
_FINER = (0.96, 1.0, 1.04)
STRETCHES = (0.87, 1.0, 1.15)
# What is expected, and how far off one standard deviation is: a chest film shows about 345 mm at the isocentre, of
# usual proportions, with the chest in the middle; more often more of the abdomen than of the neck.
_SIZE_MM, _SIZE_SPREAD, _STRETCH_SPREAD, _ASIDE_MM, _NECK_MM, _ABDOMEN_MM = 345.0, 0.2, 0.14, 40.0, 45.0, 65.0
# What one such deviation costs, in units of correlation.
_COST = 0.03
# Of the region that is compared, at least this part must lie in the image.
_OVERLAP = 0.7


@dataclass(frozen=True)
class Place:
    """Where a chest is in an image.

    Attributes:
        score: correlation of the local contrast with that of the training scans, -1 to 1, less what unusual places
            cost.
        scale: true size over the size that the geometry says.
        stretch: height over width, against the mean of the training scans.
        up_mm, right_mm: of the chest's centre from the isocentre, in true millimetres on the canvas.
    """

    score: float
    scale: float
    stretch: float
    up_mm: float
    right_mm: float


def find_chest(
    image: Float[np.ndarray, "_ _"],
    valid: Bool[np.ndarray, "_ _"],
    views: ViewGeometry,
    view: int,
    contrast: Float[np.ndarray, "rows columns"],
    scales: Sequence[float] | None = None,
) -> tuple[Place, Place]:
    """Find the place of best normalised correlation, over position, size and proportion.

    Correlation over what is seen alone, for all shifts at once: Padfield, "Masked object registration in the Fourier
    domain", IEEE TIP 21(5), 2012. A penalty stands for what is known of how chests are framed.

    Args:
        image: bone high, on any scale; of the view.
        valid: its pixels that show the patient.
        views: the geometry.
        view: the number of the view.
        contrast: of the training scans, in this family of views (or mirrored).
        scales: the only ones to try; None for those that make the image as large as X-rays are (`SIZES_MM`).

    Returns:
        The best place, and the best one if the image is inverted.
    """
    longest_mm = float(size_at_isocentre(views, view).max())

    def tried(scale: float, stretch: float) -> tuple[Place, Place]:
        step_mm = (STEP_MM * stretch, STEP_MM)
        count = int(np.ceil(longest_mm * scale / STEP_MM / min(STRETCHES))) + 1
        canvas = lay_out(image, valid, views, view, (step_mm[0] / scale, step_mm[1] / scale), (count, count))
        found = _correlation(local_contrast(canvas), canvas.seen, contrast)
        cost = _cost(_SIZE_MM if scales is not None else longest_mm * scale, stretch, *_offsets(found.shape, step_mm))
        return tuple(_best(sign * found, cost, scale, stretch, step_mm) for sign in (1, -1))  # type: ignore[return-value]

    coarse = [tried(scale, 1.0) for scale in scales or [size / longest_mm for size in SIZES_MM]]
    best, inverted = (max(places, key=_score) for places in zip(*coarse, strict=True))
    finer = [best.scale * step for step in _FINER] if scales is None else [best.scale]
    fine = [tried(scale, stretch) for scale in finer for stretch in STRETCHES]
    return max((place for place, _ in fine), key=_score), max((inverted, *(place for _, place in fine)), key=_score)


def _score(place: Place) -> float:
    return place.score


def _best(found: FloatArray, cost: FloatArray, scale: float, stretch: float, step_mm: tuple[float, float]) -> Place:
    """Return the place of the highest score, between the places of the grid."""
    up, right = _offsets(found.shape, step_mm)
    score = found - cost
    row, column = (int(i) for i in np.unravel_index(score.argmax(), score.shape))
    return Place(
        float(score[row, column]), scale, stretch,
        float(up[row] - step_mm[0] * _peak(score[:, column], row)),
        float(right[column] + step_mm[1] * _peak(score[row], column)),
    )  # fmt: skip


def _correlation(
    image: Float[np.ndarray, "rows columns"], seen: Bool[np.ndarray, "rows columns"], template: FloatArray
) -> Float[np.ndarray, "shifts_up shifts_right"]:
    """Return the correlation of a template with every place of an image, 0 where they overlap too little."""
    weight, ones = seen.astype(np.float64), np.ones_like(template)

    def sums(values: FloatArray, kernel: FloatArray) -> FloatArray:
        return np.asarray(signal.correlate(values, kernel, mode="full", method="fft"))

    shown = image * weight
    count = np.maximum(sums(weight, ones), 1e-6)
    of_image, of_template = sums(shown, ones), sums(weight, template)
    both = sums(shown, template) - of_image * of_template / count
    image_power = np.maximum(sums(shown * image, ones) - of_image**2 / count, 1e-6)
    template_power = np.maximum(sums(weight, template**2) - of_template**2 / count, 1e-6)
    return np.where(count >= _OVERLAP * template.size, both / np.sqrt(image_power * template_power), 0.0)


def _offsets(shape: tuple[int, ...], step_mm: tuple[float, float]) -> tuple[FloatArray, FloatArray]:
    """Return how far up and right of the isocentre the template's middle is at each place, mm."""
    rows, columns = ((np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, step_mm, strict=True))
    return np.asarray(-rows), np.asarray(columns)


def _cost(size_mm: float, stretch: float, up_mm: FloatArray, right_mm: FloatArray) -> FloatArray:
    below = np.where(up_mm > 0, _ABDOMEN_MM, _NECK_MM)
    proportion = (log(size_mm / _SIZE_MM) / _SIZE_SPREAD) ** 2 + (log(stretch) / _STRETCH_SPREAD) ** 2
    return np.asarray(_COST * (proportion + ((up_mm / below) ** 2)[:, None] + (right_mm / _ASIDE_MM) ** 2))


def _peak(values: FloatArray, at: int) -> float:
    """Return where the parabola through a maximum and its neighbours is highest, in steps from the maximum."""
    if not 0 < at < len(values) - 1:
        return 0.0
    before, here, after = values[at - 1 : at + 2]
    bend = before - 2 * here + after
    return float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5)) if bend < 0 else 0.0
