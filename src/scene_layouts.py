"""Rendered data sets on disk (scenes/), one for each layout that make folds finds by itself.

The answers of the test images lie below .answers/, in the form of the training masks; demo.json says which is whose.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from formats import rle
from scenes import aerial, hands, scans, screens
from scenes.files import ANSWERS, Drawn, Job, file_name, numbered, render, write_table
from tools.errors import UserError
from tools.files import write_json

DONE = "demo.json"
COUNT, TEST_COUNT = 60, 16
COLOURS = {  # of the classes of land
    "field": (222, 202, 122), "water": (58, 110, 200), "forest": (34, 110, 52), "road": (160, 160, 160),
    "roof": (204, 62, 48), "ignore": (0, 0, 0),
}  # fmt: skip
_STEP = 2  # a patient's even slices are in the tables of run lengths
_SCANS = scans.SLICES // _STEP


def _kind(number: int) -> str:
    return hands.KINDS[number % len(hands.KINDS)]


def _level(number: int) -> tuple[int, int]:
    """Patient and slice of a picture where each patient has _SCANS of them."""
    return number // _SCANS, number % _SCANS * _STEP


def _folders(root: Path, seed: int, count: int, test_count: int) -> list[Drawn]:
    """Nails: images/<kind>/<name>.jpg, masks/<kind>/<name>.png, test/images/<kind>/<name>.jpg."""

    def draw(number: int, test: bool) -> Drawn:
        picture, outline = hands.nails(seed, number, _kind(number))
        name = f"{_kind(number)}/{file_name(seed, number)}"
        image, mask = f"{'test/' * test}images/{name}.jpg", f"masks/{name}.png"
        return Drawn(image, mask, {image: picture}, {mask: outline * 255})

    return render(root, numbered(count, test_count), draw)[1]


def _split(root: Path, seed: int, count: int, test_count: int) -> list[Drawn]:
    """Nails: train/ and, every fourth, valid/, each with images/ and masks/; test/images/."""

    def draw(number: int, test: bool) -> Drawn:
        picture, outline = hands.nails(seed, number, _kind(number // 4))
        part, name = "test" if test else "valid" if number % 4 == 3 else "train", file_name(seed, number)
        image, mask = f"{part}/images/{name}.jpg", f"{part}/masks/{name}.png"
        return Drawn(image, mask, {image: picture}, {mask: outline * 255})

    return render(root, numbered(count, test_count), draw)[1]


def _table_of_runs(
    root: Path, jobs: list[Job], draw: Callable[[int, bool], Drawn], header: tuple[str, ...], submit: tuple[str, ...]
) -> list[Drawn]:
    """train.csv, .answers/train.csv of the same columns, and sample_submission.csv with one row an id (and class)."""
    train, test = render(root, jobs, draw)
    for folder, drawn in ((root, train), (root / ANSWERS, test)):
        write_table(folder / "train.csv", header, [row for one in drawn for row in one.rows])
    ids = dict.fromkeys(row[:-1] for one in test for row in one.rows)
    write_table(root / "sample_submission.csv", submit, [(*key, "") for key in ids])
    return test


def _rle(root: Path, seed: int, count: int, test_count: int) -> list[Drawn]:
    """Cells: train_images/<id>.png, train.csv with ImageId,EncodedPixels, a row a cell, or a blank; test_images/."""

    def draw(number: int, test: bool) -> Drawn:
        picture, masks = scans.cells(seed, number, empty_too=True)
        name = file_name(seed, number) + ".png"
        image = f"{'test' if test else 'train'}_images/{name}"
        texts = [rle.encode(mask, "F") for mask in masks] or [""]
        return Drawn(image, f"rle:train.csv#{name}", {image: picture}, rows=[(name, text) for text in texts])

    columns = ("ImageId", "EncodedPixels")
    return _table_of_runs(root, numbered(count, test_count), draw, columns, columns)


def _rle_classes(root: Path, seed: int, count: int, test_count: int) -> list[Drawn]:
    """Organs: train/<patient>_slice_<nnnn>.png (16 bits), train.csv with id,class,segmentation; test/."""

    def draw(number: int, test: bool) -> Drawn:
        patient, level = _level(number)
        picture, masks = scans.organs(seed, patient, level)
        name = f"case{12 + patient}_slice_{level + 1:04d}"
        image = f"{'test' if test else 'train'}/{name}.png"
        rows = [(name, organ, rle.encode(mask, "C")) for organ, mask in masks.items()]
        return Drawn(image, f"rle:train.csv#{name}", {image: picture}, rows=rows)

    jobs, keys = numbered(count, test_count, _SCANS), ("id", "class")
    return _table_of_runs(root, jobs, draw, (*keys, "segmentation"), (*keys, "predicted"))


def _ui(root: Path, seed: int, count: int, test_count: int) -> list[Drawn]:
    """Screenshots: train/<name>.png with train/<name>_mask.png beside it; test/<name>.png."""

    def draw(number: int, test: bool) -> Drawn:
        picture, interface = screens.screen(seed, number)
        start = f"{'test' if test else 'train'}/{file_name(seed, number)}"
        image, mask = f"{start}.png", f"{start}_mask.png"
        return Drawn(image, mask, {image: picture}, {mask: interface * 255})

    return render(root, numbered(count, test_count), draw)[1]


def _land(
    root: Path, seed: int, jobs: list[Job], channels: int = 3, colours: np.ndarray | None = None, palette: tuple = ()
) -> list[Drawn]:
    """Land: images/<name>, masks/<name>.png with class maps or their colours, test/images/<name>."""

    def draw(number: int, test: bool) -> Drawn:
        picture, labels = aerial.land(seed, number)
        name = file_name(seed, number)
        image, mask = f"{'test/' * test}images/{name}.{'png' if channels == 3 else 'tif'}", f"masks/{name}.png"
        drawn = labels if colours is None else colours[labels]
        return Drawn(image, mask, {image: np.ascontiguousarray(picture[..., :channels])}, {mask: drawn})

    return render(root, jobs, draw, palette)[1]


def _write_values(root: Path) -> None:
    write_table(root / "classes.csv", ("name", "value"), [(name, value) for value, name in enumerate(aerial.LAND)])


def _colour_table() -> np.ndarray:
    """The colour of each value of a class map, uint8 (256, 3); black where there is no class."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(aerial.LAND)] = [COLOURS[name] for name in aerial.LAND]
    return table


