"""What an evaluation found: rows of scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import nan
from pathlib import Path

import numpy as np
from jaxtyping import Float

from voxray.errors import GeometryError
from voxray.evaluation.csv_text import csv_text
from voxray.evaluation.protocols import Protocol
from voxray.geometry import Setup, ViewGeometry
from voxray.images.atomic import refuse_existing, write_text_atomic

Scores = Mapping[str, float | None]

# The name under which the plain mean volume of a model takes part.
PLAIN_MEAN = "mean"

# Views that have names, by the angle of `ViewGeometry.from_angles`.
_NAMED = {0.0: "pa", 90.0: "lateral", 180.0: "ap", -90.0: "right_lateral"}
# Evenly spread views are called by their number and range from here on (ours: so far, their names are short).
_MANY = 4
_OVER = " over "


def is_plain_mean(label: str) -> bool:
    """Tell whether a label is that of a plain mean: `mean`, or `mean of MODEL` where a report has several."""
    return label == PLAIN_MEAN or label.startswith(f"{PLAIN_MEAN} of ")


@dataclass(frozen=True, eq=False)
class ViewSet:
    """The views of an evaluation, about the origin, and what to call them.

    Attributes:
        name: `pa,lateral`, or `4 over 180` for so many over a range in degrees (`canonical_name`).
        geometry: where source and detector stand.
    """

    name: str
    geometry: ViewGeometry

    @classmethod
    def of(cls, views: Sequence[str] | int, range_deg: float = 180.0, setup: str | Setup = "chest") -> "ViewSet":
        """Return views by names, or so many spread evenly over a range from PA.

        The same views are the same set, however they were asked for: `0,90`, `pa,left_lateral` and 2 over 180 degrees
        are `pa,lateral`, with its images (an angle of 90 alone would show a lateral mirrored).

        Raises:
            GeometryError: if a name, the number or the set-up is not valid, or a view is asked for twice.
        """
        if isinstance(views, int):
            name = canonical_name(ViewGeometry.circular(views, range_deg, setup=setup))
        else:
            name = canonical_name(ViewGeometry.from_names(views, setup=setup))
        names = name.split(",")
        if len(set(names)) < len(names):
            raise GeometryError(f"The views {name} hold one twice: ask for each X-ray once.")
        number, spread = spread_of(name)
        if _OVER in name and spread is not None:
            return cls(name, ViewGeometry.circular(number, spread, setup=setup))
        return cls(name, ViewGeometry.from_names(names, setup=setup))


def canonical_name(views: ViewGeometry) -> str:
    """Return what views about the body's axis are called, by where their sources stand.

    Up to three go by their names, or angles in degrees: `pa`, `pa,45,lateral`. More of them go by their number and
    range where they are spread evenly from PA: `8 over 180`. Their order counts, for it counts to a method.

    Args:
        views: with all central rays at right angles to the body's axis, as `from_names` and `circular` make them.
    """
    rays = views.centre_mm - views.source_mm
    angles = np.rad2deg(np.arctan2(rays[:, 0], -rays[:, 1])).round(6) + 0.0  # no -0
    names = [_NAMED.get(180.0 if angle == -180 else angle, f"{angle:.10g}") for angle in angles.tolist()]
    spread = _range_of(angles) if len(views) >= _MANY else None
    return ",".join(names) if spread is None else f"{len(views)}{_OVER}{spread:g}"


def spread_of(name: str) -> tuple[int, float | None]:
    """Return how many views a set has, and over how many degrees they are spread evenly from PA.

    Returns:
        The range is None where they are not, or where there is one view alone, which is the first of any range.
    """
    number, over, range_deg = name.partition(_OVER)
    if over:
        return int(number), float(range_deg)
    angle_of = {text: angle for angle, text in _NAMED.items()}
    angles = [angle_of[text] if text in angle_of else float(text) for text in name.split(",")]
    return len(angles), _range_of(np.array(angles))


def _range_of(angles: Float[np.ndarray, " views"]) -> float | None:
    """Return the range over which angles are spread evenly from 0; None where they are not."""
    turns = np.diff(angles) % 360
    if not len(turns) or angles[0] != 0 or np.ptp(turns) > 1e-5:
        return None
    spread = round(len(angles) * float(turns.mean()), 4)
    return spread if 0 < spread <= 360 else None


@dataclass(frozen=True)
class Group:
    """What is averaged over: the cases of one protocol, set of views and model."""

    protocol: Protocol
    views: str
    model: str


@dataclass(frozen=True)
class Row:
    """What one reconstruction scored.

    Attributes:
        case, protocol: of the store; see `protocols.make_xrays`.
        model: label of the model, or "mean" for the plain mean volume (`is_plain_mean`).
        scores: by the names of metrics (`catalogue`); None where the trial has no such number.
        views: name of the set of views.
        seconds, memory_mb: what the reconstruction took (`cost`); None for the plain mean.
    """

    case: str
    protocol: Protocol
    model: str
    scores: Scores
    views: str = "pa,lateral"
    seconds: float | None = None
    memory_mb: float | None = None

    @property
    def group(self) -> Group:
        """The group that the row belongs to."""
        return Group(self.protocol, self.views, self.model)


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation of every metric over the cases of a group; NaN where there is none.

    A single case has a mean, but no standard deviation.
    """

    group: Group
    cases: int
    means: dict[str, float]
    stds: dict[str, float]

    @property
    def protocol(self) -> Protocol:
        """The protocol of the group."""
        return self.group.protocol

    @property
    def model(self) -> str:
        """The model of the group."""
        return self.group.model


@dataclass(frozen=True)
class Evaluation:
    """All rows of an evaluation.

    Attributes:
        rows: in the order in which they are shown.
        metrics: names of the columns of scores.
    """

    rows: tuple[Row, ...]
    metrics: tuple[str, ...] = ()

    @cached_property
    def by_group(self) -> dict[Group, list[Row]]:
        """The rows of each group, in the order of the rows."""
        found: dict[Group, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.group, []).append(row)
        return found

    def scores(self, group: Group, metric: str) -> dict[str, float]:
        """Return what the cases of a group scored, by case, without those that have no such number."""
        found = {row.case: row.scores.get(metric) for row in self.by_group.get(group, [])}
        return {case: value for case, value in found.items() if value is not None}

    def summary(self) -> list[Summary]:
        """Return one line for each group."""
        lines = []
        for group, rows in self.by_group.items():
            values = {metric: list(self.scores(group, metric).values()) or [nan] for metric in self.metrics}
            means = {metric: float(np.mean(v)) for metric, v in values.items()}
            with np.errstate(invalid="ignore"):  # of an infinite PSNR
                stds = {metric: float(np.std(v, ddof=1)) if len(v) > 1 else nan for metric, v in values.items()}
            lines.append(Summary(group, len(rows), means, stds))
        return lines

    def write_csv(self, path: Path, *, overwrite: bool = False) -> None:
        """Write one line a row: case, protocol, model, the metrics, then views, seconds and memory.

        Raises:
            InputError: if the file exists and may not be overwritten.
        """
        refuse_existing(path, overwrite)
        columns = ("case", "protocol", "model", *self.metrics, "views", "seconds", "memory_mb")
        rows = (
            (row.case, row.protocol, row.model, *map(row.scores.get, self.metrics), row.views, row.seconds,
             row.memory_mb)
            for row in self.rows
        )  # fmt: skip
        write_text_atomic(path, csv_text(columns, rows))
