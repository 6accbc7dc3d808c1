"""Every known way to a score that lies, planted: each is refused, or shown by its name.

Copies and groups over folds, seen from every side, are in test_folds.py and test_audit.py.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

import compare
import cv
import ensemble
import export
import folds
import leaderboard
import linked
import tester
import train
import tune
from conftest import SMP, TINY, cross_validate
from tools.files import write_json

TABLE = Path("output/demo/train_folds.csv")
LOGS = Path("lightning_logs/demo")
RUN, OTHER = LOGS / "fold0_seed42", LOGS / "fold1_seed42"
OOF = LOGS / "oof_seed42"


def read(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def maps(run):
    """The probability PNGs of a run's val/."""
    return sorted((run / "val" / "train_hq").glob("*.png"))


@pytest.mark.main
def test_a_car_over_two_folds(folds_table, refused):
    table = read(TABLE)
    table.loc[0, "kfold"] = str(1 - int(table.loc[0, "kfold"]))
    table.to_csv(TABLE, index=False)
    refused(folds.main, TINY, "groups lie in more than one fold")
    refused(train.main, [*TINY, "FOLD=0"], "more than one fold")


def test_a_copy_flipped_over_two_folds(folds_table, demo_data, refused):
    table = read(TABLE)
    source = table["image"][table["kfold"] == "0"].iloc[0]
    target = table["image"][table["kfold"] == "1"].iloc[0]
    with Image.open(Path("input/demo", source)) as image:
        ImageOps.mirror(image).save(Path("input/demo", target), quality=95)
    refused(folds.main, [*TINY, "OVERWRITE=1"], "images lie in two folds", Path(target).name)


def test_a_threshold_tuned_on_its_own_fold(trained, refused, capsys):
    assert tester.main([*TINY, "FOLD=0", "THRESHOLD=0.6"]) == 0
    refused(tester.main, [*TINY, "OOF=1"], "fold0_seed42", "another threshold")  # each fold by its own is no score
    assert tune.main(TINY) == 0
    refused(tester.main, [*TINY, "FOLD=0", "POSTPROCESS=tuned"], "chosen on them")


def predicted_twice():
    manifest = json.loads((RUN / "val" / "manifest.json").read_text())
    stranger = json.loads((OTHER / "val" / "manifest.json").read_text())["images"][0]
    shutil.copy(OTHER / "val" / Path(stranger).with_suffix(".png"), RUN / "val" / Path(stranger).with_suffix(".png"))
    manifest["images"].append(stranger)
    seal(RUN, manifest)


def seal(run, manifest):
    """Write a manifest that fits the maps, as a forger would."""
    from data import dataspec
    from prediction import prediction_folders

    spec = dataspec.from_json(manifest["data"], "here")
    manifest["maps_sha256"] = prediction_folders.fingerprint(run / "val", manifest["images"], spec)
    write_json(run / "val" / "manifest.json", manifest)


def not_predicted():
    manifest = json.loads((RUN / "val" / "manifest.json").read_text())
    manifest["images"].pop()
    seal(RUN, manifest)


def maps_of_another_model():
    for path in maps(RUN):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)


def a_map_that_is_lost():
    maps(RUN)[3].unlink()


def folds_of_different_settings():
    about = json.loads((OTHER / "model.json").read_text())
    about["settings"]["EPOCHS"] = 9
    write_json(OTHER / "model.json", about)


def another_model_under_the_manifest():
    about = json.loads((RUN / "model.json").read_text())
    write_json(RUN / "model.json", {**about, "weights_sha256": "0" * 64})


def rows_it_trained_on():
    """Fold 1's network in fold 0's folder: it has seen every image that fold 0 holds out."""
    for name in ("model.json", "model.safetensors"):
        shutil.copy(OTHER / name, RUN / name)


def a_folds_table_changed_since():
    table = read(TABLE)
    table["kfold"] = table["kfold"].map({"0": "1", "1": "0"})
    table.to_csv(TABLE, index=False)


