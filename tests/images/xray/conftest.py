"""A small X-ray, asymmetric, and how it is written as DICOM."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

ROOT = "1.2.826.0.1.3680043.8.498."
MakeXray = Callable[..., Path]


@pytest.fixture
def small_xray() -> np.ndarray:
    """12 bits, bone high, (rows, columns) = (48, 40): a body between air, so that nothing looks inverted."""
    rng = np.random.default_rng(3)
    row, column = np.mgrid[:48, :40]
    image = 600 + 60 * row + 40 * (column > 23) + rng.integers(0, 200, (48, 40))
    image[10:30, 8:16] -= 400
    image[10:30, 24:32] -= 400
    return image.clip(0, 4095).astype(np.uint16)


@pytest.fixture
def make_xray(tmp_path: Path, small_xray: np.ndarray) -> MakeXray:
    """Write a DICOM X-ray: `make_xray("a.dcm", pixels, syntax=..., BitsStored=12, ViewPosition="PA")`."""

    def make(name: str = "x.dcm", pixels: np.ndarray | None = None, syntax: str = "", **tags: Any) -> Path:
        pixels = small_xray if pixels is None else pixels
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
        meta.MediaStorageSOPInstanceUID = f"{ROOT}1"
        ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        ds.SOPClassUID, ds.SOPInstanceUID = ComputedRadiographyImageStorage, f"{ROOT}1"
        ds.Modality, ds.PatientID, ds.StudyInstanceUID, ds.StudyDate = "CR", "P1", f"{ROOT}2", "20200102"
        ds.Rows, ds.Columns = pixels.shape[-2:]
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated = 8 * pixels.itemsize
        ds.BitsStored = tags.pop("BitsStored", min(12, ds.BitsAllocated))
        ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, int(pixels.dtype.kind == "i")
        if pixels.ndim == 3:
            ds.NumberOfFrames = len(pixels)
        ds.PixelData = pixels.tobytes()
        ds["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
        for key, value in tags.items():
            if value is None:
                delattr(ds, key)
            else:
                setattr(ds, key, value)
        if syntax:
            ds.compress(syntax)
        path = tmp_path / name
        ds.save_as(path, enforce_file_format=True)
        return path

    return make
