"""The tables of DVG-Diffusion and DX2CT, filled with the models at hand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import get_args

from voxray.evaluation.catalogue import metric_named
from voxray.evaluation.protocols import Protocol
from voxray.evaluation.published import Cell, recipes_of, table_named
from voxray.evaluation.report.tables import NOTHING, Entry, Table, mean_of, published_texts, shown
from voxray.evaluation.results import Evaluation, Group, ViewSet
from voxray.evaluation.run import Contender
from voxray.geometry import Setup
from voxray.geometry.axial import primary_angles_deg, widest_gap_deg
from voxray.recipes import Recipe

TABLES = ("dvg-1", "dvg-2", "dvg-3", "dvg-5", "dvg-6", "dvg-7", "dx2ct-1", "dx2ct-2")

# As the papers make their X-rays: of the cube that is scored, without noise.
PROTOCOL: Protocol = "closed"

# DVG-Diffusion without a synthesised view is this method of its Table II, with weights of its own.
_WITHOUT_NEW_VIEW = "VPGE-Diffusion"


@dataclass(frozen=True, eq=False)
class AtHand:
    """A model that is at hand.

    Attributes:
        recipe: what it was made from; its name tells for which published method it stands.
        vary: returns the model as a contender, with more settings of its recipe changed (none for as it is).
    """

    recipe: Recipe
    vary: Callable[[tuple[str, ...]], Contender]

    def stands_for(self, method: str) -> bool:
        """Tell whether it is voxray's model of a published method; a small one is, where the large one is."""
        name = self.recipe.name.removesuffix("-small")
        return name == method.lower().replace(" ", "-") or name in recipes_of(method)

    def has_new_view(self) -> bool:
        """Tell whether the angles of its synthesised views can be chosen (a setting of DVG-Diffusion's recipe)."""
        return self.recipe.config.get("new_view", {}) is not None

    def variants(self) -> list[tuple[str, ...]]:
        """Return the settings of a model that scores as papers do: one sample, and nothing made to agree with X-rays.

        Each stands beside the default: of diffusion models the mean of several samples; all in agreement.
        """
        method_config = self.recipe.method_config()
        config = method_config.model_dump()
        drawn = config.get("denoiser", ...) is not None
        alone: list[tuple[str, ...]] = [("config.ensemble=1",)] if drawn and config.get("ensemble", 1) > 1 else []
        consistency = config.get("consistency")
        if consistency is None:
            return alone
        agreeing = [name for name in ("final", "between") if consistency.get(name)]
        if agreeing:
            return [*alone, tuple(f"config.consistency.{name}=false" for name in agreeing)]
        if NoneType in get_args(type(method_config).model_fields["consistency"].annotation):
            return [*alone, ("config.consistency=null",)]
        return alone

    def new_deg(self, views: str) -> tuple[float, ...]:
        """Return the angles of the views that are synthesised by default, from the first towards the second view."""
        config = self.recipe.method_config().model_dump()["new_view"]
        if config["angles_deg"] is not None:
            return tuple(config["angles_deg"])
        angles = primary_angles_deg(ViewSet.of(views.split(",")).geometry)
        return (round(float(widest_gap_deg(angles) - angles[0]), 6),)

    def contender(self, cell: Cell) -> Contender:
        """Return the model in the variant that a cell is about."""
        if not cell.new_deg or cell.new_deg == self.new_deg(cell.views):
            return self.vary(())
        angles = ",".join(f"{angle:g}" for angle in cell.new_deg)
        return self.vary((f"config.new_view.angles_deg=[{angles}]",))


def candidates(cell: Cell, models: Sequence[AtHand]) -> list[AtHand]:
    """Return the models that a cell can be filled with."""
    method = _WITHOUT_NEW_VIEW if cell.new_deg == () else cell.method
    return [model for model in models if model.stands_for(method) and (not cell.new_deg or model.has_new_view())]


def entries(models: Sequence[AtHand], setup: str | Setup) -> list[tuple[Contender, ViewSet]]:
    """Return which variant of which model must be given which views, each once.

    Every model, and each of its variants, is given the views of one and of two X-rays.
    """
    wanted: dict[tuple[str, str], tuple[Contender, ViewSet]] = {}

    def want(contender: Contender, views: str) -> None:
        wanted[contender.label, views] = (contender, ViewSet.of(views.split(","), setup=setup))

    for model in models:
        for overrides in ((), *model.variants()):
            for views in ("pa", "pa,lateral"):
                want(model.vary(overrides), views)
    for cell in _cells():
        if metric_named(cell.metric) is not None:
            for model in candidates(cell, models):
                want(model.contender(cell), cell.views)
    order = list(dict.fromkeys(label for label, _ in wanted))  # a model's views one after another: it is loaded once
    return sorted(wanted.values(), key=lambda entry: order.index(entry[0].label))


