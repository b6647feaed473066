"""The figures of a report, as data URIs: nothing is fetched from anywhere."""

import base64
import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from voxray.evaluation.catalogue import metric_named
from voxray.evaluation.nodule_results import NoduleLine
from voxray.evaluation.planes import NAMES, Planes
from voxray.evaluation.protocols import Protocol
from voxray.evaluation.published import heading
from voxray.evaluation.report.collection import Collection
from voxray.evaluation.report.tables import groups_of, mean_of
from voxray.evaluation.results import Evaluation, Group, is_plain_mean, spread_of
from voxray.images.preview import TONES_HU

# Okabe and Ito (2008): told apart by colour-blind readers.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
_GREY = "#8a8a8a"
_STYLE: Any = {
    "font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6, "axes.titlesize": 8.5,
    "axes.grid": True, "axes.axisbelow": True, "grid.linewidth": 0.4, "grid.color": "#e2e2e2", "legend.frameon": False,
    "legend.fontsize": 7.5, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "svg.hashsalt": "voxray",
    "font.family": "DejaVu Sans", "figure.facecolor": "white",
    "text.parse_math": False,  # a $ in the name of a model is no formula
}  # fmt: skip
# HU at which the map of errors ends: air against soft tissue is twice as far, fat against muscle a fifth (ours).
ERROR_LIMIT_HU = 500.0


def box_plots(evaluation: Evaluation, protocol: Protocol, views: str, metrics: Sequence[str]) -> str:
    """Draw a box for each model and metric, with a dot for each case."""
    groups, colours = groups_of(evaluation, protocol, views), colours_of(models_of(evaluation))
    with matplotlib.rc_context(_STYLE):
        figure = _figure(2.05 * len(metrics), 0.9 + 0.28 * len(groups) + 0.9)
        for i, metric in enumerate(metrics):
            axes = figure.add_subplot(1, len(metrics), i + 1)
            known = metric_named(metric)
            arrow = {"higher": " →", "lower": " ←", None: ""}[known.better if known is not None else None]
            values = [list(evaluation.scores(group, metric).values()) for group in groups]
            _boxes(axes, values, [colours[group.model] for group in groups])
            axes.set_title(heading(metric) + arrow, loc="left")
            axes.set_yticks(range(len(groups)), [group.model for group in groups] if i == 0 else [""] * len(groups))
            axes.set_ylim(len(groups) - 0.5, -0.5)
            axes.grid(False, axis="y")
        figure.tight_layout(w_pad=0.8)
        return _svg(figure)


def _boxes(axes: Axes, values: Sequence[Sequence[float]], colours: Sequence[str]) -> None:
    for place, (scores, colour) in enumerate(zip(values, colours, strict=True)):
        finite = [score for score in scores if np.isfinite(score)]
        if not finite:
            continue
        line = {"color": colour, "linewidth": 0.9}
        axes.boxplot(
            [finite], positions=[place], widths=0.55, orientation="horizontal", showfliers=False, manage_ticks=False,
            patch_artist=True, boxprops={"facecolor": colour + "33", "edgecolor": colour},
            medianprops=line | {"linewidth": 1.6}, whiskerprops=line, capprops=line,
        )  # fmt: skip
        # Dots are spread by their rank, not at random: the same report for the same results.
        spread = 0.16 * np.sin(2.4 * np.arange(len(finite)))
        axes.plot(finite, place + spread, ".", color=colour, markersize=2.5, alpha=0.6)


def view_curve(evaluation: Evaluation, protocol: Protocol, metric: str) -> str | None:
    """Draw a metric over the number of views; None where no model was given more than one number of a kind."""
    curves = view_curves([group for group in evaluation.by_group if group.protocol == protocol])
    if not curves:
        return None
    colours = colours_of(models_of(evaluation))
    families = list(dict.fromkeys(family for _, family in curves))
    with matplotlib.rc_context(_STYLE):
        figure = _figure(5.4, 3.2)
        axes = figure.add_subplot()
        for (model, family), points in curves.items():
            means = [mean_of(evaluation, group, metric) for _, group in points]
            counts = [count for count, _ in points]
            style = ("-", "--", ":", "-.")[families.index(family) % 4]
            axes.plot(counts, [m.mean for m in means], style, marker="o", markersize=3, color=colours[model],
                      linewidth=1.2, label=f"{model}, {family}")  # fmt: skip
            axes.fill_between(counts, [m.low for m in means], [m.high for m in means], color=colours[model], alpha=0.12)
        axes.set(xlabel="number of X-rays", ylabel=heading(metric))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        figure.tight_layout()
        return _svg(figure)


