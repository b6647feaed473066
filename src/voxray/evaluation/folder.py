"""The folder of an evaluation: what was asked, and every finished reconstruction's scores and central planes.

A reconstruction has one file, written whole or not at all, so that an evaluation goes on wherever it was stopped.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from safetensors import safe_open
from safetensors.torch import save

from voxray.data.store import CaseRecord
from voxray.errors import InputError
from voxray.evaluation.nodule_results import NODULE_FILES
from voxray.evaluation.planes import Planes
from voxray.evaluation.results import Evaluation, Row
from voxray.images.atomic import TEMPORARY_PREFIX, atomic_path, make_folder, write_text_atomic
from voxray.images.disclaimer import made_by
from voxray.images.reading import reading

MANIFEST, ROWS, FID = "evaluation.json", "rows.csv", "fid.csv"
_TRIALS, _TRUTHS, _ENDING, _FEATURES = "trials", "truths", ".safetensors", ".features"
_KEY = "voxray_trial"

# What an evaluation writes, beside its manifest: `ResultsFolder._trial`, `_truth`, `features`, and what a kill leaves.
_OURS = re.compile(
    rf"{re.escape(ROWS)}|{re.escape(FID)}|({_TRIALS}|{_TRUTHS})/{re.escape(TEMPORARY_PREFIX)}.*"
    rf"|({_TRIALS}/.+-[0-9a-f]{{16}}|{_TRUTHS}/.+)({re.escape(_ENDING)}|{re.escape(_FEATURES)})"
)


class Written(BaseModel):
    """What is written down of a request, of which other requests are told apart."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def differences(self, other: Self) -> list[str]:
        """Name what differs from another request; the version of voxray is told, too."""
        mine, others = self.model_dump(), other.model_dump()
        return [_difference(name, mine[name], others[name]) for name in mine if mine[name] != others[name]]


class ModelEntry(Written):
    """A model that takes part: the hash of its recipe and weights, and the settings that were changed."""

    sha256: str
    overrides: tuple[str, ...] = ()
    about: str = ""


class Manifest(Written):
    """All that shapes the scores; another evaluation is not mixed with this one."""

    version: Literal[1] = 1
    made_by: str = Field(default_factory=made_by)
    cases: dict[str, str] = Field(description="id -> hash of what the store knows of the case")
    models: dict[str, ModelEntry] = Field(description="label -> model, in the order in which they are shown")
    views: dict[str, JsonValue] = Field(description="name -> geometry, as `ViewGeometry.to_json` writes it")
    entries: tuple[tuple[str, str], ...] = Field(description="which model is given which views")
    protocols: tuple[str, ...]
    metrics: tuple[str, ...]
    seed: int
    samples: int
    lpips: tuple[str, ...] = Field(default=(), description="networks of LPIPS whose weights were there")
    fid: str = Field(default="", description="weights that FID is of; empty where it was not asked for")

    def sorted(self, rows: Iterable[Row]) -> list[Row]:
        """Sort rows by case, views, protocol and model, as they are named here."""
        orders = (self.cases, self.views, self.protocols, self.models)
        cases, views, protocols, models = ({name: i for i, name in enumerate(order)} for order in orders)
        return sorted(
            rows, key=lambda row: (cases[row.case], views[row.views], protocols[row.protocol], models[row.model])
        )


def case_sha256(record: CaseRecord) -> str:
    """Return a hash of what a case was made from, and how; its split and licence do not count."""
    known = {name: value for name, value in asdict(record).items() if name not in ("split", "licence", "stamp")}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


