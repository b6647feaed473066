"""DICOM CT series that are wrong: each defect has a message of its own, and none passes for a volume."""

import contextlib
import copy
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, RLELossless

from voxray.errors import InputError, ResourceError, VoxrayWarning
from voxray.images import ct_sources
from voxray.images.read_ct import read_ct

Series = list[FileDataset]


def duplicate(series: Series) -> None:
    series.append(copy.deepcopy(series[4]))


def all_twice(series: Series) -> None:
    series.extend(copy.deepcopy(series))


def missing(series: Series) -> None:
    del series[4:6]


def move(k: int, along: float, sideways: float = 0.0) -> Callable[[Series], None]:
    """Return a change that moves slice k by so many mm."""

    def change(series: Series) -> None:
        axes = np.reshape(series[k].ImageOrientationPatient, (2, 3)).astype(float)
        step = along * np.cross(*axes) + sideways * axes[0]
        series[k].ImagePositionPatient = (np.array(series[k].ImagePositionPatient, float) + step).tolist()

    return change


def put(name: str, value: object, k: int = 3) -> Callable[[Series], None]:
    return lambda series: setattr(series[k], name, value)


def drop(name: str, k: int = 3) -> Callable[[Series], None]:
    return lambda series: delattr(series[k], name)


def mpeg(series: Series) -> None:
    series[3].file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"
    series[3].PixelData = encapsulate([bytes(100)])
    series[3]["PixelData"].VR = "OB"


def smaller(series: Series) -> None:
    series[3].Rows, series[3].PixelData = 17, series[3].PixelData[:1360]


