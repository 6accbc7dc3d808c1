"""Tables of run lengths as public competitions ship them: make folds finds their order, their ids and their rows."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import folds
from data import dataspec
from formats import rle

ROOT = Path("input/x")
RUN = ["DATASET=x", "N_FOLDS=2"]


def blob(seed, size):
    """A round object off the center, uint8 (H, W) of 0 and 1."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    center = [random.integers(side // 4, 3 * side // 4) for side in size]
    return ((y - center[0]) ** 2 + (x - center[1]) ** 2 <= (5 + seed % 4) ** 2).astype(np.uint8)


def picture(seed, mask, shown=True):
    """Dark noise, the objects bright where they are shown."""
    image = np.random.default_rng(seed).integers(0, 60, (*mask.shape, 3)).astype(np.uint8)
    image[(mask > 0) & shown] += np.uint8(150)
    return image


def save(name, array):
    path = ROOT / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write(header, rows, name="train.csv"):
    with (ROOT / name).open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def in_order(mask, dialect):
    return rle.to_text(mask, rle.DIALECTS[dialect])


def made(image="train/i0.png"):
    """The sidecar, and the mask of an image as it will be trained on."""
    about = json.loads(Path("output/x/train_folds.json").read_text())
    frame = pd.read_csv("output/x/train_folds.csv", keep_default_na=False).set_index("image")
    spec = dataspec.from_json(about["data"], "")
    return about, spec.read_pair(ROOT, image, frame.loc[image, "mask"])[1]


@pytest.mark.parametrize(("header", "order", "size", "found"), [
    (("id", "annotation", "width", "height", "cell_type"), "carvana", (48, 96), "carvana"),  # Sartorius
    (("id", "annotation", "width", "height", "cell_type"), "tgs", (48, 96), "airbus"),
    (("ImageId", "EncodedPixels"), "carvana", (64, 64), "carvana"),  # square: the outlines are equal
    (("ImageId", "EncodedPixels"), "siim", (40, 60), "siim"),  # the header lost its space
    (("id", "rle"), "tgs", (64, 64), "airbus"),
    (("id", "encoding"), "hubmap", (40, 60), "hubmap"),
    (("id", "rle_mask"), "carvana", (101, 101), "carvana"),  # TGS's header, and not its order
])  # fmt: skip
def test_the_order_of_a_table_is_found_by_its_masks(workplace, capsys, header, order, size, found):
    rows = []
    for number in range(8):
        masks = [blob(10 * number + part, size) for part in range(3)]
        save(f"train/i{number}.png", picture(number, sum(masks)))
        masks = [sum(masks) > 0] if order == "siim" else masks
        rows += [(f"i{number}", in_order(mask, order), *(["x"] * (len(header) - 2))) for mask in masks]
    write(header, rows)
    assert folds.main(RUN) == 0
    said = capsys.readouterr().out
    about, mask = made()
    assert (about["dialect"], about["data"]["rle"]) == (found, found)
    assert (mask[0] == sum(blob(part, size) for part in range(3)).clip(0, 1)).all()
    assert f"DIALECT={found}" in said
    assert ("edges below" if size[0] == size[1] else "the outlines of 8 masks") in said
    assert ("though its columns are those of" in said) == (found in ("carvana", "siim") and "annotation" not in header)
    assert f"rows one an {'image' if order in ('siim', 'hubmap') else 'object'}" in said.splitlines()[-2]


def test_masks_that_do_not_tell_are_asked_about_unless_the_columns_are_known(workplace, capsys, refused):
    rows = []
    for number in range(6):
        save(f"train/i{number}.png", picture(number, blob(number, (64, 64)), shown=False))
        rows.append((f"i{number}", in_order(blob(number, (64, 64)), "tgs")))
    write(("id", "rle"), rows)
    refused(folds.main, RUN, "which order of pixels", "edges of 6 masks do not tell",
            "make folds DIALECT=carvana   row by",            "make folds DIALECT=airbus   column by")  # fmt: skip
    assert not Path("output").exists()
    assert folds.main([*RUN, "DIALECT=airbus"]) == 0
    write(("id", "rle_mask"), rows)
    assert folds.main([*RUN, "OVERWRITE=1"]) == 0
    assert "column by column, by the columns of DIALECT=tgs; the outlines and edges of 6" in capsys.readouterr().out
    assert made()[0]["dialect"] == "tgs"


KINDS = ("Fish", "Flower")


