"""One process for each device of this computer, watched: where one ends early the others are ended, in a sentence."""

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from tools import child_processes, signals, threads
from tools.errors import UserError

LIFELINE = "MASKFOLD_LIFELINE"  # in a rank's environment: the end of a pipe that closes with who started it
LOST = "Another process of this training ended"  # what a rank says that saw another one end
PATIENCE = 15.0  # seconds in which the others may end by themselves


def run(script: Path, words: list[str], devices: int) -> int:
    """Run `python script words` as ranks 0 to devices - 1, as torchrun would; returns rank zero's exit code.

    Rank zero's lines are shown, the others' only where one fails; the cores are divided among them. Ctrl-C and SIGTERM
    go to all, and so does SIGHUP. Raises UserError where another than rank zero ends first, or one is killed. Ranks
    that call `end_with_parent` end with this process, however it ends.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(devices),
        "LOCAL_WORLD_SIZE": str(devices),
        "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": uuid.uuid4().hex,  # by this Lightning and torch know that they were started so
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, threads.cores() // devices))),
    }
    with tempfile.TemporaryDirectory() as folder, _lifeline() as pipe:
        shared[LIFELINE] = str(pipe)
        logs = [Path(folder, f"rank{number}.log") for number in range(devices)]
        children = []
        for number, log in enumerate(logs):
            env = {**os.environ, **shared, "RANK": str(number), "LOCAL_RANK": str(number)}
            with log.open("w") as file:
                quiet: dict[str, Any] = {} if number == 0 else {"stdout": file, "stderr": file}
                # in sessions of their own: a terminal's Ctrl-C comes from here, once
                call = [sys.executable, str(script), *words]
                started = subprocess.Popen(call, env=env, start_new_session=True, pass_fds=(pipe,), **quiet)
            children.append(started)
        return _watch(children, logs)


@contextlib.contextmanager
def _lifeline() -> Iterator[int]:
    """Open a pipe into which nothing is written, and yield its end for reading; the other is this process's alone."""
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(reading)
        os.close(writing)


def end_with_parent() -> None:
    """Stop this process, which `run` or torchrun started, as at SIGTERM when that one has ended without a word.

    After a while by force. `run` shows its end by a pipe rather than PR_SET_PDEATHSIG: that needs no Linux, and
    nothing is missed between the start and this call. torchrun has none, so its ranks look whose children they are.
    """
    pipe = os.environ.pop(LIFELINE, "")
    wait: Callable[[], Any] | None = None
    if pipe:
        wait = functools.partial(os.read, int(pipe), 1)  # returns at the end of file: the only writer has ended
    elif "TORCHELASTIC_RUN_ID" in os.environ:
        wait = functools.partial(_wait_for_end_of, os.getppid())
    if wait:
        child_processes.stop_after(wait, signal.SIGTERM, PATIENCE)


def _wait_for_end_of(parent: int) -> None:
    while os.getppid() == parent:  # an orphan is adopted
        time.sleep(1)


def _watch(children: list[subprocess.Popen], logs: list[Path]) -> int:
    def pass_on(number: int, _: FrameType | None) -> None:
        for child in children:
            if child.poll() is None:
                os.kill(child.pid, number)

    before = {number: signal.signal(number, pass_on) for number in signals.signals()}
    try:
        while all(child.poll() is None for child in children):
            time.sleep(0.05)
        ended = [number for number, child in enumerate(children) if child.poll() is not None]
        first = next((number for number in ended if children[number].returncode), ended[0])
        end = time.monotonic() + PATIENCE
        while any(child.poll() is None for child in children) and time.monotonic() < end:
            if children[first].returncode == 0:
                end = time.monotonic() + PATIENCE  # done: rank zero may still write
            time.sleep(0.05)
    finally:
        for child in children:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        for number, handler in before.items():
            signal.signal(number, handler)
    return _outcome(children, logs, first)


def _outcome(children: list[subprocess.Popen], logs: list[Path], first: int) -> int:
    """Return rank zero's exit code, where it ended by itself or all ended alike; else say who did not (UserError)."""
    codes, said = [child.returncode for child in children], [_last_line(log) for log in logs]
    spoke = [n for n, line in enumerate(said) if codes[n] > 0 and line.startswith("error: ") and LOST not in line]
    others_are_well = not any(codes[1:]) or len(set(codes)) == 1
    if not spoke and codes[0] >= 0 and (first == 0 or others_are_well):
        return codes[0]
    who = spoke[0] if spoke else first
    how = f"was killed by signal {-codes[who]}" if codes[who] < 0 else f"ended with code {codes[who]}"
    why = f" ({said[who].removeprefix('error: ')})" if said[who] and codes[who] > 0 else ""
    raise UserError(
        f"Process {who} of {len(children)} {how}{why}; the others were ended. RESUME=1 goes on from the last "
        "checkpoint, if there is one."
    )


def _last_line(log: Path) -> str:
    """Return what a rank said last; "" of rank zero, whose lines were shown."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""
