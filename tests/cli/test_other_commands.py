"""`prepare`, `train`, `evaluate`, `models`, `info`, `doctor`, `demo`."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from voxray.cli import main
from voxray.cli.prepare import PrepareArguments
from voxray.data.options import PrepareOptions
from voxray.errors import InputError
from voxray.images.disclaimer import made_by

Cli = Callable[..., object]


def test_T2_prepare_goes_on_and_lists_what_failed(cli: Cli, cts: Path, store: Path, tmp_path: Path) -> None:
    size = ("--shape", "16", "--spacing-mm", "20", "--workers", "1", "--fractions", "train=1", "--centre", "body")
    done = cli("prepare", cts, "-o", store, *size)
    assert done.code == 0
    assert "0 prepared, 3 there already" in done.out
    (tmp_path / "bad.nii.gz").write_bytes(b"nothing")
    done = cli("prepare", cts / "c0.nii.gz", tmp_path / "bad.nii.gz", "-o", tmp_path / "store", *size)
    assert done.code == 2
    assert "1 prepared" in done.out
    assert "bad.nii.gz" in done.err


@pytest.mark.parametrize(("arguments", "options"), [
    ({"shape": "16,24,32"}, {"shape": (16, 24, 32)}), ({"centre": "-1,2,3.5"}, {"centre": (-1.0, 2.0, 3.5)}),
    ({"box": "0,0,0,10,20,30"}, {"box": (0.0, 0.0, 0.0, 10.0, 20.0, 30.0)}),
    ({"mask": Path("m")}, {"centre_mask": Path("m")}),
    ({"body_mask": "none"}, {"body_mask": "none"}), ({"body_mask": "masks"}, {"body_mask": Path("masks")}),
    ({"fractions": "train=0.9,test=0.1"}, {"fractions": {"train": 0.9, "test": 0.1}}),
])  # fmt: skip
def test_prepare_arguments_become_options(arguments: dict, options: dict) -> None:
    assert PrepareArguments(**arguments).options() == PrepareOptions(**{"shape": (128, 128, 128)} | options)


@pytest.mark.parametrize("arguments", [
    {"shape": "1,2"}, {"shape": "x"}, {"centre": "head"}, {"centre": "1,2"}, {"box": "1,2,3"}, {"fractions": "train"},
    {"shape": "4"}, {"box": "0,0,0,1,1,1", "mask": Path("m")}, {"workers": -1},
])  # fmt: skip
def test_prepare_arguments_that_make_no_sense(arguments: dict) -> None:
    with pytest.raises(InputError):
        PrepareArguments(**arguments).options()


def test_N10_evaluate_prints_a_table_and_writes_a_csv(cli: Cli, tiny: str, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "table.csv"
    done = cli("evaluate", tiny, store, "--split", "all", "--views", "2", "--protocol", "closed", "-o", out)
    assert done.code == 0
    rows = list(csv.DictReader(out.open()))
    assert {(row["protocol"], row["model"]) for row in rows} == {("closed", "tiny"), ("closed", "mean")}
    assert len(rows) == 2 * 3
    lines = [line.split() for line in done.out.splitlines()]
    means = {line[1]: float(line[3]) for line in lines if line and line[0] == "closed"}
    scores = [float(row["psnr3d"]) for row in rows if row["model"] == "tiny"]
    assert means["tiny"] == pytest.approx(sum(scores) / 3, rel=1e-3)
    assert cli("evaluate", tiny, store, "--split", "all", "-o", out).code == 2


def test_I12_a_model_is_not_overwritten(cli: Cli, store: Path, tiny_folder: Path) -> None:
    before = (tiny_folder / "weights.safetensors").read_bytes()
    done = cli("train", "atlas", "--data", store, "-o", tiny_folder)
    assert done.code == 2
    assert "--resume" in done.err
    assert (tiny_folder / "weights.safetensors").read_bytes() == before


def test_info_shows_what_is_in_a_file(
    cli: Cli, tiny: str, tiny_folder: Path, cts: Path, store: Path, projected: Path
) -> None:
    for path, says in {
        cts / "c0.nii.gz": "Hounsfield", projected / "pa.nii.gz": "line integrals", tiny_folder: "SHA-256",
        projected / "geometry.json": "isocentre", store: "train",
    }.items():  # fmt: skip
        done = cli("info", path)
        assert done.code == 0
        assert says in done.out
    done = cli("info")
    assert made_by() in done.out
    assert "tiny" in done.out


def test_I13_info_sends_no_commands_to_the_terminal(cli: Cli, tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder, tmp_path / "m")
    (tmp_path / "m" / "MODEL_CARD.md").write_text(
        "Größe\tof \x1b]0;title\x07\x1b[2J\x9b31m\u202ethis\nmodel\x00", "utf-8"
    )
    said = cli("info", tmp_path / "m").out
    assert "Größe" in said
    assert "this\nmodel\n" in said
    assert not set(said) & set("\x00\x07\x1b\x9b\u202e")


def test_O4_info_tells_nothing_about_the_patient(cli: Cli, shared_data: Path) -> None:
    import pydicom

    path = shared_data / "xray_dicom" / "CR-MONO1-10-chest.dcm"
    tags = pydicom.dcmread(path, force=True)
    done = cli("info", path)
    assert done.code == 0
    assert "grey values" in done.out
    for word in (*str(tags.get("PatientName", "")).split("^"), str(tags.get("PatientID", ""))):
        assert len(word) < 3 or word not in done.out


def test_I7_info_lists_the_series_of_a_dicom_folder(cli: Cli, shared_data: Path) -> None:
    done = cli("info", shared_data / "dicom_ct" / "lungdx_a0001")
    assert done.code == 0
    (line,) = [line for line in done.out.splitlines() if line.startswith("CT")]
    assert line.split()[1] == "64"


def test_I1_info_says_why_a_file_is_neither(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "text.dcm").write_text("hello")
    done = cli("info", tmp_path / "text.dcm")
    assert done.code == 2
    assert "neither an X-ray nor a CT" in done.err


def test_T3_doctor_names_codecs_and_extras(cli: Cli) -> None:
    done = cli("doctor")
    assert done.code == 0
    assert "no codec" not in done.out
    for word in ("torch", "memory", "disk", "JPEG 2000", "RLE", "extra cluster", "extra jpeg-lossless"):
        assert word in done.out


def test_T2_version(cli: Cli) -> None:
    assert cli("--version").out.strip() == made_by()


@pytest.mark.slow
def test_T1_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "-o", str(out)]) == 0
    said = capsys.readouterr().out
    volumes = [f"{name}.nii.gz" for name in ("ct", "high90", "low90", "std")]
    assert {file.name for file in out.iterdir()} == {*volumes, "preview.png", "report.json"}
    decibels = float(said.partition("3D PSNR against the true CT: ")[2].split()[0])
    assert decibels > 20
    assert main(["demo", "-o", str(out)]) == 2
