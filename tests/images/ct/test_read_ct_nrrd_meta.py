"""NRRD and MetaImage, and the gate that every volume passes."""

import contextlib
import os
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from voxray.errors import InputError, VoxrayWarning
from voxray.images.read_ct import read_ct

SUFFIXES = [".nrrd", ".nhdr", ".mha", ".mhd"]


def to_itk(ct, values: np.ndarray | None = None) -> sitk.Image:
    image = sitk.GetImageFromArray(ct.hu.astype(np.int16) if values is None else values)
    spacing = np.linalg.norm(ct.affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(ct.affine[:3, 3].tolist())
    image.SetDirection((ct.affine[:3, :3] / spacing).ravel().tolist())
    return image


def write(path: Path, ct, values: np.ndarray | None = None, compress: bool = False) -> Path:
    sitk.WriteImage(to_itk(ct, values), path, compress)
    return path


def edit(path: Path, pattern: bytes, new: bytes) -> Path:
    """Change the one place of a text header that matches."""
    raw, count = re.subn(pattern, new, path.read_bytes(), count=1, flags=re.MULTILINE)
    assert count == 1
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("suffix", [*SUFFIXES, ".MHA"])
def test_oblique_volumes_are_read_where_they_are(suffix, compress, small_ct, tmp_path):
    write(tmp_path / f"a{suffix.lower()}", small_ct, compress=compress).rename(tmp_path / f"a b{suffix}")
    volume = read_ct(tmp_path / f"a b{suffix}")
    np.testing.assert_allclose(volume.grid.affine, small_ct.affine, atol=1e-4)
    assert np.array_equal(volume.hu.numpy(), small_ct.hu)


def test_nrrd_in_ras_is_turned(small_ct, tmp_path):
    path = edit(write(tmp_path / "a.nrrd", small_ct), rb"left-posterior-superior", rb"right-anterior-superior")
    np.testing.assert_allclose(read_ct(path).grid.affine, small_ct.affine_ras, atol=1e-4)


@pytest.mark.parametrize(
    ("suffix", "pattern", "new"),
    [(".nrrd", rb"^space: .*$", b"space: scanner-xyz"), (".mha", rb"^TransformMatrix = .*\n", b"")],
)
def test_I8_without_orientation_it_must_be_assumed(suffix, pattern, new, small_ct, tmp_path):
    path = edit(write(tmp_path / f"a{suffix}", small_ct), pattern, new)
    with pytest.raises(InputError, match=r"does not say how the patient lies .*--assume-ras"):
        read_ct(path)
    np.testing.assert_allclose(read_ct(path, assume_ras=True).grid.affine, np.diag([-1.5, -1.25, 2.5, 1]), atol=1e-4)


LIES = [
    (".mha", rb"^ElementSpacing = .*\n", b"", "no voxel size"),
    (".mha", rb"^ElementSpacing = .*$", b"ElementSpacing = 0 1 1", "no voxel size"),
    (".mha", rb"^ElementSpacing = .*$", b"ElementSpacing = -1 1 1", "no voxel size"),
    (".mha", rb"^ElementSpacing = .*$", b"ElementSpacing = 30 1 1", "a CT has 0.05 to 20 mm"),
    (".mha", rb"^TransformMatrix = .*$", b"TransformMatrix = 1 0.3 0 0 1 0 0 0 1", "not perpendicular"),
    (".mha", rb"^DimSize = .*$", b"DimSize = 40 34 13", "truncated"),
    (".mha", rb"^ElementType = .*$", b"ElementType = MET_DOUBLE", "truncated"),
    (".mha", rb"^DimSize = .*$", b"DimSize = 40 34 11", "does not hold"),
    (".mha", rb"^NDims = 3$", b"NDims = 93", "impossible dimensions"),
    (".mha", rb"^Offset = .*$", b"Offset = 0 nan 0", "not finite"),
    (".nrrd", rb"^space directions: .*$", b"space directions: (1,0,0) (0,0,0) (0,0,1)", "impossible one"),
    (".nrrd", rb"^sizes: .*$", b"sizes: 40 34 13", "truncated"),
    (".nrrd", rb"^sizes: .*$", b"sizes: 40 34 11", "does not hold"),
    (".nrrd", rb"^dimension: 3$", b"dimension: 17", "impossible dimensions"),
    (".nrrd", rb"^endian: .*\n", b"", "in which order its bytes are"),
    (".nrrd", rb"^encoding: .*$", b"encoding: hex", "not encoded as raw or gzip"),
    (".nrrd", rb"^space: ", b'space units: "cm" "cm" "cm"\nspace: ', "measured in"),
    (".nrrd", rb"^endian: ", b"type: uchar\nendian: ", "says twice"),
    (".nrrd", rb"^space origin: .*$", b"space origin: (nan,0,0)", "not finite"),
]


@pytest.mark.parametrize(("suffix", "pattern", "new", "message"), LIES)
def test_I8_a_header_that_lies_is_refused(suffix, pattern, new, message, small_ct, tmp_path):
    path = edit(write(tmp_path / f"lie{suffix}", small_ct), pattern, new)
    with pytest.raises(InputError, match=rf"lie\.\w+'.*({message})"):
        read_ct(path)


@pytest.mark.parametrize(
    ("suffix", "pattern", "new"),
    [(".nrrd", rb"^type: ", b"a" * 5000 + b"\ntype: "), (".mha", rb"^NDims = 3$", b"NDims = 3\nNDims = 93")],
)
def test_I13_what_ends_the_process_in_itk_is_nothing_here(suffix, pattern, new, small_ct, tmp_path):
    path = edit(write(tmp_path / f"a{suffix}", small_ct), pattern, new)
    with contextlib.suppress(InputError):
        assert np.array_equal(read_ct(path).hu.numpy(), small_ct.hu)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_I8_colours_and_time_are_refused(suffix, small_ct, tmp_path):
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(sitk.Compose([to_itk(small_ct)] * 3), path)
    with pytest.raises(InputError, match="colours, vectors"):
        read_ct(path)
    sitk.WriteImage(sitk.JoinSeries([to_itk(small_ct)] * 2), path)
    with pytest.raises(InputError, match=r"4 dimensions \(40 x 34 x 12 x 2\)"):
        read_ct(path)
    sitk.WriteImage(to_itk(small_ct)[:, :, 0], path)
    with pytest.raises(InputError, match="2 dimensions"):
        read_ct(path)


def test_I8_another_format_under_a_wrong_name_is_refused(small_ct, tmp_path):
    write(tmp_path / "a.nrrd", small_ct).rename(tmp_path / "a.mha")
    with pytest.raises(InputError, match="is not a MetaImage file"):
        read_ct(tmp_path / "a.mha")
    write(tmp_path / "b.mha", small_ct).rename(tmp_path / "b.nrrd")
    with pytest.raises(InputError, match="is not an NRRD file"):
        read_ct(tmp_path / "b.nrrd")


@pytest.mark.parametrize(
    ("suffix", "pattern", "new"),
    [(".mhd", rb"^DimSize = .*$", b"DimSize = 1100 1100 1100"), (".nhdr", rb"^sizes: .*$", b"sizes: 1100 1100 1100")],
)
def test_I10_size_is_checked_before_decoding(suffix, pattern, new, small_ct, tmp_path):
    path = edit(write(tmp_path / f"a{suffix}", small_ct), pattern, new)
    os.truncate(tmp_path / "a.raw", 2 * 1100**3)  # takes no block on disk
    with pytest.raises(InputError, match=r"1\.33e\+09 voxels"):
        read_ct(path)


@pytest.mark.parametrize(
    ("suffix", "pattern", "new"),
    [
        (".mhd", rb"^ElementDataFile = .*$", b"ElementDataFile = ../secret.raw"),
        (".mhd", rb"^ElementDataFile = .*$", b"ElementDataFile = LIST"),
        (".nhdr", rb"^data file: .*$", b"data file: ../secret.raw"),
        (".nhdr", rb"^data file: .*$", b"data file: LIST"),
    ],
)
def test_a_header_does_not_reach_for_files_elsewhere(suffix, pattern, new, small_ct, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.raw").write_bytes(bytes(2 * small_ct.stored.size))
    with pytest.raises(InputError, match="from one file beside it"):
        read_ct(edit(write(tmp_path / "in" / f"a{suffix}", small_ct), pattern, new))


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_I2_no_prefix_is_read(suffix, compress, small_ct, tmp_path):
    path = write(tmp_path / f"a{suffix}", small_ct, compress=compress)
    whole = path.read_bytes()
    for percent in range(100):
        path.write_bytes(whole[: len(whole) * percent // 100])
        with pytest.raises(InputError, match="a" + re.escape(suffix)):
            read_ct(path)


@pytest.mark.filterwarnings("ignore::voxray.errors.VoxrayWarning")
@pytest.mark.parametrize("count", [150, pytest.param(5000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_I13_mutated_headers_end_in_a_volume_or_one_error(suffix, count, small_ct, tmp_path):
    whole = write(tmp_path / f"a{suffix}", small_ct, compress=True).read_bytes()
    read = 0
    for seed in range(count):
        rng = np.random.default_rng(seed)
        raw = bytearray(whole)
        for _ in range(rng.integers(1, 5)):
            raw[rng.integers(500)] = rng.choice(np.frombuffer(b"0123456789 .-=:\nxyzA\0\xff", np.uint8))
        (tmp_path / f"mutant{suffix}").write_bytes(raw)
        with contextlib.suppress(InputError):
            volume = read_ct(tmp_path / f"mutant{suffix}")
            read += 1
            assert volume.grid.size_mm.max() <= 2000
            assert volume.hu.min() >= -1024
    assert 0 < read < count


def test_I8_padding_is_clamped_and_said(small_ct, tmp_path):
    values = small_ct.hu.astype(np.int16)
    values[:, :2] = -3024
    values[5, 20, 20] = 30000  # metal stays
    with pytest.warns(VoxrayWarning, match=r"960 voxels lie below -1024 HU \(down to -3024\); set to -1024"):
        volume = read_ct(write(tmp_path / "a.mha", small_ct, values))
    assert volume.hu.min() == -1024
    assert volume.hu.max() == 30000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda hu: (hu + 1024) / 3000, "look normalised"),
        (lambda hu: 0.02 * (1 + hu / 1000), "attenuation coefficients"),
        (lambda hu: hu + 1024, "there is no air"),
        (lambda hu: hu * 0 + 5, "every voxel is the same"),
        (lambda hu: np.where(hu > 0, 5000, hu), "more than 1 % lie above 4000"),
    ],
)
def test_I8_values_that_do_not_look_like_hu_are_said(change, message, small_ct, tmp_path):
    hu = np.maximum(small_ct.hu, -1000)
    path = write(tmp_path / "a.mha", small_ct, np.maximum(change(hu), -1024).astype(np.float32))
    with pytest.warns(VoxrayWarning, match=message):
        read_ct(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e9, 1e6])
def test_I8_impossible_values_are_refused(value, small_ct, tmp_path):
    hu = small_ct.hu.copy()
    hu[1, 2, 3] = value
    with pytest.raises(InputError, match=r"not finite|not Hounsfield units"):
        read_ct(write(tmp_path / "a.mha", small_ct, hu))