@pytest.mark.main
@pytest.mark.parametrize(
    ("cheat", "words"),
    [
        (predicted_twice, ["1 images are predicted twice"]),
        (not_predicted, ["1 images are not predicted"]),
        (maps_of_another_model, ["other probability maps than those", "make tester FOLD=0"]),
        (a_map_that_is_lost, ["other probability maps than those"]),
        (folds_of_different_settings, ["Folds 0 and 1", "another EPOCHS"]),
        (another_model_under_the_manifest, ["predictions of another model"]),
        (rows_it_trained_on, ["is of fold 1", "fold0_seed42 holds out"]),
        (a_folds_table_changed_since, ["another folds table"]),
    ],
)
def test_what_reads_held_out_predictions_refuses_a_forged_one(trained, refused, cheat, words):
    cheat()
    refused(tester.main, [*TINY, "OOF=1"], *words)
    refused(tune.main, TINY, *words)
    refused(ensemble.main, [*TINY, "OF=demo,demo:1", "NAME=both"], *words)


def test_a_score_at_the_networks_size_is_not_the_originals(trained, refused):
    from data import dataspec
    from prediction.postprocess import Rule
    from scoring import score_rows
    from tools import errors

    table = read(TABLE).head(3)
    spec = dataspec.read(TABLE.with_suffix(".json"))
    small = np.zeros((1, 32, 64), np.uint8)
    table["mask"] = ""  # an empty mask has no size of its own that could contradict
    rows = score_rows.rows(
        score_rows.Pairs(table, Path("input/demo"), spec, 10**8), lambda _: small, np.zeros((1, 8, 8), np.uint8),
        size=(32, 64), resize="stretch", rules=(Rule(),), scale=score_rows.scale("dice", "", "one"),
    )  # fmt: skip
    with pytest.raises(errors.UserError, match=r"64 x 32 pixels, and the image 96 x 64"):
        list(rows)


def test_the_best_epoch_of_the_reported_fold_is_said_wherever_its_score_is(folds_table, capsys):
    arguments = [*TINY, "CHECKPOINT=best", "EXPERIMENT=best"]
    cross_validate("CHECKPOINT=best", "EXPERIMENT=best")
    assert "chosen on this fold" in capsys.readouterr().out
    assert (
        "chosen on this fold" in json.loads(Path("lightning_logs/best/oof_seed42/summary.json").read_text())["weights"]
    )
    assert leaderboard.main(arguments) == 0
    said = capsys.readouterr().out
    assert "best *" in said and "epochs were chosen on the folds that are reported" in said


def test_an_overfit_run_is_left_out_of_the_leaderboard(trained, refused, capsys):
    arguments = [*TINY, "OVERFIT=4", "EPOCHS=1"]
    train.main([*arguments, "FOLD=0"])  # whether it learns them or not
    assert tester.main([*arguments, "FOLD=0"]) == 0
    capsys.readouterr()
    assert leaderboard.main(TINY) == 0
    said = capsys.readouterr().out
    assert "left out: demo_overfit: learned its images by heart" in said
    assert said.count("demo_overfit") == 1
    refused(compare.main, [*TINY, "A=demo", "B=demo_overfit"], "no out-of-fold scores")
    refused(cv.main, [*TINY, "OVERFIT=4"], "nothing to cross-validate")


def test_empty_masks_are_never_dropped_in_silence(trained, capsys):
    table = read(OOF / "scores.csv")
    path = RUN / "val" / "scores.csv"
    scores = pd.read_csv(path)
    scores.loc[:4, ["tp", "fp", "fn", "score", "dice"]] = [0, 0, 0, np.nan, np.nan]
    scores.to_csv(path, index=False)
    summary = json.loads((RUN / "val" / "summary.json").read_text())
    for fold in (RUN, OTHER):
        summary = json.loads((fold / "val" / "summary.json").read_text())
        del summary["score"]["constant_classes"]
        write_json(fold / "val" / "summary.json", {**summary, "empty_policy": "skip"})
    assert tester.main([*TINY, "OOF=1", "EMPTY=skip"]) == 0
    said = capsys.readouterr().out
    assert f"{len(table)} held-out images" in said and "an empty mask was no constant one" in said
    assert (
        "5 masks are empty; an empty prediction on an empty mask is left out of the mean (EMPTY=skip: 5 left out)"
        in said
    )


def test_scores_of_another_policy_or_metric_do_not_stand_beside_each_other(trained, refused, capsys):
    assert leaderboard.main([*TINY, "EMPTY=zero"]) == 2
    said = capsys.readouterr()
    assert "left out: demo, seed 42" in said.out and "empty_policy one there, zero now" in said.out
    assert "No experiment" in said.err
    refused(tester.main, [*TINY, "OOF=1", "METRIC=iou"], "another metric")


