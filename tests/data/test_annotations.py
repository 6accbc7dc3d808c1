"""COCO, YOLO and LabelMe as layouts: splits, holes, parts, objects, classes; what is broken is a sentence."""

import base64
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pycocotools import mask as peer

import folds
from data import dataspec
from formats import polygons
from metrics import objects
from tools.errors import UserError

ROOT = Path("input/x")
RUN = ["DATASET=x", "N_FOLDS=2"]
SIZE = (40, 60)
LEFT, RIGHT = [4, 5, 20, 5, 20, 18, 4, 18], [30, 10, 45, 10, 45, 30, 30, 30]
KEYHOLE = [5, 5, 25, 5, 25, 25, 5, 25, 5, 5, 10, 10, 10, 20, 20, 20, 20, 10, 10, 10]  # a square with a square hole


def image(name: str, seed: int = 0) -> None:
    path = ROOT / name
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng([seed, len(name), *name.encode()])
    Image.fromarray(random.integers(0, 255, (*SIZE, 3)).astype(np.uint8)).save(path)


def text(name: str, content) -> None:
    path = ROOT / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def made() -> tuple[dataspec.DataSpec, pd.DataFrame]:
    frame = pd.read_csv("output/x/train_folds.csv", keep_default_na=False).set_index("image")
    return dataspec.read(Path("output/x/train_folds.json")), frame


def mask_of(name: str) -> dict[str, np.ndarray]:
    spec, frame = made()
    planes = spec.class_planes(spec.read_pair(ROOT, name, frame.loc[name, "mask"])[1])
    return dict(zip(spec.scored_names, planes, strict=True))


def drawn(*rings) -> np.ndarray:
    return peer.decode(peer.merge(peer.frPyObjects([list(map(float, ring)) for ring in rings], *SIZE))) > 0


RLE = np.zeros(SIZE, np.uint8)
RLE[3:30, 10:50] = 1
RLE[10:20, 20:30] = 0  # a hole
PACKED = peer.encode(np.asfortranarray(RLE))
COUNTS = [len(run) for run in "".join(map(str, RLE.ravel(order="F"))).replace("01", "0 1").replace("10", "1 0").split()]


def coco(names: list[str], **changes) -> dict:
    """Four kinds of annotations on the first images; those from the fifth on have none."""
    shown = [
        [(1, [LEFT]), (2, [RIGHT])],
        [(1, [LEFT, RIGHT])],  # two parts of one object
        [(1, {"size": list(SIZE), "counts": PACKED["counts"].decode()})],
        [(2, {"size": list(SIZE), "counts": COUNTS})],
    ]
    found = [
        {"id": 10 * number + part, "image_id": number, "category_id": kind, "segmentation": shape,
         "iscrowd": int(isinstance(shape, dict)), "bbox": [0, 0, 1, 1]}
        for number, own in enumerate(shown[: len(names)]) for part, (kind, shape) in enumerate(own)
    ]  # fmt: skip
    listed = [{"id": number, "file_name": name, "height": 40, "width": 60} for number, name in enumerate(names)]
    kinds = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 9, "name": "never"}]
    return {"images": listed, "annotations": found, "categories": kinds, **changes}


def test_coco_with_polygons_run_lengths_crowds_and_empty_images(workplace, capsys):
    names = [f"{number:012}.png" for number in range(6)]
    for name in names:
        image(f"images/{name}")
    text("annotations/instances_default.json", coco(names))
    assert folds.main(RUN) == 0
    out = capsys.readouterr().out
    assert "COCO annotations in input/x/annotations/instances_default.json: 5 objects of 2 classes" in out
    assert "2 images without an annotation are empty; 2 crowds" in out
    spec, frame = made()
    assert (spec.task, spec.classes) == ("multilabel", ("cat", "dog"))
    assert (mask_of(f"images/{names[0]}")["cat"] == drawn(LEFT)).all()
    assert (mask_of(f"images/{names[0]}")["dog"] == drawn(RIGHT)).all()
    assert (mask_of(f"images/{names[1]}")["cat"] == drawn(LEFT, RIGHT)).all()
    for number, kind in ((2, "cat"), (3, "dog")):
        assert (mask_of(f"images/{names[number]}")[kind] == (RLE > 0)).all()
    assert frame.loc[f"images/{names[5]}", "mask"] == ""
    found = objects.read(spec, ROOT, frame.loc[f"images/{names[1]}", "mask"], SIZE)
    assert (np.unique(found[0]).tolist(), found[1].any()) == ([0, 1], False)
    assert folds.main([*RUN, "CLASSES=pet=cat+dog", "OVERWRITE=1"]) == 0
    assert (mask_of(f"images/{names[0]}")["pet"] == drawn(LEFT, RIGHT)).all()
    assert objects.read(made()[0], ROOT, frame.loc[f"images/{names[0]}", "mask"], SIZE).max() == 2


