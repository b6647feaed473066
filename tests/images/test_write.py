"""Promises O2 and O3: what is written is valid, says what it is, and stands where it stood."""

import shutil
import subprocess
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from voxray.errors import InputError
from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.images import CTVolume, Origin, Radiograph
from voxray.images.disclaimer import SYNTHETIC
from voxray.images.read_ct import read_ct
from voxray.images.write_dicom import write_dicom_series
from voxray.images.write_volume import FORMATS, write_volume

TOLERANCE_MM = 1e-4
DX = "1.2.840.10008.5.1.4.1.1.1.1"


@st.composite
def grids(draw: st.DrawFn) -> VolumeGrid:
    """Any place, rotation and handedness; 3 x 4 x 5 voxels that span up to 320 mm."""
    turn = Rotation.from_euler("zyx", [draw(st.floats(-180, 180)) for _ in range(3)], degrees=True)
    flips = np.array([draw(st.sampled_from([-1, 1])) for _ in range(3)])
    affine = np.eye(4)
    affine[:3, :3] = turn.as_matrix() * flips * [draw(st.floats(0.3, 80)) for _ in range(3)]
    affine[:3, 3] = [draw(st.floats(-500, 500)) for _ in range(3)]
    return VolumeGrid((3, 4, 5), affine)


UPRIGHT = VolumeGrid.centred((3.0, -150.0, 1210.5), (3, 4, 5), (0.7, 0.8, 2.5))


def volume_on(grid: VolumeGrid) -> CTVolume:
    """Every voxel has a value of its own: no flip, swap or shift goes unseen."""
    return CTVolume(torch.arange(np.prod(grid.shape)).reshape(grid.shape) * 7.0 - 900, grid)


def origin(number: int) -> Origin:
    return Origin(
        Path("/archive/Müller_Anna/pa.dcm"),
        DX,
        f"1.2.3.{number}",
        "1.2.3",
        "PID-77",
        "Müller^Anna",
        "20210304",
    )


def radiograph() -> Radiograph:
    views = ViewGeometry.biplanar().resized([(4, 5), (4, 5)])
    return Radiograph((torch.zeros(4, 5), torch.zeros(4, 5)), views, origins=(origin(1), origin(2)))


def grid_of(image: sitk.Image) -> VolumeGrid:
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return VolumeGrid(image.GetSize()[::-1], affine)


def read(path: Path) -> CTVolume:
    if path.is_dir():
        image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path)))
    else:
        image = sitk.ReadImage(str(path))
    return CTVolume(torch.from_numpy(sitk.GetArrayFromImage(image)).float(), grid_of(image))


def assert_same_place(written: CTVolume, found: CTVolume) -> None:
    """Compare every voxel at its place in the patient; a file may store the slices in the other order."""
    k, j, i = np.indices(found.grid.shape).reshape(3, -1)
    places = found.grid.index_to_mm(np.stack([i, j, k], 1))
    there = written.grid.mm_to_index(places)
    x, y, z = np.rint(there).astype(int).T
    assert np.abs(written.grid.index_to_mm(np.stack([x, y, z], 1)) - places).max() < TOLERANCE_MM
    np.testing.assert_array_equal(written.hu.numpy()[z, y, x], found.hu.numpy()[k, j, i])
    corners = written.grid.corners_mm()[:, None] - found.grid.corners_mm()[None]
    assert np.linalg.norm(corners, axis=2).min(1).max() < TOLERANCE_MM


@pytest.mark.parametrize("suffix", FORMATS)
@given(grid=grids())
def test_O3_a_volume_keeps_its_place_in_every_format(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, grid: VolumeGrid
) -> None:
    path = tmp_path_factory.mktemp("out") / f"ct{suffix}"
    write_volume(volume_on(grid), path)
    assert read(path).grid.shape == grid.shape
    assert_same_place(volume_on(grid), read(path))


@given(grid=grids())
@settings(max_examples=25)
def test_O3_a_dicom_series_keeps_its_place(tmp_path_factory: pytest.TempPathFactory, grid: VolumeGrid) -> None:
    folder = tmp_path_factory.mktemp("out") / "series"
    write_dicom_series(volume_on(grid), folder)
    assert_same_place(volume_on(grid), read(folder))


@given(grid=grids())
@settings(max_examples=25)
def test_O3_geometry_survives_dicom_nifti_dicom(tmp_path_factory: pytest.TempPathFactory, grid: VolumeGrid) -> None:
    folder, first = tmp_path_factory.mktemp("out"), volume_on(grid)
    write_dicom_series(first, folder / "one")
    write_volume(read(folder / "one"), folder / "two.nii.gz")
    write_dicom_series(read(folder / "two.nii.gz"), folder / "three")
    assert_same_place(first, read(folder / "three"))


