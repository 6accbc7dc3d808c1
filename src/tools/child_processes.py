"""Child processes that never outlive the process that started them, however it ends."""

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
    """Wait in a thread until `gone` returns; then send this process the signal `number` and, if it stays, SIGKILL.

    patience: the seconds that it has to stop by itself. SIGKILL goes to its whole process group where it leads one.
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
    """Have this loader's process killed as soon as its parent is gone, even by SIGKILL (Linux; prctl(2)).

    torch's workers check for their parent every five seconds, and not at all while they wait for a queue at their end.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:  # the parent was gone before prctl
        os.kill(os.getpid(), signal.SIGKILL)


@functools.cache  # once in a process; a fork forgets what its parent has registered
def end_with_this_process(_pid: int) -> None:
    """Kill the loader's processes that are left when this process ends, as after an error in the middle of an epoch.

    multiprocessing itself sends a single SIGTERM and waits, but workers take the first SIGTERM for one to the whole
    group (signals.deaf_worker).
    """
    util.Finalize(None, _kill_daemons, exitpriority=0)


def _kill_daemons() -> None:
    left = [child for child in multiprocessing.active_children() if child.daemon]
    if left and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would report a killed worker as an error
    for child in left:
        child.kill()
