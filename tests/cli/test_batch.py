"""`voxray reconstruct` on a folder or a CSV of patients."""

import gzip
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from voxray.cli.patients import Patient, find_patients
from voxray.errors import InputError, VoxrayWarning

Cli = Callable[..., object]


@pytest.fixture
def patients(projected: Path, tmp_path: Path) -> Path:
    """Three patients; the X-ray of the second is damaged."""
    folder = tmp_path / "patients"
    for name in ("anna", "bert", "carl"):
        (folder / name).mkdir(parents=True)
        for file in ("pa.nii.gz", "lateral.nii.gz", "geometry.json", "preview.png"):
            (folder / name / file).write_bytes((projected / file).read_bytes())
    (folder / "bert" / "pa.nii.gz").write_bytes(b"nothing")
    (folder / "notes.txt").write_text("not an X-ray")
    return folder


def written(out: Path) -> dict[str, int]:
    return {str(file.relative_to(out)): file.stat().st_mtime_ns for file in sorted(out.rglob("*")) if file.is_file()}


def test_T2_one_bad_patient_stops_no_other_and_is_listed(cli: Cli, tiny: str, patients: Path, tmp_path: Path) -> None:
    done = cli("reconstruct", patients, "-o", tmp_path / "out", "--model", tiny)
    assert done.code == 2
    assert "1 of 3 patients failed" in done.err
    assert "bert: " in done.err
    assert "pa.nii.gz" in done.err
    for name in ("anna", "carl"):
        assert (tmp_path / "out" / name / "report.json").is_file()
    assert not (tmp_path / "out" / "bert").exists()
    results = {
        line.split()[0]: line.split()[1] for line in done.out.splitlines() if line[:4] in ("anna", "bert", "carl")
    }
    assert results == {"anna": "done", "bert": "failed", "carl": "done"}


def test_T2_an_xray_that_is_too_large_stops_no_other(cli: Cli, tiny: str, patients: Path, tmp_path: Path) -> None:
    header = bytearray(gzip.decompress((patients / "anna" / "pa.nii.gz").read_bytes())[:1000])
    header[42:46] = (30000).to_bytes(2, "little") * 2
    (patients / "bert" / "pa.nii.gz").write_bytes(gzip.compress(header))
    done = cli("reconstruct", patients, "-o", tmp_path / "out", "--model", tiny)
    assert done.code == 2
    assert "1 of 3 patients failed" in done.err
    assert "9e+08 pixels" in done.err
    assert (tmp_path / "out" / "carl" / "report.json").is_file()


