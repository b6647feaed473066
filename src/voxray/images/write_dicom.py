"""Write a CT volume as a DICOM CT series that says of itself that it is synthetic."""

import secrets
from collections.abc import Iterable
from datetime import datetime
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import format_number_as_ds
from torch import Tensor

from voxray.geometry import VolumeGrid
from voxray.images.atomic import atomic_folder, refuse_existing
from voxray.images.disclaimer import DISCLAIMER, SYNTHETIC, made_by
from voxray.images.types import CTVolume, Origin, Radiograph

_FILES = "synthetic_*.dcm"


def write_dicom_series(
    volume: CTVolume,
    folder: Path,
    *,
    radiograph: Radiograph | None = None,
    keep_phi: bool = False,
    overwrite: bool = False,
    description: str = "",
) -> None:
    """Write `volume` as one file a slice of CT Image Storage (PS3.3 A.3), `folder/synthetic_0001.dcm`, ...

    A slice is a plane of the array's x and y axes. Slices are numbered along their normal (PS3.3
    C.7.6.2.1.1), as readers sort them; an oblique or flipped grid keeps its place. Stored values are
    HU + 1024 in 16 bits; what lies outside is clipped (nothing in a body is rarer than air).

    All UIDs are new (2.25, from a random UUID), and so is the frame of reference: a result is in the space of
    the assumed X-ray geometry, not in that of a former CT. The patient's position is not known from a volume;
    `HFS` is ours, and changes no coordinate.

    Args:
        volume: what to write, in HU.
        folder: new or empty; its parent must exist.
        radiograph: the X-rays that the volume comes from. Those with a SOP instance UID are referred to in
            SourceImageSequence; their UIDs name the patient only to somebody who has the originals.
        keep_phi: copy name and ID of the patient, the study and its date. Otherwise they are replaced, by
            another patient each time.
        overwrite: replace a series that voxray wrote (a folder that holds anything else is refused).
        description: what SeriesDescription says after "SYNTHETIC - NOT FOR DIAGNOSIS", cut at 64 characters.

    Raises:
        InputError: if the folder is not empty, or cannot be used.
        ResourceError: if the disk is full.
    """
    refuse_existing(folder, overwrite)
    origins = radiograph.origins if radiograph is not None else ()
    series = Dataset()
    series.file_meta = FileMetaDataset()
    series.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    series.SpecificCharacterSet = "ISO_IR 192"
    _add_patient_and_study(series, origins[0] if keep_phi and origins else None)
    _add_series(series, description)
    _add_image(series, origins)
    _add_pixel_format(series, volume.grid)
    to_right, to_feet, normal = _axes(volume.grid)
    series.ImageOrientationPatient = _decimal([*to_right, *to_feet])
    numbers = range(volume.grid.shape[0])
    if volume.grid.direction[:, 2] @ normal < 0:
        numbers = numbers[::-1]
    with atomic_folder(folder, replaces=_FILES) as temporary:
        for instance, number in enumerate(numbers, start=1):
            series.SOPInstanceUID = generate_uid(prefix=None)
            series.InstanceNumber = instance
            series.ImagePositionPatient = _decimal(volume.grid.index_to_mm((0, 0, number)))
            series.PixelData = _stored(volume.hu[number])
            _save(series, temporary / _FILES.replace("*", f"{instance:04d}"))


def _add_patient_and_study(series: Dataset, origin: Origin | None) -> None:
    now, someone = datetime.now(), secrets.token_hex(4).upper()
    series.PatientName = (origin and origin.patient_name) or f"SYNTHETIC^{someone}"
    series.PatientID = (origin and origin.patient_id) or f"SYNTHETIC-{someone}"
    series.PatientBirthDate = series.PatientSex = ""
    if origin is None:
        series.PatientIdentityRemoved = "YES"
        series.DeidentificationMethod = f"{made_by()}: name, ID and dates are not copied"
    if origin is not None and UID(origin.study_uid).is_valid:
        series.StudyInstanceUID = origin.study_uid
        series.StudyDate, series.StudyTime = origin.study_date, ""
    else:
        series.StudyInstanceUID = generate_uid(prefix=None)
        series.StudyDate, series.StudyTime = f"{now:%Y%m%d}", f"{now:%H%M%S}"
    series.StudyID = "1"
    series.AccessionNumber = series.ReferringPhysicianName = ""


