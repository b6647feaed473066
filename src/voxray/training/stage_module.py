"""A stage of training as Lightning sees it; imported where a network is trained, for Lightning takes seconds."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel

from voxray.errors import NumericalError
from voxray.methods import Method
from voxray.methods.stages import Batch, GradientStage, Losses, StageOptions
from voxray.training.cache import Batches, Items
from voxray.training.checkpoints import part
from voxray.training.order import Key, keys_of_step, seeded
from voxray.training.progress import Told
from voxray.training.stop import Stop

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
        self.items, self.done = run.items, run.start
        self._scalars: dict[str, float] = {}
        self.network, self.critic, self.average = run.stage.network, None, None
        run.method.requires_grad_(False).eval()
        _make_trainable(self.network)
        if run.stage.critic is not None:
            self.critic = _make_trainable(run.stage.critic.network)
        if self.options.ema is not None:
            self.average = AveragedModel(self.network, multi_avg_fn=_average_towards(self.options.ema))
            self.average.requires_grad_(False)
        for name, module in (("critic", self.critic), ("average", self.average)):
            if module is not None and run.tensors:
                module.load_state_dict(part(run.tensors, name))

    # ---------------------------------------------------------------- before the first step

    def setup(self, stage: str) -> None:
        """Prepare the items of this process, where it computes."""
        device = self.trainer.strategy.root_device
        self.run.method.to(device)
        self.items = replace(self.run.items, device=device)
        if self.items.kept:
            self.items.fill(self.stage.preparation, self._own_keys(), self.run.stop, self.run.progress)

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
        """Take up the state of the optimisers, and the signals, which Lightning has taken."""
        for i, optimizer in enumerate(self.trainer.optimizers):
            _restore(optimizer, part(self.run.tensors, f"optimizer{i}"))
        self.run.stop.listen()
        self._agree_on_stopping()

    def on_train_end(self) -> None:
        """Give all processes the buffers of the first one; parameters are the same everywhere already."""
        for buffer in self.network.buffers():
            buffer.copy_(self.trainer.strategy.broadcast(buffer))

    def _own_keys(self) -> list[Key]:
        """Return the samples that this process sees: its share of every step."""
        own = slice(self.trainer.global_rank, None, self.trainer.world_size)
        samples = len(self.run.items.samples)
        return [
            key
            for step in range(self.run.start, self.options.steps)
            for key in keys_of_step(
                step, samples=samples, batch_size=self.options.batch_size, variants=self.run.variants,
                seed=self.run.seed, stage=self.stage.name, first_variant=self.options.first_variant,
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

    def take_average(self) -> None:
        """Give the network its averaged weights; buffers are not averaged."""
        if self.average is not None:
            for own, averaged in zip(self.network.parameters(), self.average.module.parameters(), strict=True):
                own.data.copy_(averaged)


def _make_trainable(network: nn.Module) -> nn.Module:
    """Unfreeze a network; on a GPU, store weights of 3D convolutions as cuDNN prefers: channels last.

    On a CPU that layout doubles the time of a step: it makes the gradient of a group norm very slow (torch 2.13).
    """
    for parameter in network.requires_grad_(True).train().parameters():
        if parameter.ndim == 5 and parameter.is_cuda:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    return network


def _restore(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for name, value in tensors.items():
        number, _, key = name.partition(".")
        parameter = parameters[int(number)]
        like = torch.empty_like(parameter) if value.shape == parameter.shape else torch.empty_like(value)
        optimizer.state[parameter][key] = like.copy_(value)


def learning_rate(options: StageOptions, step: int) -> float:
    """Return the learning rate of a step (from 0): it rises linearly, then stays or falls to nothing.

    It falls like a cosine, or linearly from the middle of the steps on (Zhu et al. 2017, arXiv 1703.10593, section 4).
    """
    rate = options.learning_rate * min(1.0, (step + 1) / max(options.warmup, 1))
    if options.decay == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * step / options.steps))
    if options.decay == "linear":
        rate *= min(1.0, 2 - 2 * step / options.steps)
    return rate


def _average_towards(most: float) -> Callable[[_Tensors, _Tensors, Tensor | int], None]:
    """Return an update of an exponential moving average.

    The decay begins at 2/11 and rises to `most` like (1 + n) / (10 + n), as in TensorFlow's ExponentialMovingAverage,
    so that the first weights are soon forgotten.
    """

    def update(averages: _Tensors, values: _Tensors, count: Tensor | int) -> None:
        n = int(count)
        torch._foreach_lerp_(averages, values, 1 - min(most, (1 + n) / (10 + n)))

    return update
