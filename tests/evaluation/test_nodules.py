"""The test with planted nodules, on methods whose answers are known."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu
from small_models import GRID, SETUP, patient, write_store

from voxray.data.store import Case, Store
from voxray.errors import GeometryError, InputError
from voxray.evaluation import nodules
from voxray.evaluation.folder import case_sha256
from voxray.evaluation.nodule_results import NODULES, NoduleResult, NoduleRow, auc, read_nodules
from voxray.evaluation.nodules import NodulePlan, nodule_test
from voxray.evaluation.protocols import make_xrays
from voxray.evaluation.results import ViewSet
from voxray.evaluation.run import Contender
from voxray.geometry import Setup, ViewGeometry, VolumeGrid
from voxray.images import CTVolume, Radiograph
from voxray.methods.base import Estimate, Method, MethodConfig

VIEWS = ViewGeometry.biplanar(setup=SETUP)
MEAN = torch.stack([patient(seed).volume.hu for seed in range(3)]).mean(0)


class Oracle(Method):
    """Knows the case that the last X-rays were made of, and answers `part` of what sets it apart from the mean."""

    name = "oracle"
    Config = MethodConfig

    def __init__(self, part: float, noise_hu: float = 0.0, grid: VolumeGrid = GRID) -> None:
        super().__init__(MethodConfig(), grid)
        self.part, self.noise_hu = part, noise_hu
        self.seen: list[tuple[Case, Radiograph, str]] = []

    def stages(self) -> list[object]:  # type: ignore[override]
        return []

    def reconstruct(  # type: ignore[override]
        self, radiograph: Radiograph, *, rng: torch.Generator, outside: str, **_: object
    ) -> Estimate:
        hu = MEAN + self.part * (self.seen[-1][0].volume.hu - MEAN)
        return Estimate(CTVolume(hu + self.noise_hu * torch.randn(hu.shape, generator=rng), GRID))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(write_store(tmp_path_factory.mktemp("nodules") / "store", {"val": [20, 21]}))


def plan(method: Method, store: Store, protocol: str = "closed", **asked: Any) -> NodulePlan:
    views = ViewSet("pa,lateral", VIEWS)
    contender, cases = Contender("oracle", lambda: method, method.grid, "0123"), tuple(store.cases())
    return NodulePlan(contender, store, cases, views, protocol, **asked)  # type: ignore[arg-type]


def run(
    method: Oracle, store: Store, monkeypatch: pytest.MonkeyPatch, protocol: str = "closed",
    folder: Path | None = None, progress: Callable[[int, int], None] | None = None, overwrite: bool = False,
    **asked: Any,
) -> NoduleResult:  # fmt: skip
    def spied(case: Case, *args: object) -> tuple[Radiograph, str]:
        radiograph, outside = make_xrays(case, *args)  # type: ignore[arg-type]
        method.seen.append((case, radiograph, outside))
        return radiograph, outside

    monkeypatch.setattr(nodules, "make_xrays", spied)
    return nodule_test(plan(method, store, protocol, **asked), folder, overwrite=overwrite, progress=progress)


def test_the_truth_recovers_everything(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []
    result = run(Oracle(1.0), store, monkeypatch, sizes_mm=(24.0, 32.0), sites=8, progress=lambda *at: calls.append(at))
    assert [(line.diameter_mm, line.sites) for line in result.summary()] == [(24, 8), (32, 8)]
    for line in result.summary():
        assert 400 < line.inserted_hu < 1000  # less than 890: partial volume in voxels of 10 mm, and vessels
        assert line.recovery == pytest.approx(1)
        assert line.recovery_interval == pytest.approx((1, 1))
        assert (line.auc, line.auc_interval) == (1, (1, 1))
    assert [done for done, _ in calls] == list(range(1, len(calls) + 1))
    assert {total for _, total in calls} == {len(calls)}


def test_the_mean_recovers_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for line in run(Oracle(0.0), store, monkeypatch, sizes_mm=(16.0, 32.0), sites=6).summary():
        assert (line.recovery, line.recovery_interval) == (0, (0, 0))
        assert (line.auc, line.auc_interval) == (0.5, (0.5, 0.5))


def test_half_of_what_is_new_is_half_of_the_contrast(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The noise has the same seed with and without, and so goes out."""
    (line,) = run(Oracle(0.5, noise_hu=500.0), store, monkeypatch, sizes_mm=(32.0,), sites=6).summary()
    assert line.recovery == pytest.approx(0.5, abs=1e-4)
    assert 0.5 < line.auc <= 1


