"""How well single organs are reconstructed, where TotalSegmentator is installed.

It segments both volumes with its `fast` model of 3 mm, task `total` (Wasserthal et al., Radiology: Artificial
Intelligence 5(5), 2023); voxels of reconstructions are no smaller. It is a network: on a reconstruction it may see what
is plausible rather than what is there. On first use it loads its weights from the internet, and it sends statistics of
its use unless its own configuration says otherwise.
"""

import hashlib
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from voxray.errors import InputError
from voxray.evaluation.regions import dice
from voxray.evaluation.trial import Metric, Trial
from voxray.images import CTVolume

# How the names of TotalSegmentator's structures begin that make up an organ; the choice of organs is ours: what a chest
# always shows at least a part of.
ORGANS = {"lungs": "lung_", "heart": "heart", "aorta": "aorta", "liver": "liver", "spine": "vertebrae_", "ribs": "rib_"}

# Segmentations that are kept, oldest first: 2 MB for one of 128^3; two a case and model (ours).
MOST_KEPT = 200
_KEPT: dict[tuple[str, str], Tensor] = {}


def structure_names() -> dict[int, str]:
    """Return what TotalSegmentator calls its labels.

    Raises:
        InputError: if it is not installed.
    """
    try:
        names: dict[int, str] = import_module("totalsegmentator.map_to_binary").class_map["total"]
    except ImportError as error:
        raise InputError(
            f"The Dice of organs needs TotalSegmentator, which cannot be imported here ({error}). Install it "
            "(pip install TotalSegmentator), or use the Dice of thresholds (dice_body, dice_lung, dice_bone)."
        ) from error
    return names


def organ_dice(image: CTVolume, truth: CTVolume, *, device: str = "cpu") -> dict[str, float]:
    """Return the Dice coefficient of every structure that TotalSegmentator finds in the truth.

    Args:
        image: the reconstruction.
        truth: of the same shape.
        device: `cpu`, `gpu` or `gpu:N`, as TotalSegmentator names them.

    Raises:
        InputError: if TotalSegmentator is not installed.
    """
    names = structure_names()
    ours, theirs = _segmented(image, device), _segmented(truth, device)
    scores = {name: dice(ours == label, theirs == label) for label, name in names.items() if (theirs == label).any()}
    return {name: score for name, score in scores.items() if score is not None}


def _segmented(volume: CTVolume, device: str) -> UInt8[Tensor, "z y x"]:
    """Return the label of every voxel; those of the last volumes are kept, each by what it holds.

    Several metrics ask for them, and every model, set of views and protocol reads the truth of a case anew.
    """
    key = (hashlib.sha256(volume.hu.numpy().tobytes() + volume.grid.affine.tobytes()).hexdigest(), device)
    if key not in _KEPT:
        while len(_KEPT) >= MOST_KEPT:
            del _KEPT[next(iter(_KEPT))]
        _KEPT[key] = _segment(volume, device)
    return _KEPT[key]


def _segment(volume: CTVolume, device: str) -> UInt8[Tensor, "z y x"]:
    """Run TotalSegmentator; NIfTI counts voxels in the order (x, y, z), and x and y run the other way."""
    run, nibabel = import_module("totalsegmentator.python_api").totalsegmentator, import_module("nibabel")
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.grid.affine
    image: Any = nibabel.Nifti1Image(volume.hu.numpy().transpose(2, 1, 0), affine)
    labels = np.asarray(run(image, None, fast=True, ml=True, quiet=True, device=device).dataobj)
    return torch.from_numpy(labels.transpose(2, 1, 0).astype(np.uint8))


def _dice_of(start: str) -> Callable[[Trial], float | None]:
    """Return a metric of the structures whose names begin in a way, as one; None where the truth has none of them."""

    def of(trial: Trial) -> float | None:
        labels = torch.tensor([label for label, name in structure_names().items() if name.startswith(start)])
        device = trial.device.replace("cuda", "gpu")
        ours, theirs = (
            torch.isin(_segmented(volume, device), labels) for volume in (trial.estimate.volume, trial.case.volume)
        )
        return dice(ours, theirs) if bool(theirs.any()) else None

    return of


METRICS: tuple[Metric, ...] = tuple(
    Metric(f"dice_{organ}", f"Dice of {organ}, TotalSegmentator", "", "higher",
           f"Dice coefficient of {organ}, found by TotalSegmentator (a network) in reconstruction and truth.",
           _dice_of(start), 3)
    for organ, start in ORGANS.items()
)  # fmt: skip
