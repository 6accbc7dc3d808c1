"""What the layouts of annotations share: files found by how an annotation calls them, splits by words, and counts.

Where the paths say train and valid (or val), that is the split; what they call test is left to the prediction.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from data.file_listing import MASK_FOLDERS, files_below
from data.layout_match import LayoutMatch, Pair, Places

VALID, TRAIN, TEST = 0, 1, -1  # the fold that a part of the data is held out in; the test's images are in none
_PARTS = {"train": TRAIN, "training": TRAIN, "val": VALID, "valid": VALID, "validation": VALID, "test": TEST}
_WORD = re.compile(r"(?<![a-z])(training|train|validation|valid|val|test)(?![a-z])", re.I)


def part_of(path: str) -> int | None:
    """Tell the part by the last word in a path that names one, as in train2017/ or instances_val.json."""
    words = _WORD.findall(path)
    return _PARTS[words[-1].lower()] if words else None


def files_of(root: Path, suffix: str) -> list[Path]:
    """List files of this ending below a folder, sorted; hidden ones and macOS' copies are left out."""
    found = []
    for place, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name[0] != "." and name != "__MACOSX"]
        found += [Path(place, name) for name in names if name.lower().endswith(suffix) and name[0] != "."]
    return sorted(found)


def shown(folders: Iterable[Path]) -> str:
    """Name some folders."""
    some = sorted(map(str, folders))
    return " and ".join(some[:3]) + f" and {len(some) - 3} more" * (len(some) > 3)


class Images:
    """The image files below TRAIN_PATH or INPUT, found by how an annotation calls them."""

    def __init__(self, places: Places) -> None:
        self.root, self.files = places.root, files_below(places.train or places.root)
        self.by_name: dict[str, list[Path]] = {}
        for path in self.files:
            if not any(part.lower() in MASK_FOLDERS for part in path.relative_to(self.root).parts[:-1]):
                self.by_name.setdefault(path.name, []).append(path)  # masks are called as their images
        self._known = set(self.files)

    def find(self, name: str, source: Path) -> Path | str:
        """Find the image that the file `source` calls `name`; or say why there is none."""
        for folder in (source.parent, self.root):
            if (path := Path(os.path.normpath(folder / name))) in self._known:
                return path
        parts = PurePosixPath(name).parts
        called = self.by_name.get(parts[-1], []) if parts else []
        nearer = [path for path in called if path.parts[-len(parts) :] == parts] or called
        if len(nearer) > 1:
            part = self._part(source)
            nearer = [path for path in nearer if self._part(path.parent) == part] or nearer
        if len(nearer) == 1:
            return nearer[0]
        return f"is {' and '.join(map(str, nearer[:3]))}" if nearer else f"is no image below {self.root}"

    def _part(self, path: Path) -> int | None:
        return part_of(path.relative_to(self.root).as_posix())


class Gathered:
    """Pairs of image and annotations as they are found, and what is to be said of them."""

    def __init__(self, places: Places) -> None:
        self.places, self.alone, self.notes = places, list[str](), list[str]()
        self._pairs: list[Pair] = []
        self._parts: list[int | None] = []
        self._objects: Counter[str] = Counter()
        self._empty = self._outside = self._test = 0

    def add(self, image: Path, reference: str, objects: Iterable[str], outside: int, part: int | None = None) -> None:
        """Add an image with the classes of its objects, and how many reach out of it; `part`: known by other names."""
        name = self.places.below(image)
        part = part_of(name) if part is None else part
        if part == TEST:
            self._test += 1
            return
        classes = list(objects)
        self._pairs.append(Pair(name, reference if classes else ""))
        self._parts.append(part)
        self._objects.update(classes)
        self._empty += not classes
        self._outside += outside

    @property
    def images(self) -> list[str]:
        return [pair.image for pair in self._pairs]

    def match(self, layout: str, what: str) -> LayoutMatch:
        """Return the layout's result, with folds where all is of train or valid, and both are there."""
        said = [f"{what}: {self._objects.total()} objects of {len(self._objects)} classes"]
        said += [f"{self._empty} images without an annotation are empty"] if self._empty else []
        said += [f"{self._outside} reach outside of their images and are cut off there"] if self._outside else []
        said += [f"{self._test} images called test are left to the prediction"] if self._test else []
        said += self.notes
        pairs = self._pairs
        if set(self._parts) == {VALID, TRAIN}:
            held = self._parts.count(VALID)
            said.append(f"a split that came with the data: fold 0 holds out valid ({held}), fold 1 train")
            pairs = [Pair(one.image, one.mask, kfold=part) for one, part in zip(pairs, self._parts, strict=True)]
        return LayoutMatch(layout, "; ".join(said), pairs, self.alone, classes=tuple(sorted(self._objects)))
