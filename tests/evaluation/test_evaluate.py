"""Protocols, and models on the cases of a store."""

import csv
import dataclasses
import math
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import SETUP, patient, small_method, small_recipe, write_store

from voxray.api import EvaluateOptions, evaluate
from voxray.data.resample import resample
from voxray.data.store import Case, Store
from voxray.errors import GeometryError, InputError, ModelError
from voxray.evaluation.protocols import PHOTONS, make_xrays
from voxray.evaluation.results import Evaluation, Group, Row
from voxray.evaluation.run import evaluate_method
from voxray.geometry import Setup, ViewGeometry, VolumeGrid
from voxray.images import CTVolume
from voxray.models import save_model
from voxray.physics import Projector
from voxray.physics.attenuation import hu_to_mu
from voxray.physics.sampling import ray_march

VIEWS = ViewGeometry.biplanar(setup=SETUP)
TINY = Setup(1800.0, 1550.0, 25.6, (16, 16))


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model of eight phantoms, and a store of four others."""
    folder = tmp_path_factory.mktemp("evaluation")
    save_model(small_method(8), small_recipe(8), folder / "model", "")
    return folder / "model", write_store(folder / "store", {"train": [0], "val": [20, 21, 22, 23]})


# ---------------------------------------------------------------- protocols


def test_closed_xrays_are_the_projection_of_the_cube() -> None:
    case = patient(20)
    radiograph, outside = make_xrays(case, VIEWS, "closed", seed=0)
    grid = VolumeGrid.centred(shape=(32, 32, 32), spacing_mm=10.0)
    assert (outside, radiograph.kind, radiograph.views) == ("air", "line_integral", VIEWS)
    for image, expected in zip(
        radiograph.images, Projector(grid, VIEWS).forward(hu_to_mu(case.volume.hu)), strict=True
    ):
        assert torch.equal(image, expected)


def test_clinical_xrays_show_the_whole_body_with_the_noise_of_the_photons() -> None:
    """Var(log counts) = 1 / counts (delta method); with 4096 pixels a variance is known to sqrt(2 / 4096) = 2.2 %."""
    case = patient(20)
    radiograph, outside = make_xrays(case, VIEWS, "clinical", seed=0)
    grid = VolumeGrid.centred(case.scan.grid.centre_mm - case.isocentre_mm, case.scan.grid.shape, 10.0)
    assert outside == "body"
    for image, clean in zip(radiograph.images, ray_march(hu_to_mu(case.scan.hu), grid, VIEWS), strict=True):
        normal = (image - clean) * (PHOTONS * torch.exp(-clean)).sqrt()
        assert normal.square().mean() == pytest.approx(1, abs=5 * 0.022)
        assert normal.mean() == pytest.approx(0, abs=5 / 64)


def test_D2_noise_depends_on_seed_and_case_alone() -> None:
    def noise_of(case: int, seed: int) -> torch.Tensor:
        return make_xrays(patient(case), VIEWS, "clinical", seed)[0].images[0]

    first = noise_of(20, 0)
    noise_of(21, 0)
    assert torch.equal(noise_of(20, 0), first)
    assert not torch.equal(noise_of(20, 1), first)
    twin = dataclasses.replace(patient(20), record=dataclasses.replace(patient(20).record, id="other"))
    assert not torch.equal(make_xrays(twin, VIEWS, "clinical", 0)[0].images[0], first)


def test_the_place_of_the_isocentre_does_not_matter() -> None:
    case, shift = patient(20), (64.0, 0.0, -32.0)
    record = dataclasses.replace(case.record, isocentre_mm=tuple(case.isocentre_mm + shift))
    moved = dataclasses.replace(case, record=record, **{
        name: CTVolume(volume.hu, VolumeGrid.centred(volume.grid.centre_mm + shift, volume.grid.shape, 10.0))
        for name, volume in (("volume", case.volume), ("scan", case.scan))
    })  # fmt: skip
    for protocol in ("closed", "clinical"):
        one, other = (make_xrays(c, VIEWS, protocol, 0)[0] for c in (case, moved))  # type: ignore[arg-type]
        assert torch.equal(one.images[0], other.images[0])


def test_I8_an_oblique_scan_is_seen_where_it_is() -> None:
    """The ball stands off the scan's middle, and that off the isocentre: about any of them a turn would move it."""
    angle, isocentre, place = np.deg2rad(10), np.array([0.0, 0.0, -40.0]), np.array([0.0, 40.0, 40.0])
    affine = np.array(VolumeGrid.centred(shape=(96, 96, 96), spacing_mm=4.0).affine)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine[:3] = turn @ affine[:3]
    grid = VolumeGrid((96, 96, 96), affine).shifted((0, 0, 60))
    k, j, i = np.indices(grid.shape)
    distance = np.linalg.norm(grid.index_to_mm(np.stack([i, j, k], -1)) - (isocentre + place), axis=-1)
    scan = CTVolume(torch.from_numpy(np.where(distance < 20, 1000.0, -1024.0)).float(), grid)
    cube = resample(scan, VolumeGrid.centred(isocentre, (64, 64, 64), 4.0))
    record = dataclasses.replace(patient(20).record, isocentre_mm=tuple(isocentre.tolist()))
    rows, columns = np.indices(SETUP.shape)
    for protocol in ("closed", "clinical"):
        images = make_xrays(Case(record, cube, scan), VIEWS, protocol, 0)[0].images  # type: ignore[arg-type]
        for view, image in enumerate(images):
            weight = np.where(image > 0.3, image, 0.0)
            seen = np.array([(rows * weight).sum(), (columns * weight).sum()]) / weight.sum()
            assert seen == pytest.approx(np.asarray(VIEWS.project_mm(place, view)), abs=0.3), protocol
    atlas = small_recipe(2).build()
    for stage in atlas.stages():
        stage.fit([Case(record, resample(scan, VolumeGrid.centred(isocentre, (32, 32, 32), 10.0)), scan)] * 2, None)
    weight = atlas.get_buffer("around").numpy()
    index = [(np.indices(weight.shape)[axis] * weight).sum() / weight.sum() for axis in (2, 1, 0)]
    support = VolumeGrid.centred(shape=weight.shape, spacing_mm=20.0)
    assert support.index_to_mm(index) == pytest.approx(place, abs=2)


