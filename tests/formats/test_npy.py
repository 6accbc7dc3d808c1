"""NumPy's arrays as images, class maps, stacks of objects and contrails' bands; pickles and DICOM are refused."""

import json
import pickle
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import folds
from data import dataspec, images_to_predict
from formats import decode, rle
from metrics import objects
from prediction import submission_file

ROOT = Path("input/x")
RUN = ["DATASET=x", "N_FOLDS=2"]
SIZE = (40, 60)


def blob(seed):
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    top, left = np.random.default_rng(seed).integers(12, 28, 2)
    return (y - top) ** 2 + (x - left) ** 2 <= 64


def save(name, array):
    path = ROOT / name
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array) if path.suffix == ".npy" else Image.fromarray(array).save(path)


def noise(seed, *more):
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, *more)).astype(np.uint8)


def made():
    frame = pd.read_csv("output/x/train_folds.csv", keep_default_na=False)
    return dataspec.read(Path("output/x/train_folds.json")), frame


@pytest.mark.parametrize("mask", [
    lambda one: one, lambda one: one.astype(np.float64), lambda one: one.astype(np.int64)[..., None],
    lambda one: np.asfortranarray(one[None] * np.int32(1)), lambda one: one.astype(">u2") * 255,
    lambda one: np.stack([one, np.roll(one, 8, 1)]),
    lambda one: np.stack([one, np.roll(one, 8, 1), one * False]),
    lambda one: np.stack([one, np.roll(one, 8, 1)], -1),
], ids=["bool", "float", "(H, W, 1)", "(1, H, W)", "big-endian", "two objects", "three", "objects last"])  # fmt: skip
def test_masks_as_arrays(workplace, mask):
    for number in range(4):
        save(f"images/{number}.png", noise(number, 3))
        save(f"masks/{number}.npy", mask(blob(number)))
    assert folds.main(RUN) == 0
    spec, _ = made()
    two = mask(blob(0)).ndim == 3 and 1 not in mask(blob(0)).shape
    truth = blob(0) | np.roll(blob(0), 8, 1) if two else blob(0)
    assert spec.task == "binary"
    assert (spec.read_pair(ROOT, "images/0.png", "masks/0.npy")[1][0] == truth).all()
    found = objects.read(spec, ROOT, "masks/0.npy", SIZE)[0]
    assert found.max() == (2 if two else 1)
    assert ((found > 0) == truth).all()


def test_planes_apart_as_many_in_each_file_are_asked_about_and_both_lines_work(workplace, refused):
    for number in range(4):
        save(f"images/{number}.png", noise(number, 3))
        save(f"masks/{number}.npy", np.stack([blob(number), other_of(number)], -1))
    said = refused(folds.main, RUN, "each of the 4 masks has 2 planes")
    for line, planes in zip(said.splitlines()[1:3], (1, 2), strict=True):
        before, _, constants = line.partition(": ")[2].rpartition("make folds ")
        subprocess.run(["bash", "-c", f"{before.replace('python', sys.executable, 1)} true"], check=True)
        assert folds.main([*shlex.split(constants), "N_FOLDS=2", "OVERWRITE=1"]) == 0
        spec, frame = made()
        mask = spec.read_mask(ROOT, frame["mask"][0], SIZE)
        assert ((mask[0] == 1) == (blob(0) if planes == 2 else blob(0) | other_of(0))).all()
        assert (spec.task, int(mask.max())) == (("binary", 1), ("multiclass", 2))[planes - 1]


def other_of(seed):
    return np.pad(np.ones((6, 60), bool), ((34, 0), (0, 0))) & ~blob(seed)


@pytest.mark.parametrize(("image", "channels", "expected"), [
    (noise, 3, lambda seed: np.repeat(noise(seed)[..., None], 3, 2)),
    (lambda seed: noise(seed, 3), 3, lambda seed: noise(seed, 3)),
    (lambda seed: np.moveaxis(noise(seed, 3), 2, 0), 3, lambda seed: noise(seed, 3)),
    (lambda seed: noise(seed, 5), 5, lambda seed: noise(seed, 5)),
    (lambda seed: np.moveaxis(noise(seed, 5), 2, 0), 5, lambda seed: noise(seed, 5)),
])  # fmt: skip
def test_images_and_class_maps_as_arrays(workplace, image, channels, expected):
    for number in range(4):
        save(f"images/{number}.npy", image(number))
        save(f"masks/{number}.npy", (blob(number) + 2 * (blob(number + 9) & ~blob(number))).astype(np.int64))
    assert folds.main([*RUN, f"IN_CHANNELS={channels}"]) == 0
    spec, _ = made()
    assert (spec.task, spec.values) == ("multiclass", (0, 1, 2))
    pixels, mask = spec.read_pair(ROOT, "images/1.npy", "masks/1.npy")
    assert (pixels == expected(1)).all()
    assert (mask[0] == blob(1) + 2 * (blob(10) & ~blob(1))).all()
    assert decode.size_of(ROOT / "images/1.npy", 10**6) == SIZE


