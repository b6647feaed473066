"""The sections `data` and `training` of a recipe."""

import pytest
import yaml

from voxray.data.dataset import RandomViews
from voxray.errors import RecipeError
from voxray.geometry import ViewGeometry
from voxray.recipes import Recipe
from voxray.recipes.recipe import parse_recipe

RECIPE = {"name": "mine", "method": "atlas"}


def parsed(**sections: object) -> Recipe:
    return parse_recipe(yaml.safe_dump(RECIPE | sections), "mine")


def test_a_mixture_is_built_as_it_is_written() -> None:
    views = [
        {"names": ["pa", "45"], "setup": "perx2ct", "share": 2.5}, {"count": [1, 4], "secondary_deg": [-10, 10]},
        {"count": 3, "primary_deg": [0, 90]}, {"circular": 4}, {"circular": 2, "primary_deg": [-45, 45]},
    ]  # fmt: skip
    mixed = parsed(data={"views": views, "closed": 1}).data.mixed_views()
    assert mixed.shares == (2.5, 1.0, 1.0, 1.0, 1.0)
    assert mixed.choices == (
        ViewGeometry.from_names(["pa", "45"], setup="perx2ct"),
        RandomViews((1, 4), (-180.0, 180.0), (-10.0, 10.0)),
        RandomViews((3, 3), (0.0, 90.0)),
        ViewGeometry.circular(4),
        ViewGeometry.circular(2, 90.0, -45.0),
    )


def test_what_is_not_said_has_a_default_and_is_written_down() -> None:
    recipe = parsed()
    assert recipe.data.mixed_views().choices == (ViewGeometry.from_names(["pa", "lateral"]),)
    written = yaml.safe_load(recipe.to_yaml())
    assert (written["data"]["closed"], written["data"]["variants"]) == (0.3, 40)
    assert written["training"] == {"precision": "bf16", "seed": 0}
    other = parsed(data={"views": [{"count": 3}, {"names": ["pa"]}], "photons": 1e5}, training={"precision": "fp32"})
    for one in (recipe, other):
        again = parse_recipe(one.to_yaml(), "again")
        assert (again.data, again.training) == (one.data, one.training)


@pytest.mark.parametrize(("data", "message"), [
    ({"views": []}, "views: Tuple should have at least 1 item"),
    ({"views": [{"names": ["pa"], "count": 2}]}, "exactly one of names, count and circular"),
    ({"views": [{"share": 1}]}, "exactly one of names, count and circular"),
    ({"views": [{"names": ["front"]}]}, r"Unknown view in \['front'\]; a view is one of pa, ap"),
    ({"views": [{"names": []}]}, r"names: Tuple should have at least 1 item"),
    ({"views": [{"names": ["pa", "pa"]}]}, "2 different names"),
    ({"views": [{"count": [4, 1]}]}, "ends before it begins"),
    ({"views": [{"count": 0}]}, "greater than or equal to 1"),
    ({"views": [{"count": True}]}, "count.0: Input should be a valid integer"),
    ({"views": [{"count": 2.5}]}, "count: Input should be a valid tuple"),
    ({"views": [{"circular": 65}]}, "less than or equal to 64"),
    ({"views": [{"names": ["pa"], "share": 0}]}, "share: Input should be greater than 0"),
    ({"views": [{"names": ["pa"], "setup": "mine"}]}, "no preset 'mine'; the presets are chest"),
    ({"closed": 1.1}, "closed: Input should be less than or equal to 1"),
    ({"photons": 0}, "photons: Input should be greater than 0"),
    ({"variants": -1}, "variants"), ({"phantoms": 0.5}, "phantoms"), ({"colour": 1}, "colour: Extra"),
])  # fmt: skip
def test_I13_data_that_make_no_sense_are_named(data: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parsed(data=data)


@pytest.mark.parametrize("training", [{"precision": "fp16"}, {"seed": -1}, {"steps": 3}])
def test_I13_training_that_makes_no_sense_is_named(training: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match=f"training.{next(iter(training))}"):
        parsed(training=training)
