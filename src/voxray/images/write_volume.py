"""Write a CT volume as NIfTI, NRRD or MHA."""

from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813

from voxray.errors import InputError, ResourceError
from voxray.images.atomic import atomic_path, refuse_existing
from voxray.images.disclaimer import SYNTHETIC, made_by
from voxray.images.types import CTVolume

FORMATS = (".nii.gz", ".nii", ".nrrd", ".mha")

# ITK copies ITK_FileNotes into NIfTI's field `descrip` (79 characters); NRRD and MHA keep any key as it is.
_NOTE = {".nii.gz": "ITK_FileNotes", ".nii": "ITK_FileNotes", ".nrrd": "Description", ".mha": "Description"}


def write_volume(
    volume: CTVolume,
    path: Path,
    *,
    dtype: Literal["int16", "float32"] = "int16",
    overwrite: bool = False,
) -> None:
    """Write `volume` in Hounsfield units; the ending of `path` chooses the format.

    NRRD and MHA keep the grid in double precision; NIfTI has single precision, some 1e-5 mm for a body.
    The description says that the volume is synthetic. ITK does not notice a full disk when it writes NIfTI,
    so the file is read back and compared before it takes its name.

    Args:
        volume: what to write.
        path: a file that ends in .nii.gz, .nii, .nrrd or .mha.
        dtype: `int16` rounds to whole HU (and clips at -32768 and 32767, beyond anything in a body);
            `float32` keeps the values as they are.
        overwrite: replace a file that exists already.

    Raises:
        InputError: if the ending or `dtype` is none of these, the file exists, or its folder cannot be used.
        ResourceError: if the disk is full.
    """
    path = Path(path)
    suffix = next((suffix for suffix in FORMATS if path.name.endswith(suffix)), None)
    if suffix is None:
        raise InputError(f"'{path}' has no ending that says its format; it is one of {', '.join(FORMATS)}.")
    refuse_existing(path, overwrite)
    image = _to_sitk(volume, dtype)
    image.SetMetaData(_NOTE[suffix], f"{SYNTHETIC}. Made by {made_by()}")
    with atomic_path(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=suffix != ".nii")
            whole = _same(image, sitk.ReadImage(str(temporary)))
        except RuntimeError:
            whole = False
        if not whole:
            raise ResourceError(f"'{path}' could not be written whole: is the disk full? Nothing was changed.")


def _to_sitk(volume: CTVolume, dtype: str) -> sitk.Image:
    array = volume.hu.detach().cpu().numpy()
    if dtype == "int16":
        array = np.clip(np.rint(array), -32768, 32767).astype(np.int16)
    elif dtype != "float32":
        raise InputError(f"A volume is written as 'int16' or 'float32', not {dtype!r}.")
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(volume.grid.spacing_mm.tolist())
    image.SetOrigin(volume.grid.origin_mm.tolist())
    image.SetDirection(volume.grid.direction.ravel().tolist())
    return image


def _same(image: sitk.Image, other: sitk.Image) -> bool:
    return image.GetSize() == other.GetSize() and np.array_equal(
        sitk.GetArrayViewFromImage(image), sitk.GetArrayViewFromImage(other)
    )
