"""From a trained fold to a submission, and what refuses to lie on the way."""

import importlib
import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import cv
import demo
import folds
import inference
import settings
import submission
import tester
import train
from conftest import TINY, write_instances
from formats import rle
from metrics import overlap
from prediction import predictor, shipped_model
from scenes import carvana
from tools import run_folders
from tools.errors import UserError
from tools.files import sha256, write_json

RUN, OOF = Path("lightning_logs/demo/fold0_seed42"), Path("lightning_logs/demo/oof_seed42")
TABLE, CSV = Path("output/demo/train_folds.csv"), Path("output/demo/submission.csv")


def read(path):
    return pd.read_csv(path, dtype={"image": str, "group": str}, keep_default_na=False)


@pytest.mark.main
def test_the_held_out_masks_are_scored_at_their_original_size(trained):
    scores, summary = read(RUN / "val" / "scores.csv"), json.loads((RUN / "val" / "summary.json").read_text())
    table = read(TABLE)
    assert set(scores["image"]) == set(table["image"][table["kfold"].astype(int) == 0])
    assert (scores[list(overlap.COUNTS)].sum(axis=1) == 96 * 64).all()
    assert scores["dice"].mean() == pytest.approx(summary["model"]["image"]["dice"], abs=1e-5)
    assert 0.3 < summary["constant"]["image"]["dice"] < summary["ceiling"]["image"]["dice"]
    assert 0.9 < summary["ceiling"]["image"]["dice"] <= 1
    for image in scores["image"]:
        assert Image.open(run_folders.prediction_path(RUN / "val", image)).size == (96, 64)
    assert Image.open(RUN / "val" / "worst.png").size[1] > 1000


@pytest.mark.main
def test_the_scores_are_those_of_the_written_predictions(trained):
    """Once more from the PNGs, without any of our scoring."""
    scores, table = read(RUN / "val" / "scores.csv").set_index("image"), read(TABLE).set_index("image")
    for image, row in scores.iterrows():
        predicted = np.asarray(Image.open(run_folders.prediction_path(RUN / "val", image))) >= 128
        truth = np.asarray(Image.open(Path("input/demo", table["mask"][image])).convert("L")) > 0
        assert (row["tp"], row["fp"], row["fn"]) == (
            (predicted & truth).sum(),
            (predicted & ~truth).sum(),
            (~predicted & truth).sum(),
        )


def test_cross_validation_skips_what_is_finished_and_ends_with_mean_and_spread(trained, capfd):
    before = (RUN / "model.safetensors").stat().st_mtime_ns
    shutil.rmtree("lightning_logs/demo/fold1_seed42/val")  # trained, not scored
    shutil.rmtree(OOF)
    assert cv.main(TINY) == 0
    said = capfd.readouterr().out
    assert "fold 0: finished already" in said and "fold 1: finished" not in said
    assert (RUN / "model.safetensors").stat().st_mtime_ns == before
    summary = json.loads((OOF / "summary.json").read_text())
    means = list(summary["folds"].values())
    assert f"mean of the folds {np.mean(means):.4f}, standard deviation {np.std(means, ddof=1):.4f}" in said
    assert summary["images"] == 64 and read(OOF / "scores.csv")["image"].is_unique


@pytest.mark.parametrize("wrong", ["METRIC=dise", "MEASURES=iuo", "TTA=flop", "TOP_AREA=5", "POSTPROCESS=tuned"])
def test_what_could_not_be_scored_is_refused_before_the_training(folds_table, refused, wrong):
    refused(cv.main, [*TINY, wrong], wrong.split("=")[1])
    assert not Path("lightning_logs").exists()


@pytest.mark.slow
def test_a_fold_that_fails_is_reported_and_the_rest_is_finished(trained, refused):
    shutil.rmtree("lightning_logs/demo/fold0_seed42")
    shutil.rmtree("lightning_logs/demo/fold1_seed42")
    folder = Path("lightning_logs/demo/fold0_seed42")
    folder.mkdir()
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"torn")
    refused(cv.main, TINY, "1 of 2 folds failed", "fold 0", "last.ckpt is not readable")
    assert Path("lightning_logs/demo/fold1_seed42/val/summary.json").is_file()


