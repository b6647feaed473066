"""CT volumes from DICOM, NIfTI, NRRD and MetaImage files."""

from pathlib import Path

import numpy as np
import torch

from voxray.errors import InputError
from voxray.geometry import VolumeGrid
from voxray.images.ct_meta import read_meta
from voxray.images.ct_nifti import read_nifti
from voxray.images.ct_nrrd import read_nrrd
from voxray.images.ct_pixels import read_pixels
from voxray.images.ct_plausible import plausible_grid, plausible_hu
from voxray.images.ct_series import SeriesInfo, choose, describe, series_of
from voxray.images.ct_sources import Header, open_sources, quiet_pydicom, read_headers
from voxray.images.ct_stack import in_order, stack_affine, upright
from voxray.images.reading import check_file, check_voxels, reading
from voxray.images.types import CTVolume, Origin

_READERS = {
    ".nii": read_nifti, ".nii.gz": read_nifti, ".nrrd": read_nrrd, ".nhdr": read_nrrd, ".mha": read_meta,
    ".mhd": read_meta,
}  # fmt: skip
CT_FORMATS = "a DICOM folder or a zip of one, .nii, .nii.gz, .nrrd, .nhdr, .mha or .mhd"


def read_ct(
    path: Path,
    *,
    series: str | None = None,
    assume_ras: bool = False,
    resample_tilt: bool = False,
    force_modality: bool = False,
) -> CTVolume:
    """Read a CT volume in Hounsfield units on its grid in patient LPS millimetres.

    Every assumption is said as a `VoxrayWarning`: padding below -1024 HU that was clamped, values that do not look
    like HU, localizers that were left out.

    Args:
        path: a DICOM folder (searched with its subfolders), a zip of one, a multi-frame DICOM file, or a NIfTI,
            NRRD or MetaImage file.
        series: SeriesInstanceUID, where `path` holds several.
        assume_ras: take a NIfTI, NRRD or MetaImage file without orientation for one whose axes run to the right,
            front and head.
        resample_tilt: resample a series that was taken with a tilted gantry.
        force_modality: read a DICOM series of another modality than CT.

    Raises:
        InputError: if `path` is not one whole, plausible CT; the message names the file and what to do.
    """
    path = Path(path)
    read = next((read for suffix, read in _READERS.items() if path.name.lower().endswith(suffix)), None)
    if read is None or path.is_dir():
        return _read_dicom(path, series, resample_tilt, force_modality)
    if series is not None:
        raise InputError(f"{str(path)!r} holds one volume; a series (--series) is chosen from DICOM only.")
    check_file(path)
    with reading(path):
        hu, affine = read(path, assume_ras)
    return _volume(path, hu, plausible_grid(path, hu.shape, affine), Origin(path))


def list_series(path: Path) -> list[SeriesInfo]:
    """List the image series of a DICOM folder, zip or file, in the order of their first file.

    Raises:
        InputError: if there are none, or a file is damaged.
    """
    path = Path(path)
    with quiet_pydicom(), open_sources(path) as sources:
        series = series_of(read_headers(sources))
    if not series:
        raise InputError(f"{str(path)!r} holds no DICOM images; a CT is {CT_FORMATS}.")
    return [describe(uid, headers) for uid, headers in series.items()]


def _read_dicom(path: Path, series: str | None, resample_tilt: bool, force_modality: bool) -> CTVolume:
    with quiet_pydicom(), open_sources(path) as sources:
        headers = read_headers(sources)
        if not headers:
            raise InputError(f"{str(path)!r} is no CT that voxray reads: {CT_FORMATS}.")
        slices, chosen = choose(path, headers, series, force_modality)
        if len(slices) == 1 and len(sources) == 1 and path.is_file():
            raise InputError(f"{str(path)!r} is a single slice; give the folder that holds all slices of the series.")
        slices = in_order(path, slices)
        affine, shifts = stack_affine(path, slices, resample_tilt)
        shape = (len(slices), *slices[0].shape)
        check_voxels(path, int(np.prod(shape, dtype=object)))
        grid = plausible_grid(path, shape, affine)
        with reading(path):
            hu = read_pixels(path, slices, force_modality)
            if shifts.any():
                hu, affine = upright(hu, affine, shifts)
                grid = plausible_grid(path, hu.shape, affine)
        origin = _origin(path, chosen[0])
    return _volume(path, hu, grid, origin)


def _volume(path: Path, hu: np.ndarray, grid: VolumeGrid, origin: Origin) -> CTVolume:
    plausible_hu(path, hu)
    with reading(path):
        return CTVolume(torch.from_numpy(hu), grid, origin)


def _origin(path: Path, header: Header) -> Origin:
    return Origin(
        path, header.text("SOPClassUID"), header.text("SOPInstanceUID"), header.text("StudyInstanceUID"),
        header.text("PatientID"), header.text("PatientName"), header.text("StudyDate"),
    )  # fmt: skip
