"""Whether a method's uncertainty is as large as its errors: coverage and width of the intervals that it implies."""

from collections.abc import Callable
from statistics import NormalDist

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from voxray.evaluation.regions import Region, regions_of
from voxray.evaluation.trial import Metric, Trial

# Attenuation is zero here: no X-ray tells the -1024 HU of prepared air from the -1000 HU of a reconstruction.
VACUUM_HU = -1000.0

LEVELS = (50, 80, 90)
# Where the width of intervals is of interest: air around the patient would make them look narrow.
WIDTHS: tuple[Region, ...] = ("body", "lung", "soft", "bone")


def half_width(level: float) -> float:
    """Return how many standard deviations the central interval of `level` percent of a Gaussian reaches either way."""
    return NormalDist().inv_cdf(0.5 + level / 200)


def coverage(
    image: Float[Tensor, "*shape"], truth: Float[Tensor, "*shape"], std: Float[Tensor, "*shape"], level: float
) -> float:
    """Return the percentage of voxels whose true value lies in the interval `image +- z std`.

    The interval is that of a Gaussian: z is 0.674, 1.282 and 1.645 for 50, 80 and 90 %. A calibrated uncertainty
    covers `level` percent; one that is too small covers less. What is below -1000 HU counts as -1000 HU, in both
    volumes. That voxels are pooled, as if they were drawn alike, and the Gaussian are our choice: a method gives no
    more than a standard deviation, often of few samples.

    Args:
        image: HU.
        truth: HU.
        std: standard deviation in HU.
        level: percent.
    """
    return 100 * float((_error_hu(image, truth) <= half_width(level) * std).double().mean())


def std_factor(
    image: Float[Tensor, "*shape"], truth: Float[Tensor, "*shape"], std: Float[Tensor, "*shape"], level: float
) -> float:
    """Return the factor of the standard deviation with which the interval of `coverage` holds `level` percent.

    The mean over patients is what to multiply a method's standard deviation by for others like them (conformal
    prediction with the error in standard deviations as its score: Angelopoulos and Bates 2021, arXiv 2107.07511, 2.3).

    Args:
        image: HU.
        truth: HU.
        std: standard deviation in HU.
        level: percent.
    """
    error = _error_hu(image, truth)
    return _quantile((error / std).where(error > 0, error), level) / half_width(level)


def even_width_hu(image: Float[Tensor, "*shape"], truth: Float[Tensor, "*shape"], percent: float) -> float:
    """Return the width in HU of the interval that is the same everywhere and holds `percent` of the voxels."""
    return 2 * _quantile(_error_hu(image, truth), percent)


def _quantile(values: Float[Tensor, "*shape"], percent: float) -> float:
    values = values.flatten().sort().values
    return float(values[min(len(values) - 1, int(percent / 100 * len(values)))])


def _error_hu(image: Float[Tensor, "*shape"], truth: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return (image.clamp_min(VACUUM_HU) - truth.clamp_min(VACUUM_HU)).abs()


def width_hu(std: Float[Tensor, "*shape"], level: float) -> float:
    """Return the mean width of the central interval of `level` percent, `2 z std`, in HU."""
    return 2 * half_width(level) * float(std.double().mean())


def _mask(trial: Trial, region: Region | None) -> Bool[Tensor, "z y x"]:
    """Return a region of the truth; without one, everything."""
    if region is None:
        return torch.ones_like(trial.truth, dtype=torch.bool)
    mask: Tensor = getattr(regions_of(trial.case.volume), region)
    return mask


def _coverage(level: float, region: Region | None) -> Callable[[Trial], float | None]:
    def of(trial: Trial) -> float | None:
        std, mask = trial.estimate.std, _mask(trial, region)
        if std is None or not bool(mask.any()):
            return None
        return coverage(trial.hu[mask], trial.truth[mask], std.hu[mask], level)

    return of


def _factor90(trial: Trial) -> float | None:
    std, mask = trial.estimate.std, _mask(trial, "body")
    if std is None or not bool(mask.any()):
        return None
    return std_factor(trial.hu[mask], trial.truth[mask], std.hu[mask], 90)


def _even_width90(trial: Trial) -> float | None:
    percent, mask = _coverage(90, "body")(trial), _mask(trial, "body")
    return None if percent is None else even_width_hu(trial.hu[mask], trial.truth[mask], percent)


def _width90(region: Region) -> Callable[[Trial], float | None]:
    def of(trial: Trial) -> float | None:
        std, mask = trial.estimate.std, _mask(trial, region)
        return None if std is None or not bool(mask.any()) else width_hu(std.hu[mask], 90)

    return of


_PLACES: dict[Region | None, str] = {
    None: "the whole cube", "body": "the true body", "lung": "the true lungs", "soft": "true soft tissue",
    "bone": "true bone",
}  # fmt: skip

METRICS: tuple[Metric, ...] = (
    Metric("std_factor90", "factor of std for 90 %", "", None,
           "What the method's standard deviation is to be multiplied by, so that the 90 % interval of a Gaussian holds "
           "90 % of the true body; 1 if it is calibrated.",
           _factor90, 2),
    Metric("even_width90", "even width of 90 %, body", "HU", None,
           "Width of an interval that is the same everywhere and holds as many voxels of the true body as the 90 % "
           "interval does: the latter is narrower in the mean if the method knows where it is wrong.",
           _even_width90, 0),
    *(
        Metric(f"coverage{level}_{region}" if region else f"coverage{level}",
               f"coverage of {level} %, {region or 'cube'}", "%", None,
               f"Voxels of {place} within the {level} % interval of a Gaussian with the method's standard deviation; "
               f"{level} % if it is calibrated.",
               _coverage(level, region), 1)
        for region, place in _PLACES.items()
        for level in LEVELS
    ),
    *(
        Metric("width90" if region == "body" else f"width90_{region}", f"width of 90 %, {region}", "HU", None,
               "Mean width of the 90 % interval of a Gaussian with the method's standard deviation, over "
               f"{_PLACES[region]}.",
               _width90(region), 0)
        for region in WIDTHS
    ),
)  # fmt: skip
