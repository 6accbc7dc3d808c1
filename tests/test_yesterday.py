"""What the code of commit 3588486 left on a disk (tests/yesterday): read, scored, tuned, resumed, shipped by today's.

Only verbs are imported: modules below them may move and change their names, files and commands of then may not.
"""

import csv
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

import compare
import cv
import export
import folds
import inference
import kaggle_kernel
import leaderboard
import report
import reproduce
import search
import submission
import tester
import train
import tune

YESTERDAY = Path(__file__).with_name("yesterday")
OLD, LONG, SMP = ["RECIPE=tiny.cfg"], ["RECIPE=tiny.cfg,long.cfg"], ["RECIPE=tiny.cfg,smp.cfg", "EXPERIMENT=smp"]
RUN, OOF = Path("lightning_logs/demo/fold0_seed42"), Path("lightning_logs/demo/oof_seed42")
PREDICTIONS, SUBMISSION = Path("output/demo/predictions/demo_fold0-1_seed42"), Path("output/demo/submission.csv")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A working folder as it was then."""
    shutil.copytree(YESTERDAY, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def same_scores(now, then):
    """Equal rows; of pixels two may differ, as another processor rounds."""
    assert [(row["image"], row["class"], row["kfold"], row["group"]) for row in now] == [
        (row["image"], row["class"], row["kfold"], row["group"]) for row in then
    ]
    for name, tolerance in {
        "tp": 2,
        "fp": 2,
        "fn": 2,
        "tn": 2,
        "dice": 2e-3,
        "iou": 2e-3,
        "boundary_iou": 0.02,
    }.items():
        ours, theirs = ([float(row[name]) for row in rows] for rows in (now, then))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance, err_msg=name)


def every_constant():
    """What run.json says that the run was made with, as it would be typed."""
    settings = json.loads((RUN / "run.json").read_text())["settings"]
    values = {name: ",".join(map(str, one)) if isinstance(one, list) else one for name, one in settings.items()}
    return [f"{name}={value}" for name, value in values.items()]


def test_the_folds_are_those_of_then():
    path = Path("output/demo/train_folds.csv")
    then, old = path.read_text(), json.loads(path.with_suffix(".json").read_text())
    assert folds.main(OLD) == 0
    assert path.read_text() == then  # what runs were trained on stays as it is
    shutil.rmtree("output")
    assert folds.main(OLD) == 0  # made anew, `stratum` is the label alone: the areas only assigned the folds
    assert path.read_text() == re.sub(r"(area\d+|empty)(?=,-?\d+$)", "", then, flags=re.M)
    now = json.loads(path.with_suffix(".json").read_text())
    del old["sha256"]
    assert {name: now.get(name) for name in old} == old


def test_a_run_has_the_score_of_then_under_every_constant_of_then(capsys):
    then = table(RUN / "val" / "scores.csv")
    shutil.rmtree(RUN / "val")
    assert tester.main([*every_constant(), "FOLD=0"]) == 0
    same_scores(table(RUN / "val" / "scores.csv"), then)
    assert tester.main([*OLD, "OOF=1"]) == 0  # with fold 1 as it was scored then
    same_scores(table(OOF / "scores.csv"), table(YESTERDAY / OOF / "scores.csv"))


def test_scores_of_then_are_gathered_tuned_compared_and_reported(capsys):
    then = {name: json.loads((OOF / f"{name}.json").read_text()) for name in ("summary", "tuned")}
    shutil.copytree("lightning_logs/demo", "lightning_logs/other")
    for experiment in ("demo", "other"):
        shutil.rmtree(f"lightning_logs/{experiment}/oof_seed42")
        assert tester.main([*OLD, "OOF=1", f"EXPERIMENT={experiment}"]) == 0
        assert tune.main([*OLD, f"EXPERIMENT={experiment}"]) == 0
    same_scores(table(OOF / "scores.csv"), table(YESTERDAY / OOF / "scores.csv"))
    summary, tuned = (json.loads((OOF / f"{name}.json").read_text()) for name in then)
    for found, old in (
        (summary["score"]["model"], then["summary"]["score"]["model"]),
        *((tuned[way]["score"], then["tuned"][way]["score"]) for way in ("untuned", "crossfitted", "tuned")),
    ):
        assert found == pytest.approx(old, abs=1e-6)  # of the same maps
    assert tuned["tuned"]["rules"] == then["tuned"]["tuned"]["rules"]
    for verb, flags in ((leaderboard, []), (compare, ["A=demo", "B=other"]), (report, [])):
        assert verb.main([*OLD, *flags]) == 0
    said = capsys.readouterr().out
    assert f"{then['tuned']['crossfitted']['score']:.4f}" in said
    assert json.loads(Path("output/demo/compare_demo_other.json").read_text())["difference"] == 0
    assert f"{then['tuned']['crossfitted']['score']:.4f}" in Path("output/demo/report_demo_seed42.html").read_text()


def test_a_training_that_was_stopped_then_ends_as_one_that_was_not(capsys):
    stopped, whole = (Path("lightning_logs", name, "fold0_seed42") for name in ("stopped", "whole"))
    rows = (stopped / "metrics.csv").read_text().splitlines()
    assert train.main([*LONG, "FOLD=0", "EXPERIMENT=stopped", "RESUME=1"]) == 0
    ours, theirs = (load_file(run / "model.safetensors") for run in (stopped, whole))
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], atol=2e-3, err_msg=name)
    ours, theirs = (table(run / "metrics.csv") for run in (stopped, whole))
    assert len(rows) < len(ours) + 1 == len(theirs) + 1
    for name in ("step", "epoch", "train_loss_step", "valid_dice"):
        found, old = ([float(row[name]) for row in part if row[name]] for part in (ours, theirs))
        np.testing.assert_allclose(found, old, atol=5e-3, err_msg=name)


def pixels(text):
    numbers = list(map(int, text.split()))
    return {at for start, count in zip(numbers[::2], numbers[1::2], strict=True) for at in range(start, start + count)}


def test_predictions_of_then_and_of_today_make_the_submission_of_then():
    words = [*OLD, "POSTPROCESS=tuned"]
    then, maps = SUBMISSION.read_bytes(), {path.name: np.array(Image.open(path)) for path in PREDICTIONS.glob("*.png")}
    SUBMISSION.unlink()
    assert submission.main(words) == 0
    assert SUBMISSION.read_bytes() == then
    assert len(maps) == 16 and len({row.split(b",")[1] for row in then.splitlines()}) > 10
    shutil.rmtree(PREDICTIONS)
    assert inference.main(words) == 0
    for name, values in maps.items():
        assert abs(np.array(Image.open(PREDICTIONS / name)).astype(int) - values).max() <= 1
    assert submission.main(words) == 0
    for ours, theirs in zip(table(SUBMISSION), csv.DictReader(then.decode().splitlines()), strict=True):
        assert ours["img"] == theirs["img"]
        assert len(pixels(ours["rle_mask"]) ^ pixels(theirs["rle_mask"])) <= 2


def test_runs_of_then_become_a_kernel_and_are_read_for_reproduction(capsys):
    assert (
        kaggle_kernel.main([*OLD, "POSTPROCESS=tuned", "COMPETITION=carvana-image-masking-challenge", "USER=me"]) == 0
    )
    kept = sorted(Path("output/kernel/dataset/models").glob("*/model.safetensors"))
    assert [path.parent.name for path in kept] == ["fold0_seed42", "fold1_seed42"]
    assert reproduce.main([f"RUN={RUN}", "CHECK=1", "DEVICE=cpu", "PRECISION=32"]) == 0
    said = capsys.readouterr().out
    assert "sha256" not in said.partition("differs")[2]  # of the data and the folds


@pytest.mark.slow
def test_runs_of_then_are_shipped_as_onnx_and_to_the_hub():
    assert export.main(OLD) == 0
    assert Path("output/demo/onnx/demo_fold0-1_seed42.onnx").is_file()
    assert export.hub([*SMP, "FOLD=0"]) == 0
    assert Path("output/demo/hub/smp_fold0_seed42/model.safetensors").is_file()


def test_a_job_table_a_search_and_its_winner_of_then_go_on(capfd):
    (jobs,) = Path("output/demo/slurm").glob("runs_*.txt")
    for line in jobs.read_text().splitlines():
        assert cv.main(shlex.split(line)) == 0
    assert capfd.readouterr().out.count("finished already, skipped") == 2
    winner = Path("output/demo/search_searched/winner.cfg")
    then = winner.read_text()
    winner.unlink()
    assert search.main(["RECIPE=tiny.cfg,search.cfg", "NAME=searched", "TRIALS=2", "VERIFY=0"]) == 0
    assert winner.read_text() == then
    machine = ["WORKERS=0", "DEVICE=cpu", "PRECISION=32", "LOGGER=none", "STEP_IMAGES=0"]
    assert train.main([f"RECIPE={winner}", *machine, "FOLD=1"]) == 0
    assert json.loads(Path("lightning_logs/searched/settings.json").read_text())["LR"] == 0.02
