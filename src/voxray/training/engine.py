"""One stage of training on Lightning: the only module that imports it, and so imported where a network is trained."""

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel

from voxray.errors import InputError, NumericalError
from voxray.methods import Method
from voxray.methods.stages import Batch, GradientStage, Losses, StageOptions
from voxray.training.cache import Batches, Items
from voxray.training.checkpoints import part
from voxray.training.options import TrainOptions
from voxray.training.order import Key, keys_of_step, seeded
from voxray.training.progress import Told
from voxray.training.stop import Stop

# One process may prepare items for hours while the others wait for it.
_PATIENCE = timedelta(days=14)

_Tensors = tuple[Tensor, ...] | list[Tensor]


@dataclass(frozen=True, eq=False)
class StageRun:
    """What is needed to train one stage.

    Attributes:
        method: all of it; what the stage does not train is frozen.
        stage: the stage.
        items: where its items are.
        variants: see `DataRecipe`.
        seed: of the training.
        start: steps that are done already.
        tensors: of the checkpoint to go on from; empty at the beginning of a stage.
        stop: when to end early.
        progress: told about items that are prepared.
        after_step: called after each step, with its scalars and its batch; None in all processes but the first.
    """

    method: Method
    stage: GradientStage
    items: Items
    variants: int
    seed: int
    start: int
    tensors: dict[str, Tensor]
    stop: Stop
    progress: Told | None
    after_step: Callable[["StageModule", dict[str, float], Batch], None] | None


class StageModule(LightningModule):
    """A stage as Lightning sees it: a batch, a step of the network, a step of the critic."""

    def __init__(self, run: StageRun) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.run, self.stage, self.options = run, run.stage, run.stage.options
        self._scalars: dict[str, float] = {}
        self.network = run.stage.network
        self.critic = run.stage.critic.network if run.stage.critic is not None else None
        self.average: AveragedModel | None = None
        self.items = run.items
        self.done = run.start

    # ---------------------------------------------------------------- before the first step

    def setup(self, stage: str) -> None:
        """Freeze what is not trained, prepare the items of this process, and bring networks into place."""
        run, device = self.run, self.trainer.strategy.root_device
        run.method.requires_grad_(False).eval().to(device)
        self.items = replace(run.items, device=device)
        if self.items.kept:
            self.items.fill(run.stage.preparation, self._own_keys(), run.stop, run.progress)
        for network in filter(None, (self.network, self.critic)):
            network.requires_grad_(True)
            _channels_last(network)
        if self.options.ema is not None:
            self.average = AveragedModel(self.network, multi_avg_fn=_average_towards(self.options.ema))
            self.average.requires_grad_(False)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Return the optimiser of the network, and that of the critic."""
        chosen = {"betas": self.options.betas, "weight_decay": self.options.weight_decay}
        return [
            AdamW(network.parameters(), lr=self.options.learning_rate, **chosen)  # type: ignore[arg-type]
            for network in filter(None, (self.network, self.critic))
        ]

    def train_dataloader(self) -> Batches:
        """Return the batches from the first step that is left."""
        keys, size = self._own_keys(), self.options.batch_size // self.trainer.world_size
        return Batches(
            lambda: self.items.stream(self.stage.preparation, keys), self.run.start, self.options.steps, size
        )

    def on_train_start(self) -> None:
        """Take up the state of the checkpoint, once everything is where it will be trained."""
        self.run.stop.listen()
        for network in filter(None, (self.network, self.critic)):
            network.train()
        if self.run.tensors:
            self._restore(self.run.tensors)
        self._agree_on_stopping()

    def _own_keys(self) -> list[Key]:
        """Return the samples that this process sees: its share of every step."""
        own = slice(self.trainer.global_rank, None, self.trainer.world_size)
        samples = len(self.run.items.samples)
        return [
            key
            for step in range(self.run.start, self.options.steps)
            for key in keys_of_step(
                step, samples=samples, batch_size=self.options.batch_size, variants=self.run.variants,
                seed=self.run.seed, stage=self.stage.name,
            )[own]
        ]  # fmt: skip

    # ---------------------------------------------------------------- a step

    def training_step(self, batch: tuple[int, Batch], _: int) -> None:
        """Take one step of the network, then one of the critic."""
        step, items = batch
        with seeded(self.run.seed, self.stage.name, step, self.trainer.global_rank) as rng:
            told = self._learn(0, step, lambda: self.stage.loss(items, step, rng))
            if self.average is not None:
                self.average.update_parameters(self.network)
            critic = self.stage.critic
            if critic is not None and step >= critic.start:
                learned = self._learn(1, step, lambda: critic.loss(items, rng))
                told |= {f"critic/{name}": value for name, value in learned.items()}
        self.done, self._scalars = step + 1, told

    def on_train_batch_end(self, outputs: Any, batch: tuple[int, Batch], batch_idx: int) -> None:
        """Record the step, and stop if that is wished."""
        self._agree_on_stopping()
        if self.run.after_step is not None:
            self.run.after_step(self, self._scalars, batch[1])

    def _learn(self, which: int, step: int, loss: Callable[[], Losses]) -> dict[str, float]:
        """Take a step of one optimiser, whose network alone has gradients meanwhile; return what is to be logged."""
        optimizer = self.optimizers(use_pl_optimizer=True)
        optimizer = optimizer[which] if isinstance(optimizer, list) else optimizer
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(self.options, step)
        self.toggle_optimizer(optimizer)
        losses = loss()
        if not bool(torch.isfinite(losses["loss"])):
            raise NumericalError(
                f"The loss of {self.stage.name!r} is not finite in step {step}. Go on from the last checkpoint with a "
                "lower learning rate, or with --precision fp32."
            )
        optimizer.zero_grad()
        self.manual_backward(losses["loss"])
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.options.clip or math.inf)
        optimizer.step()
        self.untoggle_optimizer(optimizer)
        scalars = {name: float(value.detach()) for name, value in losses.items()}
        return scalars | {"gradient norm": float(norm), "learning rate": learning_rate(self.options, step)}

    def _agree_on_stopping(self) -> None:
        """Stop in all processes after the same step."""
        if self.trainer.strategy.reduce_boolean_decision(bool(self.run.stop.reason), all=False):
            self.run.stop.ask()
            self.trainer.should_stop = True

    @torch.no_grad()
    def pictures(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the pictures of a batch, if the stage makes any."""
        if self.stage.preview is None:
            return {}
        self.network.eval()
        try:
            with seeded("preview"), self.trainer.precision_plugin.forward_context():
                return self.stage.preview(batch)
        finally:
            self.network.train()

    # ---------------------------------------------------------------- state

    def state(self) -> dict[str, Tensor]:
        """Return everything that changes in this stage, by name (see `Checkpoint`)."""
        parts: dict[str, dict[str, Tensor]] = {"method": self.run.method.state_dict()}
        if self.critic is not None:
            parts["critic"] = self.critic.state_dict()
        if self.average is not None:
            parts["average"] = self.average.state_dict()
        for i, optimizer in enumerate(self.trainer.optimizers):
            state = optimizer.state_dict()["state"]
            parts[f"optimizer{i}"] = {f"{n}.{name}": value for n in state for name, value in state[n].items()}
        return {f"{owner}/{name}": value for owner, tensors in parts.items() for name, value in tensors.items()}

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        if self.critic is not None:
            self.critic.load_state_dict(part(tensors, "critic"))
        if self.average is not None:
            self.average.load_state_dict(part(tensors, "average"))
        for i, optimizer in enumerate(self.trainer.optimizers):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            for name, value in part(tensors, f"optimizer{i}").items():
                n, _, key = name.partition(".")
                parameter = parameters[int(n)]
                like = torch.empty_like(parameter) if value.shape == parameter.shape else torch.empty_like(value)
                optimizer.state[parameter][key] = like.copy_(value)


