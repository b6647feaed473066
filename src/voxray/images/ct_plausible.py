"""Is this a CT? What every volume must pass, whatever format it came in."""

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32

from voxray.errors import GeometryError, InputError, VoxrayWarning
from voxray.geometry import VolumeGrid

AIR_HU = -1024.0
SPACING_MM = (0.05, 20.0)
EXTENT_MM = (20.0, 2000.0)

# No 16-bit CT, padding and metal included, reaches further; what does is no CT in HU.
MAX_ABS_HU = 2.0**16


def assumed_ras(
    path: Path, spacing_mm: npt.NDArray[np.float64], missing: str, assume_ras: bool
) -> npt.NDArray[np.float64]:
    """Return the LPS affine of axes that run to the right, front and head from a first voxel at 0.

    Args:
        path: the file, for messages.
        spacing_mm: (x, y, z).
        missing: what the header does not say, for messages.
        assume_ras: whether the user asked for this assumption.

    Raises:
        InputError: if the user did not.
    """
    if not assume_ras:
        raise InputError(
            f"{str(path)!r} does not say how the patient lies in it ({missing}). If its axes run to the right, front "
            "and head, read it with --assume-ras."
        )
    return np.diag([*(spacing_mm * (-1, -1, 1)), 1.0])


def plausible_grid(path: Path, shape: tuple[int, ...], affine: npt.NDArray[np.float64]) -> VolumeGrid:
    """Return the grid of a CT, or refuse it.

    Spacing must lie within 0.05 to 20 mm and every side within 20 to 2000 mm: from micro-CT to whole bodies. What
    lies outside comes from a wrong unit or a damaged header. The limits are ours (promise I8).

    Args:
        path: the file, for messages.
        shape: voxels along (z, y, x).
        affine: 4 x 4, (i, j, k, 1) to LPS millimetres.

    Raises:
        InputError: if the grid is impossible or implausible.
    """
    try:
        grid = VolumeGrid((shape[0], shape[1], shape[2]), affine)
    except GeometryError as error:
        raise InputError(f"{str(path)!r}: {error}") from error
    for what, values, (low, high) in (
        ("a voxel spacing", grid.spacing_mm, SPACING_MM),
        ("an extent", grid.size_mm, EXTENT_MM),
    ):
        if values.min() < low or values.max() > high:
            raise InputError(
                f"{str(path)!r} has {what} of {' x '.join(f'{v:.4g}' for v in values)} mm (x, y, z); a CT has "
                f"{low:g} to {high:g} mm. Is the header damaged, or in another unit?"
            )
    return grid


def plausible_hu(path: Path, hu: Float32[np.ndarray, "z y x"]) -> None:
    """Clamp padding below -1024 HU in place, and warn of values that do not look like HU.

    Scanners fill the corners outside their field of view with -2000, -3024 or -32768; voxray knows no material
    that attenuates less than air, so these become -1024. High values stay: metal reaches 30000.

    Raises:
        InputError: if a voxel is not finite, or further from 0 than any 16-bit CT.
    """
    low, high = float(hu.min()), float(hu.max())
    if not np.isfinite((low, high)).all():
        raise InputError(f"{str(path)!r} has voxels that are not finite numbers (NaN or infinite).")
    if max(-low, high) > MAX_ABS_HU:
        raise InputError(
            f"{str(path)!r} has values from {low:g} to {high:g}: these are not Hounsfield units, or the file is "
            "damaged."
        )
    if doubt := _doubt(hu, low, high):
        _warn(
            f"{str(path)!r} has values from {low:g} to {high:g}: {doubt} voxray takes them for Hounsfield units "
            "(air -1000, water 0); convert the file if they are not."
        )
    if low < AIR_HU:
        count = np.count_nonzero(hu < AIR_HU)
        np.maximum(hu, np.float32(AIR_HU), out=hu)
        _warn(f"{str(path)!r}: {count} voxels lie below -1024 HU (down to {low:g}); set to -1024.")


def _doubt(hu: Float32[np.ndarray, "z y x"], low: float, high: float) -> str:
    """Say why values from `low` to `high` may not be HU, or return ""."""
    if low == high:
        return "every voxel is the same."
    if high - low <= 10:
        return "they look normalised, or like attenuation coefficients."
    if low >= 0:
        return "there is no air; they look like grey values, or like HU + 1024."
    if np.count_nonzero(hu > 4000) > 0.01 * hu.size:
        return "more than 1 % lie above 4000, more than metal would fill."
    return ""


def _warn(message: str) -> None:
    warnings.warn(message, VoxrayWarning, stacklevel=4)
