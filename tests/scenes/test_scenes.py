"""The rendered data sets: what is drawn, and what lies on disk for each layout."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from data import layouts
from formats import annotations, decode, rle
from formats.mask_reference import MaskReference
from scenes import blobs, hands, rendered_layouts, screens, writer
from tools.errors import UserError

COUNT, TEST_COUNT = 4, 2
WIDE, SCREEN = (256, 192), (320, 180)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Every layout once, in the smallest size: name -> (folder, about)."""
    folder = tmp_path_factory.mktemp("scenes")
    return {name: (folder / name, rendered_layouts.write(name, folder / name, 42, COUNT, TEST_COUNT))
            for name in rendered_layouts.LAYOUTS}  # fmt: skip


def names(root, pattern):
    return sorted(path.relative_to(root).as_posix() for path in root.glob(pattern))


def opened(path, mode, size=WIDE):
    image = Image.open(path)
    assert (image.mode, image.size) == (mode, size), path
    return np.array(image)


def binary(path, size=WIDE):
    values = opened(path, "L", size)
    assert set(np.unique(values)) <= {0, 255}
    return values > 0


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def pixels(path):
    image = Image.open(path)
    return np.array(image).astype(np.int64)


@pytest.mark.parametrize("layout", rendered_layouts.LAYOUTS)
def test_the_about_file_names_the_answer_of_every_test_image(written, layout):
    root, about = written[layout]
    assert json.loads((root / "demo.json").read_text()) == about
    assert {key: about[key] for key in ("layout", "seed", "count", "test_count")} == {
        "layout": layout, "seed": 42, "count": COUNT, "test_count": TEST_COUNT,
    }  # fmt: skip
    assert len(about["answers"]) == TEST_COUNT
    for image, mask in about["answers"].items():
        assert list(root.glob(image.replace("{z}", "*"))), image
        table, _, key = mask.removeprefix("rle:").partition("#")
        if mask.startswith("rle:"):
            column = next(iter(rows(root / ".answers" / table)[0]))
            assert key in {row[column] for row in rows(root / ".answers" / table)}
        elif "{class}" not in mask:
            assert all(file.exists() for file in MaskReference.parse(mask).files(root / ".answers", ()))
    assert not list(root.parent.glob(f".{root.name}*"))  # nothing half-written beside it


def test_folders(written):
    root, _ = written["folders"]
    assert {path.name for path in (root / "images").iterdir()} == set(hands.KINDS)
    images = names(root / "images", "*/*.jpg")
    assert len(images) == COUNT
    assert [name.replace(".jpg", ".png") for name in images] == names(root / "masks", "*/*.png")
    for name in images:
        opened(root / "images" / name, "RGB")
        assert 0.004 < binary(root / "masks" / name.replace(".jpg", ".png")).mean() < 0.2
    assert len(names(root, ".answers/masks/*/*.png")) == len(names(root, "test/images/*/*.jpg")) == TEST_COUNT


def test_split(written):
    root, _ = written["split"]
    for part, count in (("train", 3), ("valid", 1)):
        images = names(root / part / "images", "*.jpg")
        assert len(images) == count
        assert [name.replace(".jpg", ".png") for name in images] == names(root / part / "masks", "*.png")
    assert len(names(root, "test/images/*.jpg")) == len(names(root, ".answers/test/masks/*.png")) == TEST_COUNT
    assert not (root / "test" / "masks").exists()


def test_rle_has_a_row_a_cell_and_a_blank_where_there_is_none(written):
    root, _ = written["rle"]
    images = names(root / "train_images", "*.png")
    table = rows(root / "train.csv")
    assert len(images) == COUNT
    assert {row["ImageId"] for row in table} == set(images)
    number = {f"{writer.file_name(42, number)}.png": number for number in range(COUNT)}
    blank = [row["ImageId"] for row in table if not row["EncodedPixels"]]
    assert [number[name] for name in blank] == [3]
    for name in images:
        texts = [row["EncodedPixels"] for row in table if row["ImageId"] == name and row["EncodedPixels"]]
        cells = blobs.cells(42, number[name], empty_too=True)[1]
        assert len(texts) == len(cells)
        for text, cell in zip(texts, cells, strict=True):
            assert np.array_equal(rle.decode(text, (192, 256), "F"), cell)
    assert {row["ImageId"] for row in rows(root / "sample_submission.csv")} == set(names(root / "test_images", "*"))


