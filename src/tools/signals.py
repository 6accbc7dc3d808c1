"""When a training is to stop before its end: on Ctrl-C, SIGTERM or SIGHUP, and in time for a limit of minutes."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

SAFETY = 2.0  # a step, a validation or a checkpoint may take so many times what the longest one took


class Stopped(Exception):  # noqa: N818 (it is no error)
    """A training stopped before its end, its checkpoint written; `signal_number` is 0 for the limit of minutes."""

    def __init__(self, signal_number: int = 0) -> None:
        super().__init__(f"signal {signal_number}" if signal_number else "the limit of minutes")
        self.signal_number = signal_number


class Deadline:
    """Says whether what comes next still fits before `seconds` are over (0: no limit), by what the like took so far."""

    def __init__(self, seconds: float, start: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.end = (clock() if start is None else start) + seconds if seconds else float("inf")
        self.longest: dict[str, float] = {}

    def took(self, what: str, seconds: float) -> None:
        """Something of this name took so long."""
        self.longest[what] = max(seconds, self.longest.get(what, 0.0))

    def fits(self, *coming: str) -> bool:
        """Whether all of `coming` and a checkpoint fit; what was never timed counts as no time."""
        needs = sum(self.longest.get(what, 0.0) for what in (*coming, "checkpoint"))
        return self.clock() + SAFETY * needs < self.end


def signals() -> list[int]:
    """Those that a training stops at: Ctrl-C, SIGTERM, and a closed terminal's SIGHUP unless nohup has it ignored."""
    hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hangup]


class Signals:
    """Such signals as a wish, which the training asks about when it can stop.

    A second Ctrl-C or SIGTERM stops it at once; a second SIGHUP, which shells send beside the terminal's own, does not.
    """

    def __init__(self) -> None:
        self.wish = 0
        self._before: dict[int, Any] = {}

    def listen(self) -> None:
        """From now on. Outside the main thread nothing can be heard."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._heard) for number in signals()}

    def close(self) -> None:
        """The signals do what they did before `listen`."""
        while self._before:
            signal.signal(*self._before.popitem())

    def _heard(self, number: int, _: FrameType | None) -> None:
        self.wish = number
        again: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_IGN}
        signal.signal(number, again.get(number, signal.SIG_DFL))
        with contextlib.suppress(OSError):  # a closed terminal takes nothing, and the checkpoint is still to come
            # print may be in the middle of a line
            os.write(2, b"\nStopping at the end of this step; once more: at once.\n")


def deaf_worker() -> None:
    """In a loader's process: such signals reach the whole group, but when to stop is the training's decision.

    The second SIGTERM ends it, as torch expects of a worker that does not come to an end.
    """

    def once(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, once)
