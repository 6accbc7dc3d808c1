"""A python that starts at once: forked from one that has the imports done, which the first caller starts.

`python -I -S tests/forked.py [-u] -c code`, or a script and its words, instead of `python ...`: it gets the caller's
environment, folder and open files, and the caller its exit code. `make test` has its processes from here (see the
Makefile), and so has multiprocessing within them (conftest.py). Elsewhere than on Linux it is the python that it is.
"""

import array
import atexit
import contextlib
import fcntl
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
import types
from pathlib import Path

PRELOAD = (
    "pytest", "xdist.remote", "hypothesis", "torch", "torchvision", "segmentation_models_pytorch", "albumentations",
    "pytorch_lightning", "torch.utils.tensorboard", "torchmetrics.classification", "kornia.augmentation", "pandas",
    "sklearn.metrics", "matplotlib.pyplot", "optuna", "onnx",
)  # fmt: skip  # none that starts a thread (onnxruntime does)
ADDRESS = "MASKFOLD_FORKS"  # in the environment of those that were forked: the server's abstract socket
PYTHON = "MASKFOLD_PYTHON"  # there too: an executable that calls this file, for multiprocessing
MOST_FILES = 250  # that one message can carry


def ask(words: list[str]) -> int:
    """Have `python words` forked with all that this process has, and wait for its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's goes to that one too
    address = os.environ.get(ADDRESS, f"maskfold-tests-{os.getppid()}")
    files = [number for number in (int(path.name) for path in Path("/proc/self/fd").iterdir()) if _is_open(number)]
    about = {"words": words, "environment": {**os.environ, ADDRESS: address}, "files": files}
    about |= {"folder": str(Path.cwd()), "leads": os.getsid(0) == os.getpid()}
    forked = ""
    while not forked:  # a server may have begun to end
        server = _connect(f"\0{address}")
        said = server.makefile()
        with contextlib.suppress(ConnectionError):
            server.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))])
            server.sendall(json.dumps(about).encode() + b"\n")
            forked = said.readline()
    for number in files:
        os.close(number)  # the end of a pipe is then that process's alone
    code = int(said.readline() or 1)
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:  # what listed them
        return False
    return True


def _connect(address: str) -> socket.socket:
    while True:
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(address)
            return server
        except ConnectionRefusedError:
            server.close()
        with socket.socket(socket.AF_UNIX) as listener, contextlib.suppress(OSError):  # another one is as far
            listener.bind(address)
            listener.listen(64)
            if os.fork() == 0:
                os.set_inheritable(listener.fileno(), True)
                nothing = os.open(os.devnull, os.O_RDWR)
                for number in (0, 1, 2):
                    os.dup2(nothing, number)
                os.execv(sys.executable, [sys.executable, __file__, "--serve", str(listener.fileno())])
        time.sleep(0.01)


def serve(listener: socket.socket) -> dict:
    """Fork for each caller until the last of its children has ended. Returns in a child only: what it is to run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in PRELOAD:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()  # a collection would write to all pages, and so copy them for each child
    callers: dict[int, tuple[int, socket.socket]] = {}  # by the file that tells of a child's end: its pid, the caller
    begun = False
    while callers or not begun:
        lines = {caller.fileno(): ended for ended, (_, caller) in callers.items()}
        for number in select.select([listener, *callers, *lines], [], [])[0]:
            if number is listener:
                caller, _ = listener.accept()
                about = _received(caller)
                child = os.fork()
                if child == 0:
                    listener.close()
                    caller.close()
                    for ended, (_, other) in callers.items():
                        os.close(ended)
                        other.close()
                    return about
                for file in about["received"]:
                    os.close(file)
                caller.sendall(b"forked\n")
                callers[os.pidfd_open(child)] = child, caller
                begun = True
            elif number in lines and lines[number] in callers:
                with contextlib.suppress(ProcessLookupError):  # the caller was killed
                    os.kill(callers[lines[number]][0], signal.SIGKILL)
                os.waitid(os.P_PIDFD, lines[number], os.WEXITED | os.WNOWAIT)
            if number in callers:
                child, caller = callers.pop(number)
                code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                with contextlib.suppress(BrokenPipeError):
                    caller.sendall(f"{code}\n".encode())
                caller.close()
                os.close(number)
    os._exit(0)


def _received(caller: socket.socket) -> dict:
    """What a caller asks for; the files that came with it are `received`, in the order of `files`."""
    size = array.array("i").itemsize * MOST_FILES
    _, ((_, _, data),), _, _ = caller.recvmsg(1, socket.CMSG_SPACE(size))
    received = array.array("i")
    received.frombytes(data[: len(data) - len(data) % received.itemsize])
    text = b""
    while not text.endswith(b"\n"):
        text += caller.recv(65536)
    return {**json.loads(text), "received": list(received)}


def become(about: dict) -> tuple[dict, object]:
    """Make this child what the caller is; returns the names of a new __main__ and its code."""
    if about["leads"]:
        os.setsid()
    high = [fcntl.fcntl(file, fcntl.F_DUPFD, 1000) for file in about["received"]]
    for file in about["received"]:
        os.close(file)
    for file, number in zip(high, about["files"], strict=True):
        os.dup2(file, number)
        os.close(file)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, buffering=1 if number else -1, closefd=False)  # noqa: SIM115
        for number, mode in enumerate("rww")
    )
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    os.environ.clear()
    os.environ.update(about["environment"])
    os.chdir(about["folder"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if PYTHON in os.environ:
        import multiprocessing

        multiprocessing.set_executable(os.environ[PYTHON])
    return _program(about["words"])


def _program(words: list[str]) -> tuple[dict, object]:
    while words[0] in ("-u", "-B"):
        words = words[1:]
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    places = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    if words[0] == "-c":
        text, sys.argv, first = words[1], ["-c", *words[2:]], ""
    else:
        text, sys.argv, first = Path(words[0]).read_text(encoding="utf-8"), words, str(Path(words[0]).resolve().parent)
        main.__file__ = words[0]
    sys.path[:1] = [first, *places]
    return vars(main), compile(text, sys.argv[0], "exec")


def outcome(names: dict, program: object) -> int:
    """Run it to its exit code, without tearing down what was imported: that would take a second."""
    code = 0
    try:
        exec(program, names)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if code and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    return code


if __name__ == "__main__":
    if sys.platform != "linux":
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
    if sys.argv[1] != "--serve":
        sys.exit(ask(sys.argv[1:]))
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as conftest.py does; it counts when torch is imported
    names, program = become(serve(socket.socket(fileno=int(sys.argv[2]))))
    os._exit(outcome(names, program))