def test_rle_classes_has_a_row_an_id_and_class(written):
    root, _ = written["rle_classes"]
    images = names(root / "train", "*.png")
    assert images[1] == "case12_slice_0003.png"
    table = {(row["id"], row["class"]): row["segmentation"] for row in rows(root / "train.csv")}
    assert len(table) == COUNT * len(blobs.ORGANS)
    assert "" in table.values()
    liver = rle.decode(table["case12_slice_0005", "liver"], (192, 256), "C")
    assert np.array_equal(liver, blobs.organs(42, 0, 4)[1]["liver"])
    values = opened(root / "train" / images[2], "I;16")
    assert 100 < np.percentile(values, 5) < 400
    assert values.max() > 2000
    sample = rows(root / "sample_submission.csv")
    assert [tuple(row) for row in sample[:1]] == [("id", "class", "predicted")]
    assert len(sample) == TEST_COUNT * len(blobs.ORGANS)
    assert {row["id"] for row in sample} == {path.stem for path in (root / "test").iterdir()}
    assert not {row["id"].split("_")[0] for row in sample} & {name.split("_")[0] for name in images}  # other patients


def test_ui(written):
    root, _ = written["ui"]
    files = names(root / "train", "*.png")
    assert len(files) == 2 * COUNT
    for mask in (name for name in files if name.endswith("_mask.png")):
        opened(root / "train" / mask.replace("_mask", ""), "RGB", SCREEN)
        assert 0.03 < binary(root / "train" / mask, SCREEN).mean() < 0.6
    assert len(names(root, "test/*.png")) == len(names(root, ".answers/test/*_mask.png")) == TEST_COUNT


def class_maps(root, suffix=".png"):
    images = names(root / "images", f"*{suffix}")
    assert len(images) == COUNT
    assert [name.replace(suffix, ".png") for name in images] == names(root / "masks", "*.png")
    assert len(names(root, f"test/images/*{suffix}")) == len(names(root, ".answers/masks/*.png")) == TEST_COUNT
    return [(root / "images" / name, root / "masks" / name.replace(suffix, ".png")) for name in images]


VALUES = [{"name": name, "value": str(value)} for value, name in enumerate(blobs.LAND)]


def test_class_maps_hold_the_same_in_gray_palette_and_colors(written):
    roots = [written[name][0] for name in ("classmap", "palette", "colours")]
    assert rows(roots[0] / "classes.csv") == rows(roots[1] / "classes.csv") == VALUES
    colors = {row["name"]: [int(row[part]) for part in "rgb"] for row in rows(roots[2] / "classes.csv")}
    assert list(colors) == [*blobs.LAND, "ignore"]
    table = np.zeros((256, 3), int)
    table[: len(blobs.LAND)] = [colors[name] for name in blobs.LAND]
    seen = set()
    for (image, gray), (_, palette), (_, colored) in zip(*map(class_maps, roots), strict=True):
        opened(image, "RGB")
        labels = opened(gray, "L")
        seen |= set(np.unique(labels).tolist())
        assert np.array_equal(opened(palette, "P"), labels)
        assert np.array_equal(opened(colored, "RGB"), table[labels])
    assert {0, 3, 4, 255} <= seen <= {0, 1, 2, 3, 4, 255}
    assert Image.open(class_maps(roots[1])[0][1]).getpalette()[:3] == colors["field"]


