"""Pseudo-labels: who may train on which, what is scored, and what is refused."""

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import compare
import folds
import inference
import leaderboard
import linked
import pseudo
import settings
import test_tasks
import train
from conftest import TINY, cross_validate
from data import dataspec, splits
from data.dataspec import IGNORED, DataSpec
from prediction import postprocess, prediction_folders
from prediction.postprocess import Rule
from scoring import out_of_fold, pseudo_labels
from tools import errors, run_folders
from tools.files import sha256, write_json
from training import builders

LOGS, OUTPUT = Path("lightning_logs"), Path("output/demo")
TABLE, NEW = OUTPUT / "train_folds.csv", OUTPUT / "train_folds_demo_pseudo.csv"
FOLDS = ("0", "1", "full")
SOME = "CONFIDENCE=0.68"  # reached by 13, 8 and 11 of the 16 test images: fold 0, fold 1, full
ON_NEW = [f"TRAIN_FOLDS={NEW}", "EXPERIMENT=demo_pseudo"]


def read(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False)


@pytest.fixture(scope="session")
def labeled_source(trained_source, tmp_path_factory):
    """The trained working folder with pseudo-labels, and both folds trained and scored on them."""
    place = linked.copy(trained_source, tmp_path_factory.mktemp("labeled") / "copy")
    with contextlib.chdir(place):
        assert pseudo.main([*TINY, SOME]) == 0
        cross_validate(*ON_NEW, "EPOCHS=1")
    return place


@pytest.fixture
def labeled(labeled_source, tmp_path, monkeypatch):
    monkeypatch.chdir(linked.copy(labeled_source, tmp_path / "copy"))


def maps_of(fold):
    name = "0-1" if fold == "full" else fold
    return OUTPUT / "predictions" / f"demo_fold{name}_seed42"


def seal(folder):
    """Write a manifest that fits changed maps."""
    manifest = json.loads((folder / run_folders.MANIFEST).read_text())
    spec = dataspec.from_json(manifest["data"], "here")
    manifest["maps_sha256"] = prediction_folders.fingerprint(folder, manifest["images"], spec)
    write_json(folder / run_folders.MANIFEST, manifest)


def test_each_fold_trains_on_the_labels_of_its_own_model_only(labeled):
    """What the loaders hand out, against the maps that each model made."""
    loaded = settings.load([*TINY, *ON_NEW])
    frame, spec = splits.read(NEW), dataspec.read(NEW.with_suffix(".json"))
    root, shown = Path("input/demo"), {}
    for fold in FOLDS:
        train_rows, valid_rows = builders.fold_rows(loaded, frame, fold)
        data = builders.loaders(loaded, spec, frame, train_rows, valid_rows)
        come = {row for epoch in range(3) for row in batch_rows(data, epoch)}
        ours = frame.iloc[sorted(come)]
        labels = ours[ours["mask"].str.contains("pseudo")]
        assert set(ours["image"]) - set(labels["image"]) == set(read(TABLE).query(f"kfold != '{fold}'")["image"])
        assert set(labels["kfold"]) == {-1} and set(labels["for_fold"]) == {fold}
        expected = [line for line in read(NEW).to_dict("records") if line["for_fold"] == fold]
        assert 0 < len(expected) == len(labels) <= 16
        for row in labels.itertuples():
            p8 = np.asarray(Image.open(maps_of(fold) / Path(row.image).with_suffix(".png").name))
            drawn = np.asarray(Image.open(root / row.mask))
            np.testing.assert_array_equal(drawn, (p8 >= 128) * np.uint8(255))
            shown[fold, row.image] = drawn
    same = [image for fold, image in shown if fold == "0" and ("1", image) in shown]
    assert any((shown["0", image] != shown["1", image]).any() for image in same)  # else nothing was told apart


def batch_rows(data, epoch):
    loader = data.train_dataloader()
    loader.batch_sampler.sampler.set_epoch(epoch)
    return [row for batch in loader for row in batch["row"].tolist()]


def test_no_pseudo_label_is_ever_scored_nor_in_the_constant_mask_of_another_fold(labeled):
    held_out = {fold: set(part["image"]) for fold, part in read(TABLE).groupby("kfold")}
    for fold in ("0", "1"):
        run = LOGS / f"demo_pseudo/fold{fold}_seed42"
        assert set(read(run / "val/scores.csv")["image"]) == held_out[fold]
        rows, trained_on = out_of_fold.held_out(splits.read(NEW), run, NEW)
        assert set(rows["kfold"]) == {int(fold)} and set(trained_on["for_fold"]) == {"", fold}
    scores = read(LOGS / "demo_pseudo/oof_seed42/scores.csv")
    assert sorted(scores["image"]) == sorted(read(TABLE)["image"])


