"""Pairing a folder of images with a folder of masks by their names, whatever rule these follow."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from data.file_listing import keys_of, stack
from data.layout_match import LayoutMatch, Pair, Places
from data.solver import words
from formats.mask_reference import OBJECT


@dataclass(frozen=True)
class _Folders:
    """A folder of images and one of masks, their files by their relative paths without the ending."""

    places: Places
    train: Path
    masks: Path
    pictures: dict[str, Path]
    drawn: dict[str, Path]

    @property
    def sentence(self) -> str:
        return f"images in {self.train}, masks in {self.masks}"

    def match(self, pairs: list[Pair], alone: list[str], note: str = "", unmasked: Iterable[Path] = ()) -> LayoutMatch:
        """Make the match; images in `unmasked` are listed as without a mask."""
        without = list(unmasked)
        alone = alone + [f"{path}: no mask" for path in without]
        return LayoutMatch(
            "folders", self.sentence + note, pairs, alone, unmasked=[self.places.below(path) for path in without]
        )

    def pair(self, key: str, mask: Path) -> Pair:
        """Pair the image of this key with a mask."""
        return Pair(self.places.below(self.pictures[key]), self.places.below(mask), _stratum(key))


def match(places: Places, train: Path, masks: Path) -> LayoutMatch:
    """Pair two folders by relative names, by the first rule that finds a partner for any image."""
    folders = _Folders(places, train, masks, keys_of(train), keys_of(masks))
    for rule in (_same_names, _stacks, _class_folders, _folder_per_image):
        matched = rule(folders)
        if matched:
            return matched
    return folders.match(
        [], [f"{path}: no image" for path in folders.drawn.values()], unmasked=folders.pictures.values()
    )


def _stratum(key: str) -> str:
    return key.rpartition("/")[0]


def _same_names(folders: _Folders) -> LayoutMatch | None:
    """Pair a.jpg with a.png or a_mask.png; with several endings (a_car.png, a_road.png) each is a class."""
    pictures, by_picture, alone = folders.pictures, *_by_picture(folders)
    endings = sorted({ending for masks in by_picture.values() for ending in masks})
    if not endings:
        return None
    if len(endings) == 1:
        pairs = [folders.pair(key, masks[endings[0]]) for key, masks in by_picture.items()]
        without = [path for key, path in pictures.items() if key not in by_picture]
        return folders.match(pairs, alone, f" named <image>{endings[0]}" if endings[0] else "", without)
    if "" in endings:
        twice = [(key, masks) for key, masks in by_picture.items() if len(masks) > 1]
        alone += [f"{path}: a second mask of {key}" for key, masks in twice for path in masks.values()]
        return folders.match([], alone)
    start = Counter(ending[0] for ending in endings).most_common(1)[0][0]
    bases = {re.sub(r"\d+$", "", ending) for ending in endings}
    if len(bases) == 1 and all(ending[-1].isdecimal() for ending in endings):
        if words.drawn_by(re.findall(r"[^\W_]+", min(bases).lower())):
            return None  # who drew it: _rater1, _rater2
        return _numbered(folders, by_picture, alone)
    return _of_classes(folders, f"{{image}}{start}{{class}}", {ending[1:] for ending in endings})


def _numbered(folders: _Folders, by_picture: dict[str, dict[str, Path]], alone: list[str]) -> LayoutMatch:
    """Pair a.png with a_0.png, a_1.png, ...: numbers tell objects apart, and their union is the mask."""
    pairs = []
    for key, masks in by_picture.items():
        first = next(iter(masks.values()))
        pattern = first.with_name(re.sub(r"\d+$", OBJECT, first.stem) + first.suffix)
        pairs.append(replace(folders.pair(key, first), mask=f"{folders.places.below(first.parent)}/{pattern.name}"))
        suffixes = {path.suffix for path in masks.values()} - {first.suffix}
        alone += [f"{first}: the other objects of {key} end in {suffix}" for suffix in suffixes]
    without = [path for key, path in folders.pictures.items() if key not in by_picture]
    return folders.match(pairs, alone, ", one file an object", without)


def _by_picture(folders: _Folders) -> tuple[dict[str, dict[str, Path]], list[str]]:
    """Map each picture's key to its masks, by how their names go on from its own; and list masks of no picture."""
    by_picture: dict[str, dict[str, Path]] = {}
    alone = []
    for key, path in folders.drawn.items():
        owner = key if key in folders.pictures else _longest_start(key, folders.pictures)
        if owner is None:
            alone.append(f"{path}: no image")
        else:
            by_picture.setdefault(owner, {})[key[len(owner) :]] = path
    return by_picture, alone


