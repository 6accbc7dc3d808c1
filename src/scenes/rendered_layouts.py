"""One small rendered data set for each layout that make folds finds by itself: what its files are called and hold."""

from functools import partial
from pathlib import Path

import numpy as np

from formats import rle
from scenes import annotated, blobs, hands, screens, writer
from scenes.writer import ANSWERS, Drawn, Layout, Table, file_name
from tools.errors import UserError

COUNT, TEST_COUNT = 60, 16
COLORS = {  # of the classes of land
    "field": (222, 202, 122), "water": (58, 110, 200), "forest": (34, 110, 52), "road": (160, 160, 160),
    "roof": (204, 62, 48), "ignore": (0, 0, 0),
}  # fmt: skip
_COLOR_OF = np.zeros((256, 3), np.uint8)  # of each value of a class map; black where there is no class
_COLOR_OF[: len(blobs.LAND)] = [COLORS[name] for name in blobs.LAND]
# as VOC2012 draws what is not labeled
_PALETTE = (*_COLOR_OF[: blobs.NOT_LABELED].ravel().tolist(), 224, 224, 192)
_STEP = 2  # a patient's even slices are drawn
_SCANS = blobs.SLICES // _STEP


def _kind(number: int) -> str:
    return hands.KINDS[number % len(hands.KINDS)]


def _folders(seed: int, number: int, test: bool) -> Drawn:
    """Draw nails: images/<kind>/<name>.jpg, masks/<kind>/<name>.png, test/images/<kind>/<name>.jpg."""
    picture, outline = hands.nails(seed, number, _kind(number))
    name = f"{_kind(number)}/{file_name(seed, number)}"
    image, mask = f"{'test/' * test}images/{name}.jpg", f"masks/{name}.png"
    return Drawn(image, mask, {image: picture}, {mask: outline * 255})


