"""What a command shows: results on stdout; notes and progress on stderr."""

import os
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

from voxray.errors import VoxrayWarning

# Where output goes to a file, no row of a table is broken; our choice, longer than any path on Linux.
_WIDE = 5000
_PLAIN: dict[str, Any] = {"markup": False, "highlight": False, "emoji": False, "soft_wrap": True}

OUT = Console(**_PLAIN)
ERR = Console(**_PLAIN, stderr=True)


def show(text: str = "") -> None:
    """Write a line of the result."""
    OUT.print(harmless(text))


def note(text: str) -> None:
    """Write a line that is no result."""
    ERR.print(harmless(text))


def harmless(text: str) -> str:
    """Leave out what steers a terminal, or turns the direction of text: it may come from a file of somebody else."""
    return "".join(mark for mark in text if mark in "\n\t" or unicodedata.category(mark) not in ("Cc", "Cf"))


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> None:
    """Write rows under their headings; numbers are set right."""
    table = Table(
        box=None, pad_edge=False, title=title or None, title_justify="left", title_style="bold", header_style="bold"
    )
    for i, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[i], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(f"{cell:.4g}" if isinstance(cell, float) else harmless(str(cell)) for cell in row))
    (OUT if OUT.is_terminal else Console(**_PLAIN, width=_WIDE)).print(table, soft_wrap=False)


@contextmanager
def notes_shown() -> Iterator[None]:
    """Show every `VoxrayWarning` as a line `note: ...`, each text once."""
    shown = set()
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if not issubclass(category, VoxrayWarning):
                others(message, category, *where, **more)
            elif str(message) not in shown:
                shown.add(str(message))
                note(f"note: {message}")

        warnings.simplefilter("always", VoxrayWarning)
        warnings.showwarning = show_warning
        yield


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """Lend a callable (done, total) that draws a bar; None where nobody would see it (no terminal, or CI)."""
    if not ERR.is_terminal or os.environ.get("CI"):
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=ERR, transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
