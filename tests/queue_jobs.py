"""Jobs for test_queue.py, in the place of a script: what each does is its first override."""

import os
import time
from pathlib import Path

from tools.errors import UserError


def perform(overrides, flags):
    what, _, number = overrides[0].partition("=")
    print(f"doing {what}", flush=True)
    if what == "REFUSE":
        raise UserError("refused in a sentence")
    if what == "RAISE":
        raise RuntimeError("CUDA error: an illegal memory access")
    if what == "DIE":
        os._exit(int(number))
    if what == "LEAVE":
        return "its time was up"
    if what == "SLEEP":
        Path(flags["file"]).write_text(str(os.getpid()))
        try:
            time.sleep(float(number))
        except KeyboardInterrupt:
            Path(flags["file"]).write_text("stopped")
            raise
    if what == "TELL":
        Path(flags["file"]).write_text(f"{os.environ.get('CUDA_VISIBLE_DEVICES', '')} {' '.join(overrides)}")
    return ""
