"""What the scores of some cases say about models: means with their uncertainty, and paired tests."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from voxray.evaluation.results import Evaluation, Group

# Below this, an interval or a test says little and is marked as such (ours: a bootstrap interval of the mean of fewer
# than about 20 cases is too narrow, and a Wilcoxon test of fewer than 6 cannot reach p < 0.05).
FEW_CASES = 20

LEVEL = 0.95
RESAMPLES = 2000

Values = Float[np.ndarray, "cases"]


@dataclass(frozen=True)
class Mean:
    """A mean over cases.

    Attributes:
        cases: how many.
        mean, std, median: over them; the standard deviation with n - 1, NaN for a single case.
        low, high: 95 % bootstrap interval of the mean; NaN for a single case.
    """

    cases: int
    mean: float
    std: float
    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Two models on the same cases.

    Attributes:
        metric: name.
        model, reference: what is compared, and with what.
        cases: that both have.
        difference: mean of model minus reference.
        low, high: 95 % bootstrap interval of that mean, over cases.
        p: two-sided Wilcoxon signed-rank test.
        p_holm: the same, corrected for the number of models that are compared with the reference (Holm 1979).
    """

    metric: str
    model: str
    reference: str
    cases: int
    difference: float
    low: float
    high: float
    p: float
    p_holm: float


def summarise(values: Sequence[float], *, seed: int = 0, bootstrap: bool = True) -> Mean:
    """Return mean, spread and a bootstrap interval of the mean.

    Args:
        values: one a case; infinite ones (the PSNR of equal volumes) make an infinite mean, without an interval.
        seed: of the bootstrap.
        bootstrap: False for no interval, which takes most of the time.
    """
    array = np.asarray(values, dtype=np.float64)
    if not len(array):
        return Mean(0, *[math.nan] * 5)
    with np.errstate(invalid="ignore"):
        spread = float(array.std(ddof=1)) if len(array) > 1 else math.nan
    ends = interval(array, seed=seed) if bootstrap else (math.nan, math.nan)
    return Mean(len(array), float(array.mean()), spread, float(np.median(array)), *ends)


def interval(values: Values, *, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a mean: percentiles of the means of 2000 draws of the cases.

    The percentile interval (Efron 1979), for BCa has no value where cases are few or alike.
    """
    if len(values) < 2 or not np.isfinite(values).all():
        return math.nan, math.nan
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    from scipy.stats import bootstrap

    found = bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, confidence_level=LEVEL, method="percentile",
        rng=np.random.default_rng(seed), batch=100,
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)


def compare(evaluation: Evaluation, group: Group, reference: str, metric: str) -> Comparison | None:
    """Compare the model of a group with a reference on the cases, protocol and views that they share.

    Returns:
        Without Holm's correction; None where they share no case with this metric.
    """
    mine = evaluation.scores(group, metric)
    others = evaluation.scores(replace(group, model=reference), metric)
    shared = [case for case in mine if case in others and math.isfinite(mine[case]) and math.isfinite(others[case])]
    if not shared:
        return None
    differences = np.array([mine[case] - others[case] for case in shared])
    p = signed_rank(differences)
    mean = float(differences.mean())
    return Comparison(metric, group.model, reference, len(shared), mean, *interval(differences), p, p)


def compare_all(evaluation: Evaluation, protocol: str, views: str, metric: str, reference: str) -> list[Comparison]:
    """Compare every other model with a reference, and correct the p-values for their number."""
    groups = [group for group in evaluation.by_group if (group.protocol, group.views) == (protocol, views)]
    found = [compare(evaluation, group, reference, metric) for group in groups if group.model != reference]
    comparisons = [comparison for comparison in found if comparison is not None]
    corrected = holm([comparison.p for comparison in comparisons])
    return [replace(comparison, p_holm=p) for comparison, p in zip(comparisons, corrected, strict=True)]


def signed_rank(differences: Values) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test (exact for few cases); 1 where nothing differs."""
    if not np.any(differences):
        return 1.0
    from scipy.stats import wilcoxon

    return float(wilcoxon(differences).pvalue)


def smallest_p(cases: int) -> float:
    """Return the least p-value that the signed-rank test can have: all differences of one sign, `2 / 2^n`."""
    return min(1.0, 2.0 ** (1 - cases))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, step down (Holm 1979, Scand. J. Statist. 6, 65-70)."""
    corrected = [1.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(np.argsort(p_values)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected
