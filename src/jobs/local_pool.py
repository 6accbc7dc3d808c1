"""Jobs in child processes on this computer: one for each device, or JOBS of them, which share devices and cores.

Each job gets a fresh process, because a process does not give back all memory between trainings. A server that has
imported the large packages once forks them.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs import job_table
from jobs.job_table import Event, Job
from tools import child_processes, threads

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess
    from multiprocessing.queues import SimpleQueue
    from multiprocessing.synchronize import Event as StopEvent

PRELOAD = ("segmentation_models_pytorch", "albumentations", "torch.utils.tensorboard", "training.trainer", "cv")
PATIENCE = 30  # seconds that a job has to end by itself after it is told to stop


@dataclass
class _Place:
    """A device for one job, as CUDA_VISIBLE_DEVICES names it ("": no restriction), and the job that runs there."""

    device: str
    child: Any = None
    job: Job | None = None
    outcome: Any = None


def places(device: str, wanted: int = 0) -> tuple[list[str], str]:
    """Return CUDA_VISIBLE_DEVICES for each of `wanted` processes (0: one a device), and these devices in words.

    device: the DEVICE of the settings. "" stands for no restriction: a computer without CUDA has only one device.
    """
    from tools.hardware import choose_devices

    found = choose_devices(device)
    if not found[0].startswith("cuda"):
        return [""] * (wanted or 1), found[0]
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    names = [visible[number] if number < len(visible) else str(number) for number in range(len(found))]
    return [names[number % len(names)] for number in range(wanted or len(names))], " and ".join(found)


def cores_each(count: int) -> int:
    """Return the cores for each of `count` processes, at least one; 0, which means no limit, for a single process."""
    return max(1, threads.cores() // count) if count > 1 else 0


@contextmanager
def _found_by_the_server() -> Iterator[None]:
    """Put src/ on PYTHONPATH while the fork server starts, where Python 3.11's looks for the modules to preload.

    It does not look where its parent does, and silently skips the modules that it does not find.
    """
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *([before] if before else [])])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


class Processes:
    """A pool (see job_table.Pool) of a child process for each of `devices`, each of `threads` threads (0: no limit)."""

    def __init__(self, devices: Sequence[str], threads: int = 0, preload: Sequence[str] = PRELOAD) -> None:
        self.places = [_Place(device) for device in devices]
        self.threads = threads
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(list(preload))
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C must not end the fork server
        try:
            with _found_by_the_server():
                forkserver.ensure_running()
        finally:
            signal.signal(signal.SIGINT, before)
        self.stopping = self.context.Event()
        self.events: list[Event] = []

    def room(self) -> bool:
        """Return whether a device is free."""
        return any(place.job is None for place in self.places)

    def start(self, job: Job, deadline: float) -> None:
        """Start a job on a free device."""
        place = next(place for place in self.places if place.job is None)
        outcome = self.context.SimpleQueue()
        about = (job.as_dict(), deadline, place.device, self.threads, outcome, self.stopping)
        child = self.context.Process(target=_child, args=about)
        with _ctrl_c_later():
            child.start()
            place.job, place.child, place.outcome = job, child, outcome
        self.events.append(Event(job, job_table.STARTED, f"on GPU {place.device}" if place.device else ""))

    def wait(self, seconds: float) -> list[Event]:
        """Return the jobs that have started, and those that end within `seconds`."""
        at_work = {place.child.sentinel: place for place in self.places if place.job is not None}
        if at_work and not self.events:
            for sentinel in wait(list(at_work), seconds):
                self.events.append(self._ended(at_work[sentinel]))
        events, self.events = self.events, []
        return events

    def _ended(self, place: _Place) -> Event:
        place.child.join()
        job, place.job = place.job, None
        assert job is not None  # it is one of the running ones
        if not place.outcome.empty():
            return Event(job, *place.outcome.get())
        said = job_table.last_line(job.log) if job.log else ""
        return Event(
            job, job_table.FAILED, f"its process ended with code {place.child.exitcode}" + (said and f" ({said})")
        )

    def stop(self) -> None:
        """Stop all jobs as Ctrl-C does; kill those that are left after PATIENCE seconds or at a second Ctrl-C."""
        at_work = [place.child for place in self.places if place.job is not None]
        self.stopping.set()  # for those that do not handle signals yet
        for child in at_work:
            _send(child, signal.SIGINT)
        end = time.monotonic() + PATIENCE
        try:
            for child in at_work:
                child.join(max(0.0, end - time.monotonic()))
        finally:
            for child in at_work:
                if child.is_alive():
                    _send(child, signal.SIGKILL)

    def close(self) -> None:
        """Do nothing: each process has ended by itself."""


@contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Hold back a Ctrl-C until a process has started; otherwise it could leave a process unknown to this pool."""
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


def _send(child: "BaseProcess", number: int) -> None:
    if child.pid is None:  # not started
        return
    try:
        if number == signal.SIGKILL and os.getpgid(child.pid) == child.pid:
            os.killpg(child.pid, number)  # its loader's processes too
        else:
            os.kill(child.pid, number)
    except ProcessLookupError:  # it ended by itself
        pass


def _child(
    job: dict[str, Any], deadline: float, device: str, threads: int, outcome: "SimpleQueue", stopping: "StopEvent"
) -> None:
    """Run one job in this child process, in a session of its own: a terminal's Ctrl-C comes through the parent only."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the fork server ignores it
    parent = multiprocessing.parent_process()
    if parent is not None:
        child_processes.stop_after(parent.join, signal.SIGINT, PATIENCE)
    try:
        if stopping.is_set():
            raise KeyboardInterrupt
        if device:
            os.environ["CUDA_VISIBLE_DEVICES"] = device
        if threads:
            from tools.hardware import limit_threads

            limit_threads(threads)
        with job_table.printing_to(job["log"]):
            state, text = job_table.perform(job, deadline)
    except KeyboardInterrupt:
        state, text = job_table.FAILED, "stopped by Ctrl-C"
    outcome.put((state, text))
