"""Touching objects cut apart: what a cut is, where it lies, and where it is used."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp
from PIL import Image
from scipy import ndimage
from test_report import fabricate

import report
import settings as settings_module
import submission
import tester
import tune
from conftest import write_mask
from formats import rle
from metrics import measures, objects, overlap
from prediction import inference_job, postprocess, prediction_folders, watershed
from prediction.postprocess import Rule
from scoring import out_of_fold, rule_choice, rule_sweep, rule_trials, score_rows
from tools import errors

CELLS = ["DATASET=cells", "N_FOLDS=3", "IMAGE_SIZE=32", "ENCODER_WEIGHTS=none", "EPOCHS=3", "METRIC=dsb2018"]
OOF = Path("lightning_logs/cells/oof_seed42")
EIGHT = np.ones((3, 3), int)


def discs(*circles, shape=(60, 120)) -> np.ndarray:
    """The union of discs (row, column, radius), 0/1."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.any([(y - row) ** 2 + (x - column) ** 2 <= r**2 for row, column, r in circles], axis=0).astype(np.uint8)


def count(mask) -> int:
    return ndimage.label(mask, EIGHT)[1]  # scipy, not the code's own OpenCV


BRIDGED = discs((30, 20, 10), (30, 60, 10))
BRIDGED[30, 20:60] = 1  # one pixel wide
RING = discs((30, 50, 25)) - discs((30, 50, 15))
SQUARES = np.pad(np.ones((20, 20), np.uint8), 5)
BAR = np.pad(np.ones((9, 100), np.uint8), 5)


@pytest.mark.parametrize(
    ("mask", "spacing", "parts"),
    [
        (discs((30, 40, 12), (30, 44, 12)), 5, 1),  # half the neck over the radius: sqrt(1 - (distance / 2r)^2) = 0.99
        (discs((30, 40, 12), (30, 48, 12)), 5, 1),  # 0.94
        (discs((30, 40, 12), (30, 54, 12)), 5, 2),  # 0.81
        (discs((30, 40, 12), (30, 62, 12)), 5, 2),  # 0.40
        (discs((30, 40, 12), (30, 62, 12)), 21, 2),  # the centers are 22 px apart
        (discs((30, 40, 12), (30, 62, 12)), 25, 1),
        (discs((20, 40, 12), (36, 56, 12)), 5, 2),  # diagonally
        (discs((30, 20, 12), (30, 40, 12), (30, 60, 12)), 5, 3),  # a chain
        (discs((30, 20, 12), (30, 40, 10), (30, 60, 12)), 30, 2),  # only the outer centers are as far apart
        (discs((30, 20, 16), (30, 42, 8)), 5, 2),  # a small one on a large one
        (discs((0, 30, 12), (0, 50, 12)), 5, 2),  # cut off by the image's edge
        (discs((0, 0, 20)), 5, 1),
        (BRIDGED, 5, 2),
        (RING, 3, 1),
        (SQUARES, 3, 1),
        (BAR, 3, 1),
        (np.zeros((20, 30), np.uint8), 5, 0),
        (np.ones((20, 30), np.uint8), 5, 1),
        (np.ones((1, 1), np.uint8), 1, 1),
    ],
)
def test_what_is_cut_and_what_is_not(mask, spacing, parts):
    before = mask.copy()
    cut = watershed.apart(mask, spacing)
    assert count(cut) == parts and (mask == before).all()
    if parts == count(mask):
        assert (cut == mask).all()
    else:
        lost = np.argwhere((mask == 1) & (cut == 0))
        assert len(lost) <= 50 and (cut <= mask).all()
        assert count(watershed.apart(cut, spacing)) == parts  # what is apart stays as it is


def random_discs(seed: int):
    """Discs that are disjoint or touch with a clear neck, none inside another."""
    random, circles = np.random.default_rng(seed), []
    for _ in range(400):
        row, column, radius = *random.integers(0, (160, 240)), random.integers(10, 16)
        far = (np.hypot(row - r, column - c) >= 1.5 * max(radius, other) for r, c, other in circles)
        if all(far) and all(abs(radius - other) < 4 for *_, other in circles):
            circles.append((row, column, radius))
    return circles, discs(*circles, shape=(160, 240))


@pytest.mark.parametrize("seed", range(6))
def test_a_crowd_of_discs_is_told_apart_along_the_lines_between_their_centers(seed):
    circles, mask = random_discs(seed)
    cut = watershed.apart(mask, 5)
    labels, number = ndimage.label(cut, EIGHT)
    assert count(mask) < 0.5 * len(circles) and abs(number - len(circles)) <= 0.05 * len(circles)
    # independent of any watershed: the disc whose rim is the farthest outwards from a pixel, relative to its radius
    y, x = np.mgrid[:160, :240]
    nearest = np.argmin([((y - r) ** 2 + (x - c) ** 2) - radius**2 for r, c, radius in circles], axis=0) + 1
    overlap = objects.match(labels.astype(np.int32), np.where(mask, nearest, 0).astype(np.int32))
    assert (overlap.max(0) > 0.75).mean() > 0.85
    assert mask.sum() - cut.sum() < 0.08 * mask.sum()


