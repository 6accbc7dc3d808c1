"""Annotations as references name them: COCO's, YOLO's and LabelMe's files -> each object's class and mask."""

from pathlib import Path

import numpy as np

from formats import coco, labelme, yolo
from formats.mask_reference import MaskReference


def objects(root: Path, where: MaskReference, shape: tuple[int, int]) -> list[tuple[str, np.ndarray]]:
    """List each object's class and mask, uint8 (H, W) of 0 and 1, in the file's order. Raises UserError."""
    path = root / where.path
    if where.source == "coco":
        return coco.read(path).objects(where.image_id, shape)
    if where.source == "yolo":
        return yolo.objects(path, yolo.names_above(path.parent, root), shape)
    return labelme.read(path).objects(shape)


def classes(root: Path, where: MaskReference) -> set[str]:
    """Name the classes of one image's objects. Raises UserError."""
    path = root / where.path
    if where.source == "coco":
        file = coco.read(path)
        return {file.names[one["category_id"]] for one in file.picture(where.image_id).annotations}
    if where.source == "yolo":
        names = yolo.names_above(path.parent, root)
        return {yolo.name_of(number, names, f"{path}, line {line}") for line, number, _ in yolo.lines(path)}
    return {shape.label for shape in labelme.read(path).shapes}