def view_curves(groups: Sequence[Group]) -> dict[tuple[str, str], list[tuple[int, Group]]]:
    """Return the curves over the number of views, each by model and kind of views, with its points.

    One of a single number of views is none, and one that is a part of another of the model is drawn with that.
    """
    curves: dict[tuple[str, str], list[tuple[int, Group]]] = {}
    for group in groups:
        for family, count in view_kinds(group.views, groups):
            curves.setdefault((group.model, family), []).append((count, group))
    return {
        (model, family): sorted(points, key=lambda point: point[0])
        for (model, family), points in curves.items()
        if len({count for count, _ in points}) > 1
        and not any(set(points) < set(more) for (other, _), more in curves.items() if other == model)
    }


def view_kinds(views: str, groups: Sequence[Group]) -> list[tuple[str, int]]:
    """Return on which curves a set of views stands, and its number of views.

    Named ones are on one curve, and each range over which views of a group are spread has another; `pa,lateral` is on
    the one of 180 degrees, too, and `pa` on all.
    """
    count, spread = spread_of(views)
    ranges = dict.fromkeys(spread_of(group.views)[1] for group in groups if " over " in group.views)
    on = [found for found in ranges if found is not None and (views == "pa" or found == spread)]
    named = [] if " over " in views else ["named views"]
    return [(family, count) for family in (*named, *(f"over {found:g}°" for found in on))]


def calibration(evaluation: Evaluation, protocol: Protocol, views: str) -> str | None:
    """Draw how often the truth lies in intervals over how often it should, everywhere and in the body.

    Returns:
        None where no model has intervals.
    """
    named = {name: found for name in evaluation.metrics if (found := re.fullmatch(r"coverage(\d+)(_body)?", name))}
    groups = [group for group in groups_of(evaluation, protocol, views)
              if any(evaluation.scores(group, name) for name in named)]  # fmt: skip
    if not groups:
        return None
    colours = colours_of(models_of(evaluation))
    with matplotlib.rc_context(_STYLE):
        figure = _figure(4.8, 3.0)
        axes = figure.add_subplot()
        axes.plot([0, 100], [0, 100], color=_GREY, linewidth=0.8, linestyle=":", label="calibrated")
        for group in groups:
            for region, style in ((None, "o-"), ("_body", "o--")):
                means = {int(found[1]): mean_of(evaluation, group, name, bootstrap=False)
                         for name, found in named.items() if found[2] == region}  # fmt: skip
                points = [(level, mean.mean) for level, mean in sorted(means.items()) if mean.cases]
                where = "everywhere" if region is None else "in the body"
                if points:
                    axes.plot(*zip(*points, strict=True), style, markersize=3.5, linewidth=1.2,
                              color=colours[group.model], label=f"{group.model}, {where}")  # fmt: skip
        axes.set(xlim=(0, 100), ylim=(0, 100), xlabel="interval, %", ylabel="truth within it, %", aspect="equal")
        axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
        figure.tight_layout()
        return _svg(figure)


def nodules(lines: Sequence[NoduleLine], models: Sequence[str]) -> str:
    """Draw recovery and AUC of planted nodules over their diameter, with intervals.

    Args:
        lines: in any order.
        models: those that have colours in the other figures.
    """
    groups = list(dict.fromkeys(line.group for line in lines))
    settings = list(dict.fromkeys((group.protocol, group.views) for group in groups))
    colours = colours_of([*models, *(group.model for group in groups)])
    with matplotlib.rc_context(_STYLE):
        figure = _figure(7.6, 2.9)
        panels = (("recovery", 0.0, "contrast recovery"), ("auc", 0.5, "AUC, nodule against none"))
        for i, (name, nothing, title) in enumerate(panels):
            axes = figure.add_subplot(1, 2, i + 1)
            axes.axhline(nothing, color=_GREY, linewidth=0.8, linestyle=":")
            for group in groups:
                mine = sorted((line for line in lines if line.group == group), key=lambda line: line.diameter_mm)
                sizes, values = [line.diameter_mm for line in mine], [getattr(line, name) for line in mine]
                ends = np.array([getattr(line, f"{name}_interval") for line in mine]).T
                style = ("-", "--", ":", "-.")[settings.index((group.protocol, group.views)) % 4]
                label = f"{group.model}, {group.protocol}, {group.views}" if len(settings) > 1 else group.model
                axes.plot(sizes, values, style, marker="o", markersize=3, color=colours[group.model], linewidth=1.2,
                          label=label)  # fmt: skip
                axes.fill_between(sizes, *ends, color=colours[group.model], alpha=0.12)
            axes.set(xlabel="diameter, mm", ylabel=title)
            axes.set_xticks(sorted({line.diameter_mm for line in lines}))
        axes.set_ylim(top=1.02)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        figure.tight_layout()
        return _svg(figure)


