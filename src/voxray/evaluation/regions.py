"""How well the body, the lungs and the bones are reconstructed, each for itself.

A score over the whole cube is mostly one of the air around the patient. Regions are found by thresholds, in the truth
and in the reconstruction by the same rule; no published protocol of this field has them, so the rule is our choice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from voxray.data.body_mask import body_mask
from voxray.data.lungs import LUNG_BELOW_HU, lung_mask
from voxray.errors import InputError
from voxray.evaluation.metrics import HU_RANGE, mae_hu, psnr
from voxray.evaluation.trial import Metric, Trial
from voxray.images import CTVolume

# Cancellous bone at 2.5 mm begins below, muscle and blood without contrast agent end far below.
BONE_ABOVE_HU = 200.0
# Usual windows of a chest CT: level -600 and width 1500, level 400 and width 1800 HU.
LUNG_WINDOW_HU = (-1350.0, 150.0)
BONE_WINDOW_HU = (-500.0, 1300.0)

Region = Literal["body", "lung", "soft", "bone"]


@dataclass(frozen=True, eq=False)
class Regions:
    """Masks of a CT volume; lung, soft and bone do not overlap, and leave out other gas in the body.

    Attributes:
        body: the patient, lungs and gas included (`data.body_mask`).
        lung: see `data.lungs.lung_mask`.
        soft: from -400 to 200 HU, without the lungs.
        bone: above 200 HU; blood with contrast agent and metal are above that, too.
    """

    body: Bool[Tensor, "z y x"]
    lung: Bool[Tensor, "z y x"]
    soft: Bool[Tensor, "z y x"]
    bone: Bool[Tensor, "z y x"]


@lru_cache(maxsize=4)
def regions_of(volume: CTVolume) -> Regions:
    """Return the regions of a volume; those of the last four volumes are kept, for many metrics ask for them.

    Args:
        volume: axial slices along the first array axis, in HU. Where it shows no body, every region is empty.
    """
    hu = volume.hu
    try:
        body = body_mask(volume)
    except InputError:
        body = torch.zeros_like(hu, dtype=torch.bool)
    spacing_mm = volume.grid.spacing_mm[::-1]
    lung = torch.from_numpy(lung_mask(hu.numpy(), body.numpy(), spacing_mm, cut_off=True))
    tissue = body & ~lung & (hu >= LUNG_BELOW_HU)
    return Regions(body, lung, soft=tissue & (hu <= BONE_ABOVE_HU), bone=tissue & (hu > BONE_ABOVE_HU))


def dice(one: Bool[Tensor, "*shape"], other: Bool[Tensor, "*shape"]) -> float | None:
    """Return `2 |A and B| / (|A| + |B|)` (Dice, Ecology 26(3), 1945); None where both masks are empty."""
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else None


def window_psnr(
    image: Float[Tensor, "*shape"], truth: Float[Tensor, "*shape"], window_hu: tuple[float, float]
) -> float:
    """Return the PSNR in dB of what a display window shows: HU clipped to it, its width as the range."""
    low, high = window_hu
    return psnr(image.clamp(low, high), truth.clamp(low, high), data_range=high - low)


def lung_volume_error_ml(trial: Trial) -> float:
    """Return the volume of the reconstructed lungs minus that of the true ones, in ml."""
    voxel_ml = float(trial.grid.spacing_mm.prod()) / 1000
    masks = [regions_of(volume).lung for volume in (trial.estimate.volume, trial.case.volume)]
    return (int(masks[0].sum()) - int(masks[1].sum())) * voxel_ml


def _lung_volume_error_percent(trial: Trial) -> float | None:
    voxels = int(regions_of(trial.case.volume).lung.sum())
    true_ml = voxels * float(trial.grid.spacing_mm.prod()) / 1000
    return 100 * lung_volume_error_ml(trial) / true_ml if voxels else None


def _inside(region: Region, score: Callable[[Tensor, Tensor], float]) -> Callable[[Trial], float | None]:
    """Return a metric of the HU inside a region of the truth; it is None where the truth has no such region."""

    def of(trial: Trial) -> float | None:
        mask = getattr(regions_of(trial.case.volume), region)
        return score(trial.hu[mask], trial.truth[mask]) if bool(mask.any()) else None

    return of


def _overlap(region: Region) -> Callable[[Trial], float | None]:
    def of(trial: Trial) -> float | None:
        return dice(*(getattr(regions_of(v), region) for v in (trial.estimate.volume, trial.case.volume)))

    return of


_NAMES: dict[Region, str] = {"body": "the body", "lung": "the lungs", "soft": "soft tissue", "bone": "bone"}
_WINDOWS = {"lung": LUNG_WINDOW_HU, "bone": BONE_WINDOW_HU}

METRICS: tuple[Metric, ...] = (
    Metric("psnr_body", "PSNR in the body", "dB", "higher",
           "PSNR of HU -1024..1476 as unit range, over the voxels of the true body.",
           _inside("body", partial(window_psnr, window_hu=HU_RANGE))),
    *(
        Metric(f"mae_{region}", f"MAE in {name}", "HU", "lower",
               f"Mean absolute difference inside {name} of the truth, HU clipped to -1024..1476.",
               _inside(region, mae_hu), 1)
        for region, name in _NAMES.items()
    ),
    *(
        Metric(f"psnr_{name}_window", f"PSNR, {name} window", "dB", "higher",
               f"PSNR of HU clipped to the window {low:g}..{high:g}, its width as range, over the true body.",
               _inside("body", partial(window_psnr, window_hu=(low, high))))
        for name, (low, high) in _WINDOWS.items()
    ),
    *(
        Metric(f"dice_{region}", f"Dice of {name}", "", "higher",
               f"Dice coefficient of {name}, found by the same thresholds in reconstruction and truth.",
               _overlap(region), 3)
        for region, name in _NAMES.items()
        if region != "soft"
    ),
    Metric("lung_volume_error", "lung volume error", "ml", None,
           "Volume of the reconstructed lungs minus that of the true ones.", lung_volume_error_ml, 0),
    Metric("lung_volume_error_percent", "lung volume error", "%", None,
           "Volume of the reconstructed lungs minus that of the true ones, as a part of the latter.",
           _lung_volume_error_percent, 1),
)  # fmt: skip
