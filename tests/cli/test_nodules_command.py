"""`voxray nodules`, and the same in Python."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from comparing import TINY
from small_models import small_method, small_recipe, write_store

import voxray
from voxray.api import NoduleOptions
from voxray.cli.nodules import NoduleArguments
from voxray.errors import InputError
from voxray.evaluation.nodule_results import NODULES, NoduleResult
from voxray.models import save_model
from voxray.models.folder import model_sha256

Cli = Callable[..., object]
QUICK = ("--set", "config.iterations=1", "--set", "config.detail_iterations=1", "--setup", "xraysyn")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model of three phantoms, and a store of two others."""
    folder = tmp_path_factory.mktemp("nodules")
    save_model(small_method(3), small_recipe(3), folder / "small", "")
    return folder / "small", write_store(folder / "store", {"train": [0], "val": [20, 21]})


def test_the_command_writes_a_table_and_shows_its_means(cli: Cli, places: tuple[Path, Path], tmp_path: Path) -> None:
    command = (
        "nodules",
        *places,
        "-o",
        tmp_path / "new" / "out",
        "--size",
        "24",
        "--size",
        "32",
        "--sites",
        "4",
        *QUICK,
    )
    done = cli(*command)
    assert (done.code, done.err) == (0, "")
    table = tmp_path / "new" / "out" / NODULES
    result = NoduleResult.read_csv(table)
    lines = result.summary()
    assert [(line.diameter_mm, line.sites) for line in lines] == [(24, 4), (32, 4)]
    assert {row.group.model for row in result.rows} == {"small iterations=1 detail_iterations=1"}
    heading, *shown, last = done.out.splitlines()
    assert re.split(r"  +", heading.strip()) == [
        "diameter, mm",
        "sites",
        "contrast, HU",
        "recovery [95 %]",
        "AUC [95 %]",
    ]
    for text, line in zip(shown, lines, strict=True):
        low, high = line.recovery_interval
        assert text.split()[:3] == [f"{line.diameter_mm:g}", "4", str(round(line.inserted_hu))]
        assert f"{line.recovery:.3f} [{low:.3f}, {high:.3f}]" in text
    assert last == str(table)
    before = [(file, file.stat().st_mtime_ns) for file in sorted((table.parent / "nodules").iterdir())]
    assert len(before) > 2
    assert cli(*command).out == done.out
    assert [(file, file.stat().st_mtime_ns) for file in sorted((table.parent / "nodules").iterdir())] == before
    other = cli(*command, "--seed", "1")
    assert (other.code, other.out) == (2, "")
    assert "seed 0 there, 1 here" in other.err
    assert cli(*command, "--overwrite").out == done.out


def test_D1_the_same_in_python(places: tuple[Path, Path], tmp_path: Path) -> None:
    options = NoduleOptions(setup=TINY, sizes_mm=(32.0, 32.0), sites=2)
    calls: list[tuple[int, int]] = []
    result = voxray.nodule_test(
        places[0], places[1], tmp_path, views=["pa"], options=options, progress=lambda *at: calls.append(at)
    )
    assert [(row.case, row.views, row.diameter_mm) for row in result.rows] == [
        ("phantom20", "pa", 32), ("phantom21", "pa", 32)
    ]  # fmt: skip
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert NoduleResult.read_csv(tmp_path / NODULES) == result
    assert voxray.nodule_test(*places, views=["pa"], options=options) == result
    assert voxray.nodule_test(*places, views=["pa"], options=replace(options, seed=1)) != result
    written = json.loads((tmp_path / "nodules.json").read_text())
    assert written["models"]["small"]["sha256"] == model_sha256(str(places[0]))
    with pytest.raises(InputError, match=r"another test with planted nodules \(other views: pa,lateral, pa"):
        voxray.nodule_test(*places, tmp_path, options=options)


@pytest.mark.slow
def test_D1_two_workers_find_the_same(places: tuple[Path, Path], tmp_path: Path) -> None:
    options = NoduleOptions(setup=TINY, sizes_mm=(32.0,), sites=2)
    assert voxray.nodule_test(*places, tmp_path, options=replace(options, workers=2)) == voxray.nodule_test(
        *places, options=options
    )


def test_arguments_and_library_have_the_same_defaults() -> None:
    assert NoduleArguments().options() == NoduleOptions()


@pytest.mark.parametrize(("words", "says"), [
    (("--size", "0"), "diameters of a voxel"), (("--split", "test"), "has no split 'test'; it has train, val"),
    (("--size", "200"), "have room for 0 of 16 sites of 200 mm"), (("--views", "top"), "top"),
])  # fmt: skip
def test_T2_what_cannot_be_done_is_2_and_leaves_nothing(
    cli: Cli, places: tuple[Path, Path], tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    done = cli("nodules", *places, "-o", tmp_path / "out", *words)
    assert (done.code, done.out) == (2, "")
    assert says in done.err
    assert not list(tmp_path.iterdir())