def test_near_infrared_is_a_fourth_channel_that_is_no_alpha(written):
    root, _ = written["near_infrared"]
    assert rows(root / "classes.csv") == VALUES
    bright, dark = [], []
    for image, mask in class_maps(root, ".tif"):
        samples = decode.decode(image, 10**6)
        assert samples.kind == "bands"
        assert samples.values.shape == (192, 256, 4)
        labels = opened(mask, "L")
        bright += samples.values[labels == 2, 3].tolist()
        dark += samples.values[labels == 3, 3].tolist()
        assert np.array_equal(np.array(Image.open(image))[..., :3], samples.values[..., :3])
    assert np.mean(bright) > np.mean(dark) + 20  # woods are brighter than roads, which in green they are not


def test_class_files_leave_out_what_a_slice_does_not_show(written):
    root, _ = written["class_files"]
    images = names(root / "images", "*.png")
    assert len(images) == COUNT
    masks = names(root / "masks", "*/*.png")
    assert {name.split("/")[0] for name in masks} <= set(blobs.ORGANS)
    assert 0 < len(masks) < COUNT * len(blobs.ORGANS)
    assert {name.split("/")[1] for name in masks} <= set(images)
    for name in images:
        opened(root / "images" / name, "L")
    assert all(binary(root / "masks" / name).any() for name in masks)


def test_table_pairs_other_names_and_groups_people(written):
    root, _ = written["table"]
    table = rows(root / "my.csv")
    assert len(table) == COUNT
    assert list(table[0]) == ["image", "mask", "group", "stratum"]
    assert {row["image"] for row in table} == set(names(root, "pictures/*.jpg"))
    assert {row["mask"] for row in table} == set(names(root, "outlines/*.png"))
    assert 2 <= max(sum(row["group"] == other["group"] for row in table) for other in table) <= 3
    assert all(len({row["stratum"] for row in table if row["group"] == other["group"]}) == 1 for other in table)
    assert all(binary(root / row["mask"]).any() for row in table)


def test_instances(written):
    root, about = written["instances"]
    folders = sorted((root / "stage1_train").iterdir())
    assert len(folders) == COUNT
    for folder in folders:
        opened(folder / "images" / f"{folder.name}.png", "RGB")
        cells = [binary(path) for path in (folder / "masks").iterdir()]
        assert len(cells) >= 1
        assert np.sum(cells, axis=0).max() == 1  # none overlap
    ids = {row["ImageId"] for row in rows(root / "stage1_sample_submission.csv")}
    assert ids == {path.name for path in (root / "stage1_test").iterdir()}
    assert all(list((root / ".answers" / mask).iterdir()) for mask in about["answers"].values())
    assert not list((root / "stage1_test").glob("*/masks"))


def test_slices(written):
    root, _ = written["slices"]
    masks = names(root / "masks", "*.png")
    assert len(masks) == COUNT
    assert names(root / "images", "*") == sorted(f"{name[:-4]}_{z}.png" for name in masks for z in range(5))
    for name in masks:
        assert binary(root / "masks" / name).mean() > 0.01
        stack = [opened(root / "images" / f"{name[:-4]}_{z}.png", "I;16").astype(float) for z in range(5)]
        near, far = np.abs(stack[2] - stack[1]).mean(), np.abs(stack[4] - stack[0]).mean()
        assert near < far  # slices change smoothly
    assert len(names(root, "test/images/*.png")) == 5 * TEST_COUNT


DRAWN = {
    "nails": lambda seed, number: hands.nails(seed, number, "cluttered"),
    "screen": screens.screen,
    "land": blobs.land,
    "organs": lambda seed, number: blobs.organs(seed, number, 5),
    "cells": blobs.cells,
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_depends_on_seed_and_number_and_on_nothing_else(name):
    first, again, other, another = (DRAWN[name](*key)[0] for key in ((1, 2), (1, 2), (2, 2), (1, 3)))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, another)


