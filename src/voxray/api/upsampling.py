"""A model with another one behind it, which brings its results onto finer voxels."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from voxray.defaults import INTERPOLATION
from voxray.errors import InputError, ModelError
from voxray.methods import Method
from voxray.methods.upsampled import Upsampled
from voxray.models import load_model
from voxray.models.folder import model_sha256


def upsampled(method: Method, factor: int, model: str | Path, device: torch.device) -> Method:
    """Return the method with results on voxels smaller by `factor`.

    Args:
        method: what reconstructs.
        factor: 1 for its own voxels, or 2.
        model: name or folder of the model that makes volumes finer, or `linear` for interpolation.
        device: where that works.

    Raises:
        InputError: if the factor is another one.
        ModelError: if the model cannot be used, or is not for this.
    """
    if factor == 1:
        return method
    if factor != 2:
        raise InputError(f"Results are upsampled by 2, or not at all (1), not by {factor}.")
    if str(model) == INTERPOLATION:
        return Upsampled(method, None, {"model": INTERPOLATION})
    with _hint():
        loaded = load_model(model, device)
    about = {"model": loaded.info.name, "weights_sha256": loaded.weights_sha256}
    if type(loaded.method).finer is Method.finer:  # told now, and not after minutes of sampling
        raise ModelError(
            f"The model {loaded.info.name!r} makes no volume finer (its method is {loaded.info.recipe.method!r}): name "
            f"one that was trained by `voxray train upsample`, or {INTERPOLATION!r} for interpolation."
        )
    return Upsampled(method, loaded.method, about)


def upsampler_sha256(model: str | Path) -> str:
    """Return a hash of the model that makes volumes finer.

    Raises:
        ModelError: if there is no such model.
    """
    if str(model) == INTERPOLATION:
        return INTERPOLATION
    with _hint():
        return model_sha256(model)


@contextmanager
def _hint() -> Iterator[None]:
    """Say what to do where a model that makes volumes finer cannot be used."""
    try:
        yield
    except ModelError as error:
        raise type(error)(
            f"{error} A model that makes volumes finer is trained by `voxray train upsample`; the folder of its run is "
            f"what --upsample-model takes, and {INTERPOLATION!r} stands for interpolation without a model."
        ) from error
