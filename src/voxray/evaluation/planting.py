"""Spheres of soft tissue in the lungs of a prepared case."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from voxray.data.store import Case
from voxray.errors import InputError
from voxray.evaluation.regions import regions_of
from voxray.geometry import FloatArray, VolumeGrid
from voxray.images import CTVolume

# Soft tissue, as solid nodules are without contrast agent (our choice): against lung at -850 HU a contrast of 890 HU.
NODULE_HU = 40.0
# Nodules in one reconstruction differ in height by this or more, so that no ray of an upright view meets two of them.
# Measured once (atlas, two views, 24 mm): eight nodules 60 mm apart in whatever direction changed one another's
# recovery by up to 0.018, those on common rays most; with 60 mm of height between them by 0.006 at most.
APART_MM = 60.0
# A nodule is put where all is lung below this: no vessel that voxels of 2.5 mm show, no chest wall. Our choice: of the
# lungs of six chests, which end at -400 HU, 94 to 97 % of the voxels are below, and each has room for 33 sites of 32 mm
# or more; with -600 HU two of the six have room for ten.
AIR_BELOW_HU = -500.0
# Sites have room for this much where the lungs have it, whatever is planted there: sizes stand at the same places in
# every test, be they asked for together or alone (ours: the largest of the usual sizes).
ROOM_MM = 32.0
# Air-filled lung around a nodule: the first as long as there is room, then the next (ours).
MARGINS_MM = (5.0, 2.5, 0.0)

# Points along each side of a voxel at which a sphere is sampled.
SUBSAMPLES = 4

Sphere = tuple[tuple[slice, slice, slice], Float[Tensor, "z y x"]]


def sphere(grid: VolumeGrid, centre_mm: FloatArray, diameter_mm: float) -> Sphere:
    """Return the box of voxels (z, y, x) that a sphere touches, and how much of each voxel it fills.

    Each voxel is sampled at `SUBSAMPLES` points a side: partial volume, as a scanner's voxels show an edge. The box
    ends where the grid ends.
    """
    spacing, fine = grid.spacing_mm, SUBSAMPLES
    middle, reach = grid.mm_to_index(centre_mm), diameter_mm / 2 / spacing + 0.5
    low = np.maximum(np.ceil(middle - reach), 0).astype(int)
    high = np.clip(np.floor(middle + reach) + 1, low, np.maximum(low, grid.shape[::-1])).astype(int)
    axes = [(np.arange(low[i] * fine, high[i] * fine) + 0.5) / fine - 0.5 for i in range(3)]
    x2, y2, z2 = (((axis - middle[i]) * spacing[i]) ** 2 for i, axis in enumerate(axes))
    inside = z2[:, None, None] + y2[:, None] + x2 <= diameter_mm**2 / 4
    n_x, n_y, n_z = high - low
    share = inside.reshape(n_z, fine, n_y, fine, n_x, fine).mean((1, 3, 5), dtype=np.float32)
    x, y, z = (slice(int(low[i]), int(high[i])) for i in range(3))
    return (z, y, x), torch.from_numpy(share)


def with_nodules(case: Case, centres_mm: Sequence[FloatArray], diameter_mm: float) -> Case:
    """Return the case with spheres of `NODULE_HU` in its cube, and in the scan that X-rays are made from.

    Args:
        case: stays as it is.
        centres_mm: LPS, (3,) each, in patient coordinates.
        diameter_mm: of every sphere.
    """
    return replace(case, volume=_planted(case.volume, centres_mm, diameter_mm),
                   scan=_planted(case.scan, centres_mm, diameter_mm))  # fmt: skip


def _planted(volume: CTVolume, centres_mm: Sequence[FloatArray], diameter_mm: float) -> CTVolume:
    hu = volume.hu.clone()
    for centre_mm in centres_mm:
        box, share = sphere(volume.grid, centre_mm, diameter_mm)
        hu[box] += share * (NODULE_HU - hu[box])
    return CTVolume(hu, volume.grid, volume.origin)


def mean_in_sphere(hu: Float[Tensor, "z y x"], grid: VolumeGrid, centre_mm: FloatArray, diameter_mm: float) -> float:
    """Return the mean over a sphere, each voxel weighted by how much of it is inside."""
    box, share = sphere(grid, centre_mm, diameter_mm)
    return float((share * hu[box]).sum() / share.sum())


def draw_sites(case: Case, count: int, diameter_mm: float, rng: torch.Generator) -> list[list[FloatArray]]:
    """Draw places at which a sphere of a diameter has nothing but air-filled lung in it, by the true volume.

    Every voxel that the sphere touches is lung below -500 HU, and every voxel of a margin around it: 5 mm where the
    lungs have room for that, else 2.5 mm, else none. Places where a sphere of `ROOM_MM` would fit come first; others
    are drawn only where those do not suffice. Places without a nodule are the same places.

    Places of one round are at least `APART_MM` apart in height, so that one reconstruction may hold all of them; those
    of different rounds at least a radius of the sphere that there is room for, in any direction. Each round takes as
    many as happen to fit. The first places stay the same when more are asked for, or another diameter.

    Args:
        case: its cube says where the lungs are.
        count: how many, over all rounds.
        diameter_mm: of the spheres.
        rng: of the draw.

    Returns:
        Rounds of centres, LPS, (3,) each, in patient coordinates.

    Raises:
        InputError: if fewer fit.
    """
    grid, depth_mm = case.volume.grid, _depth_mm(case.volume)
    rounds: list[list[FloatArray]] = []
    radii_mm = dict.fromkeys((max(diameter_mm, ROOM_MM) / 2, diameter_mm / 2))
    for radius_mm, margin_mm in product(radii_mm, MARGINS_MM):
        places = np.argwhere(depth_mm >= radius_mm + margin_mm)[:, ::-1]
        pool = grid.index_to_mm(places[torch.randperm(len(places), generator=rng).numpy()])
        for centre in (centre for chosen in rounds for centre in chosen):
            pool = _beyond(pool, centre, radius_mm)
        while (left := count - sum(map(len, rounds))) and len(pool):
            rounds.append(_apart(pool, left))
            for centre in rounds[-1]:
                pool = _beyond(pool, centre, radius_mm)
    found = sum(map(len, rounds))
    if found < count:
        raise InputError(
            f"The lungs of the case {case.id!r} have room for {found} of {count} sites of {diameter_mm:g} mm: give "
            "more cases, fewer sites or smaller diameters, or leave this case out."
        )
    return rounds


def _depth_mm(volume: CTVolume) -> Float[np.ndarray, "z y x"]:
    """Return how large a sphere about each voxel's centre may be, its radius, to touch no voxel but air-filled lung.

    Distances are to the centres of the nearest other voxels, or of those beyond the cube; the corner of a voxel is half
    of its diagonal nearer.
    """
    air = regions_of(volume).lung & (volume.hu < AIR_BELOW_HU)
    spacing = volume.grid.spacing_mm
    distance = ndimage.distance_transform_edt(np.pad(air.numpy(), 1), sampling=spacing[::-1])
    depth: Float[np.ndarray, "z y x"] = distance[1:-1, 1:-1, 1:-1] - np.linalg.norm(spacing) / 2
    return depth


def _apart(pool: Float[np.ndarray, "places 3"], most: int) -> list[FloatArray]:
    """Take places in their order, each `APART_MM` higher or lower than all before it."""
    chosen = list[FloatArray]()
    while len(chosen) < most and len(pool):
        chosen.append(pool[0])
        pool = pool[np.abs(pool[:, 2] - pool[0, 2]) >= APART_MM]
    return chosen


def _beyond(
    pool: Float[np.ndarray, "places 3"], centre_mm: FloatArray, distance_mm: float
) -> Float[np.ndarray, "others 3"]:
    """Leave out places that are nearer to a centre than a distance."""
    return pool[np.linalg.norm(pool - centre_mm, axis=1) >= distance_mm]
