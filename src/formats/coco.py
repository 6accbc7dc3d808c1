"""COCO's JSON: images, categories, and annotations of polygons or run lengths, crowds among them.

A crowd is foreground of its class, as one object. An image without an annotation is empty. A file is read once.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from formats import polygons
from tools.errors import UserError
from tools.files import read_once


@dataclass(frozen=True)
class Picture:
    """An entry of `images`, with its annotations."""

    name: str  # file_name
    shape: tuple[int, int] | None  # (H, W), where the file says it
    annotations: list[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class CocoFile:
    """A file's images by their ids as texts, and its categories' names by their ids."""

    path: Path
    pictures: dict[str, Picture]
    names: dict[Any, str]

    def objects(self, image_id: str, shape: tuple[int, int]) -> list[tuple[str, np.ndarray]]:
        """List each object's class and mask, uint8 (H, W) of 0 and 1. Raises UserError, also for another size."""
        picture = self.picture(image_id)
        if picture.shape and picture.shape != tuple(shape):
            have = f"{picture.shape[1]} x {picture.shape[0]}"
            raise UserError(
                f"{self.path}: {picture.name} is said to have {have} pixels, and has {shape[1]} x {shape[0]}. Annotate "
                "the image as it is (turned as its EXIF orientation says), or correct width and height."
            )
        return [(self.names[one["category_id"]], self._mask(one, shape)) for one in picture.annotations]

    def picture(self, image_id: str) -> Picture:
        """Return an image's entry. Raises UserError for an id that the file does not have."""
        if image_id not in self.pictures:
            raise UserError(f"{self.path} has no image {image_id}; ids look like {', '.join(list(self.pictures)[:3])}.")
        return self.pictures[image_id]

    def _mask(self, one: dict[str, Any], shape: tuple[int, int]) -> np.ndarray:
        where, shown = f"{self.path}, annotation {one.get('id', '?')}", one.get("segmentation")
        if isinstance(shown, dict) and "counts" in shown:
            if list(shown.get("size", shape)) != list(shape):
                raise UserError(f"{where}: run lengths of the size {shown['size']}, but its image has {list(shape)}.")
            return polygons.from_counts(shown["counts"], shape, where)
        if not isinstance(shown, list) or not shown:
            raise UserError(f"{where}: a box without a polygon; boxes are no masks. Remove it, or draw its outline.")
        return polygons.mask_of([polygons.ring(part, where) for part in shown], shape, where)


def load_json(path: Path) -> Any:
    """Load a JSON file. Raises UserError where it is broken."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: broken JSON ({error}). Export it again, or move it away.") from error


def is_coco(values: Any) -> bool:
    """Say whether a JSON's values have COCO's parts."""
    return isinstance(values, dict) and all(isinstance(values.get(key), list) for key in ("images", "annotations"))


@read_once("a JSON of COCO annotations", 8)
def read(path: Path) -> CocoFile:
    """Read a file, once for as long as it stays as it is. Raises UserError where it is no JSON, or none of COCO's."""
    values = load_json(path)
    if not is_coco(values):
        raise UserError(f"{path}: expected COCO's images, annotations and categories.")
    try:
        names = {one["id"]: str(one["name"]) for one in values.get("categories", [])}
        pictures = {str(one["id"]): Picture(str(one["file_name"]), _shape(one), []) for one in values["images"]}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: an image needs id and file_name, a category id and name; missing: {error}."
        ) from error
    if len(pictures) < len(values["images"]):
        raise UserError(
            f"{path}: {len(values['images'])} images with {len(pictures)} different ids; each needs its own."
        )
    for one in values["annotations"]:
        where = f"{path}, annotation {one.get('id', '?') if isinstance(one, dict) else one}"
        try:
            owner, kind = str(one["image_id"]), one["category_id"]
            known = kind in names
        except (KeyError, TypeError) as error:
            raise UserError(f"{where}: expected image_id, category_id and segmentation; missing: {error}.") from error
        if owner not in pictures or not known:
            what = f"category {kind}" if owner in pictures else f"image {owner}"
            raise UserError(f"{where}: its {what} is not in the file's list.")
        pictures[owner].annotations.append(one)
    return CocoFile(path, pictures, names)


def _shape(one: dict[str, Any]) -> tuple[int, int] | None:
    return (int(one["height"]), int(one["width"])) if one.get("height") and one.get("width") else None
