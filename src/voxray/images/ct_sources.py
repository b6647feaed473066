"""The DICOM files of a folder, a zip or a file, and their headers."""

import io
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    MediaStorageDirectoryStorage,
)

from voxray.errors import InputError, ResourceError, VoxrayWarning
from voxray.images.reading import check_file, reading

CT_CLASSES = {CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage}

# Limits of a zip; ours. The largest CT study we know of has 5000 slices; CT slices compress two- to tenfold.
MAX_MEMBERS = 20_000
MAX_ZIP_BYTES = 8 * 10**9
MAX_ZIP_RATIO = 200
_RATIO_FREE_BYTES = 64 << 20

_PIXEL_TAGS = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")  # (7FE0,0010), little and big endian

_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "StudyDate", "SeriesDescription",
    "Modality", "ImageType", "PatientID", "PatientName", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel",
    "PhotometricInterpretation", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient",
    "RescaleSlope", "RescaleIntercept", "RescaleType", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]  # fmt: skip


@dataclass(frozen=True)
class Source:
    """One file on disk or in a zip: what messages call it, and how it is opened."""

    label: str
    open: Callable[[], BinaryIO]


@dataclass(frozen=True)
class Header:
    """The tags of one DICOM file that a CT reader needs, without its pixels."""

    source: Source
    tags: pydicom.Dataset

    def get(self, name: str) -> Any:
        """Return the value of a tag, None where it is absent; pydicom decodes (and may refuse) it only now."""
        with reading(self.source.label):
            return self.tags.get(name)

    def text(self, name: str) -> str:
        """Return a tag as text, "" where it is absent."""
        return str(self.get(name) or "")


@contextmanager
def open_sources(path: Path) -> Iterator[list[Source]]:
    """Give the files of a folder (with its subfolders; hidden ones left out), of a zip, or the one file.

    The members of a zip are read into memory when asked for; nothing is unpacked, so their names have no power.
    Python's `zipfile` never returns more of a member than the size listed for it, so the sum that is checked
    here is the most that can come out.

    Raises:
        InputError: if there is nothing at `path`, or the zip is damaged, encrypted or a zip bomb.
        ResourceError: if the zip holds more than `MAX_MEMBERS` files or `MAX_ZIP_BYTES` bytes.
    """
    if path.is_dir():
        yield _walk(path)
        return
    check_file(path)
    if not zipfile.is_zipfile(path):
        yield [Source(str(path), partial(_on_disk, path))]
        return
    with reading(path):
        archive = zipfile.ZipFile(path)
    with archive:
        members = [info for info in archive.infolist() if not info.is_dir()]
        _check_zip(path, members)
        yield [Source(f"{path}: {m.filename}", partial(_member, path, archive, m)) for m in members]


def read_headers(sources: list[Source]) -> list[Header]:
    """Read the headers of all files that are DICOM.

    Files that are named like DICOM (.dcm, .ima) but are none are refused: a slice that was cut to nothing must
    not pass for a file of another kind. Others that are not DICOM are left out; those without any suffix with
    a warning.

    Raises:
        InputError: naming the file that is damaged.
    """
    headers, left_out = [], []
    for source in sources:
        with reading(source.label):
            tags = _read_tags(source)
        if tags is not None:
            headers.append(Header(source, tags))
        elif "." not in Path(source.label).name:
            left_out.append(Path(source.label).name)
    if left_out and headers:
        names = ", ".join(repr(name) for name in left_out[:3])
        message = f"{len(left_out)} files are not DICOM and were left out ({names}{', ...' * (len(left_out) > 3)})."
        warnings.warn(message, VoxrayWarning, stacklevel=4)
    return headers


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silence pydicom's remarks on odd values; the checks, and what is said about them, are ours."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"pydicom\.")
        yield


def _walk(folder: Path) -> list[Source]:
    files = []
    with reading(folder):
        for root, folders, names in os.walk(folder, onerror=_refuse):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            files += [Path(root, name) for name in sorted(names) if not name.startswith(".")]
        return [Source(str(file), partial(_on_disk, file)) for file in files if file.is_file()]


def _refuse(error: OSError) -> None:
    raise error


def _on_disk(path: Path) -> BinaryIO:
    return path.open("rb")


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> BinaryIO:
    with reading(f"{path}: {info.filename}"):
        return io.BytesIO(archive.read(info))


def _check_zip(path: Path, members: list[zipfile.ZipInfo]) -> None:
    size = sum(info.file_size for info in members)
    packed = sum(info.compress_size for info in members)
    if len(members) > MAX_MEMBERS or size > MAX_ZIP_BYTES:
        raise ResourceError(
            f"{str(path)!r} holds {len(members)} files of {size / 1e9:.3g} GB together; at most {MAX_MEMBERS} files "
            f"and {MAX_ZIP_BYTES / 1e9:g} GB are read from a zip. Unpack it and give the folder."
        )
    if size > _RATIO_FREE_BYTES + MAX_ZIP_RATIO * packed:
        raise InputError(f"{str(path)!r} unpacks to {size / max(packed, 1):.0f} times its size: a zip bomb, no CT.")


def _read_tags(source: Source) -> pydicom.Dataset | None:
    """Return the tags of a DICOM file, or None if it is of another kind (or a DICOMDIR).

    pydicom takes the end of a file for the end of the data, and a value that it cuts short as it is; so what
    tells a whole header is the pixel data after it.
    """
    with source.open() as file:
        head = file.read(132)
        file.seek(0)
        bare = head[:2] in (b"\x02\x00", b"\x08\x00") and head[3:4] == b"\0"  # no preamble: the first tag at once
        if head[128:] != b"DICM" and not bare:
            if source.label.lower().endswith((".dcm", ".ima")):
                raise InputError(f"{source.label!r} is not a DICOM file (or cut off): no 'DICM' after 128 bytes.")
            return None
        tags = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS, force=bare)
        next_tag = file.read(4)
    if tags.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
        return None
    required = ["SOPClassUID", "SOPInstanceUID"]  # with both, the class was not cut short by the end of the file
    if tags.get("SOPClassUID") in CT_CLASSES:
        required += ["SeriesInstanceUID", "Rows", "Columns"]
    missing = [name for name in required if not tags.get(name)]
    deflated = tags.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian
    if tags.get("SOPClassUID") in CT_CLASSES and next_tag not in _PIXEL_TAGS and not deflated:
        missing.append("pixel data")
    if missing:
        raise InputError(f"{source.label!r} is damaged or truncated: as DICOM, it has no {', '.join(missing)}.")
    return tags
