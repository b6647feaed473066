"""The tables of a report."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from voxray.evaluation.calibration import LEVELS
from voxray.evaluation.catalogue import HEADLINE, metric_named
from voxray.evaluation.csv_text import csv_text
from voxray.evaluation.fid import FidLine
from voxray.evaluation.nodule_results import NoduleLine
from voxray.evaluation.planes import NAMES
from voxray.evaluation.protocols import Protocol
from voxray.evaluation.published import PublishedTable, heading
from voxray.evaluation.results import Evaluation, Group
from voxray.evaluation.statistics import FEW_CASES, Mean, compare_all, smallest_p, summarise

NOTHING = "–"
# Where intervals are judged: for people, in the names of coverages, and the name of the width ("": there is none).
_PLACES = (
    ("everywhere", "", ""), ("body", "_body", "width90"), ("lungs", "_lung", "width90_lung"),
    ("soft tissue", "_soft", "width90_soft"), ("bone", "_bone", "width90_bone"),
)  # fmt: skip
# Sites of planted nodules below which intervals are wide (ours).
FEW_SITES = 30


@dataclass(frozen=True)
class Entry:
    """What stands in one place of a table.

    Attributes:
        text: as it is shown.
        small: what stands beneath it, in smaller letters.
        strong: the best of its column.
        quoted: from a paper, not measured here.
    """

    text: str
    small: str = ""
    strong: bool = False
    quoted: bool = False


@dataclass(frozen=True)
class Table:
    """A table for people.

    Attributes:
        title, notes: above and beneath.
        columns: headings; the first is of the names of the rows.
        rows: as many entries as columns.
        in_pairs: measured rows belong to the quoted one above them; else all of them stand beneath all quoted ones.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    notes: tuple[str, ...] = ()
    in_pairs: bool = False

    def ruled(self) -> list[bool]:
        """Tell of each row whether a line is drawn above it, where quoted and measured ones part."""
        quoted = [row[0].quoted for row in self.rows]
        return [i > 0 and here != quoted[i - 1] and here == self.in_pairs for i, here in enumerate(quoted)]


def column(metric: str) -> str:
    """Return the heading of a metric, with an arrow towards what is better."""
    known = metric_named(metric)
    arrow = {"higher": " ↑", "lower": " ↓", None: ""}[known.better if known is not None else None]
    return heading(metric) + arrow


def shown(value: float, metric: str) -> str:
    """Return a value with the digits of its metric; without a number, a dash."""
    return shown_as(value, digits_of(metric))


def digits_of(metric: str) -> int:
    """Return how many digits after the point a metric is shown with."""
    known = metric_named(metric)
    return known.digits if known is not None else 3


def shown_as(value: float, digits: int) -> str:
    """Return a value with so many digits after the point; without a number, a dash."""
    return NOTHING if math.isnan(value) else f"{value:.{digits}f}".replace("-", "−")


def headline(evaluation: Evaluation, protocol: Protocol, views: str) -> Table:
    """Return models by the headline figures: mean ± standard deviation [95 % interval of the mean]."""
    chosen = [name for name in HEADLINE if _has(evaluation, name, protocol, views)]
    groups = groups_of(evaluation, protocol, views)
    columns = [[mean_of(evaluation, group, name) for group in groups] for name in chosen]
    rows = []
    for i, group in enumerate(groups):
        entries = [Entry(group.model)]
        for name, means in zip(chosen, columns, strict=True):
            entries.append(Entry(*_with_interval(means[i], name), strong=i in _best(name, means)))
        rows.append(tuple(entries))
    cases = max((mean.cases for means in columns for mean in means), default=0)
    notes = ["Mean ± standard deviation over cases, and the 95 % bootstrap interval of the mean; the best is bold."]
    return Table(
        f"{protocol.capitalize()} protocol, {views} (n = {cases})", ("model", *map(column, chosen)), tuple(rows),
        tuple(notes + few(cases)),
    )  # fmt: skip


