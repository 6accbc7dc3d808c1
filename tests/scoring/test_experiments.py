"""Ensembles, comparisons and the leaderboard, through the commands."""

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import compare
import ensemble
import inference
import leaderboard
import linked
import submission
import tester
import tune
from conftest import TINY, cross_validate, left_alone
from prediction import prediction_folders
from scoring import ensembling
from tools.files import write_json

LOGS = Path("lightning_logs")


@pytest.fixture(scope="session")
def two_source(trained_source, tmp_path_factory):
    """The trained working folder with a second experiment, `other`, and a second seed of `demo`."""
    place = linked.copy(trained_source, tmp_path_factory.mktemp("two") / "copy")
    with contextlib.chdir(place):
        cross_validate("SEED=1")
        cross_validate("EXPERIMENT=other", "LOSS=ce", "EPOCHS=1")
    return place


@pytest.fixture
def two(two_source, tmp_path, monkeypatch):
    monkeypatch.chdir(linked.copy(two_source, tmp_path / "copy"))


@pytest.fixture
def untouched(two_source):
    """The same folder, for a test that changes nothing in it."""
    with left_alone(two_source):
        yield


def score(experiment, seed=42):
    return json.loads((LOGS / experiment / f"oof_seed{seed}" / "summary.json").read_text())["score"]["model"]


def test_an_ensemble_is_an_experiment_of_its_own(two, capsys):
    for extra in ([], ["SEED=1"], ["EXPERIMENT=other"]):
        assert inference.main([*TINY, *extra]) == 0
    assert ensemble.main([*TINY, "OF=demo,demo:1,other", "NAME=three", "WEIGHTED=1"]) == 0
    said = capsys.readouterr().out
    about = json.loads((LOGS / "three" / "ensemble.json").read_text())
    shares = np.array(list(about["shares"].values()))
    assert list(about["shares"]) == ["demo:42", "demo:1", "other:42"]
    assert shares.min() >= 0 and shares.sum() == pytest.approx(1)
    assert f"{score('three'):.4f}" in said and "weighted, cross-fitted" in said
    lines = {
        name: float(line.split()[-1])
        for line in said.splitlines()
        for name in ("equal weights", "cross-fitted")
        if name in line and "0." in line.split()[-1]
    }
    assert score("three") == pytest.approx(max(lines.values()), abs=5e-5) and len(lines) == 2
    own = pd.read_csv(LOGS / "three" / "oof_seed42" / "scores.csv")
    assert len(own) == 64 and own["image"].is_unique

    assert tune.main([*TINY, "EXPERIMENT=three"]) == 0
    assert compare.main([*TINY, "A=demo", "B=three"]) == 0
    assert leaderboard.main(TINY) == 0
    said = capsys.readouterr().out
    assert "ensemble of=" in said and "three" in said
    assert submission.main([*TINY, "EXPERIMENT=three", "POSTPROCESS=tuned"]) == 0


def test_an_equal_ensemble_is_the_rounded_mean_of_its_members(two):
    assert ensemble.main([*TINY, "OF=demo,other", "NAME=both"]) == 0
    from data import dataspec

    spec = dataspec.read(Path("output/demo/train_folds.json"))
    image = pd.read_csv("output/demo/train_folds.csv").iloc[5]
    parts = [
        prediction_folders.read_maps(LOGS / name / f"fold{image['kfold']}_seed42" / "val", image["image"], spec).astype(
            float
        )
        for name in ("demo", "other")
    ]
    blended = prediction_folders.read_maps(LOGS / "both" / "oof_seed42" / "val", image["image"], spec)
    assert np.abs(blended - np.mean(parts, axis=0)).max() <= 0.5
    assert (parts[0] != parts[1]).any()


def test_the_weights_of_a_fold_are_chosen_on_the_others(two, monkeypatch):
    """Masks of fold 0 that only one member can know do not sway the weights that fold 0 is scored with."""
    monkeypatch.setattr(ensembling, "pays", lambda *_: True)
    assert ensemble.main([*TINY, "OF=demo,other", "NAME=both", "WEIGHTED=1"]) == 0
    before = json.loads((LOGS / "both" / "ensemble.json").read_text())["fold_shares"]
    table = pd.read_csv("output/demo/train_folds.csv")
    from PIL import Image

    for mask in table["mask"][table["kfold"] == 0]:
        with Image.open(Path("input/demo", mask)) as drawn:
            Image.fromarray(255 - np.asarray(drawn.convert("L"))).save(Path("input/demo", mask))
    assert ensemble.main([*TINY, "OF=demo,other", "NAME=both", "WEIGHTED=1"]) == 0
    after = json.loads((LOGS / "both" / "ensemble.json").read_text())["fold_shares"]
    assert after["0"] == pytest.approx(before["0"])
    assert after["1"] != pytest.approx(before["1"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["OF=demo", "NAME=x"], ["two or more"]),
        (["OF=demo,demo:42", "NAME=x"], ["two or more different"]),
        (["OF=demo,other"], ["What is the ensemble called"]),
        (["OF=demo,other", "NAME=demo"], ["a trained experiment's"]),
        (["OF=demo,other:x", "NAME=x"], ["expected a seed"]),
        (["OF=demo,nothing", "NAME=x"], ["nothing", "no finished run"]),
        (["OF=demo,demo:7", "NAME=x"], ["fold0_seed7"]),
        (["OF=../x,demo", "NAME=x"], ["folder's name"]),
    ],
)
def test_what_is_no_ensemble_is_refused(untouched, refused, arguments, words):
    refused(ensemble.main, [*TINY, *arguments], *words)
    assert not (LOGS / "x").exists()


