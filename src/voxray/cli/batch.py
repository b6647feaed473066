"""Many patients, one after another: continued after a kill, not stopped by a bad one."""

import json
from pathlib import Path

from voxray.cli.arguments import check_output, make_folder
from voxray.cli.output import note, progress, show, show_table
from voxray.cli.patients import Patient
from voxray.cli.request import Request
from voxray.errors import InputError, NumericalError
from voxray.images.atomic import write_text_atomic
from voxray.images.disclaimer import DISCLAIMER
from voxray.images.reading import reading
from voxray.images.report import sha256_file

SETTINGS_FILE = "batch.json"


def reconstruct_many(patients: list[Patient], request: Request, out: Path) -> None:
    """Reconstruct every patient into a folder of its own, and sum up.

    A patient whose folder holds the report of the same X-rays is skipped. That a patient's X-rays are bad does not
    stop the others; a bad model, a full disk or too little memory does.

    Raises:
        InputError: at the end, if patients failed; or if `out` is something else, or holds results of other settings.
    """
    _open(out, request)
    rows: list[tuple[str, str, object]] = []
    failed: dict[str, str] = {}
    for number, patient in enumerate(patients, start=1):
        folder = out / patient.id
        if not request.result.overwrite and _is_done(folder, patient):
            rows.append((patient.id, "there already", ""))
            continue
        note(f"{patient.id} ({number} of {len(patients)})")
        try:
            rows.append((patient.id, "done", _reconstruct_one(patient, request, folder)))
        except (InputError, NumericalError) as error:
            failed[patient.id] = str(error)
            rows.append((patient.id, "failed", ""))
    show_table(("patient", "result", "residual, %"), rows)
    show(DISCLAIMER)
    if failed:
        reasons = "".join(f"\n  {name}: {reason}" for name, reason in failed.items())
        raise InputError(f"{len(failed)} of {len(patients)} patients failed:{reasons}")


def _reconstruct_one(patient: Patient, request: Request, folder: Path) -> float:
    """Write the results of one patient; return the highest residual of its views in per cent."""
    check_output(folder, request.result.overwrite)
    with progress(patient.id) as draw:
        result = request.reconstruct(patient, draw)
    request.save(result, folder)
    return max((100 * residual.relative for residual in result.report.residuals), default=0.0)


def _open(out: Path, request: Request) -> None:
    """Make the folder of results, or see that it was made with the same settings.

    Raises:
        InputError: if it was not, or cannot be made.
    """
    settings, key = out / SETTINGS_FILE, json.dumps({"settings": request.key()})
    if settings.is_file() and not request.result.overwrite:
        with reading(settings):
            same = settings.read_text(encoding="utf-8").strip() == key
        if not same:
            raise InputError(f"{str(out)!r} holds results of other settings: choose another folder, or --overwrite.")
        return
    check_output(out, request.result.overwrite)
    make_folder(out)
    write_text_atomic(settings, key + "\n")


def _is_done(folder: Path, patient: Patient) -> bool:
    """Tell whether a folder holds the report of these X-rays; it is written after everything else."""
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        reported = {image["sha256"] for image in report["inputs"]}
    except (OSError, ValueError, KeyError, TypeError):
        return False
    try:
        return reported == {sha256_file(file) for file in patient.files}
    except InputError:
        return False
