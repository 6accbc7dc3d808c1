"""INIT: a network that begins as another experiment's, what it says, and what it refuses."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

import cv
import tester
import train
from conftest import TINY
from tools import recipes
from tools.files import write_json

LOGS = Path("lightning_logs")
STILL = ["LR=0", "EMA=0", "EPOCHS=1"]  # what is loaded stays as it is, but for what batch norms count
SECOND = [*TINY, "INIT=demo", "EXPERIMENT=second", "FOLD=0"]


def weights(experiment, fold=0):
    return load_file(LOGS / experiment / f"fold{fold}_seed42" / "model.safetensors")


@pytest.mark.main
def test_a_fold_begins_as_its_own_model_and_says_so(trained, capsys):
    assert train.main([*SECOND, *STILL, "IMAGE_SIZE=64,96", "MODEL_MEAN=0.1,0.2,0.3"]) == 0
    said = capsys.readouterr().out
    assert "INIT=demo: 100.0% of the network begins as lightning_logs/demo/fold0_seed42\n" in said
    then, now, other = weights("demo"), weights("second"), weights("demo", 1)
    learned = [name for name in then if then[name].ndim > 1]
    assert len(learned) > 10 and all(then[name].equal(now[name]) for name in learned)  # mean and deviation too
    assert not any(then[name].equal(other[name]) for name in learned if name not in ("mean", "std"))
    about = json.loads((LOGS / "second" / "fold0_seed42" / "run.json").read_text())
    assert about["weights_origin"] == "demo, fold 0, seed 42" and about["settings"]["INIT"] == "demo"
    assert tester.main([*SECOND, *STILL, "IMAGE_SIZE=64,96", "MODEL_MEAN=0.1,0.2,0.3"]) == 0


def test_what_does_not_fit_is_named_and_a_stopped_run_goes_on_without_what_it_began_as(trained_by_smp, capsys):
    other = [*SECOND, "MODEL_NAME=smp_unet_tu-test_resnet", "EPOCHS=3"]  # the same encoder under another decoder
    assert train.main([*other, "MAX_MINUTES=0.00001"]) == 0
    said = capsys.readouterr().out
    assert "what does not fit begins at random" in said and "body.decoder.blocks.0." in said
    assert not any(f"body.{part}" in said for part in ("encoder", "segmentation_head.0.bias"))
    assert (LOGS / "second/fold0_seed42/checkpoints/last.ckpt").is_file()
    shutil.rmtree(LOGS / "demo")
    assert train.main([*other, "RESUME=1"]) == 0
    about = json.loads((LOGS / "second/fold0_seed42/model.json").read_text())
    assert about["weights_origin"] == "demo, fold 0, seed 42" and about["epochs"] == 3


def edited(**values):
    """Exchange values in fold 0's model.json."""

    def do():
        path = LOGS / "demo/fold0_seed42/model.json"
        about = json.loads(path.read_text())
        write_json(path, {**about, **{key: {**about[key], **value} if isinstance(value, dict) else value
                                      for key, value in values.items()}})  # fmt: skip

    return do


@pytest.mark.parametrize(
    ("before", "arguments", "words"),
    [
        (None, ["INIT=nothing"], ["INIT=nothing", "no finished run", "Finished experiments", "demo"]),
        (None, ["INIT=demo:43"], ["no finished run lightning_logs/demo/fold0_seed43"]),
        (None, ["INIT=demo:x"], ["INIT=demo:x", "such as demo:43"]),
        (None, ["INIT=demo", "EXPERIMENT=demo", "OVERWRITE=1"], ["is the experiment itself", "EXPERIMENT=name"]),
        (None, ["INIT=../x/.."], ["folder's name"]),
        (None, ["INIT=demo", "ENCODER_WEIGHTS=a.pth"], ["takes the place of ENCODER_WEIGHTS=a.pth"]),
        (None, ["INIT=demo", "MODEL_NAME=smp_linknet_tu-test_resnet"], ["nothing of", "fits", "MODEL_NAME"]),
        ((LOGS / "demo/fold0_seed42/model.json").unlink, [], ["has no finished model", "fold 1"]),
        (lambda: (LOGS / "demo/fold0_seed42/model.safetensors").write_bytes(b"x"), [], ["is not the file that"]),
        (edited(overfit=4), [], ["learned 4 images by heart", "OVERFIT"]),
        (edited(network={"MODEL_MEAN": "x"}), [], ["has no mean and deviation", "NORMALISE"]),
        (edited(data={"task": "multilabel"}), [], ["multilabel masks, and these are binary"]),
    ],
)  # fmt: skip
def test_what_nothing_can_begin_as_is_refused_and_nothing_is_lost(trained, refused, before, arguments, words):
    if before:
        before()
    there = sorted(LOGS.rglob("*"))
    refused(train.main, [*SECOND, *arguments], *words)
    if not {"fits", "is not the file that", "NORMALISE"} & set(words):  # before any training
        refused(cv.main, [*TINY, "INIT=demo", "EXPERIMENT=second", "FOLDS=0", *arguments], *words)
    assert sorted(path for path in LOGS.rglob("*") if ".lock" not in path.name) == there


def test_the_stages_of_the_recipe(folds_table):
    """192 px, then 320 px from it, here at a quarter of the size: the comments of the recipe say these two commands."""
    text = (recipes.FOLDER / "stages.cfg").read_text()
    assert text.count("# make cv RECIPE=stages ") == 2
    first, second = (line.split()[4:] for line in text.splitlines() if line.startswith("# make cv RECIPE=stages "))
    small = [*TINY, "RECIPE=stages", "FOLDS=0,1"]
    for words, size in ((first, "48"), (second, "80")):
        sized = [word if not word.startswith("IMAGE_SIZE") else f"IMAGE_SIZE={size}" for word in words]
        assert cv.main([*small, *sized]) == 0
    about = json.loads(Path("lightning_logs/large/fold1_seed42/model.json").read_text())
    assert about["weights_origin"] == "small, fold 1, seed 42" and about["network"]["IMAGE_SIZE"] == [80, 80]
