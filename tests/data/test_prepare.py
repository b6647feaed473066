"""`prepare`: any mix of inputs, by patient, resumed after a kill, one bad file at a time."""

import csv
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ct_maker import chest, save, save_dicom, small

from voxray.data.options import PrepareOptions
from voxray.data.prepare import PrepareSummary, prepare
from voxray.data.store import Store
from voxray.errors import InputError, VoxrayWarning


def test_folders_give_centred_masked_cubes(cts: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    summary = prepare([cts], tmp_path / "s", small(), lambda done, total: calls.append((done, total)))
    assert sorted(summary.made) == ["a", "b", "c"]
    assert (summary.failed, summary.exit_code) == ({}, 0)
    assert calls == [(0, 3), (1, 3), (2, 3), (3, 3)]
    store = Store.open(tmp_path / "s")
    case = store.load("a")
    assert case.volume.grid.shape == (32, 32, 32)
    assert case.isocentre_mm == pytest.approx(np.array([-30, 120, -400]) + np.array([200, 120, 170]), abs=6)
    assert case.volume.grid.centre_mm == pytest.approx(case.isocentre_mm)
    assert case.volume.hu.min() == -1024
    assert case.scan.hu.max() == 40, "the couch, 100 HU, is gone"
    assert case.scan.grid.spacing_mm == pytest.approx([5, 5, 5])
    assert case.scan.grid.shape[0] == 60
    assert case.scan.grid.shape[1] < 60
    low, high = case.record.padding[0]  # 320 mm about z = 170, the scan reaches from 0 to 300
    assert (low, high) == (0, 3)
    assert (case.volume.hu[-high:] == -1024).all()
    assert (case.volume.hu[-high - 2] > -1024).any()


def test_one_bad_file_does_not_stop_the_others(cts: Path, tmp_path: Path) -> None:
    (cts / "broken.nii.gz").write_bytes(b"not a volume")
    save(chest(lungs=False)[0], cts / "abdomen.nii.gz")
    summary = prepare([cts], tmp_path / "s", small())
    assert sorted(summary.made) == ["a", "b", "c"]
    assert summary.exit_code == 2
    failed = {Path(path).name: message for path, message in summary.failed.items()}
    assert set(failed) == {"broken.nii.gz", "abdomen.nii.gz"}
    assert "No lungs" in failed["abdomen.nii.gz"]
    assert Store.open(tmp_path / "s").cases() == ["a", "b", "c"]


def test_what_is_done_is_kept_and_what_changed_is_done_again(cts: Path, tmp_path: Path) -> None:
    prepare([cts], tmp_path / "s", small())
    again = prepare([cts], tmp_path / "s", small())
    assert (sorted(again.kept), again.made) == (["a", "b", "c"], [])
    save(chest((4, 4, 8))[0], cts / "c.nrrd")
    changed = prepare([cts], tmp_path / "s", small())
    assert (sorted(changed.kept), changed.made) == (["a", "b"], ["c"])
    other = prepare([cts], tmp_path / "s", small(body_mask="none"))
    assert sorted(other.made) == ["a", "b", "c"]


def test_other_options_do_not_mix_in_one_store(cts: Path, tmp_path: Path) -> None:
    prepare([cts / "a.nii.gz"], tmp_path / "s", small())
    with pytest.raises(InputError, match="other options"):
        prepare([cts / "c.nrrd"], tmp_path / "s", small(spacing_mm=8.0))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(InputError, match="is no store"):
        prepare([cts], tmp_path / "mine", small())
    with pytest.raises(InputError, match="There is no file or folder"):
        prepare([tmp_path / "nothing"], tmp_path / "s2", small())


def test_a_dicom_tree_like_lidc_is_prepared_with_one_command(tmp_path: Path) -> None:
    tree = tmp_path / "LIDC-IDRI"
    for number in (1, 2):
        patient = f"LIDC-IDRI-{number:04}"
        save_dicom(chest((8, 8, 10))[0], tree / patient / "study" / "ct", patient=patient)
        save_dicom(chest((8, 8, 10))[0], tree / patient / "study2" / "dx", patient=patient, modality="DX", slices=1)
    save_dicom(chest((8, 8, 10))[0], tree / "LIDC-IDRI-0002" / "study3" / "ct", patient="LIDC-IDRI-0002")
    (tree / "LICENSE").write_text("CC BY")
    with pytest.warns(UserWarning, match="1018 scans"):
        summary = prepare([tree], tmp_path / "s", small(protocol="lidc916"))
    assert len(summary.made) == 3
    assert summary.failed == {}
    assert all("DX" in reason for reason in summary.skipped.values())
    assert len(summary.skipped) == 2
    store = Store.open(tmp_path / "s")
    assert sorted(record.patient for record in store.records.values()) == ["LIDC-IDRI-0001", *["LIDC-IDRI-0002"] * 2]


def test_a_damaged_slice_fails_its_folder_alone(tmp_path: Path) -> None:
    save_dicom(chest((8, 8, 10))[0], tmp_path / "in" / "p1", patient="p1")
    save_dicom(chest((8, 8, 10))[0], tmp_path / "in" / "p2", patient="p2")
    (tmp_path / "in" / "p2" / "007.dcm").write_bytes(b"cut")
    summary = prepare([tmp_path / "in"], tmp_path / "s", small())
    assert [name.split("_")[0] for name in summary.made] == ["p1"]
    assert [Path(path).name for path in summary.failed] == ["p2"]


def test_a_zip_of_two_patients_gives_two_cases(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        save_dicom(chest((8, 8, 10))[0], tmp_path / "in" / patient, patient=patient)
    archive = shutil.make_archive(str(tmp_path / "both"), "zip", tmp_path / "in")
    summary = prepare([Path(archive)], tmp_path / "s", small())
    assert sorted(name.split("_")[0] for name in summary.made) == ["p1", "p2"]


def test_files_of_the_same_name_get_different_ids(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        save(chest((8, 8, 10))[0], tmp_path / folder / "ct.nii")
    summary = prepare([tmp_path / "x", tmp_path / "y", tmp_path / "y" / "ct.nii"], tmp_path / "s", small())
    assert len(summary.made) == len(set(summary.made)) == 2


def test_a_table_gives_split_isocentre_patient_and_licence(cts: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text(
        "id,split,patient,licence,iso_x,iso_y,iso_z\na,val,p,CC0,170,240,-250\nb,val,p,,,,\nc,train,q,,,,\n"
    )
    prepare([cts], tmp_path / "s", small(table=table))
    store = Store.open(tmp_path / "s")
    assert store.cases("val") == ["a", "b"]
    record = store.records["a"]
    assert (record.patient, record.licence, record.isocentre_mm) == ("p", "CC0", (170.0, 240.0, -250.0))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"centre": "scan"}, (167.5, 267.5, -252.5)),
        ({"centre": (150.0, 230.0, -240.0)}, (150, 230, -240)),
        ({"box": (100, 200, -300, 200, 250, -200)}, (150, 225, -250)),
        ({"centre": "body"}, (170, 240, -252.5)),
    ],
)
def test_other_regions_are_centred_as_told(
    tmp_path: Path, changes: dict[str, object], expected: tuple[float, ...]
) -> None:
    file = save(chest(lungs=False)[0], tmp_path / "a.nii")
    prepare([file], tmp_path / "s", small(**changes))
    assert Store.open(tmp_path / "s").load("a").isocentre_mm == pytest.approx(expected, abs=6)


