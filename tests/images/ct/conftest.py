"""A small CT, oblique, anisotropic and asymmetric, and how it is written as DICOM."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from scipy.spatial.transform import Rotation

ROOT = "1.2.826.0.1.3680043.8.498."


@dataclass
class SmallCT:
    """Stored values (z, y, x) = HU + 1024, and the affine to LPS millimetres."""

    stored: np.ndarray
    affine: np.ndarray

    @property
    def hu(self) -> np.ndarray:
        return self.stored.astype(np.float32) - 1024

    @property
    def affine_ras(self) -> np.ndarray:
        return np.diag([-1.0, -1, 1, 1]) @ self.affine


@pytest.fixture
def small_ct() -> SmallCT:
    rng = np.random.default_rng(5)
    shape = (12, 34, 40)
    z, y, x = np.meshgrid(*map(np.arange, shape), indexing="ij")
    stored = np.where((x - 17) ** 2 / 196 + (y - 18) ** 2 / 144 + (z - 6) ** 2 / 36 < 1, 1064, 24)
    stored[2:5, 3:9, 4:8] = 2000  # in no middle
    stored = stored + rng.integers(-20, 20, shape)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("zyx", (12, -8, 20), degrees=True).as_matrix() * (1.5, 1.25, 2.5)
    affine[:3, 3] = (-31.25, 17.5, -420.125)
    return SmallCT(stored.astype(np.int16), affine)


def slice_dataset(ct: SmallCT, k: int) -> FileDataset:
    """Return slice k as a DICOM dataset."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = f"{ROOT}1.{k + 1}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID = f"{ROOT}2", f"{ROOT}3"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.Modality, ds.SeriesDescription, ds.StudyDate = "CT", "small", "20200102"
    ds.PatientID, ds.PatientName, ds.InstanceNumber = "P1", "Doe^Jane", k + 1
    spacing = np.linalg.norm(ct.affine[:3, :3], axis=0)
    ds.ImagePositionPatient = [float(f"{v:.8g}") for v in ct.affine[:3] @ (0, 0, k, 1)]
    ds.ImageOrientationPatient = [float(f"{v:.8g}") for v in (ct.affine[:3, :2] / spacing[:2]).T.ravel()]
    ds.PixelSpacing = [spacing[1], spacing[0]]
    ds.Rows, ds.Columns = ct.stored.shape[1:]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, -1024, "HU"
    ds.PixelData = ct.stored[k].tobytes()
    return ds


@pytest.fixture
def datasets(small_ct: SmallCT) -> list[FileDataset]:
    """One dataset a slice, to be changed and saved."""
    return [slice_dataset(small_ct, k) for k in range(len(small_ct.stored))]


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Write datasets as files into a new folder, in the order given."""

    def write(datasets: Iterable[pydicom.Dataset], folder: str = "series", **options: Any) -> Path:
        out = tmp_path / folder
        out.mkdir(parents=True, exist_ok=True)
        for index, ds in enumerate(datasets):
            ds.save_as(out / f"{index:03d}.dcm", **options)
        return out

    return write