def corrupt(change):
    scores = read(RUN / "val" / "scores.csv")
    change(scores).to_csv(RUN / "val" / "scores.csv", index=False)


def predict_twice():
    corrupt(lambda scores: pd.concat([scores, read("lightning_logs/demo/fold1_seed42/val/scores.csv").head(1)]))


def leave_two_out():
    corrupt(lambda scores: scores.tail(-2))


def exchange_model():
    about = json.loads((RUN / "model.json").read_text())
    write_json(RUN / "model.json", {**about, "weights_sha256": "x"})


@pytest.mark.main
@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (predict_twice, ["1 images are predicted twice"]),
        (leave_two_out, ["2 images are not predicted"]),
        ((RUN / "val" / "summary.json").unlink, ["make tester FOLD=0"]),
        (lambda: shutil.rmtree(RUN), ["no finished model", "make train FOLD=0"]),
        (exchange_model, ["another model"]),
    ],
)
def test_out_of_fold_scores_refuse_gaps_and_doubles(trained, refused, break_it, words):
    break_it()
    refused(tester.main, [*TINY, "OOF=1"], *words)


def test_out_of_fold_scores_refuse_another_threshold(trained, refused):
    refused(tester.main, [*TINY, "OOF=1", "THRESHOLD=0.4"], "another threshold")


@pytest.mark.main
def test_a_changed_folds_table_stops_the_tester(trained, refused):
    table = pd.read_csv(TABLE, dtype=str, keep_default_na=False)
    table["kfold"] = table["kfold"].map({"0": "1", "1": "0"})  # every image that the run trained on would be scored
    table.to_csv(TABLE, index=False)
    refused(tester.main, [*TINY, "FOLD=0"], "another folds table", "train_folds.csv")
    refused(tester.main, [*TINY, "OOF=1"], "another folds table")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["Which fold?"]),
        (["FOLD=5"], ["no finished model", "has fold 0, 1"]),
        (
            ["FOLD=0", "EXPERIMENT=nothing"],
            ["no finished run", "Finished experiments in lightning_logs: demo", "make train"],
        ),
        (["FOLD=0", "DATASET=other", "EXPERIMENT=demo"], ["train_folds.csv"]),
    ],
)
def test_the_tester_says_what_is_missing(trained, refused, arguments, words):
    refused(tester.main, [*TINY, *arguments], *words)


def test_a_full_run_is_not_scored(folds_table, refused):
    train.main([*TINY, "EPOCHS=1", "FOLD=full"])
    refused(tester.main, [*TINY, "EPOCHS=1", "FOLD=full"], "trained on every image")


@pytest.mark.main
def test_inference_takes_the_mean_of_the_folds(trained, capsys):
    for fold in ("0", "1", "0,1"):
        assert inference.main([*TINY, f"FOLD={fold}"]) == 0
    assert inference.main([*TINY, "NAME=all"]) == 0
    place = Path("output/demo/predictions")
    names = json.loads((place / "all" / "manifest.json").read_text())["images"]
    assert len(names) == 16

    def maps(folder):
        return np.stack(
            [np.asarray(Image.open(run_folders.prediction_path(place / folder, name)), float) for name in names]
        )

    first, second, both, every = (
        maps(name) for name in ("demo_fold0_seed42", "demo_fold1_seed42", "demo_fold0-1_seed42", "all")
    )
    assert np.abs((first + second) / 2 - both).max() <= 1
    assert (both == every).all() and not (first == second).all()
    manifest = json.loads((place / "all" / "manifest.json").read_text())
    assert [model["fold"] for model in manifest["models"]] == ["0", "1"]
    assert Image.open(place / "all.png").size[0] > 500
    assert "Mean of 2 models" in capsys.readouterr().out


