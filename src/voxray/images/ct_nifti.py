"""NIfTI volumes and X-rays, read strictly.

SimpleITK is not used here: its NIfTI reader (2.5) fills a truncated file with zeros, turns a pixdim of 0 or NaN into
1 mm, passes a NaN in the sform on, and takes a missing orientation for the identity, all of it silently.
"""

import gzip
import warnings
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32

from voxray.errors import InputError, VoxrayWarning
from voxray.images.array_axes import Axes, one_plane, pixel_steps, three_axes
from voxray.images.ct_plausible import assumed_ras
from voxray.images.ct_raw import MAX_DEFLATE_RATIO
from voxray.images.reading import check_voxels

Opened = gzip.GzipFile | BufferedReader
Affine = npt.NDArray[np.float64]

# Byte offsets from the standard headers nifti1.h (348 bytes) and nifti2.h (540 bytes).
_FIELDS = ("dim", "datatype", "bitpix", "pixdim", "vox_offset", "slope", "inter", "units", "qform_code",
           "sform_code", "quatern", "qoffset", "srow")  # fmt: skip
_NIFTI1 = np.dtype({
    "names": _FIELDS,
    "formats": ["8i2", "i2", "i2", "8f4", "f4", "f4", "f4", "u1", "i2", "i2", "3f4", "3f4", "(3,4)f4"],
    "offsets": [40, 70, 72, 76, 108, 112, 116, 123, 252, 254, 256, 268, 280],
    "itemsize": 348,
})  # fmt: skip
_NIFTI2 = np.dtype({
    "names": _FIELDS,
    "formats": ["8i8", "i2", "i2", "8f8", "i8", "f8", "f8", "i4", "i4", "i4", "3f8", "3f8", "(3,4)f8"],
    "offsets": [16, 12, 14, 104, 168, 176, 184, 500, 344, 348, 352, 376, 400],
    "itemsize": 540,
})  # fmt: skip

_DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_UNIT_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # unknown (taken for mm), metre, millimetre, micrometre
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_nifti(path: Path, assume_ras: bool = False) -> tuple[Float32[np.ndarray, "z y x"], Affine]:
    """Read a .nii or .nii.gz of NIfTI-1 or NIfTI-2, either byte order; call it inside `reading`.

    The sform is used where it is set, else the qform (as in nibabel). Where both are set and differ by more
    than 1e-3, there is a warning, or a refusal where they put a corner more than half a voxel apart.

    Args:
        path: the file.
        assume_ras: where neither is set: take the axes for right, anterior, superior, the first voxel for 0.

    Returns:
        The values after slope and intercept, axes (z, y, x), and the affine to LPS millimetres.

    Raises:
        InputError: if the file is no 3D volume of real numbers, is too large, is longer or shorter than its
            header says, or has a voxel size or orientation that is missing, impossible, or contradicts itself.
    """
    with _opened(path) as file:
        start = file.read(540)
        header = _header(path, start)
        size, dtype = _layout(path, header, three_axes)
        with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are refused by name
            affine = _affine(path, header, size, assume_ras)
        return _values(path, file, start, header, size, dtype), affine


def read_nifti_plane(path: Path) -> tuple[Float32[np.ndarray, "1 rows columns"], tuple[float, float] | None]:
    """Read an image of two axes as `read_nifti` reads volumes; its orientation is not looked at.

    Returns:
        The values after slope and intercept, and the pixel size (row step, column step) in mm.

    Raises:
        InputError: if the file is no image of real numbers, is longer or shorter than its header says, is too
            large, or has an impossible pixel size.
    """
    with _opened(path) as file:
        start = file.read(540)
        header = _header(path, start)
        size, dtype = _layout(path, header, one_plane)
        steps = pixel_steps(path, header["pixdim"][1:3].astype(np.float64) * _unit_mm(path, header))
        return _values(path, file, start, header, size, dtype), steps


def _opened(path: Path) -> Opened:
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else path.open("rb")


def _values(
    path: Path,
    file: Opened,
    start: bytes,
    header: Any,
    size: tuple[int, int, int],
    dtype: np.dtype[Any],
) -> Float32[np.ndarray, "z y x"]:
    """Read what follows the first bytes, `start`, of an opened file; it must be the voxels and nothing else."""
    count = size[0] * size[1] * size[2]
    expected = int(header["vox_offset"]) + count * dtype.itemsize
    room = path.stat().st_size * (MAX_DEFLATE_RATIO if isinstance(file, gzip.GzipFile) else 1)
    if expected > room:
        raise InputError(f"{str(path)!r} is truncated: {expected} bytes expected, at most {room} there.")
    check_voxels(path, count)
    data = start + file.read(expected - len(start) + 1)
    if len(data) != expected:
        raise InputError(
            f"{str(path)!r} holds {'more' if len(data) > expected else 'fewer'} bytes than the {expected} its header "
            "tells of: it is damaged."
        )
    stored = np.frombuffer(data, dtype, count, int(header["vox_offset"])).reshape(size[::-1])
    return _scaled(path, stored, header)


def _header(path: Path, start: bytes) -> Any:
    """Return the header as one numpy record in the byte order of this machine."""
    orders: tuple[Literal["<", ">"], ...] = ("<", ">")
    for dtype, magic in ((_NIFTI1, start[344:348]), (_NIFTI2, start[4:8])):
        for order in orders:
            length = int(np.frombuffer(start[:4].ljust(4), f"{order}i4")[0])
            if length != dtype.itemsize:
                continue
            if len(start) < dtype.itemsize or magic != (b"n+1\0" if dtype is _NIFTI1 else b"n+2\0"):
                raise InputError(f"{str(path)!r} is truncated, or not a NIfTI file of one piece (.nii).")
            return np.frombuffer(start, dtype.newbyteorder(order), 1)[0]
    raise InputError(f"{str(path)!r} is not a NIfTI file.")


