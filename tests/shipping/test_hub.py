"""make hub: smp's own form, loaded back by its users' code, and a card whose numbers are what it says they are."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from PIL import Image

import export
from conftest import TINY
from data.dataspec import DataSpec
from prediction import predictor, shipped_model
from shipping import model_card
from tools import run_folders
from tools.files import write_json

RUN, NAME = Path("lightning_logs/demo/fold0_seed42"), "demo_fold0_seed42"
HUB = Path("output/demo/hub")
CARD = HUB / NAME / "README.md"


@pytest.fixture
def trained(trained_by_smp):
    """Of a network that smp can save."""
    return trained_by_smp


def change(path: Path, **values) -> None:
    write_json(path, {**json.loads(path.read_text()), **values})


def shipped_as(**network) -> None:
    about = json.loads((RUN / run_folders.MODEL).read_text())
    change(RUN / run_folders.MODEL, network={**about["network"], **network})


def lines_of_card() -> str:
    return re.search(r"```python\n(.*?)```", CARD.read_text(), re.DOTALL)[1]


def mask_by_card(image: Path, monkeypatch) -> np.ndarray:
    """What the card's own lines, which import nothing of ours, make of an image without a network."""
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("asked for the network"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("asked for the network"))
    imports = set(re.findall(r"^(?:import|from) (\w+)", lines_of_card(), re.MULTILINE))
    assert imports == {"albumentations", "numpy", "segmentation_models_pytorch", "torch", "PIL"}
    shutil.copy(image, HUB / "image.png")
    code = lines_of_card()
    monkeypatch.chdir(HUB)
    exec(code, names := {})
    monkeypatch.chdir(Path.cwd().parents[2])
    return names["mask"].numpy()


def our_probabilities(image: Path) -> np.ndarray:
    ((_, probabilities),) = predictor.Predictor([shipped_model.load(RUN)]).predict([image])
    return probabilities


@pytest.mark.parametrize("network", [{"RESIZE": "stretch", "IMAGE_SIZE": [40, 72]}, {"RESIZE": "fit"}])
def test_the_cards_own_lines_make_our_mask_with_smp_alone(trained, network, monkeypatch):
    shipped_as(**network)
    big = Path("input/demo/test_hq/0big.png")
    Image.open(sorted(Path("input/demo/test_hq").iterdir())[1]).resize((333, 170)).save(big)
    assert export.hub([*TINY, "FOLD=0"]) == 0
    assert {path.name for path in (HUB / NAME).iterdir()} == {
        *("config.json", "model.safetensors", "albumentations_config_eval.json", "README.md")
    }
    mask, expected = mask_by_card(big.resolve(), monkeypatch), our_probabilities(big)[0] >= 0.5
    assert mask.shape == (1, 170, 333) and 0.02 < expected.mean() < 0.98
    assert (mask[0] != expected).mean() < 1e-2  # of another size than those that the resizing was chosen on


@pytest.mark.slow
def test_a_fresh_process_that_knows_nothing_of_src_uses_the_card_too(trained):
    assert export.hub([*TINY, "FOLD=0"]) == 0
    image = sorted(Path("input/demo/test_hq").iterdir())[1]
    shutil.copy(image, HUB / "image.png")
    code = lines_of_card() + "np.save('mask.npy', mask.numpy())\n"
    command = [sys.executable, "-I", "-c", code]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=HUB, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (np.load(HUB / "mask.npy")[0] != (our_probabilities(image)[0] >= 0.5)).mean() < 1e-3


def test_the_card_has_the_scores_that_were_written_and_says_of_what(trained, capsys):
    assert export.hub([*TINY, "FOLD=0"]) == 0
    card, said = CARD.read_text(), capsys.readouterr().out
    fold = json.loads((RUN / "val/summary.json").read_text())["score"]
    everything = json.loads((RUN.parent / "oof_seed42/summary.json").read_text())["score"]
    first, second = re.findall(r"^\| (?:Held-out|Out of fold).*", card, re.MULTILINE)
    assert "Held-out images of fold 0, which these weights never saw | 32 in 2 groups" in first
    for row, score in ((first, fold), (second, everything)):
        figures = [f"{score[name]:.4f}" for name in ("model", "constant", "ceiling")]
        assert [cell.strip() for cell in row.split("|")][3:7:1][0] == figures[0]
        assert all(figure in row for figure in figures) and f"{score['low']:.4f} to {score['high']:.4f}" in row
        assert row in said
    assert card.startswith("---\nlibrary_name: segmentation-models-pytorch\npipeline_tag: image-segmentation\n")
    assert "dice (0 to 1)" in card and "threshold 0.5;" in card


def without_scores():
    shutil.rmtree(RUN / "val")
    shutil.rmtree(RUN.parent / "oof_seed42")


def best_epoch():
    for path in (RUN / "model.json", RUN / "val/summary.json"):
        change(path, weights="epoch 2, chosen on this fold")


def by_heart():
    change(RUN / "model.json", overfit=8)


def part_of_the_fold():
    change(RUN / "val/summary.json", images=20)


