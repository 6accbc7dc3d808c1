"""Verdicts between experiments, in simulated repetitions whose truth is known."""

import warnings
from dataclasses import asdict, replace
from functools import cache

import numpy as np
import pytest
from test_bootstrap import image_mean, pooled_dice

from metrics.bootstrap import group_weights
from metrics.paired_comparison import MORE, POWER, _seeds_needed, compare, sentence
from metrics.variance_components import Spread, _degrees, of_recipes, side
from tools.errors import UserError

WORLDS, DRAWS = 100, 300
FOLDS = 5


def draw_world(rng, seeds, *, groups=40, size=6, run=0.01, noise=0.03, taste=0.01, shared=0.0, real=0.0):
    """Two recipes over the same images: runs of A, runs of B, folds, groups, and the difference of these very runs.

    Groups and images have a difficulty that both recipes feel. run: the spread of what a recipe, fold and seed adds to
    all images; noise: to one; taste: what a recipe adds to a group; shared: what a seed adds to all folds; real: what B
    has over A.
    """
    group = np.repeat(np.arange(groups), rng.integers(1, 2 * size, groups))
    folds = (np.arange(groups) % FOLDS)[group]
    images = len(group)
    common = 0.9 - np.abs(rng.normal(0, 0.12, groups))[group] - np.abs(rng.normal(0, 0.08, images))
    sides, gains = [], []
    for number, recipe in zip(seeds, (0, real), strict=True):
        liking = rng.normal(0, taste, groups)[group]
        runs = rng.normal(0, run, (number, FOLDS)) + rng.normal(0, shared, (number, 1))
        dice = (common + recipe + liking + runs[:, folds] + rng.normal(0, noise, (number, images))).clip(0, 1)
        sides.append([as_run(one) for one in dice])
        gains.append(recipe + runs[:, folds].mean())
    return *sides, folds, group, gains[1] - gains[0]


def as_run(dice):
    """Dice (N,) -> counts (N, 1, 4) of 1000 true pixels and as many predicted ones, and values (N, 1)."""
    tp = np.rint(1000 * dice).astype(int)
    return np.stack([tp, 1000 - tp, 1000 - tp, np.full_like(tp, 9000)], axis=1)[:, None], dice[:, None]


@cache
def verdicts(seeds, worlds=WORLDS, total=image_mean, **world):
    rng, found = np.random.default_rng(42), []
    for number in range(worlds):
        *inputs, gain = draw_world(rng, seeds, **world)
        found.append((compare(total, *inputs, draws=DRAWS, seed=number), gain))
    return found


def told(seeds, **world):
    """The share of worlds in which the two are told apart."""
    words = [verdict.word for verdict, _ in verdicts(seeds, **world)]
    return 1 - words.count("not distinguishable") / len(words)


def naive(seeds, worlds=WORLDS):
    """The share in which equal recipes seem different where only groups are resampled."""
    rng, wrong = np.random.default_rng(42), 0
    for number in range(worlds):
        a, b, folds, group, _ = draw_world(rng, seeds)
        drawn_a, drawn_b = (side(image_mean, runs, folds, group_weights(group, DRAWS, number)).drawn for runs in (a, b))
        low, high = np.quantile(drawn_b.mean(0) - drawn_a.mean(0), [0.025, 0.975])
        wrong += low > 0 or high < 0
    return wrong / worlds


@pytest.mark.parametrize("seeds", [(3, 3), (2, 2), (2, 4)])
def test_equal_recipes_are_rarely_told_apart(seeds):
    assert told(seeds) <= 0.07


@pytest.mark.parametrize("seeds", [(3, 3), (2, 2), (1, 1)])
def test_resampling_groups_alone_tells_equal_recipes_apart(seeds):
    assert naive(seeds) > 0.15


def test_seeds_that_score_alike_in_all_folds_are_noticed():
    assert told((3, 3), run=0.005, shared=0.01) <= 0.1
    a, b, folds, group, _ = draw_world(np.random.default_rng(0), (3, 3), run=0.001, shared=0.02)
    assert "whole seeds" in compare(image_mean, a, b, folds, group, draws=DRAWS).note


def test_pooled_scores_too():
    assert told((3, 3), total=pooled_dice, worlds=100) <= 0.07
    assert told((3, 3), total=pooled_dice, worlds=20, real=0.03) >= 0.9


def test_the_difference_of_two_runs_lies_in_their_interval():
    held = [verdict.low <= gain <= verdict.high for verdict, gain in verdicts((1, 1))]
    assert 0.91 <= np.mean(held) <= 0.99


def test_a_difference_of_two_standard_errors_of_a_score_is_found():
    """Of a recipe's own score, as its own interval shows it: about 0.02 here, since pairing takes out the images."""
    rng = np.random.default_rng(0)
    own = [score_error(rng) for _ in range(20)]
    assert told((3, 3), real=2 * np.mean(own), worlds=100) >= 0.9


