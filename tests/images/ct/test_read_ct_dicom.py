"""DICOM CT series that are right: place, values, order, codecs, choice, names."""

import copy
import importlib
import os
import shutil
import warnings
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage, JPEG2000Lossless, JPEGLSLossless, RLELossless

from voxray.errors import InputError, VoxrayWarning
from voxray.images.read_ct import list_series, read_ct
from voxray.images.write_dicom import write_dicom_series
from voxray.images.write_volume import write_volume


def nibabel_dicom():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is experimental
        return importlib.import_module("nibabel.nicom.dicomwrappers")


def test_I7_affine_and_values_are_those_of_nibabel_and_dcm2niix(small_ct, datasets, save):
    volume = read_ct(save(datasets))
    dicomwrappers = nibabel_dicom()
    first, last = dicomwrappers.wrapper_from_data(datasets[0]), dicomwrappers.wrapper_from_data(datasets[-1])
    affine = volume.grid.affine
    # nibabel's array is (row, column, slice): its first two columns are our second and first.
    assert np.array_equal(affine[:3, [1, 0]], first.affine[:3, :2])
    assert np.array_equal(affine[:3, 3], first.affine[:3, 3])
    assert np.array_equal(affine[:3, 2], (last.affine[:3, 3] - first.affine[:3, 3]) / (len(datasets) - 1))
    np.testing.assert_allclose(affine, small_ct.affine, atol=1e-6)
    assert np.array_equal(volume.hu.numpy(), small_ct.hu)


def test_I7_the_same_series_as_nifti_is_the_same_volume(small_ct, datasets, save, tmp_path):
    volume = read_ct(save(datasets))
    image = nib.Nifti1Image(small_ct.hu.T, small_ct.affine_ras)
    image.set_qform(image.affine, 1)
    nib.save(image, tmp_path / "same.nii.gz")
    other = read_ct(tmp_path / "same.nii.gz")
    assert volume.grid.is_close(other.grid, 1e-3)
    assert np.array_equal(volume.hu.numpy(), other.hu.numpy())


def test_I7_the_volume_is_that_of_simpleitk(datasets, save):
    folder = save(datasets)
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    volume = read_ct(folder)
    assert np.array_equal(sitk.GetArrayFromImage(image), volume.hu.numpy())
    np.testing.assert_allclose(volume.grid.spacing_mm, image.GetSpacing(), atol=1e-6)
    np.testing.assert_allclose(volume.grid.origin_mm, image.GetOrigin(), atol=1e-6)
    np.testing.assert_allclose(volume.grid.direction.ravel(), image.GetDirection(), atol=1e-6)


@pytest.mark.parametrize("order", ["reversed", "shuffled"])
def test_I7_the_order_of_files_and_instance_numbers_does_not_matter(order, small_ct, datasets, save):
    mixed = np.random.default_rng(0).permutation(len(datasets)) if order == "shuffled" else range(11, -1, -1)
    for number, k in enumerate(mixed):
        datasets[k].InstanceNumber = number + 1
    volume = read_ct(save([datasets[k] for k in mixed]))
    assert np.array_equal(volume.hu.numpy(), small_ct.hu)
    np.testing.assert_allclose(volume.grid.affine, small_ct.affine, atol=1e-6)


def test_I7_slope_and_intercept_are_of_each_slice(small_ct, datasets, save):
    for k, ds in enumerate(datasets):
        ds.RescaleSlope, ds.RescaleIntercept = 1 + k / 16, -1024 + k
    slope = (1 + np.arange(12) / 16)[:, None, None]
    expected = np.maximum(small_ct.stored * slope - 1024 + np.arange(12)[:, None, None], -1024)
    np.testing.assert_allclose(read_ct(save(datasets)).hu.numpy(), expected, atol=1e-3)


def test_I7_positions_rounded_to_a_tenth_of_a_millimetre_are_even(datasets, save):
    for k, ds in enumerate(datasets):
        ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, round(k * 1.875, 1)]
    assert read_ct(save(datasets)).grid.spacing_mm[2] == pytest.approx(1.875, abs=0.01)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_I7_compressed_series(syntax, small_ct, datasets, save):
    for ds in datasets:
        ds.compress(syntax, generate_instance_uid=False)
    assert np.array_equal(read_ct(save(datasets)).hu.numpy(), small_ct.hu)


def as_lossless_jpeg(ds: pydicom.FileDataset, stored: np.ndarray, scratch: Path) -> None:
    """Compress a slice as lossless JPEG, which SimpleITK writes and pydicom does not."""
    sitk.WriteImage(sitk.GetImageFromArray(stored.astype(np.uint16)), scratch, True, compressor="JPEG")
    jpeg = pydicom.dcmread(scratch)
    assert jpeg.file_meta.TransferSyntaxUID in ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
    ds.file_meta.TransferSyntaxUID = jpeg.file_meta.TransferSyntaxUID
    ds.PixelData, ds["PixelData"].is_undefined_length = jpeg.PixelData, True
    ds.PixelRepresentation = 0


