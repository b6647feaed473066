"""The store: what it holds, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from voxray.data.store import Case, CaseRecord, Store, case_path, read_grid, write_case, write_manifest
from voxray.errors import InputError
from voxray.geometry import VolumeGrid
from voxray.images import CTVolume


def make_case(name: str, split: str = "train") -> Case:
    record = CaseRecord(
        name, f"patient of {name}", split, "CC BY 4.0", "s.nii", "ab", (1.0, -2.5, 1e-3), ((0, 1), (2, 3), (4, 5)),
        "stamp", "options",
    )  # fmt: skip
    rng = torch.Generator().manual_seed(len(name))
    grids = (
        VolumeGrid.centred((1.0, -2.5, 1e-3), (9, 8, 10)),
        VolumeGrid.centred((3, 1, 4), (12, 11, 13), (0.7, 0.7, 5)),
    )
    volumes = [CTVolume(torch.randint(-1024, 3000, g.shape, generator=rng), g) for g in grids]
    return Case(record, volumes[0], volumes[1])


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "cases").mkdir()
    cases = [make_case("b", "val"), make_case("a"), make_case("cc")]
    for case in cases:
        write_case(case_path(tmp_path, case.id), case)
    write_manifest(tmp_path, {"spacing_mm": 2.5}, {case.id: case.record for case in cases})
    return tmp_path


def test_a_case_comes_back_as_it_was(store: Path) -> None:
    case, loaded = make_case("cc"), Store.open(store).load("cc")
    assert loaded.record == case.record
    assert loaded.volume.grid == case.volume.grid
    assert loaded.scan.grid == case.scan.grid
    assert torch.equal(loaded.volume.hu, case.volume.hu)
    assert torch.equal(loaded.scan.hu, case.scan.hu)
    assert np.array_equal(loaded.isocentre_mm, [1.0, -2.5, 1e-3])


def test_the_grid_of_a_case_is_read_about_its_isocentre(store: Path) -> None:
    assert read_grid(case_path(store, "cc")) == VolumeGrid.centred(shape=(9, 8, 10))


def test_cases_are_listed_by_split(store: Path) -> None:
    opened = Store.open(store)
    assert opened.cases() == ["a", "b", "cc"]
    assert opened.cases("train") == ["a", "cc"]
    with pytest.raises(InputError, match=r"no split 'test'; it has train, val"):
        opened.cases("test")
    with pytest.raises(InputError, match="no case 'x'"):
        opened.load("x")


def test_a_missing_manifest_is_made_up_for(store: Path) -> None:
    with_manifest = Store.open(store).records
    (store / "manifest.json").unlink()
    (store / "cases" / ".voxray-tmp-1234-x.safetensors").write_bytes(b"half")
    assert Store.open(store).records == with_manifest


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 99, "cases": []}', '{"version": 1, "cases": [{"id": "a"}]}'])
def test_I13_a_bad_manifest_is_refused(store: Path, text: str) -> None:
    (store / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json"):
        Store.open(store)


def test_I13_ids_in_a_manifest_cannot_leave_the_store(store: Path) -> None:
    manifest = store / "manifest.json"
    data = json.loads(manifest.read_text())
    data["cases"][0]["id"] = "../../etc"
    manifest.write_text(json.dumps(data))
    with pytest.raises(InputError, match="no valid record"):
        Store.open(store)


def test_a_case_that_is_missing_is_named(store: Path) -> None:
    case_path(store, "b").unlink()
    with pytest.raises(InputError, match="lacks the cases b"):
        Store.open(store)


def test_I2_a_truncated_case_is_refused_at_every_length(store: Path) -> None:
    file = case_path(store, "a")
    whole, opened = file.read_bytes(), Store.open(store)
    for percent in range(0, 100, 5):
        file.write_bytes(whole[: len(whole) * percent // 100])
        with pytest.raises(InputError, match=r"a\.safetensors"):
            opened.load("a")
        with pytest.raises(InputError, match=r"a\.safetensors"):
            read_grid(file)


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no store"):
        Store.open(tmp_path)
