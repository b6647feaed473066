"""Splits: by patient, stable, and as told."""

from collections import Counter
from pathlib import Path

import pytest

from voxray.data.inputs import Scan
from voxray.data.split import Row, assign_splits, read_table
from voxray.errors import InputError, VoxrayWarning


def scans(patients: list[str]) -> list[Scan]:
    return [Scan(f"scan{i}", patient, Path(f"{i}.nii"), None, ()) for i, patient in enumerate(patients)]


def test_a_patient_is_never_in_two_splits() -> None:
    many = scans([f"p{i % 150}" for i in range(400)])
    splits = assign_splits(many)
    by_patient: dict[str, set[str]] = {}
    for scan in many:
        by_patient.setdefault(scan.patient, set()).add(splits[scan.id])
    assert all(len(names) == 1 for names in by_patient.values())
    assert set(splits.values()) == {"train", "val", "test"}


def test_fractions_are_kept_on_average_and_do_not_depend_on_the_others() -> None:
    many = scans([f"p{i}" for i in range(2000)])
    splits = assign_splits(many, fractions={"train": 0.5, "rest": 0.5})
    assert Counter(splits.values())["train"] == pytest.approx(1000, abs=100)
    assert assign_splits(many[:10], fractions={"train": 0.5, "rest": 0.5}).items() <= splits.items()
    with pytest.raises(InputError, match="add up to 1"):
        assign_splits(many, fractions={"train": 0.5})


def test_lidc916_has_the_published_sizes_and_keeps_patients_together() -> None:
    lidc = scans([f"LIDC-IDRI-{i:04}" for i in range(1, 1011)] + [f"LIDC-IDRI-{i:04}" for i in range(1, 9)])
    splits = assign_splits(lidc, protocol="lidc916")
    assert Counter(splits.values()) == {"train": 916, "test": 102}
    assert all(splits[f"scan{i}"] == splits[f"scan{i + 1010}"] for i in range(8))


def test_lidc916_says_when_the_scans_are_not_all_of_lidc() -> None:
    with pytest.warns(VoxrayWarning, match="1018 scans"):
        splits = assign_splits(scans([f"p{i}" for i in range(100)]), protocol="lidc916")
    assert Counter(splits.values())["test"] == 10


def test_a_table_stands_above_the_rule_and_may_not_split_a_patient() -> None:
    two = scans(["p", "p"])
    assert assign_splits(two, {"scan0": Row("val")}) == {"scan0": "val", "scan1": "val"}
    with pytest.raises(InputError, match=r"one patient .*scan0, scan1.*'train', 'val'"):
        assign_splits(two, {"scan0": Row("val"), "scan1": Row("train")})


def test_a_table_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,split,licence_class,iso_x,iso_y,iso_z\na,train,open,1,-2.5,3\nb,val,,,,\n")
    assert read_table(path) == {"a": Row("train", "", "open", (1.0, -2.5, 3.0)), "b": Row("val")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name\na\n", "column 'id'"),
        ("", "column 'id'"),
        ("id\na\na\n", "twice"),
        ("id,iso_x,iso_y,iso_z\na,1,,3\n", "not three numbers"),
        ("id,iso_x,iso_y,iso_z\na,1,x,3\n", "not three numbers"),
    ],
)
def test_I13_a_bad_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_table(path)
