"""make data: a competition's archive -> input/<dataset>/, unpacked safely and whole, and what was found there.

An archive is a stranger's: every name and size is checked before anything is written, and counted again on the way.
"""

import gzip
import lzma
import os
import re
import shlex
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

import console
import layouts
import runs
import settings as settings_module
from errors import UserError, command, listing

FLAGS = {
    "ZIP": "the archive to unpack: .zip, .tar, .tar.gz or .tgz",
    "COMPETITION": "a Kaggle competition's name as in its address, downloaded by Kaggle's client",
    "OVERWRITE": "1: replace what input/<dataset>/ holds, once the new data are whole",
}
ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")
SPARE = 10**9  # bytes of the disk that stay free
HONEST, RATIO = 100 * 10**6, 1000  # an archive may unpack to 100 MB, or to a thousand times its size
NESTING = 2  # archives within archives within the archive
BLOCK = 1 << 20
JUNK = re.compile(r"(?:.*/)?(?:__MACOSX/.*|\.DS_Store|Thumbs\.db|\._[^/]*)")  # what macOS and Windows add
# A single top folder of such a name says what it holds; any other only repeats the archive's name.
TELLING = re.compile(
    r"(?:stage\d_)?(?:train|test|val|image|img|mask|label|annotation|jpeg|gt|ground|screenshot|frame|picture)\w*", re.I
)
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
    """An archive's name without its ending, "" where it is no archive."""
    return next((name[: -len(end)] for end in sorted(ENDINGS, key=len, reverse=True) if name.lower().endswith(end)), "")


@contextmanager
def opened(path: Path, label: str, state: Unpacking) -> Iterator[list[Entry]]:
    """The files of an archive, checked, for as long as it is open. Raises UserError for what is broken or hostile."""
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
        yield Entry(info.orig_filename, 0 if info.is_dir() else info.file_size, lambda info=info: archive.open(info))


def _tar_entries(tar: tarfile.TarFile, label: str, state: Unpacking) -> Iterator[Entry]:
    total = 0
    for member in tar:
        if not (member.isreg() or member.isdir()) or member.issparse():
            raise UserError(f"{label}: {member.name!r} is a link or a device; only plain files are unpacked.")
        total += member.size
        state.check(total, label)  # here, as going on unpacks what lies between two headers
        yield Entry(member.name + "/" * member.isdir(), member.size, lambda member=member: tar.extractfile(member))
    while block := tar.fileobj.read(BLOCK):  # to the end of a .gz, where its checksum is
        total += len(block)
        state.check(total, label)


def _checked(entries: Iterator[Entry], label: str, state: Unpacking) -> list[Entry]:
    """The entries to write, under normal names. Raises UserError for names that climb or clash and for absurd sizes."""
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
    written = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with entry.open() as source, path.open("xb") as target:
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


