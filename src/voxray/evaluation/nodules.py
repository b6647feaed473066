"""Planted nodules: whether a method shows what no other scan shows, or only what chests look like.

Spheres of soft tissue are put into the lungs of real scans (`planting`), X-rays are made of the scans with and without
them, and both are reconstructed in the same way. Two numbers for each diameter: how much of the contrast is in the
reconstruction, and whether one could tell from it that there is a nodule. The design is our choice throughout.
"""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from voxray.data.store import Case, Store
from voxray.errors import InputError
from voxray.evaluation.planting import draw_sites, mean_in_sphere, with_nodules
from voxray.evaluation.protocols import Protocol, make_xrays
from voxray.evaluation.statistics import LEVEL, RESAMPLES, interval
from voxray.geometry import FloatArray, ViewGeometry
from voxray.images import CTVolume
from voxray.images.atomic import refuse_existing, write_text_atomic
from voxray.methods.base import Method, check_case

SIZES_MM = (10.0, 16.0, 24.0, 32.0)


@dataclass(frozen=True)
class NoduleRow:
    """One nodule at one site.

    Attributes:
        case: of the store.
        site: its number, over all cases; every site holds each diameter in turn.
        x_mm, y_mm, z_mm: centre, LPS, from the isocentre.
        diameter_mm: of the sphere.
        inserted_hu: contrast of the truth: mean in the sphere, with minus without.
        with_hu, without_hu: mean in the sphere of the reconstructions with and without the nodule: what a matched
            filter with the sphere as its template answers.
        recovery: part of the contrast that is in the reconstruction: (with - without) / inserted.
    """

    case: str
    site: int
    x_mm: float
    y_mm: float
    z_mm: float
    diameter_mm: float
    inserted_hu: float
    with_hu: float
    without_hu: float
    recovery: float


@dataclass(frozen=True)
class NoduleLine:
    """All nodules of one diameter.

    Attributes:
        diameter_mm, sites: how large, how many.
        inserted_hu: mean contrast of the truth.
        recovery, recovery_interval: mean contrast recovery (1: all of it), and its 95 % interval.
        auc, auc_interval: see `auc`, and its 95 % interval.
    """

    diameter_mm: float
    sites: int
    inserted_hu: float
    recovery: float
    recovery_interval: tuple[float, float]
    auc: float
    auc_interval: tuple[float, float]