def test_the_rows_that_were_there_are_unchanged(labeled, trained_source):
    assert TABLE.read_bytes() == (trained_source / TABLE).read_bytes()
    before, after = TABLE.read_text().splitlines(), NEW.read_text().splitlines()
    assert after[0] == f"{before[0]},for_fold"
    assert after[1 : len(before)] == [f"{line}," for line in before[1:]]
    about, old = (json.loads(path.with_suffix(".json").read_text()) for path in (NEW, TABLE))
    assert about["data"] == old["data"] and about["sha256"] == sha256(NEW)
    assert {line["for fold"]: line["test images"] for line in about["pseudo"]["folds"]} == dict.fromkeys(FOLDS, 16)


def test_the_sheet_shows_kept_and_rejected_ones(labeled):
    assert Image.open(OUTPUT / "pseudo/demo_pseudo.png").size[1] > 12 * 150


def test_base_and_pseudo_are_compared_on_what_both_hold_out(labeled, capsys):
    assert compare.main([*TINY, "A=demo", "B=demo_pseudo"]) == 0
    said = capsys.readouterr().out
    assert "TRAIN_FOLDS" in said and str(NEW) in said
    found = json.loads((OUTPUT / "compare_demo_demo_pseudo.json").read_text())
    both = [json.loads((LOGS / name / "oof_seed42/summary.json").read_text()) for name in ("demo", "demo_pseudo")]
    assert found["difference"] == pytest.approx(both[1]["score"]["model"] - both[0]["score"]["model"])
    assert leaderboard.main(TINY) == 0
    assert set(read(OUTPUT / "leaderboard.csv")["experiment"]) == {"demo", "demo_pseudo"}


def forge(change):
    """Another pseudo table, under which demo_pseudo was trained and scored as far as every hash says."""
    frame = read(NEW)
    change(frame)
    frame.to_csv(NEW, index=False)
    for part in LOGS.glob("demo_pseudo/**/*.json"):
        text = part.read_text()
        for old in {about["folds_sha256"] for about in [json.loads((LOGS / "demo_pseudo/settings.json").read_text())]}:
            text = text.replace(old, sha256(NEW))
        if part.name != "settings.json" or part.parent.name != "demo_pseudo":
            part.write_text(text)


def swap_masks(frame):
    """Two held-out images of a fold have each other's mask."""
    one, other = frame.index[frame["kfold"] == "0"][:2]
    frame.loc[[one, other], "mask"] = frame.loc[[other, one], "mask"].to_numpy()


def another_group(frame):
    frame.loc[frame.index[frame["kfold"] == "0"][0], "group"] = "alone"


@pytest.mark.parametrize("change", [swap_masks, another_group])
def test_other_held_out_rows_are_not_compared(labeled, refused, capsys, change):
    forge(lambda frame: None)
    assert compare.main([*TINY, "A=demo", "B=demo_pseudo"]) == 0
    before = sha256(NEW)
    write_json(LOGS / "demo_pseudo/settings.json", {"folds_sha256": before})
    forge(change)
    refused(compare.main, [*TINY, "A=demo", "B=demo_pseudo"], "do not hold out the same", str(NEW))
    assert leaderboard.main(TINY) == 0
    assert "left out: demo_pseudo, seed 42" in capsys.readouterr().out


def test_masks_that_were_redrawn_in_between_are_not_compared(labeled, refused):
    path = LOGS / "demo_pseudo/oof_seed42/scores.csv"
    scores = pd.read_csv(path, dtype={"image": str, "group": str})
    scores.loc[0, ["fn", "tn"]] += [5, -5]
    scores.to_csv(path, index=False)
    refused(compare.main, [*TINY, "A=demo", "B=demo_pseudo"], "different masks")


def test_predictions_of_another_fold_under_this_fold_s_name_are_made_again(labeled, capsys):
    """The cheat that would hurt most: fold 1's model has learned the masks that fold 0 holds out."""
    assert inference.main([*TINY, "FOLD=1", "NAME=demo_fold0_seed42"]) == 0
    forged = {path.name: path.read_bytes() for path in maps_of("0").glob("*.png")}
    assert pseudo.main([*TINY, SOME, "NAME=p"]) == 0
    assert "demo_fold0_seed42 is of other models" in capsys.readouterr().out
    weights = json.loads((LOGS / "demo/fold0_seed42/model.json").read_text())["weights_sha256"]
    assert [part["weights_sha256"] for part in run_folders.read_manifest(maps_of("0"), "")["models"]] == [weights]
    assert any((maps_of("0") / name).read_bytes() != old for name, old in forged.items())


