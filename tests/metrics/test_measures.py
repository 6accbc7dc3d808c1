"""Every measure by name, against sklearn, torchmetrics, MONAI and slow definitions; objects; scores of many images."""

import math
import pickle
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp
from monai.metrics import compute_dice, compute_iou
from sklearn import metrics as sk
from torchmetrics.functional import classification as tm

from conftest import ROOT, write_mask
from data import dataspec
from metrics import measures, objects, overlap, surface_distances
from tools.errors import UserError

PAIR = stnp.arrays(np.uint8, (2, 6, 9), elements=st.integers(0, 1), fill=st.integers(0, 1))
RANDOM_PAIR = st.integers(0, 10**6).map(lambda seed: np.random.default_rng(seed).integers(0, 2, (2, 6, 9), np.uint8))
PAIRS = PAIR | RANDOM_PAIR
COUNTED = ("dice", "iou", "precision", "recall", "specificity", "accuracy")
EMPTY = np.zeros((6, 9), np.uint8)
POLICIES = ("one", "zero", "skip")


def square(top, left, side=3, shape=(20, 30)):
    mask = np.zeros(shape, np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


def similar_labels(seed):
    """Truth of up to 12 blobs and a prediction that shifts, loses and adds some."""
    random = np.random.default_rng(seed)
    truth, prediction = np.zeros((2, 50, 60), np.uint8)
    for row in range(3):
        for column in range(4):
            top, left = 3 + 16 * row, 2 + 15 * column
            side, shift = random.integers(4, 10), random.integers(-1, 2, 2)
            if random.random() < 0.85:
                truth[top : top + side, left : left + side] = 1
            if random.random() < 0.85:
                top, left = top + shift[0], left + shift[1]
                prediction[top : top + side, left : left + side] = 1
    return objects.components(prediction), objects.components(truth)


@settings(max_examples=80, deadline=None)
@given(PAIRS)
def test_counted_measures_agree_with_torchmetrics_whose_empty_cases_are_zero(pair):
    theirs = {
        "dice": tm.binary_f1_score,
        "iou": tm.binary_jaccard_index,
        "precision": tm.binary_precision,
        "recall": tm.binary_recall,
        "specificity": tm.binary_specificity,
        "accuracy": tm.binary_accuracy,
    }
    tensors = [torch.from_numpy(mask.ravel()).int() for mask in pair]
    for name, function in theirs.items():
        ours = measures.get(name).value(*pair, empty="zero")
        assert ours == pytest.approx(function(*tensors).item(), abs=1e-6), name


@pytest.mark.main
@settings(max_examples=30, deadline=None)  # sklearn takes 20 ms a pair
@given(PAIRS)
def test_counted_measures_agree_with_sklearn(pair):
    prediction, truth = (mask.ravel() for mask in pair)
    theirs = {
        "specificity": sk.recall_score(truth, prediction, pos_label=0, zero_division=1),
        "accuracy": sk.accuracy_score(truth, prediction),
    }
    if pair.any():
        theirs["dice"] = sk.f1_score(truth, prediction, zero_division=0)
        theirs["iou"] = sk.jaccard_score(truth, prediction, zero_division=0)
        theirs["recall"] = sk.recall_score(truth, prediction, zero_division=0)
        theirs["precision"] = sk.precision_score(truth, prediction, zero_division=0)
    for name, value in theirs.items():
        assert measures.get(name).value(*pair) == pytest.approx(value, abs=1e-9), name
    half = measures.get("vesuvius").from_counts(**overlap.count(*pair), empty="one")
    assert half == pytest.approx(sk.fbeta_score(truth, prediction, beta=0.5, zero_division=1), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(PAIRS)
def test_dice_and_iou_agree_with_monai_with_its_empty_pairs_at_one(pair):
    tensors = [torch.from_numpy(mask[None, None]) for mask in pair]
    for name, function in {"dice": compute_dice, "iou": compute_iou}.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = function(*tensors, include_background=True, ignore_empty=False).item()
        assert measures.get(name).value(*pair) == pytest.approx(theirs, abs=1e-6), name
    theirs = compute_dice(*tensors, include_background=True, ignore_empty=True).item()
    assert math.isnan(theirs) == (not pair[1].any())  # it leaves out every image whose truth is empty


@pytest.mark.parametrize("policy", POLICIES)
def test_what_an_empty_pair_is_worth(policy):
    worth = overlap.POLICIES[policy]
    follow = {"dice", "iou", "precision", "recall", "boundary_iou", "surface_dice", "dsb2018"}
    expected = dict.fromkeys(follow, worth) | dict.fromkeys(("specificity", "accuracy"), 1.0)
    expected |= dict.fromkeys(("hausdorff", "hd95", "assd"), math.nan if policy == "skip" else 0.0)
    expected |= dict.fromkeys(("carvana", "siim", "hubmap", "tgs", "airbus"), 1.0) | {"uwmgi": math.nan}
    assert set(expected) == {name for name in measures.NAMES if not measures.get(name).pooled}
    for name, value in expected.items():
        assert measures.get(name).value(EMPTY, EMPTY, empty=policy) == pytest.approx(value, nan_ok=True), name


@pytest.mark.parametrize("policy", POLICIES)
def test_a_mask_against_an_empty_one_is_worth_nothing(policy):
    mask = square(1, 2, shape=EMPTY.shape)
    for measure in map(measures.get, measures.NAMES):
        if measure.pooled or measure.name in ("specificity", "accuracy"):
            continue
        worst = math.hypot(*EMPTY.shape) if measure.unit == "px" else 0.0
        assert measure.value(mask, EMPTY, empty=policy) == pytest.approx(worst), measure.name
        assert measure.value(EMPTY, mask, empty=policy) == pytest.approx(worst), measure.name


@pytest.mark.parametrize("policy", POLICIES)
def test_the_policy_speaks_of_specificity_only_where_nothing_is_background(policy):
    full = np.ones_like(EMPTY)
    value = measures.get("specificity").value(full, full, empty=policy)
    assert value == pytest.approx(overlap.POLICIES[policy], nan_ok=True)
    assert measures.get("specificity").value(full, EMPTY, empty=policy) == 0
    assert measures.get("accuracy").value(full, full, empty=policy) == 1


def test_scores_without_true_negatives_have_no_specificity():
    assert tuple(overlap.scores(1, 2, 3)) == overlap.SCORES
    assert tuple(overlap.scores(1, 2, 3, tn=4)) == overlap.SCORES + overlap.TN_SCORES
    assert overlap.scores(1, 2, 3, tn=4)["accuracy"] == 0.5


@pytest.mark.main
@settings(max_examples=40, deadline=None)
@given(PAIRS)
def test_every_measure_is_perfect_on_equal_masks_and_within_its_bounds(pair):
    for measure in map(measures.get, measures.NAMES):
        if measure.pooled:
            continue
        best = 1.0 if measure.higher else 0.0
        assert measure.value(pair[0], pair[0]) == pytest.approx(best) or not pair[0].any(), measure.name
        value = measure.value(*pair)
        most = 1.0 if measure.higher else math.hypot(6, 9)
        assert 0 <= value <= most + 1e-12 or math.isnan(value), measure.name


@settings(max_examples=40, deadline=None)
@given(PAIRS)
def test_what_is_symmetric(pair):
    for name in ("dice", "iou", "accuracy", "uwmgi", "tgs", "dsb2018"):
        measure = measures.get(name)
        assert measure.value(*pair) == pytest.approx(measure.value(*pair[::-1]), nan_ok=True), name
    precision, recall = measures.get("precision"), measures.get("recall")
    assert precision.value(*pair) == recall.value(*pair[::-1])


def test_pixels_that_are_not_labeled_do_not_count():
    prediction, truth = ((labels > 0).astype(np.uint8) for labels in similar_labels(3))
    true_objects, labeled = objects.components(truth), np.ones(truth.shape, bool)
    labeled[:, 30:] = False
    for measure in map(measures.get, measures.NAMES):
        if measure.pooled:
            continue
        value = measure.value(prediction, truth, labeled=labeled)
        assert value != measure.value(prediction, truth), measure.name
        garbled = np.where(labeled, prediction, 1 - prediction)
        assert value == measure.value(garbled, truth, labeled=labeled), measure.name
    kept = measures.get("dsb2018").value(prediction, truth, labeled=labeled, truth_objects=true_objects)
    overlap = objects.match(objects.components(prediction * labeled), true_objects * labeled)
    assert kept == objects.average_precision(overlap)


def slow_hits(prediction, truth, threshold):
    """The definition: a true object is found by the first free prediction whose IoU is above the threshold."""
    first = [prediction == label for label in range(1, prediction.max() + 1)]
    second = [truth == label for label in range(1, truth.max() + 1)]
    free, tp = set(range(len(first))), 0
    for true in second:
        for index in sorted(free):
            if (first[index] & true).sum() / (first[index] | true).sum() > threshold:
                tp, free = tp + 1, free - {index}
                break
    return tp, len(first) - tp, len(second) - tp


def slow_average(prediction, truth, score):
    values = [score(*slow_hits(prediction, truth, round(0.5 + 0.05 * step, 2))) for step in range(10)]
    return sum(values) / len(values)


@pytest.mark.parametrize("seed", range(8))
def test_average_precision_and_f2_against_the_definition(seed):
    prediction, truth = similar_labels(seed)
    expected = slow_average(prediction, truth, lambda tp, fp, fn: tp / (tp + fp + fn))
    overlap = objects.match(prediction, truth)
    assert objects.average_precision(overlap) == pytest.approx(expected, abs=1e-12)
    assert 0 < expected < 1
    expected = slow_average(prediction, truth, lambda tp, fp, fn: 5 * tp / (5 * tp + 4 * fn + fp))
    assert objects.mean_f2(overlap) == pytest.approx(expected, abs=1e-12)
    value = measures.get("airbus").value(prediction > 0, truth > 0)
    assert value == pytest.approx(expected, abs=1e-12)


def test_overlaps_of_objects():
    truth, prediction = np.zeros((2, 4, 10), np.int32)
    truth[0, :4], truth[2, :6] = 1, 3  # label 2 was hidden by others
    prediction[0, 2:5], prediction[2, :6], prediction[3, 9] = 2, 1, 3
    np.testing.assert_allclose(objects.match(prediction, truth), [[0, 1], [2 / 5, 0], [0, 0]])


def test_an_iou_at_the_threshold_is_not_above_it():
    truth, prediction = np.zeros((2, 5, 5), np.uint8)
    truth[0, :5] = 1
    prediction[0, :3] = 1  # IoU 0.6 is above 0.5 and 0.55
    for name in ("tgs", "dsb2018", "airbus"):
        assert measures.get(name).value(prediction, truth) == pytest.approx(0.2), name


def test_touching_objects_are_one_only_where_nothing_says_otherwise():
    truth = square(2, 2, 4) | square(2, 6, 4)
    labels = objects.components(square(2, 2, 4)) + 2 * square(2, 6, 4)
    measure = measures.get("dsb2018")
    assert measure.value(truth, truth) == 1
    assert measure.value(truth, truth, truth_objects=labels.astype(np.int32)) == 0  # one object, two wanted
    corner = square(2, 2, 4) | square(6, 6, 4)  # eight neighbors
    assert objects.components(corner).max() == 1


def read(root, reference, spec=None, shape=(20, 30)):
    return objects.read(spec or dataspec.DataSpec(), root, reference, shape, image="a.png")


def test_each_file_of_a_folder_is_an_object(tmp_path):
    parts = [square(1, 1, 5), square(4, 4, 5), square(12, 20, 4) | square(12, 26, 2)]
    for index, part in enumerate(parts):
        write_mask(tmp_path / "masks" / f"{index}.png", part)
    labels = read(tmp_path, "masks")
    assert labels.dtype == np.int32
    assert labels.shape == (1, 20, 30)
    expected = np.where(parts[2], 3, np.where(parts[1], 2, parts[0]))  # the later has what two of them claim
    np.testing.assert_array_equal(labels[0], expected)


def test_a_folder_is_refused_as_the_mask_is(tmp_path):
    (tmp_path / "masks").mkdir()
    with pytest.raises(UserError, match="no masks in this folder"):
        read(tmp_path, "masks")
    write_mask(tmp_path / "masks" / "0.png", square(1, 1, shape=(8, 9)))
    with pytest.raises(UserError, match=r"0\.png: 9 x 8 pixels, but its image a\.png has 30 x 20"):
        read(tmp_path, "masks")


def test_a_mask_falls_into_its_components(tmp_path):
    write_mask(tmp_path / "a.png", square(1, 1) | square(10, 10))
    assert np.bincount(read(tmp_path, "a.png").ravel()).tolist() == [582, 9, 9]
    assert read(tmp_path, "").max() == 0


def table(path, dialect, rows):
    path.write_text("ImageId,EncodedPixels\n" + "".join(f"{row}\n" for row in rows))
    return dataspec.DataSpec(rle=dialect)


def test_rows_of_a_table_are_objects_where_they_are_meant_to_be(tmp_path):
    path = tmp_path / "train.csv"  # a column has 20 pixels: two objects that touch, and one in two parts
    spec = table(path, "dsb2018", ["a,1 3", "a,4 2", "b,1 2 30 4", "c,"])
    assert np.bincount(read(tmp_path, "rle:train.csv#a", spec).ravel()).tolist() == [595, 3, 2]
    assert np.bincount(read(tmp_path, "rle:train.csv#b", spec).ravel()).tolist() == [594, 6]
    assert read(tmp_path, "rle:train.csv#c", spec).max() == 0
    spec = table(path, "hubmap", ["b,1 2 30 4", "a,1 3", "a,4 2"])  # a row is a whole mask, unless there are several
    assert np.bincount(read(tmp_path, "rle:train.csv#b", spec).ravel()).tolist() == [594, 2, 4]
    assert np.bincount(read(tmp_path, "rle:train.csv#a", spec).ravel()).tolist() == [595, 3, 2]


def test_every_scored_class_has_its_objects(tmp_path):
    spec = dataspec.DataSpec(task="multilabel", classes=("background", "cell", "core", "none"))
    write_mask(tmp_path / "cell" / "a" / "0.png", square(1, 1, 4))
    write_mask(tmp_path / "cell" / "a" / "1.png", square(1, 5, 4))
    only_folders = read(tmp_path, "{class}/a", spec)
    assert [plane.max() for plane in only_folders] == [2, 0, 0]
    (tmp_path / "core").mkdir()
    write_mask(tmp_path / "core" / "file.png", square(2, 2, 2) | square(9, 9, 2))
    (tmp_path / "core" / "file.png").rename(tmp_path / "core" / "a")  # a file for one class, a folder for the other
    assert [plane.max() for plane in read(tmp_path, "{class}/a", spec)] == [2, 2, 0]


def test_a_class_map_falls_into_components_class_by_class(tmp_path):
    spec = dataspec.DataSpec(task="multiclass", classes=("background", "cell", "core"), values=(0, 1, 255))
    write_mask(tmp_path / "a.png", square(1, 1) | square(10, 10))
    assert [plane.max() for plane in read(tmp_path, "a.png", spec)] == [0, 2]


def slow_total(measure, counts, values, weights, empty):
    classes = []
    for column in range(counts.shape[1]):
        if measure.pooled:
            sums = sum(weight * row for weight, row in zip(weights, counts[:, column], strict=True))
            value = float(measure.from_counts(*sums, empty=empty))
        else:
            parts = [(w, v) for w, v in zip(weights, values[:, column], strict=True) if not math.isnan(v)]
            below = sum(w for w, _ in parts)
            value = sum(w * v for w, v in parts) / below if below else math.nan
        classes.append(value)
    kept = [value for value in classes if not math.isnan(value)]
    return sum(kept) / len(kept) if kept else math.nan


def some_counts(seed, images=9, classes=3):
    random = np.random.default_rng(seed)
    counts = random.integers(0, 40, (images, classes, 4)) * (random.random((images, classes, 1)) < 0.6)
    counts[..., 3] = 200 - counts[..., :3].sum(-1)
    counts[:, 1, :3] *= seed % 2 == 0  # a class without a pixel, half of the time
    return counts


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", [*COUNTED, "pooled_dice", "pooled_iou", "tgs", "vesuvius"])
@pytest.mark.parametrize("seed", range(4))
def test_total_against_loops(name, policy, seed):
    measure, counts = measures.get(name), some_counts(seed)
    values = np.full(counts.shape[:2], np.nan) if measure.pooled else measure.from_counts(*counts.T, empty=policy).T
    weights = np.random.default_rng(seed).integers(0, 3, (20, len(counts))).astype(float)
    weights[0], weights[1] = 1, 0
    ours = measures.total(measure, counts, values, weights, policy)
    expected = [slow_total(measure, counts, values, row, policy) for row in weights]
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", range(4))
def test_with_weights_of_one_it_is_the_plain_score(policy, seed):
    counts = some_counts(seed)
    plain = overlap.summarize(*np.moveaxis(counts, 2, 0)[:3], policy)
    ones = np.ones((1, len(counts)))
    for kind, name, key in [(kind, f"{kind}{key}", key) for kind in ("", "pooled_") for key in ("dice", "iou")]:
        measure = measures.get(name)
        values = np.full(counts.shape[:2], np.nan) if measure.pooled else measure.from_counts(*counts.T, empty=policy).T
        expected = plain["pooled" if kind else "image"][key]
        assert measures.total(measure, counts, values, ones, policy)[0] == pytest.approx(expected, abs=1e-12), name


def test_values_of_images_and_of_counts_are_the_same():
    pairs = np.random.default_rng(0).integers(0, 2, (5, 2, 6, 9), np.uint8)
    pairs[0] = 0
    for name in (*COUNTED, "carvana", "tgs"):
        measure = measures.get(name)
        counts = [overlap.count(*pair) for pair in pairs]
        together = measure.from_counts(
            *(np.array([one[key] for one in counts]) for key in overlap.COUNTS), empty="zero"
        )
        assert together.tolist() == [measure.value(*pair, empty="zero") for pair in pairs], name


def test_uwmgi_weighs_dice_and_the_distance_as_a_share_of_the_diagonal():
    truth, prediction = square(5, 5, 4, (30, 40)), square(5, 8, 4, (30, 40))
    dice, apart = 2 * 4 / 32, 3 / 50
    assert measures.get("uwmgi").value(prediction, truth) == pytest.approx(0.4 * dice + 0.6 * (1 - apart))


def test_contrails_pools_and_hubmap_does_not():
    counts = np.array([[[10, 0, 0, 90]], [[0, 4, 6, 90]]])
    each = measures.get("hubmap").from_counts(*counts.T).T
    ones = np.ones((1, 2))
    assert measures.total(measures.get("hubmap"), counts, each, ones)[0] == 0.5
    assert measures.total(measures.get("contrails"), counts, each, ones)[0] == pytest.approx(20 / 30)
    assert measures.total(measures.get("vesuvius"), counts, each, ones)[0] == pytest.approx(12.5 / (12.5 + 1.5 + 4))


def test_arguments_reach_the_measure_and_show_in_its_name():
    prediction, truth = square(5, 5, 6), square(5, 8, 6)
    for text, function in {
        "surface_dice(tolerance=1)": lambda: surface_distances.surface_dice(prediction, truth, tolerance=1),
        "boundary_iou( dilation = 0.1 )": lambda: surface_distances.boundary_iou(prediction, truth, dilation=0.1),
    }.items():
        measure = measures.get(text)
        assert (
            measure.value(prediction, truth) == function() != measures.get(text.split("(")[0]).value(prediction, truth)
        )
        assert measure.name == text.replace(" ", "")
        assert measures.get(measure.name).name == measure.name
    assert measures.get("surface_dice(tolerance=2.0)") is measures.get("surface_dice()")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dise", "no measure 'dise'. Did you mean dice?"),
        ("", "There are: dice, iou"),
        ("dice)", "no measure 'dice)'"),
        ("dice(beta=2)", "dice takes no argument"),
        ("surface_dice(tolerence=2)", "Did you mean tolerance?"),
        ("surface_dice(2)", "expected surface_dice(tolerance=v)"),
        (
            "surface_dice(tolerance=-1)",
            "tolerance=-1; expected surface_dice(tolerance=v) with a number v from 0 to",
        ),
        ("surface_dice(tolerance=nan)", "tolerance=nan"),
        ("boundary_iou(dilation=2)", "from 0.001 to 0.5"),
        ("boundary_iou(dilation=wide)", "dilation=wide"),
        ("boundary_iou(dilation=0.1, dilation=0.2)", "dilation=0.1, dilation=0.2"),
    ],
)
def test_what_is_no_measure_is_refused(text, words):
    with pytest.raises(UserError) as caught:
        measures.get(text)
    assert words in str(caught.value)


def test_a_pooled_measure_has_no_value_of_an_image_and_a_mask_none_of_counts():
    with pytest.raises(ValueError, match="one ratio of all images"):
        measures.get("pooled_dice").value(EMPTY, EMPTY)
    with pytest.raises(ValueError, match="needs masks"):
        measures.get("hd95").from_counts(1, 2, 3, 4)


def test_every_measure_reaches_another_process_and_stands_in_the_table():
    documented = (ROOT / "docs" / "scores.md").read_text()
    for name in measures.NAMES:
        assert f"\n| `{name}" in documented, name
        assert pickle.loads(pickle.dumps(measures.get(name))).name == name
