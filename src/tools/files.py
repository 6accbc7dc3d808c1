"""Files that are written whole or not at all, and their checksums."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tools.errors import UserError


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(lines: Iterable[str]) -> str:
    """Hex sha256 of lines of text."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


def link(source: Path, target: Path) -> None:
    """A second name for the file; a copy where the disk has no such thing. Links are followed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def sync_folder(folder: Path) -> None:
    """Bring the folder's names to the disk, so that a renaming outlives a power cut (where the system can do that)."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with suppress(OSError):  # some network file systems refuse it
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def atomic_write(path: Path, durable: bool = False) -> Iterator[Path]:
    """A name beside `path`, of the same ending, to write to: it takes the place of `path` at the end, or goes away.

    So a full disk leaves what was there, and never half a file. `durable`: it outlives a power cut from then on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.urandom(4).hex()}.{path.name}")  # two containers may have equal process ids
    try:
        yield temporary
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if durable:
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str, durable: bool = False) -> None:
    """Write a whole file or none of it; `durable` as for `atomic_write`."""
    with atomic_write(path, durable) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Any, durable: bool = False) -> None:
    """Write `values` as indented JSON, whole or not at all; `durable` as for write_text."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n", durable)


def read_json(path: Path, cure: str, need: Mapping[str, type] | None = None) -> dict[str, Any]:
    """The JSON object in `path`. Raises UserError, with `cure`, where it is missing, broken or lacks one of `need`."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file. {cure}") from error
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}). {cure}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a JSON object. {cure}")
    for key, kind in (need or {}).items():
        if not isinstance(values.get(key), kind):
            raise UserError(f"{path}: '{key}' is missing or of another kind than expected. {cure}")
    return values