def _split(seed: int, number: int, test: bool) -> Drawn:
    """Draw nails: train/ and, every fourth, valid/, each with images/ and masks/; test/images/."""
    picture, outline = hands.nails(seed, number, _kind(number // 4))
    part, name = "test" if test else "valid" if number % 4 == 3 else "train", file_name(seed, number)
    image, mask = f"{part}/images/{name}.jpg", f"{part}/masks/{name}.png"
    return Drawn(image, mask, {image: picture}, {mask: outline * 255})


def _own_table(seed: int, number: int, test: bool) -> Drawn:
    """Draw nails, two or three pictures a person: pictures/, outlines/ under other names, test/."""
    person = number * 2 // 5
    picture, outline = hands.nails(seed, number, _kind(person), person)
    image = f"{'test' if test else 'pictures'}/{file_name(seed, number)}.jpg"
    mask, row = f"outlines/hand_{number:04d}.png", (f"person{person:03d}", _kind(person))
    return Drawn(image, mask, {image: picture}, {mask: outline * 255}, [(image, mask, *row)])


def _ui(seed: int, number: int, test: bool) -> Drawn:
    """Draw screenshots: train/<name>.png with train/<name>_mask.png beside it; test/<name>.png."""
    picture, interface = screens.screen(seed, number)
    start = f"{'test' if test else 'train'}/{file_name(seed, number)}"
    return Drawn(f"{start}.png", f"{start}_mask.png", {f"{start}.png": picture}, {f"{start}_mask.png": interface * 255})


def _rle(seed: int, number: int, test: bool) -> Drawn:
    """Draw cells: train_images/<id>.png, test_images/, train.csv: ImageId,EncodedPixels, a row a cell (or blank)."""
    picture, masks = blobs.cells(seed, number, empty_too=True)
    name = file_name(seed, number) + ".png"
    image = f"{'test' if test else 'train'}_images/{name}"
    texts = [rle.encode(mask, "F") for mask in masks] or [""]
    return Drawn(image, f"rle:train.csv#{name}", {image: picture}, rows=[(name, text) for text in texts])


def _rle_classes(seed: int, number: int, test: bool) -> Drawn:
    """Draw organs: train/<patient>_slice_<nnnn>.png (16 bits), train.csv with id,class,segmentation; test/."""
    patient, level = number // _SCANS, number % _SCANS * _STEP
    picture, masks = blobs.organs(seed, patient, level)
    name = f"case{12 + patient}_slice_{level + 1:04d}"
    image = f"{'test' if test else 'train'}/{name}.png"
    rows: list[tuple[str, ...]] = [(name, organ, rle.encode(mask, "C")) for organ, mask in masks.items()]
    return Drawn(image, f"rle:train.csv#{name}", {image: picture}, rows=rows)


def _run_tables(
    header: tuple[str, ...], submit: tuple[str, ...], train: list[Drawn], test: list[Drawn]
) -> dict[str, Table]:
    """Put run lengths into train.csv and .answers/train.csv; sample_submission.csv has one row an id (and class)."""
    ids = dict.fromkeys(row[:-1] for one in test for row in one.rows)
    return {
        "train.csv": (header, [row for one in train for row in one.rows]),
        f"{ANSWERS}/train.csv": (header, [row for one in test for row in one.rows]),
        "sample_submission.csv": (submit, [(*key, "") for key in ids]),
    }


def _class_files(seed: int, number: int, test: bool) -> Drawn:
    """Draw organs in 8 bits: images/<name>.png, masks/<class>/<name>.png where the slice shows any of it."""
    patient, level = number // _SCANS, number % _SCANS * _STEP
    picture, masks = blobs.organs(seed, patient, level)
    name = f"patient{patient:03d}_{level + 1:02d}"
    image, mask = f"{'test/' * test}images/{name}.png", f"masks/{{class}}/{name}.png"
    files = {mask.replace("{class}", organ): drawn * 255 for organ, drawn in masks.items() if drawn.any()}
    eight = np.clip((picture.astype(np.float32) - 200) / 10, 0, 255).astype(np.uint8)
    return Drawn(image, mask, {image: eight}, files)


def _slices(seed: int, number: int, test: bool) -> Drawn:
    """Draw organs: images/<id>_<z>.png, five slices of 16 bits, and masks/<id>.png, the middle one's liver."""
    middle, name = 3 + number % 4, file_name(seed, number)
    stack, mask = f"{'test/' * test}images/{name}_{{z}}.png", f"masks/{name}.png"
    drawn = [blobs.organs(seed, number, middle - 2 + z) for z in range(5)]
    files = {stack.replace("{z}", str(z)): picture for z, (picture, _) in enumerate(drawn)}
    return Drawn(stack, mask, files, {mask: drawn[2][1]["liver"] * 255})


def _instances(seed: int, number: int, test: bool) -> Drawn:
    """Draw cells: stage1_train/<id>/images/<id>.png and masks/<n>.png, one a cell; stage1_test/<id>/images/<id>.png."""
    picture, masks = blobs.cells(seed, number)
    name = file_name(seed, number)
    folder = f"stage1_{'test' if test else 'train'}/{name}"
    files = {f"{folder}/masks/{index:03d}.png": mask * 255 for index, mask in enumerate(masks)}
    return Drawn(f"{folder}/images/{name}.png", f"{folder}/masks", {f"{folder}/images/{name}.png": picture}, files)


def _blank_rows(test: list[Drawn]) -> list[tuple[str, str]]:
    return [(Path(one.image).stem, "") for one in test]


def _land(seed: int, number: int, test: bool, channels: int = 3, kind: str = "gray") -> Drawn:
    """Draw land: images/<name>.png (four channels: .tif), masks/<name>.png with class maps, gray, palette or colors."""
    picture, labels = blobs.land(seed, number)
    name = file_name(seed, number)
    image, mask = f"{'test/' * test}images/{name}.{'png' if channels == 3 else 'tif'}", f"masks/{name}.png"
    drawn, palette = _COLOR_OF[labels] if kind == "colors" else labels, _PALETTE if kind == "palette" else ()
    return Drawn(image, mask, {image: np.ascontiguousarray(picture[..., :channels])}, {mask: drawn}, palette=palette)


_RUNS, _CLASS_RUNS = ("ImageId", "EncodedPixels"), ("id", "class", "segmentation")
_OWN = ("image", "mask", "group", "stratum")
_VALUES: Table = ("name", "value"), [(name, value) for value, name in enumerate(blobs.LAND)]
_COLORS: Table = ("name", "r", "g", "b"), [(name, *color) for name, color in COLORS.items()]
LAYOUTS = {
    "folders": Layout(_folders),
    "split": Layout(_split),
    "rle": Layout(_rle, partial(_run_tables, _RUNS, _RUNS)),
    "rle_classes": Layout(_rle_classes, partial(_run_tables, _CLASS_RUNS, ("id", "class", "predicted")), _SCANS),
    "ui": Layout(_ui),
    "classmap": Layout(_land, lambda *_: {"classes.csv": _VALUES}),
    "palette": Layout(partial(_land, kind="palette"), lambda *_: {"classes.csv": _VALUES}),
    "colours": Layout(partial(_land, kind="colors"), lambda *_: {"classes.csv": _COLORS}),
    "class_files": Layout(_class_files, together=_SCANS),
    "table": Layout(_own_table, lambda train, _: {"my.csv": (_OWN, [one.rows[0] for one in train])}, together=5),
    "instances": Layout(_instances, lambda _, test: {"stage1_sample_submission.csv": (_RUNS, _blank_rows(test))}),
    "near_infrared": Layout(partial(_land, channels=4), lambda *_: {"classes.csv": _VALUES}),
    "slices": Layout(_slices),
    "coco": Layout(annotated.coco, annotated.coco_files),
    "yolo": Layout(annotated.yolo, annotated.yolo_files),
    "labelme": Layout(annotated.labelme, annotated.labelme_files),
}


def write(layout: str, root: Path, seed: int = 42, count: int = COUNT, test_count: int = TEST_COUNT) -> writer.About:
    """Render `count` training and `test_count` test images in a layout into `root`; returns what demo.json holds.

    Raises UserError for an unknown layout, and what `writer.write` does.
    """
    if layout not in LAYOUTS:
        raise UserError(f"LAYOUT={layout}: expected one of {', '.join(LAYOUTS)}.")
    numbers = {"seed": seed, "count": count, "test_count": test_count}
    return writer.write(layout, LAYOUTS[layout], root, numbers)
