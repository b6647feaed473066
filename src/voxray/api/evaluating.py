"""Models on prepared cases: scored, compared, and reported."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from voxray.api.checks import checked_seed, chosen_device
from voxray.api.upsampling import upsampled, upsampler_sha256
from voxray.data.store import Store, case_path, read_grid
from voxray.errors import InputError, VoxrayWarning
from voxray.evaluation import catalogue
from voxray.evaluation.compare import ModelSpec, check_labels
from voxray.evaluation.protocols import check_protocol
from voxray.evaluation.results import Evaluation, ViewSet
from voxray.evaluation.run import Contender, Plan, has_plain_mean, run_plan, with_plain_mean
from voxray.geometry import Setup, VolumeGrid
from voxray.methods import Method
from voxray.models import LoadedModel, list_models, load_model
from voxray.models.folder import model_sha256

Progress = Callable[[int, int], None]
Views = Sequence[str] | int


@dataclass(frozen=True)
class EvaluateOptions:
    """How models are evaluated.

    Attributes:
        split: of the store; None for all cases.
        protocols: of `closed` and `clinical` (`evaluation.protocols.make_xrays`).
        range_deg: over which a number of views is spread evenly, from PA.
        setup: a preset of the geometry, or a `Setup`.
        metrics: names of metrics or of groups of them (`evaluation.catalogue`); none for all.
        samples: volumes that a model draws for each case; from two on it knows a standard deviation.
        seed: of noise and methods.
        device: as for `reconstruct`.
        workers: processes, each with a case at a time. More than one needs a script with an
            `if __name__ == "__main__":` guard.
        overwrite: replace the results of another evaluation.
    """

    split: str | None = "val"
    protocols: tuple[str, ...] = ("closed", "clinical")
    range_deg: float = 180.0
    setup: str | Setup = "chest"
    metrics: tuple[str, ...] = ()
    samples: int = 1
    seed: int = 0
    device: str = "auto"
    workers: int = 1
    overwrite: bool = False

    def view_sets(self, views: Sequence[Views]) -> list[ViewSet]:
        """Return the sets of views, each once.

        Raises:
            GeometryError: if one is not valid.
        """
        sets = [ViewSet.of(chosen, self.range_deg, self.setup) for chosen in views]
        return list({found.name: found for found in sets}.values())

    def plan(self, store: Store, entries: Sequence[tuple[Contender, ViewSet]]) -> Plan:
        """Return what is to be done on a store.

        Raises:
            InputError: if an option is not valid, or the store has no cases.
        """
        protocols = tuple(check_protocol(name) for name in self.protocols)
        catalogue.select(self.metrics)
        if self.samples < 1:
            raise InputError(f"At least one sample is needed, not {self.samples}.")
        cases = tuple(store.cases(self.split))
        if not cases:
            raise InputError(f"'{store.path}' has no cases to evaluate on.")
        return Plan(store, cases, tuple(entries), protocols, self.metrics, checked_seed(self.seed), self.samples)


def evaluate(
    model: str | Path,
    store: Path | str,
    folder: Path | str | None = None,
    *,
    views: Views = ("pa", "lateral"),
    overrides: Sequence[str] = (),
    options: EvaluateOptions | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a model on the cases of a store, beside its plain mean (see `evaluation.protocols.make_xrays`).

    Args:
        model: name of a model, or its folder.
        store: made by `prepare`.
        folder: for the results, as of `compare`; None keeps nothing.
        views: names as in `ViewGeometry.from_names`, or a number of views spread evenly over a range from PA.
        overrides: settings of the model's recipe to change, as `config.sampler.steps=20`.
        options: see `EvaluateOptions`.
        progress: called with (reconstructions done, reconstructions).

    Raises:
        InputError: if store, split, protocol, views or metrics are not valid, or the folder holds something else.
        ModelError: if the model is not.
    """
    specs = [ModelSpec(str(model), tuple(overrides))]
    return _compare(specs, store, folder, [views], options or EvaluateOptions(), progress)


