"""How `voxray train` shows where it is."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from voxray.cli.output import ERR, note

# Between lines where there is no terminal, as in the log of a batch job; ours.
_SECONDS_A_LINE = 60.0


@contextmanager
def training_progress() -> Iterator[Callable[[str, int, int], None] | None]:
    """Lend a callable (what, done, total): a bar on a terminal, a line a minute elsewhere, and None where CI is set."""
    if os.environ.get("CI"):
        yield None
        return
    if not ERR.is_terminal:
        yield _lines()
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left:"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=ERR, transient=True) as bar:
        task, now = bar.add_task("Training", total=None), ""

        def draw(what: str, done: int, total: int) -> None:
            nonlocal now
            if what.partition(":")[0] != now:  # a new stage: the time that is left is estimated anew
                now = what.partition(":")[0]
                bar.reset(task)
            bar.update(task, description=what, completed=done, total=total)

        yield draw


def _lines() -> Callable[[str, int, int], None]:
    last = -_SECONDS_A_LINE

    def tell(what: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _SECONDS_A_LINE or done == total:
            note(f"{what}, {done} of {total}")
            last = time.monotonic()

    return tell
