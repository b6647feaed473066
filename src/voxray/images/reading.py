"""The one guard around third-party readers, and the limits that are checked before anything is decoded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from voxray.errors import InputError, VoxrayError

# The limits are ours; no source gives any. 1e9 voxels are a CT of 1000^3, or 512 x 512 x 3800, four times the
# longest clinical series; as float32 they take 4 GB. 2^28 pixels are an X-ray of 16384 x 16384, 1 GiB.
MAX_VOXELS = 10**9
MAX_PIXELS = 2**28


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Turn whatever a third-party reader raises about `path` (or a file so called) into one message.

    Errors of voxray pass through, and so do Ctrl-C and exit. Nothing else is caught anywhere: every call of a
    third-party reader on a user's file stands inside this block.

    Raises:
        InputError: for every other exception, `MemoryError` among them; it names the file and the reason.
    """
    try:
        yield
    except VoxrayError:
        raise
    except MemoryError as error:
        raise InputError(
            f"{str(path)!r} does not fit into the memory of this machine, or its header is damaged."
        ) from error
    except Exception as error:
        raise InputError(f"{str(path)!r} cannot be read: {_reason(error)}") from error


def check_file(path: Path) -> None:
    """Check that `path` is a file (links are followed) and holds at least one byte.

    Raises:
        InputError: if it is missing, is not a file, or is empty.
    """
    with reading(path):
        if not path.exists():
            raise InputError(f"There is no file {str(path)!r}.")
        if not path.is_file():
            raise InputError(f"{str(path)!r} is not a file.")
        if path.stat().st_size == 0:
            raise InputError(f"{str(path)!r} is empty (0 bytes).")


def check_voxels(path: Path, count: int) -> None:
    """Check the number of voxels that the header of `path` announces, before they are decoded.

    Raises:
        InputError: if there are more than `MAX_VOXELS`.
    """
    if count > MAX_VOXELS:
        raise InputError(
            f"{str(path)!r} holds {count:.3g} voxels ({4 * count / 1e9:.3g} GB of memory); at most "
            f"{MAX_VOXELS:.0e} are read. Crop it or resample it to larger voxels first."
        )


def check_pixels(path: Path, count: int) -> None:
    """Check the number of pixels (all frames) that the header of `path` announces, before they are decoded.

    Raises:
        InputError: if there are more than `MAX_PIXELS`.
    """
    if count > MAX_PIXELS:
        raise InputError(
            f"{str(path)!r} holds {count:.3g} pixels; at most {MAX_PIXELS:.3g} are read. "
            "Crop it or make it smaller first."
        )


def _reason(error: Exception) -> str:
    """Return the first telling line of what a library says, without its source files and line numbers."""
    text = str(error)
    for mark in ("sitk::ERROR:", "ITK ERROR:"):
        text = text.rpartition(mark)[2]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{lines[0][:300]} ({type(error).__name__})" if lines else type(error).__name__
