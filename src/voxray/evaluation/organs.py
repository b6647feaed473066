"""How well single organs are reconstructed, where TotalSegmentator is installed."""

from importlib import import_module
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from voxray.errors import InputError
from voxray.evaluation.regions import dice
from voxray.images import CTVolume


def organ_dice(image: CTVolume, truth: CTVolume, *, device: str = "cpu") -> dict[str, float]:
    """Return the Dice coefficient of every organ that TotalSegmentator finds in the truth.

    Both volumes are segmented by the `fast` model of 3 mm, task `total` (Wasserthal et al., Radiology: Artificial
    Intelligence 5(5), 2023); voxels of reconstructions are no smaller. It is a network: on a reconstruction it may see
    what is plausible rather than what is there. On first use it loads its weights from the internet, and it sends
    statistics of its use unless its own configuration says otherwise.

    Args:
        image: the reconstruction.
        truth: of the same shape.
        device: `cpu`, `gpu` or `gpu:N`, as TotalSegmentator names them.

    Raises:
        InputError: if TotalSegmentator is not installed.
    """
    try:
        names: dict[int, str] = import_module("totalsegmentator.map_to_binary").class_map["total"]
    except ImportError as error:
        raise InputError(
            f"The Dice of organs needs TotalSegmentator, which cannot be imported here ({error}). Install it "
            "(pip install TotalSegmentator), or use the Dice of thresholds (dice_body, dice_lung, dice_bone)."
        ) from error
    ours, theirs = _segmented(image, device), _segmented(truth, device)
    scores = {name: dice(ours == label, theirs == label) for label, name in names.items() if (theirs == label).any()}
    return {name: score for name, score in scores.items() if score is not None}


def _segmented(volume: CTVolume, device: str) -> Int[Tensor, "z y x"]:
    """Return the label of every voxel; NIfTI counts voxels in the order (x, y, z), and x and y run the other way."""
    run, nibabel = import_module("totalsegmentator.python_api").totalsegmentator, import_module("nibabel")
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.grid.affine
    image: Any = nibabel.Nifti1Image(volume.hu.numpy().transpose(2, 1, 0), affine)
    labels = np.asarray(run(image, None, fast=True, ml=True, quiet=True, device=device).dataobj)
    return torch.from_numpy(labels.transpose(2, 1, 0).astype(np.int32))
