"""Several classes, one or many to a pixel, and other channels, through the whole path; what does not fit is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import folds
import inference
import preview
import submission
import tester
import train
from conftest import NUCLEI, TINY, write_mask
from data import dataspec, level_statistics
from formats import rle
from metrics import overlap
from prediction import postprocess
from prediction.postprocess import Rule
from tools.errors import UserError

COMMON = [argument for argument in TINY if not argument.startswith(("DATASET", "EPOCHS", "AUGMENT"))]
COMMON += ["DATASET=x", "EPOCHS=1", "AUGMENT=turns", "DIALECT=uwmgi", "FOLD=0"]
ROOT, RUN = Path("input/x"), Path("lightning_logs/x/fold0_seed42")
COLORS = np.array([[90, 90, 90], [200, 60, 60], [60, 60, 200]])


def scene(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture (40, 48, 3) and its class map: 0, two rectangles of 1 and 2, and a strip that nobody labeled."""
    random, labels = np.random.default_rng(number), np.zeros((40, 48), np.uint8)
    for value in (1, 2):
        top, left = random.integers(0, 24, 2)
        labels[top : top + 14, left : left + 16] = value
    picture = (COLORS[labels] + random.integers(-40, 40, (40, 48, 3))).clip(0, 255).astype(np.uint8)
    labels[:, 44:] = 255
    return picture, labels


def write(count: int = 8, tests: int = 2, picture_of=lambda picture: picture) -> None:
    for number in range(count + tests):
        picture, labels = scene(number)
        folder = ROOT / "images" if number < count else ROOT / "test/images"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture_of(picture)).save(folder / f"p{number}.png")
        if number < count:
            (ROOT / "masks").mkdir(exist_ok=True)
            Image.fromarray(labels).save(ROOT / "masks" / f"p{number}.png")


def write_planes(count: int = 8, tests: int = 2) -> None:
    """One file a class; `near` overlaps both, and is left out of every third image."""
    write(count, tests)
    for number in range(count):
        _, labels = scene(number)
        for value, name in ((1, "red"), (2, "blue")):
            write_mask(ROOT / "masks" / name / f"p{number}.png", labels == value)
        if number % 3:
            write_mask(ROOT / "masks" / "near" / f"p{number}.png", (labels == 1) | (labels == 2))
        (ROOT / "masks" / f"p{number}.png").unlink()


def run_all() -> None:
    for main in (folds.main, train.main, tester.main, inference.main, submission.main):
        arguments = COMMON if main is not folds.main else COMMON[:-1]
        assert main(arguments) == 0, main.__module__


def p8_of(folder: Path, image: str, names: list[str]) -> np.ndarray:
    place = folder / Path(image).with_suffix("")
    return np.stack([np.asarray(Image.open(place / f"{name}.png")) for name in names])


def check_scores(names: list[str], scored: list[str], truth_of, predict) -> None:
    """scores.csv and summary.json against counts from the files themselves."""
    scores = pd.read_csv(RUN / "val/scores.csv", dtype={"image": str})
    summary = json.loads((RUN / "val/summary.json").read_text())
    assert set(zip(scores["image"], scores["class"], strict=True)) == {
        (image, name) for image in set(scores["image"]) for name in scored
    }
    for row in scores.itertuples():
        truth, labeled = truth_of(row.image, row._2)
        predicted = predict(p8_of(RUN / "val", row.image, names), names.index(row._2))
        assert row.tp == (predicted & truth & labeled).sum()
        assert row.fp == (predicted & ~truth & labeled).sum()
        assert row.fn == (~predicted & truth & labeled).sum()
        assert row.tp + row.fp + row.fn + row.tn == labeled.sum()
        assert 0 <= row.ceiling_tp <= (truth & labeled).sum()
    by_class = scores.groupby("class")["dice"].mean()
    assert summary["model"]["image"]["dice"] == pytest.approx(by_class.mean(), abs=1e-5)
    for name in scored:
        assert summary["classes"][name]["image"]["dice"] == pytest.approx(by_class[name], abs=1e-5)
    assert summary["ceiling"]["image"]["dice"] > 0.8 > summary["constant"]["image"]["dice"]


def check_submission(names: list[str], scored: list[str], predict) -> None:
    rows = pd.read_csv("output/x/submission.csv", dtype=str, keep_default_na=False)
    assert list(rows.columns) == ["id", "class", "predicted"]
    assert set(zip(rows["id"], rows["class"], strict=True)) == {(i, name) for i in ("p8", "p9") for name in scored}
    for image_id, name, text in rows.itertuples(index=False):
        p8 = p8_of(Path("output/x/predictions/x_fold0_seed42"), f"{image_id}.png", names)
        np.testing.assert_array_equal(rle.decode(text, (40, 48), "C"), predict(p8, names.index(name)))


