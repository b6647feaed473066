"""One stage of training on Lightning's Trainer; imported where a network is trained, for Lightning takes seconds."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy

from voxray.errors import InputError
from voxray.training.options import TrainOptions
from voxray.training.stage_module import StageModule, StageRun

# One process may prepare items for hours while the others wait for it.
_PATIENCE = timedelta(days=14)


def train_stage(run: StageRun, options: TrainOptions, precision: str) -> bool:
    """Train one stage; the method has its weights at the end.

    Returns:
        Whether the stage is finished; false where `run.stop` had a reason.

    Raises:
        InputError: if the batch cannot be shared among the processes.
        NumericalError: if a loss is not finite.
    """
    module, size, processes = StageModule(run), run.stage.options.batch_size, options.devices * options.nodes
    if size % processes:
        raise InputError(
            f"Stage {run.stage.name!r} has batches of {size}, which {processes} processes cannot share: take a number "
            "of processes that divides it, or set the stage's batch_size."
        )
    if module.done < run.stage.options.steps:
        with _quiet():
            try:
                _trainer(options, precision).fit(module)
            except SystemExit as error:  # what Lightning makes of Ctrl-C
                raise KeyboardInterrupt from error
    if module.done < run.stage.options.steps:
        return False
    module.take_average()
    return True


def _trainer(options: TrainOptions, precision: str) -> Trainer:
    cuda = options.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if options.device == "auto" else options.device).index if cuda else None
    strategy: DDPStrategy | str = "auto"
    if options.devices * options.nodes > 1:
        # A network may leave a part of it out of a step; and while one learns, its critic has no gradients.
        backend = "nccl" if cuda else "gloo"
        strategy = DDPStrategy(process_group_backend=backend, find_unused_parameters=True, timeout=_PATIENCE)
    return Trainer(
        accelerator="gpu" if cuda else "cpu", devices=options.devices if device is None else [device],
        num_nodes=options.nodes, strategy=strategy, precision="bf16-mixed" if precision == "bf16" else "32-true",
        max_epochs=1, use_distributed_sampler=False, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's advice to programmers from the user."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