def test_a_batch_is_predicted_as_its_images_alone(trained):
    model = shipped_model.load(RUN)
    paths = sorted(Path("input/demo/test_hq").iterdir())[:5]
    together = [p for _, p in predictor.Predictor([model], batch_size=4).predict(paths)]
    alone = [next(predictor.Predictor([model]).predict([path]))[1] for path in paths]
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_broken_test_image_is_named(trained, refused):
    path = sorted(Path("input/demo/test_hq").iterdir())[3]
    path.write_bytes(path.read_bytes()[:900])
    refused(inference.main, [*TINY, "FOLD=0"], path.name, "broken or cut off")
    refused(inference.main, [*TINY, "FOLD=0", "TEST_PATH=nowhere"], "nowhere", "TEST_PATH")
    refused(
        submission.main, [*TINY, "FOLD=0"], "make inference FOLD=0"
    )  # no half prediction folder is taken for a whole one


@pytest.mark.parametrize("what", ["cut", "exchanged", "other architecture", "no network"])
def test_a_model_that_is_not_what_it_says_is_refused(trained, refused, what):
    weights, about = RUN / "model.safetensors", json.loads((RUN / "model.json").read_text())
    if what == "cut":
        weights.write_bytes(weights.read_bytes()[:10_000])
    elif what == "exchanged":
        shutil.copy("lightning_logs/demo/fold1_seed42/model.safetensors", weights)
    elif what == "other architecture":
        about["network"]["MODEL_NAME"] = "smp_fpn_tu-test_resnet"
    else:
        del about["network"]
    write_json(RUN / "model.json", about)
    refused(inference.main, [*TINY, "FOLD=0"], "fold0_seed42")


def test_an_ensemble_over_two_folds_tables_is_refused(trained):
    models = [shipped_model.load(RUN), shipped_model.load(Path("lightning_logs/demo/fold1_seed42"))]
    predictor.Predictor(models)
    models[1].about["folds_sha256"] = "another"
    with pytest.raises(UserError, match="2 different folds tables"):
        predictor.Predictor(models)


@pytest.mark.main
def test_the_submission_decodes_to_the_predicted_masks_in_the_samples_order(trained, capsys):
    inference.main([*TINY, "FOLD=0"])
    assert submission.main([*TINY, "FOLD=0"]) == 0
    assert "ids equal to input/demo/sample_submission.csv" in capsys.readouterr().out
    rows, sample = pd.read_csv(CSV, keep_default_na=False), pd.read_csv("input/demo/sample_submission.csv")
    assert list(rows.columns) == ["img", "rle_mask"] and list(rows["img"]) == list(sample["img"])
    areas = 0
    for name, text in rows.itertuples(index=False):
        p8 = np.asarray(Image.open(Path("output/demo/predictions/demo_fold0_seed42", name).with_suffix(".png")))
        np.testing.assert_array_equal(rle.decode(text, (64, 96), "C"), p8 >= 128)
        areas += (p8 >= 128).sum()
    assert areas > 0
    assert 0 < demo.score(settings.load(TINY)) < 1
    about = json.loads(CSV.with_suffix(".json").read_text())
    assert about["sha256"] == sha256(CSV) and about["models"][0]["fold"] == "0"


@pytest.mark.main
def test_a_submission_that_does_not_decode_to_its_masks_is_not_announced(trained, refused, monkeypatch):
    inference.main([*TINY, "FOLD=0"])
    encode = rle.encode
    monkeypatch.setattr(rle, "encode", lambda mask, order: " ".join(encode(mask, order).split()[2:]))  # loses a run
    refused(submission.main, [*TINY, "FOLD=0"], "does not decode to the mask")
    assert not CSV.exists() and not list(CSV.parent.glob(".submission*"))


@pytest.mark.main
def test_ids_that_differ_from_the_sample_are_refused(trained, refused):
    inference.main([*TINY, "FOLD=0"])
    sample = Path("input/demo/sample_submission.csv")
    lines = sample.read_text().splitlines()
    sample.write_text("\n".join([*lines, "missing_01.jpg,1 1"]))
    refused(submission.main, [*TINY, "FOLD=0"], "1 ids of it have no prediction", "missing_01.jpg")
    sample.write_text("\n".join(lines[:-1]))
    refused(submission.main, [*TINY, "FOLD=0"], "1 predictions have no id in it")
    sample.write_text("\n".join(["id,rle_mask", *lines[1:]]))
    refused(submission.main, [*TINY, "FOLD=0"], "columns id, rle_mask, those of tgs", "DIALECT")
    sample.write_text("\n".join(["id,width,rle_mask", *lines[1:]]))
    refused(submission.main, [*TINY, "FOLD=0"], "columns id, width, rle_mask", "no dialect has them")
    assert not CSV.exists()


