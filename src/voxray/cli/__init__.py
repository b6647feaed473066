"""The command line: arguments, and calls into `voxray.api`."""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, and return its exit code.

    0: done; 1: a bug in voxray; 2: bad input or usage; 3: bad model; 4: memory or disk; 5: numerical; 130: stopped by
    Ctrl-C or SIGTERM. What went wrong is one message on stderr; the traceback of a bug stands there with `--debug`
    or VOXRAY_DEBUG=1.

    Args:
        argv: the arguments, `sys.argv[1:]` if they are not given.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or os.environ.get("VOXRAY_DEBUG", "0") not in ("", "0")
    try:
        with _terminated_like_interrupted():
            from voxray.cli.app import run  # loaded here, so that Ctrl-C is caught from the first moment

            code = run([argument for argument in arguments if argument != "--debug"])
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:  # the last resort of the whole program: every error ends in one message and a code
        from voxray.cli.failures import report_failure

        return report_failure(error, debug)
    if code == INTERRUPTED:  # Typer makes this code of Ctrl-C, too
        sys.stderr.write("\nStopped. No half-written file is left.\n")
    return code


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does, so that temporary files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
