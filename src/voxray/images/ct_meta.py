"""MetaImage volumes and X-rays (.mha, .mhd), read strictly.

SimpleITK is not used here: MetaIO (ITK 5.4) writes beyond its memory where a header says NDims = 11 or more, which
ends the process, and it puts a spacing of 1 mm and the identity in the place of what a header does not say.
"""

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32

from voxray.errors import InputError
from voxray.images.array_axes import Axes, one_plane, pixel_steps, three_axes
from voxray.images.ct_plausible import assumed_ras
from voxray.images.ct_raw import Packing, beside, read_voxels

_DTYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip

# The names that MetaIO takes for the same thing.
_ORIENTATION = ("TransformMatrix", "Rotation", "Orientation")
_OFFSET = ("Offset", "Position", "Origin")
_SPACING = ("ElementSpacing", "ElementSize")
_BIG_ENDIAN = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
_MAX_LINES = 1000


def read_meta(path: Path, assume_ras: bool = False) -> tuple[Float32[np.ndarray, "z y x"], npt.NDArray[np.float64]]:
    """Read a .mha, or a .mhd with its data in one file of the same folder; call it inside `reading`.

    Args:
        path: the file.
        assume_ras: where the header has no orientation: take the axes for right, anterior, superior, and the
            first voxel for 0.

    Returns:
        The values, axes (z, y, x), and the affine to LPS millimetres. The rows of TransformMatrix are the directions
        of the axes, Offset is the centre of the first voxel (MetaIO documentation; the same as ITK's).

    Raises:
        InputError: if the file is no 3D volume of real numbers, is too large, is longer or shorter than its
            header says, or has no voxel size or orientation.
    """
    with path.open("rb") as file:
        fields = _fields(path, file)
        size, dtype = _layout(path, fields, three_axes)
        affine = _affine(path, fields, assume_ras)
        return _values(path, file, fields, size, dtype), affine


def read_meta_plane(path: Path) -> tuple[Float32[np.ndarray, "1 rows columns"], tuple[float, float] | None]:
    """Read an image of two axes as `read_meta` reads volumes; its orientation is not looked at.

    Returns:
        The values, and the pixel size (row step, column step) in mm where the header has one.

    Raises:
        InputError: if the file is no image of real numbers, is longer or shorter than its header says, or is too
            large.
    """
    with path.open("rb") as file:
        fields = _fields(path, file)
        size, dtype = _layout(path, fields, one_plane)
        steps = pixel_steps(path, _spacing(fields))
        return _values(path, file, fields, size, dtype), steps


def _values(
    path: Path, file: BinaryIO, fields: dict[str, str], size: tuple[int, int, int], dtype: np.dtype[Any]
) -> Float32[np.ndarray, "z y x"]:
    packing: Packing = "zlib" if fields.get("CompressedData", "False") == "True" else "raw"
    if fields["ElementDataFile"].upper() == "LOCAL":
        return read_voxels(path, file, size, dtype, packing)
    with beside(path, fields["ElementDataFile"]) as other:
        return read_voxels(path, other, size, dtype, packing)


def _fields(path: Path, file: BinaryIO) -> dict[str, str]:
    """Read the text header; leave the file at its end."""
    fields: dict[str, str] = {}
    for _ in range(_MAX_LINES):
        key, found, value = file.readline(4096).decode("latin-1").partition("=")
        if not found or key.strip() in fields:
            break
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            return fields
    raise InputError(f"{str(path)!r} is not a MetaImage file, or its header is damaged: no ElementDataFile in it.")


def _first(fields: dict[str, str], names: tuple[str, ...]) -> str | None:
    return next((fields[name] for name in names if name in fields), None)


def _layout(path: Path, fields: dict[str, str], axes: Axes) -> tuple[tuple[int, int, int], np.dtype[Any]]:
    """Return the numbers of voxels (x, y, z) and the type of the stored values."""
    size = [int(n) for n in fields.get("DimSize", "").split()]
    if str(len(size)) != fields.get("NDims") or min(size, default=0) < 1:
        raise InputError(f"{str(path)!r} has impossible dimensions {size}: its header is damaged.")
    kind = fields.get("ElementType", "")
    if kind not in _DTYPES or fields.get("ElementNumberOfChannels", "1") != "1":
        raise InputError(f"{str(path)!r} holds colours, vectors or unknown values ({kind}), not real numbers.")
    if fields.get("BinaryData", "True") != "True" or fields.get("HeaderSize", "0") != "0":
        raise InputError(
            f"{str(path)!r} is a MetaImage as text or with a header of its own; voxray reads plain binary."
        )
    big = (_first(fields, _BIG_ENDIAN) or "False") == "True"
    return axes(path, size), np.dtype(_DTYPES[kind]).newbyteorder(">" if big else "<")


def _spacing(fields: dict[str, str]) -> npt.NDArray[np.float64]:
    return np.array([float(v) for v in (_first(fields, _SPACING) or "").split()])


def _affine(path: Path, fields: dict[str, str], assume_ras: bool) -> npt.NDArray[np.float64]:
    """Return the affine to LPS millimetres, or refuse a header that does not give one."""
    spacing = _spacing(fields)[:3]
    if spacing.shape != (3,) or not np.isfinite(spacing).all() or not spacing.min() > 0:
        raise InputError(f"{str(path)!r} has no voxel size, or an impossible one ({spacing.tolist()}).")
    turned = _first(fields, _ORIENTATION)
    if turned is None:
        return assumed_ras(path, spacing, "no TransformMatrix in its header", assume_ras)
    dimensions = int(fields["NDims"])
    matrix = np.array([float(v) for v in turned.split()]).reshape(dimensions, dimensions)
    affine = np.eye(4)
    affine[:3, :3] = matrix[:3, :3].T * spacing
    affine[:3, 3] = [float(v) for v in (_first(fields, _OFFSET) or "0 0 0").split()][:3]
    return affine
