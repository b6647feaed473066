"""X-rays in DICOM files: what is accepted, and what is refused with which words."""

import warnings
from pathlib import Path

import torch
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)  # fmt: skip

from voxray.errors import InputError, VoxrayWarning
from voxray.geometry.dicom import view_tags
from voxray.images.reading import check_pixels, reading
from voxray.images.types import Origin
from voxray.images.xray import ReadOptions, XrayImage
from voxray.images.xray_pixels import bone_high, stored_pixels

MODALITIES = ("CR", "DX", "RF", "XA")
_NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
_END_OF_IMAGE = b"\xff\xd9"  # closes every JPEG, JPEG-LS and JPEG 2000 stream
_JPEG_FAMILY = (
    JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless,
    JPEG2000Lossless, JPEG2000,
)  # fmt: skip
_ORIGIN_TAGS = {
    "sop_class_uid": "SOPClassUID", "sop_instance_uid": "SOPInstanceUID", "study_uid": "StudyInstanceUID",
    "patient_id": "PatientID", "patient_name": "PatientName", "study_date": "StudyDate",
    "body_part": "BodyPartExamined",
}  # fmt: skip


def read_dicom_xray(path: Path, options: ReadOptions) -> tuple[XrayImage, ...]:
    """Read a DICOM X-ray (CR, DX, RF, XA), bone high.

    A multi-frame file gives the frame of `options.frame`; without it, all frames if the positioner moved
    between them and the tags say how, each a view of its own.

    Raises:
        InputError: if the file is no DICOM X-ray, is too large, damaged or incomplete, or holds several frames of which
            none is chosen.
    """
    with reading(path), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pydicom|pylibjpeg|openjpeg|jpeg_ls|PIL")
        dataset = _load(path)
        _check_modality(path, dataset, options.force_modality)
        _check_pixel_tags(path, dataset)
        _check_pixel_data(path, dataset)
        frames = _chosen_frames(path, dataset, options.frame)
        return tuple(_image(path, dataset, frame) for frame in frames)


def _image(path: Path, dataset: Dataset, frame: int) -> XrayImage:
    origin = {field: str(dataset.get(keyword) or "") for field, keyword in _ORIGIN_TAGS.items()}
    tags = view_tags(dataset, label=path.name, frame=frame)
    stored = stored_pixels(path, dataset, frame)
    if stored.shape != tags.shape:
        raise InputError(f"{str(path)!r}: the image has {stored.shape} pixels, but its tags say {tags.shape}.")
    pixels = torch.from_numpy(bone_high(stored, dataset, path.name))
    return XrayImage(pixels, "display", Origin(path, **origin), tags)


def _load(path: Path) -> Dataset:
    with path.open("rb") as file:
        preamble = file.read(132)
    if preamble[128:] == b"DICM":
        syntax = read_file_meta_info(path).get("TransferSyntaxUID", "")
        if syntax not in (*_NATIVE, *_JPEG_FAMILY, RLELossless):
            names = ", ".join(UID(uid).name for uid in (*_NATIVE, *_JPEG_FAMILY, RLELossless))
            raise InputError(
                f"{str(path)!r} has the transfer syntax {UID(syntax).name or '(none)'}, which is not read; "
                f"readable are {names}."
            )
        return dcmread(path)
    dataset = dcmread(path, force=True)
    said = dataset.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian)
    if said != ImplicitVRLittleEndian or dataset.original_encoding != (True, True):
        raise InputError(
            f"{str(path)!r} has no DICM mark and is not in implicit VR little endian, the only DICOM that is read "
            "without one. Save it as a whole DICOM file (dcmconv of DCMTK does)."
        )
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    missing = [key for key in ("SOPClassUID", "Rows", "Columns", "PixelData") if key not in dataset]
    if missing:
        raise InputError(
            f"{str(path)!r} is not a DICOM file, or a truncated one: it has {path.stat().st_size} bytes, no DICM "
            f"mark, and lacks {', '.join(missing)}."
        )
    return dataset


