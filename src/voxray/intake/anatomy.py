"""Lungs, heart and liver of a chest CT: how large, and on which side."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from voxray.data.body_mask import body_mask
from voxray.data.lungs import lung_mask
from voxray.errors import InputError
from voxray.images import CTVolume

# Parts of the height of the lungs, from below, between which the heart lies; how far from the middle it reaches, mm;
# how far the slab below the lungs reaches, mm, and the HU that it is clipped to. Ours.
_HEART, _HEART_MM, _BELOW_MM, _SOFT_HU = (0.15, 0.5), 70.0, 50.0, (-200.0, 150.0)
# Nothing is said of a heart that is less to one side than this part of it, or of a slab whose sides differ by less than
# these HU, or disagree with the domes of the diaphragm, which begin so far beyond the middle. Of the 17 training scans
# the heart is to the left in 16, and the slab denser on the right in 16 and even in one; 25 HU are the median.
_EVEN, _EVEN_HU, _DOMES_MM = 0.05, 10.0, 25.0
# Slices count as lung from this part of the largest one.
_SHARE = 0.05


Mask = Bool[np.ndarray, "z y x"]


@dataclass(frozen=True)
class ChestAnatomy:
    """What is known of a chest.

    Attributes:
        lungs_litres: volume of both lungs.
        heart_left: whether the middle between the lungs holds more soft tissue on the patient's left; None if it is
            even.
        liver_right: whether what is below the lungs is denser, and the diaphragm higher, on the patient's right (the
            liver) than on the left (stomach, bowel, spleen, fat); None if these disagree, are even, or out of sight.
    """

    lungs_litres: float
    heart_left: bool | None = None
    liver_right: bool | None = None


def chest_anatomy(volume: CTVolume) -> ChestAnatomy:
    """Measure a chest, by thresholds.

    Args:
        volume: axes along the patient's, as those of results are: slices from feet to head, columns to the left.
    """
    hu = volume.hu.numpy()
    spacing_mm = volume.grid.spacing_mm[::-1]
    try:
        body = body_mask(volume).numpy()
    except InputError:
        return ChestAnatomy(0.0)
    lungs = lung_mask(hu, body, spacing_mm, cut_off=True)
    litres = float(lungs.sum() * spacing_mm.prod() / 1e6)
    if litres < 0.5:
        return ChestAnatomy(litres)
    columns = np.flatnonzero(lungs.any((0, 1)))
    aside_mm = (np.arange(hu.shape[2]) - columns[[0, -1]].mean()) * spacing_mm[2]
    area = lungs.sum((1, 2))
    slices = np.flatnonzero(area > _SHARE * area.max())
    heart = _heart(body & ~lungs, lungs, slices, aside_mm)
    below = slice(max(0, slices[0] - round(_BELOW_MM / spacing_mm[0])), slices[0] + 1)
    denser, higher = _sign(_denser_right(hu[below], body[below], aside_mm), _EVEN_HU), _higher_right(lungs, aside_mm)
    return ChestAnatomy(litres, _sign(heart, _EVEN), denser if denser == higher else None)


def _sign(value: float, even: float) -> bool | None:
    return None if abs(value) < even else value > 0


def _heart(tissue: Mask, lungs: Mask, slices: np.ndarray, aside_mm: np.ndarray) -> float:
    """Return the soft tissue about the middle, where the heart is: left less right, over both."""
    low, high = (round(slices[0] + part * (slices[-1] - slices[0])) for part in _HEART)
    rows = np.flatnonzero(lungs.any((0, 2)))
    front = slice(int(rows[0]), int(rows[0] + 0.7 * (rows[-1] - rows[0])))
    across = tissue[low:high, front].sum((0, 1))
    near = np.abs(aside_mm) <= _HEART_MM
    left, right = across[near & (aside_mm > 0)].sum(), across[near & (aside_mm < 0)].sum()
    return float((left - right) / max(left + right, 1))


def _denser_right(hu: Float[np.ndarray, "z y x"], body: Mask, aside_mm: np.ndarray) -> float:
    """Return by how many HU the body is denser on the right than on the left; 0 where there is none of it."""
    clipped = np.clip(hu, *_SOFT_HU)
    sides = [clipped[..., side][body[..., side]] for side in (aside_mm < 0, aside_mm > 0)]
    return float(sides[0].mean() - sides[1].mean()) if min(map(len, sides)) > 0 else 0.0


def _higher_right(lungs: Mask, aside_mm: np.ndarray) -> bool | None:
    """Tell whether the lung ends further up on the right than on the left (medians); None where they end alike."""
    lowest = np.where(lungs.any(0), lungs.argmax(0), -1)
    ends = [lowest[:, side] for side in (aside_mm < -_DOMES_MM, aside_mm > _DOMES_MM)]
    if any(not (end >= 0).any() for end in ends):
        return None
    return _sign(float(np.median(ends[0][ends[0] >= 0]) - np.median(ends[1][ends[1] >= 0])), 0.5)
