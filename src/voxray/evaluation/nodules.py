"""Planted nodules: whether a method shows what no other scan shows, or only what chests look like.

Spheres of soft tissue are put into the lungs of real scans (`planting`), X-rays are made of the scans with and without
them, and both are reconstructed in the same way. Two numbers for each diameter: how much of the contrast is in the
reconstruction, and whether one could tell from it that there is a nodule. The design is our choice throughout.
"""

import json
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch

from voxray.data.store import Case, Store, case_path, read_case
from voxray.errors import InputError, VoxrayWarning
from voxray.evaluation.folder import ModelEntry, case_sha256
from voxray.evaluation.nodule_folder import Measurement, NoduleFolder, NoduleManifest
from voxray.evaluation.nodule_results import NoduleResult, NoduleRow
from voxray.evaluation.planting import draw_sites, mean_in_sphere, with_nodules
from voxray.evaluation.protocols import Protocol, check_views, make_xrays
from voxray.evaluation.results import ViewSet
from voxray.evaluation.run import Contender, Progress
from voxray.geometry import FloatArray
from voxray.images import CTVolume
from voxray.methods.base import Method, check_case
from voxray.processes import perform

SIZES_MM = (10.0, 16.0, 24.0, 32.0)


@dataclass(frozen=True, eq=False)
class NodulePlan:
    """All of a test.

    Attributes:
        contender: the model.
        store: prepared cases, on its grid.
        cases: ids; the sites are divided among them.
        views: about the origin, which becomes the isocentre of every case.
        protocol: see `protocols.make_xrays`.
        sizes_mm: diameters.
        sites: how many; with fewer than 30 the intervals are wide.
        seed: of sites, noise and method.
    """

    contender: Contender
    store: Store
    cases: tuple[str, ...]
    views: ViewSet
    protocol: Protocol
    sizes_mm: tuple[float, ...] = SIZES_MM
    sites: int = 32
    seed: int = 0

    def manifest(self) -> NoduleManifest:
        """Return what is written down of it."""
        model = self.contender
        return NoduleManifest(
            cases={name: case_sha256(self.store.records[name]) for name in self.cases},
            models={model.label: ModelEntry(sha256=model.sha256, overrides=model.overrides, about=model.about)},
            views={self.views.name: json.loads(self.views.geometry.to_json())},
            protocol=self.protocol, sizes_mm=self.sizes_mm, sites=self.sites, seed=self.seed,
        )  # fmt: skip

    def tasks(self) -> list["Task"]:
        """Draw the sites, and return the reconstructions: of each case without nodules, then with those of a round.

        Raises:
            InputError: if the store's grid is not the method's, a case's lungs have no room for its sites, or a number
                is out of range.
            GeometryError: if a source stands inside the cube.
        """
        check_views(self.views.geometry, self.contender.grid)
        voxel_mm = float(self.contender.grid.spacing_mm.max())
        fit = bool(self.sizes_mm) and all(voxel_mm <= size < math.inf for size in self.sizes_mm)
        if not self.cases or not fit or self.sites < max(2, len(self.cases)):
            raise InputError(
                f"A nodule test needs at least one case, diameters of a voxel ({voxel_mm:g} mm) or more, and a site "
                f"for each case, at least 2; it was given {len(self.cases)} cases, the diameters "
                f"{list(self.sizes_mm)} mm, and {self.sites} sites."
            )
        each, more = divmod(self.sites, len(self.cases))
        return [task for i, name in enumerate(self.cases) for task in self._tasks_of(name, each + (i < more))]

    def _tasks_of(self, name: str, count: int) -> Iterable["Task"]:
        """Return the reconstructions of a case; they depend on no other case."""
        case = self.store.load(name)
        check_case(case, self.contender.grid)
        rounds, first = [], 0
        for centres in draw_sites(case, count, max(self.sizes_mm), _seeded(self.seed)):
            rounds.append(tuple(Site(first + i, *(centre - case.isocentre_mm)) for i, centre in enumerate(centres)))
            first += len(centres)
        yield Task(name, tuple(site for sites in rounds for site in sites), self.sizes_mm, planted=False)
        for sites in rounds:
            for size in self.sizes_mm:
                yield Task(name, sites, (size,), planted=True)


@dataclass(frozen=True)
class Site:
    """A place in the lungs: its number in the case, and its centre, LPS, in mm from the isocentre."""

    number: int
    x_mm: float
    y_mm: float
    z_mm: float

    def centre_mm(self, case: Case) -> FloatArray:
        """Return the centre in patient coordinates, (3,)."""
        return np.array([self.x_mm, self.y_mm, self.z_mm]) + case.isocentre_mm


