"""Files that are written whole or not at all, and their checksums."""

import functools
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from tools.errors import UserError


def sha256(path: Path) -> str:
    """Return the hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(lines: Iterable[str]) -> str:
    """Return the hex sha256 of lines of text."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


def link(source: Path, target: Path) -> None:
    """Make a hard link to `source` at `target`, or a copy where the disk has no links. Symbolic links are followed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def sync_folder(folder: Path) -> None:
    """Write the folder's entries to the disk, so that a rename survives a power cut (where the system can do that)."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with suppress(OSError):  # some network file systems refuse it
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def atomic_write(path: Path, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary name beside `path`, of the same ending; on success it replaces `path`, otherwise it is removed.

    So a full disk leaves the old file, and never half of a new one. `durable`: the new file survives a power cut.
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


Value = TypeVar("Value")


def read_once(expected: str, most: int) -> Callable[[Callable[[Path], Value]], Callable[[Path], Value]]:
    """Make a reader of a file read it once for as long as it stays as it is, also where several threads ask for it.

    most: files that are kept. The reader raises UserError for a missing file; `expected`: of what, for its sentence.
    """

    def decorate(read: Callable[[Path], Value]) -> Callable[[Path], Value]:
        one_reader = threading.Lock()

        @functools.lru_cache(maxsize=most)
        def kept(path: Path, _size: int, _mtime_ns: int) -> Value:
            return read(path)

        @functools.wraps(read)
        def reader(path: Path) -> Value:
            try:
                state = path.stat()
            except OSError as error:
                raise UserError(f"{path}: {error.strerror}; expected {expected}.") from error
            with one_reader:
                return kept(path, state.st_size, state.st_mtime_ns)

        return reader

    return decorate


def write_text(path: Path, text: str, durable: bool = False) -> None:
    """Write a text file whole or not at all; `durable` as for `atomic_write`."""
    with atomic_write(path, durable) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Any, durable: bool = False) -> None:
    """Write `values` as indented JSON, whole or not at all; `durable` as for `atomic_write`."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n", durable)


def read_json(path: Path, cure: str, need: Mapping[str, type] | None = None) -> dict[str, Any]:
    """Return the JSON object in `path`. Raises UserError, with `cure`: it is missing, broken or lacks one of `need`."""
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
