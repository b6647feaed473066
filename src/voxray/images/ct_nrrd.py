"""NRRD volumes, through SimpleITK."""

import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813
from jaxtyping import Float32

from voxray.errors import InputError
from voxray.images.ct_plausible import assumed_ras, three_axes
from voxray.images.reading import check_voxels

_SPACES = {"left-posterior-superior", "right-anterior-superior", "left-anterior-superior", "lps", "ras", "las"}
_SPACING = {"space directions", "spacings"}
_MAX_LINES = 10_000


def read_nrrd(path: Path, assume_ras: bool = False) -> tuple[Float32[np.ndarray, "z y x"], npt.NDArray[np.float64]]:
    """Read a .nrrd, or a .nhdr with its data in the same folder; call it inside `reading`.

    Args:
        path: the file.
        assume_ras: where the header has no patient space: take the axes for right, anterior, superior, and the
            first voxel for 0. (ITK takes such a file for LPS without a word.)

    Returns:
        The values, axes (z, y, x), and the affine to LPS millimetres.

    Raises:
        InputError: if the file is no 3D volume of real numbers, or has no voxel size or orientation.
        ResourceError: if it holds more voxels than `reading.MAX_VOXELS`.
    """
    fields = _fields(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("NrrdImageIO")  # a PNG called .nrrd is not read as a picture
    reader.ReadImageInformation()
    size = reader.GetSize()
    if reader.GetNumberOfComponents() != 1 or reader.GetPixelID() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        raise InputError(f"{str(path)!r} holds colours, vectors or complex numbers, not HU.")
    columns, rows, slices = three_axes(path, size)
    check_voxels(path, columns * rows * slices)
    affine = _affine(path, reader, fields, assume_ras)
    reader.SetOutputPixelType(sitk.sitkFloat32)
    values = sitk.GetArrayFromImage(reader.Execute())
    return values.reshape(values.shape[-3:]), affine


def _affine(
    path: Path, reader: sitk.ImageFileReader, fields: dict[str, str], assume_ras: bool
) -> npt.NDArray[np.float64]:
    """Return the affine to LPS millimetres, or refuse a header that does not give one (ITK makes one up)."""
    dimension = reader.GetDimension()
    spacing = np.array(reader.GetSpacing()[:3])
    if not fields.keys() & _SPACING or not spacing.min() > 0:
        raise InputError(f"{str(path)!r} has no voxel size, or an impossible one ({spacing.tolist()}).")
    if fields.get("space") not in _SPACES:
        return assumed_ras(path, spacing, "no patient 'space' in its header", assume_ras)
    affine = np.eye(4)
    direction = np.array(reader.GetDirection()).reshape(dimension, dimension)[:3, :3]
    affine[:3, :3] = direction * spacing
    affine[:3, 3] = reader.GetOrigin()[:3]
    return affine


def _fields(path: Path) -> dict[str, str]:
    """Return the fields of the text header (it ends at an empty line), in lower case.

    Raises:
        InputError: if the data are not in one file of the same folder: a header must not reach for any file it likes.
    """
    fields = {}
    with path.open("rb") as file:
        for line in itertools.islice(iter(lambda: file.readline(4096), b""), _MAX_LINES):
            if not line.strip():
                break
            key, _, value = (part.strip() for part in line.decode("latin-1").lower().partition(":"))
            fields[key] = value
            if key in ("data file", "datafile") and (
                "/" in value.removeprefix("./") or "%" in value or "list" in value
            ):
                raise InputError(f"{str(path)!r} has its data in {value!r}; voxray reads them from one file beside it.")
    return fields
