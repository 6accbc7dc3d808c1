"""Rules from probability to mask: counted as they are drawn, chosen on the other folds, used where they were tuned."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp

import inference
import submission
import tester
import tune
from conftest import TINY
from metrics import overlap
from prediction import postprocess
from prediction.postprocess import Rule
from scoring import rule_choice, rule_sweep, rule_trials, score_rows
from tools.files import write_json

OOF = Path("lightning_logs/demo/oof_seed42")
LEVELS = st.integers(0, 6).map(lambda step: step * 40)


@given(
    stnp.arrays(np.uint8, (9, 11), elements=LEVELS),
    stnp.arrays(np.bool_, (9, 11)),
    st.none() | stnp.arrays(np.bool_, (9, 11)),
)
@settings(max_examples=40, deadline=None)
def test_counts_without_drawing_are_those_of_the_drawn_mask(p8, truth, labeled):
    rules = rule_trials.candidates(Rule(0.4, 3, 1, 2, 0.6, 4), "binary", "counts", 4000)
    rules += (Rule(0.3, 2, 1, 1), Rule(0.3, 5, 0, 2), Rule(0.3, split=2), Rule(0.3, 2, 1, 1, 0.5, 9, 2))
    counted = rule_sweep.counts_by_rule(p8, truth, labeled, rules)
    for rule, counts in zip(rules, counted, strict=True):
        drawn = overlap.count(postprocess.to_mask(p8, rule), truth, labeled)
        assert counts.tolist() == list(drawn.values()), rule


RING = np.pad(np.pad(np.zeros((2, 2)), 1, constant_values=1), 2).astype(np.uint8)  # a ring of 12 with a hole of 4


def test_each_part_of_a_rule_does_what_it_says():
    mask = RING.copy()
    mask[0, 0] = mask[7, 7] = mask[6, 7] = 1
    p8 = mask * 200
    assert postprocess.to_mask(p8, Rule()).sum() == 15
    assert postprocess.to_mask(p8, Rule(fill_holes=1)).sum() == 19
    assert postprocess.to_mask(p8, Rule(min_area=2)).sum() == 14
    assert postprocess.to_mask(p8, Rule(min_area=2, fill_holes=1, keep_largest=1)).sum() == 16
    assert postprocess.to_mask(p8, Rule(keep_largest=2)).sum() == 14
    assert postprocess.to_mask(p8, Rule(top_threshold=0.7, top_area=15)).sum() == 15
    assert postprocess.to_mask(p8, Rule(top_threshold=0.7, top_area=16)).sum() == 0
    assert postprocess.to_mask(p8, Rule(top_threshold=0.9, top_area=1)).sum() == 0


def test_a_hole_that_touches_the_border_or_opens_diagonally_is_filled_only_if_closed():
    open_ring = RING.copy()
    open_ring[2, 3] = 0  # a gap in the ring: its inside is outside
    assert postprocess.without_holes(open_ring).sum() == 11
    diagonal = RING.copy()
    diagonal[2, 2] = 0  # a missing corner: 8-connected objects close what 4-connected background cannot pass
    assert postprocess.without_holes(diagonal).sum() == 15


def table_of(dices: np.ndarray) -> rule_trials.Trials:
    """A table of made-up Dice values (N, R), in counts of 1000 pixels."""
    tp = (dices * 1000).round().astype(int)
    counts = np.stack([tp, 1000 - tp, 1000 - tp, 0 * tp], axis=-1)[:, None]
    return rule_trials.Trials(tuple(Rule(0.01 * (at + 1)) for at in range(dices.shape[1])), counts, dices[:, None])


SCALE = score_rows.scale("dice", "", "one")


@pytest.mark.main
def test_what_is_used_on_a_fold_was_chosen_on_the_others():
    folds = np.repeat([0, 1, 2], 4)
    dices = np.full((12, 4), 0.5)
    for fold in range(3):
        dices[folds == fold, 1 + fold] = 0.9  # each fold has its own best rule, worthless elsewhere
    choice = rule_choice.search(table_of(dices), folds, SCALE)
    for fold, (best,) in choice.crossfitted.items():
        assert best != 1 + fold
    assert choice.overall == [1]  # all three are equally good on all: the simplest


def test_tuning_on_everything_flatters_and_cross_fitting_does_not():
    random, folds = np.random.default_rng(0), np.repeat(np.arange(5), 8)
    gains = []
    for _ in range(200):
        tried = table_of(random.uniform(0.3, 0.7, (40, 60)))  # no rule is better than another
        choice = rule_choice.search(tried, folds, SCALE)
        chosen = np.array([choice.crossfitted[fold] for fold in folds.tolist()])
        honest = rule_choice.pick(tried, chosen)[1].mean()
        gains.append((choice.scores[0, choice.overall[0]] - 0.5, honest - 0.5))
    flattered, honest = np.mean(gains, axis=0)
    assert flattered > 0.02
    assert abs(honest) < 0.005


def test_less_is_better_for_distances():
    tried = table_of(np.array([[0.5, 0.2, 0.9]] * 4))
    choice = rule_choice.search(tried, np.array([0, 0, 1, 1]), score_rows.scale("hd95", "", "one"))
    assert choice.overall == [1]


def test_tune_writes_three_numbers_and_the_rule_goes_where_it_was_tuned(trained, refused, capsys):
    assert tune.main(TINY) == 0
    said = capsys.readouterr().out
    found = json.loads((OOF / "tuned.json").read_text())
    summary = json.loads((OOF / "summary.json").read_text())
    assert found["untuned"]["score"] == pytest.approx(summary["score"]["model"])
    assert found["tuned"]["score"] >= max(found["untuned"]["score"], found["crossfitted"]["score"]) - 1e-12
    assert found["optimism"] == pytest.approx(found["tuned"]["score"] - found["crossfitted"]["score"])
    assert set(found["crossfitted"]["rules"]) == {"0", "1"}
    assert f"{found['crossfitted']['score']:.4f}" in said and "believe this one" in said

    assert inference.main([*TINY, "POSTPROCESS=tuned"]) == 0
    assert submission.main([*TINY, "POSTPROCESS=tuned"]) == 0
    assert json.loads(Path("output/demo/submission.json").read_text())["rules"] == found["tuned"]["rules"]
    for main, argument, word in (
        (inference.main, "FOLD=0", "the set of models"),
        (inference.main, "TTA=flips", "TTA: none there, flips here"),
        (tester.main, "OOF=1", "chosen on them"),
        (tune.main, "EMPTY=one", "chosen on them"),
    ):
        refused(main, [*TINY, "POSTPROCESS=tuned", argument], word)
    inference.main([*TINY, "FOLD=1"])
    refused(submission.main, [*TINY, "POSTPROCESS=tuned", "FOLD=1"], "the set of models")
    write_json(OOF / "tuned.json", {**found, "tuned": {"rules": [{"threshold": 7}]}})
    refused(submission.main, [*TINY, "POSTPROCESS=tuned"], "tuned.json", "no rule")


def test_the_score_of_a_tuned_rule_is_that_of_its_masks(trained, capsys):
    assert tune.main([*TINY, "METRIC=iou"]) == 0
    found = json.loads((OOF / "tuned.json").read_text())
    rule = found["tuned"]["rules"][0]
    arguments = [*TINY, "METRIC=iou", *(f"{name.upper()}={value}" for name, value in rule.items())]
    for fold in (0, 1):
        assert tester.main([*arguments, f"FOLD={fold}"]) == 0
    assert tester.main([*arguments, "OOF=1"]) == 0
    summary = json.loads((OOF / "summary.json").read_text())
    assert summary["score"]["model"] == pytest.approx(found["tuned"]["score"], abs=1e-9)


def test_everything_follows_the_metric_and_more_is_measured_beside_it(trained, capsys):
    arguments = [*TINY, "METRIC=hd95", "MEASURES=boundary_iou, surface_dice(tolerance=1), iou"]
    for fold in (0, 1):
        assert tester.main([*arguments, f"FOLD={fold}"]) == 0
    assert tester.main([*arguments, "OOF=1"]) == 0
    said = capsys.readouterr().out
    summary, scores = json.loads((OOF / "summary.json").read_text()), pd.read_csv(OOF / "scores.csv")
    assert summary["score"]["model"] == pytest.approx(scores["score"].mean())
    assert summary["score"]["low"] < summary["score"]["model"] < summary["score"]["high"]
    assert summary["score"]["ceiling"] < summary["score"]["model"]  # less is better
    assert f"METRIC hd95: {summary['score']['model']:.4f} px" in said and "less is better" in said
    for name in ("boundary_iou", "surface_dice(tolerance=1)", "iou"):
        assert summary["measures"][name]["model"] == pytest.approx(scores[name].mean())
        assert f"{name}: {summary['measures'][name]['model']:.4f}" in said
    assert tune.main([*TINY, "METRIC=hd95"]) == 0
    found = json.loads((OOF / "tuned.json").read_text())
    assert found["untuned"]["score"] == pytest.approx(summary["score"]["model"])
    assert found["crossfitted"]["constant"] == pytest.approx(summary["score"]["constant"])  # the folds' own, again
    assert found["tuned"]["score"] <= found["crossfitted"]["score"] and found["optimism"] >= 0


@pytest.mark.parametrize(
    ("main", "arguments", "words"),
    [
        (tune.main, ["TOP_AREA=5"], ["only work together"]),
        (tune.main, ["METRIC=dise"], ["dise", "Did you mean dice?"]),
        (tune.main, ["EXPERIMENT=none"], ["no finished run"]),
        (tester.main, ["OOF=1", "MEASURES=hd95, iuo"], ["iuo", "Did you mean iou?"]),
    ],
)
def test_what_cannot_be_tuned_or_measured_is_said(trained, refused, main, arguments, words):
    refused(main, [*TINY, *arguments], *words)


def test_a_histogram_counts_every_pixel_of_a_large_map():
    p8 = np.zeros((257, 65281), np.uint8)  # 2**24 + 1 pixels, the first number that float32 does not have
    p8[-1, -1] = 7
    counts = rule_sweep.histogram(p8)
    assert counts[0] == 2**24 and counts[7] == 1
    p8[-1, -1] = 0
    assert rule_sweep.histogram(p8)[0] == 2**24 + 1
    assert rule_sweep.histogram(p8, np.ones(p8.shape, bool))[0] == 2**24 + 1