def download(slug: str, folder: Path) -> Path:
    """A competition's archive by Kaggle's client. Raises UserError where that is missing, refused or brings none."""
    site = f"https://www.kaggle.com/competitions/{slug}"
    places = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
    client = shutil.which("kaggle", path=places)
    if client is None:
        raise UserError(
            f"COMPETITION={slug} needs Kaggle's client: {sys.executable} -m pip install kaggle\n"
            f"Or download by hand from {site}/data and then: make data ZIP=file"
        )
    folder.mkdir()
    told = b""
    typed = [client, "competitions", "download", "-c", slug, "-p", str(folder)]
    with subprocess.Popen(typed, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            while block := process.stdout.read1(BLOCK):
                print(block.decode(errors="replace"), end="", file=sys.stderr, flush=True)  # its progress bar
                told = (told + block)[-4000:]
        except BaseException:
            process.terminate()
            raise
    files = sorted(folder.iterdir())
    if process.returncode == 0 and len(files) == 1 and stem(files[0].name):
        return files[0]
    text = told.decode(errors="replace").strip()
    login = "kaggle auth login, or a token from https://www.kaggle.com/settings/api in ~/.kaggle/kaggle.json"
    cures = {
        r"\b403\b|[Ff]orbidden": f"Its rules are to be accepted first, at {site}/rules",
        r"\b401\b|[Uu]nauthorized|[Aa]uthenticat|kaggle\.json|[Cc]redentials": f"Log in first: {login}",
        r"\b404\b|[Nn]ot [Ff]ound": f"Is there a competition at {site}?",
    }
    cure = next((cure for words, cure in cures.items() if re.search(words, text)), f"Or download by hand: {site}/data")
    raise UserError(
        f"Kaggle's client brought no archive of {slug}:{listing(text.splitlines()[-12:])}\n{cure}, then again."
    )


@contextmanager
def workroom(target: Path) -> Iterator[Path]:
    """An empty folder beside `target`, removed whatever happens; what was moved aside into its old/ comes back."""
    target.parent.mkdir(parents=True, exist_ok=True)
    room = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield room
    finally:
        if (room / "old").exists() and not target.exists():
            os.replace(room / "old", target)
        shutil.rmtree(room)


def check_target(target: Path, archive: Path | None, overwrite: bool) -> None:
    """Refuse a folder that holds something besides the archive itself, and one that we could not replace."""
    if target.is_symlink() or (target.exists() and not target.is_dir()) or Path.cwd().is_relative_to(target.resolve()):
        raise UserError(f"{target} is a file, a link or the folder we are in; give another DATASET=name.")
    have = [path.name for path in sorted(target.iterdir())] if target.is_dir() else []
    have = [
        name
        for name in have
        if not JUNK.fullmatch(name) and not (archive and (target / name).resolve() == archive.resolve())
    ]
    if have and not overwrite:
        raise UserError(
            f"{target} holds {len(have)} things already ({', '.join(have[:5])}). OVERWRITE=1 replaces all of it; "
            "DATASET=name puts the new data into another folder."
        )


def replace(whole: Path, target: Path, archive: Path | None) -> None:
    """Put `whole` in the place of `target`, whose old content is removed after that, but for the archive."""
    inside = archive.resolve().relative_to(target.resolve()) if archive and _is_inside(archive, target) else None
    if inside and (whole / inside).exists():
        raise UserError(f"{archive} holds a file of its own name. Move it out of {target} first.")
    old = whole.parent / "old"
    try:
        if target.exists():
            os.replace(target, old)
        os.replace(whole, target)
    finally:  # also after Ctrl-C: the archive is the user's
        if inside and target.exists() and not (target / inside).exists():
            (target / inside).parent.mkdir(parents=True, exist_ok=True)
            os.replace(old / inside, target / inside)
            print(f"The archive stays where it was, {target / inside}.")


def _is_inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def fetch(target: Path, archive: Path | None, slug: str, overwrite: bool) -> None:
    """Fill `target` with what the archive, or the competition's, holds; whole or not at all."""
    check_target(target, archive, overwrite)
    with workroom(target) as room:
        path = archive or download(slug, room / "download")
        packed = path.stat().st_size
        state = Unpacking(shutil.disk_usage(room).free - SPARE, max(HONEST, RATIO * packed))
        whole = room / "whole"
        whole.mkdir()
        unpack(path, whole, path.name, state)
        top = list(whole.iterdir())
        if not top:
            raise UserError(f"{path.name} is empty.")
        if len(top) == 1 and top[0].is_dir() and not TELLING.fullmatch(top[0].name):
            print(f"Everything lies in {top[0].name}/, which is left out.")
            whole = top[0].rename(room / "top")
        replace(whole, target, archive)
    if state.inner:
        print(f"Unpacked from within: {', '.join(state.inner)}.")
    if state.packed:
        print(f"Nested too deep and left packed: {', '.join(state.packed)}.")
    files = [file for file in target.rglob("*") if file.is_file()]
    junk = f"; {state.junk} files of macOS or Windows left out" if state.junk else ""
    print(f"{len(files):,} files, {sum(file.stat().st_size for file in files) / 1e6:,.1f} MB -> {target}{junk}.")


def report(settings: Any) -> None:
    """Say what the layouts find in the new folder."""
    try:
        found = layouts.find(settings.INPUT, settings.LAYOUT, settings.TRAIN_PATH, settings.MASK_PATH)
        print(f"Found {found.sentence}: {len(found.pairs)} pairs.")
    except UserError as error:
        table = "" if "TABLE=" in str(error) else "\nTABLE=my.csv of image,mask takes a list of your own."
        print(f"No pairs of images and masks yet: {error}{table}")
    try:
        folder, tests = layouts.test_images(settings.INPUT, settings.TEST_PATH)
        print(f"{len(tests)} test images in {folder}.")
    except UserError:
        print("No test images found; TEST_PATH=folder names theirs.")


def wanted(zip_path: str, competition: str) -> tuple[Path | None, str, str]:
    """The archive or the competition's name, and a dataset's name for it. Raises UserError where it is neither."""
    if bool(zip_path) == bool(competition):
        raise UserError("Give one of these: make data ZIP=file.zip or make data COMPETITION=name")
    if competition:
        address = re.fullmatch(
            r"(?:https?://)?(?:www\.)?kaggle\.com/(?:competitions|c)/(\w[\w-]*)(?:/.*)?", competition
        )
        slug = address[1] if address else competition
        if not re.fullmatch(r"\w[\w-]*", slug):
            raise UserError(f"COMPETITION={competition}: expected its name as in its address, or the address.")
        return None, slug, slug
    path = Path(zip_path).expanduser()
    if not path.is_file() or not stem(path.name):
        what = "is a folder" if path.is_dir() else "is no archive" if path.exists() else "is not there"
        raise UserError(f"ZIP={zip_path} {what}; expected a file that ends in {' '.join(ENDINGS)}.")
    return path, "", re.sub(r"[^\w.+-]+", "-", stem(path.name)).strip(".+-")


@command
def main(argv: list[str] | None = None) -> None:
    typed = sys.argv[1:] if argv is None else argv
    settings, flags = settings_module.command_line(typed, __doc__, FLAGS)
    archive, slug, name = wanted(flags.ZIP, flags.COMPETITION)
    known = settings_module.DEFAULTS
    if known["DATASET"] == settings.DATASET and not any(text.startswith("DATASET=") for text in typed):
        runs.check_name("DATASET", name)
        typed = [*typed, f"DATASET={name}"]
        settings, flags = settings_module.command_line(typed, __doc__, FLAGS)
        print(f"DATASET={name}, after the {'archive' if archive else 'competition'}; the next commands need it too.")
    runs.check_name("DATASET", settings.DATASET)
    fetch(Path(settings.INPUT), archive, slug, settings_module.flag_is_on(flags.OVERWRITE))
    report(settings)
    rest = [shlex.quote(text) for text in typed if text.partition("=")[0] in (*known, "RECIPE")]
    print(f"Next: make folds {' '.join(rest)}")


if __name__ == "__main__":
    sys.exit(main())
