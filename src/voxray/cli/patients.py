"""Which patients a command line names: X-ray files of one, a folder, or a CSV."""

import csv
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxray.cli.arguments import read_geometry
from voxray.errors import InputError, VoxrayWarning
from voxray.images.reading import check_file, reading

GEOMETRY_FILE = "geometry.json"
_DESCRIBED = {"id", "files", "geometry"}


@dataclass(frozen=True)
class Patient:
    """The X-ray files of one examination.

    Attributes:
        id: the name of the folder of results; "" for results straight in the output folder.
        files: the X-rays.
        views: the view of each file, where the CSV says it.
        geometry: a file that says where source and detector stood, where there is one.
    """

    id: str
    files: tuple[Path, ...]
    views: tuple[str, ...] | None = None
    geometry: Path | None = None


def find_patients(inputs: Sequence[Path]) -> list[Patient]:
    """Return the patients behind the arguments of `reconstruct`.

    Several files, or one that is no CSV, are one patient; so is a folder that holds X-ray files directly, or is one
    study as hospitals export it (`exported_study`). In any other folder each folder is a patient. A folder with a
    `geometry.json`, as `voxray project` writes it, is read
    with it: its X-rays are the files named after the views.

    A CSV has a line for each patient: the column `id`, and either `files` (with `;` between them) or one column a
    view (`pa`, `lateral`, ...; an empty cell leaves it out), and if wanted `geometry`. Paths in it are relative to
    its folder.

    Raises:
        InputError: if there are no X-rays, a folder comes with something else, or the CSV is not like this.
    """
    if len(inputs) == 1 and inputs[0].is_dir():
        return _patients_in_folder(inputs[0])
    if len(inputs) == 1 and inputs[0].suffix.lower() == ".csv":
        return _patients_in_csv(inputs[0])
    for path in inputs:
        if path.is_dir() or path.suffix.lower() == ".csv":
            raise InputError(f"{str(path)!r}: a folder or a CSV of patients is given alone, without other inputs.")
    return [Patient("", tuple(inputs))]


def _patients_in_folder(folder: Path) -> list[Patient]:
    from voxray.images.xray_files import SUFFIXES, exported_study  # loads torch: not for --help

    with reading(folder):
        entries = sorted(folder.iterdir())
    if (study := exported_study(folder)) is not None:
        return [Patient("", tuple(study))]
    direct = _patient("", folder, entries)
    patients, empty = [], []
    for entry in entries:
        if entry.is_dir() and not entry.name.startswith("."):
            with reading(entry):
                patient = _patient(entry.name, entry, sorted(entry.iterdir()))
            if patient is not None:
                patients.append(patient)
            else:
                empty.append(entry.name)
    if direct is not None and patients:
        raise InputError(
            f"{str(folder)!r} holds X-ray files as well as folders of X-ray files ({patients[0].id!r}): give the "
            "files of one patient, or a folder with one folder a patient."
        )
    found = [direct] if direct is not None else patients
    if not found:
        raise InputError(f"{str(folder)!r} holds no X-ray files ({', '.join(SUFFIXES)}, or DICOM without a suffix).")
    if patients and empty:
        warnings.warn(f"Left out, since no X-ray files are in them: {', '.join(empty)}.", VoxrayWarning, 2)
    return found


def _patient(name: str, folder: Path, entries: Iterable[Path]) -> Patient | None:
    """Return the patient whose files lie in `folder`, or None where there are none."""
    from voxray.images.xray_files import xray_files  # loads torch: not for --help

    files = xray_files(entries)
    geometry = folder / GEOMETRY_FILE
    if not geometry.is_file():
        return Patient(name, tuple(files)) if files else None
    names = read_geometry(geometry).names
    named = tuple(file for view in names for file in files if file.name.split(".")[0] == view)
    return Patient(name, named or tuple(files), geometry=geometry) if files else None


def _patients_in_csv(path: Path) -> list[Patient]:
    check_file(path)
    with reading(path), path.open(newline="", encoding="utf-8-sig") as file:
        lines = list(csv.DictReader(file))
    columns = [column for column in (lines[0] if lines else {}) if column]
    views = [column for column in columns if column not in _DESCRIBED]
    if "id" not in columns or ("files" in columns) == bool(views):
        raise InputError(
            f"{str(path)!r} is no table of patients: it needs the column id, and either files (with ; between them) "
            f"or one column a view (pa, lateral, ...); it has {', '.join(columns) or 'no line'}."
        )
    if views and "geometry" in columns:
        raise InputError(f"{str(path)!r}: a geometry names its views; list the X-rays in one column, files.")
    patients = []
    for number, line in enumerate(lines, start=2):
        cells = {column: (line[column] or "").strip() for column in columns}
        patients.append(_patient_in_line(path, number, cells, views))
    ids = [patient.id for patient in patients]
    twice = next((name for name in ids if ids.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{str(path)!r}: the id {twice!r} stands there twice.")
    return patients


def _patient_in_line(path: Path, number: int, cells: dict[str, str], views: Sequence[str]) -> Patient:
    name = cells["id"]
    if not name or name.startswith(".") or Path(name).name != name or not name.isprintable() or "\\" in name:
        raise InputError(f"{str(path)!r}, line {number}: {name!r} cannot be an id, which is to name a folder.")
    given = [view for view in views if cells[view]]
    names = [cells[view] for view in given] if views else [word.strip() for word in cells["files"].split(";")]
    files = tuple(path.parent / file for file in names if file)
    if not files:
        raise InputError(f"{str(path)!r}, line {number}: no X-ray file is named for {name!r}.")
    geometry = path.parent / cells["geometry"] if cells.get("geometry") else None
    return Patient(name, files, tuple(given) or None, geometry)
