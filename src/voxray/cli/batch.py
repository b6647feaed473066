"""Many patients, one after another: continued after a kill, not stopped by a bad one."""

import hashlib
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


def reconstruct_many(patients: list[Patient], request: Request, out: Path) -> None:
    """Reconstruct every patient into a folder of its own, and sum up.

    What is done stands in the `Ledger` of `out`, and is not done again. That a patient's X-rays are bad does not stop
    the others; a bad model, a full disk or too little memory does.

    Raises:
        InputError: at the end, if patients failed; or if `out` is something else, or holds results of other settings.
    """
    ledger = Ledger(out, request)
    rows: list[tuple[str, str, object, str]] = []
    failed: dict[str, str] = {}
    for number, patient in enumerate(patients, start=1):
        try:
            if ledger.is_done(patient):
                rows.append((patient.id, "there already", "", ""))
                continue
            note(f"{patient.id} ({number} of {len(patients)})")
            with progress(patient.id) as draw:
                result = request.reconstruct(patient, draw)
            request.save(result, out / patient.id, overwrite=True)  # what an unfinished run left is replaced
            ledger.enter(patient)
        except (InputError, NumericalError) as error:
            failed[patient.id] = str(error)
            rows.append((patient.id, "failed", "", ""))
        else:
            worst = max((100 * residual.relative for residual in result.report.residuals), default=0.0)
            quality = result.report.quality
            rows.append((patient.id, "done", worst, quality.verdict if quality is not None else ""))
    show_table(("patient", "result", "residual, %", "verdict"), rows)
    show(DISCLAIMER)
    if failed:
        reasons = "".join(f"\n  {name}: {reason}" for name, reason in failed.items())
        raise InputError(f"{len(failed)} of {len(patients)} patients failed:{reasons}")


class Ledger:
    """The file `batch.json` of a folder of results: with which settings, and which patients are done.

    A folder gets one while it is empty, so all patients in it are results of voxray.

    Args:
        out: the folder of results.
        request: its settings are those of the whole folder; with `overwrite`, everything is done anew.

    Raises:
        InputError: if the folder cannot be made, holds something else, or results of other settings.
    """

    def __init__(self, out: Path, request: Request) -> None:
        self.out, self.path, self.settings = out, out / "batch.json", request.key()
        self.done: dict[str, str] = {}
        if self.path.is_file() and not request.result.overwrite:
            self._resume()
            return
        check_output(out, request.result.overwrite)
        make_folder(out)
        self._write()

    def is_done(self, patient: Patient) -> bool:
        """Tell whether the results of a patient are there.

        Raises:
            InputError: if they are, but come from other X-rays.
        """
        entry = self.done.get(patient.id)
        if entry is None or not (self.out / patient.id / "report.json").is_file():
            return False
        if entry != _fingerprint(patient):
            raise InputError(
                f"'{self.out / patient.id}' exists already, made from other X-rays: choose another folder, or say "
                "--overwrite."
            )
        return True

    def enter(self, patient: Patient) -> None:
        """Note that a patient is done."""
        self.done[patient.id] = _fingerprint(patient)
        self._write()

    def _resume(self) -> None:
        with reading(self.path):
            data = json.loads(self.path.read_text(encoding="utf-8"))
            settings, done = data["settings"], dict(data["done"])
        if settings != self.settings:
            raise InputError(
                f"'{self.out}' holds results of other settings: choose another folder, or say --overwrite."
            )
        self.done = done

    def _write(self) -> None:
        write_text_atomic(self.path, json.dumps({"settings": self.settings, "done": self.done}, indent=1) + "\n")


def _fingerprint(patient: Patient) -> str:
    """Hash of everything that is known of a patient alone."""
    files = [*patient.files, *([patient.geometry] if patient.geometry is not None else [])]
    return hashlib.sha256(json.dumps([patient.views, *map(sha256_file, files)]).encode()).hexdigest()
