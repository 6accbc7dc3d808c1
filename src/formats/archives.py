"""Archives of strangers, unpacked safely: every name and size is checked before anything is written, and counted again.

zip and tar, plain or compressed, and archives within them.
"""

import gzip
import lzma
import re
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from tools import console
from tools.errors import UserError

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")
SPARE = 10**9  # bytes of the disk that stay free
HONEST, RATIO = 100 * 10**6, 1000  # an archive may unpack to 100 MB, or to a thousand times its size
NESTING = 2  # archives within archives within the archive
BLOCK = 1 << 20
JUNK = re.compile(r"(?:.*/)?(?:__MACOSX/.*|\.DS_Store|Thumbs\.db|\._[^/]*)")  # what macOS and Windows add
BROKEN = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, struct.error, EOFError),
    *(NotImplementedError, RuntimeError, ValueError, OverflowError, MemoryError),
)


@dataclass(frozen=True)
class Entry:
    """A file of an archive: its POSIX path, the bytes that the header promises, and how to read it."""

    name: str
    size: int
    open: Callable[[], IO[bytes] | None]


@dataclass
class Unpacking:
    """What may still be written, and what was left out or unpacked from within on the way."""

    disk: int  # bytes that the disk can take
    growth: int  # bytes that an archive of this size can honestly hold
    junk: int = 0
    inner: list[str] = field(default_factory=list)
    packed: list[str] = field(default_factory=list)  # archives too deep to be unpacked

    @classmethod
    def of(cls, packed: int, folder: Path) -> "Unpacking":
        """Return the budget of an archive of `packed` bytes that is unpacked onto the disk of `folder`."""
        return cls(shutil.disk_usage(folder).free - SPARE, max(HONEST, RATIO * packed))

    def check(self, size: int, label: str) -> None:
        """Refuse `size` more bytes where they are too many."""
        if size > self.disk:
            raise UserError(
                f"{label} unpacks to {size / 1e6:,.0f} MB or more, and the disk has {max(0, self.disk) / 1e6:,.0f} MB "
                "to spare (1 GB stays free). Make room, or give another place by INPUT=folder."
            )
        if size > self.growth:
            raise UserError(
                f"{label} would grow more than {RATIO} times, as only a zip bomb does; nothing is unpacked. "
                "If you trust it, unpack it by hand."
            )

    def take(self, size: int, label: str) -> None:
        """Count `size` bytes that are about to be written."""
        self.check(size, label)
        self.disk -= size
        self.growth -= size


def stem(name: str) -> str:
    """Return an archive's name without its ending, "" where it is no archive."""
    return next((name[: -len(end)] for end in sorted(ENDINGS, key=len, reverse=True) if name.lower().endswith(end)), "")


@contextmanager
def opened(path: Path, label: str, state: Unpacking) -> Iterator[list[Entry]]:
    """List the files of an archive, checked, while it is open. Raises UserError for what is broken or hostile."""
    try:
        if path.name.lower().endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                yield _checked(_zip_entries(archive, label), label, state)
        else:
            with tarfile.open(path) as tar:
                yield _checked(_tar_entries(tar, label, state), label, state)
    except BROKEN as error:
        raise UserError(
            f"{label} is no whole archive ({str(error) or type(error).__name__}). Download it again; expected one of "
            f"{' '.join(ENDINGS)}, without a password."
        ) from error


def _zip_entries(archive: zipfile.ZipFile, label: str) -> Iterator[Entry]:
    for info in archive.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise UserError(f"{label}: {info.filename!r} is a link or a device; only plain files are unpacked.")
        if info.flag_bits & 1:
            raise UserError(f"{label} needs a password ({info.filename!r}). Unpack it by hand into input/<dataset>/.")
        # orig_filename still has what stands after a NUL
        yield Entry(info.orig_filename, 0 if info.is_dir() else info.file_size, partial(archive.open, info))


def _tar_entries(tar: tarfile.TarFile, label: str, state: Unpacking) -> Iterator[Entry]:
    total = 0
    for member in tar:
        if not (member.isreg() or member.isdir()) or member.issparse():
            raise UserError(f"{label}: {member.name!r} is a link or a device; only plain files are unpacked.")
        total += member.size
        state.check(total, label)  # here, as going on unpacks what lies between two headers
        yield Entry(member.name + "/" * member.isdir(), member.size, partial(tar.extractfile, member))
    while block := tar.fileobj.read(BLOCK):  # to the end of a .gz, where its checksum is
        total += len(block)
        state.check(total, label)


def _checked(entries: Iterator[Entry], label: str, state: Unpacking) -> list[Entry]:
    """Return the entries to write, under normal names. UserError for names that climb or clash and absurd sizes."""
    files: dict[str, Entry] = {}
    folders: set[str] = set()
    for entry in entries:
        name = entry.name
        control = any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name)
        if control or "\\" in name or name.startswith("/") or re.match("[A-Za-z]:", name) or ".." in name.split("/"):
            raise UserError(
                f"{label}: the name {name!r} leads out of the folder or is none on every computer; nothing is unpacked."
            )
        if JUNK.fullmatch(name):
            state.junk += not name.endswith("/")
        elif not name.endswith("/"):
            plain = PurePosixPath(name).as_posix()
            key = unicodedata.normalize("NFC", plain).casefold()
            if key in files or plain == ".":
                raise UserError(f"{label} holds {name!r} twice (capitals do not count); nothing is unpacked.")
            files[key] = Entry(plain, entry.size, entry.open)
            folders.update(parent.as_posix() for parent in PurePosixPath(key).parents)
    if both := sorted(files.keys() & folders):
        raise UserError(f"{label} holds {both[0]!r} both as a file and as a folder; nothing is unpacked.")
    state.check(sum(entry.size for entry in files.values()), label)
    return list(files.values())


def unpack(path: Path, folder: Path, label: str, state: Unpacking, depth: int = 0) -> None:
    """Write the files of an archive below `folder`, then those of the archives among them in their places.

    An inner archive goes to a folder of its own name, unless all that it holds begins with that name already.
    """
    with opened(path, label, state) as entries:
        own = stem(path.name)
        if not own.strip("."):  # ...zip would be unpacked into the folder above
            raise UserError(f"{label} has no name but its ending; nothing is unpacked.")
        if depth and not all(entry.name.partition("/")[0] == own for entry in entries):
            folder = folder / own
        for entry in console.track(entries, len(entries), f"unpacking {path.name}"):
            _write(entry, folder / entry.name, label, state)
    for inner in [folder / entry.name for entry in entries if stem(entry.name)]:
        if depth == NESTING:
            state.packed.append(inner.name)
            continue
        unpack(inner, inner.parent, f"{inner.name} in {label}", state, depth + 1)
        state.inner.append(inner.name)
        state.disk += inner.stat().st_size
        inner.unlink()


def _write(entry: Entry, path: Path, label: str, state: Unpacking) -> None:
    """Write one file, counting: what a header promises need not be true."""
    written, source = 0, entry.open()
    if source is None:
        raise UserError(f"{label}: {entry.name!r} is no plain file; nothing else is unpacked.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with source, path.open("xb") as target:
            while block := source.read(BLOCK):
                state.take(len(block), label)
                written += len(block)
                target.write(block)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{label} holds {entry.name!r}, which another archive within brings too.") from error
    if written != entry.size:
        raise UserError(
            f"{label}: {entry.name!r} has {written} bytes where {entry.size} are promised; download it again."
        )
