"""From a recipe and a store to a run: a folder with the model, and with all that it takes to go on after a stop."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxray.data.store import Case, Store
from voxray.errors import CheckpointError, InputError
from voxray.geometry import VolumeGrid
from voxray.methods.base import check_case
from voxray.methods.stages import GradientStage, Stage
from voxray.methods.style import Style
from voxray.models import save_model
from voxray.models.folder import MODEL
from voxray.recipes import Recipe
from voxray.training.cache import Items
from voxray.training.card import model_card
from voxray.training.checkpoints import Checkpoint, newest_checkpoint, part
from voxray.training.identity import Identity, item_hashes, weights_hash
from voxray.training.options import TrainOptions
from voxray.training.order import seeded
from voxray.training.progress import Told
from voxray.training.radiographs import Radiographs
from voxray.training.recorder import CHECKPOINTS, Recorder
from voxray.training.samples import Samples
from voxray.training.stop import Reason, Stop

CACHE = "cache"
# Set above 0 in all processes but the first, by Lightning, torchrun or Slurm.
_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")


@dataclass(frozen=True)
class TrainSummary:
    """How a training ended.

    Attributes:
        run: folder of the run.
        model: the model folder in it; None if training was stopped before its end (and in all processes but one).
        stopped: why it was; "" if it was not.
    """

    run: Path
    model: Path | None
    stopped: Reason


def train_recipe(
    recipe: Recipe,
    store: Store,
    run: Path,
    *,
    split: str = "train",
    real: Path | None = None,
    resume: bool = False,
    force: bool = False,
    options: TrainOptions | None = None,
    progress: Told | None = None,
) -> TrainSummary:
    """Train every stage of a recipe's method on a split of a store, and save the model.

    Args:
        recipe: what to train.
        store: prepared cases.
        run: folder of the run; its parent must be there.
        split: of the store.
        real: folder of radiographs, for a style.
        resume: go on with a run that was stopped.
        force: go on even if recipe or data are others than before.
        options: how to run.
        progress: told what is being done.

    Raises:
        InputError: if there is no such split, it does not fit the recipe, there are no radiographs for a style (or some
            for another method), or `run` exists and is not to be resumed,
            or is another run than this one.
        CheckpointError: if all checkpoints are damaged, or do not fit the recipe.
        NumericalError: if a loss is not finite.
        KeyboardInterrupt: after Ctrl-C; in a stage with gradients, a checkpoint is written first.
    """
    options, radiographs = options or TrainOptions(), _radiographs(recipe, real)
    identity = Identity.of(recipe, store, split, tuple(sorted(radiographs.files)) if radiographs is not None else ())
    first = _is_first_process()
    if first:
        changed = identity.claim(run, resume=resume, force=force)
        if (run / MODEL).exists() and not changed:
            return TrainSummary(run, run / MODEL, "")
    stop = Stop(options.max_seconds)
    with seeded("training", recipe.training.seed):
        training = _Training(recipe, store, run, identity, options, stop, progress if first else None)
        finished = (radiographs is None or training.take_in(radiographs)) and training.finish(
            newest_checkpoint(run / CHECKPOINTS) if resume else None
        )
    if not finished:
        if stop.reason == "interrupted":
            raise KeyboardInterrupt
        return TrainSummary(run, None, stop.reason)
    return TrainSummary(run, training.save() if first else None, "")


class _Training:
    """One training; to be made and used inside `seeded`, for there first weights come from."""

    def __init__(
        self, recipe: Recipe, store: Store, run: Path, identity: Identity, options: TrainOptions, stop: Stop,
        progress: Told | None,
    ) -> None:  # fmt: skip
        self.recipe, self.store, self.run, self.identity = recipe, store, run, identity
        self.options, self.stop, self.progress = options, stop, progress
        self.method = recipe.build()
        self.stages = self.method.stages()
        self.weights: tuple[str, ...] = ()

    def take_in(self, radiographs: Radiographs) -> bool:
        """Give a style what it learns from; return whether that is done, or was stopped."""
        assert isinstance(self.method, Style)
        cache = self.options.cache or self.run / CACHE
        with self.stop.listening():
            self.method.learn_from(radiographs.taken_in(self.method, cache, self.stop, self.progress))
        return not self.stop.reason

    def finish(self, checkpoint: Checkpoint | None) -> bool:
        """Train all that is left; return whether that is done, or was stopped."""
        first = 0
        if checkpoint is not None:
            self._take_up(checkpoint)
            first = checkpoint.stage
        for number, stage in enumerate(self.stages[first:], first):
            if len(self.weights) == number:  # before the first stage, there is nothing that training has made
                self.weights += (weights_hash(self.method) if number else "",)
            if isinstance(stage, Stage):
                stage.fit(_Cases(self.store, list(self.identity.cases), self.method.grid), self._told(stage.name))
            elif not self._descend(number, stage, checkpoint if number == first else None):
                return False
        return True

    def save(self) -> Path:
        """Write the model folder."""
        records = [self.store.records[name] for name in self.identity.cases]
        recipe = self.recipe.model_copy(update={"trained_on": tuple(sorted(record.sha256 for record in records))})
        card = model_card(recipe, records, self.identity.split, self.identity.real)
        save_model(self.method.cpu(), recipe, self.run / MODEL, card, overwrite=True)
        return self.run / MODEL

    def _take_up(self, checkpoint: Checkpoint) -> None:
        names = [stage.name for stage in self.stages]
        if names[checkpoint.stage : checkpoint.stage + 1] != [checkpoint.name]:
            raise CheckpointError(
                f"The checkpoint in '{self.run}' is of stage {checkpoint.stage + 1}, {checkpoint.name!r}, but the "
                f"stages of this recipe are {', '.join(names)}: begin a new run in another folder."
            )
        try:
            self.method.load_state_dict(part(checkpoint.tensors, "method"))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(f"The checkpoint in '{self.run}' does not fit the recipe: {reason}") from error
        self.weights = checkpoint.weights

    def _descend(self, number: int, stage: GradientStage, checkpoint: Checkpoint | None) -> bool:
        """Train a stage by gradient descent; return whether it is finished."""
        from voxray.training.engine import StageRun, train_stage  # imports Lightning

        start = checkpoint.step if checkpoint is not None else 0
        names = tuple(stage.name for stage in self.stages[: number + 1])
        recorder = None
        if _is_first_process():
            recorder = Recorder(self.run, names, self.weights, start, self.options, self.progress)
        most = self.recipe.data.variants
        variants = min(most, stage.options.variants or most)
        job = StageRun(
            method=self.method, stage=stage, items=self._items(), variants=variants,
            seed=self.recipe.training.seed, start=start, tensors=checkpoint.tensors if checkpoint is not None else {},
            stop=self.stop, progress=self.progress, after_step=recorder.after_step if recorder is not None else None,
        )  # fmt: skip
        try:
            with self.stop.listening():
                return train_stage(job, self.options, self.recipe.training.precision)
        finally:
            if recorder is not None:
                recorder.close()

    def _items(self) -> Items:
        return Items(
            Samples(self.recipe, self.store, self.identity.split),
            self.options.cache or self.run / CACHE,
            item_hashes(self.identity, self.recipe, self.stages, self.weights),
            kept=self.recipe.data.variants > 0,
            workers=self.options.workers,
        )

    def _told(self, name: str) -> Any:
        told = self.progress
        return None if told is None else lambda done, total: told(name, done, total)


class _Cases(Sequence[Case]):
    """Cases that are read, and checked, when they are asked for: a thousand whole scans fill any memory."""

    def __init__(self, store: Store, names: Sequence[str], grid: VolumeGrid) -> None:
        self.store, self.names, self.grid = store, names, grid

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: Any) -> Any:
        case = self.store.load(self.names[index])
        check_case(case, self.grid)
        return case


def _radiographs(recipe: Recipe, real: Path | None) -> Radiographs | None:
    """List the radiographs that a style learns from."""
    if recipe.method == Style.name and real is None:
        raise InputError(f"The recipe {recipe.name!r} learns a style from radiographs: name their folder (--real).")
    if recipe.method != Style.name and real is not None:
        raise InputError(f"The recipe {recipe.name!r} learns from CTs alone: --real is for `voxray train style`.")
    return None if real is None else Radiographs.below(real)


def _is_first_process() -> bool:
    return all(os.environ.get(name, "0") == "0" for name in _RANKS)
