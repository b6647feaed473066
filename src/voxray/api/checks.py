"""What several functions of the interface check."""

import torch

from voxray.errors import InputError, ResourceError


def checked_seed(seed: int) -> int:
    """Return a seed that torch takes.

    Raises:
        InputError: if it does not.
    """
    if not 0 <= seed < 2**63:
        raise InputError(f"A seed is a whole number from 0 to 2^63 - 1, not {seed}.")
    return seed


def chosen_device(name: str) -> torch.device:
    """Return the device of a name; `auto` is a GPU where there is one.

    Raises:
        ResourceError: if it cannot be used.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ResourceError(f"The device {name!r} cannot be used here; 'cpu' always can.") from error
    if device.type not in ("cpu", "cuda"):
        raise ResourceError(f"The device {name!r} is not supported; 'cpu', 'cuda' and 'auto' are.")
    return device
