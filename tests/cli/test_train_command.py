"""`voxray train`."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from voxray.cli import learning, training_progress
from voxray.errors import InputError
from voxray.training import TrainOptions, TrainSummary

Cli = Callable[..., object]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict:
    """What the command asks of the library, which does nothing here but tell of its progress."""
    seen: dict = {"summary": TrainSummary(tmp_path / "run", tmp_path / "run" / "model", "")}

    def train(*positional: object, progress: Callable[[str, int, int], None] | None, **named: object) -> TrainSummary:
        seen.update(named, positional=positional)
        if progress is not None:
            for done in range(5):
                progress(f"stage: loss {done}", done + 1, 5)
        summary = seen["summary"]
        if isinstance(summary, BaseException):
            raise summary
        return summary  # type: ignore[no-any-return]

    monkeypatch.setattr("voxray.api.train", train)
    return seen


def test_arguments_reach_the_library(cli: Cli, asked: dict, tmp_path: Path) -> None:
    done = cli(
        "train", "dvg", "--data", "store", "-o", tmp_path / "run", "--split", "all", "--set", "a.b=1",
        "--precision", "fp32", "--seed", 7, "--max-time", "1:30:00", "--resume", "--force", "--device", "cpu",
        "--devices", 2, "--num-nodes", 3, "--workers", 4, "--cache", tmp_path / "cache", "--real", "xrays",
    )  # fmt: skip
    assert done.code == 0
    assert done.out.split() == [str(tmp_path / "run" / "model")]
    assert asked["positional"] == ("dvg", Path("store"), tmp_path / "run")
    assert asked["overrides"] == ["a.b=1", "training.precision=fp32", "training.seed=7"]
    assert (asked["split"], asked["resume"], asked["force"]) == ("all", True, True)
    assert asked["real"] == Path("xrays")
    assert asked["options"] == TrainOptions(5400.0, "cpu", 2, 3, 4, tmp_path / "cache")


def test_what_is_not_said_is_left_to_the_recipe(cli: Cli, asked: dict, tmp_path: Path) -> None:
    assert cli("train", "dvg", "--synthetic", "store", "-o", tmp_path / "run").code == 0
    assert asked["positional"][1] == Path("store")
    assert asked["real"] is None
    assert asked["overrides"] == []
    assert asked["options"] == TrainOptions(workers=asked["options"].workers)
    assert (asked["resume"], asked["force"]) == (False, False)


@pytest.mark.parametrize("stopped", ["time", "terminated"])
def test_T2_a_training_that_was_stopped_says_how_to_go_on(cli: Cli, asked: dict, tmp_path: Path, stopped: str) -> None:
    asked["summary"] = TrainSummary(tmp_path / "run", None, stopped)  # type: ignore[arg-type]
    done = cli("train", "dvg", "--data", "store", "-o", tmp_path / "run")
    assert done.code == 0
    assert "--resume" in done.out


def test_T2_ctrl_c_says_how_to_go_on(cli: Cli, asked: dict, tmp_path: Path) -> None:
    asked["summary"] = KeyboardInterrupt()
    done = cli("train", "dvg", "--data", "store", "-o", tmp_path / "run")
    assert done.code == 130
    assert "--resume" in done.err


def test_other_processes_of_a_training_say_nothing(cli: Cli, asked: dict, tmp_path: Path) -> None:
    asked["summary"] = TrainSummary(tmp_path / "run", None, "")
    done = cli("train", "dvg", "--data", "store", "-o", tmp_path / "run")
    assert (done.code, done.out) == (0, "")


@pytest.mark.parametrize(("text", "seconds"), [
    ("90", 5400.0), ("0:00:30", 30.0), ("2:00", 120.0), ("01:30:00", 5400.0), ("100:00:00", 360000.0),
])  # fmt: skip
def test_times_are_minutes_or_have_colons(text: str, seconds: float) -> None:
    assert learning._seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "1.5", "-3", "1:2:3:4", "a", "1h", ":30", "²"])
def test_times_that_make_no_sense(text: str) -> None:
    with pytest.raises(InputError, match="--max-time takes"):
        learning._seconds(text)


def test_where_there_is_no_terminal_a_line_a_minute_is_enough(
    cli: Cli, asked: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    done = cli("train", "dvg", "--data", "store", "-o", tmp_path / "run")
    assert done.err.splitlines() == ["stage: loss 0, 1 of 5", "stage: loss 4, 5 of 5"]
    monkeypatch.setenv("CI", "1")
    assert cli("train", "dvg", "--data", "store", "-o", tmp_path / "run").err == ""


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    screen = io.StringIO()
    monkeypatch.setattr(training_progress, "ERR", Console(file=screen, force_terminal=True, width=120))
    with training_progress.training_progress() as draw:
        assert draw is not None
        draw("preparing volumes", 3, 3)
        draw("autoencoder: loss 0.123", 2, 7)
    assert "autoencoder: loss 0.123" in screen.getvalue()
    assert "2/7" in screen.getvalue()
