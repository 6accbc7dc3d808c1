"""Kaggle's command line client: where it is, and what it answers."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tools.errors import UserError, listing


def find(lack: str, instead: str) -> str:
    """Return the path of the client. Raises UserError if it is not installed: `lack`, how to install it, `instead`."""
    places = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
    client = shutil.which("kaggle", path=places)
    if client is None:
        raise UserError(f"{lack}: {sys.executable} -m pip install kaggle\n{instead}")
    return client


def ask(client: str, *words: str, fails: bool = False) -> tuple[int, str]:
    """Return the client's exit code and output. Without `fails`, show the output, and raise UserError on failure."""
    done = subprocess.run([client, *words], capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).strip()
    # after some refusals the client exits with 0, and only its output tells
    refused = done.returncode or re.search(
        r"^(error|\d{3}\b|traceback)|forbidden|unauthorized|not valid", said, re.I | re.M
    )
    if refused and not fails:
        raise UserError(
            f"kaggle {' '.join(words)} was refused:{listing(said.splitlines()[-12:])}\n"
            "Log in first: kaggle auth login, or a token from https://www.kaggle.com/settings/api."
        )
    if not fails and said:
        print("\n".join(f"  {line}" for line in said.splitlines()), flush=True)
    return done.returncode, said