@given(
    stnp.arrays(np.uint8, st.tuples(st.integers(1, 30), st.integers(1, 30)), elements=st.integers(0, 1)),
    st.integers(1, 12),
    st.integers(0, 3),
)
@settings(max_examples=150, deadline=None)
def test_whatever_the_mask(mask, spacing, size):
    if size:
        mask = ndimage.maximum_filter(mask, size) * ndimage.binary_dilation(mask).astype(np.uint8)
    cut = watershed.apart(mask, spacing)
    assert cut.dtype == np.uint8 and cut.shape == mask.shape and (cut <= mask).all()
    before, number = ndimage.label(mask, EIGHT)
    for part in range(1, number + 1):  # every object leaves something; those that are left whole lost nothing
        left = cut * (before == part)
        assert left.any()
        if count(left) == 1 and left.sum() < (before == part).sum():
            raise AssertionError("an object that was not cut apart lost pixels")
    assert (watershed.apart(mask, 1000) == mask).all()  # no two centers are as far apart


def test_isolated_discs_stay_as_they_are_and_a_line_is_thin():
    alone = discs((15, 15, 9), (15, 45, 11), (40, 90, 14), (45, 30, 3), (58, 60, 8))
    assert (watershed.apart(alone, 1) == alone).all()
    two = discs((30, 40, 12), (30, 60, 12), (30, 100, 9))
    lost = np.argwhere(watershed.apart(two, 5) < two)
    assert (np.abs(lost[:, 1] - 50) <= 1).all() and 13 <= len(lost) <= 15  # 2 sqrt(12^2 - 10^2) = 13 across
    small = discs((30, 40, 16), (30, 62, 8))
    lost = np.argwhere(watershed.apart(small, 5) < small)
    assert len(lost) and np.hypot(*(lost - (30, 40)).T).max() <= 16.5  # from the larger one


def test_the_order_of_a_rule_and_what_a_class_map_does():
    y, x = np.mgrid[:60, :120]
    holed = discs((30, 40, 20)) & (((y - 30) / 8) ** 2 + ((x - 40) / 17) ** 2 > 1)  # two crescents that touch
    p8 = (holed * 200).astype(np.uint8)
    assert count(postprocess.to_mask(p8, Rule(split=5))) == 2
    whole = postprocess.to_mask(p8, Rule(fill_holes=1, split=5))  # holes first: it is one disc
    assert (whole == discs((30, 40, 20))).all()
    two = discs((30, 40, 12), (30, 62, 12), (10, 100, 4))
    p8 = two * 200
    assert count(postprocess.to_mask(p8, Rule(min_area=500))) == 1  # both together are large enough,
    assert count(postprocess.to_mask(p8, Rule(min_area=500, split=5))) == 0  # neither is by itself
    assert postprocess.to_mask(p8, Rule(split=5, keep_largest=1)).sum() == pytest.approx(440, abs=10)
    maps = np.stack([100 - 50 * two, 20 + 150 * two])
    masks = postprocess.to_masks(maps, "multiclass", (0, 1), (Rule(), Rule(split=5)))
    assert count(masks[1]) == 3 and (masks.sum(0) == 0).sum() == two.sum() - masks[1].sum()  # the line is nobody's


def test_rules_of_before_there_was_splitting_are_read(tmp_path):
    old = {"threshold": 0.4, "min_area": 3, "fill_holes": 1, "keep_largest": 0, "top_threshold": 0.0, "top_area": 0}
    assert postprocess.from_json(old, "here") == Rule(0.4, 3, 1)
    new = Rule(0.4, split=7)
    assert postprocess.from_json(json.loads(json.dumps(new.as_json())), "here") == new
    assert "7 px" in str(new) and "cut apart" not in str(Rule())
    for broken in ({**old, "split": -1}, {**old, "split": "x"}, [1], None):
        with pytest.raises(errors.UserError, match="here holds no rule"):
            postprocess.from_json(broken, "here")


LEVELS = st.integers(0, 6).map(lambda step: step * 40)


