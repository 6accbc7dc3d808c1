"""A training that was killed, stopped or cut off goes on as if nothing had been: the same weights, bit for bit."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import callbacks
import checkpoints
import locks
import train
from conftest import ROOT, TINY

EACH_STEP = "CHECKPOINT_MINUTES=0.00001"
HARD = [
    "SCHEDULE=plateau", "PATIENCE=0", "THRESHOLD=1", "FREEZE_ENCODER=1", "AUGMENT_ON=device", "MIX=both",
    "BALANCE=strata", "CHECKPOINT=best",
]  # fmt: skip
RAGGED = ["ACCUMULATE=3", "TRAIN_BATCH_SIZE=4", "OPTIMIZER=radam", "WORKERS=2", "CROP=16,32"]
PRELOAD = [
    "pandas",
    "segmentation_models_pytorch",
    "train",
    "trainer",
    "assembly",
    "lightning_module",
    "losses",
    "dataset",
]


def run_of(experiment):
    return Path("lightning_logs", experiment, "fold0_seed42")


def curves(experiment):
    import pandas as pd

    table = pd.read_csv(run_of(experiment) / "metrics.csv")
    names = [name for name in table if name.startswith(("train_loss", "valid_")) or name == "lr-AdamW"]
    return {name: table.dropna(subset=[name])[["epoch", "step", name]].values.tolist() for name in names}


def same(whole, cut):
    """The two experiments have equal weights and equal curves, to the last bit."""
    ours, theirs = (load_file(run_of(name) / "model.safetensors") for name in (cut, whole))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(value, ours[name]), name
    assert curves(cut) == curves(whole)
    about, other = (json.loads((run_of(name) / "model.json").read_text()) for name in (cut, whole))
    assert (about["steps"], about["epochs"], about["weights"]) == (other["steps"], other["epochs"], other["weights"])


class PowerCutError(BaseException):
    pass


def cut_after(step, monkeypatch, how=PowerCutError):
    """A context in which training is struck right after that optimiser step, before anything else of the step's end."""

    class Struck(callbacks.EpochLine):
        def on_train_batch_start(self, trainer, module, batch, index):
            if trainer.global_step == step:
                if how is PowerCutError:
                    raise PowerCutError
                os.kill(os.getpid(), how)

    context = pytest.MonkeyPatch.context()
    return context, Struck


@pytest.mark.parametrize(
    ("extra", "steps"), [([], (1, 3, 4, 7)), (HARD, (1, 4, 6)), (RAGGED, (2, 3, 5))], ids=["plain", "hard", "ragged"]
)
def test_a_run_that_is_cut_off_at_any_step_goes_on_exactly(folds_table, extra, steps):
    arguments = [*TINY, "FOLD=0", EACH_STEP, *extra]
    assert train.main([*arguments, "EXPERIMENT=whole"]) == 0
    for resume, step in enumerate(steps):
        context, struck = cut_after(step, None)
        with context as patch:
            patch.setattr(callbacks, "EpochLine", struck)
            with pytest.raises(PowerCutError):
                train.main([*arguments, "EXPERIMENT=cut", *(["RESUME=1"] if resume else [])])
        assert not (run_of("cut") / "model.json").exists()
        kept = torch.load(run_of("cut") / "checkpoints" / "last.ckpt", weights_only=True)
        assert kept["global_step"] == step
    assert train.main([*arguments, "EXPERIMENT=cut", "RESUME=1"]) == 0
    same("whole", "cut")
