"""The numbers that papers report (`published.yaml`), each with its convention."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from voxray.evaluation.catalogue import metric_named

VIEWS = {"pa": "PA", "pa,lateral": "PA + lateral", "pa,45,lateral": "PA + 45° + lateral"}


@dataclass(frozen=True)
class Source:
    """Where numbers come from.

    Attributes:
        cite: authors, name, where.
        data: scans, split and projector.
        scoring: what its metrics are.
        body: part that the scans show.
    """

    cite: str
    data: str
    scoring: str
    body: str = "chest"


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        method: as the paper calls it.
        views: which X-rays were given, as `ViewSet.name`.
        metric: the name of voxray's metric in the same convention, or of another one (`heading`).
        new_deg: angles of synthesised views, where the table varies them.
        value: None where the paper has none.
    """

    method: str
    views: str
    metric: str
    new_deg: tuple[float, ...] | None
    value: float | None


@dataclass(frozen=True)
class PublishedTable:
    """A table of a paper.

    Attributes:
        id, name, caption: `name` is the paper's.
        source: where it is from.
        note: what else must be known.
        ablation: it compares variants of one method, which others than its authors hardly have.
        row_names, column_names: headings.
        cells: by rows.
    """

    id: str
    name: str
    caption: str
    source: Source
    note: str
    ablation: bool
    row_names: tuple[str, ...]
    column_names: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]

    @property
    def by_method(self) -> bool:
        """Whether each row is a method, so that others can be set beneath."""
        return all(len({cell.method for cell in row}) == 1 for row in self.cells) and not any(
            cell.new_deg is not None for row in self.cells for cell in row
        )

    @property
    def protocol(self) -> str:
        """Of which scans and X-rays the numbers are, and how they were scored."""
        return f"{self.source.data}. Scored: {self.source.scoring}."

    @property
    def apart(self) -> str:
        """Why nothing of voxray's may stand beside them at all; empty where something may."""
        if self.source.body != "chest":
            return f"These are scans of the {self.source.body}, and voxray's models are of chests."
        if all(metric_named(cell.metric) is None for row in self.cells for cell in row):
            return "How they were scored is not known well enough to do the same."
        return ""

    @property
    def caution(self) -> str:
        """Why other numbers may not be ranked with these."""
        return (
            f"{self.protocol} Numbers of other scans, splits or projectors stand "
            "beside for orientation and are no ranking. Ours are of each model's defaults: of diffusion models, the "
            "mean of several samples that were made to agree with the X-rays, where papers score one sample as drawn."
        )


@cache
def published_tables() -> tuple[PublishedTable, ...]:
    """Return all tables, in the order of the file."""
    data = _data()
    sources = {name: Source(**source) for name, source in data["sources"].items()}
    return tuple(_table(entry, sources[entry["source"]]) for entry in data["tables"])


def table_named(name: str) -> PublishedTable:
    """Return the table of an id."""
    return next(table for table in published_tables() if table.id == name)


def recipes_of(method: str) -> tuple[str, ...]:
    """Return the names of recipes whose models stand in for a published method."""
    return tuple(_data()["methods"].get(method, ()))


def heading(metric: str) -> str:
    """Return what a column of a metric is called, be it voxray's or another."""
    known = metric_named(metric)
    if known is None:
        return str(_data()["headings"].get(metric, metric))
    return f"{known.heading}, {known.unit}" if known.unit else known.heading


@cache
def _data() -> dict[str, Any]:
    text = (files("voxray.evaluation") / "published.yaml").read_text(encoding="utf-8")
    data: dict[str, Any] = yaml.safe_load(text)
    return data


def _table(entry: dict[str, Any], source: Source) -> PublishedTable:
    rows = [{name: value for name, value in row.items() if name != "values"} for row in entry["rows"]]
    values = [row["values"] for row in entry["rows"]]
    cells = tuple(
        tuple(
            _cell(entry.get("same", {}) | row | column, value)
            for column, value in zip(entry["columns"], numbers, strict=True)
        )
        for row, numbers in zip(rows, values, strict=True)
    )
    return PublishedTable(
        entry["id"], entry["name"], entry["caption"], source, entry.get("note", ""),
        entry.get("ablation", False),
        tuple(map(_name, rows)), tuple(map(_name, entry["columns"])), cells,
    )  # fmt: skip


def _cell(said: dict[str, Any], value: float | None) -> Cell:
    new = said.get("new")
    if "new_count" in said:
        new = _data()["new_views"][said["views"]][said["new_count"]]
    return Cell(said["method"], said["views"], said["metric"], None if new is None else tuple(new), value)


def _name(said: dict[str, Any]) -> str:
    """Return what a row or column is called, from what it says."""
    parts = []
    if "method" in said:
        parts.append(said["method"])
    if "views" in said:
        parts.append(VIEWS[said["views"]])
    if "metric" in said:
        parts.append(heading(said["metric"]))
    if "new" in said:
        parts.append(", ".join(f"{angle:g}°" for angle in said["new"]) or "none")
    if "new_count" in said:
        parts.append(f"{said['new_count']} new")
    return ", ".join(parts)
