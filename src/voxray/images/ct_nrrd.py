"""NRRD volumes and X-rays (.nrrd, .nhdr), read strictly.

SimpleITK is not used here: its NrrdIO (ITK 5.4) ends the process where a line of the header is some thousand
characters long, and puts a spacing of 1 mm and the LPS identity in the place of what a header does not say.
"""

import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32

from voxray.errors import InputError
from voxray.images.array_axes import Axes, one_plane, pixel_steps, three_axes
from voxray.images.ct_plausible import assumed_ras
from voxray.images.ct_raw import Packing, beside, read_voxels

# The signs that turn a patient space into LPS, and the names of types (NRRD format definition, sections 5 and 7).
_TO_LPS = {
    "left-posterior-superior": (1, 1, 1), "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1), "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1), "las": (1, -1, 1),
}  # fmt: skip
_NAMES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}
_DTYPES = {name: dtype for dtype, names in _NAMES.items() for name in names.split(", ")}
_PACKING: dict[str, Packing] = {"raw": "raw", "gzip": "gzip", "gz": "gzip"}
_MAX_LINES = 10_000


def read_nrrd(path: Path, assume_ras: bool = False) -> tuple[Float32[np.ndarray, "z y x"], npt.NDArray[np.float64]]:
    """Read a .nrrd, or a .nhdr with its data in one file of the same folder; call it inside `reading`.

    Args:
        path: the file.
        assume_ras: where the header has no patient space: take the axes for right, anterior, superior, and the
            first voxel for 0.

    Returns:
        The values, axes (z, y, x), and the affine to LPS millimetres: its columns are the space directions.

    Raises:
        InputError: if the file is no 3D volume of real numbers, is too large, is longer or shorter than its
            header says, or has no voxel size or orientation.
    """
    with path.open("rb") as file:
        fields = _fields(path, file)
        size, dtype = _layout(path, fields, three_axes)
        affine = _affine(path, fields, assume_ras)
        return _values(path, file, fields, size, dtype), affine


def read_nrrd_plane(path: Path) -> tuple[Float32[np.ndarray, "1 rows columns"], tuple[float, float] | None]:
    """Read an image of two axes as `read_nrrd` reads volumes; its orientation is not looked at.

    Returns:
        The values, and the pixel size (row step, column step) in mm where the header has one.

    Raises:
        InputError: if the file is no image of real numbers, is longer or shorter than its header says, or is too
            large.
    """
    with path.open("rb") as file:
        fields = _fields(path, file)
        size, dtype = _layout(path, fields, one_plane)
        steps = pixel_steps(path, _spacing(path, fields))
        return _values(path, file, fields, size, dtype), steps


def _values(
    path: Path, file: BinaryIO, fields: dict[str, str], size: tuple[int, int, int], dtype: np.dtype[Any]
) -> Float32[np.ndarray, "z y x"]:
    packing = _PACKING.get(fields.get("encoding", "").lower())
    if packing is None or fields.get("line skip", "0") != "0" or fields.get("byte skip", "0") != "0":
        raise InputError(f"{str(path)!r} is not encoded as raw or gzip, without skips; save it so.")
    name = fields.get("data file", fields.get("datafile"))
    if name is None:
        return read_voxels(path, file, size, dtype, packing)
    with beside(path, name) as other:
        return read_voxels(path, other, size, dtype, packing)


def _fields(path: Path, file: BinaryIO) -> dict[str, str]:
    """Read the text header; leave the file behind the empty line that ends it, or at its end."""
    if not re.match(rb"NRRD000[1-5]\r?\n", file.readline(16)):
        raise InputError(f"{str(path)!r} is not an NRRD file.")
    fields: dict[str, str] = {}
    for _ in range(_MAX_LINES):
        line = file.readline(1 << 16)
        if not line.strip():
            return fields
        key, found, value = line.decode("latin-1").partition(": ")
        key = key.strip().lower()
        if found and not line.startswith(b"#"):
            if key in fields:
                raise InputError(f"{str(path)!r} says twice what its {key!r} is: its header is damaged.")
            fields[key] = value.strip()
    raise InputError(f"{str(path)!r} has a header without an end: it is damaged.")


def _layout(path: Path, fields: dict[str, str], axes: Axes) -> tuple[tuple[int, int, int], np.dtype[Any]]:
    """Return the numbers of voxels (x, y, z) and the type of the stored values."""
    size = [int(n) for n in fields.get("sizes", "").split()]
    if str(len(size)) != fields.get("dimension") or min(size, default=0) < 1:
        raise InputError(f"{str(path)!r} has impossible dimensions {size}: its header is damaged.")
    kinds = set(fields.get("kinds", "").lower().split()[:3])
    if fields.get("type", "").lower() not in _DTYPES or not kinds <= {"domain", "space", "none", "???"}:
        what = ", ".join([fields.get("type", ""), *sorted(kinds)])
        raise InputError(f"{str(path)!r} holds colours, vectors or unknown values ({what}), not real numbers.")
    dtype = np.dtype(_DTYPES[fields["type"].lower()])
    order = {"little": "<", "big": ">"}.get(fields.get("endian", "").lower())
    if order is None and dtype.itemsize > 1:
        raise InputError(f"{str(path)!r} does not say in which order its bytes are (endian: little or big).")
    return axes(path, size), dtype.newbyteorder(">" if order == ">" else "<")


def _steps(fields: dict[str, str]) -> list[list[float]]:
    """Return the vector from one element to the next along each axis that has one."""
    vectors = re.findall(r"\(([^()]*)\)", fields.get("space directions", ""))
    return [[float(v) for v in vector.split(",")] for vector in vectors]


def _spacing(path: Path, fields: dict[str, str]) -> npt.NDArray[np.float64]:
    """Return the millimetres from one element to the next along each axis, as far as the header has them."""
    if set(re.findall(r'"([^"]*)"', fields.get("space units", ""))) - {"mm"}:
        raise InputError(f"{str(path)!r} is measured in {fields['space units']}; voxray reads millimetres.")
    if steps := _steps(fields):
        return np.array([np.linalg.norm(step) for step in steps])
    return np.array([float(v) for v in fields.get("spacings", "").split()])


def _affine(path: Path, fields: dict[str, str], assume_ras: bool) -> npt.NDArray[np.float64]:
    """Return the affine to LPS millimetres, or refuse a header that does not give one."""
    steps, spacing = _steps(fields)[:3], _spacing(path, fields)[:3]
    if spacing.shape != (3,) or not np.isfinite(spacing).all() or not spacing.min() > 0:
        raise InputError(f"{str(path)!r} has no voxel size, or an impossible one ({spacing.tolist()}).")
    signs = _TO_LPS.get(fields.get("space", "").lower())
    if signs is None or not steps:
        return assumed_ras(path, spacing, "no patient 'space' in its header", assume_ras)
    affine = np.eye(4)
    affine[:3, :3] = np.array(steps).reshape(3, 3).T
    affine[:3, 3] = [float(v) for v in fields.get("space origin", "(0,0,0)").strip("()").split(",")]
    affine[:3] *= np.array(signs)[:, None]
    return affine