@pytest.mark.parametrize(("protocol", "outside"), [("closed", "air"), ("clinical", "body")])
def test_the_xrays_show_the_nodules(store: Store, monkeypatch: pytest.MonkeyPatch, protocol: str, outside: str) -> None:
    """Where a nodule of 32 mm is seen, the line integral is larger by some 0.0193 x 0.85 x 32 = 0.52."""
    method = Oracle(1.0)
    result = run(method, store, monkeypatch, protocol, sizes_mm=(32.0,), sites=2)
    assert {said for _, _, said in method.seen} == {outside}
    assert [case.id for case, _, _ in method.seen] == ["phantom20", "phantom20", "phantom21", "phantom21"]
    for row, (_, without, _), (_, with_, _) in zip(result.rows, method.seen[::2], method.seen[1::2], strict=True):
        for view in range(2):
            difference = with_.images[view] - without.images[view]
            place = np.round(VIEWS.project_mm((row.x_mm, row.y_mm, row.z_mm), view)).astype(int)
            seen = difference[place[0] - 1 : place[0] + 2, place[1] - 1 : place[1] + 2].mean()
            assert float(seen) == pytest.approx(0.45, abs=0.15)
            assert float(difference.median().abs()) < 0.02


def test_D2_every_size_is_at_the_same_sites_and_a_case_does_not_depend_on_the_others(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(Oracle(1.0), store, monkeypatch, sizes_mm=(10.0, 32.0), sites=6)
    sites = {
        size: [(row.case, row.site, row.x_mm, row.y_mm, row.z_mm) for row in result.rows if row.diameter_mm == size]
        for size in (10.0, 32.0)
    }
    assert sites[10.0] == sites[32.0]
    assert [site[:2] for site in sites[10.0]] == [
        (name, i) for name in ("phantom20", "phantom21") for i in range(3)
    ]  # fmt: skip
    method = Oracle(1.0)
    monkeypatch.setattr(Store, "cases", lambda self: ["phantom21"])
    alone = run(method, store, monkeypatch, sizes_mm=(32.0,), sites=3)
    assert list(alone.rows) == [row for row in result.rows if row.case == "phantom21" and row.diameter_mm == 32]


# ---------------------------------------------------------------- the folder

ASKED: dict[str, Any] = {"sizes_mm": (24.0, 32.0), "sites": 4}


def test_D4_a_test_goes_on_where_it_was_stopped(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The case without nodules, and with the first ones, are there; they are not made again."""

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    whole, first, second = Oracle(0.5), Oracle(0.5), Oracle(0.5)
    expected = run(whole, store, monkeypatch, **ASKED)
    with pytest.raises(KeyboardInterrupt):
        run(first, store, monkeypatch, folder=tmp_path, progress=stop, **ASKED)
    assert len(first.seen) == 2
    assert not (tmp_path / NODULES).exists()
    calls: list[tuple[int, int]] = []
    again = run(second, store, monkeypatch, folder=tmp_path, progress=lambda *at: calls.append(at), **ASKED)
    assert again == expected == NoduleResult.read_csv(tmp_path / NODULES)
    assert len(second.seen) == len(whole.seen) - 2
    assert calls == [(done, len(whole.seen)) for done in range(3, len(whole.seen) + 1)]
    third = Oracle(0.5)
    assert run(third, store, monkeypatch, folder=tmp_path, **ASKED) == expected
    assert third.seen == []


def test_the_folder_says_what_was_asked(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run(Oracle(1.0), store, monkeypatch, folder=tmp_path, seed=3, **ASKED)
    written = json.loads((tmp_path / "nodules.json").read_text())
    assert written["models"] == {"oracle": {"sha256": "0123", "overrides": [], "about": ""}}
    assert written["cases"] == {name: case_sha256(store.records[name]) for name in ("phantom20", "phantom21")}
    assert [written[name] for name in ("seed", "sites", "sizes_mm", "protocol")] == [3, 4, [24, 32], "closed"]
    assert ViewGeometry.from_json(json.dumps(written["views"]["pa,lateral"])) == VIEWS
    assert written["made_by"].startswith("voxray ")


@pytest.mark.parametrize(("changed", "says"), [
    ({"seed": 1}, "seed 0 there, 1 here"), ({"sites": 5}, "sites 4 there, 5 here"), ({"sizes_mm": (32.0,)}, "sizes_mm"),
    ({"protocol": "clinical"}, "protocol closed there, clinical here"),
])  # fmt: skip
def test_D4_another_test_is_not_mixed_with_the_one_that_is_there(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changed: dict[str, Any], says: str
) -> None:
    run(Oracle(1.0), store, monkeypatch, folder=tmp_path, **ASKED)
    (tmp_path / "nodules" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=rf"another test with planted nodules \([^)]*{says}.*--overwrite"):
        run(Oracle(0.0), store, monkeypatch, folder=tmp_path, **{**ASKED, **changed})
    other = run(Oracle(0.0), store, monkeypatch, folder=tmp_path, overwrite=True, **{**ASKED, **changed})
    assert {row.recovery for row in other.rows} == {0}
    assert NoduleResult.read_csv(tmp_path / NODULES) == other
    assert (tmp_path / "nodules" / "notes.txt").read_text() == "mine"


def test_I13_a_damaged_or_old_folder_is_said(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    planted("m", [0.0]).write_csv(tmp_path / NODULES)
    with pytest.raises(InputError, match=r"nodules\.csv' exists already"):
        run(Oracle(1.0), store, monkeypatch, folder=tmp_path, **ASKED)
    run(Oracle(1.0), store, monkeypatch, folder=tmp_path, overwrite=True, **ASKED)
    (tmp_path / "nodules" / "phantom20-without.json").write_text("[{}]")
    with pytest.raises(InputError, match=r"phantom20-without\.json' cannot be read"):
        run(Oracle(1.0), store, monkeypatch, folder=tmp_path, **ASKED)
    (tmp_path / "nodules.json").write_text("{}")
    with pytest.raises(InputError, match=r"nodules\.json' cannot be read"):
        run(Oracle(1.0), store, monkeypatch, folder=tmp_path, **ASKED)


def test_nothing_of_somebody_else_is_deleted(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Files with names like ours, in a folder called like ours, without our word for it."""
    mine = tmp_path / "out" / "nodules" / "LIDC-0001-12.json"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"LIDC-0001-12\.json' is in the way.*Nothing was deleted"):
            run(Oracle(1.0), store, monkeypatch, folder=tmp_path / "out", overwrite=overwrite, **ASKED)
        with pytest.raises(InputError, match=r"cannot be made: "):
            run(Oracle(1.0), store, monkeypatch, folder=mine, overwrite=overwrite, **ASKED)
    assert mine.read_text() == "mine"


# ---------------------------------------------------------------- the numbers


def test_the_area_under_the_curve_by_hand() -> None:
    """Pairs of different sites: 1 < 2, 1 < 2; 2 > 0, 2 = 2; 3 > 0, 3 > 2."""
    assert auc(np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0, 2.0]))[0] == pytest.approx(3.5 / 6)


