"""The pixels of CT slices, decoded and in Hounsfield units."""

import os
import struct
import tempfile
import warnings
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import SimpleITK as sitk  # noqa: N813
from jaxtyping import Float32
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder
from pydicom.uid import UID, ImplicitVRLittleEndian

from voxray.errors import InputError, VoxrayWarning
from voxray.images.ct_slices import Slice
from voxray.images.ct_sources import Source
from voxray.images.reading import check_voxels, reading

# SimpleITK (GDCM) decodes lossless JPEG, the most frequent compression of CT, for which pydicom needs a GPL package.
_LEFT_TO_SIMPLEITK = {"1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"}


def read_pixels(path: Path, slices: list[Slice], force_modality: bool = False) -> Float32[np.ndarray, "z y x"]:
    """Decode slices of one size into a volume in their order; HU = slope * stored + intercept, slice by slice.

    PixelPaddingValue is not looked at (it is often wrong, and 0 HU is water); padding is low, and is clamped later.

    Raises:
        InputError: if pixels are missing, damaged, or compressed in a way that nothing here decodes, or a
            slice has no rescale slope and intercept (`force_modality` takes the stored values instead).
        ResourceError: if there are more voxels than `reading.MAX_VOXELS`.
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
    elif syntax in _LEFT_TO_SIMPLEITK and int(dataset.get("NumberOfFrames") or 1) == 1:
        _check_jpeg(source, dataset)
        pixels = _decoded_by_simpleitk(dataset)
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


def _check_jpeg(source: Source, dataset: pydicom.FileDataset) -> None:
    """Check the frame header of a lossless JPEG (ITU-T T.81, B.2.2): GDCM dies of one with more than 16 bits."""
    (stream,) = generate_frames(dataset.PixelData, number_of_frames=1)
    place = 2
    while stream[place : place + 2] not in (b"\xff\xc3", b""):  # segment by segment to the lossless SOF
        place += 2 + int.from_bytes(stream[place + 2 : place + 4], "big")
    bits, rows, columns, components = struct.unpack(">BHHB", stream[place + 4 : place + 10])
    if (rows, columns, components) != (dataset.Rows, dataset.Columns, 1) or bits > dataset.BitsAllocated:
        raise InputError(
            f"{source.label!r} holds a JPEG of {rows} x {columns} pixels, {components} components and {bits} bits, not "
            "what its header says: it is damaged."
        )


def _decoded_by_simpleitk(dataset: pydicom.FileDataset) -> npt.NDArray[Any]:
    """Return the stored values of a dataset of one frame, from a copy without its rescaling."""
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "slice.dcm")
        dataset.save_as(copy)
        return np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(str(copy), imageIO="GDCMImageIO")))
