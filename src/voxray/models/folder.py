"""Saving, finding and loading models. Loading never runs code from the folder."""

import hashlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from voxray.errors import CheckpointError, InputError, ModelError, VoxrayWarning
from voxray.images.atomic import atomic_folder, refuse_existing
from voxray.images.reading import reading
from voxray.images.report import sha256_file
from voxray.methods import Method
from voxray.recipes import Recipe
from voxray.recipes.recipe import parse_recipe

RECIPE, WEIGHTS, CARD = "recipe.yaml", "weights.safetensors", "MODEL_CARD.md"

# Where the folder of a training has its model; found there, it goes by the training's name.
MODEL = "model"

# Folders in which `load_model` looks for a name, besides the embedded models; separated like $PATH.
SEARCH_PATH = "VOXRAY_MODELS"


@dataclass(frozen=True)
class ModelInfo:
    """What a model folder says about itself; its name is the folder's, by which `load_model` finds it."""

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
    """List the embedded models and those in the folders of $VOXRAY_MODELS.

    The first of a name counts. One that cannot be used is left out, with a `VoxrayWarning`.
    """
    found: dict[str, ModelInfo] = {}
    for folder in _folders():
        try:
            found.setdefault(folder.name, _info(folder))
        except ModelError as error:
            warnings.warn(str(error), VoxrayWarning, stacklevel=2)
    return list(found.values())


def load_model(model: str | Path, device: torch.device | str = "cpu", overrides: Sequence[str] = ()) -> LoadedModel:
    """Load a model by name or from its folder.

    Nothing in the folder is ever run: the recipe is plain YAML that names a method of this installation, the weights
    are safetensors. Links are followed, for the caches of model hubs are made of them; what they lead to is read in
    the same way.

    Args:
        model: a name, or a folder of a model or of a training run.
        device: where it is to work.
        overrides: settings of its recipe to change, as `config.sampler.steps=20`; they become a part of what the model
            says about itself.

    Raises:
        RecipeError: if a setting is not valid.
        ModelError: if there is no such model, or its recipe is not valid.
        CheckpointError: if the weights are damaged, do not fit the recipe, or are not finite.
    """
    info = _info(_find(model))
    if info.path == Path(model) / MODEL:
        info = replace(info, name=Path(model).resolve().name)
    if overrides:
        info = replace(info, recipe=parse_recipe(info.recipe.to_yaml(), info.name, overrides))
    path = info.path / WEIGHTS
    if not path.is_file():
        others = [file.name for file in info.path.iterdir() if file.suffix in (".pt", ".pth", ".ckpt", ".bin", ".pkl")]
        hint = f" Pickled weights ({others[0]}) are never loaded: they can run code." if others else ""
        raise CheckpointError(f"The model {info.name!r} has no {WEIGHTS} in '{info.path}'.{hint}")
    weights, sha256 = _read_weights(path, info.recipe)
    with torch.device("meta"):  # whatever sizes the recipe names, the comparison takes no memory
        empty = info.recipe.build()
    wanted = _kept(empty, empty.state_dict())
    weights = fitted_weights(_kept(empty, weights), wanted, path)
    with torch.random.fork_rng(devices=[]):  # first weights are drawn, and replaced
        method = info.recipe.build()
    method.load_state_dict(weights, strict=False)
    return LoadedModel(info, method.to(device).eval(), sha256)


def model_sha256(model: str | Path) -> str:
    """Return a hash of all that a model is: its recipe and its weights, without loading them.

    Raises:
        ModelError: if there is no such model, or its files cannot be read.
    """
    folder = _find(model)
    try:
        return hashlib.sha256("".join(sha256_file(folder / name) for name in (RECIPE, WEIGHTS)).encode()).hexdigest()
    except InputError as error:
        raise ModelError(f"The model in '{folder}' cannot be used: {error} Copy the model again.") from error


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
        for name, tensor in _kept(method, method.state_dict()).items()
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


def _kept(method: Method, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what a model needs of all weights."""
    return {name: tensor for name, tensor in weights.items() if not name.startswith(method.training_only)}


def _places() -> list[Path]:
    embedded = Path(str(files(__package__) / "embedded"))
    return [embedded, *(Path(place) for place in os.environ.get(SEARCH_PATH, "").split(os.pathsep) if place)]


def _folders() -> list[Path]:
    """List the folders of all models that have a name, in the order in which they are looked for."""
    places = [sorted(place.iterdir()) for place in _places() if place.is_dir()]
    return [folder for place in places for folder in place if (folder / RECIPE).is_file()]


def _find(model: str | Path) -> Path:
    folders = _folders()
    if (Path(model) / RECIPE).is_file():
        if any(folder.name == str(model) for folder in folders):
            warnings.warn(
                f"The model is the folder '{model}' here, not the one of that name that voxray knows.", VoxrayWarning, 3
            )
        return Path(model)
    if (Path(model) / MODEL / RECIPE).is_file():
        return Path(model) / MODEL
    for folder in folders:
        if folder.name == str(model):
            return folder
    if Path(model).is_dir():
        raise ModelError(f"'{model}' is no model folder: it has no {RECIPE}.")
    names = ", ".join(sorted({folder.name for folder in folders}))
    raise ModelError(f"There is no model {str(model)!r}; the models are {names}, or give a model folder.")


def _info(folder: Path) -> ModelInfo:
    path = folder / RECIPE
    try:
        with reading(path):
            text = path.read_text(encoding="utf-8")
        return ModelInfo(folder.resolve().name, folder, parse_recipe(text, str(path)))
    except InputError as error:
        raise ModelError(f"The model in '{folder}' cannot be used: {error}") from error


def _read_weights(path: Path, recipe: Recipe) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a file, and its SHA-256, which is the recipe's where that names one."""
    try:
        with reading(path):
            content = path.read_bytes()
            sha256 = hashlib.sha256(content).hexdigest()
            if recipe.weights_sha256 not in (None, sha256):
                raise CheckpointError(
                    f"'{path}' is not the file that its recipe names (another SHA-256): copy the model again."
                )
            return load(content), sha256
    except InputError as error:
        raise CheckpointError(f"{error} Copy the model again.") from error


def fitted_weights(weights: dict[str, Tensor], wanted: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the weights as the method keeps them: the tensors `wanted`, in their types of number, all finite."""
    faults = [f"missing {name}" for name in wanted.keys() - weights.keys()]
    faults += [f"unexpected {name}" for name in weights.keys() - wanted.keys()]
    for name in wanted.keys() & weights.keys():
        given, right = weights[name], wanted[name]
        if given.shape != right.shape:
            faults.append(f"{name} is {tuple(given.shape)}, not {tuple(right.shape)}")
        elif given.is_floating_point() != right.is_floating_point():
            faults.append(f"{name} holds {given.dtype}, not {right.dtype}")
    if not faults:
        weights = {name: tensor.to(wanted[name].dtype) for name, tensor in weights.items()}
        faults = [f"{name} is not finite" for name, tensor in weights.items() if not bool(torch.isfinite(tensor).all())]
    if faults:
        more = f" and {len(faults) - 10} more" if len(faults) > 10 else ""
        raise CheckpointError(f"'{path}' does not fit its recipe: {'; '.join(sorted(faults)[:10])}{more}.")
    return weights
