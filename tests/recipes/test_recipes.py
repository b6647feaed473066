"""Recipes: strict, written as they are read, and never a way to run code."""

from pathlib import Path

import pytest
import torch
import yaml

from voxray.errors import InputError, RecipeError
from voxray.methods import method_named, method_names
from voxray.methods.base import Method
from voxray.recipes import Recipe, load_recipe, recipe_names
from voxray.recipes.recipe import parse_recipe

GOOD = """
name: mine
method: atlas
grid: {shape: [16, 24, 32], spacing_mm: 10}
config: {scans: 3, support_mm: 400, spacing_mm: 20, fine_length_mm: [5, 7.5]}
"""


def changed(**keys: object) -> str:
    return yaml.safe_dump(yaml.safe_load(GOOD) | keys)


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_loads_builds_and_comes_back(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    coarse = load_recipe(name, ["grid.spacing_mm=5"])
    with torch.device("meta"):
        assert coarse.build().grid.spacing_mm.tolist() == [5, 5, 5]
    again = parse_recipe(recipe.to_yaml(), "again")
    assert again.to_yaml() == recipe.to_yaml()
    assert again.method_config() == recipe.method_config()


def test_what_is_written_holds_every_value() -> None:
    recipe = parse_recipe(GOOD, "good")
    data = yaml.safe_load(recipe.to_yaml())
    assert data["config"] == recipe.method_config().model_dump(mode="json")
    assert data["config"]["iterations"] > 0, "a default, which the text does not name"
    assert recipe.build().grid.shape == (16, 24, 32)
    assert recipe.build().grid.centre_mm == pytest.approx([0, 0, 0])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"colour": 1}, "colour: Extra inputs"),
        ({"name": None}, "name: Input should be a valid string"),
        ({"name": "../mine"}, "name: String should match"),
        ({"name": "Mine\n"}, "name: String should match"),
        ({"version": 2}, "version: Input should be 1"),
        ({"grid": {"shape": [16, 16]}}, r"grid.shape.2: Field required"),
        ({"grid": {"shape": [16, 16, 0]}}, r"grid.shape.2: Input should be greater"),
        ({"grid": {"shape": [16, 16, 10**9]}}, r"grid.shape.2: Input should be less"),
        ({"grid": {"shape": [16, 16, 16.5]}}, r"grid.shape.2: Input should be a valid integer"),
        ({"grid": {"spacing_mm": float("inf")}}, "grid.spacing_mm: Input should be"),
        ({"grid": {"spacing_mm": -1}}, "grid.spacing_mm: Input should be greater"),
        ({"grid": {"depth": 1}}, "grid.depth: Extra inputs"),
        ({"config": {"scans": "3"}}, "scans: Input should be a valid integer"),
        ({"config": {"scans": 3, "iterations": True}}, "iterations: Input should be a valid integer"),
        ({"config": {"scans": 3, "noise": float("nan")}}, "noise: Input should be"),
        ({"config": {"scans": 1}}, "scans: Input should be greater"),
        ({"config": {"scan": 3}}, "scan: Extra inputs"),
        ({"config": [1]}, "config: Input should be a valid dictionary"),
        ({"method": 7}, "method: Input should be a valid string"),
    ],
)
def test_M1_a_recipe_is_strict(keys: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe(changed(**keys), "mine.yaml")


@pytest.mark.parametrize(
    "name",
    ["os.system", "os", "voxray.methods.atlas", "base", "reconstruction", "__init__", "atlas.Atlas", "../atlas", "",
     "Atlas", "atlas ", "subprocess:run"],
)  # fmt: skip
def test_M1_only_methods_have_names(name: str) -> None:
    with pytest.raises(RecipeError, match=r"There is no method .*; the methods are .*atlas"):
        parse_recipe(changed(method=name), "mine.yaml")


def test_every_method_is_found_by_its_name() -> None:
    assert "atlas" in method_names()
    for name in method_names():
        method = method_named(name)
        assert issubclass(method, Method)
        assert method.name == name


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch evil']",
        "name: !!python/name:os.system ''",
        "!!python/object/new:type {}",
        "name: [", "a: !!bool x", "a: 2020-13-45", "a: !!int ''", "a: !!timestamp x", "[" * 5000, "a: *b", "\0",
        "\ttab", "? [a]\n: b", "x: &x [*x]", "- a", "7", "", "null", "<<: 7", "!!binary x",
    ],
)  # fmt: skip
def test_I13_what_is_no_recipe_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match="mine"):
        parse_recipe(text, "mine.yaml")
    assert not list(tmp_path.iterdir())


