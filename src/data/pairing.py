"""Pairing images with masks by their names: what a layout finds, and the rules for two folders of files."""

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from formats.images import SUFFIXES
from tools.errors import UserError


@dataclass(frozen=True)
class Pair:
    """One image and its mask's reference, both relative to INPUT."""

    image: str
    mask: str
    stratum: str = ""
    kfold: int | None = None  # where the data come with a split


@dataclass(frozen=True)
class Found:
    """What a layout found: pairs, what has no partner, and a sentence about it."""

    layout: str
    sentence: str
    pairs: list[Pair]
    alone: list[str] = field(default_factory=list)
    group: str = ""  # the regex that finds the group in an image's path, where the layout knows one
    dialect: str = ""  # of the submission
    classes: tuple[str, ...] = ()  # where each has masks of its own
    channels: int = 3  # a stack's number of slices


@dataclass(frozen=True)
class Places:
    """Where to look: INPUT, and TRAIN_PATH and MASK_PATH where they are given."""

    root: Path
    train: Path | None
    masks: Path | None

    def below(self, path: Path) -> str:
        return relative(path, str(self.root))


def child(root: Path, names: Iterable[str]) -> Path | None:
    """The first of `names` that is a folder in `root`, in whatever case it is written."""
    if not root.is_dir():
        return None
    have = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
    return next((have[name] for name in names if name in have), None)


def relative(path: Path, input_path: str) -> str:
    """`path` as a POSIX path relative to INPUT.

    Raises UserError where it lies outside or its name cannot be kept in a table.
    """
    text = Path(os.path.relpath(path, input_path)).as_posix()
    if "{class}" in text or "{z}" in text:  # they stand for something in a table
        raise UserError(f"{path}: a name with {{class}} or {{z}} in it cannot be kept in a table; rename it.")
    if text.startswith(".."):
        raise UserError(
            f"{path} does not lie below INPUT={input_path}; set INPUT to a folder that holds images and masks."
        )
    return text


