"""Slices in their order, and the checks that they make one volume."""

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from scipy import ndimage

from voxray.errors import InputError
from voxray.images.ct_plausible import AIR_HU
from voxray.images.ct_slices import Slice, Vector

# Positions are often rounded to a tenth of a millimetre: slices whose distances from an even row spread over no
# more than that (and a little, as the row is fitted) are evenly spaced.
_ROUNDING_MM = 0.12

# Slices whose stack leans by less than this (sine of the angle) are upright: what a grid of ITK tolerates.
_UPRIGHT = 1e-3


def in_order(path: Path, slices: list[Slice]) -> list[Slice]:
    """Sort slices along their normal, whatever the order of files, and check that they make one volume.

    Spacing may vary by 1 % (promise I7), and slices may be off their place by the rounding of positions to
    0.1 mm.

    Raises:
        InputError: if patients, sizes, pixel spacings or orientations are mixed, there is one slice only, slices
            are there twice or missing, or the spacing varies.
    """
    _same(path, slices)
    if len(slices) < 2:
        raise InputError(f"{str(path)!r} holds a single slice; a volume needs at least two.")
    normal = slices[0].normal
    slices = sorted(slices, key=lambda s: float(s.position_mm @ normal))
    along = np.array([s.position_mm @ normal for s in slices])
    gaps = np.diff(along)
    usual = float(np.median(gaps))
    _no_duplicates(path, slices, gaps)
    index = np.arange(len(along))
    off = along - np.polyval(np.polyfit(index, along, 1), index)
    worst = int(np.abs(gaps - usual).argmax())
    if np.abs(gaps - usual).max() <= 0.01 * usual or np.ptp(off) <= _ROUNDING_MM:
        return slices
    where = f"between {slices[worst]} and {slices[worst + 1]}: {gaps[worst]:.4g} mm instead of {usual:.4g} mm"
    missing = round(gaps[worst] / usual) - 1
    if missing >= 1 and abs(gaps[worst] / usual - missing - 1) < 0.1:
        raise InputError(f"{str(path)!r}: {missing} slice(s) missing {where}.")
    raise InputError(f"{str(path)!r}: the slices are not evenly spaced, {where}. Resample the series first.")


def stack_affine(path: Path, slices: list[Slice], resample_tilt: bool) -> tuple[Vector, Vector]:
    """Return the affine of ordered slices, and how far each of them is shifted in its plane.

    A column of the affine is a step of one voxel (DICOM PS3.3 C.7.6.2.1.1; the same as in dcm2niix and nibabel):
    axes[0] * spacing[1], axes[1] * spacing[0], and (last - first position) / (slices - 1).

    Returns:
        The 4 x 4 affine to LPS millimetres, and (slices, 2) shifts in pixels along (columns, rows): zeros, or
        those of a tilted gantry, where the affine is of the upright stack on the first slice.

    Raises:
        InputError: if the stack leans (a tilted gantry) and `resample_tilt` is not set, or slices stand out of
            the line.
    """
    first, last, count = slices[0], slices[-1], len(slices)
    row_mm, column_mm = first.spacing_mm
    step = (last.position_mm - first.position_mm) / (count - 1)
    line = first.position_mm + np.arange(count)[:, None] * step
    off = np.stack([s.position_mm for s in slices]) - line
    sideways = np.abs(off @ first.axes.T).max(axis=1)
    if sideways.max() > max(0.5 * min(first.spacing_mm), _ROUNDING_MM):
        raise InputError(
            f"{str(path)!r}: {slices[int(sideways.argmax())]} is shifted sideways by {sideways.max():.3g} mm from "
            "the line of the other slices."
        )
    affine = np.eye(4)
    affine[:3, 0] = first.axes[0] * column_mm
    affine[:3, 1] = first.axes[1] * row_mm
    affine[:3, 2] = step
    affine[:3, 3] = first.position_mm
    lean = first.axes @ step
    if np.abs(lean).max() <= _UPRIGHT * np.linalg.norm(step):
        return affine, np.zeros((count, 2))
    if not resample_tilt:
        angle = np.degrees(np.arcsin(min(1.0, float(np.linalg.norm(lean) / np.linalg.norm(step)))))
        raise InputError(
            f"{str(path)!r} was taken with a tilted gantry ({angle:.1f} degrees): its slices do not stand upright on "
            "each other. Read it with --resample-tilt to have them resampled."
        )
    affine[:3, 2] = first.normal * (first.normal @ step)
    return affine, np.arange(count)[:, None] * (lean / (column_mm, row_mm))


def upright(
    hu: Float32[np.ndarray, "z y x"], affine: Vector, shifts: Vector
) -> tuple[Float32[np.ndarray, "z y x"], Vector]:
    """Shift each slice in its plane so that a tilted stack stands upright; nothing is cut off.

    Linear interpolation (cubic rings at the edge of the body; the choice is ours); what is new is air.

    Args:
        hu: the slices as they are.
        affine: of the upright stack, from `stack_affine`.
        shifts: (slices, 2) in pixels along (columns, rows).
    """
    low, high = np.floor(shifts.min(axis=0)), np.ceil(shifts.max(axis=0))
    extra = (high - low).astype(int)
    shape = (hu.shape[0], hu.shape[1] + extra[1], hu.shape[2] + extra[0])
    out = np.full(shape, AIR_HU, dtype=np.float32)
    for index, (x, y) in enumerate(shifts - low):
        canvas = np.full(shape[1:], AIR_HU, dtype=np.float32)
        canvas[: hu.shape[1], : hu.shape[2]] = hu[index]
        ndimage.shift(canvas, (y, x), output=out[index], order=1, mode="constant", cval=AIR_HU)
    moved = affine.copy()
    moved[:3, 3] += affine[:3, 0] * low[0] + affine[:3, 1] * low[1]
    return out, moved


def _same(path: Path, slices: list[Slice]) -> None:
    """Refuse slices of several patients, sizes, pixel spacings or orientations."""
    first = slices[0]
    kinds = {
        "patients (PatientID)": Counter(s.patient_id for s in slices),
        "image sizes": Counter(f"{s.shape[0]} x {s.shape[1]}" for s in slices),
        "pixel spacings": Counter(str(tuple(round(v, 4) for v in s.spacing_mm)) for s in slices),
    }
    for what, found in kinds.items():
        if len(found) > 1:
            listing = ", ".join(f"{n} of {kind!r}" for kind, n in found.most_common(5))
            raise InputError(f"{str(path)!r} mixes slices of several {what} in one series: {listing}.")
    for other in slices:
        if np.abs(other.axes - first.axes).max() > 1e-3:
            raise InputError(f"{str(path)!r} mixes slices of several orientations in one series: {first} and {other}.")


def _no_duplicates(path: Path, slices: list[Slice], gaps: Vector) -> None:
    """Refuse slices that stand in the same place (to 0.01 mm)."""
    same = np.flatnonzero(gaps < 0.01)
    if not len(same):
        return
    runs = [len(list(run)) + 1 for twice, run in itertools.groupby(gaps < 0.01) if twice]
    hint = " Is it a series over time (4D)?" if len(same) >= len(slices) // 2 else ""
    raise InputError(
        f"{str(path)!r} has {len(same)} duplicate slice(s), up to {max(runs)} in one place, first "
        f"{slices[same[0]]} and {slices[same[0] + 1]}.{hint} Remove the copies, or keep one phase."
    )