def test_the_area_of_independent_scores_is_scipys_mann_whitney_statistic() -> None:
    """All pairs of ten sites but the ten of a site with itself, which are counted one by one."""
    rng = np.random.default_rng(0)
    present, absent = rng.integers(0, 6, 10) + 1.0, rng.integers(0, 6, 10) + 0.0
    themselves = (present > absent).sum() + 0.5 * (present == absent).sum()
    assert auc(present, absent)[0] == pytest.approx((mannwhitneyu(present, absent).statistic - themselves) / 90)


@pytest.mark.parametrize("n", [30, 270])
def test_the_interval_of_the_area_is_as_wide_as_its_error(n: int) -> None:
    """Standard error of an AUC of 0.76 (d' = 1) from n and n: 0.34 / sqrt(n) (Hanley and McNeil 1982, equation 1)."""
    rng = np.random.default_rng(0)
    area, low, high = auc(rng.normal(1, 1, n), rng.normal(0, 1, n))
    assert low < area < high
    assert high - low == pytest.approx(2 * 1.96 * 0.34 / np.sqrt(n), rel=0.35)


def test_a_trace_of_a_nodule_that_no_one_could_see_is_not_detected() -> None:
    """Each site with a nodule beats itself without one by far less than sites differ: an area of one half."""
    sites = np.random.default_rng(0).normal(0, 100, 12)
    area, low, high = auc(sites + 1e-6, sites)
    assert (area, low, high) == pytest.approx((0.5, 0.5, 0.5))


def test_the_table_holds_every_nodule(tmp_path: Path) -> None:
    row = NoduleRow("a", "closed", "m", "pa,lateral", 3, 1.0, 2.0, 3.0, 16.0, 800.0, -700.0, -900.0, 0.25)
    path = tmp_path / "nodules.csv"
    NoduleResult((row,)).write_csv(path)
    with path.open(newline="") as file:
        assert list(csv.DictReader(file)) == [{
            "case": "a", "protocol": "closed", "model": "m", "views": "pa,lateral", "site": "3",
            "x_mm": "1.0", "y_mm": "2.0", "z_mm": "3.0", "diameter_mm": "16.0",
            "inserted_hu": "800.0", "with_hu": "-700.0", "without_hu": "-900.0", "recovery": "0.25",
        }]  # fmt: skip
    assert NoduleResult.read_csv(path).rows == (row,)
    with pytest.raises(InputError, match="exists already"):
        NoduleResult(()).write_csv(path)


