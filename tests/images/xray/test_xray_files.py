"""X-rays in folders, zips and studies as hospitals export them."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from voxray.errors import InputError, VoxrayWarning
from voxray.images.xray_files import exported_study, unzipped, xray_files

MakeXray = Callable[..., Path]


def test_files_are_told_by_suffix_or_by_the_mark_of_dicom(tmp_path: Path, make_xray: MakeXray) -> None:
    (tmp_path / "notes.txt").write_text("no X-ray")
    (tmp_path / "README").write_text("no X-ray")
    (tmp_path / ".hidden.png").write_bytes(b"x")
    named = [make_xray(name) for name in ("a.dcm", "IM000001", "1.2.840.113")]
    assert sorted(xray_files(sorted(tmp_path.iterdir()))) == sorted(named)


def test_other_objects_among_xrays_are_left_out_and_it_is_said(make_xray: MakeXray) -> None:
    good, report = make_xray("a"), make_xray("b", Modality="SR")
    with pytest.warns(VoxrayWarning, match="b is left out: it is no X-ray, but SR"):
        assert xray_files([good, report]) == [good]
    assert xray_files([report]) == [report], "alone it is for the reader to refuse"


def test_nested_folders_of_one_study_are_one_patient(tmp_path: Path, make_xray: MakeXray) -> None:
    for folder in ("s1", "s2"):
        (tmp_path / folder).mkdir()
    files = [make_xray("s1/IM1", StudyInstanceUID="1.2"), make_xray("s2/IM1", StudyInstanceUID="1.2")]
    assert exported_study(tmp_path) == files
    other = make_xray("s2/IM1", StudyInstanceUID="1.3")
    assert exported_study(tmp_path) is None, "two studies are two patients"
    (tmp_path / "DICOMDIR").write_bytes(b"x")
    assert exported_study(tmp_path) == [files[0], other], "but for the medium of one"


def test_M3_a_zip_is_read_under_names_of_ours(tmp_path: Path, make_xray: MakeXray) -> None:
    one = make_xray("one.dcm")
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for name in ("DICOM/pa.dcm", "../../evil/lateral.dcm", "__MACOSX/pa.dcm", "notes.txt"):
            archive.write(one, name) if name.endswith("dcm") else archive.writestr(name, "text")
    with unzipped([tmp_path / "study.zip", one]) as files:
        assert [called for _, called in files] == [
            tmp_path / "study.zip" / "pa.dcm", tmp_path / "study.zip" / "lateral.dcm", one,
        ]  # fmt: skip
        assert all(place.read_bytes() == one.read_bytes() for place, _ in files)
        folder = files[0][0].parents[2]
        assert all(place.is_relative_to(folder) for place, _ in files[:2])
    assert not folder.exists()
    assert not (tmp_path.parents[1] / "evil").exists()


def test_M3_zips_without_xrays_and_errors_inside_name_the_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("a.txt", "text")
    with pytest.raises(InputError, match=r"empty\.zip' holds no X-ray files"), unzipped([tmp_path / "empty.zip"]):
        pass