class ResultsFolder:
    """A folder of results that is open.

    Attributes:
        path: the folder.
        manifest: what was asked.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest

    @classmethod
    def start(cls, path: Path, manifest: Manifest, *, overwrite: bool = False) -> "ResultsFolder":
        """Make the folder, or go on in it.

        Raises:
            InputError: if it holds the results of another evaluation, and may not be overwritten; or something that
                voxray did not write is in the way; or it cannot be written to.
        """
        if (path / MANIFEST).is_file() and overwrite:
            remove(cls(path, manifest)._written())
        elif (path / MANIFEST).is_file():
            found = cls.open(path)
            differences = manifest.differences(found.manifest)
            if differences:
                raise InputError(
                    f"'{path}' holds the results of another evaluation ({'; '.join(differences[:5])}): choose another "
                    "folder, or say --overwrite."
                )
            for name in (_TRIALS, _TRUTHS):
                remove((path / name).glob(f"{TEMPORARY_PREFIX}*"))
            return found
        else:
            _refuse_foreign(path)
        for name in (_TRIALS, _TRUTHS):
            make_folder(path / name)
        write_text_atomic(path / MANIFEST, manifest.model_dump_json(indent=1) + "\n")
        return cls(path, manifest)

    @classmethod
    def open(cls, path: Path) -> "ResultsFolder":
        """Open a folder of results.

        Raises:
            InputError: if it is none, or its manifest is damaged.
        """
        if not (path / MANIFEST).is_file():
            raise InputError(
                f"'{path}' holds no results of an evaluation (no {MANIFEST}): make them with voxray evaluate or "
                "voxray compare."
            )
        with reading(path / MANIFEST):
            manifest = Manifest.model_validate_json((path / MANIFEST).read_text(encoding="utf-8"))
        return cls(path, manifest)

    def rows(self) -> list[Row]:
        """Read all finished rows: by case, views, protocol and model, in the order of the manifest.

        Raises:
            InputError: if a file is damaged.
        """
        return self.manifest.sorted(_read_row(file) for file in (self.path / _TRIALS).glob(f"[!.]*{_ENDING}"))

    def evaluation(self) -> Evaluation:
        """Return all finished rows as an evaluation."""
        return Evaluation(tuple(self.rows()), self.manifest.metrics)

    def is_done(self, case: str, protocol: str, views: str, model: str) -> bool:
        """Tell whether a reconstruction has been scored."""
        return self._trial(case, protocol, views, model).is_file()

    def enter(self, row: Row, planes: Planes, truth: Planes) -> None:
        """Keep a row and the central planes of its volume and of the truth; the row comes last."""
        truth_file = self._truth(row.case)
        if not truth_file.is_file():
            _write(truth_file, truth, {})
        _write(self._trial(row.case, row.protocol, row.views, row.model), planes, asdict(row))

    def planes(self, row: Row) -> tuple[Planes, Planes]:
        """Read the central planes of a row's volume, and of the truth.

        Raises:
            InputError: if they are missing or damaged.
        """
        return _read(self._trial(row.case, row.protocol, row.views, row.model)), _read(self._truth(row.case))

    def features(self, row: Row) -> tuple[Path, Path]:
        """Return where the features of a row's volume and of the truth are kept, if they are (`fid`)."""
        trial, truth = self._trial(row.case, row.protocol, row.views, row.model), self._truth(row.case)
        return trial.with_name(trial.stem + _FEATURES), truth.with_name(truth.stem + _FEATURES)

    def _trial(self, case: str, protocol: str, views: str, model: str) -> Path:
        digest = hashlib.sha256(json.dumps([case, protocol, views, model]).encode()).hexdigest()
        return self.path / _TRIALS / f"{case}-{digest[:16]}{_ENDING}"

    def _truth(self, case: str) -> Path:
        return self.path / _TRUTHS / f"{case}{_ENDING}"

    def _written(self) -> list[Path]:
        """Return the files of all results, by their names (a damaged one is voxray's, too).

        Raises:
            InputError: if something else lies between them.
        """
        found = [file for name in (ROWS, FID) if (file := self.path / name).exists()]
        for name in (_TRIALS, _TRUTHS):
            found += sorted((self.path / name).glob("*"))
        for file in found:
            if file.is_dir() or not _OURS.fullmatch(file.relative_to(self.path).as_posix()):
                raise InputError(
                    f"'{file}' is in the way, and is nothing that voxray wrote: put it elsewhere, or choose another "
                    "folder. Nothing was deleted."
                )
        return found


def remove(files: Iterable[Path]) -> None:
    """Delete files; one that is gone already is none.

    Raises:
        InputError: if one cannot be deleted.
    """
    for file in files:
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"'{file}' cannot be deleted: {error.strerror}. Choose another folder.") from error


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder of other things, results that nobody knows the request of among them.

    Planted nodules may be there, and the empty folders that a start left when it was killed.
    """
    if not folder.is_dir():
        return  # to be made, or refused when that fails
    own = [folder / name for name in (*NODULE_FILES, _TRIALS, _TRUTHS)]
    found = [file for name in (".", _TRIALS, _TRUTHS) for file in (folder / name).glob("*")]
    others = [
        file.relative_to(folder).as_posix()
        for file in found
        if not file.name.startswith(TEMPORARY_PREFIX) and file not in own
    ]
    if others:
        raise InputError(
            f"'{folder}' holds other files than results of an evaluation ({others[0]}, ...): choose another folder."
        )


def _write(path: Path, planes: Planes, row: dict[str, Any]) -> None:
    header = {_KEY: json.dumps({"row": row, "size_mm": planes.size_mm})}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(planes.tensors(), header))


def _header(path: Path) -> dict[str, Any]:
    with reading(path), safe_open(path, "pt") as file:
        header: dict[str, Any] = json.loads(file.metadata()[_KEY])
    return header


def _read_row(path: Path) -> Row:
    header = _header(path)
    with reading(path):
        return Row(**header["row"])


def _read(path: Path) -> Planes:
    header = _header(path)
    with reading(path), safe_open(path, "pt") as file:
        return Planes.read({name: file.get_tensor(name) for name in file.keys()}, header["size_mm"])  # noqa: SIM118


def _difference(name: str, mine: Any, other: Any) -> str:
    """Say in a few words what is asked now and what the folder holds."""
    if isinstance(mine, dict) and isinstance(other, dict):
        changed = [key for key in (mine | other) if mine.get(key) != other.get(key)]
        return f"other {name}: {', '.join(changed[:5])}{', ...' if len(changed) > 5 else ''}"
    if isinstance(mine, str | int):
        return f"{name} {other} there, {mine} here"
    return f"other {name}"