def test_I7_lossless_jpeg_that_pydicom_does_not_decode(small_ct, datasets, save, tmp_path):
    for ds, stored in zip(datasets, small_ct.stored, strict=True):
        as_lossless_jpeg(ds, stored, tmp_path / "jpeg.dcm")
    assert np.array_equal(read_ct(save(datasets)).hu.numpy(), small_ct.hu)


def test_O4_no_name_is_written_to_a_temporary_folder(small_ct, datasets, save, tmp_path, monkeypatch):
    for ds, stored in zip(datasets, small_ct.stored, strict=True):
        as_lossless_jpeg(ds, stored, tmp_path / "jpeg.dcm")
        ds.PatientName = "Doe^Jane"
    written = []
    save_as = Dataset.save_as
    folder = save(datasets)
    monkeypatch.setattr(Dataset, "save_as", lambda ds, *a, **k: (written.append(ds), save_as(ds, *a, **k)))
    read_ct(folder)
    assert len(written) == len(datasets)
    assert not any("PatientName" in ds or "PatientID" in ds for ds in written)


@pytest.mark.parametrize(("place", "value"), [(4, 44), (6, 99), (9, 3)])
def test_I13_a_jpeg_that_would_end_the_process_in_gdcm_is_refused(place, value, small_ct, datasets, save, tmp_path):
    as_lossless_jpeg(datasets[4], small_ct.stored[4], tmp_path / "jpeg.dcm")
    raw = bytearray(datasets[4].PixelData)
    raw[raw.index(b"\xff\xc3") + place] = value  # bits, rows or components of the frame
    datasets[4].PixelData = bytes(raw)
    datasets[4]["PixelData"].is_undefined_length = True
    with pytest.raises(InputError, match=r"004\.dcm' holds a JPEG of .* it is damaged"):
        read_ct(save(datasets))


def enhanced(datasets: list[pydicom.FileDataset]) -> pydicom.FileDataset:
    """Return the slices as the frames of one enhanced CT, out of order."""
    ds = copy.deepcopy(datasets[0])
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = EnhancedCTImageStorage
    frames = [datasets[k] for k in (5, 0, 11, 1, 10, 2, 9, 3, 8, 4, 7, 6)]
    ds.NumberOfFrames, ds.PixelData = len(frames), b"".join(frame.PixelData for frame in frames)
    shared, ds.PerFrameFunctionalGroupsSequence = Dataset(), []
    for name, tags in {
        "PlaneOrientationSequence": ["ImageOrientationPatient"],
        "PixelMeasuresSequence": ["PixelSpacing"],
        "PixelValueTransformationSequence": ["RescaleSlope", "RescaleIntercept", "RescaleType"],
    }.items():
        group = Dataset()
        for tag in tags:
            setattr(group, tag, ds.get(tag))
            delattr(ds, tag)
        setattr(shared, name, [group])
    ds.SharedFunctionalGroupsSequence = [shared]
    del ds.ImagePositionPatient
    for frame in frames:
        item, place = Dataset(), Dataset()
        place.ImagePositionPatient = frame.ImagePositionPatient
        item.PlanePositionSequence = [place]
        ds.PerFrameFunctionalGroupsSequence.append(item)
    return ds


def test_I7_a_multi_frame_file_is_a_volume(small_ct, datasets, save):
    volume = read_ct(save([enhanced(datasets)]) / "000.dcm")
    assert np.array_equal(volume.hu.numpy(), small_ct.hu)
    np.testing.assert_allclose(volume.grid.affine, small_ct.affine, atol=1e-6)


def test_I7_a_frame_without_its_place_is_refused(datasets, save):
    ds = enhanced(datasets)
    del ds.PerFrameFunctionalGroupsSequence[-1]
    with pytest.raises(InputError, match="12 frames, but does not say where each"):
        read_ct(save([ds]))


def test_I7_several_series_are_listed_and_one_is_chosen(small_ct, datasets, save):
    save(datasets, "both/a")
    for ds in datasets:
        ds.SeriesInstanceUID, ds.SeriesDescription = "1.2.3.4", "other"
        ds.PixelData = (small_ct.stored + 100).tobytes()[: len(ds.PixelData)]
    both = save(datasets[:10], "both/b").parent
    with pytest.raises(InputError, match=r"2 series; choose one with --series UID:\n(.|\n)*1\.2\.3\.4 .* 10 slices"):
        read_ct(both)
    assert [(info.description, info.slices) for info in list_series(both)] == [("small", 12), ("other", 10)]
    np.testing.assert_allclose(list_series(both)[0].spacing_mm, (1.5, 1.25, 2.5), atol=1e-3)
    assert read_ct(both, series="1.2.3.4").grid.shape[0] == 10
    with pytest.raises(InputError, match=r"no series '9\.9'"):
        read_ct(both, series="9.9")