def test_one_class_a_pixel_goes_all_the_way(workplace, capsys):
    write()
    (ROOT / "classes.csv").write_text("name,value\nbackground,0\nred,1\nblue,2\n")
    run_all()
    said = capsys.readouterr().out
    assert "Task: multiclass, 3 classes (background, red, blue); pixels of 255 are not labeled" in said
    names, scored = ["background", "red", "blue"], ["red", "blue"]

    def truth_of(image, name):
        labels = scene(int(Path(image).stem[1:]))[1]
        return labels == names.index(name), labels != 255

    def predict(p8, index):
        return p8.argmax(0) == index

    check_scores(names, scored, truth_of, predict)
    check_submission(names, scored, predict)
    p8 = p8_of(RUN / "val", pd.read_csv(RUN / "val/scores.csv")["image"][0], names)
    assert np.abs(p8.astype(int).sum(0) - 255).max() <= 3  # a softmax, rounded
    assert json.loads(Path("output/x/train_folds.json").read_text())["balance"][0].keys() >= {"red", "blue"}
    curves = pd.read_csv(RUN / "metrics.csv")
    assert curves[["valid_dice_red", "valid_dice_blue"]].mean(axis=1).dropna().iloc[-1] == pytest.approx(
        curves["valid_dice"].dropna().iloc[-1], abs=1e-5
    )
    assert preview.main(COMMON[:-1]) == 0
    for picture in ("output/x/samples.png", RUN / "val/worst.png", "output/x/predictions/x_fold0_seed42.png"):
        assert Image.open(picture).size[0] > 500


def test_out_of_fold_scores_of_several_classes(workplace, capsys):
    write()
    assert folds.main(COMMON[:-1]) == 0
    for fold in "01":
        assert train.main([*COMMON[:-1], f"FOLD={fold}"]) == 0
        assert tester.main([*COMMON[:-1], f"FOLD={fold}"]) == 0
    assert tester.main([*COMMON[:-1], "OOF=1"]) == 0
    assert "class by class" in capsys.readouterr().out
    place = Path("lightning_logs/x/oof_seed42")
    scores, summary = pd.read_csv(place / "scores.csv"), json.loads((place / "summary.json").read_text())
    assert len(scores) == 8 * 2 and not scores.duplicated(["image", "class"]).any()
    assert summary["model"]["image"]["dice"] == pytest.approx(scores["dice"].mean(), abs=1e-5)
    path = Path("lightning_logs/x/fold1_seed42/val/scores.csv")
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")  # one class of one image is lost
    assert tester.main([*COMMON[:-1], "OOF=1"]) == 2
    assert "lack a class's row" in capsys.readouterr().err


def test_classes_that_overlap_go_all_the_way(workplace, capsys):
    write_planes()
    run_all()
    assert "Task: multilabel, 3 classes (blue, near, red)" in capsys.readouterr().out
    names = ["blue", "near", "red"]

    def truth_of(image, name):
        number = int(Path(image).stem[1:])
        labels = scene(number)[1]
        truth = {"red": labels == 1, "blue": labels == 2, "near": ((labels == 1) | (labels == 2)) & bool(number % 3)}
        return truth[name], np.ones((40, 48), bool)

    def predict(p8, index):
        return p8[index] >= 128

    check_scores(names, names, truth_of, predict)
    check_submission(names, names, predict)
    assert tester.main([*COMMON[:-1], "FOLD=0", "THRESHOLD=0.3"]) == 0
    frame = pd.read_csv("output/x/train_folds.csv")
    assert frame["mask"][0] == "masks/{class}/p0.png"


