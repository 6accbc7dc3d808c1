"""Layouts of annotations instead of mask files: COCO's JSON, YOLO's texts, LabelMe's JSONs -> pairs.

Where the paths say train and valid (or val), that is the split; what they call test is left to the prediction.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from data.file_listing import MASK_FOLDERS, files_below
from data.layout_match import LayoutMatch, Pair, Places
from formats import coco, labelme, polygons, yolo
from formats.images import refuse_listed
from formats.mask_reference import MaskReference
from tools.errors import UserError, listing

_PARTS = {"train": 1, "training": 1, "val": 0, "valid": 0, "validation": 0, "test": -1, "testing": -1}
_WORD = re.compile(
    r"(?<![a-z])(training|train|validation|valid|val|testing|test)(?![a-su-z])", re.I
)  # train2017, train_x
_LOOKED_AT = 8  # JSONs that tell whether a folder of many is LabelMe's
_YOLO = re.compile(r"\s*\d+(\s+-?[\d.]+(e-?\d+)?){4,}\s*", re.I)


def _part_of(path: str) -> int | None:
    """Tell the fold by the last word in a path that names a part of the data: 0 valid, 1 train, -1 test."""
    words = _WORD.findall(path)
    return _PARTS[words[-1].lower()] if words else None


def _files(root: Path, suffix: str) -> list[Path]:
    """List files of this ending below a folder, sorted; hidden ones and macOS' copies are left out."""
    found = []
    for place, folders, names in os.walk(root, followlinks=False):
        folders[:] = [name for name in folders if name[0] != "." and name != "__MACOSX"]
        found += [Path(place, name) for name in names if name.lower().endswith(suffix) and name[0] != "."]
    return sorted(found)


def _with_split(pairs: list[Pair], parts: Sequence[int | None]) -> tuple[list[Pair], str]:
    """Give each pair its fold where all are of train or valid, and both are there; and a sentence of it."""
    if set(parts) != {0, 1}:
        return pairs, ""
    split = [Pair(one.image, one.mask, one.stratum, part) for one, part in zip(pairs, parts, strict=True)]
    return split, f", a split that came with the data: fold 0 holds out valid ({parts.count(0)}), fold 1 train"


def _match(
    layout: str, sentence: str, pairs: list[Pair], parts: list[int | None], alone: list[str], classes: Iterable[str]
) -> LayoutMatch:
    split, said = _with_split(pairs, parts)
    return LayoutMatch(layout, sentence + said, split, alone, classes=tuple(sorted(classes)))


def _counted(objects: Counter, empty: int, outside: int, left: int, more: Iterable[str] = ()) -> str:
    """Say how many objects of how many classes there are, and what is unusual."""
    said = [f"{objects.total()} objects of {len(objects)} classes"]
    said += [f"{empty} images without an annotation are empty"] if empty else []
    said += [f"{outside} reach outside of their images and are cut off there"] if outside else []
    said += [f"{left} images called test are left to the prediction"] if left else []
    return "; ".join([*said, *more])


# === COCO


def find_coco(places: Places) -> LayoutMatch | None:
    """Match COCO's JSONs with their images; several are parts of the data, by their names. Raises UserError."""
    if places.masks and places.masks.suffix.lower() != ".json":
        return None
    candidates = [places.masks] if places.masks else _files(places.root, ".json")
    if len(candidates) > 64:  # LabelMe's, one an image
        return None
    files = [coco.read(path) for path in candidates if places.masks or coco.is_coco(_tried(path))]
    files = [file for file in files if _has_outlines(file)]
    if not files:
        return None
    kept = _of_training(files, places)
    listed = files_below(places.train or places.root)
    found = _Images(listed, places.root)
    pairs, parts, alone, objects = [], [], [], Counter[str]()
    empty = outside = left = 0
    for file in kept:
        name, part = places.below(file.path), _part_of(places.below(file.path))
        for image_id, picture in file.pictures.items():
            image = found.of(picture.name, file.path)
            if isinstance(image, str):
                alone.append(f"{file.path}: {picture.name} {image}")
                continue
            own = _part_of(places.below(image)) if part is None else part
            if own == -1:
                left += 1
                continue
            reference = str(MaskReference.of_annotations("coco", name, image_id)) if picture.annotations else ""
            pairs.append(Pair(places.below(image), reference))
            parts.append(own)
            objects.update(file.names[one["category_id"]] for one in picture.annotations)
            empty += not picture.annotations
            outside += sum(_leaves(one, picture.shape) for one in picture.annotations)
    twice = [image for image, count in Counter(pair.image for pair in pairs).items() if count > 1]
    if twice:
        raise UserError(
            f"{len(twice)} images are in two of the files, such as {twice[0]}:{listing([str(one.path) for one in kept])}\n"
            f"Name one: MASK_PATH={kept[0].path}"
        )
    crowds = sum(
        bool(one.get("iscrowd")) for file in kept for shown in file.pictures.values() for one in shown.annotations
    )
    more = [f"{crowds} crowds, each as one object"] if crowds else []
    where = " and ".join(str(file.path) for file in kept)
    sentence = f"COCO annotations in {where}: {_counted(objects, empty, outside, left, more)}"
    return _match("coco", sentence, pairs, parts, alone, objects)