def test_what_is_there_is_used_and_what_was_exchanged_is_made_again(labeled, capsys):
    times = {fold: (maps_of(fold) / run_folders.MANIFEST).stat().st_mtime_ns for fold in FOLDS}
    victim = sorted(maps_of("1").glob("*.png"))[0]
    Image.fromarray(np.full((64, 96), 255, np.uint8)).save(victim)
    assert pseudo.main([*TINY, SOME, "NAME=again"]) == 0
    assert "files were exchanged" in capsys.readouterr().out
    assert [(maps_of(fold) / run_folders.MANIFEST).stat().st_mtime_ns == times[fold] for fold in FOLDS] == [
        True,
        False,
        True,
    ]
    first, again = read(NEW), read(OUTPUT / "train_folds_again.csv")
    assert [text.replace("/again/", "/demo_pseudo/") for text in again["mask"]] == list(first["mask"])


def test_a_second_round_replaces_the_labels_of_the_first(labeled):
    assert pseudo.main([*TINY, *ON_NEW, "CONFIDENCE=0", "NAME=second"]) == 0
    table = splits.read(OUTPUT / "train_folds_second.csv")
    assert len(table) == 64 + 3 * 16
    old = table[table["for_fold"] == ""]
    assert list(old["image"]) == list(read(TABLE)["image"]) and set(old["kfold"]) == {0, 1}
    assert all("/second/" in mask for mask in table["mask"][table["for_fold"] != ""])


def test_names_that_are_taken_are_kept(labeled, refused):
    before = NEW.read_bytes()
    refused(pseudo.main, [*TINY, "CONFIDENCE=0.05"], "these runs were trained on it", "OVERWRITE=1")
    refused(pseudo.main, [*TINY, "NAME=demo"], "another NAME")
    refused(pseudo.main, [*TINY, "NAME=../x"], "folder's name")
    (OUTPUT / "train_folds_mine.csv").write_text("image\n")
    write_json(OUTPUT / "train_folds_mine.json", {})
    refused(pseudo.main, [*TINY, "NAME=mine"], "not written by make pseudo")
    (OUTPUT / "pseudo/own").mkdir()
    (OUTPUT / "pseudo/own/notes.txt").write_text("precious")
    refused(pseudo.main, [*TINY, "NAME=own"], "not ours to replace")
    assert NEW.read_bytes() == before
    assert pseudo.main([*TINY, "CONFIDENCE=0.05", "OVERWRITE=1"]) == 0
    assert len(read(NEW)) > len(before.splitlines()) - 1


def test_make_folds_leaves_the_new_table_alone(labeled, refused):
    before = NEW.read_bytes()
    refused(folds.main, [*TINY, f"TRAIN_FOLDS={NEW}"], "each for one fold", "TRAIN_FOLDS=")
    refused(folds.main, [*TINY, f"TABLE={NEW}", "OUTPUT=other"], "each for one fold")
    assert NEW.read_bytes() == before
    refused(train.main, [*TINY, "FOLD=0", f"TRAIN_FOLDS={NEW}", "OVERWRITE=1"], "folds_sha256")  # not demo's table


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("for_fold", "7", ["got '7'"]),
        ("for_fold", "-1", ["got '-1'"]),
        ("for_fold", "", ["a row of their own and one for a single fold"]),
        ("kfold", "0", ["for rows of kfold -1"]),
    ],
)
def test_a_table_that_would_leak_is_refused(labeled, refused, column, value, words):
    frame = read(NEW)
    twice = frame["image"][frame["image"].duplicated()].iloc[0]
    frame.loc[frame.index[frame["image"] == twice][0], column] = value
    frame.to_csv(NEW, index=False)
    refused(train.main, [*TINY, "FOLD=0", *ON_NEW, "OVERWRITE=1"], *words)


def test_nothing_confident_writes_nothing(labeled, refused):
    said = refused(
        pseudo.main, [*TINY, "CONFIDENCE=1", "NAME=sure"], "No test image reaches CONFIDENCE=1", "the highest is 0."
    )
    assert "Nothing was written" in said
    assert not list(OUTPUT.rglob("*sure*"))


def steered():
    path = LOGS / "demo/fold1_seed42/model.json"
    about = json.loads(path.read_text())
    about["settings"]["CHECKPOINT"] = "best"
    write_json(path, about)


def by_heart():
    path = LOGS / "demo/fold1_seed42/model.json"
    write_json(path, {**json.loads(path.read_text()), "overfit": 4})


