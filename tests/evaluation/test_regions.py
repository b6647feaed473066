"""Scores of regions, counted by hand on a chest of boxes."""

import math

import pytest
import torch
from trial_maker import BODY, BONE, GAS, GRID, LUNGS, chest, make_trial

from voxray.evaluation.regions import METRICS, dice, regions_of, window_psnr
from voxray.evaluation.trial import Trial
from voxray.images import CTVolume


def score(name: str, trial: Trial) -> float | None:
    (metric,) = (metric for metric in METRICS if metric.name == name)
    return metric.of(trial)


def test_the_regions_are_where_the_boxes_are() -> None:
    regions = regions_of(CTVolume(chest(), GRID))
    body, lung, bone, gas = (torch.zeros(GRID.shape, dtype=torch.bool) for _ in range(4))
    for mask, boxes in ((body, [BODY]), (lung, LUNGS), (bone, [BONE]), (gas, [GAS])):
        for box in boxes:
            mask[box] = True
    assert torch.equal(regions.body, body)
    assert torch.equal(regions.lung, lung)
    assert torch.equal(regions.bone, bone)
    assert torch.equal(regions.soft, body & ~lung & ~bone & ~gas)


def test_air_at_the_skin_is_no_lung() -> None:
    hu = chest()
    hu[6:26, 4:6, 8:24] = -900.0  # open to the front, and larger than a tenth of a lung
    assert torch.equal(regions_of(CTVolume(hu, GRID)).lung, regions_of(CTVolume(chest(), GRID)).lung)


def test_regions_are_found_once_for_each_volume() -> None:
    volume = CTVolume(chest(), GRID)
    assert regions_of(volume) is regions_of(volume)
    assert regions_of(CTVolume(chest(), GRID)) is not regions_of(volume)


def test_N10_errors_count_inside_the_true_region_alone() -> None:
    truth = chest()
    hu = truth + 1000.0  # all over the place, but:
    hu[BODY] = truth[BODY] + 20
    hu[GAS] = truth[GAS]
    for lung in LUNGS:
        hu[lung] = truth[lung] - 10
    hu[BONE] = truth[BONE] + 30
    trial = make_trial(truth, hu)
    assert score("mae_lung", trial) == pytest.approx(10)
    assert score("mae_soft", trial) == pytest.approx(20)
    assert score("mae_bone", trial) == pytest.approx(30)
    soft = 13824 - 3360 - 192 - 8
    assert score("mae_body", trial) == pytest.approx((10 * 3360 + 20 * soft + 30 * 192) / 13824, rel=1e-6)
    mse = (100 * 3360 + 400 * soft + 900 * 192) / 13824
    assert score("psnr_body", trial) == pytest.approx(10 * math.log10(2500**2 / mse), abs=1e-6)


def test_N10_windows_clip_what_they_do_not_show() -> None:
    truth = chest()
    hu = truth.clone()
    hu[BONE] = 1500.0
    trial = make_trial(truth, hu)
    assert score("psnr_lung_window", trial) == math.inf
    mse = (1300 - 500) ** 2 * 192 / 13824
    assert score("psnr_bone_window", trial) == pytest.approx(10 * math.log10(1800**2 / mse), abs=1e-6)
    darker = make_trial(truth, torch.where(truth < -800, truth + 150, truth))
    assert score("psnr_lung_window", darker) == pytest.approx(
        10 * math.log10(1500**2 / (150**2 * (3360 + 8) / 13824)), abs=1e-6
    )
    assert score("psnr_bone_window", darker) == math.inf
    with pytest.raises(TypeError, match="window_hu"):
        window_psnr(truth, truth)  # type: ignore[call-arg]


def test_one_lung_missing() -> None:
    truth = chest()
    hu = truth.clone()
    hu[LUNGS[1]] = 40.0
    trial = make_trial(truth, hu)
    assert score("dice_lung", trial) == pytest.approx(2 / 3)
    assert score("lung_volume_error", trial) == pytest.approx(-1680)
    assert score("lung_volume_error_percent", trial) == pytest.approx(-50)
    assert score("dice_body", trial) == 1
    assert score("dice_bone", trial) == 1


def test_half_a_bone() -> None:
    truth = chest()
    hu = truth.clone()
    hu[BONE][:12] = 40.0
    assert score("dice_bone", make_trial(truth, hu)) == pytest.approx(2 / 3)
    assert score("dice_lung", make_trial(truth, hu)) == 1


def test_no_body_in_the_reconstruction() -> None:
    trial = make_trial(chest(), torch.full(GRID.shape, -1000.0))
    for name in ("dice_body", "dice_lung", "dice_bone"):
        assert score(name, trial) == 0
    assert score("lung_volume_error_percent", trial) == pytest.approx(-100)
    assert score("mae_lung", trial) == pytest.approx(150)


def test_no_body_in_the_truth() -> None:
    air = torch.full(GRID.shape, -1024.0)
    trial = make_trial(air, air)
    assert score("lung_volume_error", trial) == 0
    assert {metric.name: metric.of(trial) for metric in METRICS if metric.name != "lung_volume_error"} == {
        metric.name: None for metric in METRICS if metric.name != "lung_volume_error"
    }


def test_dice_by_hand() -> None:
    one, other = torch.tensor([True, True, False]), torch.tensor([False, True, True])
    assert dice(one, other) == 0.5
    assert dice(one, one) == 1
    assert dice(one, ~one) == 0
    assert dice(one & ~one, one & ~one) is None
