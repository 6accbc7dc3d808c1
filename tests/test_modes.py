"""Training modes through the real door: OVERFIT, frozen encoder, crops, balance, mixing, device augmentation, W&B."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import cv
import folds
import tester
import train
from conftest import TINY
from data import splits
from data.folds_table import stratum_labels
from loading import samplers
from tools.files import sha256
from training import callbacks

RUN = Path("lightning_logs/demo/fold0_seed42")
SHORT = [*TINY, "EPOCHS=1", "LOGGER=none"]


def test_overfit_learns_its_images_by_heart_in_a_folder_of_its_own(folds_table, refused, capsys):
    learn = ["FOLD=0", *TINY, "OVERFIT=8", "AUGMENT=none", "EPOCHS=25", "LR=2e-2", "EMA=0"]
    assert train.main(learn) == 0
    said = capsys.readouterr().out
    assert "8 images to train on, and the same to validate on (OVERFIT" in said
    assert "Dice on the 8 images it was trained on" in said
    run = Path("lightning_logs/demo_overfit/fold0_seed42")
    assert json.loads((run / "model.json").read_text())["overfit"] == 8
    assert not Path("lightning_logs/demo").exists()
    assert tester.main(["FOLD=0", *TINY, "OVERFIT=8"]) == 0
    assert "8 training images (OVERFIT)" in capsys.readouterr().out
    summary = json.loads((run / "val" / "summary.json").read_text())
    assert summary["scored_on"] == "training images (OVERFIT)" and summary["images"] == 8
    refused(tester.main, ["OOF=1", *TINY, "EXPERIMENT=demo_overfit"], "by heart")
    refused(cv.main, [*TINY, "OVERFIT=8"], "nothing to cross-validate")


def test_overfit_fails_where_nothing_is_learned(folds_table, capsys):
    assert train.main(["FOLD=0", *SHORT, "OVERFIT=8", "LR=1e-7"]) == 1
    assert "did not learn 8 images by heart: Dice" in capsys.readouterr().err
    run = Path("lightning_logs/demo_overfit/fold0_seed42")
    for file in ("", "model.json"):  # finished, and killed just before it was
        if file:
            (run / file).unlink()
        assert train.main(["FOLD=0", *SHORT, "OVERFIT=8", "LR=1e-7", "RESUME=1"]) == 1
        assert "did not learn 8 images by heart: Dice" in capsys.readouterr().err


def test_a_best_epoch_without_any_validation_dice_is_said(folds_table, refused, monkeypatch):
    from training import callbacks

    monkeypatch.setattr(callbacks.BestWeights, "on_validation_end", lambda *_: None)  # as with nothing but NaN
    refused(train.main, ["FOLD=0", *SHORT, "CHECKPOINT=best"], "no epoch of", "EMPTY=skip")


def state_of(run=RUN):
    from modeling.encoder_weights import read_weights

    return read_weights(run / "model.safetensors")


def test_a_frozen_encoder_stays_as_it_is_and_its_norms_too_until_it_is_freed(folds_table, monkeypatch):
    seen = []
    monkeypatch.setattr(
        callbacks.FrozenEncoder,
        "on_train_epoch_end",
        lambda self, trainer, module: seen.append(
            {name: value.clone() for name, value in module.network.body.encoder.state_dict().items()}
        ),
    )
    assert train.main(["FOLD=0", *SHORT, "EPOCHS=3", "FREEZE_ENCODER=2", "EMA=0"]) == 0
    first, second, third = seen
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(second[name], third[name]) for name in first)
    assert any(not torch.equal(second[name], third[name]) for name in first if "running_mean" in name)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["FREEZE_ENCODER=1"], ["never train the encoder"]),
        (["CROP=16,0"], ["expected a height and a width"]),
        (["MIX=mixup", "TRAIN_BATCH_SIZE=1"], ["has one"]),
        (["BALANCE=strat"], ["no training image has the stratum"]),
        (["OPTIMIZER=adamx"], ["Did you mean adam"]),
        (["AUGMENT=nail"], ["Did you mean nails?"]),
    ],
)
def test_settings_that_cannot_be_are_refused_before_a_run_is_made(folds_table, refused, extra, words):
    refused(train.main, ["FOLD=0", *SHORT, *extra], *words)
    assert not RUN.exists()


@pytest.mark.parametrize("extra", [["SCHEDULE=plateau"], ["EARLY_STOPPING=2"]])
def test_what_goes_by_the_validation_dice_is_refused_without_validation(folds_table, refused, extra):
    refused(train.main, ["FOLD=full", *SHORT, *extra], "validates on nothing", extra[0].split("=")[0])


@pytest.mark.parametrize(
    "extra",
    [
        ["MIX=both", "LOSS=symmetric_lovasz", "SCHEDULE=plateau", "OPTIMIZER=sgd"],
        ["AUGMENT_ON=device", "AUGMENT=nails", "MIX=mixup", "SCHEDULE=onecycle", "OPTIMIZER=radam", "ENCODER_LR=0.1"],
        ["CROP=16,32", "FOREGROUND=0.5", "BALANCE=strata"],
        ["MODEL_NAME=unet", "MAX_FEATURES=16", "DEEP_SUPERVISION=2", "CHECKPOINT=best"],
    ],
)
def test_every_mode_trains_and_is_scored(folds_table, extra):
    arguments = ["FOLD=0", *SHORT, *extra, "LIMIT=2"]
    assert train.main(arguments) == 0
    assert tester.main(arguments) == 0
    assert 0 <= json.loads((RUN / "val" / "summary.json").read_text())["model"]["image"]["dice"] <= 1


def test_crops_of_images_of_any_size_are_validated_whole(workplace, capsys):
    random = np.random.default_rng(0)
    for number in range(10):
        size = (40 + 8 * (number % 3), 64)
        mask = np.zeros(size, np.uint8)
        mask[10:30, 10 + number : 40] = 255
        for kind, pixels in (("images", mask // 3 + random.integers(0, 60, size)), ("masks", mask)):
            path = Path("input/demo", kind, f"{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    arguments = [*SHORT, "RESIZE=none", "CROP=32,32", "DIALECT=hubmap"]
    assert folds.main(arguments) == 0
    assert train.main(["FOLD=0", *arguments]) == 0
    assert "in crops of 32 x 32" in capsys.readouterr().out
    assert tester.main(["FOLD=0", *arguments]) == 0
    frame = (RUN / "val" / "scores.csv").read_text().splitlines()
    assert len(frame) == 1 + 5


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=40), st.integers(0, 9))
def test_weighted_rows_come_as_often_as_they_weigh_give_or_take_one(weights, seed):
    rows, weights = np.arange(100, 100 + len(weights)), np.array(weights)
    order = samplers.epoch_order(seed, 3, rows, weights)
    expected = weights / weights.sum() * len(rows)
    counts = np.array([Counter(order.tolist())[row] for row in rows.tolist()])
    assert len(order) == len(rows) and (np.abs(counts - expected) < 1 + 1e-6).all()
    assert order.tolist() == samplers.epoch_order(seed, 3, rows, weights).tolist()


def test_strata_come_equally_often_or_by_their_shares():
    strata = ["a"] * 90 + ["b"] * 10
    for shares, expected in (({}, 50), ({"b": 3.0}, 75)):
        order = samplers.epoch_order(0, 0, np.arange(100), samplers.balance_weights(strata, shares))
        assert abs(int((order >= 90).sum()) - expected) <= 1


def test_foreground_comes_as_often_as_asked_for_and_a_repeat_is_augmented_anew():
    shown = np.arange(100) < 20
    weights = samplers.foreground_weights(np.ones(100), shown, 0.5)
    order = samplers.epoch_order(0, 0, np.arange(100), weights)
    assert abs(int((order < 20).sum()) - 50) <= 1
    plenty = samplers.foreground_weights(np.ones(100), ~shown, 0.5)
    assert (plenty == 1).all()  # four fifths show some already
    unchanged = samplers.foreground_weights(np.ones(100), shown | True, 0.5)
    assert (unchanged == 1).all()
    places = list(samplers.EpochSampler(np.arange(100), 0, weights))
    assert len(set(places)) == 100 and max(repeat for _, _, repeat in places) > 0


def test_batches_are_of_one_shape_and_hold_every_row_once():
    shapes = [(8, 8), (8, 9), (8, 8), (8, 9), (8, 8)]
    batches = list(samplers.ShapeBatches(np.arange(5), shapes, 2))
    assert [[row for _, row, _ in batch] for batch in batches] == [[0, 2], [4], [1, 3]]


def test_wandb_is_refused_where_it_is_not_installed(folds_table, refused, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "wandb", None)
    refused(train.main, ["FOLD=0", *SHORT, "LOGGER=wandb"], "pip install wandb")


def test_wandb_keeps_an_offline_run_in_the_run_folder(folds_table, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert train.main(["FOLD=0", *SHORT, "LOGGER=wandb", "LIMIT=1"]) == 0
    assert len(list(RUN.glob("wandb/offline-run-*/*.wandb"))) == 1
    (RUN / "model.json").unlink()
    assert train.main(["FOLD=0", *SHORT, "LOGGER=wandb", "LIMIT=1", "RESUME=1"]) == 0
    runs_of = {path.stem.removeprefix("run-") for path in RUN.glob("wandb/offline-run-*/*.wandb")}
    assert runs_of == {(RUN / "wandb_id.txt").read_text()}  # a resumed run goes on in its own curves
    assert (RUN / "metrics.csv").is_file()


def test_strata_are_the_layouts_subfolders_and_balance_goes_by_them(workplace, capsys):
    for name, count in (("one", 12), ("two", 4), ("area1", 2)):
        for number in range(count):
            mask = np.zeros((40, 48), np.uint8)
            mask[4 : 12 + number, 8:30] = 255
            noise = np.random.default_rng([number, count]).integers(0, 99, mask.shape)
            for kind, pixels in (("images", mask // 2 + noise), ("masks", mask)):
                path = Path("input/demo", kind, name, f"{number}.png")
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    assert folds.main([*SHORT, "GROUP=none"]) == 0
    table = Path("output/demo/train_folds.csv")
    frame = splits.read(table)
    assert set(frame["stratum"]) == {"one", "two", "area1"}

    def shares(balance):
        strata = stratum_labels(frame, table)
        weights = samplers.balance_weights(strata, samplers.stratum_shares(balance, strata))
        return {name: weights[frame["stratum"] == name].sum() / weights.sum() for name in ("one", "two", "area1")}

    assert shares("strata") == pytest.approx({"one": 1 / 3, "two": 1 / 3, "area1": 1 / 3})
    assert shares("one=2,area1=1") == pytest.approx({"one": 1 / 2, "two": 1 / 4, "area1": 1 / 4})
    assert train.main(["FOLD=0", *SHORT, "BALANCE=one=2,two=1", "EPOCHS=1"]) == 0
    assert "BALANCE=one=2,two=1: 3 strata (area1 1, one 6, two 2)" in capsys.readouterr().out
    about = json.loads(table.with_suffix(".json").read_text())
    del about["labeled_strata"]  # as a table of before: the area behind the label assigned its folds
    before = frame.assign(stratum=[f"{name}/area{number % 2}" for number, name in enumerate(frame["stratum"])])
    before.to_csv(table, index=False, lineterminator="\n")
    table.with_suffix(".json").write_text(json.dumps({**about, "sha256": sha256(table)}))
    assert stratum_labels(splits.read(table), table) == frame["stratum"].tolist()
    assert folds.main([*SHORT, "GROUP=none", "OVERWRITE=1"]) == 0
    assert set(splits.read(table)["stratum"]) == {"one", "two", "area1"}
