"""How a competition lays its files out -> one index table: image, mask, group, stratum, sorted by image.

Paths are POSIX and relative to INPUT. `mask` is a file, or a folder of instance masks. A layout is one function here
that returns its pairs or None, and one line in LAYOUTS. Images and masks are paired by key, never by position.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from errors import UserError, listing
from images import SUFFIXES, list_images


@dataclass(frozen=True)
class Found:
    """What a layout found: pairs of paths, what has no partner, and a sentence about it."""

    layout: str
    sentence: str
    pairs: list[tuple[Path, Path]]
    alone: list[str] = field(default_factory=list)
    group: str = ""  # the regex that finds the group in an image's path, where the layout knows one
    dialect: str = ""
    test: str = ""  # where its test images lie, below INPUT


def _first(root: Path, names: Iterable[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _carvana(root: Path, train_path: str, mask_path: str) -> Found | None:
    """train_hq/<car>_<view>.jpg, train_masks/<car>_<view>_mask.gif (kaggle.com/c/carvana-image-masking-challenge)."""
    train = Path(train_path) if train_path else _first(root, ("train_hq", "train"))
    masks = Path(mask_path) if mask_path else _first(root, ("train_masks",))
    if not (train and masks and train.is_dir() and masks.is_dir()):
        return None
    images_by_key = _by_key(list_images(train), "")
    masks_by_key = _by_key(list_images(masks), "_mask")
    if not images_by_key or not masks_by_key:
        return None
    both = sorted(images_by_key.keys() & masks_by_key.keys())
    alone = [f"{path}: no mask" for key, path in sorted(images_by_key.items()) if key not in masks_by_key]
    alone += [f"{path}: no image" for key, path in sorted(masks_by_key.items()) if key not in images_by_key]
    sentence = f"Carvana's layout: images in {train}, masks named <image>_mask in {masks}"
    pairs = [(images_by_key[key], masks_by_key[key]) for key in both]
    test = next((name for name in ("test_hq", "test") if (root / name).is_dir()), "")
    group = r"^(?:.*/)?([^/]+)_\d{2}\.\w+$"
    return Found("carvana", sentence, pairs, alone, group=group, dialect="carvana", test=test)


def _by_key(files: list[Path], ending: str) -> dict[str, Path]:
    """Stem without `ending` -> file; two files of one stem are refused."""
    found: dict[str, Path] = {}
    for file in files:
        key = file.stem.removesuffix(ending)
        if key in found:
            raise UserError(
                f"{found[key]} and {file.name} beside it have the same name but for the ending; remove one of them."
            )
        found[key] = file
    return found


def _instances(root: Path, train_path: str, mask_path: str) -> Found | None:
    """<id>/images/<id>.png with one file an object in <id>/masks/ (kaggle.com/c/data-science-bowl-2018)."""
    roots = [Path(train_path)] if train_path else [root / "stage1_train", root / "train", root]
    train = next((folder for folder in roots if folder.is_dir() and any(folder.glob("*/masks"))), None)
    if train is None or mask_path:  # its masks lie beside each image, nowhere else
        return None
    pairs, alone = [], []
    for folder in sorted(path for path in train.iterdir() if path.is_dir() and path.name[0] != "."):
        pictures = list_images(folder / "images") if (folder / "images").is_dir() else []
        objects = list_images(folder / "masks") if (folder / "masks").is_dir() else []
        if len(pictures) == 1 and objects:
            pairs.append((pictures[0], folder / "masks"))
        elif pictures or objects:
            alone.append(
                f"{folder}: {len(pictures)} images and {len(objects)} masks; expected one image and at least one mask"
            )
    sentence = f"one folder per image with a mask per object, as in the 2018 Data Science Bowl: {train}"
    test = next((name for name in ("stage1_test", "test") if (root / name).is_dir()), "")
    return Found("instances", sentence, pairs, alone, dialect="dsb2018", test=test)


LAYOUTS: dict[str, Callable[[Path, str, str], Found | None]] = {"carvana": _carvana, "instances": _instances}
EXPECTED = {
    "carvana": "train_hq/<car>_<view>.jpg (or train/) and train_masks/<car>_<view>_mask.gif",
    "instances": "stage1_train/<id>/images/<id>.png and stage1_train/<id>/masks/*.png",
}


def _existing(input_path: str) -> Path:
    """INPUT as a path. Raises UserError where there is no such folder."""
    root = Path(input_path)
    if not root.is_dir():
        raise UserError(
            f"{root}: no such folder. Put the competition's files there (DATASET names the folder), or run make demo."
        )
    return root


def find(input_path: str, layout: str = "auto", train_path: str = "", mask_path: str = "") -> Found:
    """Find the layout of the training data below `input_path`, or use the one named.

    Raises UserError where no folder or no layout is there, an image or mask has no partner, or a path lies outside.
    """
    root = _existing(input_path)
    names = list(LAYOUTS) if layout == "auto" else [layout]
    found = next(filter(None, (LAYOUTS[name](root, train_path, mask_path) for name in names)), None)
    if found is None:
        have = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())[:12]
        expected = listing([f"{name}: {EXPECTED[name]}" for name in names])
        held = f"it holds {', '.join(have)}" if have else "it is empty"
        raise UserError(
            f"{root}: found no images with masks ({held}). Expected one of:{expected}\n"
            "TRAIN_PATH and MASK_PATH name other folders."
        )
    if found.alone:
        raise UserError(
            f"{root}: {len(found.alone)} without a partner:{listing(found.alone)}\nAdd what is missing, or remove them."
        )
    if not found.pairs:
        raise UserError(f"{root}: {found.sentence}, but there is no pair of image and mask.")
    return found


def table(found: Found, input_path: str, group: str = "auto"):  # noqa: ANN201 (a DataFrame; pandas is imported inside)
    """The index table of `found`: image, mask, group, stratum as texts.

    `group` is auto (the layout's own), none, or a regex whose first (group) on the image's path names what must stay
    together. An image's own path is its group where there is none.
    """
    import pandas as pd

    images = [relative(image, input_path) for image, _ in found.pairs]
    masks = [relative(mask, input_path) for _, mask in found.pairs]
    names = groups(images, found.group, strict=False) if group == "auto" else groups(images, group)
    frame = pd.DataFrame({"image": images, "mask": masks, "group": names})
    frame["stratum"] = ""
    return check(frame.sort_values("image", ignore_index=True), "")


def groups(images: list[str], pattern: str, strict: bool = True) -> list[str]:
    """The group of each image path by regex, its own path without one.

    A miss is refused, or its own group unless `strict`.
    """
    if pattern in ("", "none"):
        return images
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"GROUP={pattern} is no regular expression: {error}.") from error
    if compiled.groups != 1:
        raise UserError(f"GROUP={pattern} needs exactly one (group), around what names the car, patient or scene.")
    matches = [compiled.search(image) for image in images]
    missed = [image for image, match in zip(images, matches, strict=True) if match is None]
    if missed and strict:
        raise UserError(
            f"GROUP={pattern} does not match {len(missed)} of {len(images)} images:{listing(missed, 5)}\n"
            "GROUP=none: no groups."
        )
    return [match[1] if match else image for image, match in zip(images, matches, strict=True)]


def relative(path: Path, input_path: str) -> str:
    """`path` as a POSIX path relative to INPUT.

    Raises UserError where it lies outside or its name cannot be kept in a table.
    """
    text = Path(os.path.relpath(path, input_path)).as_posix()
    if text.startswith(".."):
        raise UserError(
            f"{path} does not lie below INPUT={input_path}; set INPUT to a folder that holds images and masks."
        )
    return text


def check(frame, where: str):  # noqa: ANN001, ANN201 (a DataFrame)
    """The same table, or UserError: an image twice, paths that climb or hold control characters, images of one stem."""
    for column in ("image", "mask"):
        if (frame[column] == "").any():
            raise UserError(f"{where}{int((frame[column] == '').sum())} rows have no {column}.")
        bad = [
            repr(path)
            for path in frame[column]
            if path.startswith(("/", "~")) or ".." in Path(path).parts or not path.isprintable()
        ]
        if bad:
            raise UserError(f"{where}{column}: expected printable paths relative to INPUT:{listing(bad)}")
    refuse_twins(list(frame["image"]), where)
    return frame


def refuse_twins(names: list[str], where: str) -> None:
    """Refuse names that are equal, or differ in the file ending only: their predictions would have one name."""
    stems = [name.removesuffix(Path(name).suffix) for name in names]
    count = Counter(stems)
    twice = sorted(name for name, stem in zip(names, stems, strict=True) if count[stem] > 1)
    if twice:
        raise UserError(f"{where}these images are listed twice, or differ in the file ending only:{listing(twice)}")


def test_images(input_path: str, test_path: str = "") -> tuple[Path, list[Path]]:
    """The folder of test images and every image below it, masks left out. Raises UserError where there is none."""
    folder = Path(test_path) if test_path else _first(_existing(input_path), ("test_hq", "test", "stage1_test"))
    if folder is None or not folder.is_dir():
        raise UserError(f"{test_path or input_path}: no test images there; TEST_PATH=folder names theirs.")
    files = [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.name[0] != "." and path.parent.name != "masks" and path.is_file()
    ]
    if not files:
        raise UserError(f"{folder}: no images there (endings: {' '.join(sorted(SUFFIXES))}).")
    return folder, sorted(files)
