"""The folder of a test with planted nodules: what was asked, every finished reconstruction, and in the end the table.

A reconstruction has one file, written whole or not at all, so that a test goes on wherever it was stopped. The folder
may be one of results of an evaluation.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, JsonValue, TypeAdapter

from voxray.errors import InputError
from voxray.evaluation.folder import ModelEntry, Written, remove
from voxray.evaluation.nodule_results import NODULE_FILES, NoduleResult
from voxray.images.atomic import TEMPORARY_PREFIX, make_folder, refuse_existing, write_text_atomic
from voxray.images.disclaimer import made_by
from voxray.images.reading import reading

_TABLE, _MANIFEST, _FINISHED = NODULE_FILES
# A case without nodules, or with those of a diameter at the sites from a number on; and what a kill leaves.
_NAME = re.compile(rf".+-(without|\d+-[\d.e+]+)\.json|{re.escape(TEMPORARY_PREFIX)}.*")


class NoduleManifest(Written):
    """All that shapes the numbers; another test is not mixed with this one."""

    version: Literal[1] = 1
    made_by: str = Field(default_factory=made_by)
    cases: dict[str, str] = Field(description="id -> hash of what the store knows of the case")
    models: dict[str, ModelEntry] = Field(description="label -> the model")
    views: dict[str, JsonValue] = Field(description="name -> geometry, as `ViewGeometry.to_json` writes it")
    protocol: str
    sizes_mm: tuple[float, ...]
    sites: int
    seed: int


@dataclass(frozen=True)
class Measurement:
    """One site and diameter in one reconstruction.

    Attributes:
        case, site: of the store; the site's number in the case.
        diameter_mm: of the sphere that is measured.
        planted: whether there is a nodule.
        true_hu, found_hu: mean in the sphere, of the truth and of the reconstruction.
    """

    case: str
    site: int
    diameter_mm: float
    planted: bool
    true_hu: float
    found_hu: float


_MEASUREMENTS = TypeAdapter(tuple[Measurement, ...])


class NoduleFolder:
    """A folder of a test that is open.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def start(cls, path: Path, manifest: NoduleManifest, *, overwrite: bool = False) -> "NoduleFolder":
        """Make the folder, or go on in it; what else it holds stays as it is.

        Raises:
            InputError: if it holds another test, or a table alone, and may not be overwritten; its manifest is damaged;
                something that voxray did not write is in the way; or it cannot be written to.
        """
        written, finished = path / _MANIFEST, path / _FINISHED
        if written.is_file() and not overwrite:
            differences = manifest.differences(read_manifest(path))
            if differences:
                raise InputError(
                    f"'{path}' holds another test with planted nodules ({'; '.join(differences[:5])}): choose another "
                    "folder, or say --overwrite."
                )
            remove(finished.glob(f"{TEMPORARY_PREFIX}*"))
            return cls(path)
        if not written.is_file():
            refuse_existing(path / _TABLE, overwrite)  # of a version that kept nothing else
            _refuse_foreign(finished)
        make_folder(finished)
        # The table first: it never stands beside what it was not made of.
        remove([path / _TABLE, *(file for file in finished.glob("*") if _NAME.fullmatch(file.name))])
        write_text_atomic(written, manifest.model_dump_json(indent=1) + "\n")
        return cls(path)

    def finished(self, name: str) -> tuple[Measurement, ...] | None:
        """Read a reconstruction's measurements; None where it is not finished.

        Raises:
            InputError: if the file is damaged.
        """
        file = self._file(name)
        if not file.is_file():
            return None
        with reading(file):
            return _MEASUREMENTS.validate_json(file.read_bytes())

    def enter(self, name: str, measurements: Sequence[Measurement]) -> None:
        """Keep what a reconstruction showed."""
        write_text_atomic(self._file(name), _MEASUREMENTS.dump_json(tuple(measurements), indent=1).decode() + "\n")

    def complete(self, result: NoduleResult) -> None:
        """Write the table."""
        result.write_csv(self.path / _TABLE, overwrite=True)

    def _file(self, name: str) -> Path:
        return self.path / _FINISHED / f"{name}.json"


def read_manifest(path: Path) -> NoduleManifest:
    """Read what was asked.

    Raises:
        InputError: if the file is damaged.
    """
    written = path / _MANIFEST
    with reading(written):
        return NoduleManifest.model_validate_json(written.read_text(encoding="utf-8"))


def origins_of(folders: Iterable[Path]) -> list[str]:
    """Say of which model and seed the tables in folders are; nothing where none, or no manifest, is.

    Raises:
        InputError: if a manifest is damaged.
    """
    said = list[str]()
    for path in dict.fromkeys(folders):
        if (path / _TABLE).is_file() and (path / _MANIFEST).is_file():
            found = read_manifest(path)
            said += [f"{label}, in {path.name}: SHA-256 {model.sha256[:12]}, seed {found.seed}."
                     for label, model in found.models.items()]  # fmt: skip
    return said


def _refuse_foreign(finished: Path) -> None:
    """Refuse a folder of the name that we use, with something in it and nothing that says that it is ours."""
    for file in finished.glob("*"):
        if not file.name.startswith(TEMPORARY_PREFIX):
            raise InputError(
                f"'{file}' is in the way, and there is no {_MANIFEST} that says that voxray wrote it: choose another "
                "folder. Nothing was deleted."
            )
