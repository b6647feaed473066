"""A model tested with planted nodules."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from voxray.api.checks import checked_seed, chosen_device
from voxray.api.evaluating import Progress, Views, contender_of, warn_of_training
from voxray.data.store import Store
from voxray.evaluation import nodules
from voxray.evaluation.compare import ModelSpec
from voxray.evaluation.nodule_results import NODULES, NoduleResult
from voxray.evaluation.protocols import check_protocol
from voxray.evaluation.results import Group, ViewSet
from voxray.geometry import Setup
from voxray.images.atomic import make_folder, refuse_existing


@dataclass(frozen=True)
class NoduleOptions:
    """How a model is tested with planted nodules.

    Attributes:
        split: of the store; None for all cases.
        protocol: `closed` or `clinical` (`evaluation.protocols.make_xrays`).
        range_deg: over which a number of views is spread evenly, from PA.
        setup: a preset of the geometry, or a `Setup`.
        sizes_mm: diameters of the nodules.
        sites: places in the lungs, over all cases; at least one for each case, and 30 or more to conclude anything.
        seed: of sites, noise and method.
        device: as for `reconstruct`.
        overwrite: replace the results of another test.
    """

    split: str | None = "val"
    protocol: str = "closed"
    range_deg: float = 180.0
    setup: str | Setup = "chest"
    sizes_mm: tuple[float, ...] = nodules.SIZES_MM
    sites: int = 32
    seed: int = 0
    device: str = "auto"
    overwrite: bool = False


def nodule_test(
    model: str | Path,
    store: Path | str,
    folder: Path | str | None = None,
    *,
    views: Views = ("pa", "lateral"),
    overrides: Sequence[str] = (),
    options: NoduleOptions | None = None,
    progress: Progress | None = None,
) -> NoduleResult:
    """Plant nodules in the lungs of prepared cases, and measure what a model shows of them (`evaluation.nodules`).

    Args:
        model: name of a model, or its folder.
        store: made by `prepare`, on the model's grid.
        folder: for the table `nodules.csv`, one of results of `evaluate` or `compare` if wanted; None keeps nothing.
        views: as for `evaluate`.
        overrides: settings of the model's recipe to change, as `config.sampler.steps=20`.
        options: see `NoduleOptions`.
        progress: called with (reconstructions done, reconstructions).

    Raises:
        InputError: if store, split, protocol or an option is not valid, a case's lungs have no room for its sites, or
            the folder holds a table already.
        GeometryError: if the views are not valid, or the model cannot serve them.
        ModelError: if the model cannot be used.
    """
    options = options or NoduleOptions()
    if folder is not None:
        refuse_existing(Path(folder) / NODULES, options.overwrite)
    protocol, view_set = check_protocol(options.protocol), ViewSet.of(views, options.range_deg, options.setup)
    seed, opened = checked_seed(options.seed), Store.open(Path(store))
    cases = opened.cases(options.split)
    contender, loaded = contender_of(ModelSpec(str(model), tuple(overrides)), chosen_device(options.device))
    warn_of_training(contender.label, loaded, opened, cases)
    result = nodules.nodule_test(
        loaded.method, opened, cases, view_set.geometry, Group(protocol, view_set.name, contender.label),
        sizes_mm=tuple(dict.fromkeys(options.sizes_mm)), sites=options.sites, seed=seed, progress=progress,
    )  # fmt: skip
    if folder is not None:
        make_folder(Path(folder))
        result.write_csv(Path(folder) / NODULES, overwrite=options.overwrite)
    return result
