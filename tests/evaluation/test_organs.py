"""Dice of organs by TotalSegmentator; the tests have a stand-in, since it is not installed with voxray."""

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from trial_maker import GRID, LUNGS, chest, make_trial

from voxray.errors import InputError
from voxray.evaluation.catalogue import metric_named, select
from voxray.evaluation.organs import METRICS, organ_dice
from voxray.images import CTVolume

nibabel = pytest.importorskip("nibabel")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stand in for TotalSegmentator: air at the patient's right is label 1, at the left 2; label 3 is never found."""
    images: list[Any] = []
    monkeypatch.setattr("voxray.evaluation.organs._KEPT", {})

    def segment(image: Any, output: None, **options: object) -> Any:
        assert options == {"fast": True, "ml": True, "quiet": True, "device": "cpu"}
        images.append(image)
        data = np.asarray(image.dataobj)
        to_the_right = image.affine[0, 0] * np.arange(data.shape[0]) + image.affine[0, 3] < 0  # RAS: + is to the right
        labels = np.where(data == -850, np.where(to_the_right, 2, 1)[:, None, None], 0)
        return nibabel.Nifti1Image(labels.astype(np.uint8), image.affine)

    package, names, api = (ModuleType(f"totalsegmentator{end}") for end in ("", ".map_to_binary", ".python_api"))
    names.class_map = {"total": {1: "right_lung", 2: "left_lung", 3: "spleen"}}  # type: ignore[attr-defined]
    api.totalsegmentator = segment  # type: ignore[attr-defined]
    for module in (package, names, api):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return images


def test_each_organ_of_the_truth_has_its_dice(asked: list[Any]) -> None:
    """x runs to the patient's left, so the first lung is the right one; it lacks half of itself."""
    hu = chest()
    hu[LUNGS[0]][:10] = 40.0
    assert organ_dice(CTVolume(hu, GRID), CTVolume(chest(), GRID)) == pytest.approx(
        {"right_lung": 2 / 3, "left_lung": 1.0}
    )
    np.testing.assert_allclose(asked[0].affine @ (1, 2, 3, 1), np.diag([-1, -1, 1, 1]) @ GRID.affine @ (1, 2, 3, 1))


def test_an_organ_that_is_missing_scores_nothing(asked: list[Any]) -> None:
    empty = CTVolume(torch.full(GRID.shape, 40.0), GRID)
    assert organ_dice(empty, CTVolume(chest(), GRID)) == {"right_lung": 0, "left_lung": 0}
    assert organ_dice(CTVolume(chest(), GRID), empty) == {}


def test_parts_of_an_organ_count_as_one(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The first lung lacks half of itself: 2 x 2520 / (2520 + 3360). Both volumes are segmented once for all organs."""
    names = {1: "lung_upper_lobe_left", 2: "lung_lower_lobe_right", 3: "heart", 4: "liver"}
    monkeypatch.setattr(sys.modules["totalsegmentator.map_to_binary"], "class_map", {"total": names})
    hu = chest()
    hu[LUNGS[0]][:10] = 40.0
    trial = make_trial(chest(), hu)
    assert {metric.name: metric.of(trial) for metric in METRICS} == {
        "dice_lungs": pytest.approx(6 / 7), "dice_heart": None, "dice_aorta": None, "dice_liver": None,
        "dice_spine": None, "dice_ribs": None,
    }  # fmt: skip
    assert len(asked) == 2
    again = make_trial(chest(), hu + 1)  # another reconstruction, and the truth read anew
    assert again.case.volume is not trial.case.volume
    assert METRICS[0].of(again) is not None
    assert len(asked) == 3
    monkeypatch.setattr("voxray.evaluation.organs.MOST_KEPT", 3)
    assert METRICS[0].of(make_trial(chest(), hu + 2)) is not None
    assert METRICS[0].of(trial) is not None
    assert len(asked) == 6  # the oldest made room: two are found again


def test_organs_are_computed_only_where_they_are_asked_for(asked: list[Any]) -> None:
    names = {metric.name for metric in METRICS}
    assert names.isdisjoint(metric.name for metric in select())
    assert {metric.name for metric in select(["organs"])} == names
    assert [metric.name for metric in select(["dice_heart", "psnr3d"])] == ["psnr3d", "dice_heart"]
    assert metric_named("dice_heart") in METRICS


@pytest.mark.parametrize("name", ["organs", "dice_liver"])
def test_T3_asked_for_without_totalsegmentator_is_refused_before_anything_is_done(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, "totalsegmentator", None)
    with pytest.raises(InputError, match=r"needs TotalSegmentator.*pip install TotalSegmentator"):
        select([name])
    assert metric_named("dice_liver") is not None  # a report needs no more than its name


def test_T3_where_it_is_not_installed_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "totalsegmentator", None)
    volume = CTVolume(chest(), GRID)
    with pytest.raises(InputError, match=r"needs TotalSegmentator.*pip install TotalSegmentator.*dice_lung"):
        organ_dice(volume, volume)
