"""`evaluate` into a folder, `compare`, `report` and `bench quality`."""

from collections.abc import Callable
from pathlib import Path

import pytest

Cli = Callable[..., object]
COMMON = ("--split", "all", "--setup", "xraysyn")


def last_line(done: object) -> str:
    """The error; before it, it is said what the model was trained on."""
    line = done.err.splitlines()[-1]  # type: ignore[attr-defined]
    assert line.startswith("error: ")
    return line


def test_evaluate_compare_and_report(cli: Cli, tiny: str, store: Path, tmp_path: Path) -> None:
    evaluate = ("evaluate", tiny, store, *COMMON, "--protocol", "closed", "--metrics", "psnr3d,mae_body", "-o")
    done = cli(*evaluate, tmp_path / "one")
    assert done.code == 0
    assert done.out.splitlines()[-1] == str(tmp_path / "one")
    assert "3D PSNR, dB" in done.out
    assert "MAE, HU" not in done.out
    again = cli(*evaluate, tmp_path / "one")
    assert (again.code, again.out) == (0, done.out)

    variant = f"{tiny}:config.detail_iterations=0"
    compare = ("compare", tiny, variant, store, *COMMON, "--protocol", "closed", "--metrics", "psnr3d,mae_body")
    compare = (*compare, "--views", "1", "--views", "pa,lateral", "-o", tmp_path / "two")
    done = cli(*compare)
    assert done.code == 0
    assert not list((tmp_path / "two").glob("report.*"))
    again = cli(*compare, "--report")
    assert (again.code, again.out) == (0, done.out)
    assert "tiny detail_iterations=0" in (tmp_path / "two" / "report.html").read_text(encoding="utf-8")
    assert cli(*compare, "--report").code == 0
    lines = [line for line in done.out.splitlines() if line.startswith("closed")]
    assert len(lines) == 2 * 3
    assert sum("tiny detail_iterations=0" in line for line in lines) == 2

    out = tmp_path / "made" / "report.html"
    done = cli("report", tmp_path / "one", tmp_path / "two", "-o", out, "--title", "Mine", "--reference", tiny)
    assert done.code == 0
    assert done.out.split() == [str(out.with_suffix(ending)) for ending in (".html", ".tex", ".csv")]
    assert "<h1>Mine</h1>" in out.read_text(encoding="utf-8")
    assert cli("report", tmp_path / "one", "-o", out).code == 2


def test_I12_results_of_another_evaluation_are_refused(cli: Cli, tiny: str, store: Path, tmp_path: Path) -> None:
    compare = ("compare", tiny, store, *COMMON, "--protocol", "closed", "--metrics", "psnr3d", "-o", tmp_path / "out")
    assert cli(*compare).code == 0
    done = cli(*compare, "--seed", "1")
    assert done.code == 2
    assert "seed 0 there, 1 here" in last_line(done)
    assert cli(*compare, "--seed", "1", "--overwrite").code == 0


@pytest.mark.parametrize(("arguments", "says"), [
    (("compare", "tiny", "{store}", "-o", "out", "--metrics", "psnr"), "no metric 'psnr'"),
    (("compare", "tiny", "tiny", "{store}", "-o", "out"), "Two models are called 'tiny'"),
    (("compare", "tiny:config.nothing=1", "{store}", "-o", "out"), "nothing"),
    (("compare", "tiny", "-o", "out"), "compare --help"),
    (("compare", "tiny", "{store}", "-o", "table.csv"), "is no folder"),
    (("report", "{store}", "-o", "r.html"), "holds no results of an evaluation"),
    (("bench", "quality", "--data", "nowhere", "-o", "out"), "is no store"),
])  # fmt: skip
def test_T2_what_cannot_be_done_is_2(
    cli: Cli, tiny: str, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.csv").write_text("")
    done = cli(*(str(store) if word == "{store}" else word for word in arguments),
               *(("--split", "all") if arguments[0] == "compare" else ()))  # fmt: skip
    assert (done.code, done.out) == (2, "")
    assert says in last_line(done)
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


def test_bench_quality_fills_the_papers_tables(cli: Cli, tiny: str, store: Path, tmp_path: Path) -> None:
    quality = ("bench", "quality", "--data", store, "-o", tmp_path / "q", "--model", tiny, *COMMON)
    done = cli(*quality)
    assert done.code == 0
    files = [tmp_path / "q" / f"quality.{ending}" for ending in ("html", "tex", "csv")]
    assert done.out.split() == [str(file) for file in files]
    text = files[0].read_text(encoding="utf-8")
    for table in ("Table I:", "Table II:", "Table III:", "Table V:", "Table VI:", "Table VII:"):
        assert f"DVG-Diffusion, {table}" in text
    assert "DX2CT, Table II:" in text
    assert text.count("voxray: tiny") == 3
    assert "voxray: no such model at hand" in text
    without = [word for word in quality if word not in ("--model", tiny)]
    assert cli(*without).code == 0, "the embedded models are on another grid than the store: the same evaluation"