def an_ensemble():
    write_json(LOGS / "demo" / run_folders.ENSEMBLE, {})


def another_table():
    TABLE.write_text(TABLE.read_text() + "\n")


@pytest.mark.parametrize(
    ("break_it", "arguments", "words"),
    [
        (lambda: None, ["CONFIDENCE=much"], ["CONFIDENCE=much", "0 to 1"]),
        (lambda: None, ["CONFIDENCE=90"], ["CONFIDENCE=90", "0 to 1"]),
        (lambda: None, ["CONFIDENCE=nan"], ["CONFIDENCE=nan"]),
        (lambda: None, ["POSTPROCESS=tuned"], ["chosen on all folds' held-out masks"]),
        (lambda: None, ["OVERFIT=3"], ["OVERFIT"]),
        (lambda: None, ["EXPERIMENT=nothing"], ["no finished run", "make train"]),
        (lambda: None, ["SEED=9"], ["no finished run"]),
        (lambda: None, ["TEST_PATH=input/demo/train_hq"], ["are in output/demo/train_folds.csv already"]),
        (lambda: None, ["TEST_PATH=nowhere"], ["no test images"]),
        (lambda: shutil.rmtree(LOGS / "demo/fold1_seed42"), [], ["has fold 0", "make train FOLD=1"]),
        (steered, [], ["CHECKPOINT=best", "fold 1 holds out"]),
        (by_heart, [], ["OVERFIT", "fold1_seed42"]),
        (an_ensemble, [], ["an ensemble", "one of its members"]),
        (another_table, [], ["another folds table"]),
        (TABLE.unlink, [], ["make folds"]),
    ],
)
def test_what_cannot_be_labeled_is_said(trained, refused, break_it, arguments, words):
    break_it()
    refused(pseudo.main, [*TINY, *arguments], *words)
    assert not list(OUTPUT.glob("*pseudo*")) and not (OUTPUT / "predictions").exists()


def test_test_images_and_links_outside_input_are_found_again(trained):
    """INPUT may be a link to another disk, and TEST_PATH lie anywhere: the references lead there."""
    shutil.move("input/demo", "elsewhere")
    Path("input/demo").symlink_to(Path("elsewhere").resolve())
    shutil.move("elsewhere/test_hq", "apart")
    assert pseudo.main([*TINY, SOME, "TEST_PATH=apart"]) == 0
    frame, spec = splits.read(NEW), dataspec.read(NEW.with_suffix(".json"))
    new = frame[frame["kfold"] == -1]
    assert len(new) and all(text.startswith("../") for text in (*new["image"], *new["mask"]))
    for row in new.itertuples():
        assert spec.read_pair(Path("input/demo"), row.image, row.mask)[0].shape == (64, 96, 3)


def test_one_class_a_pixel_leaves_what_is_unsure_unlabeled(workplace):
    """Maps as a sure model would have made them, with a strip where it is not: red is right, the strip not labeled."""
    test_tasks.write()
    (test_tasks.ROOT / "classes.csv").write_text("name,value\nbackground,0\nred,10\nblue,20\n")
    for path in (test_tasks.ROOT / "masks").iterdir():
        labels = np.asarray(Image.open(path))
        Image.fromarray(np.where(labels < 9, labels * 10, labels).astype(np.uint8)).save(path)
    common = test_tasks.COMMON[:-1]
    assert folds.main(common) == 0
    for fold in "01":
        assert train.main([*common, f"FOLD={fold}"]) == 0
    for fold, name in (("0", "0"), ("1", "1"), ("0,1", "0-1")):
        assert inference.main([*common, f"FOLD={fold}"]) == 0
        place = Path(f"output/x/predictions/x_fold{name}_seed42")
        for image in ("p8", "p9"):
            labels = test_tasks.scene(int(image[1:]))[1]
            for value, kind in enumerate(("background", "red", "blue")):
                p8 = np.where(labels % 255 == value, 250, 2).astype(np.uint8)
                p8[:4, :20] = (200, 40, 15)[value]  # background, but not sure
                Image.fromarray(p8).save(place / image / f"{kind}.png")
        seal(place)
    assert pseudo.main([*common, "CONFIDENCE=0.9"]) == 0
    table = Path("output/x/train_folds_x_pseudo.csv")
    new = splits.read(table).query("kfold == -1")
    assert sorted(new["for_fold"]) == sorted([*"01", "full"] * 2)
    for row in new.itertuples():
        labels = test_tasks.scene(int(Path(row.image).stem[1:]))[1]
        expected = np.where(labels % 255 == labels, labels * 10, 0)
        expected[:4, :20] = 255
        np.testing.assert_array_equal(np.asarray(Image.open(Path("input/x", row.mask))), expected)
    assert train.main([*common, "FOLD=0", "EXPERIMENT=new", f"TRAIN_FOLDS={table}"]) == 0