def planted(model: str, recoveries: list[float], size: float = 16.0) -> NoduleResult:
    return NoduleResult(tuple(
        NoduleRow("a", "closed", model, "pa", i, 0.0, 0.0, 0.0, size, 800.0, -900.0 + 800 * part, -900.0, part)
        for i, part in enumerate(recoveries)
    ))  # fmt: skip


def test_lines_are_of_one_model_and_one_diameter() -> None:
    rows = (*planted("m", [0.0, 1.0]).rows, *planted("n", [1.0]).rows, *planted("m", [0.5, 0.5], 24.0).rows)
    lines = NoduleResult(rows).summary()
    found = [(line.group.model, line.diameter_mm, line.sites, line.recovery, line.auc) for line in lines]
    assert found[0] == ("m", 16, 2, 0.5, 0.75)  # the first site with its nodule draws with the second, which beats it
    assert found[2] == ("m", 24, 2, 0.5, 1)
    assert found[1][:4] == ("n", 16, 1, 1)
    assert np.isnan([found[1][4], *lines[1].auc_interval, *lines[1].recovery_interval]).all()


def test_another_test_of_the_same_model_has_the_name_of_its_folder(tmp_path: Path) -> None:
    for name, result in (("one", planted("m", [0.0])), ("two", planted("m", [1.0])), ("three", planted("n", [1.0]))):
        (tmp_path / name).mkdir()
        result.write_csv(tmp_path / name / NODULES)
    again = tmp_path / "three" / "two"
    again.mkdir()
    planted("m", [0.5]).write_csv(again / NODULES)
    folders = [*(tmp_path / name for name in ("one", "two", "three", "two", "nowhere")), again]
    found = [(row.model, row.recovery) for row in read_nodules(folders).rows]
    assert found == [("m", 0), ("m (two)", 1), ("n", 1), (f"m ({again})", 0.5)]


@pytest.mark.parametrize(("line", "old", "new", "says"), [
    (2, ",16.0,", ",large,", "line 3, diameter_mm: .*a valid number"), (1, "closed", "open", "line 2, protocol: "),
    (0, "recovery", "found", "line 2, recovery: Field required"),
])  # fmt: skip
def test_I13_a_damaged_table_is_named(tmp_path: Path, line: int, old: str, new: str, says: str) -> None:
    planted("m", [0.0, 1.0]).write_csv(tmp_path / NODULES)
    lines = (tmp_path / NODULES).read_text().splitlines()
    lines[line] = lines[line].replace(old, new)
    (tmp_path / NODULES).write_text("\n".join(lines))
    with pytest.raises(InputError, match=rf"nodules\.csv' is no table of planted nodules \({says}"):
        read_nodules([tmp_path])


@pytest.mark.parametrize(("arguments", "message"), [
    ({"sizes_mm": ()}, r"2 cases, the diameters \[\] mm"), ({"sizes_mm": (10.0, 1.0)}, r"a voxel \(\d+ mm\) or more"),
    ({"sizes_mm": (float("nan"),)}, r"mm\) or more"), ({"sites": 1}, r"and 1 sites"),
    ({"sizes_mm": (150.0,)}, r"'phantom20' have room for 0 of"),
])  # fmt: skip
def test_what_cannot_be_tested_is_said(
    store: Store, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run(Oracle(1.0), store, monkeypatch, **arguments)
    with pytest.raises(InputError, match="but the model works on"):
        run(Oracle(1.0, grid=VolumeGrid.centred(shape=(32, 32, 32), spacing_mm=9.0)), store, monkeypatch)


def test_I12_what_is_refused_is_refused_before_an_older_test_is_deleted(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run(Oracle(1.0), store, monkeypatch, folder=tmp_path, **ASKED)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.*")}
    other = VolumeGrid.centred(shape=(32, 32, 32), spacing_mm=9.0)
    with pytest.raises(InputError, match="but the model works on"):
        run(Oracle(1.0, grid=other), store, monkeypatch, folder=tmp_path, overwrite=True, **ASKED)
    near = ViewSet("pa", ViewGeometry.from_names(["pa"], setup=Setup(200.0, 100.0, 25.6, (16, 16))))
    with pytest.raises(GeometryError, match="source of view 'pa' lies inside the volume"):
        nodule_test(replace(plan(Oracle(1.0), store, **ASKED), views=near), tmp_path, overwrite=True)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.*")} == before
