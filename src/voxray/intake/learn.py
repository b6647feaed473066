"""Makes the network that gauges chests (`intake.gauge`), from a store of CT scans.

    python -m voxray.intake.learn STORE src/voxray/intake/gauge.safetensors

STORE is made by `voxray prepare` of scans whose licence allows it; its split `train` is used, and nothing else. Scans
are varied and projected, in PA and lateral, from where nobody knows exactly, through scatter and unknown curves; then
intake looks for the chest, and the network learns what is still wrong with what intake assumes.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from jaxtyping import Float
from safetensors.torch import save_file
from scipy import ndimage
from torch import Tensor
from torch.utils.data import Dataset

from voxray.data.augment import AugmentOptions
from voxray.data.dataset import XrayDataset
from voxray.data.randomise import Randomisation
from voxray.data.store import Store
from voxray.geometry import ViewGeometry
from voxray.images import Radiograph
from voxray.images.atomic import atomic_path
from voxray.images.types import Known
from voxray.intake.canvas import UP, lay_out, rightwards, size_at_isocentre
from voxray.intake.find import find
from voxray.intake.gauge import (
    FAMILIES,
    FINER,
    SIDE,
    Gauge,
    Pictures,
    body,
    canvas_grid,
    coarser,
    ranks_of,
)
from voxray.intake.statistics import LEVELS, STEP_MM

# How scans are varied, and how far off the geometry and the tones are; more than intake leaves, so that little is
# outside of what was learned. Ours.
_PEOPLE = AugmentOptions(shape=0.8, scale=0.12)
_UNKNOWN = Randomisation(
    mass=0.0,
    balance=0.0,
    gamma=0.3,
    scatter=0.4,
    rotation_deg=1.7,
    shift_mm=12.0,
    size=0.09,
    collimated=0.3,
    letters=0.0,
)
_PHOTONS, _PIXELS, _COARSER = 2e5, 224, 2
# The brightest level stands for this quantile of the line integrals, or more.
_SATURATED = 0.93
# Wider than what the network sees, so that it can be moved: shares of size, and mm.
_WIDER, _ZOOM, _SHIFT_MM = 1.15, 0.05, 8.0
# Half of the pictures are flattened, as displays do it: up to this part of what is blurred by so many places is taken
# away. Some pairs are views alone; ranks are noisy.
_FLATTENED, _BLUR_PLACES = 0.5, 4.0
_ALONE, _NOISE = 0.3, 0.05
_BATCH, _RATE, _DECAY = 32, 2e-3, 1e-2
# Standard deviation of normal numbers over the median of their size.
_SIGMA = 1.48
# A line integral of nearly nothing: air in a view that was found in a wrong place.
_LEAST = 0.05


@dataclass(frozen=True, eq=False)
class Example:
    """A pair of views as intake has found them, and the truth.

    Attributes:
        pictures: display values, (families, rows, columns), on canvases wider than the network's.
        seen: where there are some.
        line_integrals: the truth at the same places.
        told: size and height, as in `Gauged`, (families, 2).
    """

    pictures: Tensor
    seen: Tensor
    line_integrals: Tensor
    told: Tensor


class _Anywhere:
    """PA and lateral views about which the patient stands a little elsewhere each time."""

    def __init__(self) -> None:
        self.assumed = ViewGeometry.biplanar().resized([(_PIXELS, _PIXELS)] * 2)

    def draw(self, rng: torch.Generator) -> ViewGeometry:
        return _UNKNOWN.placed(self.assumed, rng)


class Examples(Dataset[Example]):
    """Of each scan of a split as many as wanted."""

    def __init__(self, store: Store, split: str, epochs: int) -> None:
        self.views = _Anywhere()
        self.samples = XrayDataset(store, split, self.views, augment=_PEOPLE, photons=_PHOTONS, coarser=_COARSER)
        self.epochs = epochs

    def __len__(self) -> int:
        return self.epochs * len(self.samples)

    def __getitem__(self, index: int) -> Example:
        epoch, number = divmod(index, len(self.samples))
        self.samples.set_epoch(epoch)
        sample, rng = self.samples[number], torch.Generator().manual_seed(index)
        exact, true, assumed = [image[0] for image in sample.images], sample.views[0], self.views.assumed
        shown = [_shown(*one, rng) for one in zip(*_UNKNOWN.developed(exact, rng), strict=True)]
        known = (Known(size="nobody", facing=False, centre=False),) * len(assumed)
        found = find(Radiograph(tuple(shown), assumed, "display", known=known))
        views, (step, side) = found.xrays.views, canvas_grid()
        shape = (round(side[0] * _WIDER / 2) * 2,) * 2
        displayed = [look.canvas(views, step, shape) for look in found.looks]
        truths = [
            lay_out(image.numpy(), np.ones(image.shape, dtype=bool), views, n, step, shape)
            for n, image in enumerate(exact)
        ]
        return Example(
            _stacked([canvas.picture for canvas in displayed]).float(),
            _stacked([canvas.seen for canvas in displayed]),
            _stacked([canvas.picture for canvas in truths]).float(),
            torch.tensor([what_is_wrong(true, views, n) for n in range(len(views))]),
        )


def _shown(estimated: Float[Tensor, "h w"], valid: Tensor, rng: torch.Generator) -> Tensor:
    """Return 12 bits that are saturated somewhere, and nothing where the detector is covered."""
    level = _SATURATED + (1.1 - _SATURATED) * float(torch.rand((), generator=rng))
    top = torch.quantile(estimated.flatten(), min(level, 1.0)) * max(level, 1.0)
    return ((estimated / top).clamp(0, 1) * 4095).round() * valid


def _stacked(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))


def what_is_wrong(true: ViewGeometry, assumed: ViewGeometry, view: int) -> tuple[float, float]:
    """Return size and height of what is wrong with the assumed geometry of a view; both have the same pixels."""
    size = np.log(size_at_isocentre(true, view) / size_at_isocentre(assumed, view)).mean()
    middle, up, right = assumed.project_mm(np.array([np.zeros(3), UP, rightwards(assumed, view)]), view)
    shown_at = true.project_mm(np.zeros(3), view)
    # Everything is as much further up as the isocentre seems to be further down.
    up_mm = -np.linalg.solve(np.stack([up - middle, right - middle], 1), shown_at - middle)[0] * np.exp(size)
    return float(size), float(up_mm)


def batch_of(examples: list[Example], rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return ranks, what is seen, what is to be told, and of which view: moved, flattened, and some of them alone."""
    count = len(examples)
    pictures, seen, exact, told = (
        torch.stack([getattr(one, name) for one in examples]) for name in ("pictures", "seen", "line_integrals", "told")
    )

    def uniform(end: float, *shape: int) -> Tensor:
        return end * (2 * torch.rand(count, len(FAMILIES), *shape, generator=rng) - 1)

    zoom, shift_mm = uniform(_ZOOM), uniform(_SHIFT_MM, 2)
    small, whole = coarser(_moved(pictures, zoom, shift_mm), _moved(seen, zoom, shift_mm) > 0.99)
    truth = F.avg_pool2d(_moved(exact, zoom, shift_mm), FINER)
    small = small - uniform(_FLATTENED).clamp_min(0)[..., None, None] * _blurred(small)
    alone = torch.rand(count, generator=rng)
    there = torch.stack([alone >= _ALONE / 2, alone < 1 - _ALONE / 2], 1)
    whole &= there[..., None, None]
    ranks = ranks_of(small, whole)
    ranks += _NOISE * torch.randn(ranks.shape, generator=rng)
    # What the canvas shows was moved up by `shift`, and made `exp(zoom)` times as large.
    size, up_mm = told[..., 0] - zoom, told[..., 1] - shift_mm[..., 1] * torch.exp(told[..., 0])
    inside = torch.where(whole & body(), truth, torch.nan).flatten(2)
    quantiles = torch.nanquantile(inside, torch.tensor(LEVELS), 2).clamp_min(_LEAST).log().movedim(0, -1)
    common = (size * there).sum(1) / there.sum(1)
    wanted = torch.cat([size[..., None], up_mm[..., None], quantiles - common[:, None, None]], 2)
    return ranks, whole, wanted.nan_to_num(), there & ~quantiles.isnan().any(2)