def test_pseudo_labels_of_validation_images(folds_table, demo_data, refused):
    """kfold -1 is trained on in every fold: a held-out image among such rows would be learned by heart."""
    table = read(TABLE)
    source = table.iloc[0]
    copy = Path("input/demo/pseudo/new.jpg")
    copy.parent.mkdir()
    with Image.open(Path("input/demo", source["image"])) as image:
        image.save(copy, quality=90)
    pseudo = pd.DataFrame([{**source, "image": "pseudo/new.jpg", "kfold": "-1", "group": "pseudo"}])
    pd.concat([table, pseudo]).to_csv("mine.csv", index=False)
    refused(folds.main, [*TINY, "TABLE=mine.csv", "OVERWRITE=1"], "lie in two folds", "new.jpg")


@pytest.mark.main
def test_permuted_labels_do_not_beat_the_constant_mask(folds_table):
    """Images and masks that do not belong together: what is left to learn is the mean mask."""
    table = read(TABLE)
    random = np.random.default_rng(0)
    for fold in set(table["kfold"]):
        rows = table.index[table["kfold"] == fold]
        table.loc[rows, "mask"] = table.loc[random.permutation(rows), "mask"].to_numpy()
    table.to_csv(TABLE, index=False)
    assert train.main([*TINY, "FOLD=0", "EPOCHS=6"]) == 0
    assert tester.main([*TINY, "FOLD=0"]) == 0
    summary = json.loads((RUN / "val" / "summary.json").read_text())
    assert summary["score"]["model"] <= summary["score"]["constant"] + 0.02


def beside_its_model():
    return [f"ENCODER_WEIGHTS={OTHER / 'model.safetensors'}"]


def a_copy_by_another_name():
    shutil.copy(OTHER / "model.safetensors", "mine.safetensors")
    return ["ENCODER_WEIGHTS=mine.safetensors"]


def as_if_make_weights_had_packed_it():
    Path("input/weights").mkdir()
    shutil.copy(OTHER / "model.safetensors", "input/weights/tu-test_resnet.safetensors")
    return [*SMP, "ENCODER_WEIGHTS=imagenet"]


def on_another_table():
    table = read(TABLE)
    table["kfold"] = [str(number % 2) for number in table["group"].rank(method="dense").astype(int)]
    assert set(table["kfold"][read(TABLE)["kfold"] == "0"]) == {"0", "1"}
    table.to_csv("mine.csv", index=False)
    assert folds.main([*TINY, "TABLE=mine.csv", "OUTPUT=output/other"]) == 0
    return [*beside_its_model(), "OUTPUT=output/other"]


def on_the_same_pictures_by_other_names():
    shutil.copytree("input/demo", "input/renamed")
    for folder in ("train_hq", "train_masks"):
        for path in Path("input/renamed", folder).iterdir():
            path.rename(path.with_name(f"x{path.name}"))
    assert folds.main([*TINY, "DATASET=renamed"]) == 0
    return [*beside_its_model(), "DATASET=renamed"]


def on_copies_of_the_same_pictures():
    """Smaller, mirrored, compressed and called otherwise, in a data set of their own: no byte and no path is alike."""
    for folder in ("train_hq", "train_masks"):
        place = Path("input/copied", folder)
        place.mkdir(parents=True)
        for path in Path("input/demo", folder).iterdir():
            picture = ImageOps.mirror(Image.open(path))
            picture.convert(picture.mode).resize((80, 54)).save(place / f"x{path.name}")
    assert folds.main([*TINY, "DATASET=copied", "LAYOUT=carvana"]) == 0
    return [*beside_its_model(), "DATASET=copied"]


def by_init_on_another_table():
    return ["INIT=demo", *on_another_table()[1:]]


def by_way_of_a_run_that_did_not():
    """A run on other images begins with weights that have seen these, and is begun from itself."""
    table = read(TABLE)
    own = table[table["kfold"] == "1"].copy()
    own["kfold"] = own["group"].rank(method="dense").astype(int) - 1
    own.to_csv("half.csv", index=False)
    half = [*TINY, "OUTPUT=output/half", "EPOCHS=1", "EXPERIMENT=half"]
    assert folds.main([*half, "TABLE=half.csv"]) == 0
    assert train.main([*half, *beside_its_model(), "FOLD=0"]) == 0
    arguments = on_another_table()
    shutil.rmtree(LOGS)  # what those had seen, a copy of their folds table says
    TABLE.unlink()
    return [*arguments, "ENCODER_WEIGHTS=lightning_logs/half/fold0_seed42/model.safetensors"]


