"""checkpoints/{last,previous}.ckpt: written whole, with a checksum, and read back only where they are whole.

A checkpoint is written beside its name, flushed to the disk, entered into sha256.json and only then renamed, so that a
kill or a full disk at any moment leaves one that can be resumed from. The list names the checksums that a whole file
may have, under whatever name a kill left it.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from lightning_fabric.utilities.types import _PATH
from pytorch_lightning.plugins.io import TorchCheckpointIO

from tools import run_folders
from tools.errors import UserError, listing
from tools.files import read_json, sha256, sync_folder, write_json
from tools.run_folders import LAST, PREVIOUS

SUMS = "sha256.json"
KEPT = 64  # checksums; two are of files that are there, more because a kill may fall between list and renaming
OF = "maskfold"  # the key under which a checkpoint says of which run it is


class _Hashed:
    """A file that hashes what is written; an error waits in `error`, because torch's writer would crash on it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.sha, self.size = file, hashlib.sha256(), 0
        self.error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        self.size += len(data)
        if self.error is None:
            self.sha.update(data)
            try:
                self.file.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        """Nothing: the file is flushed once, at its end."""


def write(state: Mapping[str, Any], folder: Path) -> None:
    """Write `state` as last.ckpt, what was last.ckpt as previous.ckpt. Raises UserError where the disk is full."""
    folder.mkdir(parents=True, exist_ok=True)
    last, previous, temporary = folder / LAST, folder / PREVIOUS, folder / ".writing.ckpt"
    hashed = None
    try:
        with temporary.open("wb") as file:
            hashed = _Hashed(file)
            torch.save(state, cast(BinaryIO, hashed))  # all that torch calls of a file is write and flush
            if hashed.error is not None:
                raise hashed.error
            file.flush()
            os.fsync(file.fileno())
        whole = [hashed.sha.hexdigest(), *_sums(folder)][:KEPT]
        write_json(folder / SUMS, {"whole": whole}, durable=True)
        if last.exists():
            os.replace(last, previous)
        os.replace(temporary, last)
        sync_folder(folder)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        size = f" of {hashed.size / 1e6:.0f} MB" if hashed else ""
        raise UserError(
            f"{folder}: no room for a checkpoint{size} ({error.strerror}). Make room, then RESUME=1 goes on "
            f"{'from the one before' if last.exists() else 'once there is one; until then start again'}."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _sums(folder: Path) -> list[str]:
    """Read the checksums that whole checkpoints of `folder` have; [] where the list is missing or broken."""
    try:
        return read_json(folder / SUMS, "", {"whole": list})["whole"]
    except UserError:
        return []


def _problem(path: Path, sums: list[str]) -> str:
    """Return why a training cannot go on from `path`, "" where it can."""
    if not path.is_file():
        return "missing"
    if sums and sha256(path) not in sums:
        return "torn, or changed since it was written"
    try:
        state = torch.load(path, map_location="meta", weights_only=True)
        whole = {"pytorch-lightning_version", "state_dict", "global_step"} <= state.keys()
    except Exception as error:  # truncated, empty, a text, code: torch has another exception for each
        return f"not readable: {type(error).__name__}"
    return "" if whole else "no checkpoint of a training"


def choose(folder: Path) -> Path:
    """Choose the checkpoint to go on from: last.ckpt, or previous.ckpt, aloud, where last is torn. Raises UserError."""
    sums = _sums(folder)
    problems: list[str] = []
    for path in (folder / LAST, folder / PREVIOUS):
        problem = _problem(path, sums)
        if not problem:
            if problems:
                print(f"{problems[0]}; going on from {path}, the one before.", flush=True)
            return path
        problems.append(f"{path} is {problem}")
    raise UserError(f"{'; '.join(problems)}. There is nothing to resume from: OVERWRITE=1 starts again.")


def steps(path: Path) -> int:
    """Return how many optimizer steps a checkpoint has seen."""
    return int(torch.load(path, map_location="meta", weights_only=True)["global_step"])


def identity(path: Path) -> dict[str, Any]:
    """Return what a checkpoint says of the run that it belongs to (see `Files`), {} where it says nothing."""
    said = torch.load(path, map_location="meta", weights_only=True).get(OF)
    return said if isinstance(said, dict) else {}


def refuse_another_run(path: Path, now: dict[str, Any], defaults: Mapping[str, Any] = {}) -> None:
    """Raise UserError where the checkpoint at `path` is of other data, folds, network or training settings.

    `defaults`: of constants; one that the code of then did not have may be what it is by default now.
    """
    then = identity(path)
    differ = run_folders.differences(then, now, [name for name, value in defaults.items() if now.get(name) == value])
    if then and differ:
        raise UserError(
            f"{path} belongs to another training; a resumed one keeps its data, folds, network and training settings, "
            f"and these differ:{listing(differ)}\n"
            "Resume with what it was begun with, or start again: OVERWRITE=1, or a name of its own: EXPERIMENT=name"
        )


class Files(TorchCheckpointIO):
    """Lightning's way to this module: `of` is put into each checkpoint (primitives, see `refuse_another_run`)."""

    def __init__(self, of: Mapping[str, Any]) -> None:
        super().__init__()
        self.of = dict(of)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: object = None) -> None:
        """Write last.ckpt in the folder of `path`."""
        write({**checkpoint, OF: self.of}, Path(path).parent)

    def load_checkpoint(
        self, path: _PATH, map_location: Callable | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read what `choose` chose; never a pickle."""
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)
