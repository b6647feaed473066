"""Residuals at views that the method was not given."""

import math

import numpy as np
import pytest
import torch
from small_models import SETUP
from trial_maker import BODY, GRID, chest, make_trial

from voxray.evaluation.reprojection import METRICS, projected, unseen_view, views_at
from voxray.evaluation.trial import Trial
from voxray.geometry import ViewGeometry
from voxray.geometry.axial import primary_angles_deg
from voxray.physics.attenuation import MU_WATER_PER_MM

PARALLEL = ViewGeometry.parallel([0.0], pixel_mm=10.0, shape=(32, 32))


def scores(trial: Trial) -> dict[str, float | None]:
    return {metric.name: metric.of(trial) for metric in METRICS}


@pytest.mark.parametrize(("given", "between"), [
    ([0], 90), ([30], 120), ([0, 90], 45), ([90, 0], 45), ([0, 270], -45), ([0, 180], 90), ([0, 60, 120], 30),
    ([0, 30], 105), ([0, 30, 60, 90], 135), ([350, 10], 90), ([200, 310], -105),
])  # fmt: skip
def test_N5_the_unseen_view_fills_the_widest_gap_from_the_side_nearest_to_all(
    given: list[float], between: float
) -> None:
    view = unseen_view(ViewGeometry.from_angles(given, setup=SETUP))
    assert len(view) == 1
    assert primary_angles_deg(view)[0] == pytest.approx(between, abs=1e-4)


@pytest.mark.parametrize("names", [["pa"], ["lateral"], ["right_lateral"], ["ap"], ["-30"]])
def test_another_view_has_the_distances_and_the_pixels_of_the_first(names: list[str]) -> None:
    views = ViewGeometry.from_names([*names, "45"], setup=SETUP, isocentre_mm=(1.0, 2.0, 3.0))
    found, expected = views_at(views, [45.0]), views.subset([1])
    for name in ("source_mm", "centre_mm", "u_mm", "v_mm"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-6)
    assert found.shapes == expected.shapes


def test_N10_the_residual_of_nothing_is_the_shadow_of_the_truth() -> None:
    """A body of 240 mm of water, seen from the side on 24 x 24 of the 32 x 32 pixels of 10 mm."""
    truth = torch.full(GRID.shape, -1024.0)
    truth[BODY] = 0.0
    found = scores(make_trial(truth, torch.full(GRID.shape, -1000.0), views=PARALLEL))
    assert found["residual_unseen"] == pytest.approx(MU_WATER_PER_MM * 240 * 24 / 32, rel=1e-3)
    assert found["psnr_unseen"] == pytest.approx(20 * math.log10(32 / 24), abs=1e-2)


@pytest.mark.parametrize("protocol", ["closed", "clinical"])
def test_an_error_along_the_rays_of_the_given_view_is_seen_from_elsewhere(protocol: str) -> None:
    truth, moved = chest(), chest()
    truth[14:18, 6:8, 14:18], moved[14:18, 6:8, 14:18] = 1000.0, 40.0
    moved[14:18, 26:28, 14:18] = 1000.0  # further back, on the same rays
    trial = make_trial(truth, moved, views=PARALLEL, protocol=protocol)  # type: ignore[arg-type]
    (image,), (expected,) = projected(trial, PARALLEL)
    assert torch.allclose(image, expected, atol=1e-4)
    residual = scores(trial)["residual_unseen"]
    assert residual is not None
    # 960 HU over 40 mm of a ray, missing at 4 x 2 pixels and too much at 4 x 2 others.
    assert residual == pytest.approx(MU_WATER_PER_MM * 0.96 * 40 * math.sqrt(16 / 32**2), rel=1e-3)


def test_N10_the_truth_fits_itself() -> None:
    assert scores(make_trial(chest(), chest())) == {"residual_unseen": 0, "psnr_unseen": math.inf}


def test_without_a_shadow_there_is_no_range() -> None:
    air = torch.full(GRID.shape, -1024.0)
    assert scores(make_trial(air, chest()))["psnr_unseen"] is None
