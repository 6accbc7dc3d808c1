"""A table of jobs, worked off by processes of this computer (processes.py) or on a Ray cluster (cluster.py).

What travels to another process or computer is a job as a dict of texts: NAME=value, no settings and no network. Its
process makes its own settings of them, and calls `perform` of the script that the job names.
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

FLAGS = {  # of every script that works off a table
    "JOBS": "how many at a time; without it one on each CUDA GPU, else one",
    "RAY": "auto or an address: on that Ray cluster (pip install -r requirements-cluster.txt)",
    "GPUS": "with RAY or SLURM: GPUs of each, 0.5 with RAY for two on one; without it 1 where the cluster has GPUs",
    "CPUS": "with RAY or SLURM: cores of each; without it 2",
}
STARTED, DONE, FAILED, LEFT = "started", "done", "failed", "left"

LONGEST = 4000  # characters of a reason: a pipe's 64 KB would block the job until somebody reads


@dataclass(frozen=True)
class Job:
    """One line of a table: a script's `perform(overrides, flags)`, in a process of its own.

    `perform` returns "" or says what is left to do (its time was up), and raises UserError. `log`: the file that takes
    what it prints, "": the terminal. `brings` and `takes`: folders and files that it reads and writes below LOGS or
    OUTPUT, to be carried to and from a computer that does not share them.
    """

    label: str
    script: str
    overrides: tuple[str, ...]
    flags: dict[str, str]
    log: str = ""
    brings: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """What travels."""
        return asdict(self)


@dataclass(frozen=True)
class Event:
    """A job was started, or ended in one of the other states; `text` is where, or why."""

    job: Job
    state: str
    text: str = ""


class Pool(Protocol):
    """Whoever works jobs off."""

    def room(self) -> bool:
        """Whether another job may be handed over now."""
        ...

    def start(self, job: Job, deadline: float) -> None:
        """Hand a job over; it is to end at `deadline` (of time.time(); 0: none)."""
        ...

    def wait(self, seconds: float) -> list[Event]:
        """What has happened, after so many seconds at most."""
        ...

    def stop(self) -> None:
        """End all that runs, so that it can be gone on with."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


class Show(Protocol):
    """Whoever tells a person (see job_status)."""

    def event(self, event: Event) -> None:
        """Say what has happened."""
        ...

    def draw(self) -> None:
        """Show what is running."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


def deadline_after(minutes: float) -> float:
    """The time.time() at which so many minutes are over; 0 where there is no limit."""
    return time.time() + 60 * minutes if minutes else 0.0


def work_off(jobs: Sequence[Job], pool: Pool, show: Show, deadline: float = 0.0) -> list[Event]:
    """Work the table off; returns how each job ended, in the table's order.

    A job that fails does not stop the others. After `deadline` none is started. Ctrl-C ends those that run.
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
    """Do a job in this process; returns its state and, where it is not done, why.

    The traceback of what nobody foresaw goes where the job prints, and fails this job only.
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
    except SystemExit as stopped:  # several devices, whose first process has said why
        return FAILED, f"ended with code {stopped.code}"
    except Exception as error:  # torch, a driver, a bug of ours
        traceback.print_exc()
        return FAILED, f"{type(error).__name__}: {error}"[:LONGEST]
    return (LEFT, left) if left else (DONE, "")


@contextmanager
def printing_to(log: str) -> Iterator[None]:
    """Let this process, and those that it starts, print to the end of the file `log`; "": leave it as it is."""
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
        sys.stdout = sys.stderr = file  # a test, or Ray, may have put something of its own in their place
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
    """The last line that was printed to `log`, "" where there is none yet."""
    try:
        with Path(log).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = file.read().decode("utf-8", errors="replace").split("\n")
    except OSError:  # not there yet, or on another computer
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def words(overrides: Sequence[str]) -> str:
    """NAME=value as one would type them."""
    return " ".join(map(console.quoted, overrides))
