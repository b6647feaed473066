"""What an X-ray shows is held against what the model is for."""

from pathlib import Path

import pytest
import torch

import voxray.api
from voxray.errors import VoxrayWarning
from voxray.geometry import ViewGeometry
from voxray.images import Origin, Radiograph


def _radiograph(body_part: str) -> Radiograph:
    views = ViewGeometry.from_names(["pa"]).resized([(32, 32)])
    image = torch.linspace(0, 3, 32).expand(32, 32)
    return Radiograph((image,), views, origins=(Origin(Path("a.dcm"), body_part=body_part),))


def test_I3_another_part_of_the_body_is_warned_about_and_reported() -> None:
    radiograph = _radiograph("EXTREMITY")
    with pytest.warns(VoxrayWarning, match="EXTREMITY"):
        result = voxray.api.reconstruct(radiograph, model="atlas")
    assert any("EXTREMITY" in warning for warning in result.report.warnings)


@pytest.mark.parametrize("body_part", ["", "CHEST", "chest"])
def test_I3_a_chest_or_nothing_said_is_not_warned_about(body_part: str) -> None:
    assert voxray.api.reconstruct(_radiograph(body_part), model="atlas").report.warnings == []


def test_I5_a_field_of_view_too_small_for_a_chest_is_warned_about() -> None:
    views = ViewGeometry.from_names(["pa"]).resized([(32, 32)])
    small = ViewGeometry(views.source_mm, views.centre_mm, views.u_mm * 0.4, views.v_mm * 0.4, views.shapes)
    image = torch.linspace(0, 255, 32).expand(32, 32)
    with pytest.warns(VoxrayWarning) as caught:
        voxray.api.reconstruct(Radiograph((image,), small, "display"), model="atlas")
    assert any("--pixel-mm" in str(warning.message) for warning in caught)
    with pytest.warns(VoxrayWarning) as caught:
        voxray.api.reconstruct(Radiograph((image,), views, "display"), model="atlas")
    assert not any("--pixel-mm" in str(warning.message) for warning in caught)
