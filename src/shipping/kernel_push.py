"""make kernel-push: upload the data set of output/kernel/ and start its notebook, by Kaggle's client."""

import time
from typing import Any

from shipping import kernel_run
from shipping.kernel_build import PLACE, UNKNOWN
from tools import kaggle_client
from tools.errors import UserError
from tools.files import read_json
from tools.kaggle_client import ask

PATIENCE, PAUSE = 1200, 5  # seconds


def upload(client: str, about: dict[str, Any], message: str) -> str:
    """Create the data set on Kaggle, or a new version of an existing one; return which."""
    code, _ = ask(client, "datasets", "status", about["dataset"], fails=True)
    place = ("-r", "zip", "-p", str(PLACE / "dataset"))
    if code:
        ask(client, "datasets", "create", *place)
        return "made"
    ask(client, "datasets", "version", *place, "-m", message)
    return "given a new version"


def wait_until_ready(client: str, about: dict[str, Any]) -> None:
    """Wait until Kaggle has processed an upload: a kernel started before would get the previous version, or none.

    Raises UserError where it takes longer than PATIENCE.
    """
    end = time.monotonic() + PATIENCE
    while True:
        code, said = ask(client, "datasets", "status", about["dataset"], fails=True)
        if not code and "ready" in said.lower():
            return
        if time.monotonic() > end:
            raise UserError(
                f"Kaggle has not finished with {about['dataset']} after {PATIENCE // 60} minutes ({said}). "
                f"Later: kaggle kernels push -p {PLACE / 'kernel'}"
            )
        time.sleep(PAUSE)


def push(accelerator: str, message: str) -> None:
    """Upload the data set and start the notebook of output/kernel/. Raises UserError with the client's words."""
    about = read_json(PLACE / "dataset" / kernel_run.MARKER, "Make the kernel first: make kernel EXPERIMENT=x")
    if about["dataset"].startswith(f"{UNKNOWN}/"):
        raise UserError("Whose kernel is it? Make it again with your name on Kaggle: make kernel ... USER=name")
    client = kaggle_client.find("Kaggle's client is not here", f"Or upload by hand, as {PLACE / 'README.md'} says.")
    if not (PLACE / "rehearsal.txt").is_file():
        print("It was not rehearsed: make kernel-rehearsal shows here what would fail there.", flush=True)
    what = upload(client, about, message or f"bundle {about['bundle'][:12]}")
    print(f"data set {about['dataset']} {what}; waiting until Kaggle has unpacked it", flush=True)
    wait_until_ready(client, about)
    ask(client, "kernels", "push", "-p", str(PLACE / "kernel"), "--accelerator", accelerator or "NvidiaTeslaT4")
    print(
        f"notebook {about['kernel']} pushed -> https://www.kaggle.com/code/{about['kernel']}\n"
        f"How far it is: kaggle kernels status {about['kernel']}"
    )