@pytest.mark.parametrize("tree", ["coco 2017", "roboflow"])
def test_several_coco_files_are_a_split(workplace, capsys, tree):
    places = {"train": ("a.png", "b.png", "c.png"), "val": ("a.png", "d.png"), "test": ("z.png",)}
    for part, names in places.items():
        folder = {"coco 2017": f"{part}2017", "roboflow": part.replace("val", "valid")}[tree]
        for name in names:
            image(f"{folder}/{name}")
        json_name = {
            "coco 2017": f"annotations/instances_{part}2017.json",
            "roboflow": f"{folder}/_annotations.coco.json",
        }
        if part != "test" or tree == "roboflow":
            text(json_name[tree], coco(list(names)))
        if tree == "coco 2017":
            text(f"annotations/captions_{part}2017.json", {**coco(list(names)), "annotations": []})
            text(f"annotations/person_keypoints_{part}2017.json", coco(list(names)))
    assert folds.main(RUN) == 0
    assert "fold 0 holds out valid (2), fold 1 train" in capsys.readouterr().out
    _, frame = made()
    valid = "val2017" if tree == "coco 2017" else "valid"
    assert set(frame.index[frame["kfold"] == 0]) == {f"{valid}/a.png", f"{valid}/d.png"}
    assert (mask_of(f"{valid}/a.png")["dog"] == drawn(RIGHT)).all()


def normalized(ring: list[int]) -> str:
    return " ".join(f"{value / (60 if at % 2 == 0 else 40):.6f}" for at, value in enumerate(ring))


@pytest.mark.parametrize("tree", ["ultralytics", "roboflow", "beside"])
def test_yolos_polygons(workplace, capsys, tree):
    place = {"ultralytics": "{kind}/{part}", "roboflow": "{part}/{kind}", "beside": "{part}"}[tree]
    for part in ("train", "val", "test"):
        for name in ("a", "b", "c"):
            image(f"{place.format(kind='images', part=part)}/{name}.jpg")
        lines = [f"0 {normalized(LEFT)}", "", f"1 {normalized(KEYHOLE)}", f"0 {normalized(RIGHT)}"]
        text(f"{place.format(kind='labels', part=part)}/a.txt", "\n".join(lines))
        text(f"{place.format(kind='labels', part=part)}/b.txt", "1 -0.05 0.2 0.5 0.2 0.5 0.6")
    text("data.yaml", "names:\n  0: cat\n  1: dog\n" if tree == "beside" else "train: x\nnames: [cat, dog]\nnc: 2\n")
    assert folds.main(RUN) == 0
    out = capsys.readouterr().out
    assert "8 objects of 2 classes; 2 images without an annotation are empty; 2 reach outside" in out
    assert "3 images called test are left to the prediction" in out
    spec, frame = made()
    assert frame["kfold"].tolist().count(0) == 3
    name = f"{place.format(kind='images', part='val')}/a.jpg"
    assert frame.loc[name, "kfold"] == 0
    found = mask_of(name)
    assert (found["cat"] == drawn(LEFT, RIGHT)).all()
    assert (found["dog"] == drawn(KEYHOLE)).all()
    assert not found["dog"][15, 15] and found["dog"][7, 15]
    assert objects.read(spec, ROOT, frame.loc[name, "mask"], SIZE)[0].max() == 3
    clipped = mask_of(name.replace("a.jpg", "b.jpg"))["dog"]
    assert clipped[9, 0] and clipped.any(0).sum() == 30


def labelme(name: str, shapes: list, **changes) -> dict:
    about = {"version": "5.4", "flags": {}, "imagePath": name, "imageData": None, "imageHeight": 40, "imageWidth": 60}
    return {**about, "shapes": shapes, **changes}


def shape(label: str, points, kind: str = "polygon", **more) -> dict:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}, **more}


def pairs_of(ring: list[int]) -> list[list[int]]:
    return [[ring[at], ring[at + 1]] for at in range(0, len(ring), 2)]