def metrics() -> tuple[str, ...]:
    """Return the metrics of all tables, and the headline of voxray."""
    named = dict.fromkeys(cell.metric for cell in _cells() if metric_named(cell.metric) is not None)
    return ("psnr3d", *named)


def filled(evaluation: Evaluation, name: str, models: Sequence[AtHand]) -> Table:
    """Return a published table with what was measured beneath each of its rows.

    Args:
        evaluation: of `entries`.
        name: one of `TABLES`.
        models: those that were evaluated.
    """
    published = table_named(name)
    rows: list[tuple[Entry, ...]] = []
    for label, texts, cells in zip(published.row_names, published_texts(published), published.cells, strict=True):
        rows.append(tuple(Entry(text, quoted=True) for text in (label, *texts)))
        found = [candidates(cell, models) for cell in cells]
        rows += _measured(evaluation, cells, found)
        if published.by_method:
            rows += _variants(evaluation, cells, found[0])
    if published.by_method and not published.ablation:
        others = [m for m in models if not any(m.stands_for(cell.method) for row in published.cells for cell in row)]
        for model in others:
            rows += _measured(evaluation, published.cells[0], [[model]] * len(published.cells[0]))
    title = f"{published.source.cite}, {published.name}: {published.caption}"
    most = max((line.cases for line in evaluation.summary()), default=0)
    notes = (
        published.caution,
        published.note,
        f"Rows of voxray stand beneath the published ones: means of {most} cases.",
    )
    columns = ("method" if published.by_method else "", *published.column_names)
    return Table(title, columns, tuple(rows), tuple(filter(None, notes)), in_pairs=True)


def _measured(
    evaluation: Evaluation, cells: Sequence[Cell], found: Sequence[Sequence[AtHand]]
) -> list[tuple[Entry, ...]]:
    """Return a row for each model that can fill cells, or an empty row where there is none."""
    count = max(map(len, found))
    if count == 0:
        return [(Entry("voxray: no such model at hand"), *(Entry(NOTHING) for _ in cells))]
    rows = []
    for i in range(count):
        names = dict.fromkeys(models[i].vary(()).label for models in found if i < len(models))
        texts = [_text(evaluation, cell, models[i]) if i < len(models) else NOTHING
                 for cell, models in zip(cells, found, strict=True)]  # fmt: skip
        rows.append((Entry(f"voxray: {', '.join(names)}"), *map(Entry, texts)))
    return rows


def _variants(evaluation: Evaluation, cells: Sequence[Cell], models: Sequence[AtHand]) -> list[tuple[Entry, ...]]:
    """Return a row for each variant of the models of a row."""
    contenders = [model.vary(overrides) for model in models for overrides in model.variants()]
    return [
        (Entry(f"voxray: {contender.label}"), *(Entry(_shown(evaluation, cell, contender)) for cell in cells))
        for contender in contenders
    ]


def _text(evaluation: Evaluation, cell: Cell, model: AtHand) -> str:
    return _shown(evaluation, cell, model.contender(cell))


def _shown(evaluation: Evaluation, cell: Cell, contender: Contender) -> str:
    group = Group(PROTOCOL, cell.views, contender.label)
    mean = mean_of(evaluation, group, cell.metric, bootstrap=False)
    return shown(mean.mean, cell.metric) if mean.cases else NOTHING


def _cells() -> list[Cell]:
    tables = [table_named(name) for name in TABLES]
    return [cell for table in tables for row in table.cells for cell in row]


def write_quality(folder: Path, models: Sequence[AtHand]) -> list[Path]:
    """Write `quality.html`, `.tex` and `.csv` into a folder of results.

    Raises:
        InputError: if it holds none.
    """
    from voxray.evaluation.report.build import Section, write_report
    from voxray.evaluation.report.collection import Collection

    collection = Collection.open([folder])
    sections = [Section(_title(name), tables=(filled(collection.evaluation, name, models),)) for name in TABLES]
    title = "The tables of DVG-Diffusion and DX2CT"
    return write_report(folder / "quality.html", title, collection, sections)


def _title(name: str) -> str:
    table = table_named(name)
    return f"{'DX2CT' if name.startswith('dx2ct') else 'DVG-Diffusion'}, {table.name}: {table.caption}"
