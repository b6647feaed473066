"""`voxray reconstruct` on one patient."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Cli = Callable[..., object]


def test_T2_project_then_reconstruct_gives_all_outputs(cli: Cli, projected: Path, tiny: str, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    done = cli(
        "reconstruct", projected / "pa.nii.gz", projected / "lateral.nii.gz",
        "--geometry", projected / "geometry.json", "--model", tiny, "-o", out,
    )  # fmt: skip
    assert done.code == 0
    assert sorted(file.name for file in out.iterdir()) == ["ct.nii.gz", "preview.png", "report.json"]
    for file in out.iterdir():
        assert str(file) in done.out
    lines = done.out.splitlines()
    for view in ("pa", "lateral"):
        assert any(line.startswith(view) and line.split()[1].endswith(f"{view}.nii.gz") for line in lines)
    assert "not a medical device" in done.out


def test_O4_every_option_reaches_the_report(cli: Cli, tiny: str, tmp_path: Path) -> None:
    xray = tmp_path / "one.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 60000, (32, 32)).astype(np.uint16)).save(xray)
    done = cli(
        "reconstruct", xray, "-o", tmp_path / "out", "--model", tiny, "--views", "pa", "--pixel-mm", 13, "--sdd-mm",
        2000, "--sid-mm", 1700, "--seed", 7, "--samples", 2, "--outside", "air", "--keep-phi", "--format", "nrrd",
        "--format", "dicom", "--device", "cpu", "--force-chest",
    )  # fmt: skip
    assert done.code == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["seed"] == 7
    assert report["method"]["outside"] == "air"
    assert report["inputs"][0]["file"] == "one.png"
    assert report["inputs"][0]["pixel_mm"] == [13.0, 13.0]
    view = report["geometry"]["views"]["pa"]
    assert np.linalg.norm(np.subtract(view["source_mm"], view["centre_mm"])) == pytest.approx(2000)
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {"ct.nrrd", "sample_1.nrrd", "sample_2.nrrd", "std.nrrd", "dicom", "preview.png", "report.json"}


def test_I5_assumptions_are_notes_once_and_in_the_report(cli: Cli, tiny: str, tmp_path: Path) -> None:
    for name in ("pa", "lateral"):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16)).astype(np.uint8)).save(
            tmp_path / f"{name}.png"
        )
    files = (tmp_path / "pa.png", tmp_path / "lateral.png")
    done = cli("reconstruct", *files, "-o", tmp_path / "out", "--model", tiny, "--force-chest")
    assert done.code == 0
    notes = [line for line in done.err.splitlines() if line.startswith("note: ")]
    assert any("--sdd-mm" in note for note in notes)
    assert any("--lateral-anterior" in note for note in notes)
    assert len(notes) == len(set(notes))
    assert len(json.loads((tmp_path / "out" / "report.json").read_text())["warnings"]) == len(notes)


def test_I5_strict_refuses_instead(cli: Cli, tiny: str, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((16, 16), dtype=np.uint8) + 7).save(tmp_path / "pa.png")
    done = cli("reconstruct", tmp_path / "pa.png", "-o", tmp_path / "out", "--model", tiny, "--strict")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert not (tmp_path / "out").exists()


def test_I12_existing_output_is_refused_before_anything_is_read(
    cli: Cli, tiny: str, projected: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    done = cli("reconstruct", "there-is-no-such-file.png", "-o", tmp_path / "out", "--model", tiny)
    assert done.code == 2
    assert "--overwrite" in done.err
    done = cli("reconstruct", projected, "-o", tmp_path / "out", "--model", tiny, "--overwrite")
    assert done.code == 0
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_I12_an_empty_folder_may_be_the_output(cli: Cli, tiny: str, projected: Path, tmp_path: Path) -> None:
    assert cli("reconstruct", projected, "-o", tmp_path, "--model", tiny).code == 0


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
def test_I12_the_folder_of_the_input_is_no_output(
    cli: Cli, tiny: str, projected: Path, overwrite: tuple[str, ...]
) -> None:
    before = sorted(projected.iterdir())
    done = cli("reconstruct", projected, "-o", projected, "--model", tiny, *overwrite)
    assert done.code == 2
    assert sorted(projected.iterdir()) == before


def test_I12_a_file_is_no_output_folder(cli: Cli, tiny: str, projected: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert cli("reconstruct", projected, "-o", out, "--model", tiny, "--overwrite").code == 2
    assert (tmp_path / "file").read_text() == "mine"


def test_I12_spaces_unicode_and_links(cli: Cli, tiny: str, projected: Path, tmp_path: Path) -> None:
    folder = tmp_path / "Röntgen [1] 日本 'x'"
    folder.mkdir()
    for name in ("pa.nii.gz", "lateral.nii.gz", "geometry.json"):
        (folder / name).symlink_to(projected / name)
    out = tmp_path / "Ergebnis 1 [bold]"
    done = cli("reconstruct", folder, "-o", out, "--model", tiny)
    assert done.code == 0
    assert str(out / "ct.nii.gz") in done.out
    assert (out / "ct.nii.gz").is_file()


def test_I6_views_of_the_command_line_stand_above_the_folders(
    cli: Cli, tiny: str, projected: Path, tmp_path: Path
) -> None:
    done = cli("reconstruct", projected, "-o", tmp_path / "out", "--model", tiny, "--views", "right_lateral,pa")
    assert done.code == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [image["view"] for image in report["inputs"]] == ["right_lateral", "pa"]
    assert "lateral.nii.gz" in next(line for line in done.out.splitlines() if line.startswith("right_lateral"))


def test_T2_what_is_no_chest_is_bad_input(cli: Cli, tiny: str, tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)).save(tmp_path / "pa.png")
    done = cli("reconstruct", tmp_path / "pa.png", "-o", tmp_path / "out", "--model", tiny)
    assert done.code == 2
    assert "--force-chest" in done.err
    assert not (tmp_path / "out").exists()


def test_results_on_finer_voxels(cli: Cli, tiny: str, projected: Path, tmp_path: Path) -> None:
    asked = ("reconstruct", projected, "--model", tiny, "--upsample", 2)
    done = cli(*asked, "-o", tmp_path / "out", "--upsample-model", "linear")
    assert done.code == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["grid"]["shape"], report["grid"]["spacing_mm"]) == ([32, 32, 32], [10.0, 10.0, 10.0])
    assert report["method"]["upsample"] == {"factor": 2, "model": "linear"}
    done = cli(*asked, "-o", tmp_path / "other", "--upsample-model", "nothing")
    assert done.code == 3
    assert "voxray train upsample" in done.err
    assert not (tmp_path / "other").exists()