def learning_rate(options: StageOptions, step: int) -> float:
    """Return the learning rate of a step (from 0): it rises linearly, then stays or falls like a cosine to nothing."""
    rate = options.learning_rate * min(1.0, (step + 1) / max(options.warmup, 1))
    if options.decay == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * step / options.steps))
    return rate


def train_stage(run: StageRun, options: TrainOptions, precision: str) -> bool:
    """Train one stage; the method has its weights at the end.

    Returns:
        Whether the stage is finished; false where `run.stop` had a reason.

    Raises:
        InputError: if the batch cannot be shared among the processes.
        NumericalError: if a loss is not finite.
    """
    processes = options.devices * options.nodes
    if run.stage.options.batch_size % processes:
        raise InputError(
            f"Stage {run.stage.name!r} has batches of {run.stage.options.batch_size}, which {processes} processes "
            "cannot share: take a number of processes that divides it, or set the stage's batch_size."
        )
    cuda = options.device != "cpu" and torch.cuda.is_available()
    accelerator = "gpu" if cuda else "cpu"
    strategy: Any = "auto"
    if processes > 1:
        strategy = DDPStrategy(
            process_group_backend="nccl" if cuda else "gloo",
            find_unused_parameters=True, timeout=_PATIENCE,
        )  # fmt: skip
    module = StageModule(run)
    with _quiet():
        trainer = Trainer(
            accelerator=accelerator, devices=options.devices, num_nodes=options.nodes, strategy=strategy,
            precision="bf16-mixed" if precision == "bf16" else "32-true", max_epochs=1,
            logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            use_distributed_sampler=False, barebones=False,
        )  # fmt: skip
        try:
            trainer.fit(module)
        except SystemExit as error:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from error
    if module.done < run.stage.options.steps:
        return False
    if module.average is not None:
        for own, averaged in zip(module.network.parameters(), module.average.module.parameters(), strict=True):
            own.data.copy_(averaged)
    return True


def _average_towards(most: float) -> Callable[[_Tensors, _Tensors, Tensor | int], None]:
    """Return an update of an exponential moving average.

    The decay begins at 2/11 and rises to `most` like (1 + n) / (10 + n), as in TensorFlow's ExponentialMovingAverage,
    so that the first weights are soon forgotten.
    """

    def update(averages: _Tensors, values: _Tensors, count: Tensor | int) -> None:
        n = int(count)
        torch._foreach_lerp_(averages, values, 1 - min(most, (1 + n) / (10 + n)))

    return update


def _channels_last(network: nn.Module) -> None:
    """Store the weights of 3D convolutions with the channels last, which oneDNN and cuDNN prefer."""
    for parameter in network.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)


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
