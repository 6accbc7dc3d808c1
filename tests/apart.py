"""A function in a forked child with mounts of its own (Linux, no root needed): full disks, read-only folders, a small
/dev/shm. The child has this process's imports, so it starts at once."""

import ctypes
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

_NEW_MOUNTS, _NEW_USER = 0x00020000, 0x10000000  # CLONE_NEWNS, CLONE_NEWUSER


@dataclass(frozen=True)
class Ended:
    """What the child printed, and its exit code."""

    code: int
    said: str


def mount(*arguments: object) -> None:
    """`mount` with these words, for use within the child."""
    subprocess.run(["mount", *map(str, arguments)], check=True)


def tmpfs(place: Path, size: str) -> None:
    """An empty disk of this size at `place`."""
    place.mkdir(parents=True, exist_ok=True)
    mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", place)


def read_only(place: Path) -> None:
    """`place` as it is, but nobody can write there."""
    mount("--bind", place, place)
    mount("-o", "remount,bind,ro", place)


def run(job: Callable[[], int]) -> Ended:
    """Call `job` in a child that may mount. Skips the test where the system does not allow that."""
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)
            sys.stderr = sys.__stderr__ = os.fdopen(2, "w", closefd=False)
            code = 99
            try:
                code = _in_a_namespace(job)
            except BaseException:  # the parent shows it
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        said.seek(0)
        ended = Ended(os.waitstatus_to_exitcode(status), said.read().decode())
    if ended.code == 98:
        pytest.skip(f"no namespace of one's own here: {ended.said.strip()}")
    return ended


def _in_a_namespace(job: Callable[[], int]) -> int:
    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        if sys.platform != "linux" or libc.unshare(_NEW_MOUNTS | _NEW_USER):
            raise OSError(ctypes.get_errno(), "unshare")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
        with tempfile.TemporaryDirectory() as place:
            tmpfs(Path(place), "64k")
            subprocess.run(["umount", place], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(error)
        return 98
    return job()
