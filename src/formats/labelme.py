"""LabelMe's JSON: an image each, with shapes: polygons, rectangles, circles and masks. Points and lines have no area.

Shapes of one label and group_id are the parts of one object.
"""

import base64
import functools
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from formats import polygons
from formats.coco import load_json
from tools.errors import UserError

WITHOUT_AREA = ("point", "points", "line", "linestrip")


class OtherError(UserError):
    """A JSON of something else."""


@dataclass(frozen=True)
class Shape:
    """A part of an object: a ring (N, 2) of x and y, or a mask with its top left corner."""

    where: str
    label: str
    group: str
    ring: np.ndarray | None
    mask: np.ndarray | None = None  # uint8 (h, w)
    corner: tuple[int, int] = (0, 0)  # x, y


@dataclass(frozen=True)
class LabelmeFile:
    """A file's shapes with an area, how many had none, the image that it names, and that one's (H, W)."""

    path: Path
    image: str
    size: tuple[int, int] | None
    shapes: tuple[Shape, ...]
    without_area: int

    def objects(self, shape: tuple[int, int]) -> list[tuple[str, np.ndarray]]:
        """List each object's class and mask, uint8 (H, W) of 0 and 1. Raises UserError, also for another size."""
        if self.size and self.size != tuple(shape):
            raise UserError(
                f"{self.path}: drawn on {self.size[1]} x {self.size[0]} pixels, but {self.image} has {shape[1]} x "
                f"{shape[0]}. Draw it on the image as it is."
            )
        found: dict[tuple[str, str], np.ndarray] = {}
        for number, one in enumerate(self.shapes):
            key = (one.label, one.group or f"alone {number}")
            mask = _filled(one, shape)
            found[key] = found[key] | mask if key in found else mask
        return [(label, mask) for (label, _), mask in found.items()]


def _filled(one: Shape, shape: tuple[int, int]) -> np.ndarray:
    if one.ring is not None:
        return polygons.mask_of([one.ring], shape, one.where)
    whole, (x, y) = np.zeros(shape, np.uint8), one.corner
    if one.mask is None or x < 0 or y < 0 or y + one.mask.shape[0] > shape[0] or x + one.mask.shape[1] > shape[1]:
        raise UserError(f"{one.where}: its mask at {x}, {y} reaches beyond the {shape[1]} x {shape[0]} pixels.")
    whole[y : y + one.mask.shape[0], x : x + one.mask.shape[1]] = one.mask
    return whole


def is_labelme(values: Any) -> bool:
    """Say whether a JSON's values have LabelMe's parts."""
    return isinstance(values, dict) and isinstance(values.get("shapes"), list) and "imagePath" in values


def read(path: Path) -> LabelmeFile:
    """Read a file, once for as long as it stays as it is. UserError where it is broken, OtherError for other JSONs."""
    try:
        state = path.stat()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected a JSON of LabelMe.") from error
    return _read(path, state.st_size, state.st_mtime_ns)


@functools.lru_cache(1 << 16)
def _read(path: Path, size: int, mtime_ns: int) -> LabelmeFile:  # noqa: ARG001 (they make a changed file another one)
    values = load_json(path)
    if not is_labelme(values):
        raise OtherError(f"{path}: expected LabelMe's shapes and imagePath.")
    shapes, empty = [], 0
    for number, one in enumerate(values["shapes"]):
        where = f"{path}, shape {number}"
        if not isinstance(one, dict) or not isinstance(one.get("label"), str) or not one["label"]:
            raise UserError(f"{where}: no label.")
        if one.get("shape_type") in WITHOUT_AREA:
            empty += 1
            continue
        shapes.append(_shape(one, where))
    height, width = values.get("imageHeight"), values.get("imageWidth")
    image = str(values["imagePath"]).replace("\\", "/")
    return LabelmeFile(path, image, (height, width) if height and width else None, tuple(shapes), empty)


def _shape(one: dict[str, Any], where: str) -> Shape:
    """Read a shape with an area. Raises UserError."""
    kind, group = one.get("shape_type") or "polygon", "" if one.get("group_id") is None else str(one["group_id"])
    if kind == "polygon":
        return Shape(where, one["label"], group, polygons.ring(one.get("points"), where))
    try:
        two = np.asarray(one.get("points"), np.float64).reshape(2, 2)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: a {kind} has two points, got {str(one.get('points'))[:50]}.") from error
    if kind == "rectangle":
        return Shape(where, one["label"], group, polygons.rectangle(*two))
    if kind == "circle":
        return Shape(where, one["label"], group, polygons.circle(*two))
    if kind != "mask":
        raise UserError(f"{where}: a {kind}; expected polygon, rectangle, circle or mask.")
    return Shape(where, one["label"], group, None, _picture(one.get("mask"), where), (int(two[0, 0]), int(two[0, 1])))


def _picture(text: Any, where: str) -> np.ndarray:
    """Decode a mask that is kept as a PNG in base64 -> uint8 (h, w) of 0 and 1. Raises UserError."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=("PNG",)) as image:
            return (np.asarray(image.convert("L")) > 0).astype(np.uint8)
    except Exception as error:
        raise UserError(f"{where}: its mask is no PNG in base64 ({error}).") from error