def case_figure(collection: Collection, protocol: Protocol, views: str, case: str) -> str:
    """Draw a case: the truth in three planes, beneath it each model, and beside each the error."""
    rows = [row for g in groups_of(collection.evaluation, protocol, views)
            for row in collection.evaluation.by_group[g] if row.case == case]  # fmt: skip
    found = [(row, *collection.planes(row)) for row in rows]
    _, _, truth = found[0]
    with matplotlib.rc_context(_STYLE | {"axes.grid": False}):
        tile = 1.15
        figure = _figure(6 * tile + 1.0, (1 + len(found)) * 0.93 * tile + 0.45)
        grid = figure.add_gridspec(
            1 + len(found), 7, wspace=0.03, hspace=0.03, left=0.115, right=0.905, top=1 - 0.2 / figure.get_figheight(),
            bottom=0.06 / figure.get_figheight(), width_ratios=[1] * 6 + [0.07],
        )  # fmt: skip
        images: list[tuple[str, Planes, Planes | None]] = [("truth", truth, None)]
        images += [(_caption(row.model, row.scores.get("psnr3d")), volume, truth) for row, volume, _ in found]
        shown = None
        for r, (label, volume, against) in enumerate(images):
            for plane in range(3):
                axes = figure.add_subplot(grid[r, plane])
                _draw_grey(axes, volume, plane)
                if r == 0:
                    axes.set_title(NAMES[plane], fontsize=7.5)
                if plane == 0:
                    axes.set_ylabel(label, fontsize=7.5)
                if against is not None:
                    errors = figure.add_subplot(grid[r, 3 + plane])
                    shown = _draw_error(errors, volume, against, plane)
                    if r == 1:
                        errors.set_title(f"error, {NAMES[plane]}", fontsize=7.5)
        if shown is not None:
            bar = figure.colorbar(shown, cax=figure.add_subplot(grid[1:, 6]), extend="both")
            bar.ax.tick_params(labelsize=6.5, width=0.5)
            bar.outline.set_visible(False)
            bar.set_label("error, HU (reconstruction minus truth)", fontsize=6.5)
        return _png(figure)


def _caption(model: str, decibels: float | None) -> str:
    words, lines = model.split(" "), [""]
    for word in words:
        lines = [*lines[:-1], f"{lines[-1]} {word}".strip()] if len(lines[-1] + word) < 18 else [*lines, word]
    return "\n".join([*lines, *([f"{decibels:.2f} dB"] if decibels is not None else [])])


def _draw_grey(axes: Axes, volume: Planes, plane: int) -> None:
    width, height = volume.size_mm[plane]
    grey = np.interp(volume.hu[plane], *TONES_HU)
    axes.imshow(grey, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0), interpolation="bilinear")
    _bare(axes)


def _draw_error(axes: Axes, volume: Planes, truth: Planes, plane: int) -> Any:
    width, height = volume.size_mm[plane]
    # Planes of another grid cannot be subtracted, and one store has one grid.
    error = volume.hu[plane].astype(np.float32) - truth.hu[plane]
    image = axes.imshow(error, cmap="RdBu_r", vmin=-ERROR_LIMIT_HU, vmax=ERROR_LIMIT_HU,
                        extent=(0, width, height, 0), interpolation="nearest")  # fmt: skip
    _bare(axes)
    return image


def _bare(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def models_of(evaluation: Evaluation) -> list[str]:
    """Return all models of an evaluation, in their order: each has one colour in all figures."""
    return list(dict.fromkeys(group.model for group in evaluation.by_group))


def colours_of(models: Sequence[str]) -> dict[str, str]:
    """Return a colour for each model; the plain mean is grey."""
    others = [model for model in dict.fromkeys(models) if not is_plain_mean(model)]
    means = dict.fromkeys(filter(is_plain_mean, models), _GREY)
    return means | {model: _COLOURS[i % len(_COLOURS)] for i, model in enumerate(others)}


def _figure(width_in: float, height_in: float) -> Figure:
    figure = Figure(figsize=(width_in, height_in))
    FigureCanvasAgg(figure)
    return figure


def _svg(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
