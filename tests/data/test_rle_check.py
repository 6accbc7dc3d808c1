"""make rle-check on tables written in every order: it names the right one, or says that the mask does not tell."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import doctor
from formats import rle

ROOT = Path("input/demo")
BASE = ["DATASET=demo"]


def picture(height, width, seed):
    """A bright disc on dark noise, off the center, and its mask."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    mask = ((y - height // 3) ** 2 + (x - width * 2 // 3) ** 2 <= (6 + seed) ** 2).astype(np.uint8)
    image = random.integers(0, 40, (height, width, 3)).astype(np.uint8)
    image[mask > 0] += np.uint8(150)
    return image, mask


def write_table(path, columns, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def write_data(dialect, size=(48, 64), count=3, folder="train_images", columns=None):
    """A data set with masks in `dialect`, one image a size."""
    rows = []
    for number in range(count):
        image, mask = picture(*size, number)
        (ROOT / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(ROOT / folder / f"i{number}.png")
        name = f"i{number}.png" if dialect.with_suffix else f"i{number}"
        rows += rle.rows(name, mask, dialect, "disc" if dialect.has_classes else "")
    write_table(ROOT / "train.csv", columns or dialect.columns, rows)


@pytest.mark.parametrize("size", [(48, 64), (48, 48)], ids=["wide", "square"])
@pytest.mark.parametrize("name", list(rle.DIALECTS))
def test_the_order_of_every_dialect_is_found(workplace, capsys, name, size):
    dialect = rle.DIALECTS[name]
    write_data(dialect, size)
    assert doctor.rle_check(BASE) == 0
    said = capsys.readouterr().out
    assert f"{'row-major (C)' if dialect.order == 'C' else 'column-major (F)'}" in said.splitlines()[-2]
    assert ("relative starts" in said.splitlines()[-2]) == dialect.relative
    assert f" {name}" in said.splitlines()[-2].split("Dialects of that order:")[1]
    assert ("edges below the outline" in said) == (size[0] == size[1])
    assert said.splitlines()[-1] == "overlays -> output/demo/rle_check.png"
    width, height = Image.open("output/demo/rle_check.png").size
    assert width > 4 * 360
    assert height > 360 * size[0] / size[1]


def test_the_headers_own_dialect_is_suggested(workplace, capsys):
    write_data(rle.DIALECTS["hubmap"])
    assert doctor.rle_check(BASE) == 0
    assert "DIALECT=hubmap\n" in capsys.readouterr().out
    write_data(rle.DIALECTS["carvana"], columns=("ImageId", "EncodedPixels"))  # looks like Airbus's, and is not
    assert doctor.rle_check(BASE) == 0
    assert "DIALECT=carvana\n" in capsys.readouterr().out


def test_what_the_table_says_of_a_known_mask(workplace, capsys):
    image, mask = np.zeros((6, 8, 3), np.uint8), np.zeros((6, 8), np.uint8)
    mask[1:5, 2:6] = 1  # 16 of 48 pixels, 12 of them on the outline
    (ROOT / "images").mkdir(parents=True)
    Image.fromarray(image).save(ROOT / "images" / "a.png")
    write_table(ROOT / "train.csv", ("id", "rle"), [("a", rle.encode(mask, "F"))])
    assert doctor.rle_check(BASE) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["F", "no", "12", "px", "0.0", "33.33%"] in lines
    assert next(line for line in lines if line[:2] == ["F", "yes"])[2:4] == ["-", "-"]


def test_the_usual_mask_is_chosen_or_the_one_that_is_named(workplace, capsys):
    write_data(rle.DIALECTS["tgs"], count=5)
    assert doctor.rle_check(BASE) == 0
    assert "the mask of i2 over input/demo/train_images/i2.png" in capsys.readouterr().out
    assert doctor.rle_check([*BASE, "ID=i4"]) == 0
    assert "the mask of i4 over" in capsys.readouterr().out
    (ROOT / "train_images" / "i2.png").unlink()  # only a part of the images was downloaded
    assert doctor.rle_check(BASE) == 0
    assert "the mask of i2" not in capsys.readouterr().out


def test_one_class_of_several(workplace, capsys):
    image, mask = picture(48, 64, 1)
    (ROOT / "train").mkdir(parents=True)
    Image.fromarray(image).save(ROOT / "train" / "a.png")
    uwmgi = rle.DIALECTS["uwmgi"]
    rows = [*rle.rows("a", mask, uwmgi, "disc"), *rle.rows("a", mask * 0 + 1, uwmgi, "all")]
    write_table(ROOT / "train.csv", uwmgi.columns, rows)
    assert doctor.rle_check([*BASE, "CLASS=disc"]) == 0
    assert f"{mask.mean():.2%}" in capsys.readouterr().out
    assert doctor.rle_check(BASE) == 0
    assert "100.00%" in capsys.readouterr().out


@pytest.mark.parametrize("pixels", ["all", "dot"])
def test_a_mask_that_does_not_tell_says_so(workplace, capsys, pixels):
    mask = np.ones((20, 30), np.uint8) if pixels == "all" else np.zeros((20, 30), np.uint8)
    mask[4, 7] = 1
    (ROOT / "train").mkdir(parents=True)
    Image.fromarray(np.repeat(mask[..., None] * 0, 3, axis=2)).save(ROOT / "train" / "a.png")
    write_table(ROOT / "train.csv", ("id", "rle_mask"), [("a", rle.encode(mask, "F"))])
    assert doctor.rle_check(BASE) == 0
    said = capsys.readouterr().out
    assert "This mask does not tell" in said
    assert "row-major (C)" in said
    assert "column-major (F)" in said
    assert "try ID=another" in said
    assert "DIALECT=" not in said


def test_carvanas_own_layout_and_the_usual_folder_first(workplace, capsys):
    write_data(rle.DIALECTS["carvana"], folder="train_hq")
    for copy in ("train", "train_masks"):  # the competition ships two sizes, and masks may be named as their images
        shutil.copytree(ROOT / "train_hq", ROOT / copy)
    assert doctor.rle_check(BASE) == 0
    said = capsys.readouterr().out
    assert "over input/demo/train_hq/i1.png" in said
    assert "row-major (C) looks right: outline" in said
    assert "DIALECT=carvana\n" in said


def test_masks_beside_the_images_are_not_taken_for_them(workplace, capsys):
    write_data(rle.DIALECTS["tgs"], folder="train/images")
    shutil.copytree(ROOT / "train/images", ROOT / "train/masks")
    (ROOT / "train/images").rename(ROOT / "train/pictures")
    assert doctor.rle_check(BASE) == 0
    assert "over input/demo/train/pictures/" in capsys.readouterr().out


def test_which_table_it_is_must_be_clear(workplace, refused):
    refused(doctor.rle_check, BASE, "no CSV with ids and run lengths")
    write_data(rle.DIALECTS["tgs"])
    write_table(ROOT / "depths.csv", ("id", "z"), [("i0", "5")])
    write_table(ROOT / "sample_submission.csv", ("id", "rle_mask"), [("i0", "1 1")])
    write_table(ROOT / "train-rle-sample.csv", ("ImageId", " EncodedPixels"), [("i0", "-1")])  # SIIM-ACR ships one
    write_table(ROOT / "submission.csv", ("id", "rle_mask"), [("i0", "1 1")])
    write_table(ROOT / ".answers" / "a.csv", ("id", "rle_mask"), [("i0", "1 1")])
    assert doctor.rle_check(BASE) == 0
    write_table(ROOT / "more" / "extra.csv", ("id", "rle_mask"), [("i0", "1 1")])
    refused(doctor.rle_check, BASE, "Which table", "train.csv", "extra.csv", "TABLE=input/demo/more/extra.csv")
    assert doctor.rle_check([*BASE, "TABLE=train.csv"]) == 0
    assert doctor.rle_check([*BASE, f"TABLE={ROOT / 'train.csv'}"]) == 0
    refused(doctor.rle_check, [*BASE, "TABLE=none.csv"], "TABLE=none.csv", "no such file")


def test_what_a_user_can_get_wrong_is_a_sentence_and_nothing_is_written(workplace, refused):
    write_data(rle.DIALECTS["tgs"])
    refused(doctor.rle_check, [*BASE, "ID=none"], "no id none", "i0")
    refused(doctor.rle_check, [*BASE, "CLASS=cat"], "no class cat", "no column of classes")
    refused(doctor.rle_check, [*BASE, "TRAIN_PATH=input/none"], "no folder", "TRAIN_PATH")
    (ROOT / "empty").mkdir()
    refused(doctor.rle_check, [*BASE, "TRAIN_PATH=input/demo/empty"], "no image named", "TRAIN_PATH")
    shutil.copytree(ROOT / "train_images", ROOT / "train_images" / "again")
    refused(doctor.rle_check, [*BASE, "ID=i1"], "Which is the image of i1", "again", "TRAIN_PATH")
    shutil.rmtree(ROOT / "train_images" / "again")
    write_table(ROOT / "train.csv", ("id", "rle_mask"), [("i0", ""), ("i1", "nan")])
    refused(doctor.rle_check, BASE, "every mask of it is empty")
    refused(doctor.rle_check, [*BASE, "ID=i0"], "the mask of i0 is empty")
    write_table(ROOT / "train.csv", ("id", "rle_mask"), [("i0", "1 999999")])
    refused(doctor.rle_check, BASE, "in no order", "train.csv")
    write_table(ROOT / "train.csv", ("id", "rle_mask"), [("i0", "1 x")])
    refused(doctor.rle_check, BASE, "train.csv, line 2 (i0)", "whole numbers")
    (ROOT / "train_images" / "i1.png").write_bytes(b"no picture")
    write_table(ROOT / "train.csv", ("id", "rle_mask"), [("i1", "1 2")])
    refused(doctor.rle_check, BASE, "i1.png", "not an image")
    assert not Path("output").exists()
