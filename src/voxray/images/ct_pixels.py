"""The pixels of CT slices, decoded and in Hounsfield units."""

import os
import warnings
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from jaxtyping import Float32
from pydicom.pixels import get_decoder
from pydicom.uid import UID, ImplicitVRLittleEndian

from voxray.errors import InputError, VoxrayWarning
from voxray.images.ct_slices import Slice
from voxray.images.ct_sources import Source
from voxray.images.gdcm import BY_GDCM, decode
from voxray.images.reading import check_voxels, reading


def read_pixels(path: Path, slices: list[Slice], force_modality: bool = False) -> Float32[np.ndarray, "z y x"]:
    """Decode slices of one size into a volume in their order; HU = slope * stored + intercept, slice by slice.

    PixelPaddingValue is not looked at (it is often wrong, and 0 HU is water); padding is low, and is clamped later.

    Raises:
        InputError: if there are too many voxels, pixels are missing, damaged, or compressed in a way that nothing here
            decodes, or a slice has no rescale slope and intercept (`force_modality` takes the stored values instead).
    """
    rows, columns = slices[0].shape
    check_voxels(path, len(slices) * rows * columns)
    scales = _scales(slices, force_modality)
    places: dict[Source, list[int]] = defaultdict(list)
    for index, one in enumerate(slices):
        places[one.source].append(index)
    volume = np.empty((len(slices), rows, columns), dtype=np.float32)

    def fill(source: Source) -> None:
        with reading(source.label):
            frames = _stored(source, slices[places[source][0]].shape)
            for index in places[source]:
                slope, intercept = scales[index]
                volume[index] = frames[slices[index].frame]
                volume[index] *= np.float32(slope)
                volume[index] += np.float32(intercept)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for _ in pool.map(fill, places):
            pass
    return volume


def _scales(slices: list[Slice], force_modality: bool) -> list[tuple[float, float]]:
    """Return slope and intercept of each slice."""
    without = [s for s in slices if s.slope is None or s.intercept is None or s.slope == 0]
    if without and not force_modality:
        raise InputError(
            f"{without[0]} has no usable RescaleSlope and RescaleIntercept: its values cannot be turned into HU."
        )
    if without:
        message = f"{len(without)} slices have no rescale slope and intercept; the stored values are taken for HU."
        warnings.warn(message, VoxrayWarning, stacklevel=5)
    return [(s.slope or 1.0, s.intercept or 0.0) for s in slices]


def _stored(source: Source, shape: tuple[int, int]) -> npt.NDArray[Any]:
    """Return the stored values of all frames of a file, (frames, rows, columns)."""
    with source.open() as file:
        dataset = pydicom.dcmread(file, force=True)
    if "PixelData" not in dataset:
        raise InputError(f"{source.label!r} has no pixel data: it is damaged or truncated.")
    if not dataset.file_meta.get("TransferSyntaxUID"):
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian  # DICOM without file meta; its default
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    if _decodable(syntax):
        pixels = dataset.pixel_array
    elif syntax in BY_GDCM:
        pixels = decode(source.label, dataset)
    else:
        raise InputError(
            f"{source.label!r} is compressed as {syntax.name!r}, which voxray cannot decode here. Install "
            "voxray[jpeg-lossless] if it is JPEG, or decompress the files first (gdcmconv --raw, dcmdjpeg)."
        )
    pixels = pixels.reshape(-1, *pixels.shape[-2:])
    if pixels.shape[1:] != shape:
        raise InputError(f"{source.label!r} decodes to {pixels.shape[1:]} pixels, but its header says {shape}.")
    return np.asarray(pixels)


def _decodable(syntax: UID) -> bool:
    """Tell whether pydicom, with what is installed, decodes a transfer syntax."""
    try:
        return get_decoder(syntax).is_available
    except NotImplementedError:
        return False
