"""Joseph's projector and its exact adjoint for the CPU, compiled by numba.

Joseph, "An improved algorithm for reprojecting rays through pixel images" (IEEE Trans. Med. Imaging 1(3), 1982):
a ray is sampled once in every plane of voxels across its main axis, with bilinear interpolation in that plane, and
each sample counts for the length of ray between two planes. Voxels outside the volume are zero.

These kernels take any geometry; `joseph_upright` has faster ones for the usual detectors. Both directions take their
weights from `_ray`, so they are adjoint by construction. The forward kernel is parallel over rows of the detector;
the adjoint is parallel over slabs of planes, so that no two threads write to one voxel and sums have a fixed order
(the result does not depend on the number of threads). Along a ray, the loop over planes inside the volume has no
branches; only the few planes at its edge need checks. Indices are unsigned, which spares numba's test for negative
ones.
"""

import atexit
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numba
import numpy as np
import numpy.typing as npt
import torch

from voxray.physics.sampling import TIE

Array = npt.NDArray[np.floating]

# Not "reassoc": a sum must not depend on how a loop is cut, or the result depends on the number of threads.
FASTMATH = {"contract", "nnan", "ninf", "nsz"}

# Samples that are worth a thread, a millisecond or so. On a busy machine, threads wait for one another much longer.
SAMPLES_A_THREAD = 1 << 20


def _find_cache() -> None:
    """Cache compiled code in a temporary folder where neither voxray's nor the user's folder can be written to."""
    try:
        numba.njit(cache=True)(_find_cache)
    except RuntimeError:
        numba.config.CACHE_DIR = tempfile.mkdtemp(prefix="voxray-numba-")
        atexit.register(shutil.rmtree, numba.config.CACHE_DIR, ignore_errors=True)


_find_cache()  # at import, since the decorators below look for the cache then


