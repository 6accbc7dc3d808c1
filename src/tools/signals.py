"""Why a training stops before its end: Ctrl-C, SIGTERM or SIGHUP, or a limit of minutes, which it stops in time for."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

SAFETY = 2.0  # a step, a validation or a checkpoint may take this many times as long as the longest one so far


class Stopped(Exception):  # noqa: N818 (it is no error)
    """A training stopped before its end, its checkpoint written; `signal_number` is 0 for the limit of minutes."""

    def __init__(self, signal_number: int = 0) -> None:
        super().__init__(f"signal {signal_number}" if signal_number else "the limit of minutes")
        self.signal_number = signal_number


class Deadline:
    """A limit of `seconds` (0: none), and whether the next step still fits, by the longest times measured so far."""

    def __init__(self, seconds: float, start: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.end = (clock() if start is None else start) + seconds if seconds else float("inf")
        self.longest: dict[str, float] = {}

    def took(self, what: str, seconds: float) -> None:
        """Record how long something of this name took."""
        self.longest[what] = max(seconds, self.longest.get(what, 0.0))

    def fits(self, *coming: str) -> bool:
        """Return whether all of `coming` and a checkpoint still fit; what was never timed counts as zero."""
        needs = sum(self.longest.get(what, 0.0) for what in (*coming, "checkpoint"))
        return self.clock() + SAFETY * needs < self.end


def signals() -> list[int]:
    """Return the signals that stop a training: Ctrl-C, SIGTERM, and a closed terminal's SIGHUP unless it is ignored."""
    hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hangup]


class Signals:
    """Requests to stop, by signal: the training looks for one whenever it is able to stop.

    A second Ctrl-C or SIGTERM stops it at once; a second SIGHUP, which shells send beside the terminal's own, does not.
    """

    def __init__(self) -> None:
        self.wish = 0
        self._before: dict[int, Any] = {}

    def listen(self) -> None:
        """Handle the signals from now on. Outside of the main thread none can be handled."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._heard) for number in signals()}

    def close(self) -> None:
        """Restore the handlers that the signals had before `listen`."""
        while self._before:
            signal.signal(*self._before.popitem())

    def _heard(self, number: int, _: FrameType | None) -> None:
        self.wish = number
        again: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_IGN}
        signal.signal(number, again.get(number, signal.SIG_DFL))
        with contextlib.suppress(OSError):  # a closed terminal takes no text, and the checkpoint is still to come
            # not print, which the signal may have interrupted
            os.write(2, b"\nStopping at the end of this step; once more: at once.\n")


def deaf_worker() -> None:
    """Have this loader's process ignore the signals that reach the whole group: the training decides when to stop.

    A second SIGTERM ends it, as torch expects of a worker that does not end by itself.
    """

    def once(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, once)