def test_T2_a_second_run_does_only_what_is_missing(cli: Cli, tiny: str, patients: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cli("reconstruct", patients, "-o", out, "--model", tiny)
    before = written(out)
    before.pop("batch.json")
    (out / "bert").mkdir()
    (out / "bert" / "ct.nii.gz").write_text("what a killed run left")
    (patients / "bert" / "pa.nii.gz").write_bytes((patients / "anna" / "pa.nii.gz").read_bytes())
    assert cli("reconstruct", patients, "-o", out, "--model", tiny).code == 0
    after = written(out)
    assert before.items() <= after.items()
    assert "bert/report.json" in after
    assert (out / "bert" / "ct.nii.gz").read_bytes()[:2] == b"\x1f\x8b"


def test_I12_other_settings_or_other_xrays_are_not_mixed_in(
    cli: Cli, tiny: str, patients: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    cli("reconstruct", patients, "-o", out, "--model", tiny)
    before = written(out)
    done = cli("reconstruct", patients, "-o", out, "--model", tiny, "--seed", 1)
    assert done.code == 2
    assert "other settings" in done.err
    (patients / "anna" / "pa.nii.gz").write_bytes((patients / "anna" / "lateral.nii.gz").read_bytes())
    done = cli("reconstruct", patients, "-o", out, "--model", tiny)
    assert "anna: " in done.err
    assert "exists already" in done.err
    assert written(out) == before
    done = cli("reconstruct", patients, "-o", out, "--model", tiny, "--seed", 1, "--overwrite")
    assert "anna" not in done.err.partition("failed")[2]
    assert json.loads((out / "anna" / "report.json").read_text())["seed"] == 1


def test_I12_a_changed_geometry_or_model_is_not_there_already(
    cli: Cli, tiny_folder: Path, patients: Path, projected: Path, tmp_path: Path
) -> None:
    model, geometry = tmp_path / "tiny", tmp_path / "views.json"
    shutil.copytree(tiny_folder, model)
    shutil.copy(projected / "geometry.json", geometry)
    shutil.rmtree(patients / "bert")
    for folder in patients.glob("*/"):
        (folder / "preview.png").unlink()
        (folder / "geometry.json").unlink()
    run = ("reconstruct", patients, "-o", tmp_path / "out", "--model", model, "--geometry", geometry)
    assert cli(*run).code == 0
    assert "there already" in cli(*run).out
    for file in (geometry, model / "recipe.yaml"):
        before = file.read_text()
        file.write_text(before + "\n")
        done = cli(*run)
        assert done.code == 2
        assert "results of other settings" in done.err
        file.write_text(before)
    (model / "weights.safetensors").write_bytes(b"")
    assert "results of other settings" in cli(*run).err
    geometry.unlink()
    assert cli(*run).code == 2


def test_T2_a_bad_model_stops_all(cli: Cli, patients: Path, tmp_path: Path) -> None:
    assert cli("reconstruct", patients, "-o", tmp_path / "out", "--model", "nothing").code == 3


def test_T2_a_csv_of_patients(cli: Cli, tiny: str, projected: Path, tmp_path: Path) -> None:
    table = projected.parent / "patients.csv"
    table.write_text("id,files,geometry\nanna,xrays/pa.nii.gz;xrays/lateral.nii.gz,xrays/geometry.json\n")
    done = cli("reconstruct", table, "-o", tmp_path / "out", "--model", tiny)
    assert done.code == 0
    report = json.loads((tmp_path / "out" / "anna" / "report.json").read_text())
    assert [image["view"] for image in report["inputs"]] == ["pa", "lateral"]


def test_T2_ctrl_c_leaves_whole_files_and_the_next_run_goes_on(
    cli: Cli, tiny: str, patients: Path, tmp_path: Path
) -> None:
    for name in ("bert", *(f"zoe{n}" for n in range(9))):  # many: a run that is over cannot be stopped
        (patients / name).mkdir(exist_ok=True)
        (patients / name / "pa.nii.gz").write_bytes((patients / "anna" / "pa.nii.gz").read_bytes())
    out = tmp_path / "out"
    command = [sys.executable, "-m", "voxray", "reconstruct", str(patients), "-o", str(out), "--model", tiny]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        while said and "bert (2 of 12)" not in said:
            said = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait() == 130
    assert "Stopped" in rest
    assert "Traceback" not in rest
    names = {Path(name).name for name in written(out)}
    assert names <= {"ct.nii.gz", "preview.png", "report.json", "batch.json"}  # no temporary file
    assert (out / "anna" / "report.json").is_file()
    assert not (out / "zoe8").exists()
    before = written(out)
    assert cli("reconstruct", patients, "-o", out, "--model", tiny).code == 0
    for name in ("anna/ct.nii.gz", "anna/report.json"):
        assert written(out)[name] == before[name]
    assert {"anna/report.json", "bert/report.json", "zoe8/report.json"} <= written(out).keys()


# ---------------------------------------------------------------- which patients there are


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")


def test_files_are_one_patient(tmp_path: Path) -> None:
    files = [tmp_path / "a.dcm", tmp_path / "b.dcm"]
    assert find_patients(files) == [Patient("", tuple(files))]


def test_a_folder_of_files_is_one_patient(tmp_path: Path) -> None:
    touch(tmp_path / "PA.DCM", tmp_path / "lat.png", tmp_path / "note.txt", tmp_path / ".hidden.png")
    assert find_patients([tmp_path]) == [Patient("", (tmp_path / "PA.DCM", tmp_path / "lat.png"))]


def test_a_folder_of_folders_is_many(tmp_path: Path) -> None:
    touch(tmp_path / "b" / "x.png", tmp_path / "a" / "y.dcm", tmp_path / "empty" / "note.txt")
    with pytest.warns(VoxrayWarning, match="Left out.*: empty"):
        assert [patient.id for patient in find_patients([tmp_path])] == ["a", "b"]


def test_I6_a_geometry_in_the_folder_names_its_files(projected: Path) -> None:
    (patient,) = find_patients([projected])
    assert [file.name for file in patient.files] == ["pa.nii.gz", "lateral.nii.gz"]  # not preview.png
    assert patient.geometry == projected / "geometry.json"


def test_a_folder_of_both_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "x.png", tmp_path / "a" / "y.png")
    with pytest.raises(InputError, match="folders of X-ray files"):
        find_patients([tmp_path])


def test_a_folder_without_xrays_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no X-ray files"):
        find_patients([tmp_path])


def test_a_folder_comes_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="alone"):
        find_patients([tmp_path, tmp_path / "x.png"])


def test_a_csv_with_a_column_a_view(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("id,pa,lateral\nanna,a/1.dcm,a/2.dcm\nbert,b.dcm,\n", encoding="utf-8-sig")
    assert find_patients([tmp_path / "p.csv"]) == [
        Patient("anna", (tmp_path / "a/1.dcm", tmp_path / "a/2.dcm"), ("pa", "lateral")),
        Patient("bert", (tmp_path / "b.dcm",), ("pa",)),
    ]


@pytest.mark.parametrize("text", [
    "", "id\nanna\n", "files\na.dcm\n", "id,files,pa\nanna,a.dcm,b.dcm\n", "id,files\nanna,\n", "id,files\n,a.dcm\n",
    "id,files\nanna,a.dcm\nanna,b.dcm\n", "id,files\n../anna,a.dcm\n", "id,files\n/anna,a.dcm\n",
    "id,files\n..,a.dcm\n",     "id,pa,geometry\nanna,a.dcm,g.json\n", "id,files\nanna\x00,a.dcm\n",
])  # fmt: skip
def test_I13_a_csv_that_is_wrong_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(InputError):
        find_patients([tmp_path / "p.csv"])