@contextmanager
def threads_for(samples: int) -> Iterator[None]:
    """Let numba use no more threads than a number of samples is worth; the result does not depend on it."""
    others = torch.get_num_threads()  # one OpenMP serves both: what numba sets, torch would keep
    before = numba.get_num_threads()
    numba.set_num_threads(min(before, 1 + samples // SAMPLES_A_THREAD))
    try:
        yield
    finally:
        numba.set_num_threads(before)
        torch.set_num_threads(others)


def project(volume: Array, rays: Sequence[Array], spacing: Array, images: Sequence[Array]) -> None:
    """Add to each image (rows, columns) the line integrals of `volume` (z, y, x) along its rays.

    Args:
        volume: attenuation per mm.
        rays: of each view, (4, 3) in voxels (x, y, z): source; direction of pixel (0, 0); its change by row; by column.
        spacing: voxel size in mm (x, y, z).
        images: the results, without unit.
    """
    turned = np.empty(0, volume.dtype)
    for view, image in zip(rays, images, strict=True):
        for axis, strides, size, axes in _layouts(volume.shape, view, image.shape):
            if axis == 0 and turned.size == 0:
                turned = np.ascontiguousarray(volume.transpose(2, 0, 1))
            voxels = (turned if axis == 0 else volume).reshape(-1)
            _forward(voxels, strides, size, axes, view, spacing, image)


def backproject(volume: Array, rays: Sequence[Array], spacing: Array, images: Sequence[Array]) -> None:
    """Add to `volume` the adjoint of `project` applied to `images`; arguments as there."""
    nz, ny, nx = volume.shape
    turned = np.zeros((nx, nz, ny), volume.dtype)
    for view, image in zip(rays, images, strict=True):
        for axis, strides, size, axes in _layouts(volume.shape, view, image.shape):
            voxels = (turned if axis == 0 else volume).reshape(-1)
            _adjoint(voxels, strides, size, axes, view, spacing, image, numba.get_num_threads())
    volume += turned.transpose(1, 2, 0)


def _layouts(
    shape: tuple[int, ...], rays: Array, image_shape: tuple[int, ...]
) -> Iterator[tuple[int, Array, Array, Array]]:
    """Yield each main axis of any ray of a view, with `strides`, `size` and `axes` as `_forward` takes them.

    Along x, planes of a (z, y, x) array are scattered in memory: these rays work on a copy with axes (x, z, y).
    """
    nz, ny, nx = shape
    layouts = (
        ((nz * ny, ny, 1), (nx, nz, ny), (0, 2, 1)),
        ((nx, ny * nx, 1), (ny, nz, nx), (1, 2, 0)),
        ((ny * nx, nx, 1), (nz, ny, nx), (2, 1, 0)),
    )
    for axis in np.flatnonzero(_axes_used(rays, *image_shape)):
        strides, size, axes = (np.array(part) for part in layouts[axis])
        yield int(axis), strides, size, axes


@numba.njit(cache=True, inline="always")
def main_axis(dx, dy, dz):  # type: ignore[no-untyped-def]
    """Return the axis (0 x, 1 y, 2 z) along which a direction, in voxels, is longest."""
    if TIE * abs(dx) >= abs(dy) and TIE * abs(dx) >= abs(dz):
        return 0
    return 1 if TIE * abs(dy) >= abs(dz) else 2


@numba.njit(cache=True)
def _axes_used(rays: Array, rows: int, columns: int) -> npt.NDArray[np.bool_]:
    """Tell which of the axes x, y, z is the main axis of any ray of a view."""
    used = np.zeros(3, dtype=np.bool_)
    for r in range(rows):
        for c in range(columns):
            dx = rays[1, 0] + r * rays[2, 0] + c * rays[3, 0]
            dy = rays[1, 1] + r * rays[2, 1] + c * rays[3, 1]
            dz = rays[1, 2] + r * rays[2, 2] + c * rays[3, 2]
            used[main_axis(dx, dy, dz)] = True
    return used


@numba.njit(cache=True, inline="always")
def clip(first, last, offset, slope, low, high):  # type: ignore[no-untyped-def]
    """Narrow the planes [first, last] to those where low <= offset + slope * plane <= high."""
    if low > high:  # the inside of a volume that is one voxel thick
        return first, first - 1.0
    if abs(slope) > 1e-12:
        one, other = (low - offset) / slope, (high - offset) / slope
        return max(first, min(one, other)), min(last, max(one, other))
    if offset < low or offset > high:
        return first, first - 1.0
    return first, last


@numba.njit(cache=True)
def _ray(rays, spacing, axes, size, row, column):  # type: ignore[no-untyped-def]
    """Find where the ray of one pixel crosses the planes of the main axis `axes[0]`.

    Returns:
        p0, dp, q0, dq: in plane k the ray is at (p0 + k dp, q0 + k dq), in voxels along `axes[1]` and `axes[2]`.
        length: way between two planes in mm.
        k0, k1, k2, k3: the planes from k0 up to, not including, k3 lie between source and detector and touch the
            volume; in those from k1 to k2 all four neighbours are inside. A ray of another main axis has none.
    """
    m, a, b = axes[0], axes[1], axes[2]
    d = (
        rays[1, 0] + row * rays[2, 0] + column * rays[3, 0],
        rays[1, 1] + row * rays[2, 1] + column * rays[3, 1],
        rays[1, 2] + row * rays[2, 2] + column * rays[3, 2],
    )
    if main_axis(d[0], d[1], d[2]) != m:
        return 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0, 0, 0
    along, source = d[m], rays[0]
    dp, dq = d[a] / along, d[b] / along
    p0, q0 = source[a] - source[m] * dp, source[b] - source[m] * dq
    x, y, z = spacing[0] * d[0] / along, spacing[1] * d[1] / along, spacing[2] * d[2] / along
    length = np.sqrt(x * x + y * y + z * z)
    first = max(0.0, min(source[m], source[m] + TIE * along))
    last = min(size[0] - 1.0, max(source[m], source[m] + TIE * along))
    # Interpolation reaches one voxel beyond the centres of the outermost voxels.
    first, last = clip(first, last, p0, dp, -1.0, float(size[1]))
    first, last = clip(first, last, q0, dq, -1.0, float(size[2]))
    if not last >= first:
        return p0, dp, q0, dq, length, 0, 0, 0, 0
    k0, k3 = int(np.ceil(first)), int(np.floor(last)) + 1
    # A margin of 1e-3 voxel keeps rounding in float32 from stepping over the edge.
    first, last = clip(first, last, p0, dp, 1e-3, size[1] - 1.001)
    first, last = clip(first, last, q0, dq, 1e-3, size[2] - 1.001)
    if not last >= first:
        return p0, dp, q0, dq, length, k0, k3, k3, k3
    k1 = min(max(int(np.ceil(first)), k0), k3)
    return p0, dp, q0, dq, length, k0, k1, max(k1, min(int(np.floor(last)) + 1, k3)), k3


@numba.njit(cache=True)
def _gather_at_edge(volume, strides, size, k, p, q):  # type: ignore[no-untyped-def]
    """Interpolate plane k at (p, q); voxels outside are zero."""
    total = volume.dtype.type(0)
    ip, iq = int(np.floor(p)), int(np.floor(q))
    for i in range(ip, ip + 2):
        for j in range(iq, iq + 2):
            if 0 <= i < size[1] and 0 <= j < size[2]:
                weight = (1 - abs(p - i)) * (1 - abs(q - j))
                total += weight * volume[k * strides[0] + i * strides[1] + j * strides[2]]
    return total


@numba.njit(cache=True)
def _scatter_at_edge(volume, strides, size, k, p, q, value):  # type: ignore[no-untyped-def]
    """Add the adjoint of `_gather_at_edge`."""
    ip, iq = int(np.floor(p)), int(np.floor(q))
    for i in range(ip, ip + 2):
        for j in range(iq, iq + 2):
            if 0 <= i < size[1] and 0 <= j < size[2]:
                weight = (1 - abs(p - i)) * (1 - abs(q - j))
                volume[k * strides[0] + i * strides[1] + j * strides[2]] += weight * value


@numba.njit(parallel=True, cache=True, fastmath=FASTMATH)
def _forward(volume, strides, size, axes, rays, spacing, image):  # type: ignore[no-untyped-def]
    """Add to `image` (rows, columns) the line integrals of the rays of one view with main axis `axes[0]`.

    Args:
        volume: flat voxels; voxel (k, p, q) along `axes` is at k * strides[0] + p * strides[1] + q * strides[2].
        strides: of `volume` along `axes`.
        size: number of voxels along `axes`.
        axes: main axis, and the two in-plane axes (0 x, 1 y, 2 z).
        rays: (4, 3) in voxels (x, y, z): source; direction of pixel (0, 0); its change by row; by column.
        spacing: voxel size in mm (x, y, z).
        image: the result, without unit if voxels are per mm.
    """
    real = volume.dtype.type
    sk, sp, sq = np.uintp(strides[0]), np.uintp(strides[1]), np.uintp(strides[2])
    for r in numba.prange(image.shape[0]):
        for c in range(image.shape[1]):
            p0, dp, q0, dq, length, k0, k1, k2, k3 = _ray(rays, spacing, axes, size, r, c)
            if k3 <= k0:
                continue
            p0, dp, q0, dq = real(p0), real(dp), real(q0), real(dq)
            total = real(0)
            for k in range(k0, k1):
                total += _gather_at_edge(volume, strides, size, k, p0 + k * dp, q0 + k * dq)
            for k in range(np.int32(k1), np.int32(k2)):
                kr = real(k)
                p, q = p0 + kr * dp, q0 + kr * dq
                ip, iq = np.uintp(p), np.uintp(q)
                wp, wq = p - real(ip), q - real(iq)
                at = np.uintp(np.uintp(k) * sk + ip * sp + iq * sq)
                v00, v01 = volume[at], volume[np.uintp(at + sq)]
                v10, v11 = volume[np.uintp(at + sp)], volume[np.uintp(at + sp + sq)]
                top = v00 + wq * (v01 - v00)
                total += top + wp * (v10 + wq * (v11 - v10) - top)
            for k in range(k2, k3):
                total += _gather_at_edge(volume, strides, size, k, p0 + k * dp, q0 + k * dq)
            image[r, c] += total * real(length)


@numba.njit(parallel=True, cache=True, fastmath=FASTMATH)
def _adjoint(volume, strides, size, axes, rays, spacing, image, slabs):  # type: ignore[no-untyped-def]
    """Add to `volume` the adjoint of `_forward` applied to `image`; arguments as there.

    `slabs` is the number of parts that the planes are dealt out in, one after another to the threads.
    """
    real = volume.dtype.type
    sk, sp, sq = np.uintp(strides[0]), np.uintp(strides[1]), np.uintp(strides[2])
    for slab in numba.prange(slabs):
        begin, end = slab * size[0] // slabs, (slab + 1) * size[0] // slabs
        for r in range(image.shape[0]):
            for c in range(image.shape[1]):
                p0, dp, q0, dq, length, k0, k1, k2, k3 = _ray(rays, spacing, axes, size, r, c)
                k0, k3 = max(k0, begin), min(k3, end)
                if k3 <= k0:
                    continue
                k1 = min(max(k1, k0), k3)
                k2 = min(max(k2, k1), k3)
                p0, dp, q0, dq = real(p0), real(dp), real(q0), real(dq)
                value = real(length) * image[r, c]
                for k in range(k0, k1):
                    _scatter_at_edge(volume, strides, size, k, p0 + k * dp, q0 + k * dq, value)
                for k in range(np.int32(k1), np.int32(k2)):
                    kr = real(k)
                    p, q = p0 + kr * dp, q0 + kr * dq
                    ip, iq = np.uintp(p), np.uintp(q)
                    wp, wq = p - real(ip), q - real(iq)
                    at = np.uintp(np.uintp(k) * sk + ip * sp + iq * sq)
                    bottom = value * wp
                    top = value - bottom
                    volume[at] += top - top * wq
                    volume[np.uintp(at + sq)] += top * wq
                    volume[np.uintp(at + sp)] += bottom - bottom * wq
                    volume[np.uintp(at + sp + sq)] += bottom * wq
                for k in range(k2, k3):
                    _scatter_at_edge(volume, strides, size, k, p0 + k * dp, q0 + k * dq, value)
