"""Which CT scans lie behind a list of files and folders."""

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from voxray.errors import InputError, VoxrayError
from voxray.images.ct_series import series_of, usable
from voxray.images.ct_sources import Header, Source, open_sources, read_headers

VOLUME_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")  # those of `read_ct`
_NO_IMAGES = (".txt", ".csv", ".json", ".xml", ".md", ".html", ".pdf", ".raw", ".zraw", ".tcia")


@dataclass(frozen=True)
class Scan:
    """One CT scan that can be read with `read_ct(path, series=series)`.

    Attributes:
        id: unique among the scans found, safe as a file name.
        patient: PatientID of DICOM, else the id.
        path: a file, a zip, or the folder that holds the series.
        series: SeriesInstanceUID, None for other formats.
        files: what the scan is read from (the zip, for a zip).
    """

    id: str
    patient: str
    path: Path
    series: str | None
    files: tuple[Path, ...]

    def stamp(self) -> str:
        """Hash of names, sizes and times of the files: changes when the source does."""
        parts = []
        for file in self.files:
            stat = file.stat()
            parts.append(f"{file.name} {stat.st_size} {stat.st_mtime_ns}")
        return _digest("\n".join([*sorted(parts), self.series or ""]))

    def sha256(self) -> str:
        """Hash of what is in the files."""
        whole = hashlib.sha256()
        for file in self.files:
            with file.open("rb") as stream:
                whole.update(hashlib.file_digest(stream, "sha256").digest())
        return whole.hexdigest()


@dataclass
class Found:
    """What is behind the inputs: scans, and what is none (path -> reason), by fault or by kind."""

    scans: list[Scan] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def find_scans(inputs: Sequence[Path]) -> Found:
    """List the CT scans behind any mix of files and folders.

    In a folder, with its subfolders: every NIfTI, NRRD or MetaImage file is a scan, every zip and all DICOM files
    are searched for CT series. Series of other modalities (LIDC-IDRI holds chest radiographs) and localizers are
    listed as skipped. The id is the file's stem, or PatientID and a hash of the SeriesInstanceUID.

    Raises:
        InputError: if an input does not exist, or no scan and nothing that failed was found.
    """
    found = Found()
    for path in inputs:
        if not path.exists():
            raise InputError(f"There is no file or folder {str(path)!r}.")
        files = [path] if path.is_file() else _files_below(path)
        loose: dict[Path, list[Path]] = defaultdict(list)
        for file in files:
            name = file.name.lower()
            if name.endswith(VOLUME_SUFFIXES):
                found.scans.append(_file_scan(file))
            elif name.endswith(".zip"):
                _add_zip(file, found)
            elif file == path or not name.endswith(_NO_IMAGES):
                loose[file.parent].append(file)
        _add_loose(loose, found)
    if not found.scans and not found.failed:
        raise InputError(
            f"No CT was found in {', '.join(repr(str(path)) for path in inputs)}; a CT is a DICOM series, a zip of "
            f"one, or a file ending in {', '.join(VOLUME_SUFFIXES)}."
        )
    found.scans = _with_unique_ids(found.scans)
    return found


def _open(file: Path) -> BinaryIO:
    return file.open("rb")


def _files_below(folder: Path) -> list[Path]:
    files = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [Path(root, name) for name in sorted(names) if not name.startswith(".")]
    return files


def _file_scan(file: Path) -> Scan:
    suffix = next(s for s in VOLUME_SUFFIXES if file.name.lower().endswith(s))
    name = _safe(file.name[: -len(suffix)])
    # The voxels of .mhd and .nhdr lie in a file beside them.
    raw = [file.with_suffix(end) for end in (".raw", ".zraw", ".raw.gz")] if suffix in (".mhd", ".nhdr") else []
    return Scan(name, name, file, None, (file, *(r for r in raw if r.is_file())))


def _add_zip(file: Path, found: Found) -> None:
    try:
        with open_sources(file) as sources:
            series = series_of(read_headers(sources))
    except VoxrayError as error:
        found.failed[str(file)] = str(error)
        return
    if not series:
        found.failed[str(file)] = f"{str(file)!r} holds no DICOM images."
    for uid, headers in series.items():
        _add_series(uid, headers, file, (file,), found)


def _add_loose(loose: dict[Path, list[Path]], found: Found) -> None:
    """Sort files that may be DICOM into series; a folder with a damaged file fails alone."""
    series: dict[str, list[Header]] = defaultdict(list)
    for folder, files in loose.items():
        try:
            sources = [Source(str(file), partial(_open, file)) for file in files]
            for uid, headers in series_of(read_headers(sources)).items():
                series[uid] += headers
        except VoxrayError as error:
            found.failed[str(folder)] = str(error)
    for uid, headers in series.items():
        files = [Path(header.source.label) for header in headers]
        folder = Path(os.path.commonpath([file.parent for file in files]))
        path = files[0] if len(files) == 1 else folder
        _add_series(uid, headers, path, tuple(files), found)


def _add_series(uid: str, headers: list[Header], path: Path, files: tuple[Path, ...], found: Found) -> None:
    first = headers[0]
    label = f"{path} (series {uid})"
    if first.text("Modality") != "CT":
        found.skipped[label] = f"{first.text('Modality') or 'unknown modality'}, not CT"
    elif not any(map(usable, headers)):
        found.skipped[label] = "only localizers, or images without a position"
    else:
        patient = first.text("PatientID") or path.stem
        found.scans.append(Scan(f"{_safe(patient)}_{_digest(uid)[:8]}", patient, path, uid, files))


def _with_unique_ids(scans: Iterable[Scan]) -> list[Scan]:
    """Drop scans that were given twice; tell scans of the same name apart by a hash of their path."""
    once = list({(scan.path.resolve(), scan.series): scan for scan in scans}.values())
    count = Counter(scan.id for scan in once)
    return [
        scan if count[scan.id] == 1 else replace(scan, id=f"{scan.id}_{_digest(str(scan.path.resolve()))[:8]}")
        for scan in once
    ]


def _safe(name: str) -> str:
    """Return a name with nothing in it that a file name cannot hold."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "scan"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
