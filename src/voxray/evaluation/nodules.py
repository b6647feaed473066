"""Planted nodules: whether a method shows what no other scan shows, or only what chests look like.

Spheres of soft tissue are put into the lungs of real scans (`planting`), X-rays are made of the scans with and without
them, and both are reconstructed in the same way. Two numbers for each diameter: how much of the contrast is in the
reconstruction, and whether one could tell from it that there is a nodule. The design is our choice throughout.
"""

import math
from collections.abc import Callable, Sequence

import torch

from voxray.data.store import Case, Store
from voxray.errors import InputError
from voxray.evaluation.nodule_results import NoduleResult, NoduleRow
from voxray.evaluation.planting import draw_sites, mean_in_sphere, with_nodules
from voxray.evaluation.protocols import make_xrays
from voxray.evaluation.results import Group
from voxray.geometry import FloatArray, ViewGeometry
from voxray.images import CTVolume
from voxray.methods.base import Method, check_case

SIZES_MM = (10.0, 16.0, 24.0, 32.0)


def nodule_test(
    method: Method,
    store: Store,
    cases: Sequence[str],
    views: ViewGeometry,
    group: Group,
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
        group: the protocol (`protocols.make_xrays`), and what views and model are called.
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
        radiograph, outside = make_xrays(case, views, group.protocol, seed)
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
                rows += [_row(case, group, site + i, centre, size, volumes) for i, centre in enumerate(centres)]
            site += len(centres)
    return NoduleResult(tuple(rows))


def _plan(
    method: Method, store: Store, cases: Sequence[str], sizes_mm: Sequence[float], sites: int, seed: int
) -> dict[str, list[list[FloatArray]]]:
    """Draw the sites of each case, in rounds; those of a case depend on no other case."""
    voxel_mm = float(method.grid.spacing_mm.max())
    fit = bool(sizes_mm) and all(voxel_mm <= size < math.inf for size in sizes_mm)
    if not cases or not fit or sites < max(2, len(cases)):
        raise InputError(
            f"A nodule test needs at least one case, diameters of a voxel ({voxel_mm:g} mm) or more, and a site for "
            f"each case, at least 2; it was given {len(cases)} cases, the diameters {list(sizes_mm)} mm, "
            f"and {sites} sites."
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


def _row(
    case: Case, group: Group, site: int, centre_mm: FloatArray, diameter_mm: float, volumes: Sequence[CTVolume]
) -> NoduleRow:
    """Measure one nodule in the truth without and with it, and in the reconstructions without and with it."""
    x, y, z = (float(value) for value in centre_mm - case.isocentre_mm)
    before, after, without, with_ = (mean_in_sphere(v.hu, v.grid, centre_mm, diameter_mm) for v in volumes)
    inserted = after - before
    return NoduleRow(
        case.id, group.protocol, group.model, group.views, site, x, y, z, diameter_mm,
        inserted, with_, without, recovery=(with_ - without) / inserted,
    )  # fmt: skip
