"""Several models on one store: named, resumed, refused, in parallel."""

import csv
import json
import mmap
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from comparing import OPTIONS, QUICK, TINY
from small_models import GRID

from voxray.api import compare, evaluate
from voxray.data.store import Store, case_path, write_case
from voxray.errors import GeometryError, InputError, VoxrayWarning
from voxray.evaluation.compare import ModelSpec, check_labels
from voxray.evaluation.cost import measured
from voxray.evaluation.folder import MANIFEST, ROWS, ResultsFolder
from voxray.evaluation.results import Row, ViewSet
from voxray.evaluation.run import Contender, Plan, run_plan
from voxray.geometry import Setup, VolumeGrid
from voxray.images import CTVolume
from voxray.methods import Method

ONE = replace(OPTIONS, metrics=("psnr3d", "residual"))


def without_cost(rows: tuple[Row, ...]) -> list[Row]:
    """The rows, but for what no two runs share."""
    return [replace(row, seconds=None, memory_mb=None) for row in rows]


class Fake(Method):
    """A method that answers with the truth's mean, refuses some views, and counts what it is asked."""

    name = "fake"

    def __init__(self, method: Method, most_views: int = 99) -> None:
        super().__init__(method.config, method.grid)
        self.method, self.most_views, self.asked = method, most_views, 0

    def stages(self) -> list:
        return []

    def reconstruct(self, radiograph, *, rng, samples=1, outside="body", progress=None):  # type: ignore[no-untyped-def]
        if len(radiograph.views) > self.most_views:
            raise GeometryError(f"At most {self.most_views} views, not {len(radiograph.views)}.")
        self.asked += 1
        return self.method.plain_mean(radiograph.views, outside)


# ---------------------------------------------------------------- models as they are written


@pytest.mark.parametrize(("text", "model", "overrides"), [
    ("atlas", "atlas", ()),
    ("dvg-net:config.consistency.final=false", "dvg-net", ("config.consistency.final=false",)),
    ("./a:b/run:config.a=1:config.b={c: 2}", "./a:b/run", ("config.a=1", "config.b={c: 2}")),
])  # fmt: skip
def test_a_model_and_its_settings_are_read(text: str, model: str, overrides: tuple[str, ...]) -> None:
    assert ModelSpec.parse(text) == ModelSpec(model, overrides)


def test_a_setting_without_a_model_is_refused() -> None:
    with pytest.raises(InputError, match="names no model"):
        ModelSpec.parse(":config.a=1")


def test_a_model_with_settings_is_called_by_them() -> None:
    assert ModelSpec("runs/x", ("config.consistency.final=false",)).label("x") == "x consistency.final=false"


@pytest.mark.parametrize(
    ("labels", "says"),
    [(("a", "a"), "Two models are called 'a'"), (("a", "mean"), "plain mean"), (("mean of a",), "plain mean")],
)
def test_two_models_never_share_a_name(labels: tuple[str, ...], says: str) -> None:
    with pytest.raises(InputError, match=says):
        check_labels([Contender(label, lambda: None, GRID) for label in labels])  # type: ignore[arg-type,return-value]


# ---------------------------------------------------------------- what is kept, and gone on with


def test_results_are_whole_and_in_order(compared: Path) -> None:
    manifest = json.loads((compared / MANIFEST).read_text())
    labels = ["small iterations=1 detail_iterations=1", "small iterations=3 detail_iterations=1", "mean"]
    assert list(manifest["models"]) == labels
    with (compared / ROWS).open(newline="") as file:
        rows = list(csv.DictReader(file))
    views = ["pa", "pa,60,120"]
    assert [(row["case"], row["views"], row["model"]) for row in rows] == [
        (f"phantom{case}", view, label) for case in (20, 21, 22) for view in views for label in labels
    ]
    assert list(rows[0])[:8] == ["case", "protocol", "model", "psnr3d", "ssim", "mae_hu", "residual", "uncertainty"]
    assert {row["seconds"] == "" for row in rows if row["model"] == "mean"} == {True}
    assert all(float(row["seconds"]) > 0 for row in rows if row["model"] != "mean")