@pytest.mark.parametrize(
    ("cheat", "words"),
    [
        (beside_its_model, ["32 of the 32 images that fold 0 holds out", "train_hq/", f"fold 0 of demo ({RUN}"]),
        (a_copy_by_another_name, ["mine.safetensors was trained on 32 of the 32 images"]),
        (as_if_make_weights_had_packed_it, ["tu-test_resnet.safetensors was trained on 32 of"]),
        (on_another_table, ["was trained on 16 of the 32 images"]),
        (on_the_same_pictures_by_other_names, ["images that fold 0 holds out", "train_hq/x"]),
        (on_copies_of_the_same_pictures, ["images that fold 0 holds out", "copies of them", "train_hq/x"]),
        (by_init_on_another_table, ["was trained on 16 of the 32 images"]),
        (
            by_way_of_a_run_that_did_not,
            ["began from weights (demo, fold 1, seed 42) that were trained on 16 of the 32"],
        ),
    ],
)
def test_weights_that_have_seen_what_is_held_out(trained, refused, cheat, words):
    cheating = [*TINY, "EXPERIMENT=cheat", *cheat()]
    refused(train.main, [*cheating, "FOLD=0"], *words, "Begin with what has not seen them")
    if "ENCODER_WEIGHTS=imagenet" not in cheating:
        refused(cv.main, [*cheating, "FOLDS=0"], *words)
    assert not Path("lightning_logs/cheat").exists()


def test_weights_that_have_not_seen_what_is_held_out_are_said_and_others_marked(
    smp_source, tmp_path, monkeypatch, capsys
):
    """Fold 0's own model may begin fold 0; a file that nothing speaks for is marked wherever its score is."""
    import torch
    from safetensors.torch import load_file

    monkeypatch.chdir(linked.copy(smp_source, tmp_path / "copy"))
    once = [*TINY, *SMP]
    own = [*once, "INIT=demo", "EXPERIMENT=again", "FOLD=0"]
    assert train.main(own) == 0 and tester.main(own) == 0 and export.hub(own) == 0
    card = Path("output/demo/hub/again_fold0_seed42/README.md").read_text()
    assert "whole network of `INIT=demo`\n(demo, fold 0, seed 42)" in card
    about = json.loads(Path("lightning_logs/again/fold0_seed42/run.json").read_text())
    assert about["weights_origin"] == "demo, fold 0, seed 42"
    torch.save(load_file(OTHER / "model.safetensors"), "mine.pth")
    unsure = [*SMP, "ENCODER_WEIGHTS=mine.pth", "EXPERIMENT=unsure"]
    cross_validate(*unsure)
    assert "Warning: origin unknown: mine.pth" in capsys.readouterr().out
    place = Path("lightning_logs/unsure")
    for path in ("fold0_seed42/run.json", "fold0_seed42/val/summary.json", "oof_seed42/summary.json"):
        assert "origin unknown" in json.loads((place / path).read_text())["weights_origin"]
    assert leaderboard.main(TINY) == 0
    said = capsys.readouterr().out
    assert "unsure (origin unknown)" in said and said.count("origin unknown") == 2  # its line, and what that means
    assert export.hub([*TINY, *unsure, "FOLD=0"]) == 0
    card = Path("output/demo/hub/unsure_fold0_seed42/README.md").read_text()
    assert "origin unknown: mine.pth" in card and "which these weights never saw" not in card


def test_a_run_of_code_that_did_not_look_is_not_scored_as_honest(trained, refused):
    about = json.loads((RUN / "model.json").read_text())
    del about["begun_from"]
    write_json(RUN / "model.json", about)
    assert tester.main([*TINY, "FOLD=0"]) == 0
    about["settings"]["ENCODER_WEIGHTS"] = str(OTHER / "model.safetensors")
    write_json(RUN / "model.json", about)
    refused(tester.main, [*TINY, "FOLD=0"], "was trained on 32 of the 32 images")
