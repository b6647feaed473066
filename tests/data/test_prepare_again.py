"""`prepare` again: after a failure, a kill, a change of options or of the table."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ct_maker import chest, save, small

from voxray.data.prepare import prepare
from voxray.data.store import Case, Store, write_case


def test_O1_a_case_that_fails_under_new_options_leaves_nothing_old(cts: Path, tmp_path: Path) -> None:
    save(chest(lungs=False)[0], cts / "abdomen.nii.gz")
    prepare([cts], tmp_path / "s", small(centre="scan"))
    summary = prepare([cts], tmp_path / "s", small())
    assert [Path(path).name for path in summary.failed] == ["abdomen.nii.gz"]
    assert Store.open(tmp_path / "s").cases() == ["a", "b", "c"]
    (tmp_path / "s" / "manifest.json").unlink()
    assert Store.open(tmp_path / "s").cases() == ["a", "b", "c"]


def test_O1_a_patient_is_in_one_split_while_a_table_changes(
    cts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "t.csv"
    for split in ("train", "val"):
        table.write_text(f"id,split,patient\na,{split},p\nb,{split},p\nc,{split},p\n")
        if split == "val":
            killed_after(2, monkeypatch)
        with contextlib.suppress(KeyboardInterrupt):
            prepare([cts], tmp_path / "s", small(table=table))
    store = Store.open(tmp_path / "s")
    assert {record.split for record in store.records.values()} == {"val"}
    assert len(store.cases()) == 2


def test_O1_options_do_not_mix_after_a_kill(cts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare([cts], tmp_path / "s", small())
    killed_after(1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        prepare([cts], tmp_path / "s", small(body_mask="none"))
    assert {record.options for record in Store.open(tmp_path / "s").records.values()} == {small(body_mask="none").key()}


def killed_after(cases: int, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [write_case] * cases

    def write(path: Path, case: Case) -> None:
        if not left:
            raise KeyboardInterrupt
        left.pop()(path, case)

    monkeypatch.setattr("voxray.data.prepare.write_case", write)


def test_O1_a_damaged_case_is_made_again_or_named(cts: Path, tmp_path: Path) -> None:
    prepare([cts], tmp_path / "s", small())
    damaged = tmp_path / "s" / "cases" / "a.safetensors"
    damaged.write_bytes(b"cut")
    assert list(prepare([cts / "c.nrrd"], tmp_path / "s", small()).failed) == [str(damaged)]
    summary = prepare([cts], tmp_path / "s", small())
    assert (summary.made, summary.failed) == (["a"], {})


_KILLED = """
import sys
from pathlib import Path
from voxray.data.options import PrepareOptions
from voxray.data.prepare import prepare
prepare([Path(sys.argv[1])], Path(sys.argv[2]), PrepareOptions(shape=(32, 32, 32), spacing_mm=10.0, workers=1))
"""


def test_O1_workers_that_cannot_start_are_explained(cts: Path, tmp_path: Path) -> None:
    source = _KILLED.replace("workers=1", "workers=2")
    run = subprocess.run(
        [sys.executable, "-", str(cts), str(tmp_path / "s")], input=source, capture_output=True, text=True, timeout=200
    )
    assert "or one that is no file" in run.stderr
    assert "most likely for want of memory" in run.stderr


@pytest.mark.parametrize("cases_before_the_kill", [0, 2])
def test_O1_a_killed_run_leaves_whole_cases_and_goes_on(tmp_path: Path, cases_before_the_kill: int) -> None:
    for name in "abcd":
        save(chest((2.5, 2.5, 5))[0], tmp_path / "cts" / f"{name}.nii")
    store = tmp_path / "s"
    run = subprocess.Popen([sys.executable, "-c", _KILLED, str(tmp_path / "cts"), str(store)])
    try:
        while run.poll() is None and len(list(store.glob("cases/[a-d].safetensors"))) < cases_before_the_kill:
            time.sleep(0.005)
    finally:
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
    done = Store.open(store).cases() if (store / "cases").is_dir() else []
    assert len(done) >= cases_before_the_kill
    for name in done:
        assert Store.open(store).load(name).volume.grid.shape == (32, 32, 32)
    summary = prepare([tmp_path / "cts"], store, small())
    assert sorted(summary.kept) == done
    assert sorted(summary.made + summary.kept) == ["a", "b", "c", "d"]
    assert not list((store / "cases").glob(".voxray-tmp-*"))
