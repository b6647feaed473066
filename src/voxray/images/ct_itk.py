"""NRRD and MetaImage volumes, through SimpleITK."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813
from jaxtyping import Float32

from voxray.errors import InputError
from voxray.images.reading import check_voxels

# Suffix -> reader. Naming the reader keeps a PNG called .mha from being read as a picture.
ITK_READERS = {".nrrd": "NrrdImageIO", ".nhdr": "NrrdImageIO", ".mha": "MetaImageIO", ".mhd": "MetaImageIO"}

# What MetaImage calls the orientation, and the voxel size (MetaIO, MetaImage format specification).
_META_ORIENTATION = {"transformmatrix", "rotation", "orientation"}
_META_SPACING = {"elementspacing", "elementsize"}
_NRRD_SPACES = {"left-posterior-superior", "right-anterior-superior", "left-anterior-superior"}
_HEADER_BYTES = 1 << 16


def read_itk(path: Path, assume_ras: bool = False) -> tuple[Float32[np.ndarray, "z y x"], npt.NDArray[np.float64]]:
    """Read a .nrrd, .nhdr, .mha or .mhd; call it inside `reading`.

    Args:
        path: the file, of a suffix in `ITK_READERS`.
        assume_ras: where the header has no orientation: take the axes for right, anterior, superior, and the first
            voxel for 0. (ITK takes such a file for LPS without a word.)

    Returns:
        The values, axes (z, y, x), and the affine to LPS millimetres.

    Raises:
        InputError: if the file is no 3D volume of real numbers, or has no voxel size or orientation.
        ResourceError: if it holds more voxels than `reading.MAX_VOXELS`.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(ITK_READERS[path.suffix.lower()])
    reader.ReadImageInformation()
    size = reader.GetSize()
    if reader.GetNumberOfComponents() != 1 or reader.GetPixelID() in (
        sitk.sitkComplexFloat32,
        sitk.sitkComplexFloat64,
    ):
        raise InputError(f"{str(path)!r} holds colours, vectors or complex numbers, not HU.")
    if len(size) < 3 or max(size[3:], default=1) > 1:
        raise InputError(
            f"{str(path)!r} has {len(size)} dimensions ({' x '.join(map(str, size))}); a CT has 3. Save one of its "
            "volumes as a file."
        )
    check_voxels(path, int(np.prod(size[:3], dtype=object)))
    affine = _affine(path, reader, assume_ras)
    reader.SetOutputPixelType(sitk.sitkFloat32)
    values = sitk.GetArrayFromImage(reader.Execute())
    return values.reshape(values.shape[-3:]), affine


def _affine(path: Path, reader: sitk.ImageFileReader, assume_ras: bool) -> npt.NDArray[np.float64]:
    """Return the affine to LPS millimetres, or refuse a header that does not give one."""
    dimension = reader.GetDimension()
    spacing = np.array(reader.GetSpacing()[:3])
    oriented, spaced = _what_the_header_says(path, reader)
    if not spaced or not spacing.min() > 0:
        raise InputError(f"{str(path)!r} has no voxel size, or an impossible one ({spacing.tolist()}).")
    affine = np.eye(4)
    if oriented:
        direction = np.array(reader.GetDirection()).reshape(dimension, dimension)[:3, :3]
        affine[:3, :3] = direction * spacing
        affine[:3, 3] = reader.GetOrigin()[:3]
    elif assume_ras:
        affine[:3, :3] = np.diag(spacing * (-1, -1, 1))
    else:
        raise InputError(
            f"{str(path)!r} does not say how the patient lies in it (no 'space' or 'TransformMatrix' in its "
            "header). If its axes run to the right, front and head, read it with --assume-ras."
        )
    return affine


def _what_the_header_says(path: Path, reader: sitk.ImageFileReader) -> tuple[bool, bool]:
    """Tell whether the header gives an orientation, and a voxel size: ITK puts defaults in their place."""
    with path.open("rb") as file:
        lines = file.read(_HEADER_BYTES).decode("latin-1").lower().splitlines()
    if ITK_READERS[path.suffix.lower()] == "MetaImageIO":
        keys = {line.partition("=")[0].strip() for line in lines}
        return bool(keys & _META_ORIENTATION), bool(keys & _META_SPACING)
    keys = {line.partition(":")[0].strip() for line in lines}
    space = reader.GetMetaData("NRRD_space") if reader.HasMetaDataKey("NRRD_space") else ""
    return space in _NRRD_SPACES, bool(keys & {"space directions", "spacings"})
