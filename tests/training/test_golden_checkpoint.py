"""Checkpoints of every version load, and their runs go on (D7).

`python tests/training/test_golden_checkpoint.py` writes the one of this version into tests/golden/checkpoints.
"""

import json
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from small_models import write_store
from tiny_learner import install, tiny_recipe

from voxray.data.store import Store
from voxray.training import TrainOptions, train_recipe
from voxray.training.checkpoints import newest_checkpoint

MUSEUM = Path(__file__).resolve().parents[1] / "golden" / "checkpoints"
VERSIONS = sorted(path for path in MUSEUM.iterdir() if path.is_dir())


class StopHereError(Exception):
    """Raised in the middle of the first stage."""


def begin(folder: Path, store: Store) -> None:
    """Train four steps of the first stage, and keep what a run needs to go on, and the sum of each tensor."""

    def stop(what: str, done: int, total: int) -> None:
        if what.startswith("the autoencoder") and done == 4:
            raise StopHereError

    run = folder / "run"
    try:
        options = TrainOptions(device="cpu", checkpoint_seconds=0.0)
        train_recipe(tiny_recipe(), store, run, options=options, progress=stop)
    except StopHereError:
        pass
    checkpoint = newest_checkpoint(run / "checkpoints")
    assert checkpoint is not None
    folder = MUSEUM / version("voxray")
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    shutil.copy(run / "run.json", folder)
    for name in ("", ".sha256"):
        shutil.copy(run / "checkpoints" / f"00-00000004.safetensors{name}", folder / "checkpoints")
    sums = {name: float(tensor.double().sum()) for name, tensor in checkpoint.tensors.items()}
    (folder / "sums.json").write_text(json.dumps(sums, indent=1) + "\n")


def test_D7_the_museum_has_this_version_and_is_small() -> None:
    assert version("voxray") in {path.name for path in VERSIONS}
    for path in VERSIONS:
        assert sum(file.stat().st_size for file in path.rglob("*")) <= 200_000


@pytest.mark.usefixtures("tiny_method")
@pytest.mark.parametrize("kept", VERSIONS, ids=lambda path: path.name)
def test_D7_checkpoints_of_every_version_load_and_go_on(kept: Path, phantoms: Store, tmp_path: Path) -> None:
    shutil.copytree(kept, tmp_path / "run")
    checkpoint = newest_checkpoint(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None
    assert (checkpoint.stage, checkpoint.name, checkpoint.step) == (0, "the autoencoder", 4)
    sums = json.loads((kept / "sums.json").read_text())
    assert {name: float(t.double().sum()) for name, t in checkpoint.tensors.items()} == pytest.approx(sums, abs=1e-9)
    options = TrainOptions(device="cpu")
    train_recipe(tiny_recipe(), phantoms, tmp_path / "run", resume=True, options=options)
    train_recipe(tiny_recipe(), phantoms, tmp_path / "whole", options=options)
    ended, whole = (newest_checkpoint(tmp_path / name / "checkpoints") for name in ("run", "whole"))
    assert ended is not None
    assert whole is not None
    for name, tensor in whole.tensors.items():  # another machine may round otherwise
        assert torch.allclose(ended.tensors[name].float(), tensor.float(), rtol=0.05, atol=0.02), name


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        sys.path.insert(0, str(install(Path(place))))
        begin(Path(place), Store.open(write_store(Path(place) / "store", {"train": [0, 1, 2]})))