def test_masks_from_files_stand_in_for_the_body_and_the_centre(tmp_path: Path) -> None:
    volume, body = chest((5, 5, 5), lungs=False)
    mask = np.zeros(body.shape, np.float32)
    mask[10:20, 20:30, 30:50] = 1
    file = save(volume, tmp_path / "a.nii")
    save(type(volume)(torch.from_numpy(mask), volume.grid), tmp_path / "masks" / "a.nii.gz")
    options = small(body_mask=tmp_path / "masks", centre_mask=tmp_path / "masks" / "a.nii.gz")
    prepare([file], tmp_path / "s", options)
    case = Store.open(tmp_path / "s").load("a")
    assert case.isocentre_mm == pytest.approx(volume.grid.index_to_mm((39.5, 24.5, 14.5)), abs=1e-6)
    assert case.scan.grid.shape == (10, 10, 20)
    (tmp_path / "masks" / "a.nii.gz").rename(tmp_path / "masks" / "z.nii.gz")
    assert "no mask for 'a'" in " ".join(prepare([file], tmp_path / "s2", options).failed.values())


def test_a_centre_outside_the_scan_is_refused(tmp_path: Path) -> None:
    file = save(chest()[0], tmp_path / "a.nii")
    summary = prepare([file], tmp_path / "s", small(centre=(9000.0, 0.0, 0.0)))
    assert "lies outside the scan" in summary.failed[str(file)]