def paired_tests(evaluation: Evaluation, protocol: Protocol, views: str, reference: str) -> Table | None:
    """Return the differences to a reference on the same cases; None where there is nothing to compare."""
    chosen = [name for name in HEADLINE if _has(evaluation, name, protocol, views)]
    rows, cases = [], 0
    for name in chosen:
        for found in compare_all(evaluation, protocol, views, name, reference):
            number = partial(_signed, metric=name)
            span = f"[{number(found.low)}, {number(found.high)}]" if math.isfinite(found.low) else NOTHING
            texts = (found.model, column(name), str(found.cases), number(found.difference), span)
            rows.append(tuple(map(Entry, (*texts, p_text(found.p), p_text(found.p_holm)))))
            cases = max(cases, found.cases)
    if not rows:
        return None
    note = (
        "Mean difference over the cases that both have, with its 95 % paired bootstrap interval; two-sided Wilcoxon "
        "signed-rank test, and the same corrected for the number of models (Holm)."
    )
    columns = ("model", "metric", "n", f"minus {reference}", "95 % interval", "p", "p (Holm)")
    return Table(f"Against {reference}: {protocol}, {views}", columns, tuple(rows), (note, *few(cases, tested=True)))


def all_metrics(evaluation: Evaluation, protocol: Protocol, views: str) -> Table:
    """Return every metric by models: mean ± standard deviation."""
    groups = groups_of(evaluation, protocol, views)
    rows = []
    for name in evaluation.metrics:
        if not _has(evaluation, name, protocol, views):
            continue
        means = [mean_of(evaluation, group, name, bootstrap=False) for group in groups]
        best = _best(name, means)
        texts = [_with_spread(mean, name) for mean in means]
        rows.append((Entry(column(name)), *(Entry(text, strong=i in best) for i, text in enumerate(texts))))
    title = f"All metrics: {protocol}, {views}"
    return Table(title, ("metric", *(group.model for group in groups)), tuple(rows), ("Mean ± standard deviation.",))


def calibration(evaluation: Evaluation, protocol: Protocol, views: str) -> Table | None:
    """Return coverage and width of intervals by tissue; None where no model has intervals."""
    rows = []
    for group in groups_of(evaluation, protocol, views):
        for place, end, width in _PLACES:
            names = [f"coverage{level}{end}" for level in LEVELS] + [width]
            means = [mean_of(evaluation, group, name, bootstrap=False) for name in names]
            if any(mean.cases for mean in means):
                texts = (shown(mean.mean, name) for mean, name in zip(means, names, strict=True))
                rows.append(tuple(map(Entry, (group.model, place, *texts))))
    columns = ("model", "where", *(f"{level} % interval, %" for level in LEVELS), "width of 90 %, HU")
    notes = (
        "How many voxels of the truth lie within the interval of so many percent, mean over cases: as many, if the "
        "uncertainty is calibrated; fewer, if the model is too sure of itself. Regions are those of the truth.",
    )
    return Table(f"Intervals: {protocol}, {views}", columns, tuple(rows), notes) if rows else None


def costs(evaluation: Evaluation) -> Table | None:
    """Return what a reconstruction took; None where nothing is known."""
    rows = []
    for group, found in evaluation.by_group.items():
        seconds = [row.seconds for row in found if row.seconds is not None]
        memory = [row.memory_mb for row in found if row.memory_mb is not None]
        if seconds:
            most = f"{max(memory) / 1000:.2f}" if memory else NOTHING
            texts = (group.model, group.protocol, group.views, f"{median(seconds):.2f}", f"{max(seconds):.2f}", most)
            rows.append(tuple(map(Entry, texts)))
    notes = (
        "Wall time of a reconstruction on the machine of the evaluation, other work on it included. Memory: of the "
        "GPU, where there is one; else of the whole process, libraries and weights included.",
    )
    columns = ("model", "protocol", "views", "median, s", "longest, s", "peak memory, GB")
    return Table("Runtime and memory", columns, tuple(rows), notes) if rows else None