def _classmap(root: Path, seed: int, count: int, test_count: int, channels: int = 3) -> list[Drawn]:
    """Land with grey class maps, 0 to 4 and 255, not labelled; classes.csv with name,value."""
    _write_values(root)
    return _land(root, seed, numbered(count, test_count), channels)


def _near_infrared(root: Path, seed: int, count: int, test_count: int) -> list[Drawn]:
    """`_classmap` with TIFFs of four channels: red, green, blue, near infrared."""
    return _classmap(root, seed, count, test_count, channels=4)


def _palette(root: Path, seed: int, count: int, test_count: int) -> list[Drawn]:
    """Land with class maps as indices into a palette, 255 not labelled; classes.csv with name,value."""
    _write_values(root)
    table = _colour_table()
    table[aerial.NOT_LABELLED] = (224, 224, 192)  # as VOC2012 draws what is not labelled
    return _land(root, seed, numbered(count, test_count), palette=tuple(table.ravel().tolist()))


def _colours(root: Path, seed: int, count: int, test_count: int) -> list[Drawn]:
    """Land with masks in colours, black not labelled; classes.csv with name,r,g,b and a row ignore."""
    write_table(root / "classes.csv", ("name", "r", "g", "b"), ((name, *colour) for name, colour in COLOURS.items()))
    return _land(root, seed, numbered(count, test_count), colours=_colour_table())


def _class_files(root: Path, seed: int, count: int, test_count: int) -> list[Drawn]:
    """Organs in 8 bits: images/<name>.png, masks/<class>/<name>.png where the slice shows any of it; test/images/."""

    def draw(number: int, test: bool) -> Drawn:
        patient, level = _level(number)
        picture, masks = scans.organs(seed, patient, level)
        name = f"patient{patient:03d}_{level + 1:02d}"
        image, mask = f"{'test/' * test}images/{name}.png", f"masks/{{class}}/{name}.png"
        files = {mask.replace("{class}", organ): drawn * 255 for organ, drawn in masks.items() if drawn.any()}
        eight = np.clip((picture.astype(np.float32) - 200) / 10, 0, 255).astype(np.uint8)
        return Drawn(image, mask, {image: eight}, files)

    return render(root, numbered(count, test_count, _SCANS), draw)[1]


