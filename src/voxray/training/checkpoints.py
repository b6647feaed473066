"""Checkpoints: everything that training needs to go on as if it had never stopped.

A checkpoint is one safetensors file, so that loading it never runs code, with a SHA-256 beside it. It appears whole
or not at all. No state of a random generator is in it: see `training.order`.
"""

import hashlib
import json
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from voxray.errors import CheckpointError, InputError, VoxrayWarning
from voxray.images.atomic import atomic_path, write_text_atomic
from voxray.images.reading import reading

VERSION = 1
KEPT = 2
_KEY = "voxray_checkpoint"
_NAME = re.compile(r"\d{2,}-\d{8,}\.safetensors")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Where training is.

    Attributes:
        stage: number of the stage in its method, from 0.
        name: of the stage.
        step: steps of the stage that are done.
        weights: hashes of the method's weights before each stage up to this one; caches are named after them.
        tensors: of method, critic, average and optimisers; the name begins with whose they are, and a slash.
    """

    stage: int
    name: str
    step: int
    weights: tuple[str, ...]
    tensors: dict[str, Tensor]


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint atomically, and delete all but the last two.

    Raises:
        ResourceError: if the disk is full; the checkpoints that are there stay.
    """
    header = {"version": VERSION, **{key: getattr(checkpoint, key) for key in ("stage", "name", "step", "weights")}}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    content = save(tensors, {_KEY: json.dumps(header)})
    path = folder / f"{checkpoint.stage:02d}-{checkpoint.step:08d}.safetensors"
    # The hash first: a checkpoint without it would count as damaged.
    write_text_atomic(_hash_path(path), hashlib.sha256(content).hexdigest() + "\n")
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    for old in _paths(folder)[:-KEPT]:
        old.unlink(missing_ok=True)
        _hash_path(old).unlink(missing_ok=True)
    return path


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """Read the newest checkpoint that is not damaged; None where there is none at all.

    Of each damaged one a `VoxrayWarning` says so.

    Raises:
        CheckpointError: if there are checkpoints, but all are damaged.
    """
    paths = _paths(folder)
    for path in reversed(paths):
        try:
            return read_checkpoint(path)
        except CheckpointError as error:
            warnings.warn(f"{error} Going on from the one before it.", VoxrayWarning, stacklevel=2)
    if paths:
        raise CheckpointError(f"All checkpoints in '{folder}' are damaged: begin a new run in another folder.")
    return None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint.

    Raises:
        CheckpointError: if it is damaged, or of another version.
    """
    try:
        with reading(path):
            recorded = _hash_path(path).read_text(encoding="utf-8").strip()
            if hashlib.sha256(path.read_bytes()).hexdigest() != recorded:
                raise CheckpointError(f"'{path}' is damaged (its SHA-256 is not the one that was noted).")
            with safe_open(path, "pt") as file:
                header = json.loads((file.metadata() or {})[_KEY])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if header["version"] != VERSION:
                raise CheckpointError(f"'{path}' is of version {header['version']}, not {VERSION}.")
            weights = tuple(str(sha256) for sha256 in header["weights"])
            return Checkpoint(int(header["stage"]), str(header["name"]), int(header["step"]), weights, tensors)
    except InputError as error:
        raise CheckpointError(str(error)) from error


def part(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `name/`, without it."""
    return {key.removeprefix(f"{name}/"): tensor for key, tensor in tensors.items() if key.startswith(f"{name}/")}


def _paths(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("*.safetensors") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: tuple(int(number) for number in path.stem.split("-")))


def _hash_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
