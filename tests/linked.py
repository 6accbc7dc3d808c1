"""Copies of a folder at the cost of links: a file becomes the copy's own when Python is about to change it in place."""

import os
import shutil
import sys
from pathlib import Path

BY_THEMSELVES = (".safetensors", ".ckpt", ".pth")  # their libraries open files without Python's knowing: true copies
_shared: set[tuple[int, int]] = set()  # (device, inode) of the sources' files
_sources: dict[Path, dict[Path, tuple[int, int]]] = {}


def copy(source: Path, place: Path) -> Path:
    """A copy at `place` of a folder that stays as it is; returns `place`."""
    if source not in _sources:
        _sources[source] = _stamps(source)
        _shared.update((status.st_dev, status.st_ino) for status in map(os.stat, _sources[source]))
    return Path(shutil.copytree(source, place, copy_function=_link, dirs_exist_ok=True))


def changed() -> list[Path]:
    """The files of all sources that are not as they were."""
    return [path for source, before in _sources.items() for path, _ in before.items() ^ _stamps(source).items()]


def _stamps(source: Path) -> dict[Path, tuple[int, int]]:
    files = {path: path.stat() for path in source.rglob("*") if path.is_file()}
    return {path: (status.st_size, status.st_mtime_ns) for path, status in files.items()}


def _link(source: str, place: str) -> None:
    if source.endswith(BY_THEMSELVES):
        shutil.copy2(source, place)
    else:
        os.link(source, place)


def _make_its_own(event: str, arguments: tuple) -> None:
    """An audit hook. Here and in forked processes; what else runs gets its files to read."""
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if not writes and event not in ("os.truncate", "os.utime", "os.chmod"):
        return
    if not isinstance(arguments[0], str | bytes | os.PathLike):
        return
    path = Path(os.fsdecode(arguments[0])).resolve()
    if path.is_file() and (path.stat().st_dev, path.stat().st_ino) in _shared:
        shutil.copy2(path, f"{path}.own")
        os.replace(f"{path}.own", path)


sys.addaudithook(_make_its_own)
