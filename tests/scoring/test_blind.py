"""The constant mask: nothing that ignores the image scores better on the training images, whatever METRIC and EMPTY."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data.dataspec import DataSpec
from metrics import overlap
from scoring import blind_baseline, score_rows


def write(root, masks, spec, strip=0):
    """A training table of class maps or 0/1 masks (N, H, W); the last `strip` columns are not labeled."""
    rows = []
    for number, mask in enumerate(masks):
        file, labels = f"{number}.png", mask.astype(np.uint8) * (255 if spec.task == "binary" else 1)
        labels[:, mask.shape[1] - strip :] = 255
        Image.fromarray(labels).save(root / file)
        rows.append((file, file))
    return blind_baseline.shrunk(score_rows.Pairs(pd.DataFrame(rows, columns=["image", "mask"]), root, spec, 10**8))


def squares(empty, side=64):
    """24 masks of a square that is not always in one place; the first `empty` of them have none."""
    random, masks = np.random.default_rng(0), np.zeros((24, side, side), np.uint8)
    for mask in masks[empty:]:
        top, left = random.integers(10, 30, 2)
        mask[top : top + 20, left : left + 20] = 1
    return masks


def score(scale, constant, masks):
    values = np.array([[scale.value(scale.metric, constant, mask, None, None)] for mask in masks])
    counts = np.array([[list(overlap.count(constant, mask).values())] for mask in masks])
    return scale.total(counts, values, np.ones((1, len(masks))))[0]


@pytest.mark.parametrize("empty", [0, 22])
@pytest.mark.parametrize("policy", ["one", "skip"])
@pytest.mark.parametrize("metric", ["dice", "pooled_iou", "specificity", "siim", "hd95", "dsb2018"])
def test_nothing_that_ignores_the_image_is_better(tmp_path, metric, policy, empty):
    masks, scale = squares(empty), score_rows.scale(metric, "", policy)
    small = blind_baseline.masks(write(tmp_path, masks, DataSpec()), scale)[0]
    best = score(scale, score_rows.stretched(small, masks[0].shape), masks)
    mean = masks.mean(0)
    others = [
        np.zeros_like(masks[0]),
        np.ones_like(masks[0]),
        *(mean > mean.max() * level for level in np.arange(0, 1, 0.1)),
    ]
    sign = 1 if scale.measure.higher else -1
    assert sign * best >= np.nanmax([sign * score(scale, other, masks) for other in others]) - (
        0.01 if scale.measure.kind == "counts" else 0.04 * max(1, best)
    )
    if empty == 22 and policy == "one" and metric not in ("pooled_iou",):
        assert not small.any()


def test_a_speck_is_no_empty_mask(tmp_path):
    """Shrunk it is gone, and an empty mask on it would count as right."""
    masks = np.zeros((3, 2900, 2900), np.uint8)
    masks[:2, 1500, 1500], masks[2, 1000:2000, 1000:2000] = 1, 1
    training = write(tmp_path, masks, DataSpec())
    assert training.cover.any((2, 3)).all()
    assert blind_baseline.masks(training, score_rows.scale("dice", "", "one"))[0].any()


def test_each_class_has_its_own_and_pixels_that_nobody_labeled_count_nowhere(tmp_path):
    spec = DataSpec("multiclass", ("background", "red", "blue"), values=(0, 1, 2), ignore=(255,))
    labels = np.zeros((10, 64, 64), np.uint8)
    labels[:, :, 16:], labels[0, :8, :8] = 2, 1
    training = write(tmp_path, labels, spec, strip=32)
    red, blue = blind_baseline.masks(training, score_rows.scale("accuracy", "", "one"))
    assert not red.any() and blue[:, 34:62].all() and not blue[:, :30].any()
    red, blue = blind_baseline.masks(training, score_rows.scale("recall", "", "skip"))
    assert red.any() and blue[:, 34:62].all()


@pytest.mark.parametrize(
    ("score", "higher", "words"),
    [
        ({"model": 0.8, "constant": 0.7}, True, ""),
        ({"model": 0.8, "constant": 0.7}, False, "image: 0.8000 against 0.7000."),
        ({"score": 0.7, "constant": 0.7}, True, "image: 0.7000 against 0.7000."),
        ({"model": float("nan"), "constant": 0.7}, True, ""),
        ({"model": 0.8, "low": 0.7}, True, ""),
        ({"model": 0.8, "constant": 0.7, "classes": {"a": (0.8, 0, 1)}, "unpredicted": ["a"]}, True,
         "image: 0.8000 against 0.7000, with not a pixel predicted."),
        ({"model": 0.8, "constant": 0.7, "classes": {"a": (0.9, 0, 1), "b": (0.7, 0, 1), "c": (1.0, 0, 1)},
          "constant_classes": {"a": 0.4, "b": 0.7, "c": 1.0}, "unpredicted": ["c"], "absent": ["c"]}, True,
         "image: b 0.7000 against 0.7000; c 1.0000 against 1.0000, with not a pixel predicted, and none in the masks."),
        ({"model": 0.1, "constant": 0.7, "classes": {str(n): (0.1, 0, 1) for n in range(30)},
          "constant_classes": {str(n): 0.2 for n in range(30)}}, True,
         "image: the mean over the classes 0.1000 against 0.7000; 0 0.1000 against 0.2000; 1 0.1000"),
    ],
)  # fmt: skip
def test_what_is_said_of_a_score_that_is_no_better(score, higher, words):
    said = blind_baseline.said(score, higher)
    assert words in said if words else said == ""
    assert len(said) < 900
