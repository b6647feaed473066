"""A chest of boxes that can be counted by hand, and trials of it: what tests of metrics share."""

import dataclasses

import torch
from small_models import SETUP, patient

from voxray.data.store import Case
from voxray.evaluation.protocols import Protocol
from voxray.evaluation.trial import Trial
from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.images import CTVolume, Radiograph
from voxray.methods.base import Estimate

SPACING_MM = 10.0  # a voxel holds one millilitre
SHAPE = (32, 32, 32)
GRID = VolumeGrid.centred(shape=SHAPE, spacing_mm=SPACING_MM)

BODY = (slice(4, 28), slice(4, 28), slice(4, 28))
LUNGS = ((slice(6, 26), slice(8, 22), slice(7, 13)), (slice(6, 26), slice(8, 22), slice(19, 25)))
BONE = (slice(4, 28), slice(22, 26), slice(15, 17))
GAS = (slice(10, 12), slice(10, 12), slice(15, 17))


def chest() -> torch.Tensor:
    """Return 13824 voxels of body in air: two lungs of 1680, a bone of 192, and a bubble of 8."""
    hu = torch.full(SHAPE, -1024.0)
    hu[BODY] = 40.0
    for lung in LUNGS:
        hu[lung] = -850.0
    hu[BONE] = 500.0
    hu[GAS] = -900.0
    return hu


def make_trial(
    truth: torch.Tensor,
    hu: torch.Tensor,
    *,
    std: torch.Tensor | None = None,
    interval: tuple[torch.Tensor, torch.Tensor] | None = None,
    views: ViewGeometry | None = None,
    protocol: Protocol = "closed",
) -> Trial:
    """Return a trial on voxels of 10 mm; its X-rays are black."""
    views = ViewGeometry.biplanar(setup=SETUP) if views is None else views
    record = dataclasses.replace(patient(0).record, isocentre_mm=(16.0, -8.0, 128.0))
    volume = CTVolume(truth, GRID.shifted(record.isocentre_mm))
    estimate = Estimate(
        CTVolume(hu, GRID),
        std=None if std is None else CTVolume(std, GRID),
        interval=None if interval is None else (CTVolume(interval[0], GRID), CTVolume(interval[1], GRID)),
    )
    radiograph = Radiograph(tuple(torch.zeros(shape) for shape in views.shapes), views)
    return Trial(Case(record, volume, volume), protocol, radiograph, "air", estimate)