@pytest.mark.parametrize(
    "changes",
    [{"pipeline": "y"}, {"centre": "heart"}, {"body_mask": "x"}, {"shape": (1, 1, 1)}, {"workers": -1},
     {"centre": "body", "box": (0, 0, 0, 1, 1, 1)}, {"spacing_mm": float("nan")}, {"protocol": "x"},
     {"shape": (8, 8, 1025)}, {"pipeline": "x2ct", "centre": "body"}, {"pipeline": "x2ct", "spacing_mm": 2.0},
     {"pipeline": "x2ct", "box": (0, 0, 0, 1, 1, 1)}, {"pipeline": "x2ct", "centre_mask": Path("m.nii")}],
)  # fmt: skip
def test_I13_impossible_options_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InputError):
        small(**changes)


def test_the_whole_scan_can_be_kept_coarser(tmp_path: Path) -> None:
    file = save(chest((2.5, 2.5, 5.0))[0], tmp_path / "a.nii")
    prepare([file], tmp_path / "s", small(finest_mm=5.0))
    fine = save(chest((5.0, 5.0, 5.0))[0], tmp_path / "b" / "a.nii")
    prepare([fine], tmp_path / "s2", small())
    coarse, own = (Store.open(tmp_path / name).load("a").scan for name in ("s", "s2"))
    assert coarse.grid.spacing_mm == pytest.approx([5, 5, 5])
    mass = [float((scan.hu + 1024).sum()) for scan in (coarse, own)]
    assert mass[0] == pytest.approx(mass[1], rel=0.05)


def test_I13_x2ct_says_that_it_leaves_out_the_isocentres(tmp_path: Path) -> None:
    save(chest((8, 8, 10))[0], tmp_path / "in" / "a.nii")
    (tmp_path / "t.csv").write_text("id,iso_x,iso_y,iso_z\na,170,240,-250\n")
    with pytest.warns(VoxrayWarning, match=r"t\.csv' are not used: the pipeline x2ct"):
        prepare([tmp_path / "in"], tmp_path / "s", small(pipeline="x2ct", table=tmp_path / "t.csv"))


@pytest.mark.slow
def test_x2ct_is_a_named_pipeline(tmp_path: Path) -> None:
    file = save(chest((8, 8, 10))[0], tmp_path / "a.nii")
    prepare([file], tmp_path / "s", small(pipeline="x2ct"))
    case = Store.open(tmp_path / "s").load("a")
    assert case.volume.grid.size_mm == pytest.approx([320, 320, 320], rel=0.02)


def test_processes_give_what_one_process_gives(cts: Path, tmp_path: Path) -> None:
    prepare([cts], tmp_path / "one", small())
    summary = prepare([cts], tmp_path / "two", small(workers=2))
    assert sorted(summary.made) == ["a", "b", "c"]
    for name in "abc":
        first, second = (Store.open(tmp_path / folder).load(name) for folder in ("one", "two"))
        assert first.record == second.record
        assert torch.equal(first.volume.hu, second.volume.hu)
        assert torch.equal(first.scan.hu, second.scan.hu)


def test_warnings_of_workers_are_handed_back(tmp_path: Path) -> None:
    volume, _ = chest()
    volume.hu[0, 0, 0] = -3024
    file = save(volume, tmp_path / "a.nii")
    assert "a" in prepare([file], tmp_path / "s", small()).warnings


def test_a_full_disk_stops_the_run(cts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(Exception, match="No space left") as caught:
        prepare([cts], tmp_path / "s", small())
    assert getattr(caught.value, "exit_code", None) == 4
    assert Store.open(tmp_path / "s").cases() == []


def test_a_scheduler_that_is_not_there_is_an_input_error(cts: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="scheduler"):
        prepare([cts], tmp_path / "s", small(scheduler="not an address"))


def test_without_dask_the_message_names_the_extra(cts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"voxray\[cluster\]"):
        prepare([cts], tmp_path / "s", small(scheduler="tcp://127.0.0.1:1"))


@pytest.mark.slow
def test_a_dask_cluster_gives_what_one_process_gives(cts: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:
        summary = prepare([cts], tmp_path / "s", small(scheduler=cluster.scheduler_address))
    assert sorted(summary.made) == ["a", "b", "c"]


@pytest.mark.slow
def test_all_shared_scans_are_prepared(shared_data: Path, tmp_path: Path) -> None:
    options = PrepareOptions(table=shared_data / "ct" / "SPLIT.csv", workers=2, centre="body")
    summary: PrepareSummary = prepare([shared_data / "ct"], tmp_path / "s", options)
    assert summary.failed == {}
    assert summary.splits == {"train": 17, "val": 6, "extra": 11}
    with (shared_data / "ct" / "SPLIT.csv").open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    for name, record in Store.open(tmp_path / "s").records.items():
        if rows[name]["iso_x"]:
            assert record.isocentre_mm == pytest.approx([float(rows[name][f"iso_{a}"]) for a in "xyz"])
