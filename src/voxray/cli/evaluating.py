"""`voxray evaluate`, `voxray compare`, `voxray report` and `voxray bench`."""

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from voxray.cli.arguments import (
    Device,
    Overrides,
    Overwrite,
    Seed,
    check_output,
    flattened,
    make_folder,
    split_names,
    views_or_count,
)
from voxray.cli.output import note, progress, show, show_table

if TYPE_CHECKING:
    from voxray.api import EvaluateOptions, Evaluation


class Protocol(StrEnum):
    """How the X-rays of an evaluation are made (Typer takes a list of an enumeration, not of literals)."""

    CLOSED = "closed"
    CLINICAL = "clinical"


@dataclass(frozen=True)
class RunArguments:
    """The fields of `EvaluateOptions` that every command has, as they are typed."""

    split: Annotated[str, Option(help="Evaluate on these cases of the store; `all` for all.")] = "val"
    setup: Annotated[str, Option(help="Preset of the views: chest, x2ct, perx2ct or xraysyn.")] = "chest"
    samples: Annotated[
        int, Option(min=1, help="Volumes that a model draws for each case; from two on its uncertainty is judged, too.")
    ] = 1
    seed: Seed = 0
    device: Device = "auto"
    workers: Annotated[int, Option(min=1, help="Processes, each with a case at a time.")] = 1
    overwrite: Overwrite = False

    def options(self) -> "EvaluateOptions":
        """Return the checked options."""
        from voxray.api import EvaluateOptions

        return EvaluateOptions(
            split=None if self.split == "all" else self.split, setup=self.setup, samples=self.samples, seed=self.seed,
            device=self.device, workers=self.workers, overwrite=self.overwrite,
        )  # fmt: skip


@dataclass(frozen=True)
class EvaluateArguments(RunArguments):
    """All fields of `EvaluateOptions`, as they are typed."""

    protocol: Annotated[
        list[Protocol] | None,
        Option(
            help="closed: X-rays of the very cube that is scored, without noise; clinical: of the whole scan, with "
            "noise. Give it again for both; without it: both."
        ),
    ] = None
    range_deg: Annotated[float, Option(help="Range of a number of views.", min=0, max=360)] = 180.0
    metrics: Annotated[
        str | None, Option(metavar="NAME,...", help="Metrics, or groups of them; without it: all (docs/evaluation.md).")
    ] = None

    def options(self) -> "EvaluateOptions":
        """Return the checked options."""
        return replace(
            super().options(),
            protocols=tuple(name.value for name in self.protocol or Protocol),
            range_deg=self.range_deg,
            metrics=split_names(self.metrics, "--metrics") if self.metrics is not None else (),
        )


@flattened
def evaluate(
    model: Annotated[str, Argument(help="Name (see `voxray models`) or folder of a model.")],
    store: Annotated[Path, Argument(help="Made by `voxray prepare`.")],
    arguments: EvaluateArguments,
    views: Annotated[
        str, Option(help="Names with commas, or a number: so many, spread evenly over --range-deg from PA.")
    ] = "pa,lateral",
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        Option(
            "--out", "-o",
            help="Folder for the results, from which `voxray report` makes a report; the same command goes on there. "
            "A name that ends in .csv: the table alone, a line for each case and protocol.",
        ),
    ] = None,
) -> None:  # fmt: skip
    """Measure a model on prepared CTs, beside the plain mean volume."""
    from voxray.api import evaluate as run

    table = out if out is not None and out.suffix.lower() == ".csv" else None
    folder = out if table is None else None
    if table is not None:
        check_output(table, arguments.overwrite, "file")
    elif folder is not None:
        check_output(folder, overwrite=True)  # whether results may be there, the evaluation itself looks
    with progress("Evaluating") as draw:
        evaluation = run(
            model, store, folder, views=views_or_count(views), overrides=overrides or (), options=arguments.options(),
            progress=draw,
        )  # fmt: skip
    _show(evaluation)
    if table is not None:
        make_folder(table.parent)
        evaluation.write_csv(table, overwrite=arguments.overwrite)
    if out is not None:
        show(str(out))


