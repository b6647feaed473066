"""From an exception to one message and an exit code."""

import errno
import sys
import traceback

from voxray.errors import InputError, ResourceError, VoxrayError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def report_failure(error: Exception, debug: bool = False) -> int:
    """Say on stderr what went wrong, and return the exit code (promise T2).

    A traceback is written with `debug` alone.
    """
    code, message = _classified(error)
    if debug:
        sys.stderr.write("".join(traceback.format_exception(error)))
    sys.stderr.write(f"error: {message}\n")
    return code


def _classified(error: Exception) -> tuple[int, str]:
    if isinstance(error, VoxrayError):
        return error.exit_code, str(error)
    if (usage := _usage_message(error)) is not None:
        return InputError.exit_code, usage
    if _is_memory(error):
        return ResourceError.exit_code, (
            "There is not enough memory for this. Close other programs, or take a smaller grid or fewer samples."
        )
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return ResourceError.exit_code, f"The disk is full ({error}). Free space, or choose another disk."
    text = " ".join(str(error).split())[:300]
    return VoxrayError.exit_code, (
        f"This is a bug in voxray, please report it: {type(error).__name__}: {text} "
        "(the same command with --debug shows where)."
    )


def _usage_message(error: Exception) -> str | None:
    """Return what is wrong with the arguments, or None if it is another kind of error.

    Typer raises the `ClickException` of click or, newer, of its own copy of click, which it does not export; both
    are told by their method `format_message`.
    """
    formatted = getattr(error, "format_message", None)
    if formatted is None:
        return None
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "voxray"
    return f"{formatted()} (See: {command} --help)"


def _is_memory(error: Exception) -> bool:
    """Tell whether memory ran out; PyTorch raises RuntimeErrors of its own for that."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