def _tried(path: Path) -> object:
    """Load a JSON that may be anything; where it is broken and called like annotations, that is said."""
    try:
        return coco.load_json(path)
    except UserError:
        if re.search("instances|annotation|coco", path.name, re.I):
            raise
        return None


def _has_outlines(file: coco.CocoFile) -> bool:
    """Say whether a file is of masks: has polygons or run lengths, and no captions. UserError where it has boxes only."""
    every = [one for picture in file.pictures.values() for one in picture.annotations]
    shown = [one for one in every if one.get("segmentation")]
    if every and not shown and any("bbox" in one for one in every):
        raise UserError(
            f"{file.path}: its {len(every)} annotations are boxes without a polygon; boxes are no masks. Export them "
            "with segmentation, or move the file away."
        )
    return bool(shown)


def _of_training(files: list[coco.CocoFile], places: Places) -> list[coco.CocoFile]:
    """Leave out the test's files, and others than instances_... where there are such."""
    kept = [file for file in files if _part_of(places.below(file.path)) != -1] or files
    instances = [file for file in kept if file.path.name.startswith("instances")]
    return instances or kept


def _leaves(one: dict, shape: tuple[int, int] | None) -> bool:
    parts = one.get("segmentation")
    if shape is None or not isinstance(parts, list):
        return False
    try:
        return any(polygons.reaches_out(np.asarray(part, np.float64).reshape(-1, 2), shape) for part in parts)
    except (TypeError, ValueError):  # the strict decode says it
        return False


class _Images:
    """The image files below a folder, found by how an annotation calls them."""

    def __init__(self, files: list[Path], root: Path) -> None:
        self.root, self.by_name = root, dict[str, list[Path]]()
        self.every = set(files)
        for path in files:
            if any(part.lower() in MASK_FOLDERS for part in path.relative_to(root).parts[:-1]):
                continue  # masks are called as their images
            self.by_name.setdefault(path.name, []).append(path)

    def of(self, name: str, source: Path) -> Path | str:
        """Find the image that the file `source` calls `name`; or say why there is none."""
        name = name.replace("\\", "/")
        for folder in (source.parent, self.root):
            if (path := Path(os.path.normpath(folder / name))) in self.every:
                return path
        parts = PurePosixPath(name).parts
        found = self.by_name.get(parts[-1], []) if parts else []
        nearer = [path for path in found if path.parts[-len(parts) :] == parts] or found
        if len(nearer) > 1:
            part = _part_of(source.relative_to(self.root).as_posix())
            nearer = [one for one in nearer if _part_of(one.parent.relative_to(self.root).as_posix()) == part] or nearer
        if len(nearer) == 1:
            return nearer[0]
        return f"is {' and '.join(map(str, nearer[:3]))}" if nearer else f"is no image below {self.root}"


# === YOLO