def unique(keyed: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for key, file in keyed:
        if key in found:
            raise UserError(
                f"{found[key]} and {file.name} beside it have the same name but for the ending; remove one of them."
            )
        found[key] = file
    return found


def files_below(folder: Path) -> list[Path]:
    """Every image file below `folder`, sorted, in linked folders too; hidden files and folders are left out."""
    found, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else [name for name in folders if name[0] != "."]
        if real not in seen:
            found += [Path(place, name) for name in names if name[0] != "." and Path(name).suffix.lower() in SUFFIXES]
        seen.add(real)
    return sorted(path for path in found if path.is_file())


def keys_of(folder: Path) -> dict[str, Path]:
    """Relative path without the ending -> file, of every image below `folder`."""
    return unique((path.relative_to(folder).with_suffix("").as_posix(), path) for path in files_below(folder))


def _of_classes(
    places: Places,
    about: str,
    pictures: dict[str, Path],
    drawn: dict[str, Path],
    masks: Path,
    pattern: str,
    classes: Iterable[str],
) -> Found:
    """One file a class: `pattern`, such as {image}_{class}, below `masks`; what is named otherwise has no partner."""
    names, suffix = tuple(sorted(classes)), Counter(path.suffix for path in drawn.values()).most_common(1)[0][0]
    pattern += suffix
    expected = {pattern.replace("{image}", key).replace("{class}", name) for key in pictures for name in names}
    alone = [
        f"{path}: fits no image by the name of most, {pattern}"
        for path in drawn.values()
        if path.relative_to(masks).as_posix() not in expected
    ]
    pairs = [
        Pair(places.below(path), f"{places.below(masks)}/{pattern.replace('{image}', key)}", _stratum(key))
        for key, path in pictures.items()
    ]
    return Found("folders", f"{about}, one file a class: {', '.join(names)}", pairs, alone, classes=names)


def match(places: Places, train: Path, masks: Path) -> Found:
    """Pair two folders by relative names, by the first rule that finds a partner for any image."""
    pictures, drawn = keys_of(train), keys_of(masks)
    about = f"images in {train}, masks in {masks}"
    for rule in (_same_names, _stacks, _class_folders, _folder_per_image):
        found = rule(places, about, pictures, drawn, masks)
        if found:
            return found
    alone = [f"{path}: no mask" for path in pictures.values()] + [f"{path}: no image" for path in drawn.values()]
    return Found("folders", about, [], alone)


def _stratum(key: str) -> str:
    return key.rpartition("/")[0]


def _same_names(
    places: Places, about: str, pictures: dict[str, Path], drawn: dict[str, Path], masks: Path
) -> Found | None:
    """a.jpg with a.png or a_mask.png; with several endings (a_car.png, a_road.png) each is a class."""
    by_picture: dict[str, dict[str, Path]] = {}  # picture's key -> ending -> mask
    alone = []
    for key, path in drawn.items():
        owner = key if key in pictures else _longest_start(key, pictures)
        if owner is None:
            alone.append(f"{path}: no image")
        else:
            by_picture.setdefault(owner, {})[key[len(owner) :]] = path
    endings = sorted({ending for found in by_picture.values() for ending in found})
    if not endings:
        return None
    if len(endings) == 1:
        pairs = [
            Pair(places.below(pictures[key]), places.below(found[endings[0]]), _stratum(key))
            for key, found in by_picture.items()
        ]
        alone += [f"{path}: no mask" for key, path in pictures.items() if key not in by_picture]
        return Found("folders", about + (f" named <image>{endings[0]}" if endings[0] else ""), pairs, alone)
    if "" in endings:
        alone += [
            f"{path}: a second mask of {key}"
            for key, found in by_picture.items()
            if len(found) > 1
            for path in found.values()
        ]
        return Found("folders", about, [], alone)
    start = Counter(ending[0] for ending in endings).most_common(1)[0][0]
    classes = {ending[1:] for ending in endings}
    return _of_classes(places, about, pictures, drawn, masks, f"{{image}}{start}{{class}}", classes)


def _longest_start(key: str, pictures: dict[str, Path]) -> str | None:
    """The picture whose name `key` goes on from, after a _ or -."""
    for end in range(len(key) - 1, 0, -1):
        if key[end] in "_-" and key[:end] in pictures:
            return key[:end]
    return None


def _stacks(places: Places, about: str, pictures: dict[str, Path], drawn: dict[str, Path], _: Path) -> Found | None:
    """Slices <id>_<z> of one image, with the mask <id>."""
    slices: dict[str, list[str]] = {}
    for key in pictures:
        owner, _, number = key.rpartition("_")
        if not number.isdecimal() or owner not in drawn:
            return None
        slices.setdefault(owner, []).append(key)
    counts = Counter(len(keys) for keys in slices.values())
    usual = counts.most_common(1)[0][0] if counts else 0
    alone = [
        f"{drawn[owner]}: {len(keys)} slices, others have {usual}"
        for owner, keys in slices.items()
        if len(keys) != usual
    ]
    alone += [f"{path}: no slices" for key, path in drawn.items() if key not in slices]
    pairs = [Pair(stack(places.below(pictures[keys[0]])), places.below(drawn[owner]), _stratum(owner))
             for owner, keys in slices.items()]  # fmt: skip
    return (
        Found("folders", f"{about}, each image a stack of {usual} slices", pairs, alone, channels=usual)
        if pairs
        else None
    )


def stack(path: str) -> str:
    """images/a_07.png -> images/a_{z}.png: the stack that a slice belongs to."""
    return re.sub(r"_\d+(\.\w+)$", r"_{z}\1", path)


def _class_folders(
    places: Places, about: str, pictures: dict[str, Path], drawn: dict[str, Path], masks: Path
) -> Found | None:
    """masks/<class>/<image>.png; a class that an image has not may be left out."""
    parts = {key: key.partition("/") for key in drawn}
    if not any(rest in pictures for _, _, rest in parts.values()):
        return None
    return _of_classes(
        places, about, pictures, drawn, masks, "{class}/{image}", {name for name, _, _ in parts.values()}
    )


def _folder_per_image(
    places: Places, about: str, pictures: dict[str, Path], drawn: dict[str, Path], masks: Path
) -> Found | None:
    """masks/<image>/<class>.png where the names repeat and are no numbers, otherwise masks/<image>/<object>.png."""
    owners: dict[str, list[str]] = {}
    for key in drawn:
        owner, _, name = key.rpartition("/")
        owners.setdefault(owner, []).append(name)
    if not owners.keys() & pictures.keys():
        return None
    alone = [f"{masks / owner}: no image" for owner in owners if owner not in pictures]
    names = Counter(name for found in owners.values() for name in found)
    if max(names.values()) > 1 and not any(name.isdecimal() for name in names):
        return _of_classes(places, about, pictures, drawn, masks, "{image}/{class}", names)
    alone += [f"{path}: no masks" for key, path in pictures.items() if key not in owners]
    pairs = [
        Pair(places.below(path), places.below(masks / key), _stratum(key))
        for key, path in pictures.items()
        if key in owners
    ]
    return Found("folders", f"{about}, one file an object", pairs, alone)
