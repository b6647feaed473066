"""Small made-up CTs: an ellipse of a body with two lungs on a couch."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from voxray.data.options import PrepareOptions
from voxray.geometry import VolumeGrid
from voxray.images import CTVolume


def chest(
    spacing_mm: tuple[float, float, float] = (5.0, 5.0, 5.0), *, lungs: bool = True, couch_gap_mm: float = 0.0,
    origin_mm: tuple[float, float, float] = (-30.0, 120.0, -400.0), front_mm: float = 20.0,
) -> tuple[CTVolume, np.ndarray]:  # fmt: skip
    """Return a CT of 400 x 300 x 300 mm, and where the body is; the couch is a shell of 5 mm below it."""
    shape = tuple(round(mm / step) for mm, step in zip((300, 300, 400), spacing_mm[::-1], strict=True))
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = origin_mm
    grid = VolumeGrid((shape[0], shape[1], shape[2]), affine)
    k, j, i = np.indices(shape)
    x, y, z = i * spacing_mm[0] - 200, j * spacing_mm[1] - 120, k * spacing_mm[2] - 150
    body = (x / 160) ** 2 + (y / 100) ** 2 <= 1
    hu = np.where(body, 40.0, -1000.0)
    hu[(np.abs(y - 100 - couch_gap_mm - 3) <= 3) & (np.abs(x) < 190)] = 100
    hu[(np.abs(y - 100 - couch_gap_mm - 28) <= 3) & (np.abs(x) < 190)] = 100
    if lungs:
        within = (x / 140) ** 2 + ((y + 20 - front_mm) / 80) ** 2 + ((z - 20) / 110) ** 2 <= 1
        hu[within & (np.abs(x) > 15)] = -850
    return CTVolume(torch.from_numpy(hu), grid), body


def save(volume: CTVolume, path: Path) -> Path:
    image = sitk.GetImageFromArray(volume.hu.numpy().astype(np.int16))
    image.SetSpacing(volume.grid.spacing_mm.tolist())
    image.SetOrigin(volume.grid.origin_mm.tolist())
    image.SetDirection(volume.grid.direction.ravel().tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


def save_dicom(
    volume: CTVolume, folder: Path, *, patient: str, modality: str = "CT", slices: int | None = None
) -> Path:
    """Write an axial series as it comes from a scanner: a file a slice."""
    folder.mkdir(parents=True, exist_ok=True)
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    hu = volume.hu.numpy()[:slices].round().astype(np.int16)
    sx, sy, _ = volume.grid.spacing_mm
    for k, image in enumerate(hu):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = CTImageStorage if modality == "CT" else DigitalXRayImageStorageForPresentation
        meta.MediaStorageSOPInstanceUID = generate_uid()
        ds = Dataset()
        ds.file_meta = meta
        ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.FrameOfReferenceUID = series, study, frame
        ds.Modality, ds.PatientID, ds.PatientName, ds.ImageType = (
            modality,
            patient,
            patient,
            ["ORIGINAL", "PRIMARY", "AXIAL"],
        )
        ds.Rows, ds.Columns = image.shape
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit, ds.PixelRepresentation = 15, 1
        ds.PixelSpacing = [float(sy), float(sx)]
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient = [round(float(mm), 4) for mm in volume.grid.index_to_mm((0, 0, k))]
        ds.InstanceNumber, ds.SliceThickness = k + 1, float(volume.grid.spacing_mm[2])
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, 0, "HU"
        ds.PixelData = image.tobytes()
        ds.save_as(folder / f"{k + 1:03}.dcm", enforce_file_format=True)
    return folder


def small(**changes: object) -> PrepareOptions:
    """Return options for a cube of 32^3 voxels, made in this process."""
    options = {"shape": (32, 32, 32), "spacing_mm": 10.0, "workers": 1} | changes
    return PrepareOptions(**options)  # type: ignore[arg-type]
