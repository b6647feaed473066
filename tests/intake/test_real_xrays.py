"""Real radiographs: chests are taken in, limbs are refused. The files lie beside the checkout, else all is skipped."""

import warnings
from pathlib import Path

import pytest

from voxray.errors import VoxrayWarning
from voxray.geometry import VolumeGrid
from voxray.images.read_xray import read_radiograph
from voxray.intake import Intake, NoChestError, refuse_others, take_in

GRID = VolumeGrid.centred()


def taken_in(path: Path, view: str | None) -> Intake:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VoxrayWarning)
        return take_in(read_radiograph([path], views=[view] if view else None), GRID)


@pytest.mark.parametrize("name", ["RG3_J2KR", "RG3_JPLL", "RG3_RLE"])
def test_limbs_are_refused(shared_data: Path, name: str) -> None:
    found = taken_in(shared_data / "xray_dicom" / f"{name}.dcm", None)
    with pytest.raises(NoChestError, match="does not look like a chest"):
        refuse_others(found.findings, [name])


@pytest.mark.parametrize(
    ("name", "view"),
    [("CR-MONO1-10-chest", None), ("RG1_JLSN", None), ("rsna_6904", None), ("nih_nhsx", "pa"), ("Fake_MONOHR1", None)],
)
def test_chests_are_taken_and_a_wrong_photometric_tag_is_noticed(
    shared_data: Path, name: str, view: str | None
) -> None:
    found = taken_in(shared_data / "xray_dicom" / f"{name}.dcm", view)
    refuse_others(found.findings, [name])
    sighting = found.findings[0].sighting
    assert sighting.looks_inverted == (name == "Fake_MONOHR1")
    assert not sighting.looks_mirrored
    rows, columns = found.views.shapes[0]
    shown_mm = max(rows, columns) * abs(found.views.u_mm[0]).max() * 1550 / 1800
    assert 240 < shown_mm < 520, "also where the tags call the pixels of a shrunk image too small"


@pytest.mark.slow
def test_all_pictures_of_chests_are_taken(shared_data: Path) -> None:
    for path in sorted((shared_data / "xray").glob("*.png")):
        lateral = path.stem.endswith("_L")
        found = taken_in(path, "lateral" if lateral else "pa")
        refuse_others(found.findings, [path.name])
        sighting = found.findings[0].sighting
        assert not sighting.looks_inverted, path.name
        if lateral:  # all but one are shown with the front at the left, as PROVENANCE.csv says
            assert sighting.faces_other_way == (path.name != "c0299_L.png")