@given(
    stnp.arrays(np.uint8, (12, 14), elements=LEVELS),
    stnp.arrays(np.bool_, (12, 14)),
    st.none() | stnp.arrays(np.bool_, (12, 14)),
    st.sampled_from(["dsb2018", "airbus"]),
)
@settings(max_examples=15, deadline=None)
def test_values_without_drawing_are_those_of_the_drawn_mask(p8, truth, labeled, name):
    p8 = np.kron(p8, np.ones((2, 2), np.uint8))
    truth, labeled = (
        np.kron(truth, np.ones((2, 2), bool)),
        None if labeled is None else np.kron(labeled, EIGHT[:2, :2]),
    )
    labeled = None if labeled is None else labeled > 0
    rules = rule_trials.candidates(Rule(0.4, 3, 1, 2, 0.6, 4, 3), "binary", "objects", 4000)[::11]
    rules += (Rule(0.4, 3, 1, 2, 0.6, 4, 3), Rule(0.3, 2, 0, 2), Rule(0.3, split=2))
    measure, there = measures.get(name), objects.components(truth)
    there[:, 5] = 0  # true objects need not be the mask's components
    counts, values = rule_sweep.objects_by_rule(p8, truth, there, labeled, rules, measure, "skip")
    assert (counts == rule_sweep.counts_by_rule(p8, truth, labeled, rules)).all()
    for at, rule in enumerate(rules):
        drawn = postprocess.to_mask(p8, rule)
        assert counts[at].tolist() == list(overlap.count(drawn, truth, labeled).values()), rule
        expected = measure.value(drawn, truth, labeled=labeled, truth_objects=there, empty="skip")
        assert values[at] == pytest.approx(expected, abs=1e-12, nan_ok=True), rule


def made_up(values: np.ndarray, splits: list[int]) -> rule_trials.Trials:
    """A table of made-up values (N, R) of rules that cut objects apart by `splits`."""
    rules = tuple(Rule(0.01 * (at + 1), split=split) for at, split in enumerate(splits))
    tp = (values * 1000).round().astype(int)
    return rule_trials.Trials(rules, np.stack([tp, 1000 - tp, 1000 - tp, 0 * tp], axis=-1)[:, None], values[:, None])


def test_the_way_to_objects_is_chosen_on_the_other_folds():
    folds = np.repeat([0, 1, 2], 4)
    values = np.full((12, 3), 0.5)
    values[:, 1] = 0.6
    values[:, 2] = np.where(folds == 0, 1.0, 0.45)  # cutting apart is only good on fold 0
    choice = rule_choice.search(made_up(values, [0, 0, 5]), folds, score_rows.scale("dsb2018", "", "one"))
    assert choice.crossfitted[0] == [1]  # for fold 0 nothing may know that
    assert choice.ways == {"components": {0: [1], 1: [1], 2: [1]}, "watershed": {0: [2], 1: [2], 2: [2]}}
    assert choice.overall == [2] and values[:, 2].mean() > 0.6  # ... and on all of them it is the better way


def test_cutting_apart_needs_to_be_better_out_of_fold_and_not_only_where_it_was_chosen():
    folds = np.repeat([0, 1, 2], 4)
    values = np.full((12, 5), 0.5)
    for fold in range(3):
        values[:, 2 + fold] = np.where(folds == fold, 0.0, 0.9)  # the best without this fold, worthless on it
    values[:, 1] = 0.45
    assert values.mean(0).argmax() == 2  # on the images that it is chosen on, the best rule of all cuts apart
    choice = rule_choice.search(made_up(values, [0, 0, 4, 6, 8]), folds, score_rows.scale("dsb2018", "", "one"))
    assert choice.ways["watershed"] == {0: [2], 1: [3], 2: [4]} and choice.overall == [0]


def test_what_does_not_look_at_objects_never_cuts_apart():
    values = np.array([[0.9, 0.5]] * 4)  # the rule in use cuts apart, and would be the best
    found = rule_choice.search(made_up(values, [5, 0]), np.array([0, 0, 1, 1]), score_rows.scale("dice", "", "one"))
    assert found.overall == [1] and found.crossfitted == {0: [1], 1: [1]} and not found.ways
    for kind in ("counts", "mask"):
        assert not any(rule.split for rule in rule_trials.candidates(Rule(), "binary", kind, 10**5))
    assert any(rule.split for rule in rule_trials.candidates(Rule(), "multiclass", "objects", 10**5))


def test_choosing_a_way_does_not_flatter():
    random, folds, gains = np.random.default_rng(0), np.repeat(np.arange(4), 8), []
    scale = score_rows.scale("dsb2018", "", "one")
    for _ in range(100):
        tried = made_up(random.uniform(0.3, 0.7, (32, 24)), [0] * 12 + [5] * 12)  # no rule is better than another
        choice = rule_choice.search(tried, folds, scale)
        chosen = np.array([choice.crossfitted[fold] for fold in folds.tolist()])
        gains.append(rule_choice.pick(tried, chosen)[1].mean() - 0.5)
    assert abs(np.mean(gains)) < 0.005


