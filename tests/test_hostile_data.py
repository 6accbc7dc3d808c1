"""Data of strangers: names, tables and JSONs that would be read as something else end in a sentence."""

import contextlib
import csv
import json
import resource
import struct
import time
from pathlib import Path

import hypothesis
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_images import tiff
from test_layouts import tree

import demo
import folds
import inference
import linked
import settings
import submission
import tester
import train
from conftest import TINY, write_mask
from data import images_to_predict, layouts, splits
from formats import images, rle
from prediction import tiles
from tools import errors

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
    found = layouts.find(layouts.Wanted("input/x"))
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
    refused(folds.main, ["DATASET=y", "N_FOLDS=2", "OVERWRITE=1"], "colors to 255")


def test_copies_over_given_folds_are_not_tied(workplace, refused):
    places = [f"{part}/{kind}/{part}" for part in ("train", "valid") for kind in ("images", "masks")]
    tree(Path("input/x"), *(f"{place}{number}.png" for place in places for number in range(2)))
    Path("input/x/valid/images/valid0.png").write_bytes(Path("input/x/train/images/train0.png").read_bytes())
    said = refused(folds.main, ["DATASET=x"], "images lie in two folds", "Remove the copies")
    assert "TIE=1" not in said
    refused(folds.main, ["DATASET=x", "TIE=1"], "these folds are given")


def test_folders_one_level_too_deep_are_not_taken_for_one_image(workplace):
    tree(Path("input/x"), *(f"deep/{kind}/{n}.png" for kind in ("images", "masks") for n in range(3)))
    assert [pair.mask for pair in layouts.find(layouts.Wanted("input/x")).pairs] == [
        f"deep/masks/{n}.png" for n in range(3)
    ]
    tree(Path("input/x"), *(f"{kind}/{n}.png" for kind in ("images", "masks") for n in range(3)))
    assert layouts.find(layouts.Wanted("input/x")).layout == "folders"


@pytest.fixture(scope="session")
def small_source(once):
    """Six noisy pictures with striped masks, fold 0 trained for an epoch."""
    return once("small", train_small)


@pytest.fixture
def trained_small(small_source, workplace):
    """A copy that the test may change."""
    linked.copy(small_source, workplace)


def train_small(place):
    with contextlib.chdir(place):
        write_small()
        assert folds.main(COMMON) == 0
        assert train.main([*COMMON, "FOLD=0"]) == 0


def write_small():
    for number in range(8):
        picture = np.random.default_rng(number).integers(0, 255, (16, 16, 3), np.uint8)
        folder = Path("input/x/images" if number < 6 else "input/x/test")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"p{number}.png")
        if number < 6:
            write_mask(Path(f"input/x/masks/p{number}.png"), np.arange(256).reshape(16, 16) % 16 < 4 + number)


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
    with pytest.raises(errors.UserError, match=r"takes stacks of slices.*\n.*b\.png"):
        images_to_predict.test_images("input/x", stacked=True)


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


ODD = [
    "=1+1",
    "=cmd|' C'!A0",
    "@SUM(1)",
    "+1",
    "-2+3+cmd|' C'!D2",
    "a\nb",
    "a\tb",
    "a\rb",
    "a\u2028b",
    "a\x1bb",
    "\udcff",
]


@pytest.mark.parametrize("name", ODD)
def test_names_that_a_table_cannot_hold_are_refused_at_every_door(name, workplace, refused):
    tree(Path("input/x"), "images/a.png", "images/b.png", "masks/a.png", "masks/b.png", "test/c.png")
    for kind in ("images", "masks"):
        Path("input/x", kind, "b.png").rename(Path("input/x", kind, f"{name}.png"))
    refused(folds.main, ["DATASET=x", "N_FOLDS=2"])
    with pytest.raises(errors.UserError, match="rename"):
        Path("input/x/test/c.png").rename(f"input/x/test/{name}.png")
        images_to_predict.test_names("input/x")
    if "\udcff" not in name:  # what no UTF-8 file can hold
        with Path("own.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(
                [["image", "mask", "group"], ["images/a.png", "", name], ["images/a.png", "", "g"]]
            )
        refused(folds.main, ["DATASET=x", "TABLE=own.csv"], "own.csv", "rename")
    assert not Path("output").exists()


