"""Models on the cases of a store, under named protocols."""

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from voxray.data.store import Store, case_path, read_case, read_grid
from voxray.errors import GeometryError, VoxrayWarning
from voxray.evaluation import catalogue, fid, lpips
from voxray.evaluation.cost import Cost, measured
from voxray.evaluation.folder import ROWS, Manifest, ModelEntry, ResultsFolder, case_sha256
from voxray.evaluation.planes import Planes
from voxray.evaluation.protocols import Protocol, check_views, make_xrays
from voxray.evaluation.results import PLAIN_MEAN, Evaluation, Row, ViewSet
from voxray.evaluation.trial import Trial
from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.methods.base import Estimate, Method, Outside, check_grid
from voxray.processes import perform

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Contender:
    """A model that takes part.

    Attributes:
        label: in tables and files.
        load: returns the method with its weights; picklable, where several processes are to work.
        grid: that the method works on.
        sha256: of recipe and weights.
        overrides: settings of the recipe that were changed.
        about: the recipe's description.
        has_mean: it has a plain mean volume.
        plain: that takes part, not what the model reconstructs.
    """

    label: str
    load: Callable[[], Method]
    grid: VolumeGrid
    sha256: str = ""
    overrides: tuple[str, ...] = ()
    about: str = ""
    has_mean: bool = False
    plain: bool = False