def test_the_axis_that_is_no_side_of_the_image_is_that_of_objects(workplace):
    for name, shape in (("many", (50, 30, 30)), ("last", (30, 30, 50)), ("few", (3, 30, 40)), ("colors", (30, 40, 3))):
        save(f"{name}.npy", np.zeros(shape, bool))
        assert decode.size_of(ROOT / f"{name}.npy", 10**6) == ((30, 30) if 50 in shape else (30, 40))


def test_arrays_beside_images_are_no_images(workplace):
    for number in range(4):
        save(f"images/{number}.png", noise(number, 3))
        save(f"images/{number}.npy", np.zeros(7))
        save(f"masks/{number}.png", blob(number).astype(np.uint8) * 255)
    assert folds.main(RUN) == 0
    assert made()[1]["image"].tolist() == [f"images/{number}.png" for number in range(4)]


@pytest.mark.parametrize(("content", "words"), [
    (np.array([[{}, 1]], object), ["pickled objects, which could run a program"]),
    (np.zeros((4, 4), "U3"), ["values of the type <U3"]),
    (np.full(SIZE, 0.5), ["floats with fractions, from 0.5 to 0.5", "(values * 255)"]),
    (np.full(SIZE, np.nan), ["values from nan to nan"]),
    (np.full(SIZE, -1), ["values from -1 to -1"]),
    (np.zeros(9), ["an array of the shape (9,)"]),
    (np.zeros((2, 3, 4, 5)), ["an array of the shape (2, 3, 4, 5)"]),
    (np.zeros((2, *SIZE[::-1]), bool), ["40 x 60 pixels, but its image"]),
    (pickle.dumps({}), ["not an image"]),
    (b"\x93NUMPY\x01\x00", ["broken or cut off"]),
    (b"\x00" * 128 + b"DICM" + b"\x00" * 99, ["DICOM, which is not read", "pip install pydicom", "python -c"]),
])  # fmt: skip
def test_what_is_no_mask_is_a_sentence(workplace, refused, content, words):
    for number in range(2):
        save(f"images/{number}.png", noise(number, 3))
        save(f"masks/{number}.npy", blob(number))
    path = ROOT / "masks/1.npy"
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content, allow_pickle=True)
    refused(folds.main, RUN, "1.npy", *words)
    path.write_bytes(path.read_bytes()[:-1])
    refused(folds.main, RUN, "1.npy")
    assert not Path("output").exists()


def test_a_folder_of_dicom_says_how_to_convert_it(workplace, refused):
    (ROOT / "train/case").mkdir(parents=True)
    (ROOT / "train/case/a.dcm").write_bytes(b"\x00" * 128 + b"DICM")
    refused(folds.main, RUN, "a.dcm: DICOM", "pathlib.Path('input/x')")


def record(folder, number, mask=True):
    random = np.random.default_rng(number)
    for band in range(8, 17):
        save(f"{folder}/{number}/band_{band:02d}.npy", random.uniform(200, 310, (32, 32, 8)).astype(np.float32))
    if mask:
        drawn = np.zeros((32, 32, 1), np.int32)
        drawn[4 + number : 9 + number, 3:20] = 1
        save(f"{folder}/{number}/human_pixel_masks.npy", drawn)
        save(f"{folder}/{number}/human_individual_masks.npy", np.repeat(drawn[..., None], 4, 3))


def test_contrails_records(workplace, capsys):
    for number in range(6):
        record("train" if number < 4 else "validation", number)
    record("test", 9, mask=False)
    (ROOT / "sample_submission.csv").write_text("record_id,encoded_pixels\n9,1 1\n")
    (ROOT / "train_metadata.json").write_text(json.dumps([{"record_id": "1", "row_min": 0.5}]))
    assert folds.main(RUN) == 0
    out = capsys.readouterr().out
    assert "records of 9 bands, as of Google's contrails" in out
    assert "Submission: record_id,encoded_pixels" in out
    spec, frame = made()
    assert (spec.channels, spec.bits, spec.stacked, spec.task) == (9, 16, True, "binary")
    assert frame["kfold"].tolist() == [1, 1, 1, 1, 0, 0]
    levels = decode.decode(ROOT / "train/2/band_11.npy", 10**6).values[..., 0]
    assert (levels == np.round(np.load(ROOT / "train/2/band_11.npy")[..., 4].astype(float) * 100)).all()
    picture, mask = spec.read_pair(ROOT, "train/2/band_{z}.npy", "train/2/human_pixel_masks.npy")
    assert picture.shape == (32, 32, 9)
    assert mask.sum() == 5 * 17
    _, names = images_to_predict.test_names(str(ROOT), "", stacked=True)
    assert submission_file.image_ids(names, rle.DIALECTS["contrails"]) == {"9": "9/band_{z}.npy"}