def test_the_demos_answers_score_themselves_perfectly(folds_table):
    """The submission's path and the demo's scoring agree on what a mask is."""
    answers = "input/demo/.answers/test_masks.csv"
    assert demo.score(settings.load([*TINY, f"SUBMISSION={answers}"])) == 1
    rows = pd.read_csv(answers)
    rows["rle_mask"] = ["1 1"] * len(rows)
    rows.to_csv("wrong.csv", index=False)
    assert demo.score(settings.load([*TINY, "SUBMISSION=wrong.csv"])) == 0


@pytest.mark.main
def test_one_folder_an_image_goes_all_the_way(workplace, capsys):
    write_instances(Path("input/cells"), 12)
    common = [*(argument for argument in TINY if not argument.startswith("DATASET")), "DATASET=cells", "EPOCHS=1"]
    assert folds.main(common) == 0
    for main in (train.main, tester.main, inference.main, submission.main):
        assert main([*common, "FOLD=0"]) == 0
    rows = pd.read_csv("output/cells/submission.csv", dtype=str, keep_default_na=False)
    assert list(rows.columns) == ["ImageId", "EncodedPixels"] and set(rows["ImageId"]) == {"id12", "id13"}
    for image_id, texts in rows.groupby("ImageId")["EncodedPixels"]:
        p8 = np.asarray(Image.open(f"output/cells/predictions/cells_fold0_seed42/{image_id}/images/{image_id}.png"))
        parts = [rle.decode(text, p8.shape, "F") for text in texts]
        np.testing.assert_array_equal(sum(parts), p8 >= 128)


def test_smoke_runs_everything_in_folders_of_its_own(trained, capsys):
    before = {path: path.stat().st_mtime_ns for path in Path("lightning_logs/demo").rglob("*") if path.is_file()}
    assert demo.smoke([argument for argument in TINY if not argument.startswith("EPOCHS")]) == 0
    assert "Everything runs" in capsys.readouterr().out
    assert Path("output/demo/smoke/submission.csv").is_file() and not CSV.exists()
    assert json.loads(Path("lightning_logs/demo_smoke/fold0_seed42/model.json").read_text())["steps"] == 2
    assert before == {
        path: path.stat().st_mtime_ns for path in Path("lightning_logs/demo").rglob("*") if path.is_file()
    }


@pytest.mark.main
def test_the_whole_demo_in_one_command(workplace, capsys):
    arguments = [*TINY, "RECIPE=demo", "CARS=4", "TEST_CARS=1", "WIDTH=96", "EPOCHS=6", "IMAGE_SIZE=64,96"]
    assert demo.main(arguments) == 0
    said = capsys.readouterr().out
    for words in ("[1/6] make folds", "[5/6] make submission", "Mean Dice", "a constant mask", "worst.png", "make cv"):
        assert words in said
    lines = said[said.index("Mean Dice") :].splitlines()
    held_out, leaderboard, constant = (float(line.split()[0]) for line in lines[1:4])
    assert held_out > constant and leaderboard > constant
    assert demo.main([*arguments, "ONLY=score"]) == 0
    assert f"{leaderboard:.4f}" in capsys.readouterr().out


def test_the_demo_is_the_same_to_the_byte_and_in_carvanas_layout(demo_source, tmp_path):
    carvana.render_data(tmp_path / "again", 42, 4, 1, 96)
    files = sorted(path.relative_to(demo_source) for path in demo_source.rglob("*") if path.is_file())
    assert len(files) == 2 * 64 + 16 + 4
    for path in files:
        assert (demo_source / path).read_bytes() == (tmp_path / "again" / path).read_bytes(), path
    masks = pd.read_csv(demo_source / "train_masks.csv")
    name, text = masks.iloc[5]
    drawn = np.asarray(Image.open(demo_source / "train_masks" / f"{name[:-4]}_mask.gif"))
    np.testing.assert_array_equal(rle.decode(text, drawn.shape, "C"), drawn)
    assert set(np.unique(drawn)) == {0, 1}  # palette indices, as Carvana's


