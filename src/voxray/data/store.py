"""The store of prepared CTs: one safetensors file a case, and a manifest made from them."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from voxray.errors import GeometryError, InputError
from voxray.geometry import VolumeGrid
from voxray.geometry._frozen import FloatArray
from voxray.images import CTVolume
from voxray.images.atomic import atomic_path, write_text_atomic
from voxray.images.reading import reading

VERSION = 1
MANIFEST = "manifest.json"
CASES = "cases"
_KEY = "voxray_case"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class CaseRecord:
    """What a case file says about itself, in its header.

    Attributes:
        id, patient, split, licence: `licence` is "" where it is unknown.
        source: name of the file or folder that the case was made from, without its path.
        sha256: hash of the source's files.
        isocentre_mm: LPS; the middle of the cube.
        padding: voxels of the cube beyond the scan: (low, high) along (z, y, x). Nothing in voxray reads it:
            it is kept for users whose metrics leave the padding out.
        stamp, options: hashes of the source's files (names, sizes, times) and of the options: prepared again
            only when one of them changes.
    """

    id: str
    patient: str
    split: str
    licence: str
    source: str
    sha256: str
    isocentre_mm: tuple[float, float, float]
    padding: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    stamp: str
    options: str


@dataclass(frozen=True, eq=False)
class Case:
    """A prepared CT.

    Attributes:
        record: what is known about it.
        volume: the cube, on the store's grid about the isocentre.
        scan: the whole scan on its own grid, without couch; X-rays are made from it.
    """

    record: CaseRecord
    volume: CTVolume
    scan: CTVolume

    @property
    def id(self) -> str:
        """The name of the case in the store."""
        return self.record.id

    @property
    def patient(self) -> str:
        """Whose scan it is."""
        return self.record.patient

    @property
    def isocentre_mm(self) -> FloatArray:
        """The middle of the cube, LPS."""
        return np.array(self.record.isocentre_mm)


class Store:
    """A folder of prepared cases. The case files are the truth; the manifest only saves reading their headers."""

    def __init__(self, path: Path, records: Mapping[str, CaseRecord]) -> None:
        self.path = path
        self.records = dict(records)

    @classmethod
    def open(cls, path: Path) -> "Store":
        """Open a store; a missing manifest is made up for from the case files.

        Raises:
            InputError: if `path` is no store, or its manifest or a case file is damaged.
        """
        path = Path(path)
        if not (path / CASES).is_dir():
            raise InputError(f"{str(path)!r} is no store (it has no folder {CASES!r}): make one with voxray prepare.")
        manifest = path / MANIFEST
        if not manifest.is_file():
            return cls(path, {file.stem: read_record(file) for file in case_files(path)})
        with reading(manifest):
            data = json.loads(manifest.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or data.get("version") != VERSION or not isinstance(data.get("cases"), list):
            raise InputError(
                f"{str(manifest)!r} is no manifest of version {VERSION}. Delete it: it is made again from the cases."
            )
        records = [_record(manifest, case) for case in data["cases"]]
        missing = [record.id for record in records if not case_path(path, record.id).is_file()]
        if missing:
            raise InputError(f"{str(path)!r} lacks the cases {', '.join(missing[:10])} of its manifest: prepare again.")
        return cls(path, {record.id: record for record in records})

    def cases(self, split: str | None = None) -> list[str]:
        """Return the ids of a split (or of all cases), in alphabetical order.

        Raises:
            InputError: if the store has no such split.
        """
        splits = sorted({record.split for record in self.records.values()})
        if split is not None and split not in splits:
            raise InputError(f"{str(self.path)!r} has no split {split!r}; it has {', '.join(splits) or 'no cases'}.")
        return sorted(name for name, record in self.records.items() if split in (None, record.split))

    def load(self, name: str) -> Case:
        """Read one case.

        Raises:
            InputError: if there is no such case, or its file is damaged.
        """
        if name not in self.records:
            raise InputError(f"{str(self.path)!r} has no case {name!r}; it has {len(self.records)} others.")
        return read_case(case_path(self.path, name))


def case_path(store: Path, name: str) -> Path:
    """Return where a case is kept.

    Raises:
        InputError: if the name is not safe as a file name.
    """
    if not _ID.fullmatch(name):
        raise InputError(f"{name!r} cannot name a case: letters, digits, '.', '_' and '-' can.")
    return store / CASES / f"{name}.safetensors"


def case_files(store: Path) -> list[Path]:
    """List the case files of a store, without what a killed run left behind."""
    return sorted(file for file in (store / CASES).glob("*.safetensors") if not file.name.startswith("."))


def write_case(path: Path, case: Case) -> None:
    """Write a case atomically: `hu` and `scan` as int16, record and grids as JSON in the header."""
    header = asdict(case.record)
    header["grids"] = {"hu": case.volume.grid.affine.tolist(), "scan": case.scan.grid.affine.tolist()}
    tensors = {"hu": _int16(case.volume.hu), "scan": _int16(case.scan.hu)}
    with atomic_path(path) as temporary:
        # Not `save_file`: it replaces the temporary file by one that only its owner can read.
        temporary.write_bytes(save(tensors, {_KEY: json.dumps(header)}))


def read_case(path: Path) -> Case:
    """Read a case file.

    Raises:
        InputError: if it is damaged, or no case.
    """
    header = _header(path)
    record = _record(path, header)
    with reading(path), safe_open(path, "pt") as file:
        arrays = {name: file.get_tensor(name) for name in ("hu", "scan")}
    volumes = {}
    for name, array in arrays.items():
        if array.dtype != torch.int16 or array.ndim != 3:
            raise InputError(f"{str(path)!r} is no case: {name!r} is not a 3D array of int16.")
        volumes[name] = CTVolume(array.float(), _grid(path, header, name, array.shape))
    return Case(record, volumes["hu"], volumes["scan"])


def read_record(path: Path) -> CaseRecord:
    """Read what a case file says about itself, without its voxels.

    Raises:
        InputError: if it is damaged, or no case.
    """
    return _record(path, _header(path))


def read_grid(path: Path) -> VolumeGrid:
    """Read the grid of a case's cube, about the isocentre at (0, 0, 0), without its voxels.

    Raises:
        InputError: if the file is damaged, or no case.
    """
    header = _header(path)
    with reading(path), safe_open(path, "pt") as file:
        shape = file.get_slice("hu").get_shape()
    return _grid(path, header, "hu", shape).shifted(-np.array(_record(path, header).isocentre_mm))


def write_manifest(store: Path, options: Mapping[str, Any], records: Mapping[str, CaseRecord]) -> None:
    """Write the manifest atomically."""
    cases = [asdict(records[name]) for name in sorted(records)]
    data = {"version": VERSION, "options": dict(options), "cases": cases}
    write_text_atomic(store / MANIFEST, json.dumps(data, indent=1) + "\n")


def _header(path: Path) -> dict[str, Any]:
    with reading(path), safe_open(path, "pt") as file:
        header = json.loads((file.metadata() or {}).get(_KEY, "null"))
    if not isinstance(header, dict):
        raise InputError(f"{str(path)!r} is no case of a store: prepare it again.")
    return header


def _grid(path: Path, header: dict[str, Any], name: str, shape: Sequence[int]) -> VolumeGrid:
    """Build the grid of one of a case's volumes."""
    try:
        z, y, x = shape
        return VolumeGrid((z, y, x), header["grids"][name])
    except (KeyError, TypeError, ValueError, GeometryError) as error:
        raise InputError(f"{str(path)!r} has no valid grid for {name!r} ({error}): prepare it again.") from error


def _record(path: Path, data: Any) -> CaseRecord:
    """Build a record from JSON, checking what later code relies on."""
    try:
        values = {name: data[name] for name in CaseRecord.__dataclass_fields__}
        x, y, z = (float(value) for value in values["isocentre_mm"])
        pz, py, px = ((int(low), int(high)) for low, high in values["padding"])
        texts = {name: value for name, value in values.items() if name not in ("isocentre_mm", "padding")}
        if not all(isinstance(value, str) for value in texts.values()) or not _ID.fullmatch(texts["id"]):
            raise TypeError("a text is missing or the id is not a file name")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{str(path)!r} holds no valid record of a case ({error!r}): prepare it again.") from error
    return CaseRecord(**texts, isocentre_mm=(x, y, z), padding=(pz, py, px))


def _int16(hu: Tensor) -> Tensor:
    return hu.round().clamp(-32768, 32767).to(torch.int16).contiguous()
