"""NIfTI: what nibabel writes is read the same; a header that is wrong, or lies, is refused."""

import contextlib
import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from voxray.errors import InputError, VoxrayWarning
from voxray.images.read_ct import read_ct


def write(path: Path, ct, dtype=np.int16, kind=nib.Nifti1Image, **fields) -> Path:
    """Write a CT with both forms set; `fields` then overwrite fields of the raw header."""
    image = kind(ct.hu.T.astype(dtype), ct.affine_ras)
    image.set_qform(ct.affine_ras, 1)
    image.set_sform(ct.affine_ras, 1)
    nib.save(image, path)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rb") as file:
        raw = bytearray(file.read())
    header = image.header_class(bytes(raw[: image.header_class.template_dtype.itemsize]), check=False)
    for name, value in fields.items():
        index = int(name[-1]) if name[-1].isdigit() else None
        if index is None:
            header[name] = value
        else:
            header[name[:-1]][index] = value
    raw[: len(header.binaryblock)] = header.binaryblock
    with opened(path, "wb") as file:
        file.write(raw)
    return path


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ"])
@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64, np.int32])
def test_I8_oblique_volumes_are_those_of_nibabel(kind, name, dtype, small_ct, tmp_path):
    volume = read_ct(write(tmp_path / name, small_ct, dtype, kind))
    np.testing.assert_allclose(volume.grid.affine, small_ct.affine, atol=1e-4)
    assert np.array_equal(volume.hu.numpy(), small_ct.hu)
    assert volume.origin.path == tmp_path / name


@pytest.mark.parametrize("forms", [(0, 1), (1, 0), (3, 2)])
def test_I8_one_form_is_enough(forms, small_ct, tmp_path):
    fields = {"qform_code": forms[0], "sform_code": forms[1]}
    if not forms[1]:
        fields |= {"srow_x": 0, "srow_y": 0, "srow_z": 0}
    volume = read_ct(write(tmp_path / "a.nii", small_ct, **fields))
    np.testing.assert_allclose(volume.grid.affine, small_ct.affine, atol=1e-4)


def test_I8_a_left_handed_qform(small_ct, tmp_path):
    small_ct.affine[:3, 0] *= -1
    volume = read_ct(write(tmp_path / "a.nii", small_ct, sform_code=0))
    np.testing.assert_allclose(volume.grid.affine, small_ct.affine, atol=1e-4)


def test_I8_big_endian(small_ct, tmp_path):
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    nib.save(nib.Nifti1Image(small_ct.hu.T.astype(">i2"), small_ct.affine_ras, header), tmp_path / "a.nii")
    volume = read_ct(tmp_path / "a.nii")
    assert np.array_equal(volume.hu.numpy(), small_ct.hu)
    np.testing.assert_allclose(volume.grid.affine, small_ct.affine, atol=1e-4)


def test_I8_integers_with_slope(small_ct, tmp_path):
    volume = read_ct(write(tmp_path / "a.nii", small_ct, scl_slope=0.5, scl_inter=-500))
    np.testing.assert_allclose(volume.hu.numpy(), np.maximum(small_ct.hu * 0.5 - 500, -1024), atol=1e-3)


@pytest.mark.parametrize(("code", "scale"), [(1, 1e-3), (3, 1e3), (0, 1), (2, 1)])
def test_I8_units_of_length(code, scale, small_ct, tmp_path):
    small_ct.affine[:3] *= scale
    volume = read_ct(write(tmp_path / "a.nii", small_ct, xyzt_units=code, sform_code=0))
    np.testing.assert_allclose(volume.grid.spacing_mm, (1.5, 1.25, 2.5), rtol=1e-5)


def test_I8_a_fourth_axis_of_one_is_no_axis(small_ct, tmp_path):
    image = nib.Nifti1Image(small_ct.hu.T[..., None], small_ct.affine_ras)
    nib.save(image, tmp_path / "a.nii")
    assert read_ct(tmp_path / "a.nii").grid.shape == (12, 34, 40)


def test_I8_without_orientation_it_must_be_assumed(small_ct, tmp_path):
    path = write(tmp_path / "a.nii.gz", small_ct, sform_code=0, qform_code=0)
    with pytest.raises(InputError, match=r"neither sform nor qform .*--assume-ras"):
        read_ct(path)
    grid = read_ct(path, assume_ras=True).grid
    np.testing.assert_allclose(grid.affine, np.diag([-1.5, -1.25, 2.5, 1]), atol=1e-6)