@flattened
def compare(
    models: Annotated[
        list[str],
        Argument(
            metavar="MODELS",
            help="Names or folders; MODEL:KEY=VALUE changes a setting, as in dvg-net:config.consistency.final=false.",
        ),
    ],
    store: Annotated[Path, Argument(help="Made by `voxray prepare`.")],
    arguments: EvaluateArguments,
    out: Annotated[
        Path, Option("--out", "-o", help="Folder for the results; the same command goes on where it was stopped.")
    ],
    views: Annotated[
        list[str] | None,
        Option(help="Names with commas, or a number, as for evaluate; give it again to compare sets of views."),
    ] = None,
    with_report: Annotated[
        bool, Option("--report", help="Make a report of the results, report.html in their folder.")
    ] = False,
) -> None:
    """Measure several models on the same CTs and X-rays."""
    from voxray.api import compare as run
    from voxray.api import report as write

    check_output(out, overwrite=True)
    sets = [views_or_count(chosen) for chosen in views or ["pa,lateral"]]
    try:
        with progress("Comparing") as draw:
            evaluation = run(models, store, out, views=sets, options=arguments.options(), progress=draw)
    except KeyboardInterrupt:
        note(f"The same command goes on where it was stopped ('{out}').")
        raise
    _show(evaluation)
    if with_report:
        write([out], out / "report.html", overwrite=True)
    show(str(out))


def _show(evaluation: "Evaluation") -> None:
    """Show the headline figures, or those that were asked for."""
    from voxray.evaluation.catalogue import HEADLINE, metric_named

    shown = [name for name in evaluation.metrics if name in HEADLINE] or list(evaluation.metrics[:8])
    found = [metric_named(name) for name in shown]
    headings = [f"{metric.heading}, {metric.unit}".rstrip(", ") for metric in found if metric is not None]
    several = len({row.views for row in evaluation.rows}) > 1
    rows = [
        (
            line.protocol, *([line.group.views] if several else []), line.model, line.cases,
            *(_shown(line.means[name], line.stds[name]) for name in shown),
        )
        for line in evaluation.summary()
    ]  # fmt: skip
    show_table(("protocol", *(["views"] if several else []), "model", "cases", *headings), rows)


def _shown(mean: float, std: float) -> str:
    if not math.isfinite(mean):
        return "-"
    return f"{mean:.4g}" if math.isnan(std) else f"{mean:.4g} ± {std:.2g}"


def report(
    folders: Annotated[list[Path], Argument(help="Results of `voxray evaluate`, `compare` or `nodules`.")],
    out: Annotated[Path, Option("--out", "-o", help="HTML file; LaTeX and CSV tables are written beside it.")] = Path(
        "report.html"
    ),
    reference: Annotated[
        str | None, Option(help="Model that the others are tested against; without it, the first.")
    ] = None,
    title: Annotated[str, Option(help="What stands on top.")] = "",
    overwrite: Overwrite = False,
) -> None:
    """Make one HTML file of results: tables, tests, pictures, and the published numbers beside."""
    from voxray.api import report as run

    check_output(out, overwrite, "file")
    make_folder(out.parent)
    for file in run(folders, out, reference=reference, title=title, overwrite=overwrite):
        show(str(file))


bench = typer.Typer(help="Measurements in a layout that is known from the papers.", no_args_is_help=True)


@bench.command()
@flattened
def quality(
    data: Annotated[Path, Option("--data", metavar="STORE", help="Made by `voxray prepare`.")],
    out: Annotated[Path, Option("--out", "-o", help="Folder for the results, which the same command goes on with.")],
    arguments: RunArguments,
    model: Annotated[
        list[str] | None,
        Option(metavar="MODEL", help="As for compare; give it again for more. Without it: those of `voxray models`."),
    ] = None,
) -> None:
    """Fill the tables of DVG-Diffusion and DX2CT with the models at hand, beside what was published."""
    from voxray.api import bench_quality

    check_output(out, overwrite=True)
    with progress("Measuring") as draw:
        files = bench_quality(data, out, models=model, options=arguments.options(), progress=draw)
    for file in files:
        show(str(file))