def _moved(canvases: Tensor, zoom: Tensor, shift_mm: Tensor) -> Pictures:
    """Return what canvases show about their middle, `exp(zoom)` times as large and moved by (columns, rows)."""
    wide_mm, side = canvases.shape[-1] * STEP_MM / FINER, SIDE * FINER
    matrices = torch.zeros(zoom.numel(), 2, 3)
    for axis in range(2):
        matrices[:, axis, axis] = (SIDE * STEP_MM / wide_mm * torch.exp(-zoom)).flatten()
        matrices[:, axis, 2] = (shift_mm[..., axis] * 2 / wide_mm).flatten()
    places = F.affine_grid(matrices, [len(matrices), 1, side, side], align_corners=False)
    moved = F.grid_sample(canvases.float().flatten(0, 1)[:, None], places, align_corners=False)
    return moved.unflatten(0, zoom.shape)[:, :, 0]


def _blurred(pictures: Pictures) -> Pictures:
    sizes = (0, 0, _BLUR_PLACES, _BLUR_PLACES)
    return torch.from_numpy(ndimage.gaussian_filter(pictures.numpy(), sizes, mode="nearest", truncate=2))


def fit(examples: list[Example], steps: int, seed: int = 0) -> Gauge:
    """Train the network."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return _fitted(examples, steps, torch.Generator().manual_seed(seed))


def _fitted(examples: list[Example], steps: int, rng: torch.Generator) -> Gauge:
    network = Gauge()
    _, _, wanted, there = batch_of(examples, rng)
    for family in range(len(FAMILIES)):
        values = wanted[there[:, family], family]
        network.mean[family] = values.median(0).values
        network.spread[family] = _SIGMA * (values - network.mean[family]).abs().median(0).values
    optimiser = torch.optim.AdamW(network.parameters(), _RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps)
    for _ in range(steps):
        chosen = torch.randint(len(examples), (_BATCH,), generator=rng).tolist()
        ranks, seen, wanted, there = batch_of([examples[n] for n in chosen], rng)
        loss = F.huber_loss(network(ranks, seen)[there], ((wanted - network.mean) / network.spread)[there])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval()


def main(
    store: Annotated[Path, typer.Argument(help="Made by `voxray prepare`.")],
    out: Annotated[Path, typer.Argument(help="The file to write.")],
    epochs: Annotated[int, typer.Option(help="Examples of each scan.")] = 90,
    steps: Annotated[int, typer.Option(help="Of training.")] = 1500,
) -> None:
    """Learn from the scans of the split `train`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = Examples(Store.open(store), "train", epochs)
        examples = [made[number] for number in range(len(made))]
    network = fit(examples, steps)
    weights = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    with atomic_path(out) as temporary:
        save_file(weights, temporary)


if __name__ == "__main__":
    typer.run(main)
