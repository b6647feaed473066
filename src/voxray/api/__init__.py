"""What voxray does, in a few functions."""

import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from voxray.api.checks import checked_seed, chosen_device
from voxray.api.chests import judged, taken_in
from voxray.api.evaluating import EvaluateOptions, bench_quality, compare, evaluate, report
from voxray.api.nodules import NoduleOptions, nodule_test
from voxray.api.styling import load_style, translated
from voxray.api.upsampling import upsampled
from voxray.data.options import PrepareOptions
from voxray.data.prepare import PrepareSummary, Progress, prepare
from voxray.data.store import Store
from voxray.defaults import DEFAULT_MODEL, UPSAMPLE_MODEL
from voxray.errors import InputError, NotFiniteError, NumericalError, VoxrayWarning
from voxray.evaluation.nodule_results import NoduleResult
from voxray.evaluation.results import Evaluation
from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.images import CTVolume, Radiograph
from voxray.images.read_ct import read_ct
from voxray.images.read_geometry import read_geometry
from voxray.images.read_xray import read_radiograph
from voxray.images.report import Grid, Model, Report, describe_inputs, hide_names, measure_residuals, peak_memory_mb
from voxray.images.xray import ReadOptions
from voxray.images.xray_files import unzipped
from voxray.intake import tissue_factor
from voxray.methods import Reconstruction
from voxray.methods.base import Estimate, Outside
from voxray.models import LoadedModel, list_models, load_model
from voxray.physics import Projector
from voxray.physics.attenuation import add_photon_noise, hu_to_mu
from voxray.physics.display import counts_as_line_integrals
from voxray.physics.sampling import ray_march
from voxray.recipes import Recipe, load_recipe
from voxray.training import TrainOptions, TrainSummary, train_recipe

__all__ = [
    "EvaluateOptions", "Evaluation", "NoduleOptions", "NoduleResult", "PrepareOptions", "PrepareSummary",
    "ReadOptions", "Reconstruction", "TrainOptions", "TrainSummary",
    "bench_quality", "compare", "evaluate", "list_models", "nodule_test", "prepare", "project", "reconstruct",
    "report", "train",
]  # fmt: skip


def reconstruct(
    xrays: Sequence[Path | str] | Radiograph,
    *,
    model: str | Path = DEFAULT_MODEL,
    views: Sequence[str] | None = None,
    geometry: ViewGeometry | Path | str | None = None,
    options: ReadOptions | None = None,
    device: str = "auto",
    seed: int = 0,
    overrides: Sequence[str] = (),
    samples: int = 1,
    outside: Outside = "body",
    upsample: int = 1,
    upsample_model: str | Path = UPSAMPLE_MODEL,
    style: Sequence[str | Path] = (),
    keep_phi: bool = False,
    progress: Progress | None = None,
) -> Reconstruction:
    """Reconstruct a CT from the X-rays of one examination.

    Args:
        xrays: files (see `images.read_xray`) and zips of them, or a radiograph.
        model: name of a model, or its folder.
        views: one name a file, where files or tags do not tell (`pa`, `lateral`, ...).
        geometry: where source and detector stood: a `ViewGeometry`, or its JSON file.
        options: how to read the files.
        device: `cpu`, `cuda`, or `auto`: a GPU where there is one.
        seed: of everything random.
        overrides: settings of the model's recipe to change, as `config.sampler.steps=20`.
        samples: more than one for equally plausible volumes and their standard deviation.
        outside: `body` where the patient goes on outside the volume, `air` where the X-rays show the volume alone.
        upsample: 2 for a result on voxels half as large as the model's.
        upsample_model: name or folder of the model that does that (recipe `upsample`); `linear` for interpolation.
        style: names or folders of models that make grey values look like projections of CTs (recipe `style`), each
            for its views. What the result is compared with are the X-rays before that.
        keep_phi: name files and patient in the report.
        progress: called with (steps done, steps).

    Raises:
        InputError: if the X-rays cannot be used.
        ModelError: if the model cannot.
        NumericalError: if the result is not finite.
    """
    _check_request(outside, samples)
    rng, chosen = torch.Generator().manual_seed(checked_seed(seed)), chosen_device(device)
    seconds: dict[str, float] = {}
    with _collected_warnings() as told:
        with _timed(seconds, "read"):
            radiograph = _read(xrays, views, geometry, options)
        with _timed(seconds, "load model"):
            loaded = load_model(model, chosen, overrides)
            method = upsampled(loaded.method, upsample, upsample_model, chosen)
            styles = [load_style(one, chosen) for one in style]
        _check_body_part(radiograph, loaded.info.recipe)
        with _timed(seconds, "reconstruct"):
            said = options or ReadOptions(force_chest=isinstance(xrays, Radiograph))
            intake = taken_in(radiograph, loaded, said)
            radiograph = radiograph if intake is None else replace(radiograph, views=intake.views)
            _check_field(radiograph, loaded.method.grid)
            seen = _without_counts(_as_fine_as(loaded.method.grid, intake.radiograph if intake else radiograph))
            given, styled = translated(seen, styles)
            if intake is not None and said.align:
                factor, progress = _tissue_factor(given, loaded, seed, outside, progress)
                intake, seen, given = intake.times(factor), seen.times(factor), given.times(factor)
            run = partial(method.reconstruct, given, rng=rng, samples=samples, outside=outside, progress=progress)
            estimate = _finite(loaded.info.name, run)
    with _timed(seconds, "judge"):
        quality = judged(seen, estimate, loaded, intake)
    report = Report(
        model=_described(loaded),
        inputs=describe_inputs(radiograph, keep_phi=keep_phi),
        geometry=json.loads(radiograph.views.to_json()),
        grid=Grid.of(estimate.volume.grid),
        seed=seed,
        device=str(chosen),
        seconds={phase: round(value, 3) for phase, value in seconds.items()},
        peak_memory_mb=peak_memory_mb(),
        warnings=told if keep_phi else [hide_names(text, radiograph) for text in told],
        residuals=measure_residuals(seen, estimate.reprojections),
        quality=quality,
        method={**estimate.details, **({"style": styled} if styled else {})},
    )
    return Reconstruction(
        estimate.volume, estimate.samples, estimate.std, estimate.interval, seen, estimate.reprojections, report
    )