DEFECTS = {
    "duplicate_slices": (duplicate, r"1 duplicate slice\(s\), up to 2 in one place, first .*004.dcm' and .*012.dcm'"),
    "series_over_time": (all_twice, r"12 duplicate slice\(s\).* Is it a series over time \(4D\)\?"),
    "missing_slices": (missing, r"2 slice\(s\) missing between .*003.dcm' and .*004.dcm': 7.5 mm instead of 2.5 mm"),
    "uneven_spacing": (move(4, 0.4), r"not evenly spaced, between .*00[34].dcm' and .*: 2.[19] mm instead of 2.5"),
    "sideways": (move(4, 0.0, 3.0), r"004.dcm' is shifted sideways by .* mm from the line"),
    "patients": (put("PatientID", "P2"), r"mixes slices of several patients \(PatientID\).*11 of 'P1', 1 of 'P2'"),
    "sizes": (smaller, r"mixes slices of several image sizes .*11 of '34 x 40', 1 of '17 x 40'"),
    "pixel_spacings": (put("PixelSpacing", [1.3, 1.5]), r"mixes slices of several pixel spacings"),
    "orientations": (put("ImageOrientationPatient", [1, 0, 0, 0, 1, 0]), r"several orientations .*000.dcm' and .*003"),
    "single_slice": (lambda series: series.__delitem__(slice(1, None)), r"holds a single slice"),
    "unknown_codec": (
        mpeg,
        r"003.dcm' is compressed as 'MPEG2 Main Profile / Main Level', which voxray cannot decode",
    ),
    "no_position": (drop("ImagePositionPatient"), r"003.dcm' is a CT image without ImagePositionPatient"),
    "no_rescale": (drop("RescaleIntercept"), r"003.dcm' has no usable RescaleSlope and RescaleIntercept"),
    "no_pixels": (drop("PixelData"), r"003.dcm' is damaged or truncated: as DICOM, it has no pixel data"),
    "few_pixels": (lambda series: setattr(series[3], "PixelData", series[3].PixelData[:-2]), r"003.dcm' cannot be"),
    "no_rows": (drop("Rows"), r"003.dcm' is damaged or truncated: as DICOM, it has no Rows"),
    "skewed_axes": (put("ImageOrientationPatient", [1, 0, 0, 1, 1, 0]), r"not two perpendicular unit vectors"),
    "zero_spacing": (put("PixelSpacing", [0, 1]), r"PixelSpacing \[0.0, 1.0\] is not positive"),
    "bright_is_air": (put("PhotometricInterpretation", "MONOCHROME1"), r"pixels of kind 'MONOCHROME1'; a CT has MONO"),
    "iodine_map": (put("RescaleType", "MGML"), r"holds 'MGML', not Hounsfield units"),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_I7_each_defect_has_its_message(name, datasets, save):
    change, message = DEFECTS[name]
    change(datasets)
    with pytest.raises(InputError, match=message):
        read_ct(save(datasets))


def test_I7_no_two_defects_share_a_message():
    assert len({message for _, message in DEFECTS.values()}) == len(DEFECTS)


def test_I7_localizers_are_left_out(small_ct, datasets, save):
    scout = copy.deepcopy(datasets[0])
    scout.ImageType, scout.ImageOrientationPatient = ["ORIGINAL", "PRIMARY", "LOCALIZER"], [1, 0, 0, 0, 0, -1]
    with pytest.warns(VoxrayWarning, match=r"1 localizer image\(s\) in the series were left out"):
        volume = read_ct(save([*datasets, scout]))
    assert np.array_equal(volume.hu.numpy(), small_ct.hu)
    scout.SeriesInstanceUID = "1.2.3.9"  # in a series of their own, they need no word
    assert read_ct(save([*datasets, scout])).grid.shape == small_ct.stored.shape
    with pytest.raises(InputError, match="only localizers"):
        read_ct(save([scout], "scouts"))


def test_I7_a_single_file_is_refused_with_a_hint(datasets, save):
    with pytest.raises(InputError, match="is a single slice; give the folder"):
        read_ct(save(datasets) / "003.dcm")


def tilted(datasets: Series) -> tuple[Series, Callable[[np.ndarray], np.ndarray]]:
    """Return slices of a tilted gantry (20 degrees) and the HU at any place, a linear function of it."""
    angle = np.radians(20)
    axes = np.array([[1, 0, 0], [0, np.cos(angle), np.sin(angle)]])
    slope_hu = np.array([4.0, -3.0, 5.0])
    for k, ds in enumerate(datasets):
        position = np.array([-30.0, -20.0, 2.5 * k])
        ds.ImagePositionPatient, ds.ImageOrientationPatient = position.tolist(), axes.ravel().tolist()
        ds.PixelSpacing = [1.25, 1.5]
        row, column = np.mgrid[:34, :40]
        place = position + column[..., None] * 1.5 * axes[0] + row[..., None] * 1.25 * axes[1]
        ds.RescaleSlope = 0.01
        ds.PixelData = np.round((place @ slope_hu + 1024) * 100 - 10**5).astype("<i4").tobytes()
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.RescaleIntercept = 32, 32, 31, -1024 + 1000
    return datasets, lambda place: place @ slope_hu


def test_I7_a_tilted_gantry_is_refused_or_resampled(datasets, save):
    series, hu_at = tilted(datasets)
    folder = save(series)
    with pytest.raises(InputError, match=r"tilted gantry \(20.0 degrees\).*--resample-tilt"):
        read_ct(folder)
    volume = read_ct(folder, resample_tilt=True)
    hu = volume.hu.numpy()
    k, j, i = np.nonzero(hu > -1000)  # what was seen; the rest is new air
    edge = np.abs(hu[k, j, i] - hu_at(volume.grid.index_to_mm(np.stack([i, j, k], -1).astype(float))))
    assert len(k) >= 0.9 * 12 * 34 * 40
    assert (edge < 0.2).mean() > 0.95  # all but the rows at the edge, half air
    assert volume.grid.spacing_mm[2] == pytest.approx(2.5 * np.cos(np.radians(20)))


@pytest.mark.parametrize("syntax", [None, RLELossless, JPEG2000Lossless])
def test_I2_no_prefix_of_a_slice_is_read(syntax, datasets, save):
    if syntax:
        datasets[-1].compress(syntax, generate_instance_uid=False)  # at the end of the stack: no gap tells
    folder = save(datasets)
    whole = (folder / "011.dcm").read_bytes()
    for percent in range(100):
        (folder / "011.dcm").write_bytes(whole[: len(whole) * percent // 100])
        with pytest.raises(InputError, match=r"011\.dcm"):
            read_ct(folder)


def test_I10_size_is_checked_before_decoding(datasets, save):
    for ds in datasets:
        ds.Rows = ds.Columns = 65535
        ds.PixelSpacing = [0.01, 0.01]
    with pytest.raises(InputError, match=r"5.15e\+10 voxels"):
        read_ct(save(datasets))


def test_I10_a_lying_header_costs_no_memory(datasets, save):
    """With 400 MB to spare, a header of 4 GB is refused for what it is; it does not die of memory."""
    for ds in datasets:
        ds.Rows, ds.Columns = 9000, 9000
        ds.PixelSpacing = [0.06, 0.06]
    script = (
        "import resource, sys, pathlib\n"
        "from voxray.images.read_ct import read_ct\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 400 * 2**20,) * 2)\n"
        "try: read_ct(pathlib.Path(sys.argv[1]))\n"
        "except Exception as error: sys.exit(type(error).__name__ + ': ' + str(error))\n"
    )
    run = subprocess.run([sys.executable, "-c", script, save(datasets)], capture_output=True, text=True, check=False)
    assert re.match(r"InputError: .* (does not fit into the memory|cannot be read)", run.stderr)


def zipped(tmp_path: Path, folder: Path) -> Path:
    return Path(shutil.make_archive(str(tmp_path / "scan"), "zip", folder))


def test_I2_no_prefix_of_a_zip_is_read(datasets, save, tmp_path):
    archive = zipped(tmp_path, save(datasets))
    whole = archive.read_bytes()
    for percent in range(0, 100, 2):
        archive.write_bytes(whole[: len(whole) * percent // 100])
        with pytest.raises(InputError, match=r"scan\.zip"):
            read_ct(archive)


def test_I10_zip_bombs_are_refused(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for k in range(10):
            archive.writestr(f"{k}.dcm", bytes(10**7))
    with pytest.raises(InputError, match="a zip bomb"):
        read_ct(tmp_path / "bomb.zip")
    monkeypatch.setattr(ct_sources, "MAX_MEMBERS", 9)
    with pytest.raises(ResourceError, match="holds 10 files"):
        read_ct(tmp_path / "bomb.zip")


def test_I10_a_zip_that_lies_about_a_size_gives_no_more(datasets, save, tmp_path):
    archive = zipped(tmp_path, save(datasets))
    raw = bytearray(archive.read_bytes())
    entry = raw.index(b"PK\x01\x02")
    raw[entry + 24 : entry + 28] = (100).to_bytes(4, "little")  # the listed size of the first member
    archive.write_bytes(raw)
    with pytest.raises(InputError, match=r"000\.dcm|BadZipFile|damaged|not a DICOM"):
        read_ct(archive)


@pytest.mark.parametrize(
    "content", [b"", b"hello\n", b"\x89PNG\r\n\x1a\n" + bytes(300), bytes(128) + b"DICM", bytes(4000)]
)
def test_I1_a_file_that_only_is_named_dicom(content, datasets, save):
    folder = save(datasets)
    (folder / "more.dcm").write_bytes(content)
    with pytest.raises(InputError, match=r"more\.dcm"):
        read_ct(folder)


def test_I1_what_is_no_ct_at_all(tmp_path):
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "empty.nii").touch()
    for path, message in [
        (tmp_path / "none", "There is no file"), (tmp_path / "text.txt", "no CT that voxray reads: a DICOM folder"),
        (tmp_path, "no CT that voxray reads"), (tmp_path / "empty.nii", "is empty"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=message):
            read_ct(path)


def mutate(folder: Path, seed: int) -> None:
    """Change up to eight bytes of one slice, most of them in its header."""
    rng = np.random.default_rng(seed)
    file = folder / f"{rng.integers(12):03d}.dcm"
    raw = bytearray(file.read_bytes())
    for _ in range(rng.integers(1, 9)):
        raw[rng.integers(128, len(raw) if rng.random() < 0.2 else 900)] = rng.integers(256)
    file.write_bytes(raw)


@pytest.mark.filterwarnings("ignore::voxray.errors.VoxrayWarning")
@pytest.mark.parametrize("count", [150, pytest.param(5000, marks=pytest.mark.slow)])
def test_I13_mutated_slices_end_in_a_volume_or_one_error(count, small_ct, datasets, save, tmp_path):
    whole = save(datasets)
    outcomes = set()
    for seed in range(count):
        broken = tmp_path / "mutant"
        shutil.copytree(whole, broken)
        mutate(broken, seed)
        with contextlib.suppress(InputError, ResourceError):
            volume = read_ct(broken)
            outcomes.add("read")
            assert volume.hu.min() >= -1024
            assert volume.grid.size_mm.max() <= 2000
        outcomes.add("done")
        shutil.rmtree(broken)
    assert "read" in outcomes
    assert os.listdir(whole)