def test_I8_forms_that_differ_a_little_are_said_and_much_refused(small_ct, tmp_path):
    with pytest.warns(VoxrayWarning, match=r"sform and qform put a corner 0.3 mm apart; the sform is used"):
        grid = read_ct(write(tmp_path / "a.nii", small_ct, qoffset_x=31.25 + 0.3)).grid
    np.testing.assert_allclose(grid.affine, small_ct.affine, atol=1e-4)
    with pytest.raises(InputError, match=r"contradicts itself: its sform and its qform"):
        read_ct(write(tmp_path / "a.nii", small_ct, qoffset_x=40))


NAN = float("nan")
LIES = {
    "pixdim_nan": ({"pixdim1": NAN}, "impossible voxel size"),
    "pixdim_zero": ({"pixdim2": 0}, "impossible voxel size"),
    "pixdim_negative": ({"pixdim3": -2.5}, "impossible voxel size"),
    "pixdim_not_of_sform": ({"pixdim1": 3, "qform_code": 0}, "its sform and its pixdim"),
    "sform_nan": ({"srow_x": NAN}, "not finite"),
    "sform_zero": ({"srow_x": 0, "srow_y": 0, "srow_z": 0, "qform_code": 0}, "contradicts itself"),
    "quaternion_long": ({"quatern_b": 2, "sform_code": 0}, "not finite"),
    "unit": ({"xyzt_units": 5}, "unknown unit of length"),
    "metres": ({"xyzt_units": 1}, "a CT has 0.05 to 20 mm"),
    "micrometres": ({"xyzt_units": 3}, "a CT has 0.05 to 20 mm"),
    "four_dimensions": ({"dim0": 4, "dim3": 6, "dim4": 2}, r"4 dimensions \(40 x 34 x 6 x 2\)"),
    "two_dimensions": ({"dim0": 2}, "2 dimensions"),
    "dim_negative": ({"dim1": -40}, "impossible dimensions"),
    "dim0": ({"dim0": 9}, "impossible dimensions"),
    "more_voxels": ({"dim3": 13}, "truncated"),
    "fewer_voxels": ({"dim3": 11}, "more bytes than"),
    "rgb": ({"datatype": 128, "bitpix": 24}, "colours, complex or unknown"),
    "complex": ({"datatype": 32, "bitpix": 64}, "colours, complex or unknown"),
    "bitpix": ({"bitpix": 8}, "contradict each other"),
    "offset_far": ({"vox_offset": 1e9}, "truncated"),
    "offset_near": ({"vox_offset": 0}, "vox_offset 0 is impossible"),
    "offset_nan": ({"vox_offset": NAN}, "vox_offset nan is impossible"),
    "slope_nan": ({"scl_slope": NAN}, "slope or intercept that is not finite"),
    "values_huge": ({"scl_slope": 1e38}, "not finite|not Hounsfield"),
    "magic": ({"magic": b"ni1"}, "not a NIfTI file of one piece"),
    "length": ({"sizeof_hdr": 349}, "is not a NIfTI file"),
}


@pytest.mark.parametrize("name", LIES)
def test_I8_a_header_that_lies_is_refused(name, small_ct, tmp_path):
    fields, message = LIES[name]
    with pytest.raises(InputError, match=rf"lie\.nii'.*({message})"):
        read_ct(write(tmp_path / "lie.nii", small_ct, **fields))


def test_I8_a_real_number_that_is_none_is_refused(small_ct, tmp_path):
    hu = small_ct.hu.copy()
    hu[3, 4, 5] = np.nan
    nib.save(nib.Nifti1Image(hu.T, small_ct.affine_ras), tmp_path / "a.nii")
    with pytest.raises(InputError, match="not finite numbers"):
        read_ct(tmp_path / "a.nii")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_I2_no_prefix_is_read(name, small_ct, tmp_path):
    whole = write(tmp_path / name, small_ct).read_bytes()
    for percent in [*range(100), 99.9, 99.99]:
        (tmp_path / name).write_bytes(whole[: int(len(whole) * percent / 100)])
        with pytest.raises(InputError, match=name):
            read_ct(tmp_path / name)