def test_the_demo_does_not_write_over_someones_data(workplace, refused):
    Path("input/demo").mkdir()
    Path("input/demo/mine.txt").write_text("precious")
    refused(demo.main, ["ONLY=render"], "not the demo's", "DATASET=name")
    assert Path("input/demo/mine.txt").read_text() == "precious"
    refused(demo.main, ["ONLY=render", "CARS=none"], "CARS=none")


@pytest.mark.parametrize(
    "words",
    ["folds", "train FOLD=0", "tester FOLD=0", "cv", "inference", "submission", "preview", "demo smoke"],
)
def test_a_fresh_clone_without_data_says_what_to_do(workplace, refused, words):
    script, *more = words.split()
    said = refused(importlib.import_module(script).main, [*more, "DATASET=nothing"])
    assert "make " in said
    assert not list(workplace.glob("output/*")) and not list(workplace.glob("lightning_logs/*"))


@pytest.mark.parametrize("name", ["..", ".", "../../../input/demo", "a/b", ""])
def test_a_prediction_folder_stays_where_predictions_lie(trained, refused, name):
    before = sorted(path for path in Path().rglob("*") if path.is_file())
    if name:
        refused(inference.main, [*TINY, "FOLD=0", f"NAME={name}"], "folder's name")
    mine = Path("output/demo/predictions/mine")
    mine.mkdir(parents=True)
    (mine / "notes.txt").write_text("precious")
    refused(inference.main, [*TINY, "FOLD=0", "NAME=mine"], "not ours to replace")
    assert (mine / "notes.txt").read_text() == "precious"
    assert set(before) <= {path for path in Path().rglob("*") if path.is_file()}


def test_smoke_refuses_to_write_over_a_real_run(trained, refused):
    refused(demo.smoke, [*TINY, "EXPERIMENT=demo"], "EXPERIMENT of its own")
    refused(demo.smoke, [*TINY, "SUBMISSION=output/mine.csv"], "SUBMISSION of its own")


def test_a_failure_leaves_the_earlier_predictions_and_scores(trained, refused):
    assert inference.main([*TINY, "FOLD=0"]) == 0
    folder, scores = Path("output/demo/predictions/demo_fold0_seed42"), (RUN / "val" / "scores.csv").read_bytes()
    held_out = json.loads((RUN / "val" / "manifest.json").read_text())["images"][4]
    for path in (sorted(Path("input/demo/test_hq").iterdir())[9], Path("input/demo", held_out)):
        path.write_bytes(path.read_bytes()[:700])
    refused(inference.main, [*TINY, "FOLD=0"], "broken or cut off")
    refused(tester.main, [*TINY, "FOLD=0"], Path(held_out).name)
    assert (folder / "manifest.json").is_file() and len(list(folder.glob("*.png"))) == 16
    assert (RUN / "val" / "scores.csv").read_bytes() == scores and (RUN / "val" / "summary.json").is_file()


@pytest.mark.main
def test_predictions_of_a_model_that_was_trained_again_are_not_submitted(trained, refused):
    assert inference.main([*TINY, "FOLD=0"]) == 0
    shutil.rmtree("lightning_logs/demo/fold1_seed42")
    assert train.main([*TINY, "FOLD=0", "EPOCHS=1", "LR=1e-4", "OVERWRITE=1"]) == 0
    refused(submission.main, [*TINY, "FOLD=0"], "predicted by an earlier model", "make inference FOLD=0")
    refused(inference.main, [*TINY, "FOLD=0,0"], "names a fold twice")


