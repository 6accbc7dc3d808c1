"""CLASSES merges, renames and drops classes, whatever their masks are drawn in; through training to the submission."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import folds
import inference
import submission
import tester
import train
from conftest import TINY, write_mask
from data import dataspec
from formats import rle
from metrics import objects
from scoring import pseudo_labels

ROOT = Path("input/x")
RUN = ["DATASET=x", "N_FOLDS=2"]
NAMES = ("background", "car", "truck", "road", "sky")
COLORS = np.array([[0, 0, 0], [200, 0, 0], [0, 200, 0], [0, 0, 200], [200, 200, 0]], np.uint8)


def labels(number: int) -> np.ndarray:
    found = np.zeros((40, 48), np.uint8)
    for value in (4, 3, 2, 1):
        top, left = np.random.default_rng(10 * number + value).integers(0, 26, 2)
        found[top : top + 12, left : left + 14] = value
    return found


def write(kind: str, count: int = 6) -> None:
    rows = []
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 60, (40, 48, 3))
        save("images", number, (COLORS[labels(number)] // 2 + noise).astype(np.uint8))
        if kind in ("values", "named"):
            save("masks", number, labels(number))
        elif kind == "colors":
            save("masks", number, COLORS[labels(number)])
        for value, name in enumerate(NAMES[1:], 1):
            plane = (labels(number) == value).astype(np.uint8)
            if kind == "files":
                write_mask(ROOT / "masks" / name / f"{number}.png", plane)
            rows.append((f"{number}", name, rle.encode(plane, "C")))
    if kind == "runs":
        write_table("train.csv", ("id", "class", "segmentation"), rows)
    if kind == "named":
        write_table("classes.csv", ("name", "value"), [(name, value) for value, name in enumerate(NAMES)])
    if kind == "colors":
        named = [(name, *color) for name, color in zip(NAMES, COLORS.tolist(), strict=True)]
        write_table("classes.csv", ("name", "r", "g", "b"), named)


def save(folder: str, number: int, array: np.ndarray) -> None:
    (ROOT / folder).mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(ROOT / folder / f"{number}.png")


def write_table(name: str, header: tuple, rows: list) -> None:
    with (ROOT / name).open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def made() -> tuple[dataspec.DataSpec, pd.DataFrame]:
    frame = pd.read_csv("output/x/train_folds.csv", keep_default_na=False)
    return dataspec.read(Path("output/x/train_folds.json")), frame


@pytest.mark.parametrize("kind", ["values", "named", "colors", "files", "runs"])
def test_classes_are_merged_renamed_and_dropped(workplace, capsys, kind):
    write(kind)
    typed = "vehicle=car+truck, way=road" if kind != "values" else "vehicle=class1+class2, way=class3"
    assert folds.main([*RUN, f"CLASSES={typed}"]) == 0
    out = capsys.readouterr().out
    assert f"vehicle is {'class1 + class2' if kind == 'values' else 'car + truck'}; way is " in out
    spec, frame = made()
    assert spec.scored_names == ("vehicle", "way")
    assert spec.task == ("multilabel" if kind in ("files", "runs") else "multiclass")
    for image, reference in zip(frame["image"], frame["mask"], strict=True):
        truth = labels(int(Path(image).stem))
        planes = spec.class_planes(spec.read_pair(ROOT, image, reference)[1])
        assert (planes[0] == np.isin(truth, (1, 2))).all()
        assert (planes[1] == (truth == 3)).all()
        found = objects.read(spec, ROOT, reference, truth.shape)
        assert ((found > 0) == planes).all()
        mask = spec.read_mask(ROOT, reference, truth.shape)
        again = pseudo_labels.write(ROOT, "pseudo", image, mask, spec)  # reads it back and compares
        assert (spec.read_mask(ROOT, again, truth.shape) == mask).all()
    assert set(spec.scored_sources) == (
        {"class1", "class2", "class3"} if kind == "values" else {"car", "truck", "road"}
    )
    assert dataspec.from_json(spec.as_json(), "") == spec
    about = json.loads(Path("output/x/train_folds.json").read_text())
    assert about["balance"][0]["vehicle"] == 3


def test_what_is_not_listed_is_not_labeled_where_there_is_no_background(workplace):
    write("named")
    rows = [(name, value) for value, name in enumerate(("grass", *NAMES[1:]))]
    write_table("classes.csv", ("name", "value"), rows)
    assert folds.main([*RUN, "CLASSES=road, vehicle=car+truck"]) == 0
    spec = made()[0]
    assert spec.classes == ("road", "vehicle")
    mask = spec.read_pair(ROOT, "images/1.png", "masks/1.png")[1]
    assert (spec.labeled(mask) == np.isin(labels(1), (1, 2, 3))).all()
    assert (pseudo_labels.write(ROOT, "pseudo", "images/1.png", mask, spec)) == "pseudo/images/1.png"
    assert folds.main([*RUN, "CLASSES=background=grass+sky,ignore=road,vehicle=car+truck", "OVERWRITE=1"]) == 0
    spec = made()[0]
    assert spec.classes == ("background", "vehicle")
    mask = spec.read_pair(ROOT, "images/1.png", "masks/1.png")[1][0]
    assert (mask == np.array([0, 1, 1, 255, 0])[labels(1)]).all()


@pytest.mark.parametrize(
    ("kind", "task"), [("named", "binary"), ("colors", "binary"), ("files", "auto"), ("runs", "binary")]
)
def test_one_class_against_the_rest_is_binary(workplace, kind, task):
    write(kind)
    assert folds.main([*RUN, "CLASSES=vehicle=car+truck", f"TASK={task}"]) == 0
    spec, frame = made()
    assert (spec.task, spec.classes) == ("binary", ("vehicle",))
    for image, reference in zip(frame["image"], frame["mask"], strict=True):
        truth = np.isin(labels(int(Path(image).stem)), (1, 2))
        mask = spec.read_pair(ROOT, image, reference)[1]
        assert (mask[0] == truth).all()
        again = pseudo_labels.write(ROOT, "pseudo", image, mask, spec)
        assert (spec.read_mask(ROOT, again, truth.shape) == mask).all()


@pytest.mark.parametrize(("classes", "words"), [
    ("vehicle=car+trukc", ["no class trukc", "Did you mean truck?", "background, car, truck, road, sky"]),
    ("vehicle=car+, road", ["a name is missing in 'vehicle=car+'"]),
    ("a=car, a=truck", ["a comes twice"]),
    ("a=car, b=car+truck", ["car comes twice"]),
    ("background=car", ["nothing is left"]),
    ("car, truck TASK=binary", ["TASK=binary", "leaves car, truck"]),
    ("car, ignore=sky TASK=binary", ["foreground or not"]),
    ("car, void=sky TASK=multilabel", ["only where each pixel has one class"]),
])  # fmt: skip
def test_classes_that_cannot_be_are_a_sentence(workplace, refused, classes, words):
    write("named")
    typed, _, task = f"CLASSES={classes}".partition(" TASK=")
    refused(folds.main, [*RUN, typed, f"TASK={task or 'auto'}"], *words)
    assert not Path("output").exists()


def test_merged_classes_go_all_the_way(workplace, refused):
    write("named", 8)
    for number in (0, 1):
        save("test/images", number, np.asarray(Image.open(ROOT / f"images/{number}.png")))
    ids = [("0", "vehicle"), ("0", "way"), ("1", "vehicle"), ("1", "way")]
    write_table("sample_submission.csv", ("id", "class", "predicted"), [(*key, "") for key in ids])
    common = [argument for argument in TINY if not argument.startswith(("DATASET", "EPOCHS", "AUGMENT"))]
    common += ["DATASET=x", "EPOCHS=1", "AUGMENT=turns", "DIALECT=uwmgi", "CLASSES=vehicle=car+truck, way=road"]
    assert folds.main(common) == 0
    refused(
        train.main, [*common, "CLASSES=vehicle=car", "FOLD=0"], "CLASSES=vehicle=car, but", "background, vehicle, way"
    )
    for main in (train.main, tester.main, inference.main, submission.main):
        assert main([*common, "FOLD=0"]) == 0
    rows = pd.read_csv("output/x/submission.csv", dtype=str)
    assert list(zip(rows["id"], rows["class"], strict=True)) == ids
    scores = pd.read_csv("lightning_logs/x/fold0_seed42/val/scores.csv", dtype={"image": str})
    assert set(scores["class"]) == {"vehicle", "way"}
    row = scores.iloc[0]
    values = (1, 2) if row["class"] == "vehicle" else (3,)
    assert row["tp"] + row["fn"] == np.isin(labels(int(Path(row["image"]).stem)), values).sum()
    model = json.loads(Path("lightning_logs/x/fold0_seed42/model.json").read_text())
    assert model["data"]["merged"][1] == ["car", 1]
