import gzip
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from PIL import Image

from voxray.errors import InputError, VoxrayWarning
from voxray.images import reading
from voxray.images.read_xray import looks_inverted, read_xray
from voxray.images.xray import ReadOptions


def read(path: Path) -> np.ndarray:
    (image,) = read_xray(path)
    return image.pixels.numpy()


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.tiff"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_I9_eight_and_sixteen_bits_are_kept(tmp_path, small_xray, name, dtype):
    image = small_xray.astype(dtype) if dtype == np.uint8 else small_xray * np.uint16(15)
    Image.fromarray(image).save(tmp_path / name)
    assert np.array_equal(read(tmp_path / name), image)
    assert read(tmp_path / name).dtype == np.float32


def test_I9_jpeg(tmp_path, small_xray):
    image = (small_xray // 16).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "x.jpg", quality=100)
    assert np.abs(read(tmp_path / "x.jpg") - image).max() <= 3


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_I9_colour_and_alpha_become_luminance_with_a_warning(tmp_path, small_xray, mode):
    grey = Image.fromarray((small_xray // 16).astype(np.uint8))
    grey.convert(mode).save(tmp_path / "x.png")
    with pytest.warns(VoxrayWarning, match="colour"):
        assert np.abs(read(tmp_path / "x.png") - np.asarray(grey)).max() <= 1


def test_I9_rotation_tag_is_ignored_with_a_warning(tmp_path, small_xray):
    image = Image.fromarray((small_xray // 16).astype(np.uint8))
    exif = Image.Exif()
    exif[274] = 6
    image.save(tmp_path / "x.png", exif=exif)
    with pytest.warns(VoxrayWarning, match=r"orientation tag.*ignored"):
        assert np.array_equal(read(tmp_path / "x.png"), np.asarray(image))
    image.save(tmp_path / "x.tif", tiffinfo={274: 6})
    with pytest.raises(InputError, match=r"orientation tag.*upright"):
        read(tmp_path / "x.tif")


def test_I9_white_is_zero_is_turned_round(tmp_path, small_xray):
    Image.fromarray(65535 - small_xray).save(tmp_path / "x.tif", tiffinfo={262: 0})
    assert np.array_equal(read(tmp_path / "x.tif"), small_xray)


def test_I9_several_pages_and_other_values_are_refused(tmp_path, small_xray):
    page = Image.fromarray(small_xray)
    page.save(tmp_path / "pages.tif", save_all=True, append_images=[page])
    with pytest.raises(InputError, match="2 pictures"):
        read(tmp_path / "pages.tif")
    Image.fromarray(small_xray.astype(np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(InputError, match="8 or 16 bits"):
        read(tmp_path / "float.tif")


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.jpg", "x.mha", "x.nrrd", "x.nii.gz"])
def test_I10_pixels_are_counted_before_decoding(tmp_path, monkeypatch, name):
    if name.endswith(("mha", "nrrd", "nii.gz")):
        sitk.WriteImage(sitk.GetImageFromArray(np.zeros((1, 30, 40), np.float32)), tmp_path / name)
        monkeypatch.setattr(reading, "MAX_VOXELS", 1199)
    else:
        Image.fromarray(np.zeros((30, 40), np.uint8)).save(tmp_path / name)
    monkeypatch.setattr(reading, "MAX_PIXELS", 1199)
    with pytest.raises(InputError, match=name):
        read(tmp_path / name)


def test_I10_a_decompression_bomb_is_refused(tmp_path):
    """In the words of every other format; Pillow's own limit, 1.8e8 pixels, is lower than ours."""
    Image.new("1", (20000, 20000)).save(tmp_path / "bomb.png")
    with pytest.raises(InputError, match=r"bomb\.png' holds 4e\+08 pixels; at most 2\.68e\+08 are read"):
        read(tmp_path / "bomb.png")


def test_I10_a_picture_above_the_limit_of_pillow_and_below_ours_is_read(tmp_path, monkeypatch, small_xray):
    Image.fromarray((small_xray // 16).astype(np.uint8)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read(tmp_path / "x.png").shape == small_xray.shape


# ---------------------------------------------------------------- line integrals


@pytest.mark.parametrize("name", ["pa.nii.gz", "pa.nii", "pa.mha", "pa.nrrd"])
def test_line_integrals_are_as_stored(tmp_path, small_xray, name):
    values = small_xray.astype(np.float32) / 500 - 0.01
    image = sitk.GetImageFromArray(values[None])
    image.SetSpacing((1.25, 1.5, 1))
    image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    sitk.WriteImage(image, tmp_path / name)
    (xray,) = read_xray(tmp_path / name)
    assert xray.kind == "line_integral"
    assert np.array_equal(xray.pixels.numpy(), values)
    assert xray.tags.pixel_mm == pytest.approx((1.5, 1.25))


@pytest.mark.parametrize("name", ["pa.mha", "pa.nrrd", "pa.nii", "pa.nii.gz"])
def test_line_integrals_of_two_dimensions(tmp_path, small_xray, name):
    sitk.WriteImage(sitk.GetImageFromArray(small_xray / np.float32(500)), tmp_path / name)
    assert np.array_equal(read(tmp_path / name), small_xray / np.float32(500))


def test_line_integrals_of_another_shape_or_kind_are_refused(tmp_path, small_xray):
    values = small_xray.astype(np.float32) / 500
    sitk.WriteImage(sitk.GetImageFromArray(np.stack([values, values])), tmp_path / "two.mha")
    with pytest.raises(InputError, match="one file a view"):
        read(tmp_path / "two.mha")
    sitk.WriteImage(sitk.GetImageFromArray(np.stack([values, values], -1), isVector=True), tmp_path / "vector.mha")
    with pytest.raises(InputError, match="vectors"):
        read(tmp_path / "vector.mha")
    values[3, 3] = np.nan
    sitk.WriteImage(sitk.GetImageFromArray(values), tmp_path / "nan.nrrd")
    with pytest.raises(InputError, match="not finite"):
        read(tmp_path / "nan.nrrd")
    sitk.WriteImage(sitk.GetImageFromArray(small_xray[None].astype(np.float32)), tmp_path / "grey.mha")
    with pytest.warns(VoxrayWarning, match="line integrals"):
        read(tmp_path / "grey.mha")
    with (
        pytest.warns(VoxrayWarning, match="line integrals"),
        pytest.raises(InputError, match="cannot be inverted"),
    ):
        read_xray(tmp_path / "grey.mha", ReadOptions(invert=True))


def test_I12_headers_do_not_lead_to_other_folders(tmp_path, small_xray):
    sitk.WriteImage(sitk.GetImageFromArray(small_xray / np.float32(500)), tmp_path / "pa.mhd")
    assert np.array_equal(read(tmp_path / "pa.mhd"), small_xray / np.float32(500))
    header = (tmp_path / "pa.mhd").read_text().replace("pa.raw", f"{tmp_path}/pa.raw")
    (tmp_path / "away.mhd").write_text(header)
    with pytest.raises(InputError, match="from one file beside it"):
        read(tmp_path / "away.mhd")


META = b"ObjectType = Image\nNDims = 2\nDimSize = 4 4\nElementSpacing = 1 1\nElementType = MET_UCHAR\n"
NRRD = b"NRRD0004\ntype: uchar\ndimension: 2\nsizes: 4 4\nencoding: raw\n"


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a.mha", META.replace(b"NDims = 2", b"NDims = 11").replace(b"4 4", b"4 4" + b" 1" * 9)),
        ("a.mha", META.replace(b"NDims = 2", b"NDims = 2\nNDims = 93")),
        ("a.mha", META + b"ElementDataFile : secret.raw\n"),
        ("a.mha", META + b"ElementDataFile = ../secret.raw\n"),
        ("a.mha", META + b"ElementDataFile = missing.raw\n"),
        ("a.nrrd", NRRD + b"content: " + b"y" * 3000 + b"\nsizes: 4 4\n\n"),
        ("a.nrrd", NRRD + b"DATA FILE: ../secret.raw\n\n"),
        ("a.nrrd", NRRD + b"data file: " + b"z" * 3000 + b"\n\n"),
    ],
)
def test_I13_a_header_that_would_end_the_process_in_itk_or_reach_elsewhere_is_refused(tmp_path, name, header):
    (tmp_path / "secret.raw").write_bytes(bytes(16))
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / name).write_bytes(header + (b"" if b"data file" in header.lower() else b"ElementDataFile = LOCAL\n"))
    with pytest.raises(InputError, match=r"a\.(mha|nrrd)"):
        read(folder / name)


def test_I13_a_long_line_in_an_nrrd_header_is_nothing(tmp_path):
    (tmp_path / "a.nrrd").write_bytes(NRRD + b"content: " + b"y" * 20000 + b"\n\n" + bytes(range(16)))
    assert read(tmp_path / "a.nrrd").ravel().tolist() == list(range(16))


def test_I5_line_integrals_without_a_pixel_size_have_none(tmp_path):
    (tmp_path / "a.nrrd").write_bytes(NRRD + b"\n" + bytes(16))
    assert read_xray(tmp_path / "a.nrrd")[0].tags.pixel_mm is None
    (tmp_path / "a.nrrd").write_bytes(NRRD + b"spacings: 0 1\n\n" + bytes(16))
    with pytest.raises(InputError, match=r"a\.nrrd' has an impossible pixel size"):
        read(tmp_path / "a.nrrd")


def test_I1_files_of_other_kinds_are_named(tmp_path):
    for name, content, words in (
        ("a.pdf", b"%PDF-1.7 " + bytes(400), "PDF"),
        ("a.png", b"some words\n" * 50, "text"),
        ("a.gz", gzip.compress(b"some words\n" * 50), "text"),
        ("a", b"\x07\x99" * 300, "no known kind"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{words}.*DICOM, PNG"):
            read(tmp_path / name)


# ---------------------------------------------------------------- polarity of real chests


def test_I4_inverted_chests_are_noticed(shared_data):
    """Every real chest is told from its inverse; a wrong MONOCHROME1 tag is obeyed and noticed."""
    wrong = []
    for path in sorted((shared_data / "xray").glob("*.png")):
        pixels = np.asarray(Image.open(path)).astype(np.float32)
        image = torch.from_numpy(pixels)
        wrong += [path.name] * (looks_inverted(image) or not looks_inverted(image.max() - image))
    assert wrong == []
    fake, true = (shared_data / "xray_dicom" / name for name in ("Fake_MONOHR1.dcm", "rsna_6904.dcm"))
    with pytest.warns(VoxrayWarning, match="looks inverted.*--invert"):
        inverted = read(fake)
    assert np.array_equal(255 - inverted, read(true))
