"""How many axes the array of a file has: three are a CT, two are the line integrals of an X-ray."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from voxray.errors import InputError
from voxray.images.reading import check_pixels

Axes = Callable[[Path, Sequence[int]], tuple[int, int, int]]


def three_axes(path: Path, size: Sequence[int]) -> tuple[int, int, int]:
    """Return the numbers of voxels (x, y, z); further axes of one element are no axes.

    Raises:
        InputError: if there are fewer than three axes, or more.
    """
    if len(size) < 3 or max(size[3:], default=1) > 1:
        raise InputError(
            f"{str(path)!r} has {len(size)} dimensions ({' x '.join(map(str, size))}); a CT has 3. Save one of its "
            "volumes as a file."
        )
    return size[0], size[1], size[2]


def one_plane(path: Path, size: Sequence[int]) -> tuple[int, int, int]:
    """Return the numbers of pixels (columns, rows, 1); further axes of one element are no axes.

    Raises:
        InputError: if there are fewer than two axes, more, or too many pixels.
    """
    if len(size) < 2 or max(size[2:], default=1) > 1:
        raise InputError(
            f"{str(path)!r} has {len(size)} dimensions ({' x '.join(map(str, size))}); the line integrals of one view "
            "have 2, columns x rows. (Is it a CT? Or one file with several views? Save one file a view.)"
        )
    check_pixels(path, size[0] * size[1])
    return size[0], size[1], 1


def pixel_steps(path: Path, spacing: npt.NDArray[np.float64]) -> tuple[float, float] | None:
    """Return the steps from row to row and from column to column, or None where the header has none.

    Args:
        path: the file, for messages.
        spacing: (column step, row step, ...) in mm, or nothing.

    Raises:
        InputError: if they are impossible.
    """
    if not spacing.size:
        return None
    if spacing.size < 2 or not np.isfinite(spacing[:2]).all() or not spacing[:2].min() > 0:
        raise InputError(f"{str(path)!r} has an impossible pixel size ({spacing.tolist()}): its header is damaged.")
    return float(spacing[1]), float(spacing[0])
