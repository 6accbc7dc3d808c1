"""PRECISION=auto on a CPU, and predictions in 16 bits."""

import json
from pathlib import Path

import pytest
import torch

import doctor
import inference
import kaggle_kernel
import reproduce
import tester
import train
from conftest import TINY
from lightning_module import SegmentationModule
from modeling.losses.loss_sum import Loss
from modeling.optimizers import Optimization
from modeling.unet import plain
from tools import hardware
from training import precision_trial
from training.precision_trial import Trial

AUTO = [*TINY, "PRECISION=auto", "DEVICE=cpu", "EPOCHS=1"]
DEMO = Path("lightning_logs/demo")


def precision_of(run):
    return json.loads((run / "run.json").read_text())["computer"]["precision"]


def test_the_choice_is_the_experiments(folds_table, monkeypatch, capsys, refused):
    trials = []

    def trial(module, batch, size):
        trials.append((batch, size))
        return Trial(batch, size, 0.2, 0.1, warm=True)

    monkeypatch.setattr(precision_trial, "of_step", trial)
    assert doctor.main([*AUTO, "QUICK=1"]) in (0, 1)
    assert (
        "bf16 by trial: 200 ms in 32 bits and 100 ms in bf16 for each of 8 images of 32 x 64" in capsys.readouterr().out
    )
    assert train.main([*AUTO, "FOLD=0", "MAX_MINUTES=0.00001"]) == 0
    assert "bf16 by trial: 200 ms in 32 bits" in capsys.readouterr().out and trials == [(8, (32, 64))] * 2
    monkeypatch.setattr(precision_trial, "of_step", lambda *_: pytest.fail("it was chosen already"))
    assert train.main([*AUTO, "FOLD=0", "RESUME=1"]) == 0  # never changed by a resume
    assert train.main([*AUTO, "FOLD=1", "SEED=7"]) == 0
    assert {precision_of(path) for path in DEMO.glob("fold*")} == {"bf16-mixed"}
    assert doctor.main([*AUTO, "QUICK=1"]) in (0, 1)
    assert "once for lightning_logs/demo" in capsys.readouterr().out
    assert reproduce.main([f"RUN={DEMO}/fold1_seed7", "CHECK=1", "DEVICE=cpu", "WORKERS=0"]) == 0
    assert "Nothing that matters differs" in capsys.readouterr().out
    (DEMO / "precision.json").write_text('{"precision": "8", "said": "x"}')
    refused(train.main, [*AUTO, "FOLD=1"], "precision.json", "Remove it")
    (DEMO / "precision.json").unlink()
    for run in DEMO.glob("fold*"):  # as older code left it, which had no trial
        (run / "run.json").write_text((run / "run.json").read_text().replace("bf16-mixed", "32-true"))
    assert train.main([*AUTO, "FOLD=1"]) == 0
    assert precision_of(DEMO / "fold1_seed42") == "32-true" and not (DEMO / "precision.json").exists()


class Overflowing(torch.nn.Module):
    """Its logits are no numbers in bf16, whose largest number is smaller than the largest of 32 bits."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 1, 1)

    def forward(self, images):
        logits = self.layer(images)
        return logits * (torch.nan if logits.dtype == torch.bfloat16 else 1)


class OneSize(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 1, 1)

    def forward(self, images):
        assert images.shape[-2:] == (32, 48)
        return self.layer(images)


@pytest.mark.parametrize("network", [plain(channels=3, classes=1, max_features=16), Overflowing(), OneSize()])
def test_a_trial_times_a_step_and_leaves_no_trace(network, monkeypatch):
    module = SegmentationModule(network, Loss("ce + dice", "binary", (0,), 1), Optimization(1e-3))
    before, random = {name: value.clone() for name, value in module.state_dict().items()}, torch.get_rng_state()
    monkeypatch.setattr(precision_trial, "SLOW", 1e9)
    monkeypatch.setattr(precision_trial, "SECONDS", 600)
    trial = precision_trial.of_step(module, 4, (32, 48))
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), random) and module.training
    assert trial.finite == (not isinstance(network, Overflowing))
    if trial.finite:
        assert trial.size == (32, 48) and trial.plain > 0 and trial.bf16 > 0
        faster = trial.plain >= 1.2 * trial.bf16
        assert trial.choice == ("bf16" if faster and trial.warm else "32")
    else:
        assert trial.choice == "32" and "no numbers" in trial.said
    monkeypatch.setattr(precision_trial, "SLOW", 0.0)  # a CPU without units for bf16
    assert precision_trial.of_step(module, 4, (32, 48)).choice == "32"
    assert Trial(4, (8, 8), 1.2, 1.0).choice == "32"  # the first step alone says nothing
    assert [Trial(4, (8, 8), seconds, 1.0, warm=True).choice for seconds in (1.19, 1.2)] == ["32", "bf16"]


def test_large_steps_are_tried_on_fewer_or_smaller_images():
    fitting = precision_trial._fitting
    assert fitting(8, (256, 256), 1e9) == (8, (256, 256))
    assert fitting(8, (256, 256), 3.5 * 256 * 256) == (3, (256, 256))
    assert fitting(8, (1024, 2048), 1e5) == (2, (128, 288))
    assert fitting(1, (1024, 1024), 10) == (1, (64, 64))
    assert fitting(8, (32, 64), 1) == (2, (32, 64))


def test_scores_are_in_32_bits_and_predictions_in_bf16_say_how_far_they_are(trained, capsys):
    words = [*TINY, "PRECISION=bf16", "DEVICE=cpu"]
    then = (DEMO / "fold0_seed42/val/scores.csv").read_bytes()
    assert tester.main([*words, "FOLD=0"]) == 0
    assert (DEMO / "fold0_seed42/val/scores.csv").read_bytes() == then
    assert inference.main([*words, "FOLD=0"]) == 0
    said = capsys.readouterr().out
    assert "In bf16: on 4 of these images its masks have Dice 0.9" in said
    manifest = json.loads(Path("output/demo/predictions/demo_fold0_seed42/manifest.json").read_text())
    assert manifest["half"] == "bf16"


def test_a_model_trained_in_bf16_predicts_in_fp16_as_in_32(folds_table, capsys):
    words = [*TINY, "PRECISION=bf16", "DEVICE=cpu", "EPOCHS=4", "FOLD=0"]
    assert train.main(words) == 0
    assert kaggle_kernel.main([*words, "COMPETITION=x", "USER=me"]) == 0
    said = capsys.readouterr().out
    assert "they are used on a GPU (trained in bf16, for which a T4 has no units: there it predicts in fp16)" in said
    dice = float(said.partition("16 bits: Dice ")[2].partition(" ")[0])
    assert 0.99 < dice <= 1
    assert hardware.NAMES["bf16"] == json.loads((DEMO / "fold0_seed42/model.json").read_text())["precision"]
