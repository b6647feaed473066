"""What can be chosen when CTs are prepared."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from voxray.data.split import Protocol
from voxray.errors import InputError

Pipeline = Literal["voxray", "x2ct"]
Centre = Literal["lungs", "body", "scan"]

# What does not change a prepared case, or is part of its stamp.
_NOT_IN_KEY = {"table", "fractions", "protocol", "workers", "scheduler"}


@dataclass(frozen=True)
class PrepareOptions:
    """How CTs become cases of a store.

    Attributes:
        shape: voxels of the cube (z, y, x).
        spacing_mm: side of its voxels; the pipeline x2ct has its own (320 mm / voxels) and refuses others.
        pipeline: `voxray`, or `x2ct` (see `one_case.x2ct_cube`).
        body_mask: `threshold` (`body_mask.body_mask`), `none` (the couch stays), or a mask: one file for all scans,
            or a folder with a file named after each id.
        centre: where the middle of the cube goes: `lungs` (a scan without lungs fails), `body` or `scan` (middle of
            the body's or the scan's box), or a point in LPS mm. A table's isocentre stands above it. The pipeline x2ct
            has a centre of its own: it refuses all of these, and warns about a table's isocentres.
        box: (x, y, z, x, y, z), two corners in LPS mm; its middle is the centre.
        centre_mask: the centre is the middle of this mask's box: a file, or a folder as for `body_mask`.
        finest_mm: the whole scan is kept with voxels of at least this size; 0 keeps its own.
        table: CSV with id, split, patient, licence, iso_x, iso_y, iso_z (`split.read_table`).
        fractions: share of every split; None for 0.8 train, 0.1 val, 0.1 test.
        protocol: `hash` or `lidc916` (`split.assign_splits`).
        assume_ras, resample_tilt: as for `read_ct`.
        workers: processes; 0 for one a core, as far as memory goes.
        scheduler: address of a Dask scheduler, "" for this machine.

    Raises:
        InputError: if a value is not one of these, or two ways to centre are given.
    """

    shape: tuple[int, int, int] = (128, 128, 128)
    spacing_mm: float = 2.5
    pipeline: Pipeline = "voxray"
    body_mask: Path | Literal["threshold", "none"] = "threshold"
    centre: Centre | tuple[float, float, float] = "lungs"
    box: tuple[float, float, float, float, float, float] | None = None
    centre_mask: Path | None = None
    finest_mm: float = 0.0
    table: Path | None = None
    fractions: Mapping[str, float] | None = None
    protocol: Protocol = "hash"
    assume_ras: bool = False
    resample_tilt: bool = False
    workers: int = 0
    scheduler: str = ""

    def __post_init__(self) -> None:
        for name, value, valid in (
            ("pipeline", self.pipeline, get_args(Pipeline)),
            ("protocol", self.protocol, get_args(Protocol)),
        ):
            if value not in valid:
                raise InputError(f"{name} is one of {', '.join(valid)}, not {value!r}.")
        if isinstance(self.centre, str) and self.centre not in get_args(Centre):
            raise InputError(f"centre is one of {', '.join(get_args(Centre))}, or X,Y,Z in mm; not {self.centre!r}.")
        if isinstance(self.body_mask, str) and self.body_mask not in ("threshold", "none"):
            raise InputError(f"body_mask is threshold, none or a path, not {self.body_mask!r}.")
        if (self.centre != "lungs") + (self.box is not None) + (self.centre_mask is not None) > 1:
            raise InputError("Give one of centre, box and mask: each of them says where the middle is.")
        # x2ct_cube keeps 320 mm about a place of its own.
        own_spacing = [2.5, *(320 / n for n in self.shape if n)]
        if self.pipeline == "x2ct" and (
            self.centre != "lungs" or self.box is not None or self.centre_mask is not None
            or not any(math.isclose(self.spacing_mm, mm, rel_tol=1e-3) for mm in own_spacing)
        ):  # fmt: skip
            raise InputError(
                "The pipeline x2ct places its cube of 320 mm itself: leave out centre, box, mask and spacing_mm, or "
                "use the pipeline voxray."
            )
        if (
            min(self.shape) < 8
            or max(self.shape) > 1024
            or not 0.1 <= self.spacing_mm <= 20
            or self.finest_mm < 0
            or self.workers < 0
        ):
            raise InputError(
                f"The cube needs 8 to 1024 voxels a side of 0.1 to 20 mm, and finest_mm and workers cannot be "
                f"negative: shape {self.shape}, spacing_mm {self.spacing_mm:g}, finest_mm {self.finest_mm:g}, "
                f"workers {self.workers}."
            )

    def as_json(self) -> dict[str, Any]:
        """Return what shapes a case, for the manifest and for `key`."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in _NOT_IN_KEY}
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}

    def key(self) -> str:
        """Hash of `as_json`: cases of one store share it."""
        return hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()[:16]
