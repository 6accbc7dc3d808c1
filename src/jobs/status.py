"""The display of a table of jobs: in a terminal a line for each running job, elsewhere a line for each event."""

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
    """A counter and display of `total` jobs, `before` of which were finished earlier."""

    def __init__(self, total: int, before: int = 0) -> None:
        self.total, self.done, self.failed = total, before, 0
        self.running: dict[str, tuple[Event, float]] = {}
        self.drawn = 0
        self.stream = sys.stdout  # the real one; ray_pool puts another in its place to catch Ray's messages
        self.live = self.stream.isatty()

    def event(self, event: Event) -> None:
        """Print one event, as a line that stays."""
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
        """Show a line for each running job, with the last line that it printed; in a terminal only."""
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
        """Erase the lines of the running jobs."""
        self._erase()

    def _counts(self) -> str:
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.done} of {self.total}{failed}"

    def _erase(self) -> None:
        if self.drawn:
            print(f"\x1b[{self.drawn}F\x1b[J", end="", file=self.stream, flush=True)
            self.drawn = 0


class Live(Status):
    """A display of what runs, in a terminal; the caller reports how it ended."""

    def event(self, event: Event) -> None:
        """Remember what runs."""
        self._erase()
        self.running.pop(event.job.label, None)
        if event.state == job_table.STARTED:
            self.running[event.job.label] = event, time.monotonic()


class Silence:
    """A display of failures only: the one job prints to the terminal itself."""

    def event(self, event: Event) -> None:
        """Print why a job failed."""
        if event.state == FAILED:
            print(f"error: {event.job.label}: {event.text}", file=sys.stderr, flush=True)

    def draw(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
