"""A table of jobs, run by child processes of this computer (local_pool.py) or on a Ray cluster (ray_pool.py).

A job travels to another process or computer as a dict of texts: NAME=value, no settings and no network. That process
makes settings of them and calls `perform` of the script that the job names.
"""

import importlib
import os
import sys
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from tools import console
from tools.errors import UserError

FLAGS = {  # of every script that runs a table of jobs
    "JOBS": "how many at a time; without it one on each CUDA GPU, else one",
    "RAY": "auto or an address: on that Ray cluster (pip install -r requirements-cluster.txt)",
    "GPUS": "with RAY or SLURM: GPUs of each, 0.5 with RAY for two on one; without it 1 where the cluster has GPUs",
    "CPUS": "with RAY or SLURM: cores of each; without it 2",
}
STARTED, DONE, FAILED, LEFT = "started", "done", "failed", "left"

LONGEST = 4000  # characters of a reason: more than a pipe's 64 KB would block the job until it is read


@dataclass(frozen=True)
class Job:
    """One line of a table: a call of a script's `perform(overrides, flags)`, in a child process.

    `perform` returns "", or what is left to do when its time was up, and raises UserError. `log`: the file that it
    prints to, "": the terminal. `brings` and `takes`: the files and folders below LOGS or OUTPUT that it reads and
    writes, copied to and from a computer that does not share them.
    """

    label: str
    script: str
    overrides: tuple[str, ...]
    flags: dict[str, str]
    log: str = ""
    brings: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the job as it travels to another process."""
        return asdict(self)


@dataclass(frozen=True)
class Event:
    """A job's start, or its end in one of the other states; `text` is where it runs, or why it ended."""

    job: Job
    state: str
    text: str = ""


class Pool(Protocol):
    """A pool of workers that run jobs."""

    def room(self) -> bool:
        """Return whether another job may be started now."""
        ...

    def start(self, job: Job, deadline: float) -> None:
        """Start a job, which should end at `deadline` (of time.time(); 0: none)."""
        ...

    def wait(self, seconds: float) -> list[Event]:
        """Return the events since the last call, after `seconds` at most."""
        ...

    def stop(self) -> None:
        """Stop all running jobs, so that they can be resumed."""
        ...

    def close(self) -> None:
        """Release the workers; no job follows."""
        ...


class Show(Protocol):
    """A display that tells a person what the jobs do (see jobs.status)."""

    def event(self, event: Event) -> None:
        """Show one event."""
        ...

    def draw(self) -> None:
        """Show what is running."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


def deadline_after(minutes: float) -> float:
    """Return the time.time() at which `minutes` from now are over; 0 for no limit."""
    return time.time() + 60 * minutes if minutes else 0.0


def work_off(jobs: Sequence[Job], pool: Pool, show: Show, deadline: float = 0.0) -> list[Event]:
    """Run all jobs of the table; return how each one ended, in the table's order.

    A job that fails does not stop the others. After `deadline` no job is started. Ctrl-C stops the running ones.
    """
    waiting, ended = deque(jobs), dict[str, Event]()
    try:
        while len(ended) < len(jobs):
            while waiting and pool.room():
                job = waiting.popleft()
                if deadline and time.time() >= deadline:
                    ended[job.label] = Event(job, LEFT, "not started")
                else:
                    pool.start(job, deadline)
            for event in pool.wait(0.5) if len(ended) < len(jobs) else ():
                show.event(event)
                if event.state != STARTED:
                    ended[event.job.label] = event
            show.draw()
    except BaseException:
        show.close()
        pool.stop()
        raise
    finally:
        show.close()
        pool.close()
    return [ended[job.label] for job in jobs]


def perform(job: dict[str, Any], deadline: float) -> tuple[str, str]:
    """Run a job in this process; return its state and, where it is not done, the reason.

    An unexpected error fails this job only; its traceback goes where the job prints.
    """
    overrides = list(job["overrides"])
    if deadline:
        minutes = (deadline - time.time()) / 60
        if minutes <= 0:
            return LEFT, "not started"
        overrides.append(f"MAX_MINUTES={minutes:.4f}")
    try:
        left = importlib.import_module(job["script"]).perform(overrides, job["flags"])
    except (UserError, OSError) as error:
        return FAILED, str(error)[:LONGEST]
    except KeyboardInterrupt:
        return FAILED, "stopped by Ctrl-C"
    except SystemExit as stopped:  # with several devices rank zero has said why
        return FAILED, f"ended with code {stopped.code}"
    except Exception as error:  # from torch, a driver, a bug of ours
        traceback.print_exc()
        return FAILED, f"{type(error).__name__}: {error}"[:LONGEST]
    return (LEFT, left) if left else (DONE, "")


@contextmanager
def printing_to(log: str) -> Iterator[None]:
    """Send what this process and its children print to the end of the file `log`; "" changes nothing."""
    if not log:
        yield
        return
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    _flush()
    before = [os.dup(1), os.dup(2)]
    streams = sys.stdout, sys.stderr
    with Path(log).open("a", encoding="utf-8", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = file  # a test or Ray may have replaced both streams
        try:
            yield
        finally:
            _flush()
            sys.stdout, sys.stderr = streams
            for number, kept in enumerate(before, 1):
                os.dup2(kept, number)
                os.close(kept)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def last_line(log: str) -> str:
    """Return the last line that was printed to `log`, "" where there is none yet."""
    try:
        with Path(log).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = file.read().decode("utf-8", errors="replace").split("\n")
    except OSError:  # not there yet, or on another computer
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def words(overrides: Sequence[str]) -> str:
    """Return NAME=value as one would type them."""
    return " ".join(map(console.quoted, overrides))