def _longest_start(key: str, pictures: dict[str, Path]) -> str | None:
    """Find the picture whose name `key` goes on from, after a _ or -."""
    for end in range(len(key) - 1, 0, -1):
        if key[end] in "_-" and key[:end] in pictures:
            return key[:end]
    return None


def _stacks(folders: _Folders) -> LayoutMatch | None:
    """Pair slices <id>_<z> of one image with the mask <id>."""
    slices: dict[str, list[str]] = {}
    for key in folders.pictures:
        owner, _, number = key.rpartition("_")
        if not number.isdecimal() or owner not in folders.drawn:
            return None
        slices.setdefault(owner, []).append(key)
    if not slices:
        return None
    usual = Counter(len(keys) for keys in slices.values()).most_common(1)[0][0]
    alone = [
        f"{folders.drawn[owner]}: {len(keys)} slices, others have {usual}"
        for owner, keys in slices.items()
        if len(keys) != usual
    ]
    alone += [f"{path}: no slices" for key, path in folders.drawn.items() if key not in slices]
    below = folders.places.below
    pairs = [
        Pair(stack(below(folders.pictures[keys[0]])), below(folders.drawn[owner]), _stratum(owner))
        for owner, keys in slices.items()
    ]
    sentence = f"{folders.sentence}, each image a stack of {usual} slices"
    return LayoutMatch("folders", sentence, pairs, alone, channels=usual)


def _class_folders(folders: _Folders) -> LayoutMatch | None:
    """Pair with masks/<class>/<image>.png; a class that an image has not may be left out."""
    split = [key.partition("/") for key in folders.drawn]
    if not any(rest in folders.pictures for _, _, rest in split):
        return None
    names = {name for name, _, _ in split}
    if len(names) == 1 and words.MASKS.fullmatch(min(names).lower()):  # a name for masks is no class
        masks = folders.masks / min(names)
        return _same_names(replace(folders, masks=masks, drawn=keys_of(masks)))
    return _of_classes(folders, "{class}/{image}", names)


def _folder_per_image(folders: _Folders) -> LayoutMatch | None:
    """Pair with masks/<image>/<class>.png where the names repeat and are no numbers, else with the folder's objects."""
    owners: dict[str, list[str]] = {}
    for key in folders.drawn:
        owner, _, name = key.rpartition("/")
        owners.setdefault(owner, []).append(name)
    if not owners.keys() & folders.pictures.keys():
        return None
    alone = [f"{folders.masks / owner}: no image" for owner in owners if owner not in folders.pictures]
    counts = Counter(name for names in owners.values() for name in names)
    if max(counts.values()) > 1 and not any(name.isdecimal() for name in counts):
        return _of_classes(folders, "{image}/{class}", counts)
    alone += [f"{path}: no masks" for key, path in folders.pictures.items() if key not in owners]
    pairs = [folders.pair(key, folders.masks / key) for key in folders.pictures if key in owners]
    return folders.match(pairs, alone, ", one file an object")


def _of_classes(folders: _Folders, pattern: str, classes: Iterable[str]) -> LayoutMatch:
    """Pair with one file a class by a pattern such as {image}_{class}; what is named otherwise has no partner."""
    pictures, masks, below = folders.pictures, folders.drawn.values(), folders.places.below
    names, suffix = tuple(sorted(classes)), Counter(path.suffix for path in masks).most_common(1)[0][0]
    pattern += suffix
    expected = {pattern.replace("{image}", key).replace("{class}", name) for key in pictures for name in names}
    alone = [
        f"{path}: fits no image by the name of most, {pattern}"
        for path in masks
        if path.relative_to(folders.masks).as_posix() not in expected
    ]
    pairs = [
        Pair(below(path), f"{below(folders.masks)}/{pattern.replace('{image}', key)}", _stratum(key))
        for key, path in pictures.items()
    ]
    sentence = f"{folders.sentence}, one file a class: {', '.join(names)}"
    return LayoutMatch("folders", sentence, pairs, alone, classes=names)