def project(
    ct: Path | str | CTVolume,
    views: ViewGeometry,
    *,
    photons: float | None = None,
    seed: int = 0,
    step_voxels: float | None = None,
) -> Radiograph:
    """Make X-rays of a CT.

    Args:
        ct: a volume, or what `images.read_ct` reads.
        views: where source and detector stand, in the CT's coordinates.
        photons: sent to every pixel, for Poisson noise; None for none.
        seed: of the noise.
        step_voxels: sample at equal steps of this length instead of once a plane (Joseph's method).

    Returns:
        Line integrals.

    Raises:
        InputError: if the CT cannot be read, or a number is out of range.
        GeometryError: if a source lies inside it.
    """
    volume = ct if isinstance(ct, CTVolume) else read_ct(Path(ct))
    if photons is not None and not photons > 0:
        raise InputError(f"The number of photons must be positive, not {photons:g}.")
    if step_voxels is not None and not 0 < step_voxels <= 10:
        raise InputError(f"A step is more than 0 and at most 10 voxels, not {step_voxels:g}.")
    projector = Projector(volume.grid, views)
    mu = hu_to_mu(volume.hu)
    images = projector.forward(mu) if step_voxels is None else ray_march(mu, volume.grid, views, step_voxels)
    if photons is not None:
        rng = torch.Generator().manual_seed(checked_seed(seed))
        images = [add_photon_noise(image, photons, rng=rng) for image in images]
    return Radiograph(tuple(images), views)


