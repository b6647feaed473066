"""Coverage of a method's intervals, of its own or those that a standard deviation implies."""

from typing import Any

import pytest
import torch
from trial_maker import BODY, BONE, GRID, LUNGS, chest, make_trial

from voxray.evaluation.calibration import METRICS, Interval, coverage, even_width_hu, half_width, width_factor


def scores(*args: torch.Tensor, **kwargs: Any) -> dict[str, float | None]:
    trial = make_trial(*args, **kwargs)
    return {metric.name: metric.of(trial) for metric in METRICS}


def test_the_intervals_are_those_of_a_gaussian() -> None:
    """Tables of the normal distribution."""
    assert half_width(50) == pytest.approx(0.6745, abs=1e-4)
    assert half_width(80) == pytest.approx(1.2816, abs=1e-4)
    assert half_width(90) == pytest.approx(1.6449, abs=1e-4)


def test_O5_coverage_by_hand() -> None:
    truth, one = torch.zeros(6), torch.ones(6)
    image = torch.tensor([0.6, -0.7, 1.2, -1.3, 1.6, -1.7])
    found = [coverage(Interval(image, z * one, z * one), truth) for z in map(half_width, (50, 80, 90))]
    assert found == pytest.approx([100 / 6, 300 / 6, 500 / 6])
    assert coverage(Interval(image, 1.61 * one, 0.71 * one), truth) == pytest.approx(400 / 6)
    assert coverage(Interval(image, 2 * one, 2 * one), truth) == 100
    assert Interval(image[:2], torch.tensor([5.0, 15.0]), torch.tensor([7.0, 17.0])).width_hu == 22


def test_O5_a_method_with_an_interval_of_its_own_is_judged_by_that() -> None:
    """All errors reach 20 HU upwards, half of them 10 HU down."""
    truth = chest()
    hu = truth - 20
    hu[:16] = truth[:16] + 10
    own = (hu - 10.5, hu + 20.5)
    found = scores(truth, hu, std=torch.full(GRID.shape, 5.0), interval=own)
    assert (found["coverage90_body"], found["coverage80_body"]) == (100, 0)
    assert (found["width90"], found["width90_lung"]) == pytest.approx((31, 31))
    assert found["std_factor90"] == pytest.approx(20 / 20.5)
    assert scores(truth, hu, interval=(hu - 9.5, hu + 20.5))["coverage90_body"] == pytest.approx(50)


def test_O5_a_calibrated_uncertainty_covers_what_it_says_and_half_of_it_covers_less() -> None:
    """13824 voxels: a share is known to 0.4 %. P(|e| < 1.645 / 2) is 58.9 %."""
    std = torch.full(GRID.shape, 30.0)
    truth = chest()
    hu = truth + 30 * torch.randn(GRID.shape, generator=torch.Generator().manual_seed(0))
    found = scores(truth, hu, std=std)
    for level in (50, 80, 90):
        assert found[f"coverage{level}_body"] == pytest.approx(level, abs=5 * 0.43)
    assert scores(truth, hu, std=std / 2)["coverage90_body"] == pytest.approx(58.9, abs=5 * 0.43)
    assert found["width90"] == pytest.approx(2 * 1.6449 * 30, abs=0.01)


@pytest.mark.parametrize("times", [0.5, 1.0, 3.0])
def test_O5_the_factor_makes_it_cover_what_it_says(times: float) -> None:
    std, truth = torch.full(GRID.shape, 30.0), chest()
    hu = truth + 30 * torch.randn(GRID.shape, generator=torch.Generator().manual_seed(0))
    factor = scores(truth, hu, std=times * std)["std_factor90"]
    assert factor == pytest.approx(1 / times, rel=0.03)
    assert scores(truth, hu, std=factor * times * std)["coverage90_body"] == pytest.approx(90, abs=0.02)


def test_O5_the_factor_by_hand() -> None:
    """Of ten errors of 1 to 10 standard deviations, an interval of 9.5 holds nine; the tenth decides."""
    errors, nothing = torch.arange(1.0, 11.0), torch.zeros(10)
    assert width_factor(Interval(errors, torch.ones(10), nothing), nothing, 90) == 10
    assert width_factor(Interval(errors, 2 * torch.ones(10), nothing), nothing, 50) == 3
    assert width_factor(Interval(-errors, nothing, torch.ones(10)), nothing, 50) == 6
    assert width_factor(Interval(nothing, nothing, nothing), nothing, 90) == 0


def test_an_uncertainty_that_knows_where_is_narrower_than_an_even_one() -> None:
    """Half of the body 10 HU off in standard deviation, half 50: on average 98.7 HU of 90 % each, even 125 or so."""
    truth, std = chest(), torch.full(GRID.shape, 10.0)
    std[:16] = 50.0
    hu = truth + std * torch.randn(GRID.shape, generator=torch.Generator().manual_seed(0))
    found = scores(truth, hu, std=std)
    assert found["even_width90"] > 1.2 * found["width90"]
    even = scores(truth, hu, std=torch.full(GRID.shape, 37.0))
    assert even["even_width90"] == pytest.approx(even["width90"], rel=0.01)
    errors = torch.arange(1.0, 11.0)
    assert even_width_hu(errors, torch.zeros(10), 80) == 2 * 9


def test_O5_each_tissue_for_itself() -> None:
    truth = chest()
    hu = truth.clone()
    for lung in LUNGS:
        hu[lung] += 100
    hu[BONE] += 15
    found = scores(truth, hu, std=torch.full(GRID.shape, 10.0))
    assert (found["coverage90_lung"], found["coverage90_soft"], found["coverage90_bone"]) == (0, 100, 100)
    assert (found["coverage80_bone"], found["coverage50_soft"]) == (0, 100)
    assert found["coverage90_body"] == pytest.approx(100 * (1 - 3360 / 13824))
    assert found["coverage90"] == pytest.approx(100 * (1 - 3360 / 32**3))


def test_widths_are_those_of_the_body_and_its_tissues() -> None:
    std = torch.zeros(GRID.shape)
    std[BODY] = 10.0
    assert scores(chest(), chest(), std=std)["width90"] == pytest.approx(32.897, abs=1e-3)
    std[BONE] = 30.0
    found = scores(chest(), chest(), std=std)
    widths = [found[f"width90_{tissue}"] for tissue in ("lung", "soft", "bone")]
    assert widths == pytest.approx([32.897, 32.897, 98.691], abs=1e-2)


def test_air_is_covered_whichever_way_it_is_written() -> None:
    air, nothing = torch.full((4,), -1024.0), torch.zeros(4)
    assert coverage(Interval(torch.full((4,), -1000.0), nothing, nothing), air) == 100
    assert coverage(Interval(torch.full((4,), -999.0), nothing, nothing), air) == 0


def test_without_a_standard_deviation_or_a_body_there_is_no_number() -> None:
    assert set(scores(chest(), chest()).values()) == {None}
    air = torch.full(GRID.shape, -1024.0)
    found = scores(air, air, std=torch.ones(GRID.shape))
    assert {name for name, value in found.items() if value is not None} == {"coverage50", "coverage80", "coverage90"}