@dataclass(frozen=True, eq=False)
class Task:
    """One reconstruction to be made and scored."""

    contender: Contender
    views: ViewSet
    protocol: Protocol
    case: str


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of a task.

    Attributes:
        row: None where the method cannot serve the views.
        planes, truth: central planes of the volume and of the truth.
        refusal: why it cannot.
        warnings: what was assumed.
    """

    row: Row | None
    planes: Planes | None = None
    truth: Planes | None = None
    refusal: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Plan:
    """All of an evaluation.

    Attributes:
        store: prepared cases, on the grid of all methods.
        cases: ids.
        entries: which contender is given which views.
        protocols: see `protocols.make_xrays`.
        metrics: names of metrics or of their groups (`catalogue.select`); none for all.
        seed: of noise and methods.
        samples: volumes that a method draws for each case; from two on it knows a standard deviation.
    """

    store: Store
    cases: tuple[str, ...]
    entries: tuple[tuple[Contender, ViewSet], ...]
    protocols: tuple[Protocol, ...]
    metrics: tuple[str, ...] = ()
    seed: int = 0
    samples: int = 1

    def tasks(self) -> list[Task]:
        """Return what is to be done, one contender after another, so that one at a time is in memory."""
        return [
            Task(contender, views, protocol, case)
            for contender, views in self.entries for protocol in self.protocols for case in self.cases
        ]  # fmt: skip

    def check(self, folder: Path | None) -> Path | None:
        """Refuse what can be told before a reconstruction is made, so that nothing older is deleted for it.

        Args:
            folder: for the results; None keeps nothing.

        Returns:
            The weights of FID, where it is asked for.

        Raises:
            InputError: if FID has too few cases, or no folder or weights; or a case is not on a model's grid.
            GeometryError: if a source stands inside the cube.
        """
        weights = fid.checked_weights(self.metrics, len(self.cases), folder)
        for contender, views in self.entries:
            check_views(views.geometry, contender.grid)
        grids = {contender.label: contender.grid for contender, _ in self.entries}.values()
        for name in self.cases if grids else ():
            own = read_grid(case_path(self.store.path, name))
            for grid in grids:
                check_grid(name, own, grid)
        return weights

    def manifest(self) -> Manifest:
        """Return what is written down of it."""
        contenders = {contender.label: contender for contender, _ in self.entries}
        metrics = tuple(metric.name for metric in catalogue.select(self.metrics))
        with_lpips = any(name.startswith("lpips") for name in metrics)
        weights = fid.find_weights() if fid.NAME in self.metrics else None
        return Manifest(
            cases={name: case_sha256(self.store.records[name]) for name in self.cases},
            models={label: ModelEntry(sha256=c.sha256, overrides=c.overrides, about=c.about)
                    for label, c in contenders.items()},
            views={views.name: json.loads(views.geometry.to_json()) for _, views in self.entries},
            entries=tuple((contender.label, views.name) for contender, views in self.entries),
            protocols=self.protocols,
            metrics=metrics,
            seed=self.seed,
            samples=self.samples,
            lpips=lpips.nets_there(asked=bool(self.metrics)) if with_lpips else (),
            fid="" if weights is None else fid.weights_name(weights),
        )  # fmt: skip


@dataclass
class Examiner:
    """Does tasks, one after another; the method of the last one stays in memory, and its plain means."""

    store: Path
    metrics: tuple[str, ...]
    seed: int
    samples: int
    with_planes: bool = False
    keep: fid.Keeper | None = None
    label: str | None = None
    method: Method | None = None
    means: dict[tuple[str, Outside], Estimate | None] = field(default_factory=dict)
    refused: dict[tuple[str, str], str] = field(default_factory=dict)

    def __call__(self, task: Task) -> Outcome:
        """Make the X-rays of a case, reconstruct it, and score the result.

        Raises:
            VoxrayError: if the case or the model cannot be used; that a method refuses the views is an outcome.
        """
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            outcome = self._outcome(task)
        told = dict.fromkeys(str(entry.message) for entry in caught if issubclass(entry.category, VoxrayWarning))
        return replace(outcome, warnings=tuple(told))

    def _outcome(self, task: Task) -> Outcome:
        served = (task.contender.label, task.views.name)
        if served in self.refused:
            return Outcome(None, refusal=self.refused[served])
        method = self._method(task.contender)
        case = read_case(case_path(self.store, task.case))
        radiograph, outside = make_xrays(case, task.views.geometry, task.protocol, self.seed)
        cost = Cost()
        try:
            if task.contender.plain:
                estimate = self._plain_mean(task.views, outside, method)
            else:
                rng = torch.Generator().manual_seed(self.seed)
                with measured(_device_of(method)) as cost:
                    estimate = method.reconstruct(radiograph, rng=rng, samples=self.samples, outside=outside)
        except GeometryError as error:
            self.refused[served] = str(error)
            return Outcome(None, refusal=str(error))
        trial = Trial(case, task.protocol, radiograph, outside, estimate, str(_device_of(method)))
        row = Row(
            task.case, task.protocol, task.contender.label,
            scores={metric.name: metric.of(trial) for metric in catalogue.select(self.metrics)},
            views=task.views.name,
            seconds=None if task.contender.plain else cost.seconds,
            memory_mb=cost.memory_mb,
        )  # fmt: skip
        if self.keep is not None and not task.contender.plain:
            self.keep(row, estimate.volume, case.volume, _device_of(method))
        if not self.with_planes:
            return Outcome(row)
        return Outcome(row, Planes.of(estimate.volume), Planes.of(case.volume))

    def _method(self, contender: Contender) -> Method:
        if self.method is None or self.label != contender.label:
            self.method = None  # the last one's memory is free before the next one needs it
            self.method, self.label = contender.load(), contender.label
            self.means.clear()
        return self.method

    def _plain_mean(self, views: ViewSet, outside: Outside, method: Method) -> Estimate:
        key = (views.name, outside)
        if key not in self.means:
            self.means[key] = method.plain_mean(views.geometry, outside)
        mean = self.means[key]
        if mean is None:
            raise GeometryError("The model has no plain mean for these views.")
        return mean


def run_plan(
    plan: Plan,
    folder: Path | None = None,
    *,
    workers: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Make and score every reconstruction of a plan.

    Args:
        plan: what is to be done.
        folder: for the results; the same plan goes on there where it was stopped. None keeps nothing.
        workers: processes.
        overwrite: replace the results of another plan.
        progress: called with (reconstructions done, reconstructions), those of an earlier run included.

    Returns:
        The rows, by case, views, protocol and model.

    Raises:
        GeometryError: if no model can serve any of the views; what one of several cannot is a `VoxrayWarning`.
        InputError: if the folder holds something else; these two also as `Plan.check`, before anything is deleted.
        ResourceError: if a worker was killed.
    """
    tasks = plan.tasks()
    weights = plan.check(folder)
    manifest = plan.manifest()
    results = ResultsFolder.start(folder, manifest, overwrite=overwrite) if folder is not None else None
    left = tasks
    if results is not None:
        left = [t for t in tasks if not results.is_done(t.case, t.protocol, t.views.name, t.contender.label)]
    keep = fid.Keeper(results, weights) if results is not None and weights is not None else None
    make = partial(Examiner, plan.store.path, plan.metrics, plan.seed, plan.samples, results is not None, keep)
    rows: list[Row] = []
    refusals: dict[tuple[str, str], str] = {}
    said: set[str] = set()
    done = len(tasks) - len(left)
    for task, outcome in perform(make, left, workers):
        for text in (text for text in outcome.warnings if text not in said):
            said.add(text)
            warnings.warn(text, VoxrayWarning, 2)
        if outcome.row is None:
            refusals[task.contender.label, task.views.name] = outcome.refusal
        elif results is None:
            rows.append(outcome.row)
        elif outcome.planes is not None and outcome.truth is not None:
            results.enter(outcome.row, outcome.planes, outcome.truth)
        done += 1
        if progress is not None:
            progress(done, len(tasks))
    return _finished(manifest, rows, results, refusals)


