"""Means, intervals and paired tests, on examples that are worked out by hand."""

import math

import numpy as np
import pytest

from voxray.evaluation.results import Evaluation, Group, Row
from voxray.evaluation.statistics import (
    compare,
    compare_all,
    holm,
    interval,
    signed_rank,
    smallest_p,
    summarise,
)


def rows(model: str, scores: dict[str, float | None]) -> list[Row]:
    return [Row(case, "closed", model, {"psnr3d": value}, "pa") for case, value in scores.items()]


def test_a_mean_by_hand() -> None:
    found = summarise([1.0, 2.0, 6.0])
    assert (found.cases, found.mean, found.median) == (3, 3.0, 2.0)
    assert found.std == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert 1 <= found.low < 3 < found.high <= 6


def test_the_interval_of_two_values_is_their_range() -> None:
    """Of two values a quarter of all draws is twice the first, and a quarter twice the second."""
    assert interval(np.array([1.0, 5.0])) == (1.0, 5.0)


def test_the_interval_is_that_of_the_normal_distribution_where_cases_are_many() -> None:
    values = np.random.default_rng(0).normal(10.0, 2.0, 400)
    low, high = interval(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert low == pytest.approx(values.mean() - half, abs=0.2 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.2 * half)


def test_D1_the_same_seed_gives_the_same_interval_and_another_another() -> None:
    values = np.random.default_rng(0).normal(size=30)
    assert interval(values) == interval(values)
    assert interval(values, seed=1) != interval(values)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.inf]])
def test_where_there_is_no_interval(values: list[float]) -> None:
    found = summarise(values)
    assert found.cases == len(values)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_equal_values_have_an_interval_of_no_width() -> None:
    assert interval(np.full(5, 2.5)) == (2.5, 2.5)


def test_signed_ranks_by_hand() -> None:
    """Five differences of one sign: one of 32 patterns of signs, at either end."""
    assert signed_rank(np.array([1.0, 2.0, 3.0, 4.0, 5.0])) == pytest.approx(2 / 32)
    assert signed_rank(np.array([1.0, -2.0, 3.0, 4.0, 5.0])) == pytest.approx(2 * 3 / 32)  # rank sums 0, 1 and 2
    assert signed_rank(np.zeros(5)) == 1


def test_the_smallest_p_is_reached_by_differences_of_one_sign() -> None:
    for cases in (3, 6, 10):
        assert signed_rank(np.arange(1.0, cases + 1)) == pytest.approx(smallest_p(cases))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_only_shared_cases_are_compared() -> None:
    evaluation = Evaluation(
        tuple(
            rows("a", {"1": 20.0, "2": 22.0, "3": 24.0, "4": 99.0, "5": None, "6": math.inf})
            + rows("b", {"1": 19.0, "2": 20.0, "3": 21.0, "5": 1.0, "6": 1.0})
        ),
        ("psnr3d",),
    )
    found = compare(evaluation, Group("closed", "pa", "a"), "b", "psnr3d")
    assert found is not None
    assert (found.cases, found.difference) == (3, 2.0)
    assert found.p == found.p_holm == pytest.approx(0.25)
    assert 1 <= found.low < 2 < found.high <= 3
    assert compare(evaluation, Group("closed", "pa", "a"), "c", "psnr3d") is None


def test_tests_are_corrected_for_the_number_of_models() -> None:
    base = {str(i): 20.0 + i for i in range(6)}
    models = {"a": base} | {name: {k: v - by for k, v in base.items()} for name, by in (("b", 1.0), ("c", 2.0))}
    evaluation = Evaluation(tuple(row for name, scores in models.items() for row in rows(name, scores)), ("psnr3d",))
    found = compare_all(evaluation, "closed", "pa", "psnr3d", "a")
    assert [(c.model, c.difference) for c in found] == [("b", -1.0), ("c", -2.0)]
    assert [c.p for c in found] == pytest.approx([2 / 64, 2 / 64])
    assert [c.p_holm for c in found] == pytest.approx([4 / 64, 4 / 64])