def write_cells(of_two: bool) -> None:
    """Twelve images and two to predict, each of a pair of touching discs and a single one.

    of_two: the pair is two objects, else one that has a waist.
    """
    for number in range(14):
        folder = Path("input/cells", "stage1_train" if number < 12 else "stage1_test", f"id{number:02d}")
        pair = [discs((14 + number % 5, column, 8), shape=(48, 64)) for column in (14 + number % 4, 27 + number % 4)]
        pair[1] = pair[1] & ~pair[0] & 1
        single = discs((36, 50, 6), shape=(48, 64))
        image = np.repeat(((pair[0] | pair[1] | single) * 200)[..., None], 3, axis=2).astype(np.uint8)
        (folder / "images").mkdir(parents=True)
        Image.fromarray(image + np.random.default_rng(number).integers(0, 40, image.shape, np.uint8)).save(
            folder / "images" / f"id{number:02d}.png"
        )
        for part, mask in enumerate([*pair, single] if of_two else [pair[0] | pair[1], single]):
            if number < 12:
                write_mask(folder / "masks" / f"{part}.png", mask)


def predict_test(maps: dict[str, np.ndarray]) -> None:
    """A folder of test predictions of all folds' models, as make inference leaves it."""
    found_settings = settings_module.load(CELLS)
    found = out_of_fold.read(found_settings)
    folder = inference_job.prediction_folder(found_settings, "", "")
    for name, p8 in maps.items():
        (path,) = prediction_folders.map_paths(folder, name, found.spec)
        path.parent.mkdir(parents=True)
        Image.fromarray(p8).save(path)
    how = {key: found.provenance[key] for key in ("tta", "tta_mean", "sizes")}
    prediction_folders.write_manifest(folder, "input/cells/stage1_test", list(maps), found.spec, found.models, how)


def union(number, mask) -> np.ndarray:
    return np.where(mask > 0, 240, 10).astype(np.uint8)


def test_touching_objects_become_rows_of_their_own(workplace, capsys):
    write_cells(of_two=True)
    fabricate(CELLS, union)
    capsys.readouterr()
    assert tune.main(CELLS) == 0
    said, tuned = capsys.readouterr().out, json.loads((OOF / "tuned.json").read_text())
    assert tuned["components"]["score"] == pytest.approx((2 / 3 + 9 / 4) / 10)  # both discs in one, which is half of it
    assert tuned["watershed"]["score"] > 0.8 and tuned["crossfitted"]["score"] == tuned["watershed"]["score"]
    for way in ("components", "watershed"):
        assert f"{way}   {tuned[way]['score']:.4f}" in said
    (rule,) = tuned["tuned"]["rules"]
    assert rule["split"] > 0 and "touching objects cut apart" in said
    summary = json.loads((OOF / "summary.json").read_text())
    assert summary["rules"][0].pop("split") == 0  # scores of before there was splitting fit still
    (OOF / "summary.json").write_text(json.dumps(summary))
    assert report.main(CELLS) == 0
    assert "touching objects cut apart" in Path("output/cells/report_cells_seed42.html").read_text()

    maps = {}
    for path in sorted(Path("input/cells/stage1_test").rglob("*.png")):
        foreground = (np.asarray(Image.open(path))[..., 0] >= 100).astype(np.uint8)
        maps[path.relative_to("input/cells/stage1_test").as_posix()] = union(0, foreground)
    predict_test(maps)
    table = Path("output/cells/submission.csv")
    for arguments, expected in (([], 2), (["POSTPROCESS=tuned"], 3), (["SPLIT=5"], 3), (["SPLIT=30"], 2)):
        assert submission.main([*CELLS, *arguments]) == 0
        rows = pd.read_csv(table, dtype=str)
        assert list(rows.columns) == ["ImageId", "EncodedPixels"]
        assert rows["ImageId"].value_counts().to_dict() == {"id12": expected, "id13": expected}, arguments
        for name, p8 in maps.items():
            texts = rows["EncodedPixels"][rows["ImageId"] == Path(name).stem]
            parts = np.stack([rle.decode(text, p8.shape, "F") for text in texts])
            assert parts.sum(0).max() == 1 and (p8 > 128).sum() - parts.sum() <= 20
            assert [count(part) for part in parts] == [1] * expected


def test_objects_with_a_waist_stay_whole(workplace, capsys):
    write_cells(of_two=False)
    fabricate(CELLS, union)
    assert tune.main(CELLS) == 0
    tuned = json.loads((OOF / "tuned.json").read_text())
    assert tuned["components"]["score"] == tuned["crossfitted"]["score"] == 1
    assert tuned["watershed"]["score"] < 0.9 and tuned["tuned"]["rules"][0]["split"] == 0


def test_a_constant_out_of_range_is_refused(workplace, refused):
    refused(tester.main, ["FOLD=0", "SPLIT=-1"], "SPLIT=-1")
    refused(tester.main, ["FOLD=0", "SPLIT=two"], "SPLIT=two")