def test_names_that_look_odd_and_are_none_stay(workplace):
    names = [
        "-5",
        "-abc_def",
        "a=b",
        "a,b",
        "a;b 'c' (1)",
        "#1",
        "007",
        "NA",
        "null",
        "1e5",
        "é Ω 名 🙂",
        "a.b.c",
        "%20",
    ]
    tree(Path("input/x"), *(f"{kind}/{name}.png" for kind in ("images", "masks") for name in names))
    assert folds.main(["DATASET=x", "N_FOLDS=2"]) == 0
    table = splits.read(Path("output/x/train_folds.csv"))
    assert sorted(table["image"]) == sorted(f"images/{name}.png" for name in names)


@pytest.mark.parametrize("lines, words", [
    (["image,mask,kfold", "a.png"], ["line 2: 1 cells, expected 3"]),
    (["image,mask,kfold", "a.png,b.png,0,1,2"], ["line 2: 5 cells, expected 3"]),
    (["image,mask,kfold", "a.png,b.png,"], ["whole number"]),
    (["image,mask,kfold", "a.png,b.png,nan"], ["whole number", "'nan'"]),
    (["image,mask,kfold", "a.png,b.png,-2"], ["whole number"]),
    (["image,mask,kfold", 'a.png,"b'], ["line 2: 2 cells, expected 3"]),
    (["image;mask;kfold", "a.png;b.png;0"], ["no column image"]),
    (["image,mask,kfold"], ["no rows"]), ([], ["not readable as CSV"]), (["\x00"], [""]),
])  # fmt: skip
def test_a_folds_table_that_is_none(lines, words, workplace, refused):
    tree(Path("input/x"), "a.png", "b.png")
    rows(*lines)
    refused(folds.main, ["DATASET=x", "TABLE=own.csv"], "own.csv", *words)


@pytest.mark.parametrize("image", ["../../out.png", "/tmp/out.png", "~/out.png", "images/../../out.png"])
def test_a_table_exchanged_later_writes_nothing_outside(image, trained_small, refused):
    path = Path("output/x/train_folds.csv")
    table = splits.read_csv(path, "")
    table["image"] = [image, *table["image"][1:]]
    table.to_csv(path, index=False)
    for main in (train.main, tester.main):
        refused(main, [*COMMON, "FOLD=0", *(["OVERWRITE=1"] if main is train.main else [])], "relative to INPUT", image)


