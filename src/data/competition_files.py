"""A competition's archives, downloaded or given -> a folder below input/, unpacked beside it first."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from formats import archives
from tools import kaggle_client
from tools.errors import UserError, listing

# A single top folder of such a name says what it holds; any other only repeats the archive's name.
TELLING = re.compile(
    r"(?:stage\d_)?(?:train|test|val|image|img|mask|label|annotation|jpeg|gt|ground|screenshot|frame|picture)\w*", re.I
)


def download(slug: str, folder: Path) -> Path:
    """Download a competition's archive by Kaggle's client. UserError where that is missing, refused or brings none."""
    site = f"https://www.kaggle.com/competitions/{slug}"
    by_hand = f"Or download by hand from {site}/data and then: make data ZIP=file"
    client = kaggle_client.find(f"COMPETITION={slug} needs Kaggle's client", by_hand)
    folder.mkdir()
    told = b""
    typed = [client, "competitions", "download", "-c", slug, "-p", str(folder)]
    with subprocess.Popen(typed, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        output = process.stdout
        try:
            while output and (block := os.read(output.fileno(), archives.BLOCK)):
                print(block.decode(errors="replace"), end="", file=sys.stderr, flush=True)  # its progress bar
                told = (told + block)[-4000:]
        except BaseException:
            process.terminate()
            raise
    files = sorted(folder.iterdir())
    if process.returncode == 0 and len(files) == 1 and archives.stem(files[0].name):
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
    """Make an empty folder beside `target`, removed whatever happens; what was moved aside into its old/ comes back."""
    new = not target.parent.exists()
    target.parent.mkdir(parents=True, exist_ok=True)
    room = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield room
    finally:
        if (room / "old").exists() and not target.exists():
            os.replace(room / "old", target)
        shutil.rmtree(room)
        if new and not any(target.parent.iterdir()):
            target.parent.rmdir()


def check_target(target: Path, archive: Path | None, overwrite: bool) -> None:
    """Refuse a folder that holds something besides the archive itself, and one that we could not replace."""
    if target.is_symlink() or (target.exists() and not target.is_dir()) or Path.cwd().is_relative_to(target.resolve()):
        raise UserError(f"{target} is a file, a link or the folder we are in; give another DATASET=name.")
    have = [path.name for path in sorted(target.iterdir())] if target.is_dir() else []
    have = [
        name
        for name in have
        if not archives.JUNK.fullmatch(name) and not (archive and (target / name).resolve() == archive.resolve())
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
        state = archives.Unpacking.of(path.stat().st_size, room)
        whole = room / "whole"
        whole.mkdir()
        archives.unpack(path, whole, path.name, state)
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


def wanted(zip_path: str, competition: str) -> tuple[Path | None, str, str]:
    """Read the flags: the archive or the competition, and a name for the data. UserError where it is neither."""
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
    if not path.is_file() or not archives.stem(path.name):
        what = "is a folder" if path.is_dir() else "is no archive" if path.exists() else "is not there"
        raise UserError(f"ZIP={zip_path} {what}; expected a file that ends in {' '.join(archives.ENDINGS)}.")
    return path, "", re.sub(r"[^\w.+-]+", "-", archives.stem(path.name)).strip(".+-")