def test_I13_a_billion_laughs_are_refused_without_being_laughed() -> None:
    lines = ["a0: &a0 lol"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    with pytest.raises(RecipeError, match="a0: Extra inputs"):
        parse_recipe("\n".join(lines), "mine.yaml")
    laughs = yaml.safe_load("\n".join(lines))["a29"]
    with pytest.raises(RecipeError, match="scans: Input should be a valid integer"):
        Recipe(name="x", method="atlas", config={"scans": laughs}).method_config()


def test_a_syntax_error_names_file_and_line() -> None:
    with pytest.raises(RecipeError, match=r"'mine\.yaml' cannot be read: .* in line 3"):
        parse_recipe("name: a\nmethod: b\nconfig: }", "mine.yaml")


def test_settings_override_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    overrides = ["config.iterations=7", "grid.shape=[8, 9, 10]", "description=Öl = gut", "config.fine_length_mm=[3]"]
    recipe = load_recipe(path, overrides)
    assert recipe.config["iterations"] == 7
    assert recipe.grid.shape == (8, 9, 10)
    assert recipe.description == "Öl = gut"
    assert recipe.method_config().model_dump()["fine_length_mm"] == (3.0,)
    assert recipe.config["scans"] == 3, "the rest stays"


@pytest.mark.parametrize("written", ["5e-2", "5E-2", "5.e-2", ".5e-1", "0.05", "+5.0e-02"])
def test_numbers_may_have_exponents(written: str) -> None:
    """PyYAML alone takes 5e-2 for text."""
    assert load_recipe("atlas", [f"config.floor={written}"]).method_config().model_dump()["floor"] == 0.05


def test_text_that_looks_like_a_number_comes_back_as_text() -> None:
    recipe = load_recipe("atlas", ["description='1e5'"])
    assert recipe.description == "1e5"
    assert parse_recipe(recipe.to_yaml(), "again") == parse_recipe(recipe.to_yaml(), "once more")
    assert parse_recipe(recipe.to_yaml(), "again").description == "1e5"


@pytest.mark.parametrize("written", ["e5", "1e", "5e-2x", "1e5.5"])
def test_what_only_looks_like_a_number_is_none(written: str) -> None:
    assert load_recipe("atlas", [f"description={written}"]).description == written


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("config.iterations", "is no setting: write key.key=value"),
        ("=7", "is no setting"),
        ("config.=7", "is no setting"),
        ("config..a=7", "is no setting"),
        ("name.first=7", "'name' has no keys below it"),
        ("config.scans=[", "cannot be read"),
        ("config.scans=!!python/object:os.system {}", "cannot be read"),
        ("config.speed=7", "speed: Extra inputs"),
        ("speed.up=7", "speed: Extra inputs"),
        ("config.iterations=many", "iterations: Input should be a valid integer"),
    ],
)
def test_bad_settings_are_refused(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("atlas", [override])


def test_what_cannot_be_loaded_is_said(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no recipe 'atlsa'; give one of .*atlas.*, or a \.yaml file"):
        load_recipe("atlsa")
    with pytest.raises(InputError, match="There is no file"):
        load_recipe(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes("name: Öl".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.yaml' cannot be read"):
        load_recipe(tmp_path / "latin.yaml")
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(InputError, match="is not a file"):
        load_recipe(tmp_path / "folder.yaml")


def test_a_recipe_does_not_change() -> None:
    recipe = parse_recipe(GOOD, "good")
    with pytest.raises(ValueError, match="frozen"):
        recipe.name = "other"  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        recipe.method_config().scans = 4  # type: ignore[attr-defined]
