"""A guard inside the rehearsal: it holds a Python process to what a Kaggle kernel may do, and logs what it refuses.

The rehearsal puts a sitecustomize.py on the path of every Python that it starts, which calls `install`. From then on
the guard watches Python's own audit events: a socket to anywhere but this computer, a file written outside of the
allowed places, a file read below the forbidden places (the repository). Each is refused and logged.
"""

import os
import sys
from pathlib import Path
from typing import Any

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_LOOKUPS = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")
_CHANGES = {  # audit events that change files, and the positions of the arguments that are the changed paths
    "os.mkdir": (0,), "os.rmdir": (0,), "os.remove": (0,), "os.rename": (0, 1), "os.link": (1,), "os.symlink": (1,),
    "os.truncate": (0,), "os.chmod": (0,), "os.utime": (0,), "shutil.rmtree": (0,),
}  # fmt: skip


def install(log: str, writable: list[str], forbidden: list[str], pip_too: list[str]) -> None:
    """Guard this process from now on; this cannot be undone. `pip_too`: further places where pip may write."""
    is_pip = any(Path(part).name in ("pip", "pip3") for part in sys.orig_argv[:4])
    allowed = [os.path.realpath(place) for place in (*writable, *(pip_too if is_pip else []))]
    closed = [os.path.realpath(place) for place in forbidden]
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def refuse(what: str) -> None:
        os.write(descriptor, f"{what}\n".encode())
        raise PermissionError(f"rehearsal: {what}")

    def inside(path: Any, places: list[str], entry: bool = False) -> bool:
        """Return whether the file lies in `places`; `entry` asks for the name itself, where it is a link."""
        name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100
        folder, last = os.path.split(name)
        real = os.path.join(os.path.realpath(folder), last) if entry else os.path.realpath(name)  # noqa: PTH118
        return any(real == place or real.startswith(place + os.sep) for place in places)

    def watch(event: str, values: tuple[Any, ...]) -> None:
        if event == "socket.connect" and isinstance(values[1], tuple):
            host = str(values[1][0])
            if not host.startswith("127.") and host not in ("::1", "localhost"):
                refuse(f"a connection to {host}")
        elif event in ("socket.sendto", "socket.sendmsg") and isinstance(values[1], tuple):
            refuse(f"a datagram to {values[1][0]}")
        elif event in _LOOKUPS and str(values[0]) not in ("localhost", "127.0.0.1", "None"):
            refuse(f"a look for the address of {values[0]}")
        elif event == "open" and isinstance(values[0], str | bytes):
            path, mode, flags = values
            changes = bool(flags & _WRITES) if isinstance(flags, int) else any(letter in str(mode) for letter in "wax+")
            if changes and not inside(path, allowed):
                refuse(f"writing {os.fsdecode(path)}")
            if inside(path, closed):
                refuse(f"reading {os.fsdecode(path)}, which is not in the bundle")
        elif event in ("os.link", "os.symlink") and inside(values[0], closed):
            refuse(f"a link to {os.fsdecode(values[0])}, which is not in the bundle")
        elif event in _CHANGES:
            for path in (values[position] for position in _CHANGES[event]):
                if isinstance(path, str | bytes | os.PathLike) and not inside(path, allowed, entry=True):
                    refuse(f"{event} {os.fsdecode(path)}")

    sys.addaudithook(watch)