# ---------------------------------------------------------------- scores


def test_more_views_tell_more_and_each_beats_the_plain_mean(places: tuple[Path, Path]) -> None:
    model, store = places
    scores = []
    for views in (1, 2, 4):
        options = EvaluateOptions(protocols=("closed",), setup=SETUP, metrics=("psnr3d", "mae_hu", "residual"))
        lines = evaluate(model, store, views=views, options=options).summary()
        table = {line.model: line for line in lines}
        scores.append(table["model"].means["psnr3d"])
        assert table["model"].cases == 4
        assert table["model"].means["psnr3d"] > table["mean"].means["psnr3d"] + 1
        assert table["model"].means["mae_hu"] < table["mean"].means["mae_hu"]
        assert table["model"].means["residual"] < 0.5 * table["mean"].means["residual"]
    assert scores == sorted(scores)
    assert scores[2] > scores[0] + 1


def test_clinical_xrays_tell_more_than_the_plain_mean(places: tuple[Path, Path]) -> None:
    options = EvaluateOptions(protocols=("clinical",), setup=SETUP, metrics=("psnr3d",))
    lines = evaluate(*places, options=options).summary()
    assert [line.model for line in lines] == ["model", "mean"]
    assert lines[0].means["psnr3d"] > lines[1].means["psnr3d"] + 1


def test_D2_a_case_scores_the_same_alone_and_among_others(places: tuple[Path, Path]) -> None:
    store, method = Store.open(places[1]), small_method(8)
    rows = {}
    for cases in (["phantom20", "phantom21"], ["phantom21", "phantom20"], ["phantom20"]):
        calls: list[tuple[int, int]] = []
        found = evaluate_method(
            method, "m", store, cases, ViewGeometry.biplanar(setup=TINY), ("closed", "clinical"), metrics=["main"],
            progress=lambda *at, calls=calls: calls.append(at),
        )  # fmt: skip
        assert calls == [(i + 1, 4 * len(cases)) for i in range(4 * len(cases))]
        assert [row.case for row in found.rows] == [name for name in cases for _ in range(4)]
        mine = [dataclasses.replace(row, seconds=0, memory_mb=0) for row in found.rows if row.case == "phantom20"]
        assert rows.setdefault("phantom20", mine) == mine
    assert [(row.protocol, row.model) for row in rows["phantom20"]] == [
        ("closed", "m"), ("closed", "mean"), ("clinical", "m"), ("clinical", "mean")
    ]  # fmt: skip


