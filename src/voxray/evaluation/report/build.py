"""From folders of results to one HTML file, with LaTeX and CSV beside it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from voxray.errors import InputError
from voxray.evaluation.catalogue import HEADLINE, metric_named
from voxray.evaluation.fid import FidLine, read_fid
from voxray.evaluation.folder import MANIFEST
from voxray.evaluation.nodule_folder import origins_of
from voxray.evaluation.nodule_results import NODULES, read_nodules
from voxray.evaluation.protocols import Protocol
from voxray.evaluation.published import published_tables
from voxray.evaluation.report import tables
from voxray.evaluation.report.collection import Collection
from voxray.evaluation.report.latex import as_latex
from voxray.evaluation.report.tables import Table
from voxray.evaluation.results import Group, is_plain_mean
from voxray.images.atomic import refuse_existing, write_text_atomic
from voxray.images.disclaimer import DISCLAIMER, made_by

# Sets of views and protocols whose cases are shown; each adds some hundred kilobytes for every model (ours).
_MOST_SHOWN = 4


@dataclass(frozen=True)
class Figure:
    """A picture of a report: a data URI and what is said beneath it."""

    uri: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A part of a report; folded ones show their title alone until they are opened."""

    title: str
    text: str = ""
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    folded: bool = False


def build_report(
    folders: Sequence[Path], out: Path, *, reference: str | None = None, title: str = "", overwrite: bool = False
) -> list[Path]:
    """Write a report about folders of results.

    Args:
        folders: made by `evaluate` or `compare`; what `nodule_test` wrote may lie in them, or in others.
        out: the HTML file; `.tex` and `.csv` are written beside it.
        reference: model that the others are tested against; None for the first.
        title: what stands on top.
        overwrite: replace files that are there.

    Returns:
        What was written.

    Raises:
        InputError: if a folder holds no results, there is no such model, the name is not that of an HTML file, or
            a file exists and may not be overwritten.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"A report is an HTML file: call it {out.name}.html instead of {out.name}.")
    for path in _outputs(out):
        refuse_existing(path, overwrite)
    results = [folder for folder in folders if (folder / MANIFEST).is_file() or not (folder / NODULES).is_file()]
    if not results:
        raise InputError(
            f"{', '.join(map(str, folders))}: planted nodules alone are no report; give a folder of `voxray evaluate` "
            "or `voxray compare`, too."
        )
    collection = Collection.open(results)
    reference = checked_reference(collection, reference)
    sections = [
        *_scores(collection, reference), _fid(collection), _published(collection), _cases(collection, reference),
        _curves(collection), _calibration(collection), _nodules(collection, folders), _costs(collection),
        *_details(collection), _published_apart(),
    ]  # fmt: skip
    kept = [section for section in sections if section.tables or section.figures]
    return write_report(out, title or "Evaluation of CT reconstruction from X-rays", collection, kept)


def write_report(out: Path, title: str, collection: Collection, sections: Sequence[Section]) -> list[Path]:
    """Write sections as HTML, their tables as LaTeX, and all means as CSV; files that are there are replaced."""
    latex = "\n".join(as_latex(table) for section in sections for table in section.tables)
    texts = (render(title, collection, sections), latex, tables.as_csv(collection.evaluation))
    for path, text in zip(_outputs(out), texts, strict=True):
        write_text_atomic(path, text)
    return _outputs(out)


def _outputs(out: Path) -> list[Path]:
    return [out, out.with_suffix(".tex"), out.with_suffix(".csv")]


def render(title: str, collection: Collection, sections: Sequence[Section]) -> str:
    """Return the HTML of a report: whatever stands in names of models and cases is shown, never run."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = (files("voxray.evaluation.report") / "template.html.j2").read_text(encoding="utf-8")
    scored = {name for row in collection.evaluation.rows for name, score in row.scores.items() if score is not None}
    known = [metric for name in collection.evaluation.metrics if name in scored and (metric := metric_named(name))]
    return environment.from_string(template).render(
        title=title, sections=sections, settings=collection.settings(), models=collection.models, metrics=known,
        missing=collection.missing, is_plain_mean=is_plain_mean, disclaimer=DISCLAIMER, made_by=made_by(),
    )  # fmt: skip


def checked_reference(collection: Collection, reference: str | None) -> str:
    """Return the model that others are tested against: the one that is named, or the first.

    Raises:
        InputError: if there is none of that name.
    """
    if reference is None:
        return next(iter(collection.models))
    if reference not in collection.models:
        raise InputError(f"There is no model {reference!r} in these results; there are {', '.join(collection.models)}.")
    return reference


def settings_of(collection: Collection) -> list[tuple[Protocol, str]]:
    """Return every protocol with views that there are rows of."""
    return list(dict.fromkeys((group.protocol, group.views) for group in collection.evaluation.by_group))


def _scores(collection: Collection, reference: str) -> list[Section]:
    from voxray.evaluation.report import figures

    evaluation, sections = collection.evaluation, []
    for protocol, views in settings_of(collection):
        chosen = [name for name in HEADLINE if any(
            evaluation.scores(group, name) for group in tables.groups_of(evaluation, protocol, views))]  # fmt: skip
        if not chosen:
            continue
        tested = tables.paired_tests(evaluation, protocol, views, reference)
        box = Figure(
            figures.box_plots(evaluation, protocol, views, chosen),
            f"{protocol.capitalize()} protocol, {views}: median, quartiles and whiskers of 1.5 interquartile ranges; "
            "a dot is a case.",
        )
        found = (tables.headline(evaluation, protocol, views), *([tested] if tested is not None else []))
        sections.append(Section(f"Scores: {protocol}, {views}", tables=found, figures=(box,)))
    return sections


