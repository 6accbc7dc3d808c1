"""Rendered cells with annotations instead of masks: COCO's JSON, YOLO's and LabelMe's polygons of the same objects.

Every third cell is a ring: a polygon that runs into its hole and out again, or COCO's run lengths. Every eighth picture
has no cell. A row of a drawing is a kind and a polygon as JSON.
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from scenes import blobs
from scenes.writer import ANSWERS, Drawn, Table, file_name

KINDS = ("cell", "ring")
_HEIGHT, _WIDTH = blobs.SIZE
_NAMES = f"names: [{', '.join(KINDS)}]\n"


def _drawn(seed: int, number: int, image: str, mask: str) -> Drawn:
    """Draw cells and rings; the rows hold each one's kind and its polygon x, y, x, y, ..."""
    picture, masks = blobs.cells(seed, number, empty_too=True)
    rows: list[tuple[str, ...]] = []
    for index, cell in enumerate(masks):
        contours, _ = cv2.findContours(cell, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        ring = max(contours, key=cv2.contourArea)[:, 0].astype(float) + 0.5  # through the middles of pixels
        if len(ring) < 3:
            continue
        kind = int(index % 3 == 2)
        if kind:
            hole = ring.mean(0) + 0.4 * (ring - ring.mean(0))
            inner = cv2.fillPoly(np.zeros(cell.shape, np.uint8), [np.rint(hole).astype(np.int32)], 1)
            picture = np.where(inner[..., None] > 0, picture // 4, picture)
            ring = np.concatenate([ring, ring[:1], hole, hole[:1]])
        rows.append((KINDS[kind], json.dumps(np.round(ring, 2).ravel().tolist())))
    return Drawn(image, mask if rows else "", {image: picture}, rows=rows)


def coco(seed: int, number: int, test: bool) -> Drawn:
    """Draw for train/, val/ (every fourth) and test/, all in annotations/instances_<part>.json."""
    part = "test" if test else "val" if number % 4 == 0 else "train"
    reference = f"coco:annotations/instances_{part}.json#{number}"
    return _drawn(seed, number, f"{part}/{file_name(seed, number)}.jpg", reference)


def coco_files(train: list[Drawn], test: list[Drawn]) -> dict[str, Table]:
    """Write a JSON for each part; rings as run lengths, which know holes."""
    files: dict[str, dict[str, list]] = {}
    for one in [*train, *test]:
        part, _, name = one.image.partition("/")
        path = f"{f'{ANSWERS}/' * (part == 'test')}annotations/instances_{part}.json"
        about = files.setdefault(path, {"images": [], "annotations": [], "categories": _categories()})
        number = int(one.mask.rpartition("#")[2]) if one.mask else 10**6 + len(about["images"])
        about["images"].append({"id": number, "file_name": name, "height": _HEIGHT, "width": _WIDTH})
        for kind, text in one.rows:
            points = json.loads(text)
            shape = {"size": [_HEIGHT, _WIDTH], "counts": _counts(points)} if kind == "ring" else [points]
            about["annotations"].append(
                {"id": len(about["annotations"]), "image_id": number, "category_id": KINDS.index(kind) + 1,
                 "segmentation": shape, "iscrowd": 0}
            )  # fmt: skip
    return {path: json.dumps(about) for path, about in files.items()}


def _categories() -> list[dict[str, int | str]]:
    return [{"id": number, "name": name} for number, name in enumerate(KINDS, 1)]


def _counts(points: list[float]) -> list[int]:
    """Turn a polygon into COCO's run lengths."""
    from formats import polygons

    mask = polygons.mask_of([np.reshape(points, (-1, 2))], blobs.SIZE, "the demo")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.ravel(order="F")]).astype(np.int8)))
    return np.diff(np.concatenate([[0], edges, [mask.size]])).tolist()


def yolo(seed: int, number: int, test: bool) -> Drawn:
    """Draw for images/<part>/<name>.jpg with labels/<part>/<name>.txt, and data.yaml."""
    part, name = "test" if test else "val" if number % 4 == 0 else "train", file_name(seed, number)
    place = "test/images" if test else f"images/{part}"
    return _drawn(seed, number, f"{place}/{name}.jpg", f"yolo:labels/{part}/{name}.txt")


def yolo_files(train: list[Drawn], test: list[Drawn]) -> dict[str, Table]:
    """Write the labels, none for an empty image, and the names of the classes."""
    files: dict[str, Table] = {"data.yaml": f"train: images/train\nval: images/val\n{_NAMES}"}
    files[f"{ANSWERS}/data.yaml"] = _NAMES
    for one in [*train, *test]:
        lines = [f"{KINDS.index(kind)} {_shares(json.loads(text))}\n" for kind, text in one.rows]
        if lines:
            path = one.mask.removeprefix("yolo:")
            files[f"{ANSWERS}/{path}" if "/test/" in path else path] = "".join(lines)
    return files


def _shares(points: list[float]) -> str:
    return " ".join(f"{value / (_HEIGHT if at % 2 else _WIDTH):.6f}" for at, value in enumerate(points))


def labelme(seed: int, number: int, test: bool) -> Drawn:
    """Draw for images/<name>.jpg with <name>.json beside it; test/images/<name>.jpg."""
    name = file_name(seed, number)
    return _drawn(seed, number, f"{'test/' * test}images/{name}.jpg", f"labelme:images/{name}.json")


def labelme_files(train: list[Drawn], test: list[Drawn]) -> dict[str, Table]:
    """Write a JSON for each image, without the picture itself."""
    files: dict[str, Table] = {}
    for one in [*train, *test]:
        image = Path(one.image)
        shapes = [
            {"label": kind, "points": np.reshape(json.loads(text), (-1, 2)).tolist(), "group_id": None,
             "shape_type": "polygon", "flags": {}}
            for kind, text in one.rows
        ]  # fmt: skip
        about: dict[str, Any] = {
            "version": "5.8.1",
            "flags": {},
            "shapes": shapes,
            "imagePath": image.name,
            "imageData": None,
        }
        path = f"images/{image.stem}.json"
        files[f"{ANSWERS}/{path}" if one.image.startswith("test/") else path] = json.dumps(
            {**about, "imageHeight": _HEIGHT, "imageWidth": _WIDTH}
        )
    return files