def compare(
    models: Sequence[str],
    store: Path | str,
    folder: Path | str,
    *,
    views: Sequence[Views] = (("pa", "lateral"),),
    options: EvaluateOptions | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score several models on the same cases and X-rays, beside a plain mean.

    Every finished reconstruction is kept in the folder, so that the same call goes on where it was stopped.

    Args:
        models: names or folders of models; `MODEL:KEY=VALUE` changes a setting of its recipe
            (`dvg-net:config.consistency.final=false`), and `MODEL:upsample=OTHER` brings its results onto voxels half
            as large by another model, or by interpolation (`linear`); the store is on these voxels then.
        store: made by `prepare`, on the grid of all models.
        folder: for the results: `evaluation.json`, `rows.csv`, and files from which `report` is made.
        views: sets of views, each as for `evaluate`; a model that cannot serve one is left out there, with a warning.
        options: see `EvaluateOptions`.
        progress: called with (reconstructions done, reconstructions).

    Raises:
        InputError: if store, split, protocol, views or metrics are not valid, two models have the same name, or the
            folder holds something else.
        ModelError: if a model cannot be used.
    """
    specs = [ModelSpec.parse(model) for model in models]
    return _compare(specs, store, folder, views, options or EvaluateOptions(), progress)


def _compare(
    specs: Sequence[ModelSpec],
    store: Path | str,
    folder: Path | str | None,
    views: Sequence[Views],
    options: EvaluateOptions,
    progress: Progress | None,
) -> Evaluation:
    sets, opened = options.view_sets(views), Store.open(Path(store))
    device, kept = chosen_device(options.device), None if folder is None else Path(folder)
    options.plan(opened, []).check(kept)  # before a model is loaded
    contenders = []
    for spec in specs:
        contender, loaded = contender_of(spec, device)
        warn_of_training(contender.label, loaded, opened, opened.cases(options.split))
        contenders.append(contender)
    check_labels(contenders)
    entries = [(contender, view_set) for contender in with_plain_mean(contenders) for view_set in sets]
    return run_plan(
        options.plan(opened, entries), kept, workers=options.workers, overwrite=options.overwrite, progress=progress
    )


def contender_of(spec: ModelSpec, device: torch.device) -> tuple[Contender, LoadedModel]:
    """Return a model as one that takes part, loaded once to see that it can be.

    Raises:
        ModelError: if it cannot be used.
    """
    loaded, method = _loaded(spec, device)
    sha256 = "+".join([model_sha256(spec.model), *map(upsampler_sha256, spec.upsampled)])
    contender = Contender(
        spec.label(loaded.info.name), partial(_method_of, spec, device), method.grid,
        sha256, spec.overrides, loaded.info.recipe.description, has_mean=has_plain_mean(method),
    )  # fmt: skip
    return contender, loaded


def warn_of_training(label: str, loaded: LoadedModel, store: Store, cases: Sequence[str]) -> None:
    """Warn where a model was trained on cases that it is to be evaluated on."""
    known = [name for name in cases if store.records[name].sha256 in loaded.info.recipe.trained_on]
    if known:
        warnings.warn(
            f"The model {label!r} was trained on {len(known)} of these {len(cases)} cases "
            f"({', '.join(known[:5])}): their scores say nothing.", VoxrayWarning, 4,
        )  # fmt: skip


def _loaded(spec: ModelSpec, device: torch.device) -> tuple[LoadedModel, Method]:
    loaded = load_model(spec.model, device, spec.settings)
    return loaded, upsampled(loaded.method, 2, spec.upsampled[0], device) if spec.upsampled else loaded.method


def _method_of(spec: ModelSpec, device: torch.device) -> Method:
    return _loaded(spec, device)[1]


def report(
    folders: Sequence[Path | str],
    out: Path | str,
    *,
    reference: str | None = None,
    title: str = "",
    overwrite: bool = False,
) -> list[Path]:
    """Write one HTML file about results, with LaTeX and CSV tables beside it.

    Args:
        folders: made by `evaluate` or `compare`; what `nodule_test` wrote may lie in them, or in others.
        out: the HTML file.
        reference: model that the others are tested against; None for the first.
        title: what stands on top.
        overwrite: replace files that are there.

    Returns:
        What was written.

    Raises:
        InputError: if a folder holds no results, there is no such model, or a file exists and may not be overwritten.
    """
    from voxray.evaluation.report.build import build_report  # matplotlib

    found = [Path(folder) for folder in folders]
    return build_report(found, Path(out), reference=reference, title=title, overwrite=overwrite)


def bench_quality(
    store: Path | str,
    folder: Path | str,
    *,
    models: Sequence[str] | None = None,
    options: EvaluateOptions | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Fill the tables of DVG-Diffusion and DX2CT with the models at hand, beside what was published.

    X-rays are those of the protocol `closed`, views those of the tables.

    Args:
        store: made by `prepare`.
        folder: for the results, as of `compare`; the tables are written into it.
        models: as for `compare`; None for all that are known by name (`list_models`) and are on the store's grid. The
            name of a model's recipe tells for which published method it stands.
        options: see `EvaluateOptions`; its protocols, range and metrics do not count.
        progress: called with (reconstructions done, reconstructions).

    Returns:
        What was written: HTML, LaTeX and CSV.

    Raises:
        InputError: if store or split are not valid, or the folder holds something else.
        ModelError: if a model cannot be used.
    """
    from voxray.evaluation import bench  # matplotlib

    options = replace(options or EvaluateOptions(), protocols=(bench.PROTOCOL,), metrics=bench.metrics())
    opened, device = Store.open(Path(store)), chosen_device(options.device)
    options.plan(opened, [])
    at_hand, first = [], []
    for spec in map(ModelSpec.parse, models if models is not None else _models_on_the_grid_of(opened)):
        contender, loaded = contender_of(spec, device)
        warn_of_training(contender.label, loaded, opened, opened.cases(options.split))
        at_hand.append(bench.AtHand(loaded.info.recipe, partial(_varied, contender, spec, device)))
        first.append(contender)
    check_labels(first)
    plan = options.plan(opened, bench.entries(at_hand, options.setup))
    run_plan(plan, Path(folder), workers=options.workers, overwrite=options.overwrite, progress=progress)
    return bench.write_quality(Path(folder), at_hand)


def _models_on_the_grid_of(store: Store) -> list[str]:
    """Return the names of the models whose results have the size of a store's volumes."""
    grid = read_grid(case_path(store.path, store.cases()[0]))
    made = [(info.name, info.recipe.grid) for info in list_models()]
    return [
        name
        for name, wanted in made
        if VolumeGrid.centred(shape=wanted.shape, spacing_mm=wanted.spacing_mm).is_close(grid)
    ]


def _varied(contender: Contender, spec: ModelSpec, device: torch.device, overrides: tuple[str, ...]) -> Contender:
    """Return a contender with more settings of its recipe changed."""
    if not overrides:
        return contender
    changed = replace(spec, overrides=(*spec.overrides, *overrides))
    label = ModelSpec(spec.model, overrides).label(contender.label)
    return replace(contender, label=label, load=partial(_method_of, changed, device), overrides=changed.overrides)
