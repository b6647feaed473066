"""Joseph's projector for upright detectors: the same sums as `joseph_numba`, several times as fast.

A detector is upright if its columns run along the z axis of the grid and its rows perpendicular to it, as in every
preset and on every circle about the patient. All pixels of one of its columns then cross a plane of voxels above one
another, at the same place q between two lines of voxels along z. So these two lines are blended once for the whole
column, with contiguous and vectorised arithmetic, and each pixel interpolates in the blended line alone: two voxels
a sample instead of four. The adjoint does the same backwards.

Volumes are laid out as lines (y, x, z), z fastest. The forward kernel is parallel over columns of the detector; the
adjoint is parallel over slabs of planes, so that no two threads write to one voxel and sums have a fixed order.

(numba's cache does not see changes in the helpers imported here; delete `__pycache__` after changing them.)
"""

from collections.abc import Sequence

import numba
import numpy as np

from voxray.physics.joseph_numba import FASTMATH, Array, clip, main_axis
from voxray.physics.sampling import TIE

# Zeros before and after a line: one for the neighbour outside the volume, one for rounding.
PAD = 2
# Pixels that follow one another are summed apart: an addition need not wait for the one before it.
LANES = 4


def is_upright(rays: Array, rows: int, columns: int) -> bool:
    """Tell whether these kernels can project a view: an upright detector, and no ray that runs mostly along z.

    Samples may be off by 1e-6 voxel by it.

    Args:
        rays: (4, 3) in voxels (x, y, z): source; direction of pixel (0, 0); its change by row; by column.
        rows: of the detector.
        columns: of the detector.
    """
    _, corner, by_row, by_column = rays
    if rows * np.abs(by_row[:2]).max() > 1e-6 or columns * abs(by_column[2]) > 1e-6:
        return False
    across = np.abs(corner[:2] + np.arange(columns)[:, None] * by_column[:2]).max(axis=1)
    return bool(across.min() >= max(abs(corner[2]), abs(corner[2] + (rows - 1) * by_row[2])))


def project(volume: Array, rays: Sequence[Array], spacing: Array, images: Sequence[Array]) -> None:
    """Add to each image (rows, columns) the line integrals of `volume` (z, y, x) along its rays.

    Args:
        volume: attenuation per mm.
        rays: of each view, as in `is_upright`.
        spacing: voxel size in mm (x, y, z).
        images: the results, without unit.
    """
    nz, ny, nx = volume.shape
    lines = np.empty((ny * nx, nz), volume.dtype)
    _turn(volume.reshape(nz, ny * nx), lines)
    for view, image in zip(rays, images, strict=True):
        for main, size, strides in _axes(volume.shape):
            _forward(lines, size, strides, main, view, spacing, image)


def backproject(volume: Array, rays: Sequence[Array], spacing: Array, images: Sequence[Array]) -> None:
    """Add to `volume` the adjoint of `project` applied to `images`; arguments as there."""
    nz, ny, nx = volume.shape
    lines = np.zeros((ny * nx, nz), volume.dtype)
    for view, image in zip(rays, images, strict=True):
        columns = _weighted_columns(view, spacing, image)
        for main, size, strides in _axes(volume.shape):
            _adjoint(lines, size, strides, main, view, columns, numba.get_num_threads())
    _add_turned(lines, volume.reshape(nz, ny * nx))


def _axes(shape: tuple[int, ...]) -> tuple[tuple[int, Array, Array], ...]:
    """Return for the main axes x and y: 0 or 1; number of planes and of lines in a plane; strides of both in lines."""
    _, ny, nx = shape
    return (0, np.array((nx, ny)), np.array((1, nx))), (1, np.array((ny, nx)), np.array((nx, 1)))


