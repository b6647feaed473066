"""When to stop before the end: a signal, or the time that was given."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Literal

Reason = Literal["", "time", "terminated", "interrupted"]


class Stop:
    """What is asked at every boundary between steps.

    Args:
        max_seconds: from now; None for no limit.
    """

    def __init__(self, max_seconds: float | None = None) -> None:
        self._end = None if max_seconds is None else time.monotonic() + max_seconds
        self._reason: Reason = ""

    @property
    def reason(self) -> Reason:
        """Why to stop now; "" for going on."""
        if not self._reason and self._end is not None and time.monotonic() >= self._end:
            self._reason = "time"
        return self._reason

    def ask(self) -> None:
        """Wish to stop, for another process does."""
        self._reason = self._reason or "terminated"

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGTERM and Ctrl-C as wishes to stop at the next boundary; a second Ctrl-C stops at once.

        Outside the main thread, where Python hears no signals, nothing changes.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        self.listen()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def listen(self) -> None:
        """Take the signals again, from a library that has set handlers of its own."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._terminate)
            signal.signal(signal.SIGINT, self._interrupt)

    def _terminate(self, _signal: int, _frame: FrameType | None) -> None:
        self.ask()

    def _interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        if self._reason == "interrupted":
            raise KeyboardInterrupt
        self._reason = "interrupted"