@given(grid=grids())
def test_O3_nibabel_and_simpleitk_open_the_same_volume(
    tmp_path_factory: pytest.TempPathFactory, grid: VolumeGrid
) -> None:
    path = tmp_path_factory.mktemp("out") / "ct.nii.gz"
    write_volume(volume_on(grid), path)
    image = nibabel.load(path)
    lps_from_ras = np.diag([-1.0, -1, 1, 1])
    # The qform is a quaternion in float32, one part of which is the root of what the others leave: less exact.
    less_mm = 0.002 * float(grid.size_mm.max())
    affines = [(image.affine, TOLERANCE_MM), (image.get_sform(), TOLERANCE_MM), (image.get_qform(), 0.1 + less_mm)]
    for affine, tolerance in affines:
        corners = VolumeGrid(grid.shape, lps_from_ras @ affine).corners_mm()
        assert np.abs(corners - grid.corners_mm()).max() < tolerance
    np.testing.assert_array_equal(image.get_fdata().transpose(2, 1, 0), volume_on(grid).hu.numpy())
    assert SYNTHETIC in bytes(image.header["descrip"]).decode()


@pytest.mark.parametrize(("suffix", "key"), [(".nii", "descrip"), (".nrrd", "Description"), (".mha", "Description")])
def test_O2_every_format_says_that_the_volume_is_synthetic(tmp_path: Path, suffix: str, key: str) -> None:
    write_volume(volume_on(UPRIGHT), tmp_path / f"ct{suffix}")
    assert sitk.ReadImage(str(tmp_path / f"ct{suffix}")).GetMetaData(key).startswith(SYNTHETIC)


def test_O3_hounsfield_units_are_rounded_and_clipped_or_kept(tmp_path: Path) -> None:
    grid = VolumeGrid.centred(shape=(1, 1, 5))
    volume = CTVolume(torch.tensor([-1000.6, -0.4, 40.6, 1e6, -1e6]).reshape(1, 1, 5), grid)
    write_volume(volume, tmp_path / "a.nii.gz")
    assert read(tmp_path / "a.nii.gz").hu.flatten().tolist() == [-1001, 0, 41, 32767, -32768]
    write_volume(volume, tmp_path / "b.nii.gz", dtype="float32")
    assert torch.equal(read(tmp_path / "b.nii.gz").hu, volume.hu)
    write_dicom_series(volume, tmp_path / "c")
    assert read(tmp_path / "c").hu.flatten().tolist() == [-1001, 0, 41, 64511, -1024]


def _nifti(path: Path, **options: bool) -> None:
    write_volume(volume_on(UPRIGHT), path / "ct.nii.gz", **options)


def _dicom(path: Path, **options: bool) -> None:
    write_dicom_series(volume_on(UPRIGHT), path / "ct", **options)


@pytest.mark.parametrize("write", [_nifti, _dicom])
def test_I12_a_result_is_overwritten_only_when_told(tmp_path: Path, write: Callable[..., None]) -> None:
    write(tmp_path)
    with pytest.raises(InputError, match="exists already"):
        write(tmp_path)
    write(tmp_path, overwrite=True)
    assert len(list(tmp_path.iterdir())) == 1


def test_I12_a_folder_with_other_files_is_never_replaced_by_a_series(tmp_path: Path) -> None:
    (tmp_path / "ct").mkdir()
    (tmp_path / "ct" / "IM0001.dcm").write_text("the user's own scan")
    with pytest.raises(InputError, match=r"IM0001\.dcm"):
        _dicom(tmp_path, overwrite=True)
    assert [path.name for path in (tmp_path / "ct").iterdir()] == ["IM0001.dcm"]


@pytest.mark.parametrize("name", ["ct", "ct.dcm", "ct.nii.bz2", "ct.gz"])
def test_I12_an_unknown_format_names_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"\.nii\.gz, \.nii, \.nrrd, \.mha"):
        write_volume(volume_on(UPRIGHT), tmp_path / name)
    with pytest.raises(InputError, match="'int16' or 'float32'"):
        write_volume(volume_on(UPRIGHT), tmp_path / "a.nii", dtype="uint8")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.fixture
def series(tmp_path: Path) -> list[pydicom.Dataset]:
    write_dicom_series(
        volume_on(UPRIGHT), tmp_path / "s", radiograph=radiograph(), description="atlas\\" + "long " * 20
    )
    return [pydicom.dcmread(file) for file in sorted((tmp_path / "s").iterdir())]


def every_value(dataset: pydicom.Dataset) -> list[object]:
    return [element.value for element in dataset.iterall()]


def test_O2_a_series_is_strictly_valid_for_pydicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dicom_series(volume_on(UPRIGHT), tmp_path / "s", radiograph=radiograph(), keep_phi=True)
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.RAISE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for file in (tmp_path / "s").iterdir():
            assert len(every_value(pydicom.dcmread(file))) > 50
            assert pydicom.dcmread(file).pixel_array.shape == (4, 5)


def test_O2_a_series_says_that_it_is_synthetic_and_derived(series: list[pydicom.Dataset]) -> None:
    for dataset in series:
        assert dataset.SeriesDescription.startswith(f"{SYNTHETIC} atlas/long")
        assert len(dataset.SeriesDescription) <= 64
        assert SYNTHETIC in dataset.ImageComments
        assert list(dataset.ImageType[:2]) == ["DERIVED", "SECONDARY"]
        assert dataset.SyntheticData == "YES"
        assert dataset.BurnedInAnnotation == "NO"
        assert dataset.Manufacturer == "voxray"
        assert (dataset.RescaleSlope, dataset.RescaleIntercept) == (1, -1024)


