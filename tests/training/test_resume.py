"""A run that was stopped, in whatever way, goes on as if it had not been (D4, D5, D6, D8)."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_learner import tiny_recipe

from voxray.cli import main
from voxray.data.dataset import PhantomDataset
from voxray.data.store import Store
from voxray.errors import CheckpointError, InputError, VoxrayWarning
from voxray.images import atomic
from voxray.recipes import Recipe
from voxray.training import TrainOptions, TrainSummary, train_recipe
from voxray.training.checkpoints import newest_checkpoint

pytestmark = pytest.mark.usefixtures("tiny_method")

EVERY_STEP = TrainOptions(device="cpu", checkpoint_seconds=0.0)
AT_ENDS = TrainOptions(device="cpu")


class CrashError(Exception):
    """What a test puts in the way of a training."""


def crash_at(where: str, step: int) -> Callable[[str, int, int], None]:
    """Return a progress callable that fails when this step of this stage is done."""

    def progress(what: str, done: int, total: int) -> None:
        if what.startswith(where) and done == step:
            raise CrashError

    return progress


def result(run: Path) -> tuple[bytes, str, dict[str, torch.Tensor]]:
    """Everything that must be equal to the bit: the model, the log, and the last checkpoint."""
    checkpoint = newest_checkpoint(run / "checkpoints")
    assert checkpoint is not None
    assert {name.partition("/")[0] for name in checkpoint.tensors} >= {"method", "optimizer0"}
    return (run / "model" / "weights.safetensors").read_bytes(), (run / "log.csv").read_text(), checkpoint.tensors


def assert_equal(run: Path, other: Path) -> None:
    (weights, log, state), (weights_too, log_too, state_too) = result(run), result(other)
    assert log == log_too
    assert state.keys() == state_too.keys()
    assert [name for name in state if not torch.equal(state[name], state_too[name])] == []
    assert weights == weights_too


@pytest.fixture(scope="module")
def uninterrupted(package: Path, phantoms: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(package))
        return train_recipe(tiny_recipe(), phantoms, tmp_path_factory.mktemp("runs") / "run", options=AT_ENDS).run


@pytest.mark.parametrize("options", [EVERY_STEP, AT_ENDS], ids=["every step", "at ends"])
@pytest.mark.parametrize(
    ("where", "step"),
    [("preparing volumes", 2), ("the autoencoder", 1), ("the autoencoder", 4), ("the autoencoder", 6),
     ("preparing latents", 1), ("map", 3)],
)  # fmt: skip
def test_D4_crashed_and_resumed_equals_uninterrupted(
    uninterrupted: Path, phantoms: Store, tmp_path: Path, where: str, step: int, options: TrainOptions
) -> None:
    run = tmp_path / "run"
    with pytest.raises(CrashError):
        train_recipe(tiny_recipe(), phantoms, run, options=options, progress=crash_at(where, step))
    assert not (run / "model").exists()
    assert train_recipe(tiny_recipe(), phantoms, run, resume=True, options=options).model == run / "model"
    assert_equal(run, uninterrupted)


@pytest.mark.parametrize("point", ["fsync", "replace"])
@pytest.mark.parametrize("times", [1, 4])
def test_D4_D5_a_crash_while_a_checkpoint_is_written_leaves_the_one_before(
    uninterrupted: Path, phantoms: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, times: int
) -> None:
    run, left = tmp_path / "run", times
    original = getattr(os, point)

    def fails(*where: object) -> None:
        nonlocal left
        path = os.readlink(f"/proc/self/fd/{where[0]}") if point == "fsync" else str(where[0])
        left -= "checkpoints" in path
        if left == 0:
            raise CrashError
        original(*where)

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, point, fails)
        with pytest.raises(CrashError):
            train_recipe(tiny_recipe(), phantoms, run, options=EVERY_STEP)
    train_recipe(tiny_recipe(), phantoms, run, resume=True, options=EVERY_STEP)
    assert_equal(run, uninterrupted)


def test_D4_resumed_again_and_again(uninterrupted: Path, phantoms: Store, tmp_path: Path) -> None:
    for step in (2, 3, 5):
        with pytest.raises(CrashError):
            train_recipe(
                tiny_recipe(), phantoms, tmp_path / "run", resume=True, options=EVERY_STEP,
                progress=crash_at("the autoencoder", step),
            )  # fmt: skip
    train_recipe(tiny_recipe(), phantoms, tmp_path / "run", resume=True, options=AT_ENDS)
    assert_equal(tmp_path / "run", uninterrupted)


def test_D4_a_finished_run_is_left_alone(uninterrupted: Path, phantoms: Store) -> None:
    before = (uninterrupted / "model" / "weights.safetensors").stat().st_mtime_ns
    done = train_recipe(tiny_recipe(), phantoms, uninterrupted, resume=True, progress=crash_at("", 1))
    assert done == TrainSummary(uninterrupted, uninterrupted / "model", "")
    assert (uninterrupted / "model" / "weights.safetensors").stat().st_mtime_ns == before


# ---------------------------------------------------------------- signals, and time


def command(recipe: Recipe, store: Store, run: Path, *more: object) -> list[str]:
    run.parent.mkdir(parents=True, exist_ok=True)
    file = run.parent / "tiny.yaml"
    file.write_text(recipe.to_yaml())
    arguments = ["train", file, "--data", store.path, "-o", run, "--workers", 0, "--device", "cpu", *more]
    return [str(argument) for argument in arguments]


def signal_at(monkeypatch: pytest.MonkeyPatch, number: signal.Signals, step: int) -> None:
    """Send this process a signal when a step is half done."""
    from voxray.training import stage_module

    learn = stage_module.StageModule._learn

    def interrupted(self: stage_module.StageModule, which: int, at: int, loss: object) -> dict[str, float]:
        if at == step:
            os.kill(os.getpid(), number)
        return learn(self, which, at, loss)  # type: ignore[arg-type]

    monkeypatch.setattr(stage_module.StageModule, "_learn", interrupted)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_D4_T2_a_signal_leaves_a_checkpoint_of_this_step(
    uninterrupted: Path, phantoms: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], number: signal.Signals, code: int,
) -> None:  # fmt: skip
    arguments, before = command(tiny_recipe(), phantoms, tmp_path / "run"), signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        signal_at(patch, number, 1)
        assert main(arguments) == code
    assert signal.getsignal(signal.SIGTERM) == before
    said = capsys.readouterr()
    assert "--resume" in said.out + said.err
    checkpoint = newest_checkpoint(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None
    assert (checkpoint.name, checkpoint.step) == ("the autoencoder", 2)
    assert main([*arguments, "--resume"]) == 0
    assert_equal(tmp_path / "run", uninterrupted)


def test_T2_ctrl_c_while_preparing_leaves_whole_files_and_no_checkpoint(
    uninterrupted: Path, phantoms: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        if (what, done) == ("preparing volumes", 2):
            os.kill(os.getpid(), signal.SIGINT)

    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train_recipe(tiny_recipe(), phantoms, run, options=AT_ENDS, progress=interrupt)
    assert len(list((run / "cache").rglob("*"))) == 1 + 2, "a folder and two items"
    assert newest_checkpoint(run / "checkpoints") is None
    train_recipe(tiny_recipe(), phantoms, run, resume=True, options=AT_ENDS)
    assert_equal(run, uninterrupted)


def test_D4_the_time_that_was_given_ends_with_a_checkpoint(
    uninterrupted: Path, phantoms: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    arguments, run = command(tiny_recipe(), phantoms, tmp_path / "run"), tmp_path / "run"
    for _ in range(20):
        clock = iter(range(0, 10**6, 60))  # a minute passes whenever somebody looks
        with monkeypatch.context() as patch:
            patch.setattr("voxray.training.stop.time.monotonic", lambda: float(next(clock)))  # noqa: B023
            assert main([*arguments, "--resume", "--max-time", "0:08:30"]) == 0
        if (run / "model").exists():
            break
        assert "--resume" in capsys.readouterr().out
    else:
        pytest.fail("it never got done")
    assert_equal(run, uninterrupted)


SCRIPT = """
import sys
from pathlib import Path
from tiny_learner import tiny_recipe
from voxray.data.store import Store
from voxray.training import TrainOptions, train_recipe

