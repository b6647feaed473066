"""Reading the tensors out of other programs' PyTorch checkpoints, which are pickles."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from voxray.errors import CheckpointError, InputError
from voxray.images.reading import check_file, reading

# Settings and records of training that programs keep beside the weights. Nothing of them is imported or run: an empty
# object takes the place of each.
_SETTINGS = (
    "omegaconf.", "pytorch_lightning.", "lightning.", "argparse.", "pathlib.", "typing.", "collections.", "numpy.",
)  # fmt: skip


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a file that `torch.save` wrote (PyTorch 1.6 or later), without running what is in it.

    PyTorch's own restricted reader is used (`weights_only=True`). It is as safe as that reader is, and no safer:
    import only what comes from people you trust, or in a container.

    Returns:
        What the file holds by name; tensors are on the CPU, and read from the disk when they are used.

    Raises:
        InputError: if there is no such file.
        CheckpointError: if it is damaged, or holds anything but tensors, plain values and known settings.
    """
    check_file(path)
    try:
        with reading(path):
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
            strange = sorted(name for name in names if not name.startswith((*_SETTINGS, "builtins.")))
            if strange:
                raise CheckpointError(
                    f"{str(path)!r} holds more than weights: {', '.join(strange[:10])}. That can run code, so it is "
                    "not loaded. Take the file from its authors again."
                )
            with torch.serialization.safe_globals([(_stand_in(name), name) for name in names]):
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except InputError as error:
        # What PyTorch says in this place is to read the file without its protection.
        raise CheckpointError(
            f"{str(path)!r} cannot be read as a checkpoint: it is damaged, or not written by torch.save (PyTorch 1.6 "
            "or later), or holds other things than tensors and plain values."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{str(path)!r} holds a {type(content).__name__}, not weights by name.")
    return content


class _Empty:
    """Takes the place of a setting: whatever it is made from is dropped."""

    def __new__(cls, *_: object) -> "_Empty":
        return object.__new__(cls)

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


def _empty_dict(*_: object) -> dict[Any, Any]:
    return {}


def _stand_in(name: str) -> Callable[..., Any]:
    """Return what takes the place of a name: plain types stand for themselves."""
    plain = {f"builtins.{kind.__name__}": kind for kind in (dict, list, tuple, int, float, str, bool)}
    return {**plain, "collections.defaultdict": _empty_dict}.get(name, _Empty)
