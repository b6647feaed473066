"""How large and how dense a chest is that is shown through an unknown curve: a small network gauges it."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from safetensors.torch import load
from torch import Tensor, nn

from voxray.geometry import FloatArray
from voxray.intake.canvas import Canvas, Family
from voxray.intake.statistics import LEVELS, SHAPE, STEP_MM, chest_statistics

FILE = "gauge.safetensors"
FAMILIES: tuple[Family, ...] = get_args(Family)
# What the network sees: places of `STEP_MM` about the isocentre, each the mean of so many by so many of the canvas.
SIDE, FINER = 44, 2
# What it tells of a view: logarithm of the true size over the assumed one, mm that everything is further up than
# assumed, and the logarithms of line integrals at `LEVELS`.
TOLD = 2 + len(LEVELS)
# Channels of the four stages, groups of their normalisation, the part that is left out in training; ours.
_CHANNELS, _GROUPS, _LEFT_OUT = (24, 48, 72, 96), 4, 0.3
# What is told is no further from the mean than so many standard deviations of the training examples; and line integrals
# rise by this part at least, from level to level.
_FURTHEST, _LEAST_STEP = 2.5, 0.05

Pictures = Float[Tensor, "batch families rows columns"]
Masks = Bool[Tensor, "batch families rows columns"]


class Gauge(nn.Module):
    """Tells size, height and line integrals of a frontal and a lateral view, or of one of them, from their ranks.

    What a monotone curve does to an image, and an exposure, does not change the order of its pixels: the network is
    given the share of the pixels inside the body that are darker, and so cannot be misled by any of these. Ours: no
    paper is known to us that calibrates radiographs so.
    """

    mean: Tensor  # of what is told in the training examples, robustly: the median
    spread: Tensor  # the same of the standard deviation, by the median deviation

    def __init__(self) -> None:
        super().__init__()
        widths = (2 * len(FAMILIES) + 2, *_CHANNELS)
        self.stages = nn.ModuleList(_stage(*pair) for pair in itertools.pairwise(widths))
        self.head = nn.Sequential(nn.Dropout(_LEFT_OUT), nn.Linear(9 * widths[-1], len(FAMILIES) * TOLD))
        self.register_buffer("mean", torch.zeros(len(FAMILIES), TOLD))
        self.register_buffer("spread", torch.ones(len(FAMILIES), TOLD))

    def forward(self, ranks: Pictures, seen: Masks) -> Float[Tensor, "batch families told"]:
        """Return what is told, in standard deviations from the mean.

        Args:
            ranks: -1 to 1 (`ranks_of`).
            seen: where a view shows something; nowhere for a view that there is not.
        """
        rows, columns = (torch.linspace(-1, 1, n, device=ranks.device) for n in ranks.shape[2:])
        places = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(len(ranks), -1, -1, -1)
        x = torch.cat([ranks * seen, seen.to(ranks), places], 1)
        for number, stage in enumerate(self.stages):
            x = stage(F.max_pool2d(x, 2) if number else x)
        told: Tensor = self.head(F.adaptive_avg_pool2d(x, 3).flatten(1))
        return told.unflatten(1, (len(FAMILIES), TOLD))


def _stage(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (before, after):
        layers += [nn.Conv2d(width, after, 3, padding=1), nn.GroupNorm(_GROUPS, after), nn.SiLU()]
    return nn.Sequential(*layers)


def body() -> Bool[Tensor, "families rows columns"]:
    """Return where every training scan has some of the body, on the places that the network sees."""
    edge = (SIDE - SHAPE[0]) // 2
    inside = np.stack([chest_statistics()[family].inside for family in FAMILIES])
    return F.pad(torch.from_numpy(inside), (edge,) * 4)


def ranks_of(pictures: Pictures, seen: Masks) -> Pictures:
    """Return the share of the pixels inside the body that are darker than each pixel, as -1 to 1."""
    ranks = torch.zeros_like(pictures)
    inside = seen & body().to(seen.device)
    for place in itertools.product(*(range(n) for n in pictures.shape[:2])):
        picture = pictures[place].contiguous()
        values = picture[inside[place]].sort().values
        if len(values):
            below, up_to = (torch.searchsorted(values, picture, right=right) for right in (False, True))
            ranks[place] = (below + up_to) / len(values) - 1
    return ranks


@dataclass(frozen=True, eq=False)
class Gauged:
    """What is told of a view.

    Attributes:
        size: logarithm of the true size over the assumed one.
        up_mm: by what everything truly is further up.
        line_integrals: at `LEVELS` of the pixels inside the body, rising, if the assumed size is true.
    """

    size: float
    up_mm: float
    line_integrals: FloatArray


@cache
def _network() -> Gauge:
    with torch.device("meta"):  # draws no weights: nobody's random numbers change
        network = Gauge()
    weights = load(resources.files("voxray.intake").joinpath(FILE).read_bytes())
    network.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, assign=True)
    return network.eval()


def canvas_grid() -> tuple[tuple[float, float], tuple[int, int]]:
    """Return steps (mm) and shape of the canvases that are gauged."""
    return (STEP_MM / FINER,) * 2, (SIDE * FINER,) * 2


def gauge(canvases: Mapping[Family, Canvas]) -> dict[Family, Gauged]:
    """Gauge a frontal and a lateral view together, or one alone.

    Args:
        canvases: as `canvas_grid` says; display values, bone high.
    """
    network = _network()
    pictures = torch.zeros(1, len(FAMILIES), *canvas_grid()[1])
    seen = torch.zeros_like(pictures, dtype=torch.bool)
    for family, canvas in canvases.items():
        pictures[0, FAMILIES.index(family)] = torch.from_numpy(canvas.picture)
        seen[0, FAMILIES.index(family)] = torch.from_numpy(canvas.seen)
    small, whole = coarser(pictures, seen)
    with torch.no_grad():
        told = network(ranks_of(small, whole), whole).clamp(-_FURTHEST, _FURTHEST)[0] * network.spread + network.mean
    found = {}
    for family in canvases:
        size, up_mm, *logarithms = told[FAMILIES.index(family)].tolist()
        rising = np.maximum.accumulate(np.array(logarithms) - _LEAST_STEP * np.arange(len(LEVELS)))
        found[family] = Gauged(size, up_mm, np.exp(rising + _LEAST_STEP * np.arange(len(LEVELS))))
    return found


def coarser(pictures: Pictures, seen: Masks) -> tuple[Pictures, Masks]:
    """Return canvases as the network sees them; of a place that is not seen as a whole it sees nothing."""
    return F.avg_pool2d(pictures, FINER), F.avg_pool2d(seen.float(), FINER) == 1
