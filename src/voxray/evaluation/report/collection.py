"""Results of one or more folders as one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from voxray.errors import InputError
from voxray.evaluation.folder import ModelEntry, ResultsFolder
from voxray.evaluation.planes import Planes
from voxray.evaluation.results import PLAIN_MEAN, Evaluation, Group, Row, is_plain_mean


@dataclass(frozen=True, eq=False)
class Collection:
    """All rows of some folders of results.

    Attributes:
        evaluation: the rows; a model that is another one, or was run with another seed or number of samples, than one
            of its name in a folder before, has the name of its folder behind its own. A plain mean is `mean`, where
            all folders have the same volume, and else `mean of MODEL`, for it is what that model learned from.
        models: label -> model; plain means are the last, as in the rows.
        folders: those that the rows came from.
        cases: how many different cases there are.
        missing: reconstructions that are planned in a folder, but not done (or refused by the model).
    """

    evaluation: Evaluation
    models: dict[str, ModelEntry]
    folders: tuple[ResultsFolder, ...]
    origins: dict[tuple[str, Group], tuple[ResultsFolder, Row]]
    cases: int
    missing: int

    @classmethod
    def open(cls, paths: Sequence[Path]) -> "Collection":
        """Read folders of results.

        Raises:
            InputError: if one is none, they have no rows, or two know different scans or views by one name.
        """
        folders = tuple(ResultsFolder.open(path) for path in paths)
        models: dict[str, ModelEntry] = {}
        origins: dict[tuple[str, Group], tuple[ResultsFolder, Row]] = {}
        drawn: dict[str, tuple[int, int]] = {}
        metrics: dict[str, None] = {}
        missing = 0
        _check_cases(folders)
        _check_views(folders)
        means = _first_means(folders)
        several, named = len(set(means.values())) > 1, dict[ResultsFolder, str]()
        for folder in folders:
            labels = _enter_models(models, drawn, folder)
            if folder in means:
                called = named.setdefault(means[folder], _mean_label(folder, labels) if several else PLAIN_MEAN)
                labels[PLAIN_MEAN] = called
                models.setdefault(called, folder.manifest.models[PLAIN_MEAN])
            metrics |= dict.fromkeys(folder.manifest.metrics)
            rows = folder.rows()
            asked = folder.manifest
            missing += len(asked.entries) * len(asked.protocols) * len(asked.cases) - len(rows)
            for row in rows:
                group = replace(row.group, model=labels[row.model])
                origins.setdefault((row.case, group), (folder, row))
        if not origins:
            raise InputError(f"There is no finished reconstruction in {', '.join(str(path) for path in paths)}.")
        rows = [replace(row, model=group.model) for (_, group), (_, row) in origins.items()]
        shown = tuple(sorted(rows, key=lambda row: is_plain_mean(row.model)))
        models = dict(sorted(models.items(), key=lambda item: is_plain_mean(item[0])))
        return cls(
            Evaluation(shown, tuple(metrics)), models, folders, origins, len({row.case for row in shown}), missing
        )

    def planes(self, row: Row) -> tuple[Planes, Planes]:
        """Read the central planes of a row's volume, and of the truth."""
        folder, original = self.origins[row.case, row.group]
        return folder.planes(original)

    def settings(self) -> list[tuple[str, str]]:
        """Return protocols, views, and the same for all that is random."""
        protocols, views = list[str](), list[str]()
        for folder in self.folders:
            protocols += folder.manifest.protocols
            views += folder.manifest.views
        seeds = {folder.manifest.seed for folder in self.folders}
        samples = {folder.manifest.samples for folder in self.folders}
        return [
            ("cases", str(self.cases)),
            ("protocols", ", ".join(dict.fromkeys(protocols))),
            ("views", "; ".join(dict.fromkeys(views))),
            ("seed", ", ".join(map(str, sorted(seeds)))),
            ("samples a case, at least", ", ".join(map(str, sorted(samples)))),
            ("made by", ", ".join(sorted({folder.manifest.made_by for folder in self.folders}))),
        ]


def _check_cases(folders: Sequence[ResultsFolder]) -> None:
    hashes: dict[str, str] = {}
    for folder in folders:
        for case, sha256 in folder.manifest.cases.items():
            if hashes.setdefault(case, sha256) != sha256:
                raise InputError(
                    f"The case {case!r} in '{folder.path}' is another scan than in the folders before it, or was "
                    "prepared in another way: their scores may not stand side by side."
                )


def _check_views(folders: Sequence[ResultsFolder]) -> None:
    geometries: dict[str, JsonValue] = {}
    for folder in folders:
        for views, geometry in folder.manifest.views.items():
            if geometries.setdefault(views, geometry) != geometry:
                raise InputError(
                    f"The views {views!r} in '{folder.path}' stand elsewhere than in the folders before it (another "
                    "--setup): their scores may not stand side by side."
                )


def _enter_models(
    models: dict[str, ModelEntry], drawn: dict[str, tuple[int, int]], folder: ResultsFolder
) -> dict[str, str]:
    """Enter the models of a folder, with its seed and samples, and return what each is called; not its plain mean."""
    labels, mine = {}, (folder.manifest.seed, folder.manifest.samples)
    for label, entry in folder.manifest.models.items():
        if label == PLAIN_MEAN:
            continue
        called = [label, f"{label} ({folder.path.name})", f"{label} ({folder.path})"]
        free = (name for name in called if models.get(name, entry) == entry and drawn.get(name, mine) == mine)
        labels[label] = next(free, called[-1])
        models.setdefault(labels[label], entry)
        drawn.setdefault(labels[label], mine)
    return labels


def _first_means(folders: Sequence[ResultsFolder]) -> dict[ResultsFolder, ResultsFolder]:
    """Return for each folder with a plain mean the first folder that has the same one."""
    found: dict[ResultsFolder, ResultsFolder] = {}
    for folder in folders:
        if PLAIN_MEAN in folder.manifest.models:
            known = dict.fromkeys(found.values())
            found[folder] = next((first for first in known if _same_mean(first, folder)), folder)
    return found


def _same_mean(one: ResultsFolder, other: ResultsFolder) -> bool:
    """Tell whether two plain means are of one model, or look the same: models that learned from the same scans."""
    if one.manifest.models[PLAIN_MEAN].sha256 == other.manifest.models[PLAIN_MEAN].sha256:
        return True
    mine, others = ({row.protocol: row for row in folder.rows() if row.model == PLAIN_MEAN} for folder in (one, other))
    pairs = [(one.planes(mine[name])[0], other.planes(others[name])[0]) for name in mine if name in others]
    return bool(pairs) and all(
        np.array_equal(a, b) for one_planes, other_planes in pairs
        for a, b in zip(one_planes.hu, other_planes.hu, strict=True)
    )  # fmt: skip


def _mean_label(folder: ResultsFolder, labels: dict[str, str]) -> str:
    """Return what the plain mean of a folder is called beside another one: by the model that it is of."""
    models = folder.manifest.models
    owner = next((label for label in labels if models[label].sha256 == models[PLAIN_MEAN].sha256), None)
    return f"{PLAIN_MEAN} of {folder.path.name if owner is None else labels[owner]}"