if __name__ == "__main__":
    store, run, steps, devices = sys.argv[1:]
    first = {"steps": int(steps), "batch_size": 2, "ema": 0.9, "learning_rate": 1e-3}
    train_recipe(
        tiny_recipe(first=first, second={"steps": int(steps), "batch_size": 2}), Store.open(Path(store)), Path(run),
        resume=True, options=TrainOptions(device="cpu", devices=int(devices), checkpoint_seconds=0.0),
    )
"""


def start(package: Path, store: Store, run: Path, steps: int, devices: int = 1) -> "subprocess.Popen[bytes]":
    run.parent.mkdir(parents=True, exist_ok=True)
    (run.parent / "train.py").write_text(SCRIPT)
    path = os.pathsep.join([str(package), str(Path(__file__).parents[1])])
    command = [sys.executable, str(run.parent / "train.py"), str(store.path), str(run), str(steps), str(devices)]
    return subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def kill_when(process: "subprocess.Popen[bytes]", run: Path, lines: int) -> bool:
    """Kill with SIGKILL, and all that it has started, when the log is so long; tell whether it was in time."""
    while process.poll() is None:
        if (run / "log.csv").exists() and len((run / "log.csv").read_text().splitlines()) >= lines:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.01)
    return False


def kill_often(package: Path, store: Store, run: Path, steps: int, kills: int, devices: int = 1) -> int:
    """Train, killed at random moments; return how often it was in time."""
    chance = random.Random(steps * kills + devices)
    rows = 9 * steps  # of the log, or a little more: 5 or 8 a step of the first stage, 3 of the second
    return sum(
        kill_when(start(package, store, run, steps, devices), run, chance.randrange(2, rows)) for _ in range(kills)
    )


def test_D4_killed_with_sigkill_and_resumed_equals_uninterrupted(
    package: Path, phantoms: Store, tmp_path: Path
) -> None:
    assert kill_often(package, phantoms, tmp_path / "killed" / "run", steps=25, kills=1) == 1
    stage = {"steps": 25, "batch_size": 2}
    recipe = tiny_recipe(first={**stage, "ema": 0.9, "learning_rate": 1e-3}, second=stage)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as there
    try:
        train_recipe(recipe, phantoms, tmp_path / "killed" / "run", resume=True, options=AT_ENDS)
        train_recipe(recipe, phantoms, tmp_path / "whole", options=AT_ENDS)
    finally:
        torch.set_num_threads(threads)
    assert_equal(tmp_path / "killed" / "run", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "kills"), [(1, 6), (2, 3)])
def test_D4_killed_at_many_moments(package: Path, phantoms: Store, tmp_path: Path, devices: int, kills: int) -> None:
    """In one process, and in two that train together (gloo)."""
    whole, killed = tmp_path / "whole" / "run", tmp_path / "killed" / "run"
    assert start(package, phantoms, whole, 60, devices).wait() == 0
    assert kill_often(package, phantoms, killed, 60, kills, devices) >= kills // 2
    assert start(package, phantoms, killed, 60, devices).wait() == 0
    assert_equal(killed, whole)


@pytest.mark.slow
def test_D8_begun_by_two_processes_and_ended_by_one(package: Path, phantoms: Store, tmp_path: Path) -> None:
    """The samples of each step stay the same, so the losses stay close; the noise does not."""
    run = tmp_path / "two" / "run"
    kill_when(start(package, phantoms, run, 60, 2), run, 100)
    begun = newest_checkpoint(run / "checkpoints")
    assert begun is not None
    assert begun.stage == 0
    assert start(package, phantoms, run, 60, 1).wait() == 0
    assert start(package, phantoms, tmp_path / "one" / "run", 60, 1).wait() == 0
    mixed, one = (losses(tmp_path / name / "run") for name in ("two", "one"))
    assert [row[:3] for row in mixed] == [row[:3] for row in one]
    assert torch.allclose(*(torch.tensor([float(row[3]) for row in rows])[-20:] for rows in (mixed, one)), rtol=0.5)


def losses(run: Path) -> list[list[str]]:
    return [row for row in csv.reader((run / "log.csv").open()) if row[2] in ("l1", "loss") and row[0] == "map"]


# ---------------------------------------------------------------- damaged checkpoints, other runs


def begun(store: Store, run: Path, recipe: Recipe | None = None) -> Path:
    with pytest.raises(CrashError):
        train_recipe(
            recipe or tiny_recipe(), store, run, options=EVERY_STEP, progress=crash_at("the autoencoder", 4)
        )  # fmt: skip
    assert len(list((run / "checkpoints").glob("*.safetensors"))) == 2, "the last two are kept"
    return run


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def unhash(path: Path) -> None:
    path.with_name(f"{path.name}.sha256").unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, flip, unhash, empty])
def test_D5_a_damaged_checkpoint_is_told_and_the_one_before_is_taken(
    uninterrupted: Path, phantoms: Store, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    run = begun(phantoms, tmp_path / "run")
    _, newest = sorted((run / "checkpoints").glob("*.safetensors"))
    damage(newest)
    with pytest.warns(VoxrayWarning, match=f"{newest.name}.* Going on from the one before it"):
        train_recipe(tiny_recipe(), phantoms, run, resume=True, options=AT_ENDS)
    assert_equal(run, uninterrupted)


def test_D5_where_all_are_damaged_nothing_is_begun_anew(phantoms: Store, tmp_path: Path) -> None:
    run = begun(phantoms, tmp_path / "run")
    for path in (run / "checkpoints").glob("*.safetensors"):
        flip(path)
    with pytest.warns(VoxrayWarning), pytest.raises(CheckpointError, match=r"All checkpoints .* are damaged"):
        train_recipe(tiny_recipe(), phantoms, run, resume=True)


def test_D6_another_recipe_is_refused_with_what_differs(phantoms: Store, tmp_path: Path) -> None:
    run, other = begun(phantoms, tmp_path / "run"), tiny_recipe(second={"steps": 5, "batch_size": 1})
    message = r"config\.second\.batch_size: 2 before, 1 now; .*config\.second\.steps: 4 before, 5 now.*--force"
    with pytest.raises(InputError, match=message):
        train_recipe(other, phantoms, run, resume=True)
    assert json.loads((run / "run.json").read_text())["recipe"]["config"]["second"]["steps"] == 4
    train_recipe(other, phantoms, run, resume=True, force=True, options=AT_ENDS)
    assert "map,4,loss" in (run / "log.csv").read_text()
    train_recipe(other, phantoms, run, resume=True)  # it is this run now


def test_D6_other_data_are_refused_with_what_differs(phantoms: Store, tmp_path: Path) -> None:
    from small_models import write_store

    run = begun(phantoms, tmp_path / "run")
    other = Store.open(write_store(tmp_path / "other", {"train": [0, 1, 3]}))
    with pytest.raises(InputError, match=r"cases\.phantom02: .* before, nothing now; cases\.phantom03: nothing before"):
        train_recipe(tiny_recipe(), other, run, resume=True)
    train_recipe(tiny_recipe(), other, run, resume=True, force=True, options=AT_ENDS)


def test_D6_weights_that_do_not_fit_are_refused_even_by_force(phantoms: Store, tmp_path: Path) -> None:
    run = begun(phantoms, tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"does not fit the recipe: .*autoencoder\.encoder\.weight"):
        train_recipe(tiny_recipe(channels=5), phantoms, run, resume=True, force=True)


def test_D6_a_folder_of_something_else_is_refused(phantoms: Store, tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").write_text("sun")
    for resume, message in ((False, "exists already"), (True, r"no folder of a training \(it has no run.json")):
        with pytest.raises(InputError, match=message):
            train_recipe(tiny_recipe(), phantoms, tmp_path, resume=resume)


def test_D4_the_samples_of_a_step_are_a_pure_function(phantoms: Store) -> None:
    """Phantoms and cases alike: whatever was asked before."""
    from voxray.recipes.sections import DataRecipe
    from voxray.training.samples import Samples

    samples = Samples(tiny_recipe(DataRecipe(phantoms=2)), phantoms, "train")
    assert len(samples) == 5
    first = [samples[key] for key in ((3, 0), (1, 4))]
    again = [samples[key] for key in ((1, 4), (3, 0))][::-1]
    assert isinstance(samples.phantoms, PhantomDataset)
    for one, two in zip(first, again, strict=True):
        assert torch.equal(one.hu, two.hu)
        assert one.views == two.views