def test_the_same_seed_writes_the_same_bytes_and_another_other_pictures(written, tmp_path):
    for layout in ("rle_classes", "table"):
        root, _ = written[layout]
        rendered_layouts.write(layout, tmp_path / layout, 42, COUNT, TEST_COUNT)
        files = [path for path in sorted(root.rglob("*")) if path.is_file()]
        assert len(files) > COUNT
        for path in files:
            assert path.read_bytes() == (tmp_path / layout / path.relative_to(root)).read_bytes(), path
    rendered_layouts.write("rle_classes", tmp_path / "rle_classes", 43, 1, 1)  # ours is replaced
    name = "train/case12_slice_0001.png"
    assert not np.array_equal(pixels(tmp_path / "rle_classes" / name), pixels(written["rle_classes"][0] / name))
    assert len(names(tmp_path / "rle_classes" / "train", "*")) == 1


@pytest.mark.parametrize("layout", rendered_layouts.LAYOUTS)
def test_no_two_pictures_are_alike_test_ones_included(written, layout):
    root, about = written[layout]
    images = {image.replace("{z}", "2") for image in about["answers"]}
    hidden = [pixels(root / image) for image in images]
    folders = {
        "split": "train/images",
        "rle": "train_images",
        "ui": "train",
        "rle_classes": "train",
        "table": "pictures",
        "coco": "train",
    }
    train = [path for path in (root / folders.get(layout, "images")).rglob("*.*") if "_mask" not in path.name]
    train = [path for path in train if path.suffix != ".json"]
    train = list((root / "stage1_train").glob("*/images/*")) if layout == "instances" else train
    assert len(train) >= 3
    whole = hidden + [pixels(path) for path in train]
    for number, one in enumerate(whole):
        assert not any(np.array_equal(one, other) for other in whole[:number])


def test_organs_overlap_and_are_not_on_every_slice():
    shown = [blobs.organs(42, patient, level)[1] for patient in range(4) for level in (0, 3, 5, 7)]
    assert any((masks["liver"] & masks["tumour"]).any() for masks in shown)
    assert any((masks["tumour"] & (1 - masks["liver"])).any() for masks in shown)
    counts = {sum(bool(mask.any()) for mask in masks.values()) for masks in shown}
    assert {0, 3} <= counts
    assert len(counts) > 2


def test_pictures_of_a_person_share_the_polish():
    def tint(number, person):
        picture, mask = hands.nails(42, number, "polished", person)
        color = np.median(picture[mask > 0], axis=0)
        return color / color.sum()

    people = [[tint(number, person) for number in (0, 1)] for person in (0, 3)]
    within = max(np.abs(first - second).sum() for first, second in people)
    assert within < 0.12 < np.abs(people[0][0] - people[1][0]).sum()


def test_refusals(tmp_path):
    with pytest.raises(UserError, match="LAYOUT=folder: expected one of folders, split"):
        rendered_layouts.write("folder", tmp_path / "new")
    with pytest.raises(UserError, match="at least one"):
        rendered_layouts.write("folders", tmp_path / "new", 42, -1, 2)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match="not the demo's; nothing was written"):
        rendered_layouts.write("folders", tmp_path / "mine")
    assert names(tmp_path, "**/*") == ["mine", "mine/photo.jpg"]


def test_nothing_is_left_where_rendering_breaks_off(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(screens, "screen", broken)
    with pytest.raises(OSError, match="No space"):
        rendered_layouts.write("ui", tmp_path / "new", 42, 2, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layout", ["coco", "yolo", "labelme"])
def test_annotations_are_of_cells_and_rings_with_holes(written, layout):
    root, about = written[layout]
    found = layouts.find(layouts.Wanted(str(root)))
    assert (found.layout, found.classes) == (layout, ("cell", "ring"))
    assert {pair.kfold for pair in found.pairs} == ({None} if layout == "labelme" else {0, 1})
    for pair in found.pairs:
        picture = pixels(root / pair.image).astype(int).sum(-1)
        shown = annotations.objects(root, MaskReference.parse(pair.mask), picture.shape) if pair.mask else []
        for kind, mask in shown:
            filled = ndimage.binary_fill_holes(mask)
            assert (filled.sum() > mask.sum()) == (kind == "ring")
            assert picture[mask > 0].mean() > 2 * picture[(filled > 0) & (mask == 0)].mean() or kind == "cell"
    assert any(about["answers"].values())