def _fid(collection: Collection) -> Section:
    """Return what the folders know of FID, under the names that models have here."""
    found: dict[Group, FidLine] = {}
    for folder in collection.folders:
        lines = {line.group: line for line in read_fid(folder.path)}
        for (_, group), (origin, row) in collection.origins.items():
            if origin is folder and row.group in lines:
                found.setdefault(group, replace(lines[row.group], group=group))
    return Section("Sets of slices", tables=(tables.fid(list(found.values())),) if found else ())


def _published(collection: Collection) -> Section:
    protocols = dict.fromkeys(group.protocol for group in collection.evaluation.by_group)
    protocol: Protocol = "closed" if "closed" in protocols else next(iter(protocols))
    known = [table for table in published_tables() if table.by_method and not table.ablation and not table.apart]
    found = [tables.beside(collection.evaluation, table, protocol) for table in known]
    text = (
        "Ours stand beneath published numbers of the same convention. They may not be ranked: the scans, their split "
        "and the projector are others, and each table says which. Never compare across tables: their PSNR differ by "
        "up to 4.29 dB for the same volume, and more where blank slices count. A dash: not published, or not measured "
        "here; LPIPS needs its weights (VOXRAY_LPIPS). Ours are of each model's defaults: of diffusion models, the "
        "mean of several samples that were made to agree with the X-rays, where papers score one sample as drawn."
    )
    return Section("Beside the published numbers", text, tuple(table for table in found if table is not None))


def _published_apart() -> Section:
    found = tuple(tables.alone(table) for table in published_tables() if table.apart)
    text = "For the record, each with what it is of, and why nothing of ours may stand beside it."
    return Section("Published numbers that may not be compared", text, found, folded=True)


def _cases(collection: Collection, reference: str) -> Section:
    from voxray.evaluation.report import figures

    shown = settings_of(collection)
    pictures = []
    for protocol, views in shown[:_MOST_SHOWN]:
        for rank, case, decibels in ranked_cases(collection, Group(protocol, views, reference)):
            pictures.append(
                Figure(
                    figures.case_figure(collection, protocol, views, case),
                    f"{rank} case of {reference} ({case}, {decibels:.2f} dB): {protocol} protocol, {views}. Planes "
                    "through the middle of the cube, from black (-1000 HU and below) to white (1000 HU and above), "
                    "with more greys for lung and soft tissue. Error, in HU: reconstruction minus truth, from blue "
                    f"(too low) to red (too high); beyond ±{figures.ERROR_LIMIT_HU:.0f} HU the colour stays the same.",
                )
            )
    text = "Cases are chosen by the 3D PSNR of the reference, and shown for all models."
    if len(shown) > _MOST_SHOWN:
        text += f" Of {len(shown)} pairs of protocol and views, the first {_MOST_SHOWN} are shown."
    return Section("Best, median and worst cases", text, figures=tuple(pictures))


def ranked_cases(collection: Collection, group: Group) -> list[tuple[str, str, float]]:
    """Return best, median and worst case of a group by 3D PSNR, each case once."""
    scores = sorted(collection.evaluation.scores(group, "psnr3d").items(), key=lambda item: (-item[1], item[0]))
    if not scores:
        return []
    places = {"Best": 0, "Median": len(scores) // 2, "Worst": len(scores) - 1}
    found: dict[str, tuple[str, str, float]] = {}
    for rank, place in places.items():
        case, decibels = scores[place]
        found.setdefault(case, (rank, case, decibels))
    return list(found.values())


def _curves(collection: Collection) -> Section:
    from voxray.evaluation.report import figures

    drawn = []
    for protocol in dict.fromkeys(group.protocol for group in collection.evaluation.by_group):
        for metric in ("psnr3d", "ssim"):
            uri = figures.view_curve(collection.evaluation, protocol, metric)
            if uri is not None:
                drawn.append(
                    Figure(uri, f"{protocol.capitalize()} protocol; bands: 95 % bootstrap intervals of the mean.")
                )
    return Section("Number of X-rays", figures=tuple(drawn))


def _calibration(collection: Collection) -> Section:
    from voxray.evaluation.report import figures

    drawn, found = [], []
    for protocol, views in settings_of(collection):
        table = tables.calibration(collection.evaluation, protocol, views)
        found += [table] if table is not None else []
        uri = figures.calibration(collection.evaluation, protocol, views)
        if uri is not None:
            drawn.append(Figure(uri, f"{protocol.capitalize()} protocol, {views}: mean over cases."))
    text = "How often the truth lies within the intervals that a model's standard deviation promises."
    return Section("Calibration of the uncertainty", text, tuple(found), tuple(drawn))


def _nodules(collection: Collection, folders: Sequence[Path]) -> Section:
    lines = read_nodules(folders).summary()
    if not lines:
        return Section("Planted nodules")
    from voxray.evaluation.report import figures

    text = (
        "Whether a model shows what no other chest has: spheres of soft tissue are put into the lungs of the scans, "
        "and X-rays made with and without them are reconstructed."
    )
    uri = figures.nodules(lines, list(collection.models))
    drawn = Figure(uri, "Bands: 95 % bootstrap intervals over sites. Dotted: nothing is shown.")
    return Section("Planted nodules", text, (tables.nodules(lines, origins_of(folders)),), (drawn,))


def _costs(collection: Collection) -> Section:
    found = tables.costs(collection.evaluation)
    return Section("Runtime and memory", tables=(found,) if found is not None else ())


def _details(collection: Collection) -> list[Section]:
    found = tuple(tables.all_metrics(collection.evaluation, *setting) for setting in settings_of(collection))
    return [Section("All metrics", tables=found, folded=True)]
