"""Recipes: strict, written in YAML, stored with every model and every result."""

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from voxray.errors import InputError, RecipeError
from voxray.geometry import VolumeGrid
from voxray.images.reading import check_file, reading
from voxray.methods import Method, MethodConfig, method_named
from voxray.recipes.sections import DataRecipe, GridRecipe, Strict, TrainingRecipe


class Recipe(Strict):
    """A method, its configuration, the grid of its result, and what it is trained on.

    Raises:
        RecipeError: from `load_recipe` and `build`, if something is missing, unknown or out of range.
    """

    version: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", description="name of the model")
    description: str = ""
    method: str
    config: dict[str, Any] = Field(default_factory=dict, description="see the method's Config")
    grid: GridRecipe = GridRecipe()
    data: DataRecipe = DataRecipe()
    training: TrainingRecipe = TrainingRecipe()
    body_parts: tuple[str, ...] = Field(
        default=(), strict=False, description="what it is for, as DICOM terms of BodyPartExamined; empty for anything"
    )
    trained_on: tuple[str, ...] = Field(
        default=(), strict=False, description="SHA-256 of the scans' files, set by training; evaluation warns of them"
    )
    weights_sha256: str | None = Field(default=None, description="set when a model is saved; checked when it is loaded")

    def method_config(self) -> MethodConfig:
        """Return the method's configuration, validated."""
        cls = method_named(self.method)
        try:
            return cls.Config.model_validate(self.config)
        except ValidationError as error:
            raise RecipeError(f"Recipe {self.name!r}, config of the method {self.method!r}: {_told(error)}") from error

    def build(self) -> Method:
        """Return the method with fresh weights."""
        grid = VolumeGrid.centred(shape=self.grid.shape, spacing_mm=self.grid.spacing_mm)
        return method_named(self.method)(self.method_config(), grid)

    def to_yaml(self) -> str:
        """Write the recipe, every value of the configuration included."""
        data = self.model_dump(mode="json") | {"config": self.method_config().model_dump(mode="json")}
        return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def recipe_names() -> list[str]:
    """List the recipes that come with voxray."""
    return sorted(
        file.name.removesuffix(".yaml") for file in files(__package__).iterdir() if file.name.endswith(".yaml")
    )


def load_recipe(recipe: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe by name or from a YAML file.

    Args:
        recipe: a name of `recipe_names`, or a path.
        overrides: `key.key=value`, the value in YAML, as in `config.iterations=40`.

    Raises:
        RecipeError: if it does not exist or is not valid.
        InputError: if the file cannot be read.
    """
    if str(recipe) in recipe_names():
        text = (files(__package__) / f"{recipe}.yaml").read_text(encoding="utf-8")
    else:
        path = Path(recipe)
        if path.suffix not in (".yaml", ".yml"):
            raise RecipeError(
                f"There is no recipe {str(recipe)!r}; give one of {', '.join(recipe_names())}, or a .yaml file."
            )
        check_file(path)
        with reading(path):
            text = path.read_text(encoding="utf-8")
    return parse_recipe(text, str(recipe), overrides)


def parse_recipe(text: str, source: str, overrides: Sequence[str] = ()) -> Recipe:
    """Validate the YAML text of a recipe that came from `source`.

    Raises:
        RecipeError: if it is not valid.
    """
    data = _parse_yaml(text, source)
    if not isinstance(data, dict):
        raise RecipeError(f"{source!r} is no recipe: it holds no keys.")
    for override in overrides:
        _override(data, override)
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError(f"Recipe {source!r}: {_told(error)}") from error
    recipe.method_config()
    return recipe


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    *parents, last = key.split(".")
    if not equals or not all([*parents, last]):
        raise RecipeError(f"{override!r} is no setting: write key.key=value.")
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise RecipeError(f"{override!r}: {parent!r} has no keys below it.")
    data[last] = _parse_yaml(value, override)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, to which 1e-3 is a number too, as in YAML 1.2 and everywhere else."""


class _Dumper(yaml.SafeDumper):
    """Quotes text that looks like such a number."""


for _resolver in (_Loader, _Dumper):
    _resolver.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+\Z"), list("-+.0123456789")
    )


def _parse_yaml(text: str, source: str) -> Any:
    """Parse YAML of plain values; tags that make objects are errors."""
    try:
        with reading(source):
            return _Loader(text).get_single_data()
    except InputError as error:
        mark = getattr(error.__cause__, "problem_mark", None)
        raise RecipeError(f"{error}{f' in line {mark.line + 1}' if mark else ''}.") from error


def _told(error: ValidationError) -> str:
    """Say what pydantic found in one line."""
    return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'recipe'}: {item['msg']}" for item in error.errors()[:5])
