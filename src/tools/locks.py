"""One process at a time in a folder, by a lock that the system lets go when the process ends, however it ends."""

import errno
import fcntl
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tools.errors import UserError

_HELD: set[int] = set()  # descriptors of this process's locks


def _forget() -> None:
    """In a forked child: a loader's worker that outlives a killed training must not keep its lock."""
    for descriptor in _HELD:
        os.close(descriptor)
    _HELD.clear()


@functools.cache  # once in a process
def _watch_forks() -> None:
    os.register_at_fork(after_in_child=_forget)


def _acquire(lock: Path) -> int:
    """A descriptor of the locked file; BlockingIOError where another has it."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(lock, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last owner removed it between opening and locking: take the new one


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextmanager
def exclusive(folder: Path, cure: str) -> Iterator[None]:
    """Keep other processes out of `folder` meanwhile. Raises UserError, with `cure`, where one works in it already."""
    lock = folder.with_name(f".{folder.name.lstrip('.')}.lock")
    made = [parent for parent in lock.parents if not parent.exists()]
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = _acquire(lock)
    except BlockingIOError as error:
        raise UserError(f"Another process is writing {folder} now. {cure}") from error
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS):
            raise
        raise UserError(
            f"{lock}: this file system has no locks ({error.strerror}), and without them two runs could write one "
            "folder. Put it on another one: LOGS=folder, OUTPUT=folder."
        ) from error
    _HELD.add(descriptor)
    _watch_forks()
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        _HELD.discard(descriptor)
        os.close(descriptor)
        with suppress(OSError):  # where nothing came of the work, nothing is left of it
            for parent in made:
                parent.rmdir()
