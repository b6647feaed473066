"""Which files of a folder, a study as hospitals export it, or a zip are X-rays."""

import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pydicom import Dataset, dcmread

from voxray.errors import InputError, VoxrayError, VoxrayWarning
from voxray.images.ct_sources import open_sources, quiet_pydicom
from voxray.images.reading import reading
from voxray.images.xray_dicom import MODALITIES

SUFFIXES = (
    ".dcm", ".dicom", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".nii", ".nii.gz", ".mha", ".mhd", ".nrrd",
)  # fmt: skip
DICOMDIR = "DICOMDIR"
_TAGS = ["Modality", "StudyInstanceUID"]


def xray_files(files: Iterable[Path]) -> list[Path]:
    """Keep the files that may be X-rays: by their names, or, without a suffix, by the mark of DICOM.

    DICOM files of other modalities (reports, presentation states) among X-rays are left out with a `VoxrayWarning`;
    alone they are kept, so that whoever reads them says what is wrong.
    """
    found = [path for path in files if _may_be_xray(path)]
    modalities = {path: _tag(path, "Modality") for path in found if _is_dicom(path)}
    others = {path: said for path, said in modalities.items() if said and said not in MODALITIES}
    if len(others) < len(found):
        for path, said in others.items():
            warnings.warn(f"{path.name} is left out: it is no X-ray, but {said}.", VoxrayWarning, stacklevel=2)
        found = [path for path in found if path not in others]
    return found


def exported_study(folder: Path) -> list[Path] | None:
    """Return the X-rays of a folder that is one study, with its subfolders; None if it is not.

    It is one if it holds a DICOMDIR, as media from hospitals do, or folders of which each holds DICOM files, all of
    the same study.
    """
    with reading(folder):
        whole = sorted(path for path in folder.rglob("*") if path.is_file())
    files = [path for path in whole if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if any(path.name.upper() == DICOMDIR and path.parent == folder for path in files):
        return xray_files(files)
    found = [path for path in files if _may_be_xray(path)]
    if len({path.parent for path in found}) < 2:
        return None
    first = _tag(found[0], "StudyInstanceUID") if _is_dicom(found[0]) else ""
    same = first and all(_is_dicom(path) and _tag(path, "StudyInstanceUID") == first for path in found)
    return xray_files(found) if same else None


@contextmanager
def unzipped(paths: Sequence[Path]) -> Iterator[list[tuple[Path, Path]]]:
    """Lend the files behind some paths: as they are, or, of a zip, the X-rays in it, for as long as they are needed.

    Members are written under names of ours, which keep only the harmless letters of theirs; how many and how large
    they may be, `open_sources` limits.

    Returns:
        Where each file lies, and what it is called: the path that was given, or that of the zip with the member's name.

    Raises:
        InputError: if a zip is damaged, a bomb, or without X-rays.
        ResourceError: if it holds too much.
    """
    with TemporaryDirectory(prefix="voxray-") as folder:
        try:
            yield [pair for number, path in enumerate(paths) for pair in _behind(path, Path(folder, str(number)))]
        except VoxrayError as error:
            raise type(error)(str(error).replace(f"{folder}/", "")) from error


def _behind(path: Path, folder: Path) -> list[tuple[Path, Path]]:
    if path.suffix.lower() != ".zip" or not path.is_file():
        return [(path, path)]
    names: dict[Path, Path] = {}
    with open_sources(path) as sources:
        for number, source in enumerate(sources):
            member = source.label.removeprefix(f"{path}: ")
            name = re.sub(r"[^\w.-]", "_", member.replace("\\", "/").rsplit("/", 1)[-1]).lstrip(".")
            if not name or "__MACOSX" in member:
                continue
            file = folder / str(number) / name
            file.parent.mkdir(parents=True)
            with reading(source.label), source.open() as packed:
                file.write_bytes(packed.read())
            names[file] = path / name
    found = xray_files(names)
    if not found:
        raise InputError(f"{str(path)!r} holds no X-ray files ({', '.join(SUFFIXES)}, or DICOM without a suffix).")
    return [(file, names[file]) for file in found]


def _may_be_xray(path: Path) -> bool:
    if path.name.startswith(".") or path.name.upper() == DICOMDIR or not path.is_file():
        return False
    return path.name.lower().endswith(SUFFIXES) or (not path.suffix.strip(".0123456789") and _is_dicom(path))


def _is_dicom(path: Path) -> bool:
    with reading(path), path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _tag(path: Path, name: str) -> str:
    """Return a tag of a DICOM file, "" where it is absent or the file is damaged: whoever reads it then says so."""
    try:
        with reading(path), quiet_pydicom():
            tags: Dataset = dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
            return str(tags.get(name) or "")
    except InputError:
        return ""
