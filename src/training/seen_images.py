"""Which images that are held out now a network was trained on before, of whatever names and wherever they lay."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data.leak_audit import between_tables
from formats import images
from tools import threads
from tools.errors import UserError
from tools.files import digest_of, sha256

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class TrainedOn:
    """`rows` (image, group), below `root`, that a network was trained on; `same_table`: as what is held out now."""

    rows: "pd.DataFrame"
    root: Path
    same_table: bool


def seen(then: TrainedOn, rows: "pd.DataFrame", root: Path) -> list[str]:
    """Return those of the held-out `rows`, below `root`, that were trained on then, or others of their groups.

    Where the table was another: by path and group below the same INPUT, then by the files' content, and where that
    finds nothing by the leak audit, which knows a copy of any name, size and turn. Below another INPUT a path alone
    says nothing but where the file of then is gone.
    """
    grouped = rows["image"].isin(then.rows["image"]) | rows["group"].isin(then.rows["group"])
    if then.same_table:
        return list(rows["image"][grouped])
    sizes = {image: _sizes(then.root, image) for image in then.rows["image"]}
    gone = [image for image, size in sizes.items() if not size]
    known = grouped if then.root.resolve() == root.resolve() else rows["image"].isin(gone)
    there = [image for image, size in sizes.items() if size]
    found = known | rows["image"].isin(_equal_files(list(rows["image"][~known]), root, sizes, then.root))
    if not found.any() and there:
        found = rows["image"].isin(_copies(list(rows["image"]), root, there, then.root))
        found |= rows["group"].isin(rows["group"][found])
    return list(rows["image"][found])


def _copies(now: list[str], root: Path, then: list[str], then_root: Path) -> set[str]:
    """Return which of `now` the leak audit calls copies of one of `then`."""
    pairs = between_tables.copied([root / image for image in now], [then_root / image for image in then])
    return {now[place] for place in pairs}


def _equal_files(now: list[str], root: Path, sizes: dict[str, tuple[int, ...]], then_root: Path) -> set[str]:
    """Return which of `now` have the bytes of an image of then, of which the `sizes` are known."""
    now_sizes = {image: _sizes(root, image) for image in now}
    alike = set(now_sizes.values()) & set(sizes.values()) - {()}
    with threads.pool() as pool:
        then = set(pool.map(lambda image: _digest(then_root, image), [i for i in sizes if sizes[i] in alike]))
        likely = [image for image in now_sizes if now_sizes[image] in alike]
        digests = pool.map(lambda image: _digest(root, image), likely)
        return {image for image, digest in zip(likely, digests, strict=True) if digest in then}


def _sizes(root: Path, image: str) -> tuple[int, ...]:
    """Return the bytes of an image's files, () where they are not there."""
    try:
        return tuple(file.stat().st_size for file in images.image_files(root / image))
    except (OSError, UserError):
        return ()


def _digest(root: Path, image: str) -> str:
    return digest_of(sha256(file) for file in images.image_files(root / image))
