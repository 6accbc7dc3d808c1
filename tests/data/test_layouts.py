"""Every layout, from a tree of small files to its pairs; what does not fit is listed."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import folds
from data import images_to_predict, layouts
from tools.errors import UserError

RANDOM = np.random.default_rng(0)


def tree(root: Path, *files: str) -> None:
    """Small pictures and masks; anything else is a text."""
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".csv":
            continue
        is_mask = "mask" in name.lower() or "label" in name.lower()
        pixels = np.eye(8, dtype=np.uint8) * 255 if is_mask else RANDOM.integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(path)


TREES = {  # files -> layout, pairs
    "the same names": (["images/a.jpg", "images/b.png", "masks/a.png", "masks/b.png"], "folders",
        {"images/a.jpg": "masks/a.png", "images/b.png": "masks/b.png"}),
    "capital letters, below train": (["train/Images/a.png", "train/Masks/a.png"], "folders",
        {"train/Images/a.png": "train/Masks/a.png"}),
    "subfolders": (["images/one/a.png", "images/two/a.png", "masks/one/a.png", "masks/two/a.png"], "folders",
        {"images/one/a.png": "masks/one/a.png", "images/two/a.png": "masks/two/a.png"}),
    "an ending": (["images/a.png", "images/a_1.png", "labels/a_L.png", "labels/a_1_L.png"], "folders",
        {"images/a.png": "labels/a_L.png", "images/a_1.png": "labels/a_1_L.png"}),
    "CamVid": (["train/a.png", "train_labels/a_L.png"], "folders", {"train/a.png": "train_labels/a_L.png"}),
    "an ending a class": (["images/a.png", "images/b.png", "masks/a_car.png", "masks/a_road.png", "masks/b_car.png"],
        "folders", {"images/a.png": "masks/a_{class}.png", "images/b.png": "masks/b_{class}.png"}),
    "a folder a class": (["images/a.png", "images/b.png", "masks/car/a.png", "masks/road/b.png"], "folders",
        {"images/a.png": "masks/{class}/a.png", "images/b.png": "masks/{class}/b.png"}),
    "a folder an image, with classes": (["images/a.png", "images/b.png", "masks/a/car.png", "masks/b/car.png",
        "masks/b/road.png"], "folders", {"images/a.png": "masks/a/{class}.png", "images/b.png": "masks/b/{class}.png"}),
    "a folder an image, with objects": (["images/a.png", "images/b.png", "masks/a/1.png", "masks/b/1.png",
        "masks/b/2.png"], "folders", {"images/a.png": "masks/a", "images/b.png": "masks/b"}),
    "an ending a number": (["images/a.png", "images/b.png", "masks/a_0.png", "masks/a_1.png",
        "masks/b_0.png"], "folders", {"images/a.png": "masks/a_{object}.png", "images/b.png": "masks/b_{object}.png"}),
    "slices": (["images/a_0.png", "images/a_1.png", "images/b_0.png", "images/b_1.png", "masks/a.png", "masks/b.png"],
        "folders", {"images/a_{z}.png": "masks/a.png", "images/b_{z}.png": "masks/b.png"}),
    "beside": (["train/a.png", "train/a_mask.png", "train/b.jpg", "train/b_mask.png"], "beside",
        {"train/a.png": "train/a_mask.png", "train/b.jpg": "train/b_mask.png"}),
    "DeepGlobe": (["train/1_sat.jpg", "train/1_mask.png"], "beside", {"train/1_sat.jpg": "train/1_mask.png"}),
    "Carvana": (["train/c_01.jpg", "train_masks/c_01_mask.gif"], "carvana",
        {"train/c_01.jpg": "train_masks/c_01_mask.gif"}),
    "a split": (["train/images/a.png", "train/masks/a.png", "val/images/b.png", "val/masks/b.png"], "split",
        {"val/images/b.png": "val/masks/b.png", "train/images/a.png": "train/masks/a.png"}),
    "Data Science Bowl": (["stage1_train/x/images/x.png", "stage1_train/x/masks/1.png"], "instances",
        {"stage1_train/x/images/x.png": "stage1_train/x/masks"}),
}  # fmt: skip


@pytest.mark.parametrize("case", TREES)
def test_a_layout_is_found_and_paired(case, tmp_path):
    files, layout, pairs = TREES[case]
    tree(tmp_path, *files)
    found = layouts.find(layouts.Wanted(str(tmp_path)))
    assert found.layout == layout
    assert {pair.image: pair.mask for pair in found.pairs} == pairs
    if case == "a split":
        assert {pair.image: pair.kfold for pair in found.pairs} == {"val/images/b.png": 0, "train/images/a.png": 1}
    if case == "subfolders":
        assert {pair.stratum for pair in found.pairs} == {"one", "two"}
    if "{class}" in next(iter(pairs.values())):
        assert found.classes == ("car", "road")
    assert found.channels == (2 if case == "slices" else 3)


@pytest.mark.parametrize("files, words", [
    (["images/a.png", "images/b.png", "masks/a.png"], ["1 without a partner", "b.png: no mask"]),
    (["images/a.png", "masks/a.png", "masks/c.png"], ["c.png: no image"]),
    (["images/a.png", "masks/a.png", "masks/a_car.png"], ["a second mask of a"]),
    (["images/a.png", "images/a.jpg", "masks/a.png"], ["the same name but for the ending"]),
    (["images/a.png", "masks/z.png"], ["a.png: no mask", "z.png: no image"]),
    (["images/a_0.png", "images/a_1.png", "images/b_0.png", "masks/a.png", "masks/b.png"], ["1 slices, others have 2"]),
    (["images/a.png", "masks/car/a.png", "masks/road/b.png"], ["road/b.png: fits no image", "{class}/{image}.png"]),
    (["images/a.png", "images/b.png", "masks/car/a.png", "masks/road/b.gif"], ["road/b.gif: fits no image"]),
    (["images/a.png", "masks/a_car.png", "masks/a_road.PNG"], ["a_road.PNG: fits no image", "{image}_{class}.png"]),
    (["images/a.png", "masks/a_car.png", "masks/a-road.png", "masks/a_tree.png"], ["a-road.png: fits no image"]),
    (["images/a.png", "images/k{class}.png", "masks/a.png", "masks/k{class}.png"], ["k{class}.png", "rename it"]),
    (["train/a.png", "train/b.png", "train/a_mask.png"], ["b.png: no mask"]),
    (["readme/a.png"], ["found no images with masks", "folders: images/**", "TABLE=my.csv"]),
    (["train/images/a.png", "train/masks/a.png", "valid/images/b.png", "valid/masks/c.png"], ["b.png: no mask"]),
])  # fmt: skip
def test_what_does_not_fit_is_said(files, words, workplace, refused):
    tree(Path("input/x"), *files)
    refused(folds.main, ["DATASET=x"], *words)
    assert not Path("output").exists()


def test_what_has_no_partner_may_be_left_out_or_be_empty(workplace, refused, capsys):
    tree(Path("input/x"), *(f"images/{name}.png" for name in "abcd"), "masks/a.png", "masks/b.png", "masks/z.png")
    refused(folds.main, ["DATASET=x", "N_FOLDS=2"], "3 without a partner", "UNPAIRED=skip", "UNPAIRED=empty")
    for unpaired, masks in (
        ("skip", ["masks/a.png", "masks/b.png"]),
        ("empty", ["masks/a.png", "masks/b.png", "", ""]),
    ):
        assert folds.main(["DATASET=x", "N_FOLDS=2", f"UNPAIRED={unpaired}", "OVERWRITE=1"]) == 0
        assert pd.read_csv("output/x/train_folds.csv", keep_default_na=False)["mask"].tolist() == masks
        assert f"UNPAIRED={unpaired}: " in capsys.readouterr().out


def table_of(rows, header="ImageId,EncodedPixels", name="train.csv"):
    Path("input/x", name).write_text("\n".join([header, *rows]) + "\n")


def test_a_table_of_run_lengths_with_its_images(workplace, capsys):
    tree(Path("input/x"), *(f"train_images/{name}.png" for name in "abcd"))
    table_of(["a.png,1 3", "a.png,9 2", "b.png,", "c.png,20 8"])
    assert folds.main(["DATASET=x", "N_FOLDS=2"]) == 0
    assert "1 images without a row in it have an empty mask" in capsys.readouterr().out
    frame = pd.read_csv("output/x/train_folds.csv", keep_default_na=False)
    assert frame["mask"].tolist() == [*(f"rle:train.csv#{name}.png" for name in "abc"), ""]
    assert sum(row["empty"] for row in json.loads(Path("output/x/train_folds.json").read_text())["balance"]) == 2


def test_run_lengths_with_classes_are_several_overlapping_classes(workplace, capsys):
    tree(Path("input/x"), *(f"train/{name}.png" for name in "abcd"))
    rows = [f"{name},{kind},{text}" for name in "abcd" for kind, text in (("liver", "1 20"), ("tumour", "5 3"))]
    table_of(rows, "id,class,segmentation")
    assert folds.main(["DATASET=x", "N_FOLDS=2"]) == 0
    assert "multilabel, 2 classes (liver, tumour)" in capsys.readouterr().out


@pytest.mark.parametrize("rows, words", [
    (["a.png,1 3", "z.png,1 3"], ["z.png is no image"]),
    (["a.png,1 3 5"], ["train.csv, line 2 (a.png)", "pairs of start and length"]),
    (["a.png,1 65"], ["beyond the 8 x 8 pixels"]),
    (["a.png,0 3"], ["count from 1"]),
    (["a.png,x"], ["whole numbers"]),
])  # fmt: skip
def test_broken_run_lengths_name_their_line(rows, words, workplace, refused):
    tree(Path("input/x"), "train_images/a.png", "train_images/b.png")
    table_of(rows)
    refused(folds.main, ["DATASET=x", "N_FOLDS=2"], *words)
    assert not Path("output").exists()


def test_which_of_two_tables_is_asked(workplace, refused):
    tree(Path("input/x"), "train_images/a.png", "train_images/b.png")
    table_of(["a.png,1 3"], name="one.csv")
    table_of(["a.png,1 3"], name="two.csv")
    refused(folds.main, ["DATASET=x"], "Which of these tables", "one.csv", "train.csv")


def test_test_images_leave_masks_out_and_join_slices(tmp_path):
    tree(tmp_path, "test/images/a_0.png", "test/images/a_1.png", "test/images/b_0.png", "test/images/b_1.png")
    assert [path.name for path in images_to_predict.test_images(str(tmp_path), stacked=True)[1]] == [
        "a_{z}.png",
        "b_{z}.png",
    ]
    assert len(images_to_predict.test_images(str(tmp_path))[1]) == 4
    tree(tmp_path / "other", "test/a.png", "test/a_mask.png")
    assert [path.name for path in images_to_predict.test_images(str(tmp_path / "other"))[1]] == ["a.png"]
    with pytest.raises(UserError, match="TEST_PATH"):
        images_to_predict.test_images(str(tmp_path / "nowhere"), "x")


def test_a_split_that_came_with_the_data_is_kept(workplace, capsys):
    tree(Path("input/x"), *(f"{part}/{kind}/{name}.png" for part, names in (("train", "abcde"), ("valid", "xy"))
                            for kind in ("images", "masks") for name in names))  # fmt: skip
    assert folds.main(["DATASET=x"]) == 0
    frame = pd.read_csv("output/x/train_folds.csv")
    assert set(frame[frame["kfold"] == 0]["image"]) == {"valid/images/x.png", "valid/images/y.png"}
    assert "the split that came with the data" in capsys.readouterr().out
    assert folds.main(["DATASET=x"]) == 0  # again


def test_subfolders_are_the_strata(workplace):
    names = [f"{kind}/{number}" for kind in ("plain", "dark") for number in range(4)]
    tree(Path("input/x"), *(f"{folder}/{name}.png" for folder in ("images", "masks") for name in names))
    assert folds.main(["DATASET=x", "N_FOLDS=4"]) == 0
    frame = pd.read_csv("output/x/train_folds.csv")
    frame["kind"] = frame["image"].str.split("/").str[1]
    assert (frame.groupby(["kfold", "kind"]).size() == 1).all()