@dataclass(frozen=True)
class NoduleResult:
    """All nodules of a test."""

    rows: tuple[NoduleRow, ...]

    def summary(self) -> list[NoduleLine]:
        """Return a line for each diameter; intervals are percentiles of the bootstrap over sites.

        A site stays together with and without its nodule. Sites of one case are taken for independent: with few cases
        the intervals are somewhat too narrow.
        """
        sizes = dict.fromkeys(row.diameter_mm for row in self.rows)
        return [_line(size, [row for row in self.rows if row.diameter_mm == size]) for size in sizes]

    def write_csv(self, path: Path, *, overwrite: bool = False) -> None:
        """Write one line a nodule.

        Raises:
            InputError: if the file exists and may not be overwritten.
        """
        refuse_existing(path, overwrite)
        text = io.StringIO()
        writer = csv.DictWriter(text, [field.name for field in fields(NoduleRow)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in self.rows)
        write_text_atomic(path, text.getvalue())


def nodule_test(
    method: Method,
    store: Store,
    cases: Sequence[str],
    views: ViewGeometry,
    protocol: Protocol,
    *,
    sizes_mm: Sequence[float] = SIZES_MM,
    sites: int = 32,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> NoduleResult:
    """Plant nodules in the lungs of prepared cases, reconstruct with and without, and measure what comes through.

    Sites are drawn with room for the largest diameter and hold each diameter in turn, so that diameters differ in
    nothing else. Sites of a case that differ by 60 mm in height share a reconstruction, all with the same diameter.
    X-rays with and without nodules have the same seed of the noise, and the method the same seed; the noise itself
    depends on the counts, and in `clinical` differs after the first pixel that shows a nodule.

    Args:
        method: with its weights.
        store: prepared cases, on the method's grid.
        cases: ids; the sites are divided among them.
        views: about the origin, which becomes the isocentre of every case.
        protocol: see `protocols.make_xrays`.
        sizes_mm: diameters.
        sites: how many; with fewer than 30 the intervals are wide.
        seed: of sites, noise and method.
        progress: called with (reconstructions done, reconstructions).

    Raises:
        InputError: if the store's grid is not the method's, a case's lungs have no room for its sites, or a number is
            out of range.
    """
    plan = _plan(method, store, cases, sizes_mm, sites, seed)
    total = sum(1 + len(rounds) * len(sizes_mm) for rounds in plan.values())
    done, site = 0, 0
    rows: list[NoduleRow] = []

    def reconstructed(case: Case) -> CTVolume:
        nonlocal done
        radiograph, outside = make_xrays(case, views, protocol, seed)
        volume = method.reconstruct(radiograph, rng=_seeded(seed), outside=outside).volume
        done += 1
        if progress is not None:
            progress(done, total)
        return CTVolume(volume.hu, case.volume.grid)

    for name, rounds in plan.items():
        case = store.load(name)
        without = reconstructed(case)
        for centres in rounds:
            for size in sizes_mm:
                changed = with_nodules(case, centres, size)
                volumes = (case.volume, changed.volume, without, reconstructed(changed))
                rows += [_row(case, site + i, centre, size, volumes) for i, centre in enumerate(centres)]
            site += len(centres)
    return NoduleResult(tuple(rows))


def auc(present: Float[np.ndarray, " sites"], absent: Float[np.ndarray, " sites"]) -> tuple[float, float, float]:
    """Return the area under the ROC curve of scores of sites with and without a nodule, and its interval.

    The area is how often a site with a nodule scores higher than another site without one, ties by half (the
    Mann-Whitney statistic; Hanley and McNeil, Radiology 143(1), 1982): 1 if all can be told apart, 0.5 if none can. A
    site is never held against itself: there any trace of a nodule would win, and a bootstrap, which draws sites several
    times, would make more and more of such pairs.

    Args:
        present: scores with the nodule.
        absent: scores of the same sites, in the same order, without.

    Returns:
        The area, and the ends of its 95 % interval: percentiles of 2000 draws of the sites.
    """
    n = len(present)
    wins = (np.sign(present[:, None] - absent) + 1) / 2
    np.fill_diagonal(wins, 0)
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES)
    drawn = drawn[(drawn > 0).sum(1) > 1]
    areas = (drawn @ wins * drawn).sum(1) / (n**2 - (drawn**2).sum(1))
    low, high = np.percentile(areas, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(wins.sum() / (n * (n - 1))), float(low), float(high)


def _plan(
    method: Method, store: Store, cases: Sequence[str], sizes_mm: Sequence[float], sites: int, seed: int
) -> dict[str, list[list[FloatArray]]]:
    """Draw the sites of each case, in rounds; those of a case depend on no other case."""
    if not cases or not sizes_mm or min(sizes_mm) <= 0 or sites < max(2, len(cases)):
        raise InputError(
            "A nodule test needs at least one case, positive diameters, and a site for each case, at least 2; it was "
            f"given {len(cases)} cases, the diameters {list(sizes_mm)} mm, and {sites} sites."
        )
    plan = {}
    for i, name in enumerate(cases):
        case = store.load(name)
        check_case(case, method.grid)
        share = sites // len(cases) + (i < sites % len(cases))
        plan[name] = draw_sites(case, share, max(sizes_mm), _seeded(seed))
    return plan


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _row(case: Case, site: int, centre_mm: FloatArray, diameter_mm: float, volumes: Sequence[CTVolume]) -> NoduleRow:
    """Measure one nodule in the truth without and with it, and in the reconstructions without and with it."""
    x, y, z = (float(value) for value in centre_mm - case.isocentre_mm)
    before, after, without, with_ = (mean_in_sphere(v.hu, v.grid, centre_mm, diameter_mm) for v in volumes)
    inserted = after - before
    return NoduleRow(
        case.id, site, x, y, z, diameter_mm, inserted, with_, without, recovery=(with_ - without) / inserted
    )


def _line(diameter_mm: float, rows: Sequence[NoduleRow]) -> NoduleLine:
    recovery, present, absent = (
        np.array([getattr(row, name) for row in rows]) for name in ("recovery", "with_hu", "without_hu")
    )
    area, low, high = auc(present, absent)
    return NoduleLine(
        diameter_mm, len(rows), float(np.mean([row.inserted_hu for row in rows])),
        float(recovery.mean()), interval(recovery), area, (low, high),
    )  # fmt: skip