def score_error(rng):
    a, _, folds, group, _ = draw_world(rng, (3, 3))
    return side(image_mean, a, folds, group_weights(group, DRAWS, 0)).drawn.mean(0).std()


def test_the_standard_error_is_the_spread_over_repetitions():
    found = [verdict for verdict, _ in verdicts((3, 3))]
    claimed = np.sqrt(np.mean([verdict.standard_error**2 for verdict in found]))
    assert claimed == pytest.approx(np.std([verdict.difference for verdict in found]), rel=0.15)


def test_shares_say_what_more_seeds_would_change():
    loud = np.mean([verdict.shares["seeds"] for verdict, _ in verdicts((3, 3), worlds=40, run=0.03)])
    quiet = np.mean([verdict.shares["seeds"] for verdict, _ in verdicts((3, 3), worlds=40, run=0.001, taste=0.04)])
    assert loud > 0.8
    assert quiet < 0.2


def test_variances_of_each_side():
    found = [verdict for verdict, _ in verdicts((4, 2), worlds=100, run=0.03, noise=0, taste=0)]
    assert np.mean([one.variances["a"]["seeds"] for one in found]) == pytest.approx(0.03**2 / FOLDS, rel=0.25)
    assert np.mean([one.variances["b"]["folds"] for one in found]) > 0.03**2 / 2
    assert compare(image_mean, *plain((1, 3))).variances.keys() == {"b"}


def plain(seeds, seed=0, **world):
    return draw_world(np.random.default_rng(seed), seeds, **world)[:4]


def test_so_many_seeds_find_the_difference_in_four_of_five_comparisons():
    """The variance is 2 * 0.02^2 / 5 with one seed a side; with 4, (2.04 + 0.85)^2 times a fourth of it is 0.018^2."""
    spread = Spread(images=1e-9, seeds=0.0, one_seed=2 * 0.02**2 / FOLDS, degrees=30)
    assert [_seeds_needed(size, spread, 40, FOLDS, 0.95)[0] for size in (0.1, 0.02, 0.01)] == [2, 4, 13]
    assert _seeds_needed(0.001, spread, 40, FOLDS, 0.95) == (None, MORE)
    assert told((4, 4), run=0.02, real=0.02, noise=0.001, taste=0) == pytest.approx(POWER, abs=0.12)


def test_runs_noise_is_read_off_the_folds_of_one_seed():
    loud, quiet = (
        [verdict.seeds_needed or 101 for verdict, _ in verdicts((1, 1), worlds=60, run=run, real=0.03, taste=0)]
        for run in (0.03, 0.002)
    )
    assert quiet.count(2) > 45
    assert loud.count(2) < 30
    assert np.mean(loud) > 10


def test_no_number_of_seeds_helps_where_images_are_too_few():
    verdict = compare(image_mean, *plain((1, 1), run=0.0001, taste=0.05))
    assert verdict.seeds_needed is None
    assert "on so few images" in verdict.note


def test_a_side_with_one_seed_speaks_of_runs():
    verdict = compare(image_mean, *plain((1, 3), real=0.03))
    assert verdict.about == "runs"
    assert verdict.seeds == (1, 3)
    assert verdict.shares == {}
    assert compare(image_mean, *plain((2, 3))).about == "recipes"


def test_the_difference_is_that_of_the_mean_scores_and_each_fold_has_its_own():
    a, b, folds, group = plain((2, 3))
    verdict = compare(image_mean, a, b, folds, group, draws=DRAWS)
    means = [np.mean([values for _, values in runs], axis=0)[:, 0] for runs in (a, b)]
    assert verdict.scores == pytest.approx([means[0].mean(), means[1].mean()])
    assert verdict.difference == pytest.approx(means[1].mean() - means[0].mean())
    assert list(verdict.folds) == [0, 1, 2, 3, 4]
    assert verdict.folds[3] == pytest.approx((means[1] - means[0])[folds == 3].mean())


@pytest.mark.parametrize("seeds", [(1, 1), (3, 3)])
def test_better_and_worse_follow_the_metric_and_the_order(seeds):
    a, b, folds, group = plain(seeds, real=0.05)
    forth, back = compare(image_mean, a, b, folds, group), compare(image_mean, b, a, folds, group)
    assert (forth.word, back.word) == ("better", "worse")
    assert compare(image_mean, a, b, folds, group, higher=False).word == "worse"
    assert back.difference == pytest.approx(-forth.difference)
    assert forth.low <= forth.difference <= forth.high


