"""One process at a time in a folder, by a lock that the system releases however the process ends."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tools.errors import UserError

PATIENCE = 0.2  # s in which to try again where the last owner removed the file between opening and locking


@contextmanager
def exclusive(folder: Path, cure: str, patience: float = PATIENCE) -> Iterator[None]:
    """Keep other processes out of `folder` meanwhile.

    Raises UserError, with `cure`, where another one works in it for longer than `patience` seconds.

    A forked child does not share the lock: a loader's worker that outlives a killed training does not hold it.
    """
    lock = folder.with_name(f".{folder.name.lstrip('.')}.lock")
    made = [parent for parent in lock.parents if not parent.exists()]
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock, timeout=patience, fallback_to_soft=False)
    try:
        held.acquire()
    except Timeout as error:
        raise UserError(f"Another process is writing {folder} now. {cure}") from error
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS):
            raise
        raise UserError(
            f"{lock}: this file system has no locks ({error.strerror}), and without them two runs could write one "
            "folder. Put it on another one: LOGS=folder, OUTPUT=folder."
        ) from error
    try:
        yield
    finally:
        with suppress(PermissionError):  # Windows does not remove an open file; filelock removes it afterwards
            lock.unlink(missing_ok=True)
        held.release()
        with suppress(OSError):  # parents that were made for the lock go again if they are still empty
            for parent in made:
                parent.rmdir()