def test_labelmes_shapes(workplace, capsys):
    for name in "abcd":
        image(f"data/{name}.jpg")
    file = io.BytesIO()
    Image.fromarray(RLE[3:30, 10:50] > 0).save(file, "PNG")
    packed = shape("dog", [[10, 3], [49, 29]], "mask", mask=base64.b64encode(file.getvalue()).decode())
    text("data/a.json", labelme("a.jpg", [
        shape("cat", pairs_of(LEFT), group_id=1), shape("cat", pairs_of(RIGHT), group_id=1), packed,
        shape("cat", [[1, 1]], "point")]))  # fmt: skip
    text("data/b.json", labelme("..\\data\\b.jpg", [shape("dog", [[45, 30], [30, 10]], "rectangle"),
                                                   shape("cat", [[20, 20], [20, 28]], "circle")]))  # fmt: skip
    text("data/c.json", labelme("c.jpg", []))
    text(
        "data/d.json", labelme("d.jpg", [shape("cat", pairs_of(KEYHOLE)), shape("cat", [[50, 30], [70, 30], [50, 39]])])
    )
    assert folds.main(RUN) == 0
    out = capsys.readouterr().out
    assert "6 objects of 2 classes; 1 images without an annotation are empty; 1 reach outside" in out
    assert "1 points and lines are left out" in out
    spec, frame = made()
    one, two = mask_of("data/a.jpg"), mask_of("data/b.jpg")
    assert (one["cat"] == drawn(LEFT, RIGHT)).all()
    assert (one["dog"] == (RLE > 0)).all()
    assert (two["dog"] == drawn(RIGHT)).all()
    assert two["cat"].sum() == pytest.approx(np.pi * 64, rel=0.03)
    assert (mask_of("data/d.jpg")["cat"] == drawn(KEYHOLE, [50, 30, 70, 30, 50, 39])).all()
    assert np.unique(objects.read(spec, ROOT, frame.loc["data/a.jpg", "mask"], SIZE)[0]).tolist() == [0, 1]
    (ROOT / "data/c.json").unlink()
    assert folds.main([*RUN, "OVERWRITE=1"]) == 2  # not drawn yet, or nothing to draw? a JSON says it


def damaged(**changes) -> dict:
    return {**coco(["a.png", "b.png"]), **changes}


def one_annotation(**changes) -> dict:
    whole = coco(["a.png", "b.png"])
    whole["annotations"][0] |= changes
    return whole


