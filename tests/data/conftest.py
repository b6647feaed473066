"""CTs that several tests prepare."""

from pathlib import Path

import pytest
from ct_maker import chest, save


@pytest.fixture
def cts(tmp_path: Path) -> Path:
    folder = tmp_path / "cts"
    save(chest(couch_gap_mm=10)[0], folder / "a.nii.gz")
    save(chest(origin_mm=(0, 0, 0))[0], folder / "sub dir" / "b ä.mha")
    save(chest((5, 5, 8))[0], folder / "c.nrrd")
    return folder