def test_cross_validation_with_other_settings_does_not_show_the_old_score(trained, refused):
    refused(cv.main, [*TINY, "EPOCHS=7"], "EPOCHS: 2 there, 7 now")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (RUN / "val" / "manifest.json", "{}"),
        (RUN / "val" / "manifest.json", '{"images": [], "models": [{}]}'),
        (RUN / "val" / "summary.json", '{"threshold": 0.5, "min_area": 0, "empty_policy": "one"}'),
        (RUN / "val" / "scores.csv", ""),
        (RUN / "val" / "scores.csv", "a,b\n1,2\n"),
        (RUN / "val" / "scores.csv", None),
        (RUN / "model.json", "{}"),
        (RUN / "model.json", "[1]"),
        (RUN / "model.json", '{"fold": "x", "weights": "", "network": {}, "weights_sha256": "", "folds_sha256": ""}'),
    ],
)
def test_broken_files_of_our_own_end_in_a_sentence(trained, refused, file, content):
    file.unlink() if content is None else file.write_text(content)
    refused(tester.main, [*TINY, "OOF=1"], file.name)


@pytest.mark.parametrize("change", [{"IMAGE_SIZE": [3]}, {"MODEL_MEAN": "x"}, {"RESIZE": "bogus"}, {"MODEL_NAME": 3}])
def test_a_model_json_with_odd_values_ends_in_a_sentence(trained, refused, change):
    about = json.loads((RUN / "model.json").read_text())
    about["network"].update(change)
    write_json(RUN / "model.json", about)
    refused(inference.main, [*TINY, "FOLD=0"])


def test_samples_of_excel_and_of_two_names(trained, refused):
    inference.main([*TINY, "FOLD=0"])
    sample = Path("input/demo/sample_submission.csv")
    sample.write_bytes(b"\xef\xbb\xbf" + sample.read_bytes())
    shutil.copy("input/demo/train_masks.csv", "input/demo/a_sample_submission_old.csv")
    assert submission.main([*TINY, "FOLD=0"]) == 0
    shutil.copy(sample, "input/demo/b_sample_submission.csv")
    sample.unlink()
    refused(submission.main, [*TINY, "FOLD=0"], "Which sample is it?")
    for other in Path("input/demo").glob("?_sample*"):
        other.unlink()
    sample.write_bytes("img,rle_mask\nü,1 1\n".encode("latin-1"))
    refused(submission.main, [*TINY, "FOLD=0"], "not readable as CSV in UTF-8")


@pytest.mark.parametrize(
    "argument", ["SUBMISSION=output/s.json", "SUBMISSION=input/demo/train_hq/x.jpg", "TRAIN_FOLDS=."]
)
def test_tables_are_written_as_csv_only(untouched, refused, argument):
    refused(submission.main, [*TINY, argument], ".csv")


def test_a_file_where_a_folder_should_be_is_a_sentence(folds_table, refused):
    Path("blocked").write_text("")
    refused(train.main, [*TINY, "FOLD=0", "LOGS=blocked"], "blocked")
    refused(folds.main, [*TINY, "OUTPUT=blocked"], "blocked")
    assert Path("blocked").read_text() == ""


@pytest.mark.main
def test_the_next_lines_lead_from_folds_to_a_submission_and_from_all_folds_to_a_report(demo_data, capfd):
    """Copied as they are, with a recipe, an experiment and a folder of their own."""
    Path("mine.cfg").write_text("".join(f"{text}\n" for text in (*TINY, "EPOCHS=1")))
    verbs = ("folds", "train", "tester", "inference", "submission", "cv", "tune", "report")
    mains = {name: importlib.import_module(name).main for name in verbs}

    def follow(line, last):
        walked = []
        while line:
            _, verb, *words = shlex.split(line)
            walked.append(verb)
            capfd.readouterr()
            assert mains[verb](words) == 0
            said = capfd.readouterr().out
            line = next((text.removeprefix("Next: ") for text in said.splitlines() if text.startswith("Next: ")), "")
            if verb == last:
                break
        return walked

    own = "RECIPE=mine.cfg EXPERIMENT=own OUTPUT=out"
    assert follow(f"make folds {own}", "submission") == ["folds", "train", "tester", "inference", "submission"]
    assert Path("out/submission.csv").is_file()
    assert follow(f"make cv {own}", "report") == ["cv", "tune", "report"]
    assert Path("out/report_own_seed42.html").is_file()