@pytest.mark.parametrize(("name", "content", "words"), [
    ("instances.json", '{"images": [', ["instances.json: broken JSON", "Export it again"]),
    ("instances.json", damaged(images=[{"id": 0}]), ["needs id and file_name", "missing: 'file_name'"]),
    ("instances.json", damaged(images=coco(["a.png", "z.png"])["images"]), ["z.png is no image below"]),
    ("instances.json", one_annotation(image_id=77), ["annotation 0: its image 77 is not in the file's list"]),
    ("instances.json", one_annotation(category_id=5), ["its category 5 is not in the file's list"]),
    ("instances.json", one_annotation(segmentation=[[1, 2, 3, 4]]), ["annotation 0: a polygon of 2 points"]),
    ("instances.json", one_annotation(segmentation=[[1, 2, 3]]), ["a polygon is a list of x, y"]),
    ("instances.json", one_annotation(segmentation=[[1, 2, 900, 4, 5, 9]]), ["900, 4 lies far outside of the 60 x 40"]),
    ("instances.json", one_annotation(segmentation=[]), ["annotation 0: a box without a polygon"]),
    ("instances.json", one_annotation(segmentation={"size": [40, 60], "counts": "04"}), ["the image has 60 x 40"]),
    ("instances.json", one_annotation(segmentation={"size": [40, 60], "counts": "~"}), ["no compressed run lengths"]),
    ("instances.json", one_annotation(segmentation={"size": [9, 9], "counts": [81]}), ["of the size [9, 9]"]),
    ("instances.json", damaged(images=[{**one, "width": 61} for one in coco(["a.png", "b.png"])["images"]]),
     ["is said to have 61 x 40"]),
    ("instances.json", damaged(annotations=[{"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 2, 3, 4]}]),
     ["its 1 annotations are boxes"]),
    ("a.txt", "0 0.5 0.5 0.2 0.2\n", ["1 of 1 label files hold boxes", "a.txt, line 1", "YOLO segmentation"]),
    ("a.txt", "0 0.1 0.1 0.9 0.1 0.5 0.8\n3 0.1 x\n", ["a.txt, line 2: expected a class's number", "1 broken label"]),
    ("a.txt", "0 0.1 0.1 0.9 0.1 0.5 0.8\n0 0.1 0.2 3 4 5 6", ["line 2: 6 is no share of the image"]),
    ("a.txt", "0 0.1 0.1 0.9 0.1 0.5 0.8\n0 0.1 0.2 0.3", ["line 2: expected a class's number and pairs"]),
    ("a.json", labelme("a.png", [shape("cat", [[1, 1], [2, 2]])]), ["a.json, shape 0: a polygon of 2 points"]),
    ("a.json", labelme("a.png", [shape("", pairs_of(LEFT))]), ["shape 0: no label"]),
    ("a.json", labelme("q.png", [shape("cat", pairs_of(LEFT))]), ["q.png is no image below"]),
    ("a.json", labelme("a.png", [shape("cat", pairs_of(LEFT), "blob")]), ["shape 0: a blob"]),
    ("a.json", labelme("a.png", [shape("cat", [[0, 0], [9, 9]], "mask", mask="zz")]), ["no PNG in base64"]),
])  # fmt: skip
def test_what_is_wrong_in_annotations_is_a_sentence(workplace, refused, name, content, words):
    for one in "ab":
        image(f"{one}.png")
    text(name, content)
    if name == "a.json":
        text("b.json", labelme("b.png", [shape("cat", pairs_of(LEFT))]))
    refused(folds.main, RUN, *words)
    assert not Path("output").exists()


def test_a_class_without_a_name_in_data_yaml(workplace, refused):
    image("images/a.png")
    text("labels/a.txt", f"4 {normalized(LEFT)}")
    text("data.yaml", "names: [cat, dog]")
    refused(folds.main, RUN, "line 1: the class 4 has no name; there are cat, dog")
    text("data.yaml", "names: [cat")
    refused(folds.main, RUN, "data.yaml", "not readable as YAML")


def test_masks_that_are_there_go_before_annotations(workplace):
    for name in "ab":
        image(f"images/{name}.png")
        (ROOT / "masks").mkdir(exist_ok=True)
        Image.fromarray(RLE * 255).save(ROOT / f"masks/{name}.png")
    text("instances.json", coco(["a.png", "b.png"]))
    assert folds.main(RUN) == 0
    assert made()[1]["mask"].tolist() == ["masks/a.png", "masks/b.png"]
    assert folds.main([*RUN, f"MASK_PATH={ROOT}/instances.json", "OVERWRITE=1"]) == 0
    assert made()[1]["mask"].tolist() == ["coco:instances.json#0", "coco:instances.json#1"]


def test_polygons_are_those_of_pycocotools_and_opencvs_but_for_the_outline():
    random = np.random.default_rng(0)
    for number in range(200):
        shape_ = tuple(random.integers(8, 80, 2).tolist())
        sides = np.array(shape_[::-1])
        reach = (-0.3, 1.3) if number % 2 else (0, 1)
        ring = random.uniform(*reach, (random.integers(3, 9), 2)) * sides
        mine = polygons.mask_of([ring], shape_, "here")
        assert (mine == peer.decode(peer.frPyObjects([ring.ravel().tolist()], *shape_))[..., 0]).all()
        if number % 2:  # OpenCV goes astray outside
            continue
        theirs = np.zeros(shape_, np.uint8)
        cv2.fillPoly(theirs, [np.rint((ring - 0.5) * 256).astype(np.int32)], 1, shift=8)
        outline = np.zeros(shape_, np.uint8)
        cv2.polylines(outline, [np.rint((ring - 0.5) * 256).astype(np.int32)], True, 1, thickness=3, shift=8)
        assert (mine == theirs)[outline == 0].all()
    corners = np.array([(3, 5), (20, 5), (20, 9), (3, 9)], float)
    whole = np.zeros((12, 30), np.uint8)
    whole[5:9, 3:20] = 1
    assert (polygons.mask_of([corners], (12, 30), "") == whole).all()


def test_run_lengths_are_pycocotools():
    random = np.random.default_rng(1)
    for _ in range(100):
        mask = np.asfortranarray(
            (random.random((random.integers(1, 90), random.integers(1, 90))) < 0.4).astype(np.uint8)
        )
        packed = peer.encode(mask)["counts"]
        assert (polygons.from_counts(packed.decode(), mask.shape, "") == mask).all()
        for cut in (packed[:-1], packed + b"o", b"\xff" + packed):
            with pytest.raises(UserError):
                polygons.from_counts(cut, mask.shape, "")
