"""Weights that others have published."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from voxray.errors import CheckpointError, InputError
from voxray.images.reading import reading


def read_weights(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a file of weights, `.pth` or `.safetensors`; nothing in it is run.

    Raises:
        CheckpointError: if it cannot be read, or holds other things than tensors.
    """
    try:
        with reading(file):
            if file.suffix == ".safetensors":
                return load_file(file)
            content = torch.load(file, map_location="cpu", weights_only=True)
            return {name: value for name, value in content.items() if isinstance(value, Tensor)}
    except InputError as error:
        # What PyTorch says in this place is to read the file without its protection.
        raise CheckpointError(
            f"{str(file)!r} cannot be read as weights: it is damaged, or holds other things."
        ) from error
