"""A model tested with planted nodules."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from voxray.api.checks import checked_seed, chosen_device
from voxray.api.evaluating import Progress, Views, contender_of, warn_of_training
from voxray.data.store import Store
from voxray.evaluation import nodules
from voxray.evaluation.compare import ModelSpec
from voxray.evaluation.nodule_results import NoduleResult
from voxray.evaluation.protocols import check_protocol
from voxray.evaluation.results import ViewSet
from voxray.geometry import Setup


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
        workers: processes, each with a reconstruction at a time. More than one needs a script with an
            `if __name__ == "__main__":` guard.
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
    workers: int = 1
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

    Every finished reconstruction is kept in the folder, so that the same call goes on where it was stopped.

    Args:
        model: name of a model, or its folder.
        store: made by `prepare`, on the model's grid.
        folder: for the table `nodules.csv`, for `nodules.json`, which says what was asked, and for what is finished
            (`nodules/`); one of results of `evaluate` or `compare` if wanted. None keeps nothing.
        views: as for `evaluate`.
        overrides: settings of the model's recipe to change, as `config.sampler.steps=20`.
        options: see `NoduleOptions`.
        progress: called with (reconstructions done, reconstructions).

    Raises:
        InputError: if store, split, protocol or an option is not valid, a case's lungs have no room for its sites, or
            the folder holds another test.
        GeometryError: if the views are not valid, or the model cannot serve them.
        ModelError: if the model cannot be used.
    """
    options = options or NoduleOptions()
    protocol, view_set = check_protocol(options.protocol), ViewSet.of(views, options.range_deg, options.setup)
    seed, opened = checked_seed(options.seed), Store.open(Path(store))
    cases = opened.cases(options.split)
    contender, loaded = contender_of(ModelSpec(str(model), tuple(overrides)), chosen_device(options.device))
    warn_of_training(contender.label, loaded, opened, cases)
    plan = nodules.NodulePlan(
        contender, opened, tuple(cases), view_set, protocol,
        tuple(sorted(set(map(float, options.sizes_mm)))), options.sites, seed,
    )  # fmt: skip
    del loaded  # its memory is free before it is loaded to work
    return nodules.nodule_test(
        plan, None if folder is None else Path(folder), workers=options.workers, overwrite=options.overwrite,
        progress=progress,
    )  # fmt: skip
