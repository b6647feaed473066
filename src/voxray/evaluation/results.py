"""What an evaluation found: rows of scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import nan
from pathlib import Path

import numpy as np

from voxray.evaluation.csv_text import csv_text
from voxray.evaluation.protocols import Protocol
from voxray.geometry import Setup, ViewGeometry
from voxray.images.atomic import refuse_existing, write_text_atomic

Scores = Mapping[str, float | None]

# The name under which the plain mean volume of a model takes part.
PLAIN_MEAN = "mean"


@dataclass(frozen=True, eq=False)
class ViewSet:
    """The views of an evaluation, about the origin, and what to call them.

    Attributes:
        name: as it is typed: `pa,lateral`, or `4 over 180` for so many over a range in degrees.
        geometry: where source and detector stand.
    """

    name: str
    geometry: ViewGeometry

    @classmethod
    def of(cls, views: Sequence[str] | int, range_deg: float = 180.0, setup: str | Setup = "chest") -> "ViewSet":
        """Return views by names, or so many spread evenly over a range from PA.

        Raises:
            GeometryError: if a name, the number or the set-up is not valid.
        """
        if isinstance(views, int):
            return cls(f"{views} over {range_deg:g}", ViewGeometry.circular(views, range_deg, setup=setup))
        return cls(",".join(views), ViewGeometry.from_names(views, setup=setup))


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
        model: label of the model, or "mean" for the plain mean volume.
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
    """Mean and standard deviation of every metric over the cases of a group; NaN for those without."""

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
                stds = {metric: float(np.std(v, ddof=1)) if len(v) > 1 else 0.0 for metric, v in values.items()}
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
