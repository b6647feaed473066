"""How every kind of failure ends (T2)."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import voxray.api
from voxray.cli import main
from voxray.errors import NumericalError

Cli = Callable[..., object]


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(voxray.api, "list_models", fails)


def test_T2_done_is_0(cli: Cli, tiny: str) -> None:
    done = cli("models")
    assert done.code == 0
    assert "tiny" in done.out
    assert done.err == ""


@pytest.mark.parametrize("arguments", [
    ("reconstruct", "nothing.dcm", "-o", "out"), ("reconstruct",), ("reconstruct", "x.dcm"), ("nonsense",),
    ("reconstruct", "a.png", "-o", "out", "--seed", "x"), ("project", "x.nii", "-o", "out", "--photons", "-1"),
    ("reconstruct", "a.png", "-o", "out", "--outside", "space"), ("reconstruct", "a.png", "-o", "out", "--nonsense"),
    ("reconstruct", "a.png", "-o", "out", "--views", "pa,,lateral"), ("info", "nothing"),
    ("reconstruct", "a.png", "-o", "out", "--views", "pa", "--geometry", "g.json"),
    ("reconstruct", "a.png", "-o", "out", "--format", "jpeg"), ("prepare", "nothing", "-o", "out"),
    ("train", "nothing", "--data", "store", "-o", "out"), ("evaluate", "atlas", "nothing"),
])  # fmt: skip
def test_T2_bad_input_or_usage_is_2_and_one_line(
    cli: Cli, arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []


def test_T2_bad_model_is_3(cli: Cli, projected: Path, tmp_path: Path) -> None:
    done = cli("reconstruct", projected, "-o", tmp_path / "out", "--model", "nothing")
    assert (done.code, done.err.count("\n")) == (3, 1)
    assert "'nothing'" in done.err
    assert not (tmp_path / "out").exists()


def test_T2_damaged_weights_are_3(cli: Cli, projected: Path, tiny_folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "recipe.yaml").write_bytes((tiny_folder / "recipe.yaml").read_bytes())
    (model / "weights.safetensors").write_bytes((tiny_folder / "weights.safetensors").read_bytes()[:-10])
    assert cli("reconstruct", projected, "-o", tmp_path / "out", "--model", model).code == 3


def test_T2_no_such_device_is_4(cli: Cli, projected: Path, tiny: str, tmp_path: Path) -> None:
    done = cli("reconstruct", projected, "-o", tmp_path / "out", "--model", tiny, "--device", "cuda:99")
    assert (done.code, done.err.count("\n")) == (4, 1)


@pytest.mark.parametrize(("error", "code", "says"), [
    (MemoryError(), 4, "memory"), (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 4, "memory"),
    (OSError(28, "No space left on device"), 4, "disk is full"), (NumericalError("Not finite."), 5, "Not finite."),
    (ZeroDivisionError("oops"), 1, "bug in voxray"), (RuntimeError("oops"), 1, "bug in voxray"),
])  # fmt: skip
def test_T2_memory_disk_numbers_and_bugs(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, says: str
) -> None:
    fail_with(monkeypatch, error)
    done = cli("models")
    assert done.code == code
    assert done.err.startswith("error: ")
    assert says in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("where", ["before", "after", "environment"])
def test_T2_a_traceback_is_shown_on_request(cli: Cli, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    fail_with(monkeypatch, ZeroDivisionError("oops"))
    if where == "environment":
        monkeypatch.setenv("VOXRAY_DEBUG", "1")
    arguments = {"before": ("--debug", "models"), "after": ("models", "--debug"), "environment": ("models",)}
    done = cli(*arguments[where])
    assert done.code == 1
    assert "Traceback" in done.err
    assert "fails" in done.err


def test_T2_ctrl_c_is_130(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    done = cli("models")
    assert done.code == 130
    assert "Stopped" in done.err


def test_T2_sigterm_unwinds_like_ctrl_c(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    unwound = []

    def waits() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            unwound.append(True)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(voxray.api, "list_models", waits)
    assert main(["models"]) == 130
    assert unwound == [True]
    assert signal.getsignal(signal.SIGTERM) == before
