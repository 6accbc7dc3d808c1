"""What masks mean, as public data sets have them: understood, or asked with a line that works; never silently wrong."""

import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import folds
from data import class_merge, dataspec, mask_meaning
from data.dataspec import DataSpec
from data.mask_reading import Wish
from formats import mask_values
from metrics import objects
from tools.errors import UserError

SIDE = 64
Draw = Callable[[np.random.Generator, int], np.ndarray]  # uint8 or uint16 (H, W), or (H, W, 3 or 4)


def disc(rng: np.random.Generator, radius: int = 12) -> np.ndarray:
    """A disc somewhere, bool (SIDE, SIDE)."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    row, column = rng.integers(radius + 2, SIDE - radius - 2, 2)
    return (rows - row) ** 2 + (columns - column) ** 2 < radius**2


def gray(*parts: tuple[int, np.ndarray]) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for value, where in parts:
        mask[where] = value
    return mask


def cells(rng: np.random.Generator, count: int) -> np.ndarray:
    """Numbered squares on a grid, in random order of size, uint16."""
    mask = np.zeros((SIDE, SIDE), np.uint16)
    for number, place in enumerate(sorted(rng.choice(25, count, replace=False)), start=1):
        row, column, size = 2 + place // 5 * 12, 2 + place % 5 * 12, rng.integers(4, 10)
        mask[row : row + size, column : column + size] = number
    return mask


def nested(rng: np.random.Generator, number: int, outer: int, inner: int) -> np.ndarray:
    whole = disc(rng, 16)
    middle = cv2.erode(whole.view(np.uint8), np.ones((17, 17))) > 0
    return gray((outer, whole), (inner, middle)) if number % 4 else gray((outer, whole))


def soft(rng: np.random.Generator, top: int = 255) -> np.ndarray:
    return cv2.GaussianBlur(gray((top, disc(rng, 14))), (5, 5), 1)


def colored(*parts: tuple[tuple[int, int, int], np.ndarray], ground: tuple[int, int, int] = (0, 0, 0)) -> np.ndarray:
    mask = np.full((SIDE, SIDE, 3), ground, np.uint8)
    for color, where in parts:
        mask[where] = color
    return mask


def line(rng: np.random.Generator) -> np.ndarray:
    """The outline of a disc, two pixels wide."""
    whole = disc(rng, 14).view(np.uint8)
    return cv2.dilate(whole, np.ones((3, 3))) > cv2.erode(whole, np.ones((3, 3)))


def stray(mask: np.ndarray, value: int) -> np.ndarray:
    mask[0, 0] = value
    return mask


def cars(count: int) -> np.ndarray:
    """A road of 7 below a building of 11, with cars 26000, 26001, ... as Cityscapes numbers them, uint16."""
    mask = np.full((SIDE, SIDE), 7, np.uint16)
    mask[:20] = 11
    for number in range(count):
        mask[30:40, 4 + 20 * number : 16 + 20 * number] = 26000 + number
    return mask


def rgba(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return np.dstack([np.broadcast_to(color, (SIDE, SIDE, 3)), alpha]).astype(np.uint8)


def noise(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8)


CLASSES = "multiclass"
UNDERSTOOD: dict[str, tuple[Draw, dict, str]] = {  # name: how a mask is drawn, what the DataSpec says, the ending
    "0 and 255": (lambda r, n: gray((255, disc(r))), {"task": "binary", "threshold": 0}, "png"),
    "0 and 1": (lambda r, n: gray((1, disc(r))), {"task": "binary", "threshold": 0}, "png"),
    "1 here, 255 there": (lambda r, n: gray((255 if n % 2 else 1, disc(r))), {"task": "binary", "threshold": 0}, "png"),
    "0 and 65535": (lambda r, n: gray((1, disc(r))).astype(np.uint16) * 65535, {"task": "binary"}, "png"),
    "0 and 128": (lambda r, n: gray((128, disc(r))), {"task": "binary"}, "png"),
    "jpeg of 0 and 255": (lambda r, n: gray((255, disc(r))), {"task": "binary", "threshold": 0}, "jpg"),
    "jpeg in rgb": (lambda r, n: colored(((255,) * 3, disc(r))), {"task": "binary", "threshold": 0}, "jpg"),
    "jpeg of 0 and 1": (lambda r, n: gray((1, disc(r))), {"task": "binary", "threshold": 1}, "jpg"),
    "jpeg of 0 and 128": (lambda r, n: gray((128, disc(r))), {"task": "binary", "threshold": 64}, "jpg"),
    "lossy webp": (lambda r, n: gray((255, disc(r))), {"task": "binary", "threshold": 0}, "webp"),
    "red jpeg": (lambda r, n: colored(((255, 0, 0), disc(r))), {"task": "binary"}, "jpg"),
    "soft edges": (lambda r, n: soft(r), {"task": "binary", "threshold": 128}, "png"),
    "soft edges of 0 and 200": (lambda r, n: soft(r, 200), {"task": "binary", "threshold": 100}, "png"),
    "soft edges, some files without": (
        lambda r, n: soft(r) if n % 3 else gray((255, disc(r))), {"task": "binary", "threshold": 128}, "png"),
    "stray 3 beside 255": (lambda r, n: stray(gray((255, disc(r))), 3), {"task": "binary", "threshold": 128}, "png"),
    "stray 1 beside 255": (lambda r, n: stray(gray((255, disc(r))), 1), {"task": "binary", "threshold": 128}, "png"),
    "stray 254 beside 255": (
        lambda r, n: stray(gray((255, disc(r))), 254), {"task": "binary", "threshold": 128}, "png"),
    "three grays": (lambda r, n: nested(r, n, 128, 255), {"task": CLASSES, "values": (0, 128, 255)}, "png"),
    "four grays": (
        lambda r, n: gray((85, disc(r)), (170, disc(r)), (255, disc(r))), {"values": (0, 85, 170, 255)}, "png"),
    "disc and cup": (lambda r, n: nested(r, n, 1, 2), {"task": CLASSES, "values": (0, 1, 2)}, "png"),
    "a rare class alone": (
        lambda r, n: gray((2 if n == 5 else 1, disc(r))), {"task": CLASSES, "values": (0, 1, 2)}, "png"),
    "void lines": (
        lambda r, n: gray((1, disc(r)), (2, disc(r)), (255, line(r))),
        {"task": CLASSES, "values": (0, 1, 2), "ignore": (255,)}, "png"),
    "void regions": (
        lambda r, n: gray((1, disc(r)), (2, disc(r)), (255, disc(r))),
        {"task": CLASSES, "values": (0, 1, 2), "ignore": (255,)}, "png"),
    "trimaps of 1, 2, 3": (
        lambda r, n: gray((1, disc(r)), (3, line(r))) + gray((2, ~disc(r))).clip(0, 0) + 0,
        {"task": CLASSES, "values": (0, 1, 3)}, "png"),
    "no background": (lambda r, n: gray((1, disc(r)), (2, disc(r))) + np.uint8(1), {"values": (1, 2, 3)}, "png"),
    "sparse classes": (
        lambda r, n: gray((7, disc(r)), (11, disc(r)), (33, disc(r))), {"values": (0, 7, 11, 33)}, "png"),
    "numbered cells": (lambda r, n: cells(r, 3 + n), {"task": "binary", "objects": "labels", "threshold": 1}, "png"),
    "numbered cells, one alone": (lambda r, n: cells(r, 1 + n), {"task": "binary", "objects": "labels"}, "tif"),
    "cells with numbers of their own": (
        lambda r, n: np.where((m := cells(r, 6)) > 0, m + 30 * n, 0).astype(np.uint16),
        {"task": "binary", "objects": "labels"}, "png"),
    "cells in random colors": (
        lambda r, n: r.integers(30, 255, (40, 3), np.uint8)[(m := cells(r, 4 + n))] * (m > 0)[..., None],
        {"task": "binary", "objects": "labels"}, "png"),
    "one color": (lambda r, n: colored(((255, 0, 0), disc(r))), {"task": "binary"}, "png"),
    "two colors": (
        lambda r, n: colored(((255, 0, 0), disc(r)), ((0, 255, 0), disc(r))),
        {"task": CLASSES, "classes": ("background", "color_00ff00", "color_ff0000")}, "png"),
    "one color a file": (
        lambda r, n: colored(((255, 0, 0) if n % 2 else (0, 0, 255), disc(r))),
        {"task": CLASSES, "classes": ("background", "color_0000ff", "color_ff0000")}, "png"),
    "colors with VOC's borders": (
        lambda r, n: colored(((128, 0, 0), disc(r)), ((192, 128, 128), disc(r)), ((224, 224, 192), line(r))),
        {"classes": ("background", "color_800000", "color_c08080"), "ignore": (224, 224, 192)}, "png"),
    "street colors": (
        lambda r, n: colored(((128, 64, 128), disc(r)), ((70, 70, 70), disc(r)), ground=(70, 130, 180)),
        {"task": CLASSES, "classes": ("color_464646", "color_4682b4", "color_804080")}, "png"),
    "soft red": (
        lambda r, n: np.dstack([soft(r), np.zeros((SIDE, SIDE, 2), np.uint8)]), {"task": "binary"}, "png"),
    "white, drawn in alpha": (
        lambda r, n: rgba(np.array([255, 255, 255]), gray((255, disc(r)))), {"task": "binary", "alpha": True}, "png"),
    "black, drawn in alpha": (
        lambda r, n: rgba(np.array([0, 0, 0]), gray((255, disc(r)))), {"task": "binary", "alpha": True}, "png"),
    "a photograph cut out": (
        lambda r, n: rgba(noise(r), gray((255, disc(r)))), {"task": "binary", "alpha": True}, "png"),
    "alpha says the same": (
        lambda r, n: rgba((m := gray((255, disc(r))))[..., None], m), {"task": "binary", "alpha": False}, "png"),
    "opaque alpha": (
        lambda r, n: rgba(gray((255, disc(r)))[..., None], np.full((SIDE, SIDE), 255)),
        {"task": "binary", "alpha": False}, "png"),
}  # fmt: skip

ASKED: dict[str, tuple[Draw, list[str], str]] = {  # name: how a mask is drawn, lines that are offered, the ending
    "two grays, never together": (
        lambda r, n: gray((100 if n % 2 else 200, disc(r))), ["TASK=binary", "TASK=multiclass IGNORE=-1"], "png"),
    "an unsure border of 128": (
        lambda r, n: gray((255, d := disc(r)), (128, cv2.dilate(d.view(np.uint8), np.ones((3, 3))) > d)),
        ["TASK=multiclass IGNORE=128", "MASK_THRESHOLD=128", "IGNORE=-1"], "png"),
    "two colors without black": (
        lambda r, n: colored(((255, 255, 0), disc(r)), ground=(0, 0, 160)), ["MASK_THRESHOLD=", "TASK=multiclass"],
        "png"),
    "classes and objects in one number": (
        lambda r, n: cars(1 + n % 3),
        ["CLASSES='class7, class11, class26=class26000+class26001+class26002'", "TASK=multiclass IGNORE=-1"], "png"),
    "two objects at most": (
        lambda r, n: cells(r, 1 + n % 2).astype(np.uint8), ["TASK=binary", "TASK=multiclass"], "png"),
    "a speck beside much 255": (
        lambda r, n: gray((255, disc(r, 28)), (1, np.pad(np.ones((3, 3), bool), ((0, SIDE - 3),) * 2))),
        ["TASK=multiclass IGNORE=255", "TASK=multiclass IGNORE=-1", "MASK_THRESHOLD=128"], "png"),
}  # fmt: skip

REFUSED: dict[str, tuple[Draw, str, str]] = {  # name: how a mask is drawn, what is said, the ending
    "a matte": (lambda r, n: np.tile(np.arange(0, 256, 4, np.uint8), (SIDE, 1)), "without two clear levels", "png"),
    "jpeg of three grays": (lambda r, n: nested(r, 1, 128, 255), "without two clear levels", "jpg"),
    "jpeg of 0, 1 and 2": (
        lambda r, n: gray((1, disc(r)), (2, disc(r))), "0 79%, 1 11%, 2 9.4%.* MASK_THRESHOLD=2", "jpg"),
    "white paper, soft edges": (lambda r, n: 255 - soft(r), "as if they were inverted", "png"),
    "jpeg of two colors": (
        lambda r, n: colored(((255, 0, 0), disc(r)), ((0, 255, 0), disc(r))), "rather than JPEG", "jpg"),
    "all of one value": (lambda r, n: gray((7, np.ones((SIDE, SIDE), bool))), "every pixel", "png"),
}  # fmt: skip


def notes_of(folder: Path, draw: Draw, ending: str, count: int = 12) -> list[mask_values.MaskNote]:
    paths = [folder / f"{number:02d}.{ending}" for number in range(count)]
    for number, path in enumerate(paths):
        Image.fromarray(draw(np.random.default_rng(number), number)).save(path)
    return [mask_values.read(path, 10**6) for path in paths]


def read(notes: list[mask_values.MaskNote], **constants: str) -> DataSpec:
    wish = Wish(
        constants.get("TASK", "auto"),
        int(constants["IGNORE"]) if "IGNORE" in constants else None,
        int(constants.get("MASK_THRESHOLD", 0)),
        constants.get("MASK_CHANNEL", "auto"),
    )
    spec = mask_meaning.read(notes, DataSpec(), wish, "input/x", True).spec
    return class_merge.merged(spec, constants.get("CLASSES", ""), wish.task)


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_what_is_drawn_is_understood(name, tmp_path):
    draw, expected, ending = UNDERSTOOD[name]
    spec = read(notes_of(tmp_path, draw, ending))
    assert {key: getattr(spec, key) for key in expected} == expected


@pytest.mark.parametrize("name", ASKED)
def test_two_readings_are_asked_for_and_every_line_works(name, tmp_path):
    draw, lines, ending = ASKED[name]
    notes = notes_of(tmp_path, draw, ending)
    with pytest.raises(UserError) as refused:
        read(notes)
    for words in lines:
        assert words in str(refused.value)
    offered = [text.partition(": make folds ")[2] for text in str(refused.value).splitlines()[1:]]
    assert len(offered) >= 2
    specs = [read(notes, **dict(part.split("=", 1) for part in shlex.split(text))) for text in offered]
    assert len(set(specs)) == len(specs)  # each line gives another reading


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_rule_reads_is_refused(name, tmp_path):
    draw, said, ending = REFUSED[name]
    with pytest.raises(UserError, match=said):
        read(notes_of(tmp_path, draw, ending))


def test_the_reading_is_kept_drawn_and_read_back(workplace, capsys):
    for folder in ("images", "masks"):
        Path("input/x", folder).mkdir(parents=True)
    truth = {}
    for number in range(8):
        rng = np.random.default_rng(number)
        truth[number] = cells(rng, 3 + number)
        Image.fromarray(noise(rng)).save(f"input/x/images/{number}.png")
        Image.fromarray(truth[number]).save(f"input/x/masks/{number}.tif")
    assert folds.main(["DATASET=x", "N_FOLDS=2"]) == 0
    assert "each number an object (3 to 10 values a file" in capsys.readouterr().out
    about = json.loads(Path("output/x/train_folds.json").read_text())
    assert about["masks"]["files"] == 8 and about["masks"]["objects"] == "labels"
    assert Image.open("output/x/masks.png").size[0] > 500
    spec = dataspec.read(Path("output/x/train_folds.json"))
    for number, labels in truth.items():
        mask = f"masks/{number}.tif"
        np.testing.assert_array_equal(spec.read_mask(Path("input/x"), mask, (SIDE, SIDE))[0], labels > 0)
        np.testing.assert_array_equal(objects.read(spec, Path("input/x"), mask, (SIDE, SIDE))[0], labels)
    area = np.mean([(labels > 0).mean() for labels in truth.values()])
    assert np.mean([row["mean_area"] for row in about["balance"]]) == pytest.approx(area, abs=1e-3)


def test_masks_on_white_paper_are_asked_about_and_both_lines_work(workplace, refused):
    for folder in ("images", "masks"):
        Path("input/x", folder).mkdir(parents=True)
    for number in range(6):
        rng = np.random.default_rng(number)
        Image.fromarray(noise(rng)).save(f"input/x/images/{number}.png")
        Image.fromarray(gray((255, ~disc(rng)))).save(f"input/x/masks/{number}.png")
    said = refused(folds.main, ["DATASET=x", "N_FOLDS=2"], "as if they were inverted")
    for line in said.splitlines()[1:3]:
        before, _, constants = line.partition(": ")[2].rpartition("make folds ")
        subprocess.run(["bash", "-c", f"{before} true"], check=True)
        assert folds.main([*shlex.split(constants), "N_FOLDS=2", "OVERWRITE=1"]) == 0
        spec = dataspec.read(Path("output/x/train_folds.json"))
        inside = spec.read_mask(Path("input/x"), "masks/0.png", (SIDE, SIDE))[0] > 0
        assert spec.task == "binary" and (inside.mean() < 0.5) == bool(before)


@pytest.mark.parametrize(("smooth", "hard"), [("masks/{}", "masks/1{}"), ("masks/soft/{}", "masks/hard/{}")])
def test_files_of_0_and_1_among_soft_ones_are_named_and_not_left_empty(workplace, refused, smooth, hard):
    for number in range(6):
        rng = np.random.default_rng(number)
        drawn = {"images/{}": noise(rng), "images/1{}": noise(rng), smooth: soft(rng), hard: gray((1, disc(rng)))}
        for name, pixels in drawn.items():
            if smooth == "masks/{}" or name != "images/1{}":
                path = Path("input/x", name.format(f"{number}.png"))
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    refused(folds.main, ["DATASET=x", "N_FOLDS=2"], "holds 0 and 1", "multiply it by 255", "MASK_THRESHOLD=1")


def test_files_that_several_people_drew_are_no_objects(workplace, refused):
    for folder in ("images", "masks"):
        Path("input/x", folder).mkdir(parents=True)
    for number in range(6):
        rng = np.random.default_rng(number)
        drawn = disc(rng).view(np.uint8)
        Image.fromarray(noise(rng)).save(f"input/x/images/{number:03d}.png")
        for person in (1, 2, 3):
            mask = cv2.dilate(drawn, np.ones((person, person))) * 255
            Image.fromarray(mask).save(f"input/x/masks/{number:03d}_{person}.png")
    said = refused(folds.main, ["DATASET=x", "N_FOLDS=2"], "show nearly the same")
    areas = []
    for line in said.splitlines()[1:3]:
        constants = shlex.split(line.partition("make folds ")[2])
        assert folds.main([*constants, "N_FOLDS=2", "OVERWRITE=1"]) == 0
        about = json.loads(Path("output/x/train_folds.json").read_text())
        areas.append(np.mean([row["mean_area"] for row in about["balance"]]))
    first = np.mean([disc(np.random.default_rng(number)).mean() for number in range(6)])
    assert areas[0] == pytest.approx(first, abs=1e-3) and areas[1] > areas[0]


def test_one_gray_file_among_binary_ones_is_named(workplace, refused):
    for folder in ("images", "masks"):
        Path("input/x", folder).mkdir(parents=True)
    for number in range(12):
        rng = np.random.default_rng(number)
        Image.fromarray(noise(rng)).save(f"input/x/images/{number}.png")
        mask = soft(rng) if number != 7 else np.tile(np.arange(0, 256, 4, np.uint8), (SIDE, 1))
        Image.fromarray(mask).save(f"input/x/masks/{number}.png")
    refused(folds.main, ["DATASET=x", "N_FOLDS=2"], "1 broken", "masks/7.png", "MASK_THRESHOLD=128")
    assert not Path("output").exists()
    assert folds.main(["DATASET=x", "N_FOLDS=2", "MASK_THRESHOLD=128"]) == 0