@numba.njit(parallel=True, cache=True)
def _turn(source, result):  # type: ignore[no-untyped-def]
    """Write the transpose of `source` to `result`, in blocks that fit the cache."""
    rows, columns = source.shape
    for block in numba.prange((columns + 15) // 16):
        for row in range(0, rows, 16):
            for c in range(block * 16, min(block * 16 + 16, columns)):
                for r in range(row, min(row + 16, rows)):
                    result[c, r] = source[r, c]


@numba.njit(parallel=True, cache=True)
def _add_turned(source, result):  # type: ignore[no-untyped-def]
    """Add the transpose of `source` to `result`, in blocks that fit the cache."""
    rows, columns = source.shape
    for block in numba.prange((rows + 15) // 16):
        for column in range(0, columns, 16):
            for c in range(column, min(column + 16, columns)):
                for r in range(block * 16, min(block * 16 + 16, rows)):
                    result[c, r] += source[r, c]


@numba.njit(cache=True)
def _way_mm(rays, spacing, row, column):  # type: ignore[no-untyped-def]
    """Return the way of a ray from one plane of its main axis to the next."""
    dx = rays[1, 0] + column * rays[3, 0]
    dy = rays[1, 1] + column * rays[3, 1]
    dz = rays[1, 2] + row * rays[2, 2]
    x, y, z = spacing[0] * dx, spacing[1] * dy, spacing[2] * dz
    return np.sqrt(x * x + y * y + z * z) / abs(dx if main_axis(dx, dy, dz) == 0 else dy)


@numba.njit(cache=True)
def _columns_main_axis(rays, column):  # type: ignore[no-untyped-def]
    return main_axis(rays[1, 0] + column * rays[3, 0], rays[1, 1] + column * rays[3, 1], 0.0)


@numba.njit(cache=True)
def _crossing(rays, size, main, column, plane, height, rows):  # type: ignore[no-untyped-def]
    """Find where the rays of a column cross a plane across the axis `main`.

    Returns:
        q: the line at which they do, a number between two lines.
        z0, dz: row r crosses at z0 + r dz, in voxels of a line with `PAD`.
        first, last: the rows from `first` up to, not including, `last` touch the volume.
    """
    other = 1 - main
    source = rays[0]
    t = (plane - source[main]) / (rays[1, main] + column * rays[3, main])
    q = source[other] + t * (rays[1, other] + column * rays[3, other])
    z0, dz = source[2] + t * rays[1, 2], t * rays[2, 2]
    if not (0.0 <= t <= TIE and -1.0 < q < size[1]):
        return q, z0, dz, 0, 0
    first, last = clip(0.0, rows - 1.0, z0, dz, -1.0, float(height))
    if not last >= first:
        return q, z0, dz, 0, 0
    return q, z0 + PAD, dz, int(np.ceil(first)), int(np.floor(last)) + 1


@numba.njit(cache=True)
def _two_lines(q, size, strides, plane):  # type: ignore[no-untyped-def]
    """Return the two lines beside q, and their weights; a line outside the volume counts for nothing."""
    low = int(np.floor(q))
    weight = q - low
    before, after = max(low, 0), min(low + 1, size[1] - 1)
    at = plane * strides[0]
    return (
        at + before * strides[1], 1.0 - weight if low >= 0 else 0.0,
        at + after * strides[1], weight if low + 1 < size[1] else 0.0,
    )  # fmt: skip


@numba.njit(cache=True)
def _places(z0, dz, first, last, below, weight):  # type: ignore[no-untyped-def]
    """Write, for each row, the voxel below its crossing and the weight of the one above."""
    real = weight.dtype.type
    z0, dz = real(z0), real(dz)
    for r in range(np.uint32(first), np.uint32(last)):
        z = z0 + real(np.int32(r)) * dz
        voxel = np.int32(z)
        below[r] = np.uint32(voxel)
        weight[r] = z - real(voxel)


@numba.njit(parallel=True, cache=True, fastmath=FASTMATH)
def _forward(lines, size, strides, main, rays, spacing, image):  # type: ignore[no-untyped-def]
    """Add to `image` the line integrals of the rays whose main axis is `main`; see `project` and `_axes`."""
    real = lines.dtype.type
    height, rows = lines.shape[1], image.shape[0]
    for c in numba.prange(image.shape[1]):
        if _columns_main_axis(rays, c) != main:
            continue
        blend, total = np.zeros(height + 2 * PAD, lines.dtype), np.zeros(rows, lines.dtype)
        below, weight = np.empty(rows, np.uint32), np.empty(rows, lines.dtype)
        for k in range(size[0]):
            q, z0, dz, first, last = _crossing(rays, size, main, c, k, height, rows)
            if last <= first:
                continue
            one, w_one, other, w_other = _two_lines(q, size, strides, k)
            a, b, wa, wb = lines[one], lines[other], real(w_one), real(w_other)
            for z in range(np.uint32(height)):
                blend[np.uint32(z + np.uint32(PAD))] = wa * a[z] + wb * b[z]
            _places(z0, dz, first, last, below, weight)
            for r in range(np.uint32(first), np.uint32(last)):
                i = below[r]
                low, high = blend[i], blend[np.uint32(i + np.uint32(1))]
                total[r] += low + weight[r] * (high - low)
        for r in range(rows):
            image[r, c] += total[r] * real(_way_mm(rays, spacing, r, c))


@numba.njit(parallel=True, cache=True)
def _weighted_columns(rays, spacing, image):  # type: ignore[no-untyped-def]
    """Return `image` times the way between planes, as (columns, rows)."""
    rows, columns = image.shape
    result = np.empty((columns, rows), image.dtype)
    for c in numba.prange(columns):
        for r in range(rows):
            result[c, r] = image[r, c] * image.dtype.type(_way_mm(rays, spacing, r, c))
    return result


@numba.njit(parallel=True, cache=True, fastmath=FASTMATH)
def _adjoint(lines, size, strides, main, rays, columns, slabs):  # type: ignore[no-untyped-def]
    """Add to `lines` the adjoint of `_forward`, of what `_weighted_columns` gives; planes in `slabs` parts."""
    real = lines.dtype.type
    height, rows = lines.shape[1], columns.shape[1]
    lane = np.uint32(height + 2 * PAD)
    for slab in numba.prange(slabs):
        sums = np.empty(LANES * lane, lines.dtype)
        below, weight = np.empty(rows, np.uint32), np.empty(rows, lines.dtype)
        for k in range(slab * size[0] // slabs, (slab + 1) * size[0] // slabs):
            for c in range(columns.shape[0]):
                if _columns_main_axis(rays, c) != main:
                    continue
                q, z0, dz, first, last = _crossing(rays, size, main, c, k, height, rows)
                if last <= first:
                    continue
                sums[:] = real(0)
                _places(z0, dz, first, last, below, weight)
                values = columns[c]
                for r in range(np.uint32(first), np.uint32(last)):
                    weight[r] *= values[r]
                    below[r] += np.uint32(r % np.uint32(LANES)) * lane
                for r in range(np.uint32(first), np.uint32(last)):
                    i, high = below[r], weight[r]
                    sums[i] += values[r] - high
                    sums[np.uint32(i + np.uint32(1))] += high
                one, w_one, other, w_other = _two_lines(q, size, strides, k)
                a, b, wa, wb = lines[one], lines[other], real(w_one), real(w_other)
                for z in range(np.uint32(height)):
                    i = np.uint32(z + np.uint32(PAD))
                    total = sums[i]
                    for n in range(1, LANES):
                        total += sums[np.uint32(i + np.uint32(n) * lane)]
                    a[z] += wa * total
                    b[z] += wb * total