def find_yolo(places: Places) -> LayoutMatch | None:
    """Match images/**/<name>.jpg with labels/**/<name>.txt, or with <name>.txt beside it. Raises UserError."""
    texts = [path for path in _files(places.masks or places.root, ".txt") if _looks_like_yolo(path)]
    if not texts or (places.masks and not places.masks.is_dir()):
        return None
    folders = {path.parent for path in texts}
    images = {_label_of(path, places): path for path in files_below(places.train or places.root)}
    pairs, parts, broken, boxes, objects = [], list[int | None](), [], [], Counter[str]()
    empty = outside = left = 0
    for label, image in images.items():
        if label.parent not in folders:
            continue
        if (part := _part_of(places.below(image))) == -1:
            left += 1
            continue
        shown: list = []
        if label.is_file():
            try:
                shown = yolo.lines(label)
                names = yolo.names_above(label.parent, places.root)
                objects.update(yolo.name_of(number, names, f"{label}, line {line}") for line, number, _ in shown)
            except yolo.BoxError as error:
                boxes.append(str(error))
            except UserError as error:
                broken.append(str(error))
        reference = str(MaskReference.of_annotations("yolo", places.below(label))) if shown else ""
        pairs.append(Pair(places.below(image), reference))
        parts.append(part)
        empty += not shown
        outside += sum(polygons.reaches_out(points, (1, 1)) for _, _, points in shown)
    if boxes:
        raise UserError(
            f"{len(boxes)} of {len(pairs)} label files hold boxes, a class and four numbers a line; boxes are no masks:"
            f"{listing(boxes, 3)}\nExport them as YOLO segmentation, with polygons."
        )
    refuse_listed(broken, "broken label files:", "Repair or remove them.")
    alone = [f"{path}: no image" for path in texts if path not in images]
    sentence = f"YOLO's polygons in {_shown(folders)}: {_counted(objects, empty, outside, left)}"
    return _match("yolo", sentence, pairs, parts, alone, objects)


def _shown(folders: Iterable[Path]) -> str:
    some = sorted(map(str, folders))
    return " and ".join(some[:3]) + f" and {len(some) - 3} more" * (len(some) > 3)


def _looks_like_yolo(path: Path) -> bool:
    """Say whether a text's first line is a class's number and numbers."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            return bool(_YOLO.fullmatch(next((line for line in file if line.strip()), "")))
    except ValueError:
        return False


def _label_of(image: Path, places: Places) -> Path:
    """Name the text of an image: below MASK_PATH, in labels/ where its own path has images/, or beside it."""
    if places.masks:
        inner = image.relative_to(places.train) if places.train else Path(image.name)
        return (places.masks / inner).with_suffix(".txt")
    parts = list(image.parts)
    for position in range(len(parts) - 2, -1, -1):
        if parts[position].lower() == "images":
            parts[position] = _named_like("labels", Path(*parts[:position]))
            break
    return Path(*parts).with_suffix(".txt")


def _named_like(name: str, folder: Path) -> str:
    """Return the name of a folder in `folder` that is called so, in whatever case."""
    if (folder / name).is_dir() or not folder.is_dir():
        return name
    return next((path.name for path in folder.iterdir() if path.name.lower() == name), name)


# === LabelMe


def find_labelme(places: Places) -> LayoutMatch | None:
    """Match LabelMe's JSONs with the images that they name, beside them or below INPUT. Raises UserError."""
    if places.masks and not places.masks.is_dir():
        return None
    candidates = _files(places.masks or places.root, ".json")
    if not any(labelme.is_labelme(_tried(path)) for path in candidates[:_LOOKED_AT]):
        return None
    files, broken = [], []
    for path in candidates:
        try:
            files.append(labelme.read(path))
        except UserError as error:
            broken.append(str(error))
    refuse_listed(broken, "broken or other JSONs among LabelMe's:", "Repair them, or move them away.")
    listed = files_below(places.train or places.root)
    found, pairs, parts, alone, objects = _Images(listed, places.root), [], list[int | None](), [], Counter[str]()
    empty = outside = left = 0
    for file in files:
        image = found.of(file.image, file.path)
        image = found.of(PurePosixPath(file.image).name, file.path) if isinstance(image, str) else image
        if isinstance(image, str):
            alone.append(f"{file.path}: {file.image} {image}")
            continue
        part = _part_of(places.below(image))
        if part == -1:
            left += 1
            continue
        reference = str(MaskReference.of_annotations("labelme", places.below(file.path))) if file.shapes else ""
        pairs.append(Pair(places.below(image), reference))
        parts.append(part)
        objects.update(
            {(one.label, one.group or str(number)): one.label for number, one in enumerate(file.shapes)}.values()
        )
        empty += not file.shapes
        outside += sum(
            file.size is not None and one.ring is not None and polygons.reaches_out(one.ring, file.size)
            for one in file.shapes
        )
    have = {pair.image for pair in pairs}
    folders = {str(PurePosixPath(image).parent) for image in have}
    lone = (path for path in listed if str(PurePosixPath(places.below(path)).parent) in folders)
    alone += [f"{path}: no JSON" for path in lone if places.below(path) not in have]
    without = sum(file.without_area for file in files)
    more = [f"{without} points and lines are left out: they have no area"] if without else []
    sentence = f"LabelMe's JSONs in {_shown({file.path.parent for file in files})}: {_counted(objects, empty, outside, left, more)}"
    return _match("labelme", sentence, pairs, parts, alone, objects)