def test_planes_are_those_of_truth_and_reconstruction(compared: Path, phantom_store: Path) -> None:
    """The axial plane is seen from the feet with the front on top; the others have the head on top."""
    folder = ResultsFolder.open(compared)
    row = next(row for row in folder.rows() if row.case == "phantom21")
    volume, truth = folder.planes(row)
    hu = Store.open(phantom_store).load("phantom21").volume.hu.numpy()
    assert np.array_equal(truth.hu[0], hu[16])
    assert np.array_equal(truth.hu[1], hu[::-1, 16])
    assert np.array_equal(truth.hu[2], hu[::-1, :, 16])
    assert truth.size_mm == ((320.0, 320.0),) * 3
    error = np.concatenate([(a.astype(float) - b).ravel() for a, b in zip(volume.hu, truth.hu, strict=True)])
    assert 0 < np.abs(error).mean() < 300


def test_D4_a_stopped_comparison_goes_on_where_it_was(phantom_model: Path, phantom_store: Path, tmp_path: Path) -> None:
    models, calls = [f"{phantom_model}{QUICK}"], []

    def stop(done: int, _: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    whole = compare(models, phantom_store, tmp_path / "whole", options=ONE)
    with pytest.raises(KeyboardInterrupt):
        compare(models, phantom_store, tmp_path / "cut", options=ONE, progress=stop)
    kept = sorted((tmp_path / "cut" / "trials").iterdir())
    times = [file.stat().st_mtime_ns for file in kept]
    assert len(kept) == 4
    (tmp_path / "cut" / "trials" / ".voxray-tmp-0-x.safetensors").write_bytes(b"half")
    again = compare(models, phantom_store, tmp_path / "cut", options=ONE, progress=lambda *at: calls.append(at))
    assert calls == [(5, 6), (6, 6)]
    assert without_cost(again.rows) == without_cost(whole.rows)
    assert [file.stat().st_mtime_ns for file in kept] == times
    assert not list((tmp_path / "cut" / "trials").glob(".*"))


def test_I12_results_of_another_evaluation_are_not_mixed_with_this_one(
    phantom_model: Path, phantom_store: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "results"
    quick = f"{phantom_model}{QUICK}"
    compare([quick], phantom_store, folder, options=ONE)
    before = (folder / ROWS).read_bytes()
    others: list[tuple[str, Callable[[], object]]] = [
        ("seed 0 there, 1 here", lambda: compare([quick], phantom_store, folder, options=replace(ONE, seed=1))),
        ("other cases: phantom00, phantom20", lambda: compare(
            [quick], phantom_store, folder, options=replace(ONE, split="train"))),
        ("other views: pa", lambda: compare([quick], phantom_store, folder, views=[["pa"]], options=ONE)),
        ("other models", lambda: compare([str(phantom_model)], phantom_store, folder, options=ONE)),
        ("other metrics", lambda: compare([quick], phantom_store, folder, options=replace(ONE, metrics=("ssim",)))),
    ]  # fmt: skip
    for says, run in others:
        with pytest.raises(InputError, match=f"{says}.*--overwrite"):
            run()
        assert (folder / ROWS).read_bytes() == before
    new = compare([quick], phantom_store, folder, options=replace(ONE, metrics=("ssim",), overwrite=True))
    assert new.metrics == ("ssim",)
    assert len(ResultsFolder.open(folder).rows()) == len(new.rows) == 6
    (folder / MANIFEST).write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        compare([quick], phantom_store, folder, options=ONE)
    assert len(compare([quick], phantom_store, folder, options=replace(ONE, overwrite=True)).rows) == 6


def test_I12_a_folder_of_something_else_is_left_alone(phantom_model: Path, phantom_store: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match=r"holds other files than results of an evaluation \(letter.txt, ...\)"):
        evaluate(phantom_model, phantom_store, tmp_path, options=replace(ONE, overwrite=True))
    assert [file.name for file in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("name", ["trials/notes/", "rows.csv/", "trials/model.safetensors", "truths/letter.txt"])
def test_I12_only_what_voxray_wrote_is_overwritten(compared: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(compared, tmp_path / "copy")
    mine = tmp_path / "copy" / name
    if name.endswith("/"):
        if mine.is_file():
            mine.unlink()
        mine.mkdir()
    else:
        mine.write_text("dear")
    before = sorted((tmp_path / "copy").rglob("*"))
    with pytest.raises(InputError, match=f"{name.rstrip('/')}' is in the way.*Nothing was deleted"):
        ResultsFolder.start(tmp_path / "copy", ResultsFolder.open(compared).manifest, overwrite=True)
    assert sorted((tmp_path / "copy").rglob("*")) == before


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(("views", "changed", "error", "says"), [
    (["pa"], {"metrics": ("fid",)}, InputError, "FID of fewer than 50 cases"),
    (["pa"], {"metrics": ("psnr",)}, InputError, "no metric 'psnr'"),
    (["top"], {}, GeometryError, "top"),
    (["pa"], {"setup": Setup(200.0, 100.0, 25.6, (16, 16))}, GeometryError, "source of view 'pa' lies inside"),
])  # fmt: skip
def test_I12_what_cannot_be_done_is_refused_before_older_results_are_deleted(
    compared: Path, phantom_model: Path, phantom_store: Path, tmp_path: Path,
    views: list[str], changed: dict[str, Any], error: type[Exception], says: str,
) -> None:  # fmt: skip
    folder = Path(shutil.copytree(compared, tmp_path / "copy"))
    before, options = contents(folder), replace(ONE, overwrite=True, **changed)
    with pytest.raises(error, match=says):
        compare([f"{phantom_model}{QUICK}"], phantom_store, folder, views=[views], options=options)
    assert contents(folder) == before


def test_I12_so_is_a_store_with_a_case_on_another_grid(
    compared: Path, phantom_model: Path, phantom_store: Path, tmp_path: Path
) -> None:
    """The first cases are on the model's."""
    folder, store = (Path(shutil.copytree(path, tmp_path / path.name)) for path in (compared, phantom_store))
    before, case = contents(folder), Store.open(store).load("phantom22")
    cut = CTVolume(case.volume.hu[:28], VolumeGrid((28, 32, 32), case.volume.grid.affine))
    write_case(case_path(store, case.id), replace(case, volume=cut))
    with pytest.raises(InputError, match=r"'phantom22' is on a grid of \(28, 32, 32\)"):
        compare([f"{phantom_model}{QUICK}"], store, folder, options=replace(ONE, overwrite=True))
    assert contents(folder) == before


def test_results_that_are_overwritten_are_gone(compared: Path, tmp_path: Path) -> None:
    shutil.copytree(compared, tmp_path / "copy")
    (tmp_path / "copy" / "trials" / ".voxray-tmp-0-x.safetensors").write_bytes(b"half")
    (tmp_path / "copy" / "letter.txt").write_text("dear")
    ResultsFolder.start(tmp_path / "copy", ResultsFolder.open(compared).manifest, overwrite=True)
    files = {file.name for file in (tmp_path / "copy").rglob("*") if file.is_file()}
    assert files == {MANIFEST, "letter.txt"}


def test_D4_what_a_killed_start_leaves_and_planted_nodules_are_no_hindrance(compared: Path, tmp_path: Path) -> None:
    (tmp_path / "trials").mkdir()
    for name in (".voxray-tmp-0-evaluation.json", "nodules.csv"):
        (tmp_path / name).write_text("half")
    manifest = ResultsFolder.open(compared).manifest
    ResultsFolder.start(tmp_path, manifest)
    assert ResultsFolder.open(tmp_path).manifest == manifest
    assert (tmp_path / "nodules.csv").read_text() == "half"


@pytest.mark.parametrize("overwrite", [False, True])
def test_D4_results_without_their_request_are_not_mixed_in(compared: Path, tmp_path: Path, overwrite: bool) -> None:
    shutil.copytree(compared, tmp_path / "copy")
    for name in (MANIFEST, "rows.csv"):
        (tmp_path / "copy" / name).unlink()
    before = sorted((tmp_path / "copy").rglob("*"))
    with pytest.raises(InputError, match=r"holds other files than results of an evaluation \(trials/phantom"):
        ResultsFolder.start(tmp_path / "copy", ResultsFolder.open(compared).manifest, overwrite=overwrite)
    assert sorted((tmp_path / "copy").rglob("*")) == before


def test_I12_weights_of_lpips_that_came_later_are_not_mixed_in(compared: Path, tmp_path: Path) -> None:
    manifest = ResultsFolder.open(compared).manifest
    ResultsFolder.start(tmp_path / "new", manifest)
    with pytest.raises(InputError, match="other lpips"):
        ResultsFolder.start(tmp_path / "new", manifest.model_copy(update={"lpips": ("vgg",)}))


def test_I2_a_damaged_result_is_named(compared: Path, tmp_path: Path) -> None:
    shutil.copytree(compared, tmp_path / "copy")
    file = sorted((tmp_path / "copy" / "trials").iterdir())[0]
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match=file.name):
        ResultsFolder.open(tmp_path / "copy").rows()


# ---------------------------------------------------------------- views that a model cannot serve


def plan(method: Method, store: Path, views: list[list[str]]) -> Plan:
    contender = Contender("fake", lambda: method, method.grid)
    entries = tuple((contender, ViewSet.of(names, setup=TINY)) for names in views)
    return Plan(Store.open(store), ("phantom20", "phantom21"), entries, ("closed",), ("psnr3d",))


def test_a_model_is_left_out_where_it_cannot_serve_the_views(phantom_model: Path, phantom_store: Path) -> None:
    from voxray.models import load_model

    fake = Fake(load_model(phantom_model).method, most_views=1)
    with pytest.warns(VoxrayWarning, match="'fake' is left out for the views 'pa,lateral': At most 1 views, not 2"):
        found = run_plan(plan(fake, phantom_store, [["pa"], ["pa", "lateral"]]))
    assert [(row.case, row.views) for row in found.rows] == [("phantom20", "pa"), ("phantom21", "pa")]
    assert fake.asked == 2
    with pytest.raises(GeometryError, match="At most 1 views"):
        run_plan(plan(fake, phantom_store, [["pa", "lateral"]]))
    alone = plan(fake, phantom_store, [["pa", "lateral"]])
    mean = replace(alone.entries[0][0], label="mean", plain=True)
    with pytest.raises(GeometryError, match="At most 1 views"):
        run_plan(replace(alone, entries=(*alone.entries, (mean, alone.entries[0][1]))))


def test_it_is_said_what_a_model_was_trained_on(phantom_store: Path, phantom_model: Path, tmp_path: Path) -> None:
    from small_models import patient, small_method, small_recipe

    from voxray.models import save_model

    recipe = small_recipe(3).model_copy(update={"trained_on": (patient(21).record.sha256,)})
    save_model(small_method(3), recipe, tmp_path / "known", "")
    with pytest.warns(VoxrayWarning, match=r"'known.*' was trained on 1 of these 3 cases \(phantom21\)"):
        evaluate(tmp_path / "known", phantom_store, options=ONE)


# ---------------------------------------------------------------- processes and costs


@pytest.mark.slow
def test_D2_workers_do_not_change_the_rows(phantom_model: Path, phantom_store: Path, tmp_path: Path) -> None:
    models = [f"{phantom_model}{QUICK}"]
    one, two = (
        compare(models, phantom_store, tmp_path / str(n), options=replace(ONE, workers=n)) for n in (1, 2)
    )  # fmt: skip
    for a, b in zip(without_cost(one.rows), without_cost(two.rows), strict=True):
        assert replace(a, scores={}) == replace(b, scores={})
        assert a.scores == pytest.approx(b.scores, rel=1e-4)


def test_the_peak_of_the_memory_is_that_of_the_block() -> None:
    def hold(size: int) -> None:
        """Touch every page of fresh memory: an allocator may have some left from other tests."""
        with mmap.mmap(-1, size) as block:
            for page in range(0, size, mmap.PAGESIZE):
                block[page] = 1

    hold(200_000_000)
    with measured(torch.device("cpu")) as small:
        hold(mmap.PAGESIZE)
    with measured(torch.device("cpu")) as large:
        hold(100_000_000)
    if small.memory_mb is None or large.memory_mb is None:
        pytest.skip("this system does not tell")
    assert large.memory_mb - small.memory_mb == pytest.approx(100, abs=10)
    assert small.seconds > 0
