"""Files and folders that appear whole under their name, or not at all."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path

from voxray.errors import InputError, ResourceError, VoxrayError

# What a killed process leaves behind starts with this: hidden, and safe to delete.
TEMPORARY_PREFIX = ".voxray-tmp-"

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuse an output that exists already, unless the user asked for it to be overwritten.

    An empty folder does not count as existing.

    Raises:
        InputError: if `path` exists and `overwrite` is false.
    """
    path = Path(path)
    if overwrite or not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir())):
        return
    raise InputError(f"'{path}' exists already: choose another name, or allow it to be overwritten.")


def make_folder(path: Path) -> None:
    """Make a folder and those above it; one that is there stays as it is.

    Raises:
        InputError: if that is not possible.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"'{path}' cannot be made: {error.strerror}. Choose another folder.") from error


@contextmanager
def atomic_path(final: Path) -> Iterator[Path]:
    """Lend a temporary file in the folder of `final`, which takes that name when the block ends well.

    The temporary file keeps the ending of the name (writers choose their format by it), is flushed to the
    disk before it is renamed, and has the permissions that the umask gives to a new file. If the block
    raises, even by Ctrl-C, it is removed and what stood under `final` is untouched. A link is followed.

    Raises:
        InputError: if the folder is missing or cannot be written to, or `final` is a folder.
        ResourceError: if the disk is full.
    """
    target = Path(os.path.realpath(final))
    if target.is_dir():
        raise InputError(f"'{final}' is a folder; the name of a file is needed here.")
    temporary = _temporary_beside(target)
    try:
        with _disk_errors(Path(final)):
            temporary.touch(exist_ok=False)
        with _full_disk(Path(final)):
            yield temporary
        with _disk_errors(Path(final)):
            _flush(temporary)
            os.replace(temporary, target)
        _flush_folder(target.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text_atomic(final: Path, text: str) -> None:
    """Write `text` as UTF-8 to `final`: whole, or not at all (see `atomic_path`)."""
    with atomic_path(final) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def atomic_folder(final: Path, *, replaces: str = "") -> Iterator[Path]:
    """Lend a temporary folder beside `final`, which takes that name when the block ends well.

    A folder that stands there already is replaced if it is empty, or if each of its entries is a file whose
    name matches the pattern `replaces`: nothing of somebody else is ever deleted. No system call of POSIX
    swaps two folders, so the old one is set aside under a temporary name first; a process killed in that
    moment leaves nothing under `final`, and the old folder beside it.

    Args:
        final: the folder to make.
        replaces: shell pattern of the files that a former run may have left in `final`.

    Raises:
        InputError: if the parent is missing or cannot be written to, or `final` holds anything else.
        ResourceError: if the disk is full.
    """
    target = Path(os.path.realpath(final))
    temporary, old = _temporary_beside(target), _temporary_beside(target)
    try:
        with _disk_errors(Path(final)):
            _refuse_foreign(target, replaces)
            temporary.mkdir()
        with _full_disk(Path(final)):
            yield temporary
        with _disk_errors(Path(final)):
            for file in temporary.rglob("*"):
                _flush(file)
            _flush(temporary)
            _refuse_foreign(target, replaces)
            _swap(temporary, target, old)
        _flush_folder(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)


def _temporary_beside(target: Path) -> Path:
    # The last 40 characters hold every ending, and keep the name within the 255 bytes of a file system.
    return target.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}-{target.name[-40:]}"


def _refuse_foreign(folder: Path, replaces: str) -> None:
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise InputError(f"'{folder}' is a file; the name of a folder is needed here.")
    for entry in folder.iterdir():
        if entry.is_symlink() or not entry.is_file() or not fnmatch(entry.name, replaces):
            raise InputError(
                f"'{folder}' holds '{entry.name}', which voxray did not write, and is not replaced: "
                "choose another folder."
            )


def _swap(temporary: Path, target: Path, old: Path) -> None:
    if target.exists():
        os.rename(target, old)
    try:
        os.rename(temporary, target)
    except BaseException:
        if old.exists():
            os.rename(old, target)
        raise


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    # Only makes the new name outlive a power cut; some network file systems know no fsync of a folder.
    with suppress(OSError):
        _flush(folder)


@contextmanager
def _full_disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise _described(error, path) from error
        raise


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _described(error, path) from error


def _described(error: OSError, path: Path) -> VoxrayError:
    reason = error.strerror or str(error)
    if error.errno in _NO_SPACE:
        return ResourceError(f"'{path}' cannot be written: {reason}. Free space, or choose another disk.")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return InputError(f"'{path}' cannot be written: its folder does not exist. Make the folder first.")
    return InputError(f"'{path}' cannot be written: {reason}. Choose a folder that you may write to.")