def nodules(lines: Sequence[NoduleLine], origins: Sequence[str]) -> Table:
    """Return recovery and AUC of planted nodules by diameter, each with its 95 % interval.

    Args:
        lines: in their order.
        origins: of which models and seeds they are, for the notes.
    """
    rows = []
    for line in lines:
        texts = (line.group.model, line.group.protocol, line.group.views, f"{line.diameter_mm:g}", str(line.sites),
                 shown_as(line.inserted_hu, 0))  # fmt: skip
        found = ((line.recovery, line.recovery_interval, 3), (line.auc, line.auc_interval, 2))
        rows.append((*map(Entry, texts), *(Entry(shown_as(mean, n), _span(*ends, n)) for mean, ends, n in found)))
    notes = [
        "Recovery: mean in the sphere of the reconstruction with the nodule minus without, over the same of the truth "
        "(1: all of the contrast is shown, 0: none). AUC: how often a site with a nodule is denser than another site "
        "without (1: always, 0.5: as often as not). 95 % bootstrap intervals over sites.",
    ]
    if any(line.sites < FEW_SITES for line in lines):
        notes.append(f"Intervals of fewer than {FEW_SITES} sites say little.")
    columns = ("model", "protocol", "views", "diameter, mm", "sites", "contrast, HU", "recovery ↑", "AUC ↑")
    return Table("Spheres of soft tissue planted in the lungs", columns, tuple(rows), (*notes, *origins))


def beside(evaluation: Evaluation, published: PublishedTable, protocol: Protocol) -> Table | None:
    """Return a published table with our models beneath; None where nothing of ours is in its conventions and views."""
    heads = published.cells[0]
    ours = []
    for model in dict.fromkeys(group.model for group in evaluation.by_group):
        means = [
            mean_of(evaluation, Group(protocol, cell.views, model), cell.metric, bootstrap=False) for cell in heads
        ]
        if any(mean.cases for mean in means):
            cells = zip(heads, means, strict=True)
            texts = [shown(mean.mean, cell.metric) for cell, mean in cells]
            ours.append((Entry(f"{model} (ours, n = {max(mean.cases for mean in means)})"), *map(Entry, texts)))
    if not ours:
        return None
    warning = "Ours are of other scans, and of another projector: no ranking."
    notes = tuple(filter(None, (f"{published.protocol} {warning}", published.note)))
    title = f"{_title(published)} (ours: {protocol} protocol)"
    return Table(title, ("method", *published.column_names), (*_quoted(published), *ours), notes)


def alone(published: PublishedTable) -> Table:
    """Return a published table beside which nothing of ours may stand, with the reason."""
    notes = tuple(filter(None, (f"{published.protocol} {published.apart}", published.note)))
    return Table(_title(published), ("method", *published.column_names), tuple(_quoted(published)), notes)


def _title(published: PublishedTable) -> str:
    return f"{published.source.cite}, {published.name}: {published.caption}"


def _quoted(published: PublishedTable) -> list[tuple[Entry, ...]]:
    return [
        tuple(Entry(text, quoted=True) for text in (name, *texts))
        for name, texts in zip(published.row_names, published_texts(published), strict=True)
    ]


def fid(lines: Sequence[FidLine]) -> Table:
    """Return the FID of groups, by axes and their mean."""
    rows = []
    for line in lines:
        texts = (line.group.model, line.group.protocol, line.group.views, str(line.cases))
        rows.append(
            tuple(map(Entry, (*texts, *(shown_as(value, 1) for value in (*line.axes, line.mean)), line.weights)))
        )
    columns = ("model", "protocol", "views", "n", *(f"{name} ↓" for name in NAMES), "mean ↓", "weights")
    notes = (
        "Fréchet distance between the InceptionV3 features of all reconstructed and all true slices (Heusel et al. "
        "2017). It tells whether slices look like those of a CT, not whether they are this patient's. Figures of other "
        "weights or another number of cases are not comparable; the plain mean is one volume, and has none.",
    )
    return Table("Fréchet inception distance (FID)", columns, tuple(rows), notes)