@dataclass(frozen=True)
class Task:
    """One reconstruction, and what is measured in it.

    Attributes:
        case: of the store.
        sites: where.
        sizes_mm: diameters; a single one where there are nodules.
        planted: whether there are nodules at the sites.
    """

    case: str
    sites: tuple[Site, ...]
    sizes_mm: tuple[float, ...]
    planted: bool

    @property
    def name(self) -> str:
        """A name that no other task of the test has."""
        return f"{self.case}-{self.sites[0].number}-{self.sizes_mm[0]}" if self.planted else f"{self.case}-without"


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a reconstruction showed, and what was assumed on the way."""

    measurements: tuple[Measurement, ...]
    warnings: tuple[str, ...] = ()


@dataclass
class Observer:
    """Does tasks, one after another; the method stays in memory."""

    contender: Contender
    store: Path
    views: ViewSet
    protocol: Protocol
    seed: int

    @cached_property
    def method(self) -> Method:
        """The model, loaded once."""
        return self.contender.load()

    def __call__(self, task: Task) -> Outcome:
        """Plant the nodules of a task, make X-rays, reconstruct, and measure.

        X-rays with and without nodules have the same seed of the noise, and the method the same seed; the noise itself
        depends on the counts, and in `clinical` differs after the first pixel that shows a nodule.
        """
        case = read_case(case_path(self.store, task.case))
        if task.planted:
            case = with_nodules(case, [site.centre_mm(case) for site in task.sites], *task.sizes_mm)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            radiograph, outside = make_xrays(case, self.views.geometry, self.protocol, self.seed)
            volume = self.method.reconstruct(radiograph, rng=_seeded(self.seed), outside=outside).volume
        told = dict.fromkeys(str(entry.message) for entry in caught if issubclass(entry.category, VoxrayWarning))
        return Outcome(tuple(_measured(task, case, replace(volume, grid=case.volume.grid))), tuple(told))


def nodule_test(
    plan: NodulePlan,
    folder: Path | None = None,
    *,
    workers: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> NoduleResult:
    """Plant nodules in the lungs of prepared cases, reconstruct with and without, and measure what comes through.

    Sites have room for the largest diameter and hold each diameter in turn, so that diameters differ in nothing else
    (`planting.draw_sites`). Those of a case that differ by 60 mm in height share a reconstruction, all with the same
    diameter.

    Args:
        plan: what is to be done.
        folder: for the numbers; the same plan goes on there where it was stopped. None keeps nothing.
        workers: processes, each with a reconstruction at a time.
        overwrite: replace the numbers of another plan.
        progress: called with (reconstructions done, reconstructions), those of an earlier run included.

    Raises:
        InputError: if the store's grid is not the method's, a case's lungs have no room for its sites, a number is out
            of range, or the folder holds another test.
        GeometryError: if the model cannot serve the views.
        ResourceError: if a worker was killed.
    """
    tasks = plan.tasks()
    kept = NoduleFolder.start(folder, plan.manifest(), overwrite=overwrite) if folder is not None else None
    found: dict[str, tuple[Measurement, ...]] = {}
    if kept is not None:
        found = {task.name: done for task in tasks if (done := kept.finished(task.name)) is not None}
    make = partial(Observer, plan.contender, plan.store.path, plan.views, plan.protocol, plan.seed)
    said: set[str] = set()
    for task, outcome in perform(make, [task for task in tasks if task.name not in found], workers):
        for text in (text for text in outcome.warnings if text not in said):
            said.add(text)
            warnings.warn(text, VoxrayWarning, 2)
        found[task.name] = outcome.measurements
        if kept is not None:
            kept.enter(task.name, outcome.measurements)
        if progress is not None:
            progress(len(found), len(tasks))
    result = NoduleResult(tuple(_rows(plan, tasks, found)))
    if kept is not None:
        kept.complete(result)
    return result


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _measured(task: Task, case: Case, volume: CTVolume) -> Iterable[Measurement]:
    for site in task.sites:
        for size in task.sizes_mm:
            centre_mm = site.centre_mm(case)
            true, found = (mean_in_sphere(v.hu, v.grid, centre_mm, size) for v in (case.volume, volume))
            yield Measurement(task.case, site.number, size, task.planted, true, found)


def _rows(plan: NodulePlan, tasks: Iterable[Task], found: dict[str, tuple[Measurement, ...]]) -> Iterable[NoduleRow]:
    """Hold each nodule against the same place without it."""
    of = {(m.case, m.site, m.diameter_mm, m.planted): m for measured in found.values() for m in measured}
    for task in (task for task in tasks if task.planted):
        for site in task.sites:
            without, with_ = (of[task.case, site.number, task.sizes_mm[0], planted] for planted in (False, True))
            inserted = with_.true_hu - without.true_hu
            yield NoduleRow(
                task.case, plan.protocol, plan.contender.label, plan.views.name, site.number, site.x_mm, site.y_mm,
                site.z_mm, task.sizes_mm[0], inserted, with_.found_hu, without.found_hu,
                recovery=(with_.found_hu - without.found_hu) / inserted,
            )  # fmt: skip
