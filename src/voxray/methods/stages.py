"""The stages of a method's training: what is computed once, what is learned, and against what."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from voxray.data.dataset import TrainingSample
from voxray.data.store import Case

Progress = Callable[[int, int], None]

# Tensors by name: of one item without, of a batch with a first axis for the items.
Item = Mapping[str, Tensor]
Batch = Mapping[str, Tensor]

# Scalars by name, for the log; "loss" is minimised.
Losses = dict[str, Tensor]


class MethodConfig(BaseModel):
    """Base of every method's configuration: unknown keys and other types are errors, values do not change.

    A field that is a tuple needs `Field(strict=False)`: YAML has lists only.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class StageOptions(MethodConfig):
    """How a stage is trained; a part of its method's configuration."""

    steps: int = Field(gt=0, description="optimiser steps")
    batch_size: int = Field(default=1, gt=0, description="items a step, over all processes")
    variants: int | None = Field(
        default=None, gt=0, description="as in `data`, where this stage is to see fewer of them; null for as many"
    )
    first_variant: int = Field(
        default=0, ge=0,
        description="number of the first; above those of the stages before for samples that they have not learned from",
    )  # fmt: skip
    learning_rate: float = Field(default=2e-4, gt=0, description="of Adam, at its highest")
    betas: tuple[float, float] = Field(default=(0.9, 0.999), strict=False, description="of Adam")
    weight_decay: float = Field(default=0.0, ge=0, description="decoupled (AdamW)")
    warmup: int = Field(default=0, ge=0, description="steps over which the learning rate rises from nothing")
    decay: Literal["none", "cosine", "linear"] = Field(
        default="none", description="of the learning rate, down to nothing; linear: in the second half of the steps"
    )
    clip: float | None = Field(default=1.0, gt=0, description="largest norm of the gradient; null for any")
    ema: float | None = Field(
        default=None, gt=0, lt=1, description="of the moving average of the weights that is kept; null for none"
    )


@dataclass(frozen=True)
class Stage:
    """A stage without a gradient.

    Attributes:
        name: for logs.
        fit: sets the method's weights from the cases, in one go (a closed form). Each case is read when it is asked
            for, so go through them once.
    """

    name: str
    fit: Callable[[Sequence[Case], Progress | None], None]


@dataclass(frozen=True, eq=False)
class Preparation:
    """What frozen parts of a method make of a training sample; done once, and kept on disk.

    Attributes:
        name: of the cache, unique in the method.
        make: from the training sample (a batch of one) where `after` is None, else from the item of `after`. A pure
            function of that and of weights that no later stage changes. Floating-point tensors are kept in half
            precision, others as they are.
        after: the preparation whose item `make` is given.
        coarser: training samples are on voxels that are cubes of so many voxels of the method's grid, which takes a
            fraction of the time.
    """

    name: str
    make: Callable[[TrainingSample], Item] | Callable[[Item], Item]
    after: "Preparation | None" = None
    coarser: int = 1


@dataclass(frozen=True, eq=False)
class Critic:
    """The opponent in adversarial training; not part of the model.

    Attributes:
        network: what is trained.
        loss: after each step of the stage, of the same batch; called without gradients of the stage's network.
        start: the first step (from 0) in which it is trained.
    """

    network: nn.Module
    loss: Callable[[Batch, torch.Generator], Losses]
    start: int = 0


@dataclass(frozen=True, eq=False)
class GradientStage:
    """A stage in which networks learn by gradient descent (AdamW).

    Attributes:
        name: for logs and checkpoints, unique in the method.
        network: the part of the method that is trained, and averaged where `options.ema` says so; all other parts
            are frozen and in evaluation mode meanwhile. A buffer that it changes itself (a codebook) is copied.
        preparation: what makes its items.
        loss: of a batch (float32, on the network's device) in step `step` (from 0). All randomness comes from the
            generator, which is on the CPU.
        options: see there.
        critic: for adversarial training.
        preview: pictures of a batch, (rows, columns) in 0..1, by name, for the logs.
    """

    name: str
    network: nn.Module
    preparation: Preparation
    loss: Callable[[Batch, int, torch.Generator], Losses]
    options: StageOptions
    critic: Critic | None = None
    preview: Callable[[Batch], Mapping[str, Tensor]] | None = None


AnyStage = Stage | GradientStage
