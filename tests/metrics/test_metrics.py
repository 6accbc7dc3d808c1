"""Counts and scores against scikit-learn, the policies of empty masks, thresholds and areas."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp
from sklearn import metrics as sk

from metrics import overlap
from prediction import postprocess
from prediction.postprocess import Rule

PAIR = stnp.arrays(np.uint8, (2, 5, 7), elements=st.integers(0, 1))


@given(PAIR)
def test_scores_agree_with_sklearn(pair):
    prediction, truth = pair
    counts = overlap.count(prediction, truth)
    confusion = sk.confusion_matrix(truth.ravel(), prediction.ravel(), labels=[0, 1]).ravel().tolist()
    assert [counts["tn"], counts["fp"], counts["fn"], counts["tp"]] == confusion
    ours = overlap.scores(counts["tp"], counts["fp"], counts["fn"], "one")
    if prediction.any() or truth.any():
        arguments = (truth.ravel(), prediction.ravel())
        assert ours["dice"] == pytest.approx(sk.f1_score(*arguments, zero_division=0), abs=1e-9)
        assert ours["iou"] == pytest.approx(sk.jaccard_score(*arguments, zero_division=0), abs=1e-9)
        assert ours["precision"] == pytest.approx(sk.precision_score(*arguments, zero_division=0), abs=1e-9)
        assert ours["recall"] == pytest.approx(sk.recall_score(*arguments, zero_division=0), abs=1e-9)
    else:
        assert all(value == 1 for value in ours.values())


@pytest.mark.parametrize(("policy", "mean"), [("one", 0.75), ("zero", 0.25), ("skip", 0.5)])
def test_the_empty_policy_decides_what_an_empty_pair_is_worth(policy, mean):
    tp, fp, fn = np.array([1, 0]), np.array([1, 0]), np.array([1, 0])  # Dice 0.5, and an empty pair
    summary = overlap.summarize(tp, fp, fn, policy)
    assert summary["image"]["dice"] == pytest.approx(mean)
    assert summary["pooled"]["dice"] == pytest.approx(0.5)


def test_nothing_but_skipped_images_is_no_number():
    zeros = np.zeros(3, int)
    assert np.isnan(overlap.summarize(zeros, zeros, zeros, "skip")["image"]["dice"])


@given(st.floats(0.01, 1.0) | st.integers(1, 255).map(lambda p8: p8 / 255))
def test_the_integer_level_is_the_threshold(threshold):
    p8 = np.arange(256)
    np.testing.assert_array_equal(p8 >= postprocess.level(threshold), p8 / 255 >= threshold - 1e-9)


def test_small_objects_are_removed_and_large_ones_stay():
    p8 = np.zeros((6, 6), np.uint8)
    p8[0, 0] = p8[3:5, 3:5] = 255
    assert postprocess.to_mask(p8, Rule(0.5)).sum() == 5
    assert postprocess.to_mask(p8, Rule(0.5, min_area=2)).sum() == 4
    assert postprocess.to_mask(p8, Rule(0.5, min_area=5)).sum() == 0


def test_probabilities_are_rounded_to_eight_bits():
    assert postprocess.to_p8(np.array([0, 0.5, 0.998, 1], np.float32)).tolist() == [0, 128, 254, 255]