def test_I2_a_flipped_bit_in_gzip_is_found(small_ct, tmp_path):
    path = write(tmp_path / "a.nii.gz", small_ct)
    whole = path.read_bytes()
    for place in range(20, len(whole), len(whole) // 40):
        raw = bytearray(whole)
        raw[place] ^= 4
        path.write_bytes(raw)
        with pytest.raises(InputError):
            read_ct(path)


def test_I10_more_than_2_gib_is_refused_from_the_header(small_ct, tmp_path):
    fields = {"dim1": 1100, "dim2": 1100, "dim3": 1100}
    path = write(tmp_path / "big.nii", small_ct, **fields)
    with pytest.raises(InputError, match="truncated"):  # the lie
        read_ct(path)
    with path.open("r+b") as file:
        file.truncate(352 + 2 * 1100**3)  # the truth, without a block on disk
    with pytest.raises(InputError, match=r"big.nii' holds 1\.33e\+09 voxels"):
        read_ct(path)


def test_I10_a_gzip_that_would_swell_is_refused(small_ct, tmp_path):
    with pytest.raises(InputError, match="truncated"):
        read_ct(write(tmp_path / "a.nii.gz", small_ct, dim1=32767, dim2=32767, dim3=900))


def test_I12_names_links_and_read_only(small_ct, tmp_path):
    folder = tmp_path / "ein Ordner für 肺"
    folder.mkdir()
    path = write(folder / "ct größer.nii.gz", small_ct)
    path.chmod(0o444)
    (tmp_path / "link.nii.gz").symlink_to(path)
    assert np.array_equal(read_ct(tmp_path / "link.nii.gz").hu, read_ct(path).hu)


def test_series_is_not_for_nifti(small_ct, tmp_path):
    with pytest.raises(InputError, match="chosen from DICOM only"):
        read_ct(write(tmp_path / "a.nii", small_ct), series="1.2.3")


def _mutant(whole: bytes, seed: int) -> bytes:
    """Change one to four bytes or whole fields of the header."""
    rng = np.random.default_rng(seed)
    raw = bytearray(whole)
    for _ in range(rng.integers(1, 5)):
        place = int(rng.choice([rng.integers(348), rng.integers(40, 124), rng.integers(252, 328)]))
        size = int(rng.choice([1, 2, 4]))
        raw[place : place + size] = rng.choice([bytes(4), b"\xff" * 4, rng.bytes(4), b"\0\0\xc0\x7f"])[:size]
    return bytes(raw)


@pytest.mark.filterwarnings("ignore::voxray.errors.VoxrayWarning")
@pytest.mark.parametrize("count", [50, pytest.param(2000, marks=pytest.mark.slow)])
def test_I8_mutated_headers_end_in_input_error_or_a_plausible_volume(count, small_ct, tmp_path):
    whole = write(tmp_path / "a.nii", small_ct).read_bytes()
    read = 0
    for seed in range(count):
        (tmp_path / "mutant.nii").write_bytes(_mutant(whole, seed))
        with contextlib.suppress(InputError):
            volume = read_ct(tmp_path / "mutant.nii")
            read += 1
            assert volume.hu.shape == (12, 34, 40) or sorted(volume.hu.shape) == [12, 34, 40]
            assert volume.grid.spacing_mm.min() >= 0.05
            assert volume.grid.spacing_mm.max() <= 20
            assert volume.grid.size_mm.min() >= 20
            assert volume.grid.size_mm.max() <= 2000
            assert -1024 <= volume.hu.min() <= volume.hu.max() <= 2**16
    assert 0 < read < count


@pytest.mark.filterwarnings("ignore::voxray.errors.VoxrayWarning")
@pytest.mark.parametrize("count", [150, pytest.param(5000, marks=pytest.mark.slow)])
def test_I13_mutated_gzip_ends_in_input_error(count, small_ct, tmp_path):
    whole = write(tmp_path / "a.nii.gz", small_ct).read_bytes()
    refused = 0
    for seed in range(count):
        rng = np.random.default_rng(seed)
        raw = bytearray(whole)
        raw[rng.integers(len(raw) if seed % 2 else 400)] = rng.integers(256)
        (tmp_path / "mutant.nii.gz").write_bytes(raw)
        try:
            read_ct(tmp_path / "mutant.nii.gz")
        except InputError:
            refused += 1
    assert refused > count // 2


def test_real_scans_are_read_without_a_word(shared_data):
    for path in [*sorted((shared_data / "ct").glob("lidc*.nii.gz")), *(shared_data / "reference").glob("*/ct.nii.gz")]:
        volume = read_ct(path)
        image = nib.load(path)
        np.testing.assert_allclose(volume.grid.affine, np.diag([-1, -1, 1, 1]) @ image.affine, atol=1e-6)
        assert volume.hu.shape == image.shape[::-1]
