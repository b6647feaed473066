"""What a test with planted nodules (`nodules`) found: rows, one a nodule, and lines, one a diameter."""

import csv
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields, replace
from math import nan
from pathlib import Path

import numpy as np
from jaxtyping import Float
from pydantic import TypeAdapter, ValidationError

from voxray.errors import InputError
from voxray.evaluation.csv_text import csv_text
from voxray.evaluation.protocols import Protocol
from voxray.evaluation.results import Group
from voxray.evaluation.statistics import LEVEL, RESAMPLES, interval
from voxray.images.atomic import refuse_existing, write_text_atomic
from voxray.images.reading import check_file, reading

NODULES = "nodules.csv"
# All that a test writes into its folder (`nodule_folder`): the table, what was asked, what is finished.
NODULE_FILES = (NODULES, "nodules.json", "nodules")


@dataclass(frozen=True)
class NoduleRow:
    """One nodule at one site.

    Attributes:
        case: of the store.
        protocol, model, views: as in a `Row` of scores.
        site: its number in the case; every site holds each diameter in turn.
        x_mm, y_mm, z_mm: centre, LPS, from the isocentre.
        diameter_mm: of the sphere.
        inserted_hu: contrast of the truth: mean in the sphere, with minus without.
        with_hu, without_hu: mean in the sphere of the reconstructions with and without the nodule: what a matched
            filter with the sphere as its template answers.
        recovery: part of the contrast that is in the reconstruction: (with - without) / inserted.
    """

    case: str
    protocol: Protocol
    model: str
    views: str
    site: int
    x_mm: float
    y_mm: float
    z_mm: float
    diameter_mm: float
    inserted_hu: float
    with_hu: float
    without_hu: float
    recovery: float

    @property
    def group(self) -> Group:
        """The protocol, views and model that the row belongs to."""
        return Group(self.protocol, self.views, self.model)


@dataclass(frozen=True)
class NoduleLine:
    """All nodules of one diameter and group.

    Attributes:
        group: protocol, views and model.
        diameter_mm, sites: how large, how many.
        inserted_hu: mean contrast of the truth.
        recovery, recovery_interval: mean contrast recovery (1: all of it), and its 95 % interval.
        auc, auc_interval: see `auc`, and its 95 % interval.
    """

    group: Group
    diameter_mm: float
    sites: int
    inserted_hu: float
    recovery: float
    recovery_interval: tuple[float, float]
    auc: float
    auc_interval: tuple[float, float]


@dataclass(frozen=True)
class NoduleResult:
    """All nodules of one test or more."""

    rows: tuple[NoduleRow, ...]

    def summary(self) -> list[NoduleLine]:
        """Return a line for each group and diameter; intervals are percentiles of the bootstrap over sites.

        A site stays together with and without its nodule. Sites of one case are taken for independent: with few cases
        the intervals are somewhat too narrow.
        """
        found: dict[tuple[Group, float], list[NoduleRow]] = {}
        for row in self.rows:
            found.setdefault((row.group, row.diameter_mm), []).append(row)
        return [_line(group, size, rows) for (group, size), rows in found.items()]

    def write_csv(self, path: Path, *, overwrite: bool = False) -> None:
        """Write one line a nodule.

        Raises:
            InputError: if the file exists and may not be overwritten.
        """
        refuse_existing(path, overwrite)
        write_text_atomic(path, csv_text([field.name for field in fields(NoduleRow)], map(astuple, self.rows)))

    @classmethod
    def read_csv(cls, path: Path) -> "NoduleResult":
        """Read what `write_csv` wrote.

        Raises:
            InputError: if it is missing, or is something else.
        """
        check_file(path)
        with reading(path), path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        try:
            return cls(TypeAdapter(tuple[NoduleRow, ...]).validate_python(lines))
        except ValidationError as error:
            line, *name = error.errors()[0]["loc"]
            raise InputError(
                f"'{path}' is no table of planted nodules (line {int(line) + 2}, {'.'.join(map(str, name))}: "
                f"{error.errors()[0]['msg']}): give one that `voxray nodules` wrote, as it was."
            ) from error


def read_nodules(folders: Sequence[Path]) -> NoduleResult:
    """Read the tests in those folders that have one, as one; no rows where none has.

    Another test of the same model, views and protocol has the name of its folder behind the model's.

    Raises:
        InputError: if a table is damaged.
    """
    rows: list[NoduleRow] = []
    for folder in dict.fromkeys(folders):
        if (folder / NODULES).is_file():
            found = NoduleResult.read_csv(folder / NODULES).rows
            known = {row.group for row in rows}
            rows += [_told_apart(row, folder, known) for row in found]
    return NoduleResult(tuple(rows))


def _told_apart(row: NoduleRow, folder: Path, known: set[Group]) -> NoduleRow:
    names = (row.model, f"{row.model} ({folder.name})", f"{row.model} ({folder})")
    renamed = [replace(row, model=name) for name in names]
    return next((row for row in renamed if row.group not in known), renamed[-1])


def auc(present: Float[np.ndarray, " sites"], absent: Float[np.ndarray, " sites"]) -> tuple[float, float, float]:
    """Return the area under the ROC curve of scores of sites with and without a nodule, and its interval.

    The area is how often a site with a nodule scores higher than another site without one, ties by half (the
    Mann-Whitney statistic; Hanley and McNeil, Radiology 143(1), 1982): 1 if all can be told apart, 0.5 if none can. A
    site is never held against itself: there any trace of a nodule would win, and a bootstrap, which draws sites several
    times, would make more and more of such pairs.

    Args:
        present: scores with the nodule.
        absent: scores of the same sites, in the same order, without.

    Returns:
        The area, and the ends of its 95 % interval: percentiles of 2000 draws of the sites. NaN for a single site.
    """
    n = len(present)
    if n < 2:
        return nan, nan, nan
    wins = (np.sign(present[:, None] - absent) + 1) / 2
    np.fill_diagonal(wins, 0)
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES)
    drawn = drawn[(drawn > 0).sum(1) > 1]
    areas = (drawn @ wins * drawn).sum(1) / (n**2 - (drawn**2).sum(1))
    low, high = np.percentile(areas, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(wins.sum() / (n * (n - 1))), float(low), float(high)


def _line(group: Group, diameter_mm: float, rows: Sequence[NoduleRow]) -> NoduleLine:
    recovery, present, absent = (
        np.array([getattr(row, name) for row in rows]) for name in ("recovery", "with_hu", "without_hu")
    )
    area, low, high = auc(present, absent)
    return NoduleLine(
        group, diameter_mm, len(rows), float(np.mean([row.inserted_hu for row in rows])),
        float(recovery.mean()), interval(recovery), area, (low, high),
    )  # fmt: skip
