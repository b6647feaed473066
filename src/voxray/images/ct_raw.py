"""The voxels behind a text header (NRRD, MetaImage): in the same file or in one beside it."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from jaxtyping import Float32

from voxray.errors import InputError
from voxray.images.reading import check_voxels

# The most that a deflate stream expands; a header that promises more than that lies.
MAX_DEFLATE_RATIO = 1032

Packing = Literal["raw", "gzip", "zlib"]


@contextmanager
def beside(path: Path, name: str) -> Iterator[BinaryIO]:
    """Open the file `name` in the folder of the header `path`.

    Raises:
        InputError: if it is missing, a list or pattern of files, or in another folder: a header must not reach for
            any file it likes.
    """
    name = name.removeprefix("./")
    if "/" in name or "%" in name or len(name) > 255 or name.upper().startswith("LIST"):
        raise InputError(f"{str(path)!r} has its data in {name[:100]!r}; voxray reads them from one file beside it.")
    data = path.parent / name
    if not data.is_file():
        raise InputError(f"{str(path)!r} has its data in {name!r}, but there is no such file beside it.")
    with data.open("rb") as file:
        yield file


def read_voxels(
    path: Path, file: BinaryIO, size: tuple[int, int, int], dtype: np.dtype[Any], packing: Packing
) -> Float32[np.ndarray, "z y x"]:
    """Read the rest of `file`, which must be the voxels and nothing else.

    Args:
        path: the header, for messages.
        file: at the first byte of the (packed) voxels.
        size: voxels along (x, y, z).
        dtype: of the stored values, with its byte order.
        packing: how they are compressed.

    Raises:
        InputError: if there are more bytes, or fewer, or more voxels than `reading.MAX_VOXELS`.
    """
    count = size[0] * size[1] * size[2]
    expected = count * dtype.itemsize
    here = file.tell()
    room = file.seek(0, 2) - here
    file.seek(here)
    if expected > room * (1 if packing == "raw" else MAX_DEFLATE_RATIO):
        raise InputError(f"{str(path)!r} is truncated: {expected} bytes of voxels expected, {room} there ({packing}).")
    check_voxels(path, count)
    unpacker = zlib.decompressobj()
    if packing == "zlib":
        data = unpacker.decompress(file.read(), expected + 1)
    elif packing == "gzip":
        data = gzip.GzipFile(fileobj=file).read(expected + 1)
    else:
        data = file.read(expected + 1)
    if len(data) != expected or (packing == "zlib" and not unpacker.eof):
        raise InputError(f"{str(path)!r} does not hold the {expected} bytes of voxels that it tells of: it is damaged.")
    with np.errstate(over="ignore", invalid="ignore"):  # an overflow becomes infinite, and is refused by the gate
        return np.frombuffer(data, dtype).reshape(size[::-1]).astype(np.float32)
