"""Phantom patients, a store of them, and small models: what tests of learning, evaluation and use share."""

import hashlib
from functools import cache
from pathlib import Path

import torch

from voxray.data.phantom import thorax_phantom
from voxray.data.store import Case, CaseRecord, case_path, write_case, write_manifest
from voxray.geometry import Setup, ViewGeometry, VolumeGrid
from voxray.images import CTVolume, Radiograph
from voxray.methods import Method
from voxray.physics import Projector
from voxray.physics.attenuation import hu_to_mu
from voxray.recipes import Recipe

SHAPE, SPACING_MM = (32, 32, 32), 10.0
ISOCENTRE_MM = (16.0, -8.0, 128.0)
GRID = VolumeGrid.centred(shape=SHAPE, spacing_mm=SPACING_MM)
# The chest preset with a coarser detector.
SETUP = Setup(1800.0, 1550.0, 6.4, (64, 64))


@cache
def patient(seed: int) -> Case:
    """Return a random thorax: a cube of 320 mm, and the whole body around it."""
    whole = VolumeGrid.centred(ISOCENTRE_MM, (40, 34, 46), SPACING_MM)
    cube = VolumeGrid.centred(ISOCENTRE_MM, SHAPE, SPACING_MM)
    hu = thorax_phantom(whole, rng=rng(seed)).volume.hu.round()
    name = f"phantom{seed:02d}"
    padding = ((0, 0), (0, 0), (0, 0))
    record = CaseRecord(
        name, name, "", "CC0-1.0", name, hashlib.sha256(name.encode()).hexdigest(), ISOCENTRE_MM, padding, "", ""
    )
    return Case(record, CTVolume(hu[4:-4, 1:-1, 7:-7].clone(), cube), CTVolume(hu, whole))


def write_store(folder: Path, splits: dict[str, list[int]]) -> Path:
    """Write a store with the phantoms of these seeds in each split."""
    (folder / "cases").mkdir(parents=True)
    records = {}
    for split, seeds in splits.items():
        for seed in seeds:
            case = patient(seed)
            record = CaseRecord(**{**vars(case.record), "split": split})
            write_case(case_path(folder, case.id), Case(record, case.volume, case.scan))
            records[case.id] = record
    write_manifest(folder, {}, records)
    return folder


def small_recipe(scans: int, **config: object) -> Recipe:
    """Return an atlas of 32^3 voxels."""
    settings = {"scans": scans, "support_mm": 400.0, "spacing_mm": 20.0} | config
    return Recipe(name="small", method="atlas", grid={"shape": SHAPE, "spacing_mm": SPACING_MM}, config=settings)


def xrays_of(case: Case, views: ViewGeometry) -> Radiograph:
    """Project the whole body of a patient, seen by views about the origin, which becomes the isocentre."""
    grid = VolumeGrid.centred(shape=case.scan.grid.shape, spacing_mm=SPACING_MM)
    return Radiograph(tuple(Projector(grid, views).forward(hu_to_mu(case.scan.hu))), views)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cache
def small_method(scans: int = 3, first: int = 0) -> Method:
    """Return an atlas of the first phantoms."""
    method = small_recipe(scans).build()
    for stage in method.stages():
        stage.fit([patient(seed) for seed in range(first, first + scans)], None)
    return method
