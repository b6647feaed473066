"""Lossless and 12-bit JPEG in DICOM: pydicom has no plugin under a permissive licence; GDCM, in SimpleITK, decodes."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.uid import JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1

from voxray.errors import InputError

BY_GDCM = (JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1)
_PIXEL_MODULE = (
    "Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "NumberOfFrames", "PixelData",
)  # fmt: skip
_FRAME_HEADERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15 (ITU-T T.81, table B.1)


def decode(label: str, dataset: Dataset) -> npt.NDArray[Any]:
    """Decode all frames into their stored values, (frames, rows, columns); call it inside `reading`.

    SimpleITK would invert MONOCHROME1 and apply a rescale without saying so; it is given a bare copy of the pixels
    that says MONOCHROME2, so that the stored values come back. Nothing about the patient reaches the disk.

    Args:
        label: the file, for messages.
        dataset: of a transfer syntax in `BY_GDCM`.

    Raises:
        InputError: if a frame is not what the tags say.
    """
    bare = Dataset()
    bare.file_meta = FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    bare.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"  # secondary capture
    bare.SOPInstanceUID = "2.25.1"
    bare.PhotometricInterpretation = "MONOCHROME2"
    for keyword in _PIXEL_MODULE:
        if keyword in dataset:
            bare[keyword] = dataset[keyword]
    for frame in generate_frames(bare.PixelData, number_of_frames=int(bare.get("NumberOfFrames") or 1)):
        _check_jpeg(label, dataset, frame)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pixels.dcm"
        bare.save_as(path, enforce_file_format=True)
        pixels = np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="GDCMImageIO")))
    return pixels.reshape(-1, int(dataset.Rows), int(dataset.Columns))


def _check_jpeg(label: str, dataset: Dataset, stream: bytes) -> None:
    """Check the frame header of a JPEG (ITU-T T.81, B.2.2): GDCM ends the process at one with more than 16 bits."""
    place = 2
    while stream[place : place + 1] == b"\xff" and stream[place + 1] not in _FRAME_HEADERS:  # segment by segment
        fill = stream[place + 1] == 0xFF
        place += 1 if fill else 2 + max(2, int.from_bytes(stream[place + 2 : place + 4], "big"))
    if stream[:2] != b"\xff\xd8" or stream[place : place + 1] != b"\xff" or len(stream) < place + 10:
        raise InputError(f"{label!r} holds a JPEG without a frame header: it is damaged.")
    bits = stream[place + 4]
    rows, columns = (int.from_bytes(stream[i : i + 2], "big") for i in (place + 5, place + 7))
    components = stream[place + 9]
    if (rows, columns, components) != (dataset.Rows, dataset.Columns, 1) or bits > min(16, dataset.BitsAllocated):
        raise InputError(
            f"{label!r} holds a JPEG of {rows} x {columns} pixels, {components} components and {bits} bits, not "
            "what its header says: it is damaged."
        )
