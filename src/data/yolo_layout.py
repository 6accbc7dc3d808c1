"""The layout of YOLO's segmentation: images/**/<name>.jpg with labels/**/<name>.txt, or with <name>.txt beside it."""

import re
from pathlib import Path

from data.annotated import Gathered, files_of, shown
from data.file_listing import files_below
from data.layout_match import LayoutMatch, Places
from formats import polygons, yolo
from formats.images import refuse_listed
from formats.mask_reference import MaskReference
from tools.errors import UserError, listing

_LINE = re.compile(r"\s*\d+(\s+-?[\d.]+(e-?\d+)?){4,}\s*", re.I)


def find(places: Places) -> LayoutMatch | None:
    """Match images with the texts of their polygons; an image without a text is empty. Raises UserError."""
    if places.masks and not places.masks.is_dir():
        return None
    texts = [path for path in files_of(places.masks or places.root, ".txt") if _is_label(path)]
    if not texts:
        return None
    images = {_label_of(path, places): path for path in files_below(places.train or places.root)}
    folders, found = {path.parent for path in texts}, Gathered(places)
    boxes, broken = [], []
    for label, image in images.items():
        if label.parent in folders:
            try:
                _add(label, image, found)
            except yolo.BoxError as error:
                boxes.append(str(error))
            except UserError as error:
                broken.append(str(error))
    if boxes:
        raise UserError(
            f"{len(boxes)} of {len(texts)} label files hold boxes, a class and four numbers a line; boxes are no masks:"
            f"{listing(boxes, 3)}\nExport them as YOLO segmentation, with polygons."
        )
    refuse_listed(broken, "broken label files:", "Repair or remove them.")
    found.alone += [f"{path}: no image" for path in texts if path not in images]
    return found.match("yolo", f"YOLO's polygons in {shown(folders)}")


def _add(label: Path, image: Path, found: Gathered) -> None:
    """Add an image with its label, there or not. Raises UserError where it is broken, or of boxes."""
    lines = yolo.lines(label) if label.is_file() else []
    names = yolo.names_above(label.parent, found.places.root) if lines else {}
    classes = [yolo.name_of(number, names, f"{label}, line {line}") for line, number, _ in lines]
    outside = sum(polygons.reaches_out(points, (1, 1)) for _, _, points in lines)
    found.add(image, str(MaskReference.of_annotations("yolo", found.places.below(label))), classes, outside)


def _is_label(path: Path) -> bool:
    """Say whether a text's first line is a class's number and numbers."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            return bool(_LINE.fullmatch(next((line for line in file if line.strip()), "")))
    except ValueError:
        return False


def _label_of(image: Path, places: Places) -> Path:
    """Name the text of an image: below MASK_PATH, in labels/ where its own path has images/, or beside it."""
    if places.masks:
        inner = image.relative_to(places.train) if places.train else Path(image.name)
        return (places.masks / inner).with_suffix(".txt")
    parts = list(image.parts)
    for position in range(len(parts) - 2, len(places.root.parts) - 1, -1):
        if parts[position].lower() == "images":
            parts[position] = "labels" if parts[position] == "images" else "Labels"
            break
    return Path(*parts).with_suffix(".txt")