def test_class_maps_as_values_palettes_colors_and_planes_are_the_same_masks(workplace):
    """One set of masks, written in four ways, is read as one; binary and multilabel views of it agree too."""
    write(count=4)
    colors = {"background": (0, 0, 0), "red": (255, 0, 0), "blue": (0, 0, 255), "void": (9, 9, 9)}
    for number in range(4):
        labels = scene(number)[1]
        indexed = Image.fromarray(labels).convert("P")
        indexed.putdata(labels.ravel().tolist())
        indexed.putpalette([10, 200, 30, 200, 10, 30, 30, 10, 200] + [77] * 759)
        table = np.array([*colors.values()], np.uint8)
        rgb = table[np.where(labels == 255, 3, labels)]
        for folder, image in (("palette", indexed), ("color", Image.fromarray(rgb))):
            Path(folder, "masks").mkdir(parents=True, exist_ok=True)
            image.save(Path(folder, "masks", f"p{number}.png"))
    for folder in ("palette", "color"):
        shutil.copytree(ROOT / "images", Path(folder, "images"))
    lines = [f"{name},{r},{g},{b}" for name, (r, g, b) in colors.items()]
    Path("color/classes.csv").write_text("\n".join(["name,r,g,b", *lines]))
    read = {}
    for folder in (ROOT, Path("palette"), Path("color")):
        assert folds.main(["DATASET=x", "N_FOLDS=2", f"INPUT={folder}", f"OUTPUT=out/{folder.name}"]) == 0
        spec = dataspec.read(Path(f"out/{folder.name}/train_folds.json"))
        assert spec.task == "multiclass" and len(spec.classes) == 3
        read[folder.name] = [spec.read_mask(folder, f"masks/p{n}.png", (40, 48)) for n in range(4)]
        for number in range(4):
            np.testing.assert_array_equal(read[folder.name][number][0], scene(number)[1])
    assert folds.main(["DATASET=x", "N_FOLDS=2", "TASK=multilabel", "OUTPUT=out/planes"]) == 0
    spec = dataspec.read(Path("out/planes/train_folds.json"))
    assert spec.classes == ("class1", "class2")
    planes = spec.read_mask(ROOT, "masks/p2.png", (40, 48))
    np.testing.assert_array_equal(planes, np.stack([scene(2)[1] == 1, scene(2)[1] == 2]))


@pytest.mark.parametrize("task, masks, classes, words", [
    ("auto", {"a": [0, 1, 2], "b": [0, 3]}, "", ["multiclass, 4 classes (background, class1, class2, class3)"]),
    ("auto", {"a": [0, 255], "b": [0, 1]}, "", ["Task: binary"]),
    ("auto", {"a": [0, 1, 255], "b": [0]}, "", ["multiclass, 2 classes (background, class1); pixels of 255"]),
    ("multiclass", {"a": [3, 200], "b": [3]}, "", ["multiclass, 2 classes (class3, class200)"]),
    ("multilabel", {"a": [0, 3, 200], "b": [3]}, "", ["multilabel, 2 classes (class3, class200)"]),
    ("auto", {"a": [0, 1], "b": [1, 2]}, "name,value\na,0\nb,1\nc,2\nd,3",
     ["4 classes (a, b, c, d)", "No mask shows d"]),
])  # fmt: skip
def test_the_task_is_told_by_the_masks(task, masks, classes, words, workplace, capsys):
    small(masks, classes)
    assert folds.main(["DATASET=x", "N_FOLDS=2", f"TASK={task}"]) == 0
    said = capsys.readouterr().out
    for word in words:
        assert word in said


