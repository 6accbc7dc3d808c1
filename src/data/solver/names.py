"""What a file is called, as the rules see it: words that may tell its role, and numbers that tell which one it is.

Paths are POSIX and relative to INPUT; nothing is opened. `training/1st_manual/21_manual1.gif` has the words training,
1st, manual, manual1 and the number 21. Case and Unicode's form do not count.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath

Key = tuple[frozenset[str], tuple[str, ...]]  # words, numbers

PARTS = {
    "train": "train", "training": "train", "trn": "train", "val": "valid", "valid": "valid", "validation": "valid",
    "dev": "valid", "test": "test", "testing": "test", "tst": "test",
}  # fmt: skip
_CODES = {"tr": "train", "vd": "valid", "te": "test", "ts": "test"}  # where at least two of them are there
_MADE_OF = re.compile(  # trainannot, testA, imagesTr: a part of the data and a role in one word
    r"(train(?:ing)?|val(?:id|idation)?|test(?:ing)?)"
    r"(annot|ann|crop|data|set|dataset|[a-d]|imgs?|images?|masks?|labels?|gts?|lab|input|val|\d+)"
)
_ROLE_FIRST = re.compile(r"(images?|labels?|masks?|imgs?|gt)(train|val|test|tr|ts|te|va)")
_COARSE, _FINE = re.compile(r"[^\W_]+"), re.compile(r"[^\W\d_]+|\d+")


@dataclass(frozen=True)
class Name:
    """One file's name, taken apart."""

    path: str
    folder_words: frozenset[str]  # a folder's numbers are words too
    folder_key: Key  # the folder read as if it were the file: of masks/<image>/1.png
    stem: tuple[str, ...]  # its tokens in their order

    key: Key

    @property
    def words(self) -> frozenset[str]:
        return self.key[0]

    @property
    def numbers(self) -> tuple[str, ...]:
        return self.key[1]

    @property
    def ending(self) -> str:
        return PurePosixPath(self.path).suffix.lower()

    @property
    def without_number(self) -> Key | None:
        """Return the key without the number that the stem ends in, which may count objects; None where it has none."""
        if len(self.stem) < 2 or not self.stem[-1].isdecimal():
            return None
        return self.words, self.numbers[:-1]


def take_apart(paths: Iterable[str], fine: bool = False, loose: bool = False) -> list[Name]:
    """Take paths apart; `fine`: between letters and digits too, as t000.tif and man_seg000.tif need it.

    `loose`: numbers without zeros before them, and without the 0000 that nnU-Net's images end in.
    """
    every = list(paths)
    folders: dict[str, set[bool]] = {}
    for path in every if loose else ():
        folder, _, file = path.rpartition("/")
        folders.setdefault(folder, set()).add(file.rpartition(".")[0].endswith("0000"))
    return [_name(path, fine, loose, folders.get(path.rpartition("/")[0]) == {True}) for path in every]


def _name(path: str, fine: bool, loose: bool, channel: bool) -> Name:
    """Take one path apart; `channel`: all in its folder end in 0000, as nnU-Net's images do."""
    folder, _, file = path.rpartition("/")
    words, key = _folder(folder, fine)
    stem = tokens(file.rpartition(".")[0], fine)
    if loose:
        stem = stem[:-1] if channel and len(stem) > 1 and stem[-1] == "0000" else stem
        stem = tuple(str(int(token)) if token.isdecimal() else token for token in stem)
    numbers = tuple(token for token in stem if token.isdecimal())
    own = words.union(token for token in stem if not token.isdecimal())
    return Name(path, words, key, stem, (own, numbers))


@lru_cache(100_000)
def _folder(folder: str, fine: bool) -> tuple[frozenset[str], Key]:
    parts = [tokens(part, fine) for part in folder.split("/") if part]
    words = frozenset(token for part in parts for token in part)
    last = parts[-1] if parts else ()
    upper = {token for part in parts[:-1] for token in part}
    named = upper.union(token for token in last if not token.isdecimal())
    return words, (frozenset(named), tuple(token for token in last if token.isdecimal()))


def tokens(text: str, fine: bool = False) -> tuple[str, ...]:
    """Split a name into words and numbers, in one case and one form of Unicode."""
    plain = text if text.isascii() else unicodedata.normalize("NFC", text)
    found = (_FINE if fine else _COARSE).findall(plain.casefold())
    return tuple(part for token in found for part in _split(token))


@lru_cache(100_000)
def _split(token: str) -> tuple[str, ...]:
    made = (_MADE_OF.fullmatch(token) if token not in PARTS else None) or _ROLE_FIRST.fullmatch(token)
    return made.groups() if made else (token,)


def parts_of(paths: Iterable[str]) -> dict[str, str]:
    """Say of each path which part of the data it is of: train, valid, test or "", by its folders, else by its stem."""
    every = list(paths)
    known = dict(PARTS)
    folders = {path.rpartition("/")[0] for path in every}
    codes = {token for folder in folders for token in tokens(folder, fine=True)} & _CODES.keys()
    if len({_CODES[code] for code in codes}) > 1:
        known |= _CODES
    of_folder = {folder: _part(folder.split("/")[::-1], known) for folder in folders}
    return {path: of_folder[path.rpartition("/")[0]] or _part_of_stem(path, known) for path in every}


def _part(components: list[str], known: dict[str, str]) -> str:
    for component in components:
        found = {known[token] for fine in (False, True) for token in tokens(component, fine) if token in known}
        if found:
            return "train" if "train" in found else sorted(found)[-1]  # train_val is trained on
    return ""


def _part_of_stem(path: str, known: dict[str, str]) -> str:
    stem = tokens(path.rpartition("/")[2].rpartition(".")[0])
    ends = [token for token in (stem[:1] + stem[-1:]) if len(token) > 2]  # a word, not a code
    return next((known[token] for token in ends if token in known), "")
