"""What a person sees of a table of jobs: in a terminal a line for each that runs, elsewhere a line for each event."""

import shutil
import sys
import time

from jobs import job_table
from jobs.job_table import FAILED, Event

_WORDS = {
    job_table.STARTED: "started",
    job_table.DONE: "finished",
    job_table.FAILED: "FAILED",
    job_table.LEFT: "not finished",
}


class Status:
    """Counts and shows `total` jobs, `before` of which were finished earlier."""

    def __init__(self, total: int, before: int = 0) -> None:
        self.total, self.done, self.failed = total, before, 0
        self.running: dict[str, tuple[Event, float]] = {}
        self.drawn = 0
        self.stream = sys.stdout  # Ray's messages are kept out of it (cluster.py)
        self.live = self.stream.isatty()

    def event(self, event: Event) -> None:
        """Say what has happened, for good."""
        label, now = event.job.label, time.monotonic()
        took = ""
        if event.state == job_table.STARTED:
            self.running[label] = event, now
        else:
            _, start = self.running.pop(label, (event, now))
            took = f" after {(now - start) / 60:.1f} minutes"
            self.done += event.state == job_table.DONE
            self.failed += event.state == job_table.FAILED
        if event.state == job_table.STARTED and self.live and not event.text.startswith("again"):
            return
        self._erase()
        text = f": {event.text}" if event.text else ""
        where = f" (all of it: {event.job.log})" if event.state == job_table.FAILED and event.job.log else ""
        print(f"[{self._counts()}] {label} {_WORDS[event.state]}{took}{text}{where}", file=self.stream, flush=True)

    def draw(self) -> None:
        """A line for each job that runs, with the last that it printed; in a terminal only."""
        if not self.live:
            return
        width = shutil.get_terminal_size().columns - 1
        lines = [f"[{self._counts()}] {len(self.running)} running"] if self.running else []
        for label, (event, start) in self.running.items():
            minutes, where = (time.monotonic() - start) / 60, f" {event.text}" if event.text else ""
            lines.append(f"  {label}{where}, {minutes:.1f} minutes: {job_table.last_line(event.job.log)}")
        self._erase()
        for line in lines:
            print(line[:width], file=self.stream)
        self.drawn = len(lines)
        self.stream.flush()

    def close(self) -> None:
        """Take the lines of what runs away."""
        self._erase()

    def _counts(self) -> str:
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.done} of {self.total}{failed}"

    def _erase(self) -> None:
        if self.drawn:
            print(f"\x1b[{self.drawn}F\x1b[J", end="", file=self.stream, flush=True)
            self.drawn = 0


class Live(Status):
    """Shows what runs, in a terminal; how it ends is said by who asked for it."""

    def event(self, event: Event) -> None:
        """Remember what runs."""
        self._erase()
        self.running.pop(event.job.label, None)
        if event.state == job_table.STARTED:
            self.running[event.job.label] = event, time.monotonic()


class Silence:
    """Says only what failed: the one job prints to the terminal itself."""

    def event(self, event: Event) -> None:
        """Why a job failed, when it did."""
        if event.state == FAILED:
            print(f"error: {event.job.label}: {event.text}", file=sys.stderr, flush=True)

    def draw(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
