"""Whether a method's uncertainty is as large as its errors: coverage and width of its intervals."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from voxray.evaluation.regions import Region, regions_of
from voxray.evaluation.trial import Metric, Trial
from voxray.methods.base import Estimate
from voxray.physics.attenuation import VACUUM_HU

LEVELS = (50, 80, 90)
# Where the width of intervals is of interest: air around the patient would make them look narrow.
WIDTHS: tuple[Region, ...] = ("body", "lung", "soft", "bone")


def half_width(level: float) -> float:
    """Return how many standard deviations the central interval of `level` percent of a Gaussian reaches either way."""
    return NormalDist().inv_cdf(0.5 + level / 200)


@dataclass(frozen=True, eq=False)
class Interval:
    """Where a method expects the true voxels.

    Attributes:
        image: the reconstruction, HU.
        below, above: how far the interval reaches, HU.
    """

    image: Float[Tensor, "*shape"]
    below: Float[Tensor, "*shape"]
    above: Float[Tensor, "*shape"]

    def __getitem__(self, mask: Bool[Tensor, "*shape"]) -> "Interval":
        """Return the interval of some voxels."""
        return Interval(self.image[mask], self.below[mask], self.above[mask])

    @property
    def width_hu(self) -> float:
        """Return the mean width."""
        return float((self.below + self.above).double().mean())


def interval_of(estimate: Estimate, level: float) -> Interval | None:
    """Return the central interval of `level` percent; None where a method tells no uncertainty.

    The method's own where it has one, which is of 90 %; else a Gaussian's, `image +- z std` with z = 0.674, 1.282 and
    1.645 for 50, 80 and 90 %. The Gaussian is our choice: most methods give no more than a standard deviation, often
    of few samples.
    """
    hu = estimate.volume.hu
    if level == 90 and estimate.interval is not None:
        low, high = estimate.interval
        return Interval(hu, hu - low.hu, high.hu - hu)
    if estimate.std is None:
        return None
    side = half_width(level) * estimate.std.hu
    return Interval(hu, side, side)


def coverage(interval: Interval, truth: Float[Tensor, "*shape"]) -> float:
    """Return the percentage of voxels whose true value lies in the interval.

    A calibrated uncertainty covers as many percent as its level; one that is too small covers less. What is below
    -1000 HU counts as -1000 HU, in both volumes. That voxels are pooled, as if they were drawn alike, is our choice.

    Args:
        interval: of the voxels.
        truth: HU.
    """
    error = _error_hu(interval.image, truth)
    return 100 * float(((-interval.below <= error) & (error <= interval.above)).double().mean())


def width_factor(interval: Interval, truth: Float[Tensor, "*shape"], level: float) -> float:
    """Return the factor of the interval's sides with which it holds `level` percent.

    The mean over patients is what to multiply a method's uncertainty by for others like them (conformal prediction
    with the error over the interval's side as its score: Angelopoulos and Bates 2021, arXiv 2107.07511, 2.2 and 2.3).

    Args:
        interval: of the voxels.
        truth: HU.
        level: percent.
    """
    error = _error_hu(interval.image, truth)
    side = interval.above.where(error > 0, interval.below)
    return _quantile((error.abs() / side).where(error != 0, error), level)


def even_width_hu(image: Float[Tensor, "*shape"], truth: Float[Tensor, "*shape"], percent: float) -> float:
    """Return the width in HU of the interval that is the same everywhere and holds `percent` of the voxels."""
    return 2 * _quantile(_error_hu(image, truth).abs(), percent)


def _quantile(values: Float[Tensor, "*shape"], percent: float) -> float:
    values = values.flatten().sort().values
    return float(values[min(len(values) - 1, int(percent / 100 * len(values)))])


def _error_hu(image: Float[Tensor, "*shape"], truth: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return truth.clamp_min(VACUUM_HU) - image.clamp_min(VACUUM_HU)


def _mask(trial: Trial, region: Region | None) -> Bool[Tensor, "z y x"]:
    """Return a region of the truth; without one, everything."""
    if region is None:
        return torch.ones_like(trial.truth, dtype=torch.bool)
    mask: Tensor = getattr(regions_of(trial.case.volume), region)
    return mask


def _over(
    level: float, region: Region | None, number: Callable[[Interval, Tensor], float]
) -> Callable[[Trial], float | None]:
    """Return how to compute a number of the intervals in a region of the truth, from them and the true HU."""

    def of(trial: Trial) -> float | None:
        interval, mask = interval_of(trial.estimate, level), _mask(trial, region)
        return None if interval is None or not bool(mask.any()) else number(interval[mask], trial.truth[mask])

    return of


_PLACES: dict[Region | None, str] = {
    None: "the whole cube", "body": "the true body", "lung": "the true lungs", "soft": "true soft tissue",
    "bone": "true bone",
}  # fmt: skip

METRICS: tuple[Metric, ...] = (
    Metric("std_factor90", "factor of std for 90 %", "", None,
           "What the method's uncertainty is to be multiplied by, so that the 90 % interval holds 90 % of the true "
           "body; 1 if it is calibrated.",
           _over(90, "body", lambda interval, truth: width_factor(interval, truth, 90)), 2),
    Metric("even_width90", "even width of 90 %, body", "HU", None,
           "Width of an interval that is the same everywhere and holds as many voxels of the true body as the 90 % "
           "interval does: the latter is narrower in the mean if the method knows where it is wrong.",
           _over(90, "body", lambda i, truth: even_width_hu(i.image, truth, coverage(i, truth))), 0),
    *(
        Metric(f"coverage{level}_{region}" if region else f"coverage{level}",
               f"coverage of {level} %, {region or 'cube'}", "%", None,
               f"Voxels of {place} within the method's {level} % interval; {level} % if it is calibrated.",
               _over(level, region, coverage), 1)
        for region, place in _PLACES.items()
        for level in LEVELS
    ),
    *(
        Metric("width90" if region == "body" else f"width90_{region}", f"width of 90 %, {region}", "HU", None,
               f"Mean width of the method's 90 % interval over {_PLACES[region]}.",
               _over(90, region, lambda interval, _: interval.width_hu), 0)
        for region in WIDTHS
    ),
)  # fmt: skip