def _check_modality(path: Path, dataset: Dataset, force: bool) -> None:
    modality = str(dataset.get("Modality") or "")
    if modality in MODALITIES:
        return
    what = f"has the modality {modality!r}" if modality else "does not say its modality"
    if not force:
        raise InputError(
            f"{str(path)!r} {what}; X-rays are {', '.join(MODALITIES)}. "
            "If it is an X-ray all the same, say --force-modality."
        )
    warnings.warn(f"{path.name} {what}; read as an X-ray (--force-modality).", VoxrayWarning, stacklevel=2)


def _check_pixel_tags(path: Path, dataset: Dataset) -> None:
    needed = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "PhotometricInterpretation")
    missing = [key for key in needed if dataset.get(key) in (None, "")]
    if missing:
        raise InputError(
            f"{str(path)!r} lacks {', '.join(missing)}: it is not an X-ray image, or was cut off "
            f"(it has {path.stat().st_size} bytes)."
        )
    if int(dataset.get("SamplesPerPixel") or 1) != 1 or dataset.PhotometricInterpretation not in (
        "MONOCHROME1", "MONOCHROME2",
    ):  # fmt: skip
        raise InputError(
            f"{str(path)!r} is a colour image ({dataset.PhotometricInterpretation}); X-rays are MONOCHROME1 or "
            "MONOCHROME2."
        )
    allocated, stored = dataset.BitsAllocated, dataset.BitsStored
    if allocated not in (8, 16) or not 2 <= stored <= allocated or dataset.get("HighBit", stored - 1) != stored - 1:
        raise InputError(
            f"{str(path)!r} stores {stored} bits in {allocated} with the high bit {dataset.get('HighBit')}; "
            "X-rays store 2 to 16 bits, the lowest ones, in 8 or 16."
        )
    check_pixels(path, dataset.Rows * dataset.Columns * _frame_count(dataset))


def _check_pixel_data(path: Path, dataset: Dataset) -> None:
    """Refuse pixel data that are missing or end too early, with the numbers of bytes where they are known."""
    size = dataset.Rows * dataset.Columns * _frame_count(dataset) * dataset.BitsAllocated // 8
    data = dataset.get("PixelData")
    if size == 0 or not data:
        raise InputError(
            f"{str(path)!r} has no pixels, or was cut off: it has {path.stat().st_size} bytes, and its pixels "
            f"alone are {size} bytes before compression."
        )
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in _NATIVE:
        if len(data) < size:
            raise InputError(f"{str(path)!r} is cut off: {len(data)} bytes of pixels instead of {size}.")
        if not dataset.preamble and len(data) > size + size % 2:  # nothing else says that it is what it seems
            raise InputError(f"{str(path)!r} is damaged: {len(data)} bytes of pixels instead of {size}.")
        return
    frames = list(generate_frames(data, number_of_frames=_frame_count(dataset)))
    if syntax in _JPEG_FAMILY:
        for i, frame in enumerate(frames):
            if _END_OF_IMAGE not in frame[-16:]:
                raise InputError(f"{str(path)!r}: frame {i + 1} is cut off after {len(frame)} bytes.")


def _chosen_frames(path: Path, dataset: Dataset, frame: int | None) -> range:
    count = _frame_count(dataset)
    if frame is not None:
        if frame > count:
            raise InputError(f"{str(path)!r} has {count} frames; there is no frame {frame}.")
        return range(frame - 1, frame)
    moved = dataset.get("PositionerPrimaryAngle") is not None and dataset.get("PositionerPrimaryAngleIncrement")
    if count > 1 and not moved:
        raise InputError(
            f"{str(path)!r} has {count} frames, and no positioner angles that would make each of them a view; "
            f"choose one: --frame 1 ... {count}."
        )
    return range(count)


def _frame_count(dataset: Dataset) -> int:
    return max(1, int(dataset.get("NumberOfFrames") or 1))