@pytest.mark.parametrize("cell", ["=1+1", "@x", "a\nb"])
def test_classes_that_a_table_cannot_hold_are_refused(cell, workplace, refused):
    tree(Path("input/x"), "train_images/a.png", "train_images/b.png")
    with Path("input/x/train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "class", "segmentation"], ["a", cell, "1 2"], ["b", "c", "3 4"]])
    refused(folds.main, ["DATASET=x", "N_FOLDS=2"], "class names are printable")


def test_a_small_file_with_many_channels_or_directories_is_refused_before_it_is_decoded(tmp_path):
    wide = tiff(tmp_path / "wide.tif", np.zeros((300, 400, 100), np.uint8), extra=(0,) * 99, pack=8)
    with pytest.raises(errors.UserError, match="100 channels, more than 4 times MAX_PIXELS=130000"):
        images.read_levels(wide, 130_000, 100)
    assert images.read_levels(wide, 3_000_000, 100).shape == (300, 400, 100)
    at, empty = 8, []
    for _ in range(100_000):  # a chain of empty directories, each naming the next
        at += 6
        empty.append(struct.pack("<HI", 0, at))
    (tmp_path / "chain.tif").write_bytes(b"II*\0" + struct.pack("<I", 8) + b"".join(empty))
    start = time.process_time()  # others may be at work
    with pytest.raises(errors.UserError, match="directories"):
        images.read_levels(tmp_path / "chain.tif")
    assert time.process_time() - start < 2


def test_a_picture_that_is_12000_pixels_wide_and_high_in_140_kb_is_refused_by_its_header(workplace, refused):
    tree(Path("input/x"), "images/a.png", "masks/a.png", "images/b.png", "masks/b.png")
    Image.new("1", (12_000, 12_000)).save("input/x/images/a.png")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(folds.main, ["DATASET=x", "N_FOLDS=2"], "a.png: 12000 x 12000 pixels, more than MAX_PIXELS")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB; decoded it is 430 MB


ANYTHING = st.one_of(
    st.text(max_size=40),
    st.from_regex(r"[\d.,()\[\]e+*={}-]{0,30}", fullmatch=True),
    st.sampled_from(["{INPUT}", "{OUTPUT}{OUTPUT}", "9" * 5000, "(" * 500, "-0", "0x10", "1_0", "True", "None", "\0"]),
    st.sampled_from(["'", '""', "nan"]),
)  # fmt: skip


@hypothesis.settings(max_examples=80)
@given(
    st.lists(
        st.tuples(st.one_of(st.sampled_from(sorted(settings.DEFAULTS)), st.text(max_size=12)), ANYTHING), max_size=3
    )
)
def test_any_text_for_any_constant_gives_settings_or_a_sentence(pairs):
    overrides = [f"{name}={value}" for name, value in pairs]
    try:
        loaded, _ = settings.command_line([text for text in overrides if text[:1] != "-"], "", {"FOLD": "which"})
    except errors.UserError as error:
        assert str(error)
        return
    for name, default in settings.DEFAULTS.items():
        assert isinstance(getattr(loaded, name), type(default))
    assert settings.load(loaded.overrides()) == loaded


CELLS = st.one_of(
    st.text(max_size=8), st.sampled_from(["", "a.png", "b.png", "c.png", "0", "1", "-1", "1.0", "NA", "=1", "../a"])
)


@hypothesis.settings(max_examples=60)
@given(
    st.lists(st.lists(CELLS, min_size=5, max_size=5), max_size=6), st.lists(st.sampled_from(splits.COLUMNS), max_size=5)
)
def test_any_cells_give_a_folds_table_or_a_sentence(tmp_path_factory, cells, missing):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    columns = [name for name in splits.COLUMNS if name not in missing[:1]]
    with path.open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
        csv.writer(file).writerows([columns, *(row[: len(columns)] for row in cells)])
    try:
        table = splits.read(path)
    except errors.UserError as error:
        assert "any.csv" in str(error)
        return
    held_out = table[table["kfold"] >= 0]
    assert not held_out["image"].duplicated().any()
    assert held_out.groupby("group")["kfold"].nunique().max() == 1
    assert not held_out["image"].str.contains(r"(?:^|/)\.\.(?:/|$)|^/|^~|^=", regex=True).any()


@given(st.text(max_size=40), st.sampled_from(sorted(rle.DIALECTS)), st.integers(1, 9), st.integers(1, 9))
def test_any_text_is_a_mask_or_a_sentence(text, dialect, height, width):
    try:
        mask = rle.from_text(text, (height, width), rle.DIALECTS[dialect], "train.csv, line 3 (x)")
    except errors.UserError as error:
        assert str(error).startswith("train.csv, line 3 (x): ")
        return
    assert mask.shape == (height, width)
    assert (
        rle.from_text(rle.to_text(mask, rle.DIALECTS[dialect]), mask.shape, rle.DIALECTS[dialect]).tolist()
        == mask.tolist()
    )


@hypothesis.settings(max_examples=60)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 4), st.floats(0, 0.75))
def test_tiles_of_any_frame_give_what_the_whole_gives_where_each_pixel_is_by_itself(height, width, size, overlap):
    frames = torch.rand(1, height, width, 3)
    alone = lambda part: part.permute(0, 3, 1, 2)[:, :1]  # noqa: E731
    whole, cut = alone(frames), tiles.predict(alone, frames, 32 * size, overlap, 2)
    torch.testing.assert_close(cut, whole, atol=1e-5, rtol=0)