def published_texts(published: PublishedTable) -> list[list[str]]:
    """Return the published numbers, those of a metric with equally many digits, as papers print them."""
    digits: dict[str, int] = {}
    for cell in (cell for row in published.cells for cell in row if cell.value is not None):
        digits[cell.metric] = max(digits.get(cell.metric, 0), len(str(cell.value).partition(".")[2]))
    return [
        [NOTHING if cell.value is None else f"{cell.value:.{digits[cell.metric]}f}" for cell in row]
        for row in published.cells
    ]


def mean_of(evaluation: Evaluation, group: Group, metric: str, *, bootstrap: bool = True) -> Mean:
    """Return the mean of a metric over a group, without cases where there is none."""
    return summarise(list(evaluation.scores(group, metric).values()), bootstrap=bootstrap)


def groups_of(evaluation: Evaluation, protocol: Protocol, views: str) -> list[Group]:
    """Return the groups of a protocol and views, a model each."""
    return [group for group in evaluation.by_group if (group.protocol, group.views) == (protocol, views)]


def few(cases: int, *, tested: bool = False) -> list[str]:
    """Say that cases are few, where they are."""
    if cases >= FEW_CASES:
        return []
    note = f"Only {cases} case{'s' if cases != 1 else ''}: intervals of fewer than {FEW_CASES} are too narrow"
    return [f"{note}, and p cannot be below {smallest_p(cases):.3g}." if tested else f"{note}."]


def p_text(p: float) -> str:
    """Return a p-value for people."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def as_csv(evaluation: Evaluation) -> str:
    """Return every mean with its interval, a line for each group and metric."""
    columns = ("protocol", "views", "model", "metric", "cases", "mean", "std", "median", "low95", "high95")
    means = [(group, name, mean_of(evaluation, group, name))
             for group in evaluation.by_group for name in evaluation.metrics]  # fmt: skip
    rows = (
        (group.protocol, group.views, group.model, name, m.cases, m.mean, m.std, m.median, m.low, m.high)
        for group, name, m in means if m.cases
    )  # fmt: skip
    return csv_text(columns, rows)


# ---------------------------------------------------------------- parts


def _has(evaluation: Evaluation, metric: str, protocol: Protocol, views: str) -> bool:
    return any(evaluation.scores(group, metric) for group in groups_of(evaluation, protocol, views))


def _best(metric: str, means: Sequence[Mean]) -> list[int]:
    """Return which means are best; none where neither way is better, or there is nothing to choose from."""
    known = metric_named(metric)
    there = [i for i, mean in enumerate(means) if mean.cases]
    if known is None or known.better is None or len(there) < 2:
        return []
    best = (max if known.better == "higher" else min)(means[i].mean for i in there)
    return [i for i in there if means[i].mean == best]


def _with_interval(mean: Mean, metric: str) -> tuple[str, str]:
    return _with_spread(mean, metric), _span(mean.low, mean.high, digits_of(metric))


def _with_spread(mean: Mean, metric: str) -> str:
    """Return mean ± standard deviation; a single case, or an infinite mean, has no spread."""
    text = shown(mean.mean, metric)
    return text if math.isnan(mean.std) else f"{text} ± {shown(mean.std, metric)}"


def _span(low: float, high: float, digits: int) -> str:
    return "" if math.isnan(low) else f"[{shown_as(low, digits)}, {shown_as(high, digits)}]"


def _signed(value: float, *, metric: str) -> str:
    text = shown(value, metric)
    return text if text.startswith(("−", NOTHING)) else f"+{text}"
