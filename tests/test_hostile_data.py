"""Data of strangers: names, tables and JSONs that would be read as something else end in a sentence."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import demo
import folds
import inference
import layouts
import submission
import tester
import train
from conftest import TINY, write_mask
from test_layouts import tree

COMMON = [argument for argument in TINY if not argument.startswith(("DATASET", "EPOCHS"))] + ["DATASET=x", "EPOCHS=1"]
TABLE = Path("output/x/train_folds.json")


def rows(*lines, name="own.csv"):
    Path(name).write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("lines, words", [
    (["ImageId,EncodedPixels", "s0,1 20", "s1,5 20"], ["s0 is", "case0/s0.png", "case1/s0.png"]),
    (["ImageId,EncodedPixels", "case0/s0,1 20", "case0/s0.png,5 20"], ["are both", "case0/s0.png"]),
])  # fmt: skip
def test_an_id_of_two_images_is_not_given_to_the_last(lines, words, workplace, refused):
    tree(Path("input/x"), *(f"train_images/case{c}/s{n}.png" for c in range(2) for n in range(2)))
    rows(*lines, name="input/x/train.csv")
    refused(folds.main, ["DATASET=x", "N_FOLDS=2"], *words)
    rows("ImageId,EncodedPixels", *(f"case{c}/s{n},1 {9 + n}" for c in range(2) for n in range(2)),
         name="input/x/train.csv")  # fmt: skip
    assert folds.main(["DATASET=x", "N_FOLDS=2"]) == 0


def test_linked_folders_are_looked_into_and_loops_end(workplace):
    tree(Path("input/x"), "images/a.png", "images/b.png", "masks/a.png", "masks/b.png")
    tree(Path("elsewhere"), "images/c.png", "masks/c.png")
    for kind in ("images", "masks"):
        Path("input/x", kind, "more").symlink_to(Path("elsewhere", kind).resolve())
    Path("elsewhere/images/loop").symlink_to(Path("elsewhere/images").resolve())
    found = layouts.find("input/x")
    assert [pair.image for pair in found.pairs] == ["images/a.png", "images/b.png", "images/more/c.png"]


@pytest.mark.parametrize("reference", ["rle:../x.csv#a", "rle:/etc/x.csv#a", "../masks/{class}/a.png", "~/a.png"])
def test_references_stay_below_input(reference, workplace, refused):
    tree(Path("input/x"), "images/a.png", "images/b.png", "masks/a.png", "masks/b.png")
    rows("image,mask", f"images/a.png,{reference}", "images/b.png,masks/b.png")
    refused(folds.main, ["DATASET=x", "TABLE=own.csv"], "relative to INPUT", reference)


def test_kinds_of_masks_are_not_mixed(workplace, refused):
    tree(Path("input/x"), "images/a.png", "images/b.png", "masks/car/a.png", "masks/road/a.png", "masks/b.png")
    rows("image,mask", "images/a.png,masks/{class}/a.png", "images/b.png,masks/b.png")
    refused(folds.main, ["DATASET=x", "TABLE=own.csv", "N_FOLDS=2"], "single files", "masks/b.png")
    rows("image,mask", "images/a.png,masks/{class}/z.png", "images/b.png,")
    refused(folds.main, ["DATASET=x", "TABLE=own.csv", "N_FOLDS=2"], "no file fits masks/{class}/z.png")


def test_background_alone_is_no_class_and_is_background_however_it_is_written(workplace, refused, capsys):
    tree(Path("input/x"), "images/a.png", "images/b.png", "masks/Background/a.png", "masks/Background/b.png")
    refused(folds.main, ["DATASET=x", "N_FOLDS=2"], "only class", "Background")
    tree(Path("input/y"), "images/a.png", "images/b.png", "masks/a.png", "masks/b.png")
    Path("input/y/classes.csv").write_text("name,value\nBackground,0\nline,255\n")
    assert folds.main(["DATASET=y", "N_FOLDS=2"]) == 0
    assert "2 classes (background, line)" in capsys.readouterr().out
    Path("input/y/classes.csv").write_text("name,r,g,b\nbackground,0,0,0\nline,300,0,0\n")
    refused(folds.main, ["DATASET=y", "N_FOLDS=2", "OVERWRITE=1"], "colours to 255")


def test_copies_over_given_folds_are_not_tied(workplace, refused):
    places = [f"{part}/{kind}/{part}" for part in ("train", "valid") for kind in ("images", "masks")]
    tree(Path("input/x"), *(f"{place}{number}.png" for place in places for number in range(2)))
    Path("input/x/valid/images/valid0.png").write_bytes(Path("input/x/train/images/train0.png").read_bytes())
    said = refused(folds.main, ["DATASET=x"], "images lie in two folds", "Remove the copies")
    assert "TIE=1" not in said
    refused(folds.main, ["DATASET=x", "TIE=1"], "these folds are given")


def test_folders_one_level_too_deep_are_not_taken_for_one_image(workplace, refused):
    tree(Path("input/x"), *(f"deep/{kind}/{n}.png" for kind in ("images", "masks") for n in range(3)))
    refused(folds.main, ["DATASET=x"], "found no images with masks", "it holds deep/")
    tree(Path("input/x"), *(f"{kind}/{n}.png" for kind in ("images", "masks") for n in range(3)))
    assert layouts.find("input/x").layout == "folders"


@pytest.fixture
def trained_small(workplace):
    """Six noisy pictures with striped masks, fold 0 trained for an epoch."""
    for number in range(8):
        picture = np.random.default_rng(number).integers(0, 255, (16, 16, 3), np.uint8)
        folder = Path("input/x/images" if number < 6 else "input/x/test")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"p{number}.png")
        if number < 6:
            write_mask(Path(f"input/x/masks/p{number}.png"), np.arange(256).reshape(16, 16) % 16 < 4 + number)
    assert folds.main(COMMON) == 0
    assert train.main([*COMMON, "FOLD=0"]) == 0


def test_test_images_of_another_kind_are_refused_and_nothing_is_left(trained_small, refused):
    predictions = Path("output/x/predictions")
    Image.fromarray(np.full((16, 16), 3000, np.uint16)).save("input/x/test/p9.png")
    refused(inference.main, [*COMMON, "FOLD=0", "VALID_BATCH_SIZE=1"], "p9.png: 16 bits", "have 8")
    assert not list(predictions.glob("*")) and not list(predictions.glob(".*"))
    Path("input/x/test/p9.png").unlink()
    tree(Path("input/x/test"), "labels/p6.png")
    assert inference.main([*COMMON, "FOLD=0"]) == 0
    assert len(list(predictions.rglob("*.png"))) == 2 + 1  # and their picture


def test_a_lone_slice_is_no_stack(workplace, refused):
    tree(Path("input/x"), "test/a_0.png", "test/a_1.png", "test/b.png")
    with pytest.raises(layouts.UserError, match=r"takes stacks of slices.*\n.*b\.png"):
        layouts.test_images("input/x", stacked=True)


@pytest.mark.parametrize("change", [
    {"classes": ["a", "b"]}, {"classes": "ab"}, {"values": [1, 2, 3]}, {"ignore": [70000]}, {"window": [65535, 0]},
    {"window": [float("nan"), 1]}, {"channels": 4}, {"mean": [0.5]}, {"task": "multi"},
])  # fmt: skip
def test_a_json_edited_by_hand_ends_in_a_sentence(change, trained_small, refused):
    about = json.loads(TABLE.read_text())
    TABLE.write_text(json.dumps({**about, "data": {**about["data"], **change}}))
    refused(train.main, [*COMMON, "FOLD=1"], "make folds" if "classes" not in change else "")
    model = Path("lightning_logs/x/fold0_seed42/model.json")
    about = json.loads(model.read_text())
    model.write_text(json.dumps({**about, "data": {**about["data"], **change}}))
    refused(inference.main, [*COMMON, "FOLD=0"], "")
    refused(tester.main, [*COMMON, "FOLD=0"], "")


def test_another_ignore_does_not_change_a_table_in_silence(workplace, refused):
    tree(Path("input/x"), *(f"{kind}/{n}.png" for kind in ("images", "masks") for n in range(4)))
    for number in range(4):
        values = np.resize(np.array([0, 1, 2, 9], np.uint8), (8, 8))
        Image.fromarray(np.roll(values, number)).save(f"input/x/masks/{number}.png")
    assert folds.main(["DATASET=x", "N_FOLDS=2", "IGNORE=9"]) == 0
    before = TABLE.read_bytes()
    refused(folds.main, ["DATASET=x", "N_FOLDS=2", "IGNORE=-1"], "made otherwise", "ignore: [9] there, [] now")
    assert TABLE.read_bytes() == before


def test_an_empty_prediction_folder_is_no_submission(trained_small, refused):
    assert inference.main([*COMMON, "FOLD=0"]) == 0
    manifest = Path("output/x/predictions/x_fold0_seed42/manifest.json")
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "images": []}))
    refused(submission.main, [*COMMON, "FOLD=0", "DIALECT=tgs"], "not what inference writes")


def test_stacks_in_a_table_of_ones_own_are_counted(workplace):
    tree(Path("input/x"), *(f"images/{name}_{z}.png" for name in "abcd" for z in range(4)),
         *(f"masks/{name}.png" for name in "abcd"))  # fmt: skip
    rows("image,mask", *(f"images/{name}_{{z}}.png,masks/{name}.png" for name in "abcd"))
    assert folds.main(["DATASET=x", "TABLE=own.csv", "N_FOLDS=2"]) == 0
    assert json.loads(TABLE.read_text())["data"]["channels"] == 4


def test_the_demos_flags_may_be_written_with_dashes(workplace, capsys, refused):
    assert demo.main(["--layout", "folders", "--count", "8", "--only", "render"]) == 0
    assert demo.main(["LAYOUT=folders", "COUNT=8", "ONLY=render"]) == 0
    assert "is there already" in capsys.readouterr().out
    refused(demo.main, ["LAYOUT=folder"], "Did you mean folders")
    refused(demo.main, ["LAYOUT=folders", "CARS=3"], "COUNT")
    assert len(pd.read_json("input/demo_folders/demo.json", typ="series")["answers"]) == 16
