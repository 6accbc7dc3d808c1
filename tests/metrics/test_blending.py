"""Weights of an ensemble: the simplex, the least Brier score, members that are equal, useless or perfect, folds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from metrics import stacking
from tools.errors import UserError

SIZE = (24, 30)


def members(random, sharpness, truth):
    """8-bit probabilities (M, H, W) that lean to the truth as strongly as `sharpness` (M,) says, with noise."""
    leaning = np.asarray(sharpness)[:, None, None] * (truth - 0.5) + random.normal(0, 1, (len(sharpness), *truth.shape))
    return np.round(255 / (1 + np.exp(-2 * leaning))).astype(np.uint8)


def example(seed, sharpness, size=SIZE):
    random = np.random.default_rng(seed)
    truth = random.random(size) < 0.4
    return members(random, sharpness, truth), truth


def brier_of(maps, truth, weights, labeled=None):
    """By the definition, for one image."""
    error = (np.tensordot(weights, maps / 255, 1) - truth) ** 2
    return float(error.mean() if labeled is None else error[labeled].mean())


def test_the_gram_knows_the_brier_score_of_any_mean():
    maps, truth = example(0, (1, 2, 3))
    for weights in ([1, 0, 0], [0.2, 0.5, 0.3]):
        expected = brier_of(maps, truth, weights)
        assert stacking.brier(stacking.gram(maps, truth), np.array(weights)) == pytest.approx(expected, abs=1e-12)


def test_blocks_of_pixels_are_one_image(monkeypatch):
    maps, truth = example(1, (1, 3))
    labeled = np.random.default_rng(1).random(SIZE) < 0.5
    whole = stacking.gram(maps, truth, labeled)
    monkeypatch.setattr(stacking, "_BLOCK", 100)
    np.testing.assert_allclose(stacking.gram(maps, truth, labeled).products, whole.products, rtol=1e-12)


def test_pixels_without_a_label_count_nowhere():
    maps, truth = example(2, (1, 2))
    labeled = np.zeros(SIZE, bool)
    labeled[:10] = True
    changed = truth ^ ~labeled
    gram, same = stacking.gram(maps, truth, labeled), stacking.gram(maps, changed, labeled)
    assert (gram.products == same.products).all() and gram.count == 1
    assert stacking.brier(gram, np.array([0.5, 0.5])) == pytest.approx(brier_of(maps, truth, [0.5, 0.5], labeled))
    nothing = stacking.gram(maps, truth, np.zeros(SIZE, bool))
    assert nothing.count == 0 and not nothing.products.any()
    assert (stacking.weights(nothing) == 0.5).all()


def test_each_image_weighs_the_same_whatever_its_size():
    small, large = example(3, (0.5, 3), (8, 8)), example(4, (3, 0.5), (64, 64))
    both = stacking.gram(*small) + stacking.gram(*large)
    weights = np.array([0.7, 0.3])
    expected = (brier_of(*small, weights) + brier_of(*large, weights)) / 2
    assert both.count == 2
    assert stacking.brier(both, weights) == pytest.approx(expected, abs=1e-12)
    assert 0.25 < stacking.weights(both)[0] < 0.75  # by pixels the large image's better member would have nearly all


@given(st.integers(0, 10_000), st.lists(st.floats(-1, 5), min_size=1, max_size=7))
def test_weights_are_on_the_simplex_and_never_worse_than_one_member_or_the_equal_mean(seed, sharpness):
    gram = stacking.gram(*example(seed, sharpness, (9, 11)))
    weights = stacking.weights(gram)
    assert weights.shape == (len(sharpness),) and (weights >= 0).all() and weights.sum() == pytest.approx(1, abs=1e-12)
    others = [*np.eye(len(sharpness)), np.full(len(sharpness), 1 / len(sharpness))]
    best = min(stacking.brier(gram, other) for other in others)
    assert stacking.brier(gram, weights) <= best + 1e-8


@given(st.integers(0, 10_000), st.integers(2, 6))
def test_weights_agree_with_a_general_optimizer(seed, count):
    sharpness = np.random.default_rng(seed).uniform(0, 4, count)
    gram = stacking.gram(*example(seed, sharpness, (9, 11)))
    found = minimize(
        lambda w: 100 * w @ gram.products @ w,
        np.full(count, 1 / count),
        jac=lambda w: 200 * gram.products @ w,
        bounds=[(0, 1)] * count,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found.success
    np.testing.assert_allclose(stacking.weights(gram), found.x, atol=1e-4)


def test_two_members_by_hand():
    # errors 1/5 and 4/5 at one pixel each, nothing else: 0.04 w^2 + 0.64 (1 - w)^2 is least at w = 16/17
    maps, truth = np.array([[[51, 0]], [[0, 204]]], np.uint8), np.zeros((1, 2), bool)
    np.testing.assert_allclose(stacking.weights(stacking.gram(maps, truth)), [16 / 17, 1 / 17], atol=1e-8)


def test_members_that_are_the_same_share_their_weight():
    maps, truth = example(5, (1.5, 2))
    alone = stacking.weights(stacking.gram(maps, truth))
    thrice = stacking.weights(stacking.gram(maps[[0, 1, 0, 0]], truth))
    np.testing.assert_allclose(thrice[[0, 2, 3]], alone[0] / 3, atol=1e-5)
    assert thrice[1] == pytest.approx(alone[1], abs=1e-5)
    np.testing.assert_allclose(stacking.weights(stacking.gram(maps[[0] * 5], truth)), 0.2, atol=1e-5)


@pytest.mark.parametrize("level", [0, 100, 255])
def test_a_constant_member_gets_nothing_beside_good_ones(level):
    random = np.random.default_rng(6)
    probability = random.random((60, 60))
    truth = random.random((60, 60)) < probability  # what the good members say is calibrated
    good = np.clip(probability + random.normal(0, 0.02, (2, 60, 60)), 0, 1) * 255
    maps = np.concatenate([np.round(good), np.full((1, 60, 60), level)]).astype(np.uint8)
    weights = stacking.weights(stacking.gram(maps, truth))
    assert weights[2] < 0.05
    assert min(weights[:2]) > 0.2


def test_a_perfect_member_gets_everything_and_two_of_them_share_it():
    maps, truth = example(7, (1, 4, 2))
    maps[1] = truth * 255
    np.testing.assert_allclose(stacking.weights(stacking.gram(maps, truth)), [0, 1, 0], atol=1e-6)
    maps[2] = maps[1]
    np.testing.assert_allclose(stacking.weights(stacking.gram(maps, truth)), [0, 0.5, 0.5], atol=1e-6)
    np.testing.assert_allclose(stacking.weights(stacking.gram(maps[1:], truth)), [0.5, 0.5])  # nothing errs at all


def test_a_folds_weights_are_the_other_folds_choice():
    grams = {fold: stacking.gram(*example(fold, sharpness)) for fold, sharpness in enumerate([(4, 0), (2, 2), (0, 4)])}
    chosen = stacking.crossfitted(grams)
    assert list(chosen) == [0, 1, 2]
    np.testing.assert_allclose(chosen[0], stacking.weights(grams[1] + grams[2]))
    spoilt = {**grams, 0: stacking.gram(*example(9, (0, 9)))}
    assert (stacking.crossfitted(spoilt)[0] == chosen[0]).all()
    assert np.abs(stacking.crossfitted(spoilt)[2] - chosen[2]).max() > 0.1
    with pytest.raises(UserError, match="1 folds"):
        stacking.crossfitted({0: grams[0]})


def test_the_blend_is_the_rounded_mean():
    maps = [np.array([[[0, 10, 255]]], np.uint8), np.array([[[1, 20, 255]]], np.uint8)]
    assert stacking.blend(maps, [0.5, 0.5]).tolist() == [[[1, 15, 255]]]
    assert stacking.blend(maps, [0.75, 0.25]).tolist() == [[[0, 13, 255]]]  # 12.5 goes up, as 0.5 did
    assert stacking.blend(maps, [0.0, 1.0]).tolist() == maps[1].tolist()
    assert stacking.blend(maps, np.array([0.5, 0.5])).dtype == np.uint8


@given(st.integers(0, 10_000), st.integers(1, 6))
def test_a_blend_of_the_same_maps_is_that_map(seed, count):
    random = np.random.default_rng(seed)
    p8 = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    assert (stacking.blend([p8] * count, random.dirichlet(np.ones(count))) == p8).all()


def test_what_does_not_fit_together_is_refused():
    maps = [np.zeros((1, 4, 4), np.uint8), np.zeros((1, 4, 5), np.uint8)]
    with pytest.raises(UserError, match="1 x 4 x 4, 1 x 4 x 5"):
        stacking.blend(maps, [0.5, 0.5])
    for weights in ([1.0], [0.5, 0.6], [1.5, -0.5], [float("nan"), 0.5]):
        with pytest.raises(UserError, match="expected 2 numbers"):
            stacking.blend(maps[:1] * 2, weights)
    with pytest.raises(UserError, match="4 x 4 pixels and the mask has 4 x 5"):
        stacking.gram(np.zeros((2, 4, 4), np.uint8), np.zeros((4, 5), bool))