def test_an_ensemble_over_two_tables_is_refused(two, refused):
    other = json.loads((LOGS / "other" / "fold0_seed42" / "model.json").read_text())
    write_json(LOGS / "other" / "fold0_seed42" / "model.json", {**other, "folds_sha256": "0" * 64})
    refused(ensemble.main, [*TINY, "OF=demo,other", "NAME=x"], "another folds table")


def test_an_ensemble_of_a_model_that_was_trained_again_is_stale(two, refused):
    assert ensemble.main([*TINY, "OF=demo,other", "NAME=both"]) == 0
    refused(inference.main, [*TINY, "EXPERIMENT=both"], "both is an ensemble", "each of its members")
    refused(tester.main, [*TINY, "EXPERIMENT=both", "OOF=1"], "both is an ensemble")
    about = json.loads((LOGS / "other" / "fold0_seed42" / "model.json").read_text())
    write_json(LOGS / "other" / "fold0_seed42" / "model.json", {**about, "weights_sha256": "0" * 64})
    refused(tune.main, [*TINY, "EXPERIMENT=both"], "blended from an earlier model")


def test_one_seed_a_side_speaks_of_runs_and_never_of_recipes(two, capsys):
    assert compare.main([*TINY, "A=other", "B=demo"]) == 0
    said = capsys.readouterr().out
    found = json.loads(Path("output/demo/compare_other_demo.json").read_text())
    assert found["about"] == "runs" and "These runs" in said and "As recipes" not in said
    assert found["seeds"] == [1, 2]
    a, b = (np.mean([score("other")]), np.mean([score("demo"), score("demo", 1)]))
    assert found["difference"] == pytest.approx(b - a)
    assert found["low"] < found["difference"] < found["high"]
    assert found["settings"] == {"EPOCHS": ["1", "2"], "LOSS": ["ce", "ce + dice"]}
    assert Path("output/demo/compare_other_demo.png").is_file()


def test_an_experiment_is_no_better_than_itself(two, capsys):
    shutil.copytree(LOGS / "demo", LOGS / "twin")
    assert compare.main([*TINY, "A=demo", "B=twin"]) == 0
    assert "not distinguishable" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["A=demo"], ["Which two?"]),
        (["A=demo", "B=demo"], ["Which two?"]),
        (["A=demo", "B=nothing"], ["no out-of-fold scores", "make cv EXPERIMENT=nothing"]),
        (["A=demo", "B=other", "SEEDS=1"], ["other was scored with the seeds 42"]),
        (["A=demo", "B=other", "EMPTY=zero"], ["empty_policy one there, zero now"]),
        (["A=demo", "B=other", "TUNED=1"], ["tuned.json", "make tune EXPERIMENT=demo"]),
        (["A=demo", "B=../other"], ["folder's name"]),
    ],
)
def test_what_cannot_be_compared_is_said(untouched, refused, arguments, words):
    refused(compare.main, [*TINY, *arguments], *words)


def test_scores_by_different_rules_are_compared_by_their_best_only(two, refused, capsys):
    for fold in (0, 1):
        assert tester.main([*TINY, "EXPERIMENT=other", "THRESHOLD=0.3", f"FOLD={fold}"]) == 0
    assert tester.main([*TINY, "EXPERIMENT=other", "THRESHOLD=0.3", "OOF=1"]) == 0
    refused(compare.main, [*TINY, "A=demo", "B=other"], "different rules", "TUNED=1")
    for extra in (["EXPERIMENT=demo"], ["EXPERIMENT=demo", "SEED=1"], ["EXPERIMENT=other"]):
        assert tune.main([*TINY, *extra]) == 0
    assert compare.main([*TINY, "A=demo", "B=other", "TUNED=1"]) == 0
    assert "cross-fitted dice" in capsys.readouterr().out


def test_scores_of_models_that_were_trained_again_are_stale(two, refused):
    summary = json.loads((LOGS / "demo" / "oof_seed42" / "summary.json").read_text())
    summary["provenance"]["models"][0] = "0" * 64
    write_json(LOGS / "demo" / "oof_seed42" / "summary.json", summary)
    refused(compare.main, [*TINY, "A=demo", "B=other"], "other models or predictions", "make oof EXPERIMENT=demo")


def test_the_leaderboard_is_sorted_by_what_to_believe(two, capsys):
    assert tune.main(TINY) == 0
    (LOGS / "empty").mkdir()
    shutil.copytree(LOGS / "other" / "fold0_seed42", LOGS / "half" / "fold0_seed42")
    capsys.readouterr()
    assert leaderboard.main(TINY) == 0
    said = capsys.readouterr().out
    table = pd.read_csv("output/demo/leaderboard.csv")
    assert list(table["place"]) == [1, 2, 3] and set(table["experiment"]) == {"demo", "other"}
    tuned = json.loads((LOGS / "demo" / "oof_seed42" / "tuned.json").read_text())["crossfitted"]["score"]
    row = table[(table["experiment"] == "demo") & (table["seed"] == 42)].iloc[0]
    assert float(row["cross-fitted"]) == pytest.approx(tuned, abs=5e-5)
    believed = [
        float(one["untuned"] if one["cross-fitted"] == "-" else one["cross-fitted"]) for _, one in table.iterrows()
    ]
    assert believed == sorted(believed, reverse=True)
    assert "left out: half: not scored out of fold" in said and "LOSS=ce" in said
    assert "a constant mask reaches" in said