def blank():
    change(RUN / "val/summary.json", score={"model": 0.5, "constant": 0.5, "low": 0, "high": 1, "ceiling": 1})


def turned():
    change(RUN / "val/summary.json", tta="flips")


@pytest.mark.parametrize(
    ("change_it", "words", "absent"),
    [
        (without_scores, ["were not scored: there is no number for them"], ["| scored on"]),
        (best_epoch, ["chosen on these very images (CHECKPOINT=best), so the number is too good"], ["never saw |"]),
        (by_heart, ["trained on, to learn them by heart (OVERFIT)", "nothing about new images"], ["never saw"]),
        (part_of_the_fold, ["(only 20 of the fold's 32)"], []),
        (
            blank,
            ["Line 1: This is no better than a constant mask, which ignores the image: 0.5000 against"],
            ["Line 2"],
        ),
        (turned, ["Not in the lines below: test-time augmentation (flips)"], []),
    ],
)
def test_every_number_is_said_as_what_it_is(trained, change_it, words, absent):
    change_it()
    about = run_folders.read_model(RUN)
    said = model_card.scores(model_card.gather(RUN, about), about)
    if change_it is best_epoch:
        said = said.splitlines()[2]  # the out-of-fold row is of an experiment that this test has not changed
    assert all(word in said for word in words) and not any(word in said for word in absent), said


def test_weights_that_saw_every_image_have_no_score_of_their_own(trained):
    full = RUN.with_name("foldfull_seed42")
    shutil.copytree(RUN, full)
    shutil.rmtree(full / "val")
    change(full / "model.json", fold="full")
    assert export.hub([*TINY, "FOLD=full"]) == 0
    card = (HUB / "demo_foldfull_seed42/README.md").read_text()
    assert "trained on every image: none is left to score them on" in card
    assert "Other networks than this one, trained alike on fewer images | 64 in 4 groups" in card


def test_classes_and_their_thresholds_are_in_the_usage():
    spec = DataSpec("multilabel", ("a", "b"), mean=(0.4,) * 3, std=(0.2,) * 3)
    network = {"IMAGE_SIZE": [32, 64], "RESIZE": "none"}
    text = model_card.usage("x", spec, network, [0.4, 0.6], False)
    assert "p[[0, 1]] >= torch.tensor([0.4, 0.6])[:, None, None]" in text and "sigmoid()" in text
    spec = DataSpec("multiclass", ("background", "a"), mean=(0.4,), std=(0.2,), channels=1)
    text = model_card.usage("x", spec, network, [0.5], False)
    assert "softmax(1)" in text and "p.argmax(0)" in text and 'convert("L")' in text


def another_model():
    change(RUN / "val/manifest.json", models=[{"folder": "x", "weights_sha256": "other"}])


def another_experiment():
    path = RUN.parent / "oof_seed42/summary.json"
    change(path, provenance={**json.loads(path.read_text())["provenance"], "models": ["other"]})


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (another_model, ["scores of another model", "make tester FOLD=0"]),
        (another_experiment, ["other models", "make oof"]),
        (lambda: (RUN / "val/summary.json").write_text("{}"), ["summary.json", "make tester FOLD=0"]),
        (lambda: shipped_as(MODEL_NAME="unet"), ["smp cannot save", "make onnx FOLD=0"]),
        (lambda: shutil.rmtree("input"), ["no test images"]),
    ],
)
def test_what_would_make_a_lying_folder_is_refused(trained, refused, break_it, words):
    break_it()
    refused(export.hub, [*TINY, "FOLD=0", *(["TEST_PATH=input/demo/test_hq"] if "no test" in words[0] else [])], *words)
    assert not HUB.exists()


def test_a_network_that_comes_back_otherwise_is_refused_and_not_left(trained, refused, monkeypatch):
    save = smp.Linknet.save_pretrained

    def damaged(self, *args, **kwargs):
        with torch.no_grad():
            self.segmentation_head[0].bias += 0.1
            save(self, *args, **kwargs)
            self.segmentation_head[0].bias -= 0.1

    monkeypatch.setattr(smp.Linknet, "save_pretrained", damaged)
    refused(export.hub, [*TINY, "FOLD=0"], "Loaded back by smp, the network differs", "Nothing was written")
    assert list(HUB.iterdir()) == []


def test_a_card_that_someone_has_edited_is_not_replaced_unasked(trained, refused):
    assert export.hub([*TINY, "FOLD=0"]) == 0
    CARD.write_text(CARD.read_text() + "license: mine\n")
    refused(export.hub, [*TINY, "FOLD=0"], "may be edited", "OVERWRITE=1")
    assert "license: mine" in CARD.read_text()
    assert export.hub([*TINY, "FOLD=0", "OVERWRITE=1"]) == 0
    assert "license: mine" not in CARD.read_text()
    (HUB / NAME / "config.json").unlink()
    refused(export.hub, [*TINY, "FOLD=0", "OVERWRITE=1"], "not ours to replace")
    refused(export.hub, TINY, "Which fold?")
