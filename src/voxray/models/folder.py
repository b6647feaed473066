"""Saving, finding and loading models. Loading never runs code from the folder."""

import hashlib
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from voxray.errors import CheckpointError, InputError, ModelError, RecipeError
from voxray.images.atomic import atomic_folder, refuse_existing
from voxray.methods import Method
from voxray.recipes import Recipe
from voxray.recipes.recipe import parse_recipe

RECIPE, WEIGHTS, CARD = "recipe.yaml", "weights.safetensors", "MODEL_CARD.md"

# Folders in which `load_model` looks for a name, besides the embedded models; separated like $PATH.
SEARCH_PATH = "VOXRAY_MODELS"


@dataclass(frozen=True)
class ModelInfo:
    """What a model folder says about itself."""

    name: str
    path: Path
    recipe: Recipe


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A method with its weights."""

    info: ModelInfo
    method: Method
    weights_sha256: str


def list_models() -> list[ModelInfo]:
    """List the embedded models and those in the folders of $VOXRAY_MODELS; the first of a name counts."""
    found: dict[str, ModelInfo] = {}
    for place in _places():
        for folder in sorted(place.iterdir()) if place.is_dir() else ():
            if (folder / RECIPE).is_file():
                found.setdefault(folder.name, _info(folder))
    return list(found.values())


def load_model(model: str | Path, device: torch.device | str = "cpu") -> LoadedModel:
    """Load a model by name or from its folder.

    Raises:
        ModelError: if there is no such model, or its recipe is not valid.
        CheckpointError: if the weights are damaged, do not fit the recipe, or are not finite.
    """
    info = _info(_find(model))
    path = info.path / WEIGHTS
    if not path.is_file():
        others = [file.name for file in info.path.iterdir() if file.suffix in (".pt", ".pth", ".ckpt", ".bin", ".pkl")]
        hint = f" Pickled weights ({others[0]}) are never loaded: they can run code." if others else ""
        raise CheckpointError(f"The model {info.name!r} has no {WEIGHTS} in '{info.path}'.{hint}")
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    if info.recipe.weights_sha256 not in (None, sha256):
        raise CheckpointError(
            f"'{path}' is not the file that its recipe names (another SHA-256): copy the model again."
        )
    try:
        weights = load(content)
    except SafetensorError as error:
        raise CheckpointError(f"'{path}' is damaged: {error}.") from error
    method = info.recipe.build()
    _check_weights(method, weights, path)
    method.load_state_dict({name: tensor.to(method.state_dict()[name].dtype) for name, tensor in weights.items()})
    return LoadedModel(info, method.to(device).eval(), sha256)


def save_model(method: Method, recipe: Recipe, folder: Path, card: str, *, overwrite: bool = False) -> None:
    """Write a model folder, whole or not at all; weights in half precision.

    Raises:
        InputError: if the folder exists and may not be overwritten.
        CheckpointError: if a weight is too large for half precision, or not finite.
    """
    refuse_existing(folder, overwrite)
    others = (
        [file.name for file in folder.iterdir() if file.name not in (RECIPE, WEIGHTS, CARD)] if folder.is_dir() else []
    )
    if others:
        raise InputError(f"'{folder}' holds other files than a model ({others[0]}, ...): choose another folder.")
    weights = {
        name: tensor.half().contiguous() if tensor.is_floating_point() else tensor
        for name, tensor in method.state_dict().items()
    }
    bad = [name for name, tensor in weights.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise CheckpointError(f"These weights are not finite in half precision: {', '.join(bad[:10])}.")
    content = save(weights)
    recipe = recipe.model_copy(update={"weights_sha256": hashlib.sha256(content).hexdigest()})
    with atomic_folder(folder, replaces="*") as temporary:
        (temporary / WEIGHTS).write_bytes(content)
        (temporary / RECIPE).write_text(recipe.to_yaml(), encoding="utf-8")
        (temporary / CARD).write_text(card, encoding="utf-8")


def _places() -> list[Path]:
    embedded = Path(str(files(__package__) / "embedded"))
    return [embedded, *(Path(place) for place in os.environ.get(SEARCH_PATH, "").split(os.pathsep) if place)]


def _find(model: str | Path) -> Path:
    if Path(model).is_dir():
        return Path(model)
    names = []
    for place in _places():
        if place.is_dir():
            names += [folder.name for folder in place.iterdir() if (folder / RECIPE).is_file()]
            if str(model) in names:
                return place / str(model)
    raise ModelError(
        f"There is no model {str(model)!r}; the models are {', '.join(sorted(set(names)))}, or give a model folder."
    )


def _info(folder: Path) -> ModelInfo:
    path = folder / RECIPE
    if not path.is_file():
        raise ModelError(f"'{folder}' is no model folder: it has no {RECIPE}.")
    try:
        recipe = parse_recipe(path.read_text(encoding="utf-8"), str(path))
    except (RecipeError, OSError, UnicodeDecodeError) as error:
        raise ModelError(f"The model in '{folder}' cannot be used: {error}") from error
    return ModelInfo(recipe.name, folder, recipe)


def _check_weights(method: Method, weights: dict[str, Tensor], path: Path) -> None:
    wanted = {name: tuple(tensor.shape) for name, tensor in method.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    faults = [f"missing {name}" for name in wanted.keys() - given.keys()]
    faults += [f"unexpected {name}" for name in given.keys() - wanted.keys()]
    faults += [
        f"{name} is {given[name]}, not {wanted[name]}"
        for name in wanted.keys() & given.keys()
        if given[name] != wanted[name]
    ]
    faults += [f"{name} is not finite" for name, tensor in weights.items() if not bool(torch.isfinite(tensor).all())]
    if faults:
        raise CheckpointError(f"'{path}' does not fit its recipe: {'; '.join(sorted(faults)[:10])}.")
