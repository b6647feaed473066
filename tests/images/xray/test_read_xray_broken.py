"""Files cut short anywhere, and files with wrong bytes: an error of ours, or the whole image; nothing else."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from voxray.errors import InputError, VoxrayError
from voxray.images.read_xray import read_xray

MakeFile = Callable[[str], Path]
NAMES = ["native.dcm", "rle.dcm", "jpegls.dcm", "jpeg2000.dcm", "bare.dcm", "x.png", "x16.png", "x.tif", "lzw.tif",
         "x.jpg", "x.nii", "x.nii.gz", "x.mha", "x.nrrd"]  # fmt: skip
SYNTAXES = {"rle.dcm": RLELossless, "jpegls.dcm": JPEGLSLossless, "jpeg2000.dcm": JPEG2000Lossless}


@pytest.fixture
def make_file(tmp_path: Path, make_xray: Callable[..., Path], small_xray: np.ndarray) -> MakeFile:
    def make(name: str) -> Path:
        path = tmp_path / name
        if name == "bare.dcm":
            dataset = dcmread(make_xray(name))
            del dataset.file_meta
            dataset.preamble = None
            dataset.save_as(path, implicit_vr=True, little_endian=True)
        elif name.endswith("dcm"):
            make_xray(name, syntax=SYNTAXES.get(name, ""))
        elif name.endswith(("png", "tif", "jpg")):
            image = small_xray * 15 if name == "x16.png" else (small_xray // 16).astype(np.uint8)
            Image.fromarray(image).save(path, **({"compression": "tiff_lzw"} if name == "lzw.tif" else {}))
        else:
            sitk.WriteImage(sitk.GetImageFromArray(small_xray[None] / np.float32(500)), path, name == "x.nrrd")
        return path

    return make


def quietly(path: Path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_xray(path)[0].pixels.numpy()


@pytest.mark.parametrize("name", NAMES)
def test_I2_every_prefix_is_refused(make_file, name):
    path = make_file(name)
    quietly(path)
    whole = path.read_bytes()
    for percent in range(100):
        path.write_bytes(whole[: len(whole) * percent // 100])
        with pytest.raises(InputError, match=name):
            quietly(path)


def test_I2_the_bytes_are_counted(make_file):
    path = make_file("native.dcm")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match="2840 bytes of pixels instead of 3840"):
        quietly(path)


@pytest.mark.parametrize("name", SYNTAXES)
def test_I2_a_frame_cut_short_inside_a_whole_file_is_refused(make_file, name):
    path = make_file(name)
    dataset = dcmread(path)
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    for share in (0.1, 0.5, 0.9, 0.99):
        dataset.PixelData = encapsulate([frame[: int(len(frame) * share)]])
        dataset.save_as(path)
        with pytest.raises(InputError, match=name):
            quietly(path)


@pytest.mark.parametrize("name", ["RG3_JPLL.dcm", "rsna_6904.dcm", "RG3_J2KR.dcm", "RG1_JLSN.dcm"])
def test_I2_a_real_frame_cut_short_is_refused(shared_data, tmp_path, name):
    dataset = dcmread(shared_data / "xray_dicom" / name)
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    dataset.PixelData = encapsulate([frame[: len(frame) * 9 // 10]])
    dataset.save_as(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}.*frame 1 is cut off after \d+ bytes"):
        quietly(tmp_path / name)


@pytest.mark.parametrize(("place", "value"), [(4, 17), (4, 44), (6, 99), (9, 3)])
def test_I13_a_jpeg_that_would_end_the_process_in_gdcm_is_refused(shared_data, tmp_path, place, value):
    raw = bytearray((shared_data / "xray_dicom" / "RG3_JPLL.dcm").read_bytes())
    raw[raw.index(b"\xff\xc3") + place] = value  # bits, rows or components of the frame
    (tmp_path / "bits.dcm").write_bytes(raw)
    with pytest.raises(InputError, match=r"bits\.dcm' holds a JPEG of .* it is damaged"):
        quietly(tmp_path / "bits.dcm")


def mutate(make_file: MakeFile, count: int, seed: int) -> int:
    """Read `count` files with wrong bytes; return how many were refused."""
    rng = np.random.default_rng(seed)
    originals = {name: make_file(name).read_bytes() for name in NAMES}
    refused: list[tuple[str, str]] = []
    for i in range(count):
        name = NAMES[i % len(NAMES)]
        content = bytearray(originals[name])
        reach = len(content) if rng.random() < 0.3 else min(1200, len(content))  # mostly headers
        for position in rng.integers(0, reach, rng.integers(1, 6)):
            content[position] = rng.integers(256)
        path = make_file(name)
        path.write_bytes(content)
        try:
            assert np.isfinite(quietly(path)).all()
        except VoxrayError as error:
            refused.append((name, str(error)))
    assert [message for name, message in refused if name not in message] == []
    return len(refused)


def test_I13_wrong_bytes_raise_nothing_but_our_errors(make_file):
    assert 0 < mutate(make_file, 150, seed=1) < 150


@pytest.mark.slow
def test_I13_many_wrong_bytes_raise_nothing_but_our_errors(make_file):
    assert 0 < mutate(make_file, 5000, seed=2) < 5000