@pytest.mark.parametrize("number", [1, 3])
def test_equal_inputs_are_not_distinguishable(number):
    a, _, folds, group = plain((number, number))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        verdict = compare(image_mean, a, list(reversed(a)), folds, group, draws=DRAWS)
    assert verdict.word == "not distinguishable"
    assert verdict.difference == pytest.approx(0, abs=1e-12)
    assert np.isfinite([verdict.low, verdict.high]).all()
    assert verdict.seeds_needed is None
    assert "no difference" in verdict.note


def test_a_rounding_error_is_no_difference():
    a, _, folds, group = plain((1, 1))
    b = [(counts, values + 1e-14) for counts, values in a]
    assert compare(image_mean, a, b, folds, group, draws=DRAWS).word == "not distinguishable"


def test_degrees_of_freedom():
    assert _degrees(0.0, [(0.0, 30)], [(2.0, 4)]) == pytest.approx(4)
    assert _degrees(3.0, [(3.0, 30)], [(0.0, 1)]) == pytest.approx(30)
    assert 4 < _degrees(1.0, [(1.0, 30)], [(1.0, 4)]) < 34
    assert _degrees(0.0, [(0.0, 30)], [(0.0, 1)]) == 30


def test_one_seed_a_side_would_vary_as_often_as_seeds_were_averaged():
    a, b, folds, group = plain((3, 3))
    sides = [side(image_mean, runs, folds, group_weights(group, DRAWS)) for runs in (a, b)]
    spread = of_recipes(sides, sides[1].drawn.mean(0) - sides[0].drawn.mean(0), 40)
    assert spread.one_seed == pytest.approx(3 * spread.seeds)


def test_two_constant_scores():
    ones, zeros = ([as_run(np.full(20, score))] * 2 for score in (1.0, 0.0))
    folds, group = np.arange(20) % 2, np.arange(20)
    verdict = compare(image_mean, zeros, ones, folds, group, draws=DRAWS)
    assert (verdict.difference, verdict.low, verdict.high, verdict.word) == (1, 1, 1, "better")


@pytest.mark.parametrize("number", [1, 2])
def test_one_group_or_one_fold_says_what_cannot_be_said(number):
    a, b, folds, group = plain((number, number), real=0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alone = compare(image_mean, a, b, folds, np.zeros_like(group), draws=DRAWS)
        fold = compare(image_mean, a, b, np.zeros_like(folds), group, draws=DRAWS)
    assert alone.word == "not distinguishable"
    assert np.isnan([alone.low, alone.high]).all()
    assert "With one group" in sentence(alone, "A", "B", "dice")
    assert fold.word == "better"
    assert ("One fold" in fold.note) == (number == 1)


def test_a_fold_with_one_group_hides_how_runs_vary():
    a, b, folds, group = plain((1, 1), real=0.05)
    verdict = compare(image_mean, a, b, folds, np.where(folds == 2, 2, group), draws=DRAWS)
    assert verdict.seeds_needed is None
    assert "fold with one group" in verdict.note


def test_nothing_to_score():
    a, b, folds, group = plain((1, 1))
    verdict = compare(lambda counts, values, weights: np.full(len(weights), np.nan), a, b, folds, group, draws=DRAWS)
    assert verdict.word == "not distinguishable"
    assert "No image" in verdict.note


def test_other_images_are_refused():
    a, b, folds, group = plain((1, 1))
    with pytest.raises(UserError, match="image by image"):
        compare(image_mean, a, [tuple(part[1:] for part in b[0])], folds, group)


def test_one_seed_a_side_only_speaks_of_runs():
    text = sentence(compare(image_mean, *plain((1, 1), real=0.05)), "plain", "augmented", "dice")
    assert "These runs: augmented is better than plain" in text
    assert "With one seed of plain and of augmented, nothing is said about the recipes" in text
    assert "seeds a side would tell" in text
    mixed = sentence(compare(image_mean, *plain((1, 3))), "plain", "augmented", "dice")
    assert "With one seed of plain, nothing" in mixed
    assert "ahead in 5 of 5 folds" in text


def test_repeated_seeds_speak_of_recipes():
    verdict = compare(image_mean, *plain((3, 3), real=0.05))
    text = sentence(verdict, "plain", "augmented", "dice")
    assert "As recipes: augmented is better than plain" in text
    assert f"{verdict.low:+.4f} to {verdict.high:+.4f}" in text
    behind = sentence(replace(verdict, higher=False, word="worse"), "plain", "augmented", "hd95")
    assert "worse than plain" in behind
    assert "ahead in 0 of 5 folds" in behind


def test_a_verdict_is_a_function_of_its_arguments():
    inputs = plain((2, 2))
    assert asdict(compare(image_mean, *inputs, seed=1)) == asdict(compare(image_mean, *inputs, seed=1))
    assert compare(image_mean, *inputs, seed=1).low != compare(image_mean, *inputs, seed=2).low
