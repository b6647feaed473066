"""Line integrals as arrays: NIfTI, MetaImage, NRRD."""

import re
import warnings
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch

from voxray.errors import InputError, VoxrayWarning
from voxray.geometry.placing import ViewTags
from voxray.images.ct_nifti import read_nifti
from voxray.images.reading import check_pixels, reading
from voxray.images.types import Origin
from voxray.images.xray import XrayImage

# 1.5 m of water at 0.0193 per mm; what is higher was hardly meant as a line integral (our choice).
_HIGHEST = 30.0
_HEADER_BYTES = 1 << 16
_DATA_FILE = re.compile(r"^\s*(?:elementdatafile\s*=|data ?file:)\s*(.+?)\s*$", re.IGNORECASE | re.MULTILINE)


def read_line_integrals(path: Path, image_io: str) -> XrayImage:
    """Read line integrals exactly as stored: row 0 of the array is row 0 of the image.

    Arrays of one image, [rows, columns] or [1, rows, columns]; directions and origins are ignored (a geometry file
    holds the pose), the spacing is that of the detector.

    Args:
        path: the file.
        image_io: "NiftiImageIO", "MetaImageIO" or "NrrdImageIO".

    Raises:
        InputError: if it is damaged or incomplete, not one image, or has values that are not finite.
        ResourceError: if it has too many pixels.
    """
    with reading(path):
        if image_io == "NiftiImageIO":
            values, affine = read_nifti(path, assume_ras=True)
            spacing = np.linalg.norm(affine[:3, :3], axis=0)
        else:
            values, spacing = _read_itk(path, image_io)
    if any(n != 1 for n in values.shape[:-2]):
        raise InputError(
            f"{str(path)!r} has the shape {values.shape}; the line integrals of one view have [rows, columns] or "
            "[1, rows, columns]. (Is it a CT? Or one file with several views? Save one file a view.)"
        )
    rows, columns = values.shape[-2:]
    values = values.reshape(rows, columns)
    if not np.isfinite(values).all():
        raise InputError(f"{str(path)!r} has values that are not finite.")
    if values.max() > _HIGHEST:
        warnings.warn(
            f"{path.name} is read as line integrals, but goes up to {values.max():g}, and a body gives less than "
            f"{_HIGHEST:g}. Save grey values as PNG or DICOM.",
            VoxrayWarning,
            stacklevel=2,
        )
    pixel_mm = (float(spacing[1]), float(spacing[0]))
    tags = ViewTags((rows, columns), path.name, pixel_mm=pixel_mm, aspect=pixel_mm[0] / pixel_mm[1])
    return XrayImage(torch.from_numpy(values), "line_integral", Origin(path), tags)


def _read_itk(path: Path, image_io: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the values (float32, axes reversed to (..., rows, columns)) and the spacing (columns first)."""
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES).decode("latin-1")
    for name in _DATA_FILE.findall(header):
        if name.upper() != "LOCAL" and (re.search(r"[\\/%\s]", name) or name.upper() == "LIST"):
            raise InputError(f"{str(path)!r} points to another file, {name!r}; only one beside it is read.")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(image_io)
    reader.ReadImageInformation()
    check_pixels(path, int(np.prod(reader.GetSize(), dtype=object)))
    if reader.GetNumberOfComponents() != 1 or "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID()):
        raise InputError(f"{str(path)!r} holds colours, vectors or complex numbers, not line integrals.")
    reader.SetOutputPixelType(sitk.sitkFloat32)
    return sitk.GetArrayFromImage(reader.Execute()), np.array(reader.GetSpacing())