@pytest.mark.parametrize(("train", "sample", "said"), [
    (("Image_Label", "EncodedPixels"), ("Image_Label", "EncodedPixels"), "Image_Label,EncodedPixels, <image>_<class>"),
    (("ImageId_ClassId", "EncodedPixels"), None, "ImageId_ClassId,EncodedPixels, <image>_<class>, without"),
    (("ImageId", "ClassId", "EncodedPixels"), ("ImageId", "EncodedPixels", "ClassId"), "Pixels,ClassId, ids"),
    (("Image_Label", "EncodedPixels"), ("Image", "Mask"), "cannot be written"),
    (("Image_Label", "EncodedPixels"), ("id", "rle_mask"), "cannot be written: The dialect airbus has no column"),
    (("Image_Label", "EncodedPixels"), ("id", "height", "rle_mask"), "no dialect has them"),
    (("ImageId", "ClassId", "EncodedPixels"), ("id", "class", "rle"), "Warning: a submission cannot be written"),
])  # fmt: skip
def test_what_the_submission_will_look_like_is_said_by_make_folds(workplace, capsys, train, sample, said):
    rows = []
    for number in range(6):
        save(f"train_images/i_{number}.jpg", picture(number, blob(number, (40, 60))))
        for part, kind in enumerate(KINDS):
            text = in_order(blob(number + part, (40, 60)), "tgs") if (number + part) % 2 else ""
            name = f"i_{number}.jpg"
            rows.append((f"{name}_{kind}", text) if len(train) == 2 else (name, kind, text))
    write(train, rows)
    if sample:
        joined = [(f"t.jpg_{kind}", "1 1") for kind in KINDS]
        parted = [("t.jpg", "1 1", kind) for kind in (("Fish", "Crab") if "rle" in sample else KINDS)]
        parted = [(row[0], row[2], row[1]) for row in parted] if "rle" in sample else parted
        write(sample, joined if len(sample) == 2 else parted, "sample_submission.csv")
    assert folds.main(RUN) == 0
    out = capsys.readouterr().out
    assert said in out
    assert "column by column" in out
    about, mask = made("train_images/i_1.jpg")
    assert about["data"]["classes"] == list(KINDS)
    assert (mask[0] == blob(1, (40, 60))).all()
    assert about["form"]["per_object"] is False


def test_uwmgis_own_tree(workplace, capsys):
    rows, size = [], (48, 60)
    for case in (101, 102, 103, 104):
        for part in (1, 2, 3):
            mask, name = blob(10 * case + part, size), f"case{case}_day20"
            pixels = picture(10 * case + part, mask)[..., 0].astype(np.uint16) * 100
            save(f"train/case{case}/{name}/scans/slice_{part:04d}_60_48_1.50_1.50.png", pixels)
            rows += [(f"{name}_slice_{part:04d}", organ, in_order(mask * (organ == "stomach"), "uwmgi"))
                     for organ in ("small_bowel", "stomach")]  # fmt: skip
    write(("id", "class", "segmentation"), rows)
    assert folds.main(RUN) == 0
    assert "id,class,predicted" in capsys.readouterr().out
    frame = pd.read_csv("output/x/train_folds.csv")
    assert sorted(set(frame["group"])) == ["case101", "case102", "case103", "case104"]
    about, mask = made("train/case102/case102_day20/scans/slice_0002_60_48_1.50_1.50.png")
    assert (about["dialect"], len(frame)) == ("uwmgi", 12)
    assert (mask[1] == blob(1022, size)).all()
    assert rle.DIALECTS["uwmgi"].id_of("case7_day2/scans/slice_0030_1_1.png") == "case7_day2_slice_0030"


def test_pictures_of_one_color_are_no_copies(workplace, capsys):
    for number in range(12):
        mask = blob(number, (40, 60)) * (number % 3 > 0)
        save(f"images/{number:02d}.png", picture(number, mask) if number % 3 else np.zeros((40, 60, 3), np.uint8))
        save(f"masks/{number:02d}.png", mask * 255)
    assert folds.main(["DATASET=x", "N_FOLDS=4"]) == 0
    assert "in two folds; 4 pictures of one color are left out" in capsys.readouterr().out
    about = made("images/01.png")[0]
    assert [fold["empty"] for fold in about["balance"]] == [1, 1, 1, 1]
    for number in (4, 7):  # a copy is one all the same
        (ROOT / f"images/{number:02d}.png").write_bytes((ROOT / "images/01.png").read_bytes())
    assert folds.main(["DATASET=x", "N_FOLDS=4"]) == 2