def small(masks: dict, classes: str = "") -> None:
    """Pictures of 8 x 8 noise with masks in which these values occur."""
    for number, (name, values) in enumerate(masks.items()):
        (ROOT / "images").mkdir(parents=True, exist_ok=True)
        (ROOT / "masks").mkdir(exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(noise).save(ROOT / "images" / f"{name}.png")
        Image.fromarray(np.resize(np.array(values, np.uint8), (8, 8))).save(ROOT / "masks" / f"{name}.png")
    if classes:
        (ROOT / "classes.csv").write_text(classes)


@pytest.mark.parametrize("arguments, masks, classes, words", [
    ([], {"a": list(range(0, 250, 5)), "b": [0]}, "", ["grays without two clear levels", "MASK_THRESHOLD="]),
    ([], {"a": [0, 1], "b": [0, 7]}, "name,value\nx,0\ny,1\nz,2", ["b.png holds the value 7", "x=0, y=1, z=2"]),
    (["TASK=binary"], {"a": [0, 1], "b": [0]}, "name,value\nx,0\ny,1", ["TASK=binary", "x, y"]),
    (["TASK=multiclass", "IGNORE=255"], {"a": [0, 255], "b": [0]}, "", ["no value but 0, 255", "IGNORE=-1"]),
    ([], {"a": [0, 1], "b": [0]}, "name;value\nx;0", ["classes.csv", "name,value or name,r,g,b"]),
    ([], {"a": [0, 1], "b": [0]}, "name,value\nx,0\nx,1", ["each name and value once"]),
    ([], {"a": [0, 1], "b": [0]}, "name,value\nx,0\ny,one", ["whole numbers"]),
    ([], {"a": [0, 1], "b": [0]}, "name,value\nx/y,0\nx:y,1", ["differ in their signs only"]),
    (["IN_CHANNELS=5"], {"a": [0, 1], "b": [0]}, "", ["IN_CHANNELS"]),
    (["TASK=multiclas"], {"a": [0, 1], "b": [0]}, "", ["Did you mean multiclass"]),
])  # fmt: skip
def test_masks_that_do_not_fit_are_refused(arguments, masks, classes, words, workplace, refused):
    small(masks, classes)
    refused(folds.main, ["DATASET=x", "N_FOLDS=2", *arguments], *words)
    assert not Path("output").exists()


def test_classes_may_not_overlap_where_a_pixel_has_one(workplace, refused):
    write_planes()
    refused(folds.main, ["DATASET=x", "TASK=multiclass"], "overlap in", "TASK=multilabel")
    refused(folds.main, ["DATASET=x", "TASK=binary"], "3 classes: blue, near, red")


def test_a_dialect_without_a_class_column_is_refused_for_several(workplace, refused):
    write()
    for main in (folds.main, train.main, inference.main):
        assert main(COMMON if main is not folds.main else COMMON[:-1]) == 0
    refused(submission.main, [*COMMON, "DIALECT=tgs"], "no column for a class", "uwmgi")


def test_a_task_that_changed_since_is_refused(workplace, refused):
    write()
    assert folds.main(COMMON[:-1]) == 0
    assert train.main(COMMON) == 0
    assert folds.main([*COMMON[:-1], "TASK=multilabel", "OVERWRITE=1"]) == 0
    refused(tester.main, COMMON, "trained on data of multiclass masks", "Train again")
    refused(train.main, [*COMMON[:-1], "FOLD=1"], "these differ", "data")


@pytest.mark.parametrize("channels, picture_of", [
    (1, lambda picture: picture),
    (4, lambda picture: np.dstack([picture, picture[..., 0] // 2])),
])  # fmt: skip
def test_other_channels_go_all_the_way(channels, picture_of, workplace):
    write(picture_of=picture_of)
    assert folds.main([*COMMON[:-1], f"IN_CHANNELS={channels}"]) == 0
    for main in (train.main, tester.main, inference.main, submission.main):
        assert main(COMMON) == 0
    about = json.loads((RUN / "model.json").read_text())
    assert about["data"]["channels"] == channels == len(about["network"]["MODEL_MEAN"])
    pictures = [
        np.asarray(Image.open(ROOT / "images" / f"p{n}.png").convert("L" if channels == 1 else "RGBA"))
        for n in range(8)
    ]
    measured = np.stack(pictures).reshape(-1, channels) / 255
    assert about["network"]["MODEL_MEAN"] == pytest.approx(measured.mean(0).tolist(), abs=1e-4)
    assert about["network"]["MODEL_STD"] == pytest.approx(measured.std(0).tolist(), abs=1e-4)
    assert preview.main(COMMON[:-1]) == 0


def test_sixteen_bits_and_stacks_go_all_the_way(workplace):
    """Five slices of 16 bits an image, in a narrow range: the window that make folds measures makes them visible."""
    for number in range(10):
        picture, labels = scene(number)
        folder = ROOT / "images" if number < 8 else ROOT / "test/images"
        folder.mkdir(parents=True, exist_ok=True)
        for z in range(5):
            Image.fromarray(picture[..., z % 3].astype(np.uint16) * 4 + 1000).save(folder / f"p{number}_{z}.png")
        if number < 8:
            write_mask(ROOT / "masks" / f"p{number}.png", labels == 1)
    run_all()
    spec = dataspec.read(Path("output/x/train_folds.json"))
    assert (spec.task, spec.channels, spec.bits, spec.stacked) == ("binary", 5, 16, True)
    low, high = spec.window
    assert 1000 <= low < 1250 and 1700 < high <= 2020
    image = spec.read_image(ROOT / "images/p0_{z}.png")
    expected = ((scene(0)[0][..., 0] * 4.0 + 1000 - low) / (high - low)).clip(0, 1) * 255
    assert np.abs(image[..., 3] - expected).max() <= 1
    assert (RUN / "val" / "images").is_dir() and not list((RUN / "val").rglob("*{z}*"))
    assert set(pd.read_csv("output/x/submission.csv")["id"]) == {"p8", "p9"}


def test_likeliest_class_and_specks():
    p8 = np.zeros((3, 4, 6), np.uint8)
    p8[0], p8[1, 0, 0], p8[2, 2:, 2:], p8[1, 2:, 2:] = 100, 101, 130, 120
    masks = postprocess.to_masks(p8, "multiclass", (1, 2), (Rule(),) * 2)
    assert masks.sum((1, 2)).tolist() == [1, 8]
    assert postprocess.to_masks(p8, "multiclass", (1, 2), (Rule(min_area=2),) * 2).sum((1, 2)).tolist() == [0, 8]
    assert postprocess.to_masks(p8, "multilabel", (0, 1, 2), (Rule(0.45),) * 3).sum((1, 2)).tolist() == [0, 8, 8]
    p8[:] = 85
    assert postprocess.to_masks(p8, "multiclass", (0, 1, 2), (Rule(),) * 3).sum((1, 2)).tolist() == [
        24,
        0,
        0,
    ]  # the first one


def test_means_over_classes():
    tp, fp, fn = np.array([[4, 0], [2, 0]]), np.array([[0, 0], [2, 0]]), np.array([[0, 0], [0, 5]])
    summary = overlap.summarize(tp, fp, fn, "one")
    assert summary["image"]["dice"] == pytest.approx(np.mean([(1 + 4 / 6) / 2, (1 + 0) / 2]))
    assert overlap.summarize(tp, fp, fn, "skip")["image"]["dice"] == pytest.approx(np.mean([(1 + 4 / 6) / 2, 0]))
    assert summary["pooled"]["dice"] == pytest.approx(np.mean([12 / 14, 0]))


def test_statistics_are_those_of_the_pixels():
    eight = np.random.default_rng(0).integers(0, 256, (2, 5000))
    histogram = np.stack([np.bincount(row, minlength=256) for row in eight])
    found = level_statistics.measured(dataspec.DataSpec(channels=2), {256: histogram})
    assert found.bits == 8
    assert found.mean == pytest.approx((eight / 255).mean(1).tolist(), abs=1e-5)
    assert found.std == pytest.approx((eight / 255).std(1).tolist(), abs=1e-5)


@pytest.mark.parametrize(
    "change", [{"task": "x"}, {"classes": []}, {"classes": ["a", "a"]}, {"channels": "many"}, {"window": [1]}]
)
def test_a_spec_that_says_something_else_is_refused(change):
    with pytest.raises(UserError, match="make folds"):
        dataspec.from_json({**dataspec.DataSpec().as_json(), **change}, "x.json")
    with pytest.raises(UserError, match="make folds"):
        dataspec.from_json(None, "x.json")


@pytest.mark.slow
@pytest.mark.skipif(not NUCLEI.is_dir(), reason="the nuclei are not here")
def test_the_nuclei_in_three_layouts_are_the_same_data(workplace):
    """As the competition has them, as two folders, and as a table of run lengths: the same folds, masks and scores."""
    shutil.unpack_archive(NUCLEI / "stage1_train.zip", "input/bowl/stage1_train")
    ids = sorted(path.name for path in Path("input/bowl/stage1_train").iterdir())
    spec, rows = dataspec.DataSpec(), ["ImageId,EncodedPixels"]
    for image_id in ids:
        source = Path("input/bowl/stage1_train", image_id)
        picture = Image.open(source / "images" / f"{image_id}.png")
        mask = spec.read_mask(source, "masks", picture.size[::-1])[0]
        write_mask(Path("input/pairs/masks", f"{image_id}.png"), mask)
        rows += [f"{image_id},{text}" for text in rle.encode_objects(mask, "F")]
        for folder in ("input/pairs/images", "input/table/train_images"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(source / "images" / f"{image_id}.png", folder)
    Path("input/table/train.csv").write_text("\n".join(rows) + "\n")
    common, found = [*COMMON[:-4], "FOLD=0", "EPOCHS=1", "AUGMENT=none"], {}
    for name in ("bowl", "pairs", "table"):
        arguments = [*common, f"DATASET={name}"]
        assert folds.main([text for text in arguments if text != "FOLD=0"]) == 0
        frame = pd.read_csv(f"output/{name}/train_folds.csv", keep_default_na=False)
        assert train.main(arguments) == 0
        assert tester.main(arguments) == 0
        scores = pd.read_csv(f"lightning_logs/{name}/fold0_seed42/val/scores.csv", dtype={"image": str})
        found[name] = (
            frame.assign(image=frame["image"].map(lambda text: Path(text).stem))[["image", "stratum", "kfold"]],
            scores.assign(image=scores["image"].map(lambda text: Path(text).stem)).drop(columns="group"),
        )
    for name in ("pairs", "table"):
        pd.testing.assert_frame_equal(found[name][0], found["bowl"][0])
        pd.testing.assert_frame_equal(found[name][1], found["bowl"][1])
