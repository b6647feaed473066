"""Dice of organs by TotalSegmentator; the tests have a stand-in, since it is not installed with voxray."""

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from trial_maker import GRID, LUNGS, chest

from voxray.errors import InputError
from voxray.evaluation.organs import organ_dice
from voxray.images import CTVolume

nibabel = pytest.importorskip("nibabel")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stand in for TotalSegmentator: air at the patient's right is label 1, at the left 2; label 3 is never found."""
    images: list[Any] = []

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


def test_T3_where_it_is_not_installed_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "totalsegmentator", None)
    volume = CTVolume(chest(), GRID)
    with pytest.raises(InputError, match=r"needs TotalSegmentator.*pip install TotalSegmentator.*dice_lung"):
        organ_dice(volume, volume)