def test_rows_become_a_summary_and_a_table(tmp_path: Path) -> None:
    rows = (
        Row("a", "closed", "m", {"psnr3d": 20.0, "uncertainty": 0.4}, "pa", 1.5, 100.0),
        Row("b", "closed", "m", {"psnr3d": 23.0, "uncertainty": None}, "pa", 2.5, 120.0),
        Row("a", "clinical", "m", {"psnr3d": math.inf, "uncertainty": None}, "pa"),
        Row("a", "closed", "m", {"psnr3d": 30.0, "uncertainty": None}, "pa,lateral"),
    )
    evaluation = Evaluation(rows, ("psnr3d", "uncertainty"))
    lines = evaluation.summary()
    assert [(line.group, line.cases) for line in lines] == [
        (Group("closed", "pa", "m"), 2), (Group("clinical", "pa", "m"), 1), (Group("closed", "pa,lateral", "m"), 1)
    ]  # fmt: skip
    assert lines[0].means == pytest.approx({"psnr3d": 21.5, "uncertainty": 0.4})
    assert math.isnan(lines[1].means["uncertainty"])
    assert lines[1].means["psnr3d"] == math.inf
    assert lines[0].stds["psnr3d"] == pytest.approx(statistics.stdev([20, 23]))
    assert math.isnan(lines[1].stds["psnr3d"])
    assert evaluation.scores(Group("closed", "pa", "m"), "uncertainty") == {"a": 0.4}
    path = tmp_path / "rows.csv"
    evaluation.write_csv(path)
    with path.open(newline="") as file:
        table = list(csv.DictReader(file))
    assert table[1] == {"case": "b", "protocol": "closed", "model": "m", "psnr3d": "23.0", "uncertainty": "",
                        "views": "pa", "seconds": "2.5", "memory_mb": "120.0"}  # fmt: skip
    with pytest.raises(InputError, match="exists already"):
        Evaluation(()).write_csv(path)
    Evaluation((), ("psnr3d",)).write_csv(path, overwrite=True)
    assert path.read_text() == "case,protocol,model,psnr3d,views,seconds,memory_mb\n"


# ---------------------------------------------------------------- refusals


def asked(**settings: object) -> dict[str, object]:
    return {"options": EvaluateOptions(**settings)}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (asked(split="test"), InputError, "no split 'test'; it has train, val"),
        (asked(metrics=("psnr4d",)), InputError, "no metric 'psnr4d'; the groups of metrics are main"),
        (asked(samples=0), InputError, "At least one sample"),
        (asked(protocols=("open",)), InputError, "no protocol 'open'; the protocols are closed, clinical"),
        ({"views": ["pa", "top"]}, GeometryError, "top"),
        ({"views": 0}, GeometryError, "At least one view"),
        (asked(setup="knee"), GeometryError, "no preset 'knee'"),
        (asked(seed=-1), InputError, "A seed is"),
        ({"model": "nobody"}, ModelError, "There is no model 'nobody'"),
        ({"store": "."}, InputError, "is no store"),
    ],
)
def test_what_cannot_be_evaluated_is_said(
    places: tuple[Path, Path], arguments: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        evaluate(**({"model": places[0], "store": places[1]} | arguments))  # type: ignore[arg-type]


def test_a_store_on_another_grid_is_refused(places: tuple[Path, Path]) -> None:
    recipe = small_recipe(2).model_copy(update={"grid": small_recipe(2).grid.model_copy(update={"spacing_mm": 9.0})})
    with pytest.raises(InputError, match=r"phantom20' is on a grid of .*10.* but the model works on .*9\.0"):
        evaluate_method(recipe.build(), "m", Store.open(places[1]), ["phantom20"], VIEWS, ["closed"])


def test_an_empty_store_is_refused(places: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "cases").mkdir()
    with pytest.raises(InputError, match="has no cases"):
        evaluate(places[0], tmp_path, options=EvaluateOptions(split=None))
