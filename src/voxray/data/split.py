"""Which patients train, which choose, which test."""

import csv
import hashlib
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from voxray.data.inputs import Scan
from voxray.errors import InputError, VoxrayWarning
from voxray.images.reading import reading

Protocol = Literal["hash", "lidc916"]

LIDC_SCANS, LIDC_TEST = 1018, 102


@dataclass(frozen=True)
class Row:
    """What a table says about one scan; "" and None where it says nothing."""

    split: str = ""
    patient: str = ""
    licence: str = ""
    isocentre_mm: tuple[float, float, float] | None = None


def read_table(path: Path) -> dict[str, Row]:
    """Read a CSV of scans by id.

    Columns: id and, as far as there are any, split, patient, licence (or licence_class), iso_x, iso_y, iso_z
    (LPS, mm); others are ignored.

    Raises:
        InputError: if it is no such table, names an id twice, or an isocentre is incomplete.
    """
    with reading(path), path.open(newline="", encoding="utf-8-sig") as file:
        lines = list(csv.DictReader(file))
    if not lines or "id" not in lines[0]:
        raise InputError(f"{str(path)!r} is no table of scans: a CSV with at least the column 'id' is needed.")
    table: dict[str, Row] = {}
    for line in lines:
        cells = {key: (value or "").strip() for key, value in line.items() if isinstance(key, str) and key}
        name = cells["id"]
        if not name or name in table:
            raise InputError(f"{str(path)!r}: the id {name!r} is empty or stands there twice.")
        licence = cells.get("licence") or cells.get("licence_class", "")
        iso = _isocentre(path, name, cells)
        table[name] = Row(cells.get("split", ""), cells.get("patient", ""), licence, iso)
    return table


def assign_splits(
    scans: Sequence[Scan],
    table: Mapping[str, Row] | None = None,
    fractions: Mapping[str, float] | None = None,
    protocol: Protocol = "hash",
) -> dict[str, str]:
    """Give every scan its split; all scans of a patient get the same one.

    `hash` (the default): a hash of the patient decides, so a patient's split never depends on who else is in the
    store. The shares of `fractions` are kept on average.

    `lidc916`: as many scans for training and test as in the publications that follow X2CT-GAN (916 and 102 of
    LIDC-IDRI's 1018). Their lists are by scan, and eight patients have two scans; ours keep patients together and
    are drawn by hash, because the published lists are not at hand: **the sizes are the published ones, the
    scans are not**. On another number of scans the test set keeps its share, with a warning.

    A split in `table` stands above both.

    Args:
        scans: all scans, with their patients.
        table: by id.
        fractions: share of each split, by name; 0.8, 0.1, 0.1 of train, val and test where it is not given.
        protocol: `hash` or `lidc916`.

    Returns:
        id -> split.

    Raises:
        InputError: if the fractions do not add up to 1, or the table puts a patient in two splits.
    """
    patients: dict[str, list[str]] = defaultdict(list)
    for scan in scans:
        patients[scan.patient].append(scan.id)
    if protocol == "lidc916":
        by_patient = _lidc916({patient: len(ids) for patient, ids in patients.items()})
    else:
        shares = dict(fractions or {"train": 0.8, "val": 0.1, "test": 0.1})
        if min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-6:
            raise InputError(f"The fractions of the splits must be positive and add up to 1, not {shares}.")
        by_patient = {patient: _by_hash(patient, shares) for patient in patients}
    splits = {}
    for patient, ids in patients.items():
        told = {table[name].split for name in ids if table and name in table and table[name].split}
        if len(told) > 1:
            raise InputError(f"The table puts scans of one patient ({', '.join(ids)}) into {sorted(told)}.")
        splits.update(dict.fromkeys(ids, told.pop() if told else by_patient[patient]))
    return splits


def _isocentre(path: Path, name: str, cells: Mapping[str, str]) -> tuple[float, float, float] | None:
    texts = [cells.get(f"iso_{axis}", "") for axis in "xyz"]
    if not any(texts):
        return None
    try:
        x, y, z = (float(text) for text in texts)
    except ValueError:
        raise InputError(f"{str(path)!r}: the isocentre of {name!r} is not three numbers: {texts}.") from None
    return x, y, z


def _by_hash(patient: str, shares: Mapping[str, float]) -> str:
    place, reached = _uniform(patient), 0.0
    for name, share in shares.items():
        reached += share
        if place < reached:
            return name
    return list(shares)[-1]


def _lidc916(scans_of: Mapping[str, int]) -> dict[str, str]:
    total = sum(scans_of.values())
    wanted = round(total * LIDC_TEST / LIDC_SCANS)
    if total != LIDC_SCANS:
        warnings.warn(
            f"The protocol lidc916 is for the {LIDC_SCANS} scans of LIDC-IDRI; of these {total}, {wanted} test.",
            VoxrayWarning, stacklevel=3,
        )  # fmt: skip
    splits, test = {}, 0
    for patient in sorted(scans_of, key=_uniform):
        takes = test + scans_of[patient] <= wanted
        splits[patient] = "test" if takes else "train"
        test += scans_of[patient] * takes
    return splits


def _uniform(patient: str) -> float:
    """Map a patient to a number in [0, 1)."""
    return int.from_bytes(hashlib.sha256(f"voxray split {patient}".encode()).digest()[:6], "big") / 2**48


def split_sizes(splits: Mapping[str, str]) -> dict[str, int]:
    """Count the scans of each split."""
    return dict(Counter(splits.values()))
