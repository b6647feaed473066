"""Line integrals as arrays: NIfTI, MetaImage, NRRD."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from voxray.errors import InputError, VoxrayWarning
from voxray.geometry.placing import ViewTags
from voxray.images.ct_meta import read_meta_plane
from voxray.images.ct_nifti import read_nifti_plane
from voxray.images.ct_nrrd import read_nrrd_plane
from voxray.images.reading import reading
from voxray.images.types import Origin
from voxray.images.xray import XrayImage

# 1.5 m of water at 0.0193 per mm; what is higher was hardly meant as a line integral (our choice).
_HIGHEST = 30.0

Format = Literal["NIfTI", "MetaImage", "NRRD"]
_READERS: dict[Format, Callable[[Path], tuple[npt.NDArray[np.float32], tuple[float, float] | None]]] = {
    "NIfTI": read_nifti_plane, "MetaImage": read_meta_plane, "NRRD": read_nrrd_plane,
}  # fmt: skip


def read_line_integrals(path: Path, file_format: Format) -> XrayImage:
    """Read line integrals exactly as stored: row 0 of the array is row 0 of the image.

    Arrays of one image, [rows, columns] or [1, rows, columns]; directions and origins are ignored (a geometry file
    holds the pose), the spacing is that of the detector.

    Args:
        path: the file.
        file_format: what its content says that it is.

    Raises:
        InputError: if it is damaged or incomplete, not one image, too large, or has values that are not finite.
    """
    with reading(path):
        values, pixel_mm = _READERS[file_format](path)
    values = values[0]
    if not np.isfinite(values).all():
        raise InputError(f"{str(path)!r} has values that are not finite.")
    if values.max() > _HIGHEST:
        warnings.warn(
            f"{path.name} is read as line integrals, but goes up to {values.max():g}, and a body gives less than "
            f"{_HIGHEST:g}. Save grey values as PNG or DICOM.",
            VoxrayWarning,
            stacklevel=2,
        )
    aspect = pixel_mm[0] / pixel_mm[1] if pixel_mm else 1.0
    tags = ViewTags((values.shape[0], values.shape[1]), path.name, pixel_mm=pixel_mm, aspect=aspect)
    return XrayImage(torch.from_numpy(values), "line_integral", Origin(path), tags)