def _own_table(root: Path, seed: int, count: int, test_count: int) -> list[Drawn]:
    """Nails: my.csv with image,mask,group,stratum; pictures/, outlines/ under other names, test/."""
    sizes = np.random.default_rng([seed, 10]).integers(2, 4, count + test_count)
    people = np.repeat(np.arange(len(sizes)), sizes)[:count]  # two or three pictures each

    def draw(number: int, test: bool) -> Drawn:
        person = len(sizes) + number if test else int(people[number])
        picture, outline = hands.nails(seed, number, _kind(person), person)
        image, mask = (
            f"{'test' if test else 'pictures'}/{file_name(seed, number)}.jpg",
            f"outlines/hand_{number:04d}.png",
        )
        rows = [(image, mask, f"person{person:03d}", _kind(person))]
        return Drawn(image, mask, {image: picture}, {mask: outline * 255}, rows)

    train, test = render(root, numbered(count, test_count), draw)
    write_table(root / "my.csv", ("image", "mask", "group", "stratum"), [row for one in train for row in one.rows])
    return test


def _instances(root: Path, seed: int, count: int, test_count: int) -> list[Drawn]:
    """Cells: stage1_train/<id>/images/<id>.png with masks/<n>.png, one a cell; stage1_test/<id>/images/<id>.png."""

    def draw(number: int, test: bool) -> Drawn:
        picture, masks = scans.cells(seed, number)
        name = file_name(seed, number)
        folder = f"stage1_{'test' if test else 'train'}/{name}"
        image, files = (
            f"{folder}/images/{name}.png",
            {f"{folder}/masks/{n:03d}.png": m * 255 for n, m in enumerate(masks)},
        )
        return Drawn(image, f"{folder}/masks", {image: picture}, files)

    test = render(root, numbered(count, test_count), draw)[1]
    ids = [(Path(one.image).stem, "") for one in test]
    write_table(root / "stage1_sample_submission.csv", ("ImageId", "EncodedPixels"), ids)
    return test


def _slices(root: Path, seed: int, count: int, test_count: int) -> list[Drawn]:
    """Organs: images/<id>_<z>.png, five neighbouring slices of 16 bits, and masks/<id>.png, the middle one's liver."""

    def draw(number: int, test: bool) -> Drawn:
        middle, name = 3 + number % 4, file_name(seed, number)
        stack, mask = f"{'test/' * test}images/{name}_{{z}}.png", f"masks/{name}.png"
        drawn = [scans.organs(seed, number, middle - 2 + z) for z in range(5)]
        files = {stack.replace("{z}", str(z)): picture for z, (picture, _) in enumerate(drawn)}
        return Drawn(stack, mask, files, {mask: drawn[2][1]["liver"] * 255})

    return render(root, numbered(count, test_count), draw)[1]


LAYOUTS: dict[str, Callable[[Path, int, int, int], list[Drawn]]] = {  # each returns what it drew for the test
    "folders": _folders, "split": _split, "rle": _rle, "rle_classes": _rle_classes, "ui": _ui, "classmap": _classmap,
    "palette": _palette, "colours": _colours, "class_files": _class_files, "table": _own_table,
    "instances": _instances, "near_infrared": _near_infrared, "slices": _slices,
}  # fmt: skip


def write(layout: str, root: Path, seed: int = 42, count: int = 0, test_count: int = 0) -> dict[str, Any]:
    """Render a data set of `count` training and `test_count` test images (0: COUNT and TEST_COUNT) into `root`.

    Returns what demo.json holds: layout, seed, count, test_count, and `answers`, which names for each test image its
    mask's reference (see dataspec.py) relative to .answers. An earlier data set of ours in `root` is replaced. Raises
    UserError for an unknown layout, a negative count, and a folder that holds something else.
    """
    if layout not in LAYOUTS:
        raise UserError(f"LAYOUT={layout}: expected one of {', '.join(LAYOUTS)}.")
    count, test_count = count or COUNT, test_count or TEST_COUNT
    if count < 1 or test_count < 1:
        raise UserError(f"{count} training and {test_count} test images: expected at least one of each.")
    if root.exists() and not (root / DONE).is_file() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(f"{root} holds data that are not the demo's; nothing was written. Choose another DATASET=name.")
    temporary = root.with_name(f".{root.name}.{os.getpid()}")
    temporary.mkdir(parents=True)
    try:
        about: dict[str, Any] = {"layout": layout, "seed": seed, "count": count, "test_count": test_count}
        test = LAYOUTS[layout](temporary, seed, count, test_count)
        about["answers"] = {one.image: one.mask for one in test}
        write_json(temporary / DONE, about)
        if root.exists():
            shutil.rmtree(root)
        os.replace(temporary, root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return about