def train(
    recipe: str | Path,
    store: Path | str,
    run: Path | str,
    *,
    split: str = "train",
    real: Path | str | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    force: bool = False,
    options: TrainOptions | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> TrainSummary:
    """Train a recipe on a prepared store.

    Args:
        recipe: name of a recipe, or a YAML file.
        store: made by `prepare`.
        run: folder for the model (`model`), logs, previews, checkpoints and the cache of prepared items; `load_model`
            takes it as it is.
        split: of the store.
        real: folder of radiographs that a style learns from (recipes `style`, `style-lateral`).
        overrides: settings of the recipe to change, as `config.iterations=40`.
        resume: go on with a run that was stopped.
        force: go on even with another recipe or other data than before.
        options: time limit, devices, workers.
        progress: called with (what is done, done, total).

    Raises:
        RecipeError: if the recipe is not valid.
        InputError: if the store cannot be used, or `run` exists and is not to be resumed, or is another run.
        CheckpointError: if the checkpoints cannot be used.
        NumericalError: if a loss is not finite.
    """
    loaded, options = load_recipe(recipe, overrides), options or TrainOptions()
    chosen_device(options.device)
    return train_recipe(
        loaded, Store.open(Path(store)), Path(run),
        split=split, real=Path(real) if real is not None else None, resume=resume, force=force, options=options,
        progress=progress,
    )  # fmt: skip


def _check_request(outside: str, samples: int) -> None:
    if outside not in get_args(Outside):
        raise InputError(f"outside is one of {', '.join(get_args(Outside))}, not {outside!r}.")
    if samples < 1:
        raise InputError(f"At least one sample is needed, not {samples}.")


def _read(
    xrays: Sequence[Path | str] | Radiograph,
    views: Sequence[str] | None,
    geometry: ViewGeometry | Path | str | None,
    options: ReadOptions | None,
) -> Radiograph:
    if isinstance(xrays, Radiograph):
        if views is not None or geometry is not None or options is not None:
            raise InputError("A radiograph has its views already: views, geometry and options are for files.")
        return xrays
    if isinstance(xrays, (str, Path)):
        xrays = [xrays]
    if isinstance(geometry, (str, Path)):
        geometry = read_geometry(Path(geometry))
    with unzipped([Path(file) for file in xrays]) as files:
        radiograph = read_radiograph([file for file, _ in files], views=views, geometry=geometry, options=options)
        called = dict(files)
        return replace(radiograph, origins=tuple(replace(o, path=called[o.path]) for o in radiograph.origins))


def _tissue_factor(
    seen: Radiograph, loaded: LoadedModel, seed: int, outside: Outside, progress: Progress | None
) -> tuple[float, Progress | None]:
    """Return the factor of line integrals that the soft tissue of a first result asks for; progress of the second."""
    rng = torch.Generator().manual_seed(seed)
    run = partial(loaded.method.reconstruct, seen, rng=rng, outside=outside, progress=_part(progress, 0))
    return tissue_factor(_finite(loaded.info.name, run).volume), _part(progress, 1)


def _part(progress: Progress | None, half: int) -> Progress | None:
    """Return what shows the first (0) or second (1) of two equal runs."""
    return progress and (lambda done, total: progress(half * total + done, 2 * total))


def _described(loaded: LoadedModel) -> Model:
    recipe = loaded.info.recipe
    config = recipe.method_config().model_dump(mode="json")
    whole = recipe.model_dump(mode="json") | {"config": config}
    return Model(name=loaded.info.name, recipe=whole, weights_sha256=loaded.weights_sha256)


def _as_fine_as(grid: VolumeGrid, radiograph: Radiograph) -> Radiograph:
    """Bin X-rays to pixels of at most half a voxel at the isocentre: finer ones show nothing that a voxel can hold."""
    views = radiograph.views
    return radiograph.binned(views.bins(float(grid.spacing_mm.min()) / 2, views.isocentre()))


def _without_counts(radiograph: Radiograph) -> Radiograph:
    """Return photon counts as line integrals; binned first, as a coarser detector would have counted them."""
    if radiograph.kind != "counts":
        return radiograph
    return replace(radiograph, images=tuple(counts_as_line_integrals(radiograph.images)), kind="line_integral")


def _finite(model: str, run: Callable[[], Estimate]) -> Estimate:
    """Run a model.

    Raises:
        NumericalError: if it, or the re-projection of its result, leaves the finite numbers.
    """
    try:
        estimate = run()
    except NotFiniteError as error:
        raise NumericalError(f"The model {model!r} left the finite numbers. {error}") from error
    if not all(bool(torch.isfinite(image).all()) for image in estimate.reprojections):
        raise NumericalError("The re-projection of the result is not finite.")
    return estimate


def _check_body_part(radiograph: Radiograph, recipe: Recipe) -> None:
    """Warn where the X-rays say that they show what the model was not made for."""
    for part in dict.fromkeys(origin.body_part for origin in radiograph.origins):
        if part and recipe.body_parts and part.upper() not in recipe.body_parts:
            message = f"The X-ray shows {part} (BodyPartExamined), but the model {recipe.name!r} is for "
            warnings.warn(message + f"{', '.join(recipe.body_parts)}: it draws that all the same.", VoxrayWarning, 3)


def _check_field(radiograph: Radiograph, grid: VolumeGrid) -> None:
    """Warn where grey values show far less than the volume holds: their pixel size is likely wrong."""
    views = radiograph.views
    if radiograph.kind != "display":
        return
    for view, name in enumerate(views.names):
        steps = np.linalg.norm([views.v_mm[view], views.u_mm[view]], axis=1) * views.shapes[view]
        distances = [np.linalg.norm(end - views.source_mm[view]) for end in (views.isocentre(), views.centre_mm[view])]
        shown_mm = float(max(steps) * distances[0] / distances[1])
        if shown_mm < 0.6 * float(max(grid.size_mm)):
            warnings.warn(
                f"View {name!r} shows {shown_mm:.0f} mm of the patient, the volume has {max(grid.size_mm):.0f} mm: if "
                "the image was made smaller, its pixel size is larger than its tags say (--pixel-mm).",
                VoxrayWarning,
                3,
            )


@contextmanager
def _collected_warnings() -> Iterator[list[str]]:
    """Lend a list of what is assumed inside, each text once; at the end it is shown as ever, too."""
    told: list[str] = []
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", VoxrayWarning)
            yield told
    finally:
        told += dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, VoxrayWarning))
        for warning in caught:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[phase] = time.perf_counter() - start