def test_I3_another_modality_is_refused_unless_forced(datasets, save):
    for ds in datasets:
        ds.Modality = "MR"
    folder = save(datasets)
    with pytest.raises(InputError, match=r"no CT \(only modality CT(.|\n)*MR  12 slices"):
        read_ct(folder)
    with pytest.warns(VoxrayWarning, match="modality 'MR'"):
        assert read_ct(folder, force_modality=True).grid.shape == (12, 34, 40)


def test_I3_other_objects_beside_a_ct_do_not_disturb(small_ct, datasets, save):
    report = pydicom.FileDataset("", {}, file_meta=datasets[0].file_meta.__class__(), preamble=b"\0" * 128)
    report.file_meta.TransferSyntaxUID = datasets[0].file_meta.TransferSyntaxUID
    report.SOPClassUID, report.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.22", "1.2.3"
    report.SeriesInstanceUID, report.Modality = "1.2.3.5", "SR"
    folder = save([*datasets, report])
    (folder / "notes.txt").write_text("not DICOM")
    assert np.array_equal(read_ct(folder).hu.numpy(), small_ct.hu)
    (folder / "LICENSE").write_text("not DICOM, and no suffix")
    with pytest.warns(VoxrayWarning, match="1 files are not DICOM and were left out \\('LICENSE'\\)"):
        read_ct(folder)


def test_I1_slices_without_preamble_and_file_meta(small_ct, datasets, save):
    folder = save([Dataset(ds) for ds in datasets], implicit_vr=True, little_endian=True)
    assert (folder / "000.dcm").read_bytes()[:2] == b"\x08\x00"
    assert np.array_equal(read_ct(folder).hu.numpy(), small_ct.hu)


def test_I12_spaces_unicode_links_and_read_only(small_ct, datasets, save, tmp_path):
    folder = save(datasets, "Schädel CT (Übersicht) 肺")
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    for file in folder.iterdir():
        file.chmod(0o444)
    linked = tmp_path / "linked files"
    linked.mkdir()
    for file in folder.iterdir():
        (linked / file.name).symlink_to(file)
    folder.chmod(0o555)
    before = sorted(os.listdir(folder))
    for path in (folder, tmp_path / "link", linked):
        assert np.array_equal(read_ct(path).hu.numpy(), small_ct.hu)
    assert sorted(os.listdir(folder)) == before
    folder.chmod(0o755)


def test_I12_the_origin_tells_whence(datasets, save):
    folder = save(datasets)
    origin = read_ct(folder).origin
    assert (origin.path, origin.patient_id, origin.patient_name) == (folder, "P1", "Doe^Jane")
    assert (origin.study_uid, origin.study_date) == (datasets[0].StudyInstanceUID, "20200102")


def test_I7_a_zip_is_the_folder(small_ct, datasets, save, tmp_path):
    folder = save(datasets)
    archive = Path(shutil.make_archive(str(tmp_path / "scan"), "zip", folder))
    volume = read_ct(archive)
    assert np.array_equal(volume.hu.numpy(), small_ct.hu)
    assert [info.slices for info in list_series(archive)] == [12]


def test_I10_names_in_a_zip_have_no_power(small_ct, datasets, save, tmp_path):
    folder = save(datasets)
    inner = tmp_path / "deep" / "deeper"
    inner.mkdir(parents=True)
    with zipfile.ZipFile(inner / "evil.zip", "w") as archive:
        for k, name in enumerate(sorted(os.listdir(folder))):
            archive.write(folder / name, ["../up{}", "/abs{}", "C:\\{}", "a\n{}"][k % 4].format(k))
    before = sorted(tmp_path.rglob("*"))
    assert np.array_equal(read_ct(inner / "evil.zip").hu.numpy(), small_ct.hu)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["out.nii.gz", "out.nrrd", "dicom"])
def test_O3_what_voxray_writes_it_reads(name, datasets, save, tmp_path):
    volume = read_ct(save(datasets))
    if name == "dicom":
        write_dicom_series(volume, tmp_path / name)
    else:
        write_volume(volume, tmp_path / name)
    again = read_ct(tmp_path / name)
    assert again.grid.is_close(volume.grid, 1e-3)
    np.testing.assert_allclose(again.hu, volume.hu, atol=0.51)


def test_real_series_lies_where_its_nifti_lies(shared_data):
    volume = read_ct(shared_data / "dicom_ct" / "lungdx_a0001")
    resampled = read_ct(shared_data / "ct" / "lungdx_a0001.nii.gz")
    image, target = (sitk.GetImageFromArray(v.hu.numpy()) for v in (volume, resampled))
    for item, v in ((image, volume), (target, resampled)):
        item.SetSpacing(v.grid.spacing_mm.tolist())
        item.SetOrigin(v.grid.origin_mm.tolist())
        item.SetDirection(v.grid.direction.ravel().tolist())
    same = sitk.GetArrayFromImage(sitk.Resample(image, target, sitk.Transform(), sitk.sitkLinear, -1024.0))
    assert np.abs(same - resampled.hu.numpy()).mean() < 20
    assert np.abs(same[::-1] - resampled.hu.numpy()).mean() > 100