def _layout(path: Path, header: Any, axes: Axes) -> tuple[tuple[int, int, int], np.dtype[Any]]:
    """Return the numbers of voxels (x, y, z) and the type of the stored values."""
    dim = [int(n) for n in header["dim"]]
    if not 1 <= dim[0] <= 7 or min(dim[1 : dim[0] + 1]) < 1:
        raise InputError(f"{str(path)!r} has impossible dimensions {dim}: its header is damaged.")
    size = axes(path, dim[1 : dim[0] + 1])
    code = int(header["datatype"])
    if code not in _DTYPES:
        raise InputError(
            f"{str(path)!r} holds colours, complex or unknown values (datatype {code}), not plain numbers."
        )
    dtype = np.dtype(_DTYPES[code]).newbyteorder(header.dtype["dim"].base.byteorder)
    if header["bitpix"] != 8 * dtype.itemsize:
        raise InputError(f"{str(path)!r}: datatype {code} and bitpix {header['bitpix']} contradict each other.")
    offset = float(header["vox_offset"])
    if not (header.dtype.itemsize + 4 <= offset <= 2**31 and offset.is_integer()):
        raise InputError(f"{str(path)!r}: vox_offset {offset:g} is impossible; its header is damaged.")
    return size, dtype


def _affine(path: Path, header: Any, size: tuple[int, int, int], assume_ras: bool) -> Affine:
    """Return the affine to LPS millimetres (nifti1.h, methods 1 to 3)."""
    pixdim = header["pixdim"].astype(np.float64)
    if not (np.isfinite(pixdim[1:4]).all() and pixdim[1:4].min() > 0):
        raise InputError(f"{str(path)!r} has an impossible voxel size (pixdim) of {pixdim[1:4].tolist()}.")
    unit = _unit_mm(path, header)
    sform, qform = np.eye(4), _qform(header, pixdim)
    sform[:3] = header["srow"]
    has_sform, has_qform = header["sform_code"] > 0, header["qform_code"] > 0
    if not (np.isfinite(sform).all() or not has_sform) or not (np.isfinite(qform).all() or not has_qform):
        raise InputError(f"{str(path)!r} has an orientation (sform or qform) that is not finite.")
    if has_sform:
        rival = qform if has_qform else _with_spacing(sform, pixdim[1:4])
        _compare(path, sform, rival, "qform" if has_qform else "pixdim", size)
    elif not has_qform:
        return assumed_ras(path, pixdim[1:4] * unit, "neither sform nor qform is set", assume_ras)
    affine = _RAS_TO_LPS @ (sform if has_sform else qform)
    affine[:3] *= unit
    return affine


def _unit_mm(path: Path, header: Any) -> float:
    unit = _UNIT_MM.get(int(header["units"]) & 7)
    if unit is None:
        raise InputError(f"{str(path)!r} has an unknown unit of length (xyzt_units {header['units']}).")
    return unit


def _qform(header: Any, pixdim: npt.NDArray[np.float64]) -> Affine:
    """Return the RAS affine of the quaternion (nifti1.h, method 2); NaN where the quaternion is impossible."""
    b, c, d = header["quatern"].astype(np.float64)
    left = 1 - (b * b + c * c + d * d)
    a = np.sqrt(max(left, 0.0)) if left > -1e-5 else np.nan
    affine = np.eye(4)
    affine[:3, :3] = [
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ]
    affine[:3, :3] *= pixdim[1:4] * (1, 1, -1 if pixdim[0] < 0 else 1)
    affine[:3, 3] = header["qoffset"]
    return affine


def _with_spacing(affine: Affine, spacing: npt.NDArray[np.float64]) -> Affine:
    """Return `affine` with its columns stretched to `spacing`."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    out = affine.copy()
    out[:3, :3] *= spacing / np.where(lengths > 0, lengths, np.nan)
    return out


def _compare(path: Path, sform: Affine, other: Affine, name: str, size: tuple[int, int, int]) -> None:
    """Warn or refuse where the sform and another description of the same grid differ."""
    if np.abs(sform - other).max() <= 1e-3:
        return
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in size], [1])).reshape(4, 8)
    apart_mm = float(np.linalg.norm((sform - other) @ corners, axis=0).max())
    if not apart_mm <= 0.5 * np.linalg.norm(sform[:3, :3], axis=0).min():
        raise InputError(
            f"{str(path)!r} contradicts itself: its sform and its {name} put a corner {apart_mm:.4g} mm apart. "
            "Find out which is right, and save the file with both the same."
        )
    message = f"{str(path)!r}: sform and {name} put a corner {apart_mm:.2g} mm apart; the sform is used."
    warnings.warn(message, VoxrayWarning, stacklevel=5)


def _scaled(path: Path, stored: npt.NDArray[Any], header: Any) -> Float32[np.ndarray, "z y x"]:
    """Apply slope and intercept; a slope of 0 means none (nifti1.h)."""
    slope, inter = float(header["slope"]), float(header["inter"])
    if not (np.isfinite(slope) and np.isfinite(inter)):
        raise InputError(f"{str(path)!r} has a slope or intercept that is not finite ({slope}, {inter}).")
    with np.errstate(over="ignore", invalid="ignore"):  # an overflow becomes infinite, and is refused by the gate
        values = stored.astype(np.float32)
        if slope != 0 and (slope, inter) != (1.0, 0.0):
            values = values * np.float32(slope) + np.float32(inter)
    return values