def _add_series(series: Dataset, description: str) -> None:
    label = " ".join(f"{SYNTHETIC} {description}".replace("\\", "/").split())
    series.Modality = "CT"
    series.SeriesInstanceUID = generate_uid(prefix=None)
    series.SeriesNumber = 1
    series.Laterality = ""
    series.SeriesDescription = label[:64].rstrip()
    series.PatientPosition = "HFS"
    series.FrameOfReferenceUID = generate_uid(prefix=None)
    series.PositionReferenceIndicator = ""
    name, number = made_by().split()
    series.Manufacturer = series.ManufacturerModelName = name
    series.SoftwareVersions = number


def _add_image(series: Dataset, origins: Iterable[Origin]) -> None:
    now = datetime.now()
    series.SOPClassUID = CTImageStorage
    series.SyntheticData = "YES"
    series.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    series.InstanceCreationDate = series.ContentDate = f"{now:%Y%m%d}"
    series.InstanceCreationTime = series.ContentTime = f"{now:%H%M%S}"
    series.AcquisitionNumber = series.KVP = None
    series.ImageComments = f"{SYNTHETIC}. {DISCLAIMER}"
    series.DerivationDescription = f"Reconstructed from X-ray images by {made_by()}."
    series.BurnedInAnnotation = "NO"
    series.LossyImageCompression = "00"
    sources = [_reference(origin) for origin in origins if UID(origin.sop_instance_uid).is_valid]
    if sources:
        series.SourceImageSequence = sources


def _reference(origin: Origin) -> Dataset:
    item, purpose = Dataset(), Dataset()
    item.ReferencedSOPClassUID = origin.sop_class_uid
    item.ReferencedSOPInstanceUID = origin.sop_instance_uid
    # PS3.16, context group 7202.
    purpose.CodeValue, purpose.CodingSchemeDesignator = "121322", "DCM"
    purpose.CodeMeaning = "Source image for image processing operation"
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item


def _add_pixel_format(series: Dataset, grid: VolumeGrid) -> None:
    series.SamplesPerPixel = 1
    series.PhotometricInterpretation = "MONOCHROME2"
    _, series.Rows, series.Columns = grid.shape
    series.BitsAllocated, series.BitsStored, series.HighBit, series.PixelRepresentation = 16, 16, 15, 0
    series.RescaleIntercept, series.RescaleSlope, series.RescaleType = "-1024", "1", "HU"
    x_mm, y_mm, z_mm = grid.spacing_mm
    series.PixelSpacing = _decimal([y_mm, x_mm])
    series.SliceThickness = _decimal([z_mm])[0]
    # Mediastinum and lung.
    series.WindowCenter, series.WindowWidth = ["40", "-600"], ["400", "1500"]
    series.WindowCenterWidthExplanation = ["SOFT TISSUE", "LUNG"]


def _axes(grid: VolumeGrid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return unit vectors along rows, along columns and across slices, made exactly perpendicular."""
    x, y, _ = grid.direction.T
    y = y - x * (x @ y)
    y = y / np.linalg.norm(y)
    return x, y, np.cross(x, y)


def _decimal(numbers: Iterable[float]) -> list[str]:
    # DICOM's decimal strings hold 16 characters: 1e-10 of a body in the worst case.
    return [format_number_as_ds(float(number)) for number in numbers]


def _save(series: Dataset, path: Path) -> None:
    # By way of memory: pydicom raises a full disk's OSError again without its number.
    buffer = BytesIO()
    series.save_as(buffer, enforce_file_format=True)
    path.write_bytes(buffer.getbuffer())


def _stored(hu: Float[Tensor, "y x"]) -> bytes:
    stored = (hu.detach().cpu() + 1024).round().clamp(0, 65535)
    return stored.to(torch.int32).numpy().astype("<u2").tobytes()
