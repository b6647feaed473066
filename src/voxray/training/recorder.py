"""What the first process keeps of a stage while it is trained: logs, checkpoints, pictures."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from voxray.methods.stages import Batch
from voxray.training.checkpoints import Checkpoint, write_checkpoint
from voxray.training.log import StageLog
from voxray.training.options import TrainOptions
from voxray.training.progress import Told

if TYPE_CHECKING:
    from voxray.training.stage_module import StageModule

CHECKPOINTS = "checkpoints"


class Recorder:
    """Logs every step; keeps a checkpoint and pictures now and then, when told to stop, and at the end.

    Args:
        run: folder of the run.
        names: of the stages up to this one, which is the last.
        weights: hashes of the weights before each of them (see `Checkpoint`).
        start: steps of the stage that are done already.
        options: how often.
        progress: told of every step.
    """

    def __init__(
        self, run: Path, names: tuple[str, ...], weights: tuple[str, ...], start: int, options: TrainOptions,
        progress: Told | None,
    ) -> None:  # fmt: skip
        self.run, self.names, self.weights = run, names, weights
        self.options, self.progress = options, progress
        (run / CHECKPOINTS).mkdir(exist_ok=True)
        self.log = StageLog(run, names, start)
        self._step_at = self._saved_at = time.monotonic()
        self._shown_at = -float("inf")

    def after_step(self, module: "StageModule", scalars: Mapping[str, float], batch: Batch) -> None:
        """Record step `module.done`, which is done."""
        now, done, steps = time.monotonic(), module.done, module.options.steps
        self.log.scalars(done - 1, scalars, now - self._step_at)
        last = done == steps or module.trainer.should_stop
        if last or now - self._shown_at >= self.options.preview_seconds:
            self.log.pictures(done, module.pictures(batch))
            self._shown_at = now
        if last or now - self._saved_at >= self.options.checkpoint_seconds:
            self.log.flush()  # a checkpoint must not know of steps that the log does not
            stage, name = len(self.names) - 1, self.names[-1]
            write_checkpoint(self.run / CHECKPOINTS, Checkpoint(stage, name, done, self.weights, module.state()))
            self._saved_at = now
        if self.progress is not None:
            self.progress(f"{self.names[-1]}: loss {scalars['loss']:.4g}", done, steps)
        self._step_at = time.monotonic()

    def close(self) -> None:
        """Close the logs."""
        self.log.close()
