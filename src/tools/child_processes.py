"""Child processes that outlive who started them: none does, however that ends."""

import ctypes
import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import util

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def stop_after(gone: Callable[[], object], number: int, patience: float) -> None:
    """Watch in a thread until `gone` returns: this process gets the signal `number` then, and SIGKILL in the end.

    patience: seconds in which it may stop by itself; by force goes its whole process group, where it leads one.
    """

    def watch() -> None:
        gone()
        os.kill(os.getpid(), number)
        time.sleep(patience)
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)  # its loader's processes too
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def die_with_parent() -> None:
    """In a loader's process: it is killed as soon as its parent is gone, even by SIGKILL (Linux; prctl(2)).

    torch's workers look after their parent every five seconds, and not at all while they wait for a queue at their end.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:  # it was gone before
        os.kill(os.getpid(), signal.SIGKILL)


@functools.cache  # once in a process; a fork forgets what its parent has registered
def end_with_this_process(_pid: int) -> None:
    """Kill the loaders' processes that are left when this process ends, as after an error in the middle of an epoch.

    multiprocessing itself sends a single SIGTERM, which they take for the group's (stopping.deaf_worker), and waits.
    """
    util.Finalize(None, _kill_daemons, exitpriority=0)


def _kill_daemons() -> None:
    left = [child for child in multiprocessing.active_children() if child.daemon]
    if left and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler takes a killed worker for an error
    for child in left:
        child.kill()