def test_O2_uids_are_new_and_slices_share_series_and_frame(tmp_path: Path, series: list[pydicom.Dataset]) -> None:
    write_dicom_series(volume_on(UPRIGHT), tmp_path / "again", radiograph=radiograph(), keep_phi=True)
    other = pydicom.dcmread(tmp_path / "again" / "synthetic_0001.dcm")
    for key in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        assert len({dataset[key].value for dataset in series}) == 1
        assert series[0][key].value != other[key].value
    instances = {dataset.SOPInstanceUID for dataset in series} | {other.SOPInstanceUID}
    assert len(instances) == len(series) + 1
    assert not instances & {origin(1).sop_instance_uid, origin(2).sop_instance_uid}
    assert all(dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID for dataset in series)


def test_O2_the_source_images_are_referred_to(series: list[pydicom.Dataset]) -> None:
    for dataset in series:
        references = [
            (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) for item in dataset.SourceImageSequence
        ]
        assert references == [(DX, "1.2.3.1"), (DX, "1.2.3.2")]


def test_O2_sources_that_are_not_dicom_are_not_referred_to(tmp_path: Path) -> None:
    source = replace(radiograph(), origins=(Origin(Path("pa.png")), origin(2)))
    write_dicom_series(volume_on(UPRIGHT), tmp_path / "s", radiograph=source, keep_phi=True)
    dataset = pydicom.dcmread(tmp_path / "s" / "synthetic_0001.dcm")
    assert [item.ReferencedSOPInstanceUID for item in dataset.SourceImageSequence] == ["1.2.3.2"]
    assert dataset.PatientID.startswith("SYNTHETIC-")


def test_O2_patient_data_are_copied_only_when_told(tmp_path: Path, series: list[pydicom.Dataset]) -> None:
    for file in (tmp_path / "s").iterdir():
        for secret in ("Müller", "Muller", "Anna", "PID-77", "20210304"):
            assert secret.encode() not in file.read_bytes()
    assert series[0].PatientIdentityRemoved == "YES"
    write_dicom_series(volume_on(UPRIGHT), tmp_path / "kept", radiograph=radiograph(), keep_phi=True)
    kept = pydicom.dcmread(tmp_path / "kept" / "synthetic_0001.dcm")
    assert (kept.PatientName, kept.PatientID) == ("Müller^Anna", "PID-77")
    assert (kept.StudyInstanceUID, kept.StudyDate) == ("1.2.3", "20210304")
    assert "PatientIdentityRemoved" not in kept


@given(grid=grids())
@settings(max_examples=25)
def test_O2_slices_are_numbered_along_their_normal(tmp_path_factory: pytest.TempPathFactory, grid: VolumeGrid) -> None:
    folder = tmp_path_factory.mktemp("out") / "s"
    write_dicom_series(volume_on(grid), folder)
    found = [pydicom.dcmread(file) for file in sorted(folder.iterdir())]
    orientation = np.array(found[0].ImageOrientationPatient, dtype=float).reshape(2, 3)
    np.testing.assert_allclose(orientation @ orientation.T, np.eye(2), atol=1e-9)
    heights = [np.cross(*orientation) @ np.array(d.ImagePositionPatient, dtype=float) for d in found]
    np.testing.assert_allclose(np.diff(heights), grid.spacing_mm[2], rtol=1e-6)
    assert [dataset.InstanceNumber for dataset in found] == [1, 2, 3]


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian: dicom3tools) is not here")
@pytest.mark.parametrize("keep_phi", [False, True])
def test_O2_dciodvfy_finds_no_error(tmp_path: Path, keep_phi: bool) -> None:
    write_dicom_series(volume_on(UPRIGHT), tmp_path / "s", radiograph=radiograph(), keep_phi=keep_phi)
    for file in (tmp_path / "s").iterdir():
        command = ["dciodvfy", "-new", str(file)]
        findings = subprocess.run(command, capture_output=True, text=True, check=False).stderr.splitlines()
        # Synthetic Data (0008,001C) came into the standard after the released dciodvfy.
        errors = [line for line in findings if line.startswith("Error") and "(0008,001c)" not in line]
        assert "CTImage" in findings
        assert errors == []


def test_O3_a_real_chest_keeps_its_place_through_our_own_reader(tmp_path: Path, shared_data: Path) -> None:
    truth = read_ct(shared_data / "reference" / "lidc0028" / "ct.nii.gz")
    write_dicom_series(truth, tmp_path / "series")
    for suffix in FORMATS:
        write_volume(read_ct(tmp_path / "series"), tmp_path / f"ct{suffix}")
        found = read_ct(tmp_path / f"ct{suffix}")
        assert found.grid.is_close(truth.grid, TOLERANCE_MM)
        assert torch.equal(found.hu, truth.hu.clamp(min=-1024))