CLASSES = ("background", "red", "blue")
SPECS = {
    "values": DataSpec("multiclass", CLASSES, values=(0, 7, 900), ignore=(255,)),
    "colours": DataSpec("multiclass", CLASSES, colors=((0, 0, 0), (9, 8, 7), (1, 2, 3)), ignore=(255, 0, 255)),
    "planes of a class map": DataSpec("multiclass", CLASSES),
    "multilabel": DataSpec("multilabel", ("red", "light blue")),
    "binary": DataSpec(),
}


@pytest.mark.parametrize("kind", SPECS)
def test_labels_read_back_as_they_were_meant(tmp_path, kind):
    spec, random = SPECS[kind], np.random.default_rng(0)
    p8 = random.integers(0, 256, (len(spec.classes), 20, 30)).astype(np.uint8)
    rules = (Rule(),) * len(spec.scored)
    masks = postprocess.to_masks(p8, spec.task, spec.scored, rules)
    mask = pseudo_labels.labels(p8, spec, masks, 0.8)
    reference = pseudo_labels.write(tmp_path, "fold0", "a/b_{z}.png", mask, spec)
    again = spec.read_mask(tmp_path, reference, (20, 30))
    unsure = p8.max(0) < 204
    if kind in ("values", "colours"):
        assert ((again[0] == IGNORED) == unsure).all() and unsure.any()
        np.testing.assert_array_equal(again[0][~unsure], p8.argmax(0)[~unsure])
    elif kind == "planes of a class map":
        np.testing.assert_array_equal(again[0], p8.argmax(0))
    else:
        np.testing.assert_array_equal(again, p8 >= 128)


def test_a_class_that_climbs_writes_nothing_outside(tmp_path):
    spec = DataSpec("multilabel", ("a", "../../../b"))
    with pytest.raises(errors.UserError, match="lies outside"):
        pseudo_labels.write(tmp_path / "place", "fold0", "a.png", np.ones((2, 4, 4), np.uint8), spec)
    assert not list(tmp_path.glob("*b.png"))


def test_confidence_by_hand():
    """100 sure pixels, 20 between threshold and threshold + 0.1, 30 just below: 2 * 100 / (100 + 150)."""
    p8 = np.zeros((2, 20, 20), np.uint8)
    p8[0].flat[:100], p8[0].flat[100:120], p8[0].flat[120:150] = 255, 140, 110
    p8[1] = 51
    one, two = DataSpec(), DataSpec("multilabel", ("a", "b"))
    assert pseudo_labels.confidence(p8[:1], one, (Rule(),)) == pytest.approx(200 / 250)
    assert pseudo_labels.confidence(p8, two, (Rule(),) * 2) == pytest.approx(200 / 250)  # b is not shown
    assert pseudo_labels.confidence(p8[1:], one, (Rule(),)) == pytest.approx(1 - 51 / 255)
    assert pseudo_labels.confidence(p8[1:], one, (Rule(0.15),)) == 0  # cut at 0.25 nothing is left of it
    assert pseudo_labels.confidence(p8[:1], one, (Rule(0.98),)) == 1  # the upper cut is no higher than 1
    three = DataSpec("multiclass", CLASSES)
    p8 = np.stack([255 - p8[0], p8[0], np.zeros_like(p8[0])])
    assert pseudo_labels.confidence(p8, three, (Rule(),) * 2) == pytest.approx(200 / 250)


def test_an_object_that_the_rule_removes_is_background_or_not_labeled():
    p8 = np.zeros((3, 6, 6), np.uint8)
    p8[0], p8[1, 0, 0], p8[2, 2:, 2:] = 100, 200, 200
    rules = (Rule(min_area=4),) * 2
    masks = postprocess.to_masks(p8, "multiclass", (1, 2), rules)
    assert pseudo_labels.labels(p8, SPECS["planes of a class map"], masks, 0)[0, 0, 0] == 0
    nobodys = DataSpec("multiclass", ("x", "red", "blue"), values=(1, 2, 3), ignore=(0,))
    masks = postprocess.to_masks(p8, "multiclass", (0, 1, 2), (Rule(), *rules))
    found = pseudo_labels.labels(p8, nobodys, masks, 0)[0]
    assert found[0, 0] == IGNORED and found[0, 1] == 0 and found[3, 3] == 2
