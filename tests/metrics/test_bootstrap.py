"""Intervals hold the truth as often as they say, in simulated worlds whose truth is known."""

from functools import cache

import numpy as np
import pytest

from metrics.bootstrap import effective_groups, group_weights, interval, score_interval


def image_mean(counts, values, weights):
    """The mean over images that are not skipped, then over classes."""
    kept = np.isfinite(values)
    return (weights @ np.where(kept, values, 0) / (weights @ kept)).mean(1)


def pooled_dice(counts, values, weights):
    """One ratio over all images' pixels, then the mean over classes."""
    tp, fp, fn, _ = np.moveaxis(np.tensordot(weights, counts, axes=1), 2, 0)  # (B, S) each
    return (2 * tp / (2 * tp + fp + fn)).mean(1)


def draw_world(seed, groups):
    """Left-skewed Dice of images in groups of unequal size that share their difficulty: counts, values, groups."""
    rng = np.random.default_rng(seed)
    sizes = 1 + rng.negative_binomial(2, 0.22, groups)  # mean 8, from 1 to about 40
    group = np.repeat(np.arange(groups), sizes)
    difficulty = rng.normal(0, 0.5, groups)[group]
    expected = 1 / (1 + np.exp(-(2 + difficulty)))  # 0.88 for a usual group
    dice = rng.beta(14 * expected, 14 * (1 - expected))
    area = np.exp(rng.normal(7, 0.8, len(group)) + 0.3 * difficulty)
    tp, errors = np.rint(area * dice), np.rint(2 * area * (1 - dice))
    fp = rng.binomial(errors.astype(int), 0.5)
    counts = np.stack([tp, fp, errors - fp, np.full_like(tp, 10**5)], axis=1)[:, None].astype(int)  # (N, 1, 4)
    values = 2 * counts[..., 0] / (2 * counts[..., 0] + errors[:, None])
    return counts, values, group


@cache
def truth(total):
    """The score of a world without end."""
    counts, values, group = draw_world(1, 200_000)
    return total(counts, values, np.ones((1, len(group))))[0]


def coverage(total, groups, worlds, resampled=lambda group: group):
    """The share of worlds whose interval holds the truth."""
    expected, held = truth(total), 0
    for seed in range(worlds):
        counts, values, group = draw_world(1000 + seed, groups)
        _, low, high = score_interval(total, counts, values, resampled(group), draws=1000, seed=seed)
        held += low <= expected <= high
    return held / worlds


@pytest.mark.parametrize("total", [image_mean, pooled_dice])
def test_an_interval_holds_the_truth_in_95_of_100_worlds(total):
    assert 0.925 <= coverage(total, 40, 200) <= 0.985


@pytest.mark.slow
@pytest.mark.parametrize("groups", [25, 40, 60])
@pytest.mark.parametrize("total", [image_mean, pooled_dice])
def test_coverage_of_a_thousand_worlds(total, groups):
    assert 0.93 <= coverage(total, groups, 1000) <= 0.97


def test_resampling_single_images_promises_far_too_much():
    assert coverage(image_mean, 40, 100, lambda group: np.arange(len(group))) < 0.88


def test_images_of_a_group_are_drawn_together():
    group = np.array(["b", "a", "b", "c", "a", "b"])
    weights = group_weights(group, draws=4000, seed=3)
    assert weights.shape == (4000, 6)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 0] == weights[:, 5]).all()
    assert (weights[:, 1] == weights[:, 4]).all()
    assert (weights[:, [0, 1, 3]].sum(1) == 3).all()
    assert weights.mean(0) == pytest.approx(np.ones(6), abs=0.05)
    assert weights[:, 0].var() == pytest.approx(2 / 3, abs=0.05)  # binomial, 3 of 1/3


def test_weights_are_a_function_of_their_arguments():
    group = np.repeat(np.arange(9), 2)
    assert (group_weights(group, 20, 5) == group_weights(group, 20, 5)).all()
    assert (group_weights(group, 20, 5) != group_weights(group, 20, 6)).any()


def test_unequal_groups_say_less():
    assert effective_groups(["a", "b", "c", "c"]) == pytest.approx(16 / 6)
    assert effective_groups(list("aabbcc")) == pytest.approx(3)


def test_few_groups_and_a_higher_level_widen():
    drawn = np.random.default_rng(0).normal(0.8, 0.1, 20_000)
    widths = [np.ptp(interval(0.8, drawn, groups, level)) for groups, level in ((1000, 0.9), (1000, 0.95), (8, 0.95))]
    assert widths == pytest.approx([0.329, 0.392, 0.506], rel=0.04)  # 2 * (1.645, 1.96, 2.36 * sqrt(8 / 7)) * 0.1


def test_the_longer_tail_gets_more():
    drawn = 1 - np.random.default_rng(0).gamma(9, 0.01, 20_000)
    low, high = interval(0.91, drawn, 1000)
    plain = np.quantile(drawn, [0.025, 0.975])
    assert low < plain[0]
    assert high < plain[1]


def test_one_group_has_no_interval():
    counts, values, _ = draw_world(0, 3)
    estimate, low, high = score_interval(image_mean, counts, values, np.zeros(len(values)))
    assert estimate == pytest.approx(values.mean())
    assert np.isnan([low, high]).all()


@pytest.mark.parametrize("groups", [3, 4])
def test_the_interval_of_a_few_groups_is_wide_enough(groups):
    """Percentiles of the draws alone would hold the truth in 74 and 86%."""
    assert 0.91 <= coverage(image_mean, groups, 150) <= 1


def test_as_good_as_one_group_is_one_group():
    group = np.repeat([0, 1], [1, 300])
    values = np.linspace(0.5, 0.9, len(group))[:, None]
    estimate, low, high = score_interval(image_mean, np.zeros((len(group), 1, 4), int), values, group)
    assert estimate == pytest.approx(0.7)
    assert np.isnan([low, high]).all()


def test_draws_without_a_score_are_left_out_and_equal_scores_have_no_width():
    drawn = np.array([0.7, np.nan, 0.9, 0.8, np.nan])
    low, high = interval(0.8, drawn, 8)
    assert 0.7 <= low < high <= 0.9
    assert interval(1.0, np.ones(100), 5) == interval(1.0, np.ones(100), 8) == (1.0, 1.0)
    assert np.isnan(interval(float("nan"), np.full(100, np.nan), 5)).all()
