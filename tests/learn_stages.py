"""Training without an engine: each stage on one batch, in moments. What the contract tests train methods with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from small_models import xrays_of
from torch import nn

from voxray.data.dataset import TrainingSample
from voxray.data.store import Case
from voxray.geometry import ViewGeometry
from voxray.images import Radiograph
from voxray.methods import Method
from voxray.methods.stages import Batch, GradientStage, Item, Preparation, Stage
from voxray.methods.style import Style
from voxray.recipes import Recipe
from voxray.training.order import seeded


@dataclass(frozen=True)
class Lesson:
    """A stage of training and the batch that it learns from, all other parts of the method being ready and frozen."""

    method: Method
    stage: GradientStage
    batch: Batch

    def gradients(self, seed: int = 0) -> dict[str, torch.Tensor | None]:
        """Return the gradient of every parameter that is trained, the critic's among them, by name."""
        parts = {"network": self.stage.network}
        rng = torch.Generator().manual_seed(seed)
        self._toggle(self.stage.network)
        start = self.stage.critic.start if self.stage.critic is not None else 0
        self.stage.loss(self.batch, start, rng)["loss"].backward()
        if self.stage.critic is not None:
            parts["critic"] = self.stage.critic.network
            self._toggle(self.stage.critic.network)
            self.stage.critic.loss(self.batch, rng)["loss"].backward()
        return {f"{part}.{key}": p.grad for part, net in parts.items() for key, p in net.named_parameters()}

    def error(self) -> float:
        """Return the loss of the batch, always of the same noise; no weights change."""
        self._toggle(None)
        state = {key: tensor.clone() for key, tensor in self.stage.network.state_dict().items()}
        total = sum(
            float(self.stage.loss(self.batch, 0, torch.Generator().manual_seed(seed))["loss"]) for seed in range(4)
        )
        self.stage.network.load_state_dict(state)  # a codebook moves when it is asked
        return total / 4

    def learn(self, steps: int | None = None) -> None:
        """Take all steps of the stage, or so many, with Adam; without critic and average."""
        self._toggle(self.stage.network)
        options, rng = self.stage.options, torch.Generator().manual_seed(0)
        adam = torch.optim.Adam(self.stage.network.parameters(), options.learning_rate, options.betas)
        for step in range(steps or options.steps):
            adam.zero_grad()
            self.stage.loss(self.batch, step, rng)["loss"].backward()
            nn.utils.clip_grad_norm_(self.stage.network.parameters(), options.clip or float("inf"))
            adam.step()
        self._toggle(None)

    def _toggle(self, trained: nn.Module | None) -> None:
        self.method.requires_grad_(False).eval()
        if self.stage.critic is not None:
            self.stage.critic.network.requires_grad_(False)
        if trained is not None:
            trained.requires_grad_(True).train()


def lessons(method: Method, cases: Sequence[Case], views: ViewGeometry) -> Iterator[Lesson]:
    """Go through the stages of training; whoever iterates lets each learn before the next one is asked for."""
    samples = [sample_of(case, views) for case in cases]
    if isinstance(method, Style):
        method.learn_from(torch.cat([method.laid_out(grey(sample)) for sample in samples]))
    for stage in method.stages():
        if isinstance(stage, Stage):
            stage.fit(cases, None)
        else:
            with torch.no_grad():
                items = [item_of(stage.preparation, sample) for sample in samples]
            yield Lesson(method, stage, {key: torch.stack([item[key] for item in items]) for key in items[0]})


def trained_on(recipe: Recipe, cases: Sequence[Case], views: ViewGeometry) -> tuple[Method, dict[str, float]]:
    """Train a recipe's method; return it, and what is left of each stage's loss, as a part of what it was."""
    left = {}
    with seeded("tests", recipe.name):
        method = recipe.build()
        for lesson in lessons(method, cases, views):
            before = lesson.error()
            lesson.learn()
            left[lesson.stage.name] = lesson.error() / before
    return method.eval(), left


def sample_of(case: Case, views: ViewGeometry) -> TrainingSample:
    """Return a patient, and X-rays of the whole body; views stand about the origin."""
    images = tuple(image[None] for image in xrays_of(case, views).images)
    grid = case.volume.grid.shifted(-case.isocentre_mm)
    return TrainingSample((case.id,), case.volume.hu[None], images, (views,), grid)


def grey(sample: TrainingSample) -> Radiograph:
    """Return a patient's X-rays as they might be estimated from grey values, with too much contrast."""
    exact = sample.radiograph()
    images = tuple(image.max() * (image / image.max()) ** 1.5 for image in exact.images)
    return replace(exact, images=images, kind="estimated")


def item_of(preparation: Preparation, sample: TrainingSample) -> Item:
    """Return what the preparation makes, by way of the one before it; in single precision."""
    if preparation.after is not None:
        return preparation.make(item_of(preparation.after, sample))  # type: ignore[arg-type]
    factor = preparation.coarser
    averages = replace(sample, hu=F.avg_pool3d(sample.hu, factor), grid=sample.grid.coarser(factor))
    return preparation.make(averages)  # type: ignore[arg-type]