def _finished(
    manifest: Manifest, rows: list[Row], results: ResultsFolder | None, refusals: dict[tuple[str, str], str]
) -> Evaluation:
    if results is not None:
        evaluation = results.evaluation()
        evaluation.write_csv(results.path / ROWS, overwrite=True)
        fid.write_fid(results)
    else:
        evaluation = Evaluation(tuple(manifest.sorted(rows)), manifest.metrics)
    if refusals and all(row.model == PLAIN_MEAN for row in evaluation.rows):
        raise GeometryError(next(iter(refusals.values())))
    for (label, views), reason in refusals.items():
        warnings.warn(f"{label!r} is left out for the views {views!r}: {reason}", VoxrayWarning, 3)
    return evaluation


def evaluate_method(
    method: Method,
    name: str,
    store: Store,
    cases: Sequence[str],
    views: ViewGeometry,
    protocols: Sequence[Protocol],
    *,
    metrics: Sequence[str] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Reconstruct every case from X-rays made by each protocol, and score it beside the plain mean.

    Args:
        method: with its weights.
        name: of the model, for the rows.
        store: prepared cases, on the method's grid.
        cases: ids.
        views: about the origin, which becomes the isocentre of every case.
        protocols: see `protocols.make_xrays`.
        metrics: as for `Plan`.
        seed: of the noise and of the method.
        progress: called with (reconstructions done, reconstructions), plain means included.

    Raises:
        InputError: if the store's grid is not the method's.
    """
    alone = Contender(name, lambda: method, method.grid, has_mean=has_plain_mean(method))
    views_of = ViewSet(",".join(views.names), views)
    entries = [(contender, views_of) for contender in with_plain_mean([alone])]
    return run_plan(
        Plan(store, tuple(cases), tuple(entries), tuple(protocols), tuple(metrics), seed), progress=progress
    )


def has_plain_mean(method: Method) -> bool:
    """Tell whether a method can answer without any X-ray."""
    return method.plain_mean(ViewSet.of(["pa"]).geometry, "air") is not None


def with_plain_mean(contenders: Sequence[Contender]) -> list[Contender]:
    """Return the contenders and, at the end, the plain mean of the first of them that has one."""
    first = next((contender for contender in contenders if contender.has_mean), None)
    if first is None:
        return list(contenders)
    return [*contenders, replace(first, label=PLAIN_MEAN, overrides=(), about=f"Of {first.label}.", plain=True)]


def _device_of(method: Method) -> torch.device:
    """Return where the weights are."""
    tensor = next((t for t in [*method.parameters(), *method.buffers()]), None)
    return tensor.device if tensor is not None else torch.device("cpu")
