"""Step images: drawn from the weights that validation scores, without a trace in the training; the GIF of them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import nn

from data.dataspec import DataSpec
from lightning_module import SegmentationModule, Validation
from modeling.losses import loss_sum
from modeling.optimizers import Optimization
from tools import pictures
from training import callbacks, step_board, step_images
from training.step_images import StepImages

SPEC = DataSpec()
CLASSES = DataSpec(task="multiclass", classes=("background", "red", "blue"), ignore=(255,))


class Fold(pl.LightningDataModule):
    """Ten noisy images 12 x 16; the first six are trained on, the others held out."""

    def __init__(self, held_out=4, spec=SPEC):
        super().__init__()
        random = np.random.default_rng(0)
        top = 3 if spec.task == "multiclass" else 2
        self.cache = [
            (
                random.integers(0, 256, (12, 16, 3)).astype(np.uint8),
                random.integers(0, top, (1, 12, 16)).astype(np.uint8),
            )
            for _ in range(10)
        ]
        self.train_rows, self.valid_rows = np.arange(6), np.arange(6, 6 + held_out)

    def _loader(self, rows, size):
        samples = [
            {
                "image": torch.from_numpy(image.transpose(2, 0, 1).copy()),
                "mask": torch.from_numpy(mask),
                "row": int(row),
            }
            for row, (image, mask) in zip(rows, [self.cache[row] for row in rows], strict=True)
        ]
        return torch.utils.data.DataLoader(samples, batch_size=size)

    def train_dataloader(self):
        return self._loader(self.train_rows, 2)

    def val_dataloader(self):
        return self._loader(self.valid_rows, 4) if len(self.valid_rows) else []


def fit(folder, *, held_out=4, spec=SPEC, hooks=None, epochs=2, draw=True, ckpt=None):
    """Train a tiny network with dropout and batch norm; returns the module and the trainer."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, len(spec.classes), 1)
    )
    loss = loss_sum.Loss("ce + dice", spec.task, spec.scored)
    validation = Validation(spec)
    module = SegmentationModule(network, loss, Optimization(0.05), validation=validation)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        limit_val_batches=1.0 if held_out else 0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*([StepImages(folder / "steps", validation, 3)] if draw else []), *(hooks or [])],
    )
    trainer.fit(module, datamodule=Fold(held_out, spec), ckpt_path=ckpt)
    return module, trainer


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(step_images, "WIDTH", 60)


@pytest.fixture
def drawn(small, monkeypatch):
    """Every (row, probability, caption) that is drawn."""
    seen, row_of = [], StepImages._row

    def spy(self, row, image, mask, probability):
        said = row_of(self, row, image, mask, probability)
        seen.append((row, probability, said[0]))
        return said

    monkeypatch.setattr(StepImages, "_row", spy)
    return seen


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_pictures_show_what_validation_scores(tmp_path, drawn, ema):
    validated = []

    class Spy(callbacks.Callback):
        def on_validation_batch_end(self, trainer, module, outputs, batch, *_):
            with torch.no_grad():
                validated.append(module(batch["image"]).sigmoid().numpy())

    fit(tmp_path, hooks=[*([callbacks.AveragedWeights(ema)] if ema else []), Spy()])
    assert [row for row, *_ in drawn] == [
        6,
        8,
        9,
    ] * 3  # spread over the fold, the same before the first step and each epoch
    for epoch in range(2):
        for place, (row, probability, _) in enumerate(drawn[3 * epoch + 3 : 3 * epoch + 6]):
            np.testing.assert_allclose(probability, validated[epoch][row - 6], atol=1e-6, err_msg=f"{epoch} {place}")
    assert not np.allclose(validated[0], validated[1], atol=1e-4)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "epoch_0000.png",
        "epoch_0001.png",
        "epoch_0002.png",
        "steps",
        "steps.gif",
    ]


def test_the_caption_says_the_dice_that_the_module_logs(tmp_path, drawn):
    _, trainer = fit(tmp_path, epochs=1, held_out=3)  # all three are drawn
    said = [float(caption.split("Dice ")[1]) for _, _, caption in drawn[3:]]
    assert np.mean(said) == pytest.approx(float(trainer.callback_metrics["valid_dice"]), abs=1e-4)
    assert 0 < np.mean(said) < 1


@pytest.mark.parametrize(("held_out", "ema"), [(4, 0.0), (0, 0.9), (0, 0.0)])
def test_drawing_leaves_no_trace_in_the_training(tmp_path, small, held_out, ema):
    states = []
    for draw in (True, False):
        random = []

        class Draws(callbacks.Callback):
            def on_train_epoch_start(self, trainer, module, random=random):
                random.append(torch.rand(1).item())
                assert all(part.training for part in module.modules())

        hooks = [Draws(), *([callbacks.AveragedWeights(ema)] if ema else [])]
        module, trainer = fit(tmp_path / str(draw), held_out=held_out, draw=draw, hooks=hooks, epochs=3)
        states.append((random, module.state_dict(), callbacks.averaged_network(trainer, module).state_dict()))
    assert states[0][0] == states[1][0]
    for ours, theirs in zip(states[0][1:], states[1][1:], strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_without_held_out_images_the_first_training_ones_are_drawn(tmp_path, drawn):
    fit(tmp_path, held_out=0, epochs=1)
    assert [row for row, *_ in drawn] == [0, 1, 2] * 2
    assert (tmp_path / "steps.gif").is_file()


def test_classes_have_their_colors_and_what_is_not_labeled_is_gray(tmp_path):
    spec = CLASSES
    images = StepImages(tmp_path, Validation(spec), 1)
    mask = np.zeros((1, 40, 40), np.uint8)
    mask[0, :20, :20], mask[0, 20:, 20:], mask[0, :10, 20:] = 1, 2, 255
    probability = np.zeros((3, 40, 40), np.float32)
    probability[1, :20, :20], probability[2, 20:, 20:], probability[0] = 0.9, 0.5, 0.4

    caption, (_, truth, heat, answer) = images._row(7, np.full((40, 40, 3), 100, np.uint8), mask, probability)
    assert "row 7" in caption and "Dice 1.0000" in caption
    red, blue = (np.array(pictures.color_of(index, 2)) for index in (0, 1))
    middle, corner = (70, 70), (210, 210)  # of 280 pixels
    np.testing.assert_allclose(heat[middle], red * 0.9, atol=2)
    np.testing.assert_allclose(heat[corner], blue * 0.5, atol=2)
    np.testing.assert_allclose(truth[middle], 55 + red * 0.45, atol=2)
    assert tuple(truth[30, 210]) == step_images.UNLABELED
    assert (answer[middle] == 100).all() and (answer[0, 5] == 100).all()  # neither inside nor along the image's edge
    assert np.abs(answer[70, 130:140].astype(int) - red).max(1).min() < 30  # the outline
    assert [name for name, _ in images._legend([mask])][:2] == ["red", "blue"]
    assert "not labeled" in [name for name, _ in images._legend([mask])]
    assert "not labeled" not in [name for name, _ in images._legend([mask * 0])]
    assert len(StepImages(tmp_path, Validation(SPEC), 1)._legend([mask])) == 1  # nothing but the heat map's bar


def test_a_heat_map_rises_in_brightness():
    light = pictures.heat(np.linspace(0, 1, 20, dtype=np.float32)[None, None])[0].astype(float) @ [0.3, 0.59, 0.11]
    assert light[0] < 5 and light[-1] > 200 and (np.diff(light) > 0).all()


def test_a_page_clips_no_text():
    legend = [(f"class number {index} of a long name", (200, 0, 0)) for index in range(30)]
    cells = [np.full((50, 60, 3), 90, np.uint8)] * 2
    page = step_board.board(
        [("a caption that is much too long " * 9, cells)] * 2, ["a title", "b" * 99], "h" * 200, "", legend
    )
    pixels = np.asarray(page).astype(int)
    edge = np.concatenate([pixels[:10].reshape(-1, 3), pixels[:, -20:].reshape(-1, 3), pixels[:, :20].reshape(-1, 3)])
    assert np.abs(edge - pictures.PAPER).max() == 0
    assert np.abs(pixels[-12:] - pictures.PAPER).max() == 0


def frames_of(folder, count, size=(300, 240), coarse=1):
    random = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        noise = random.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
        noise = noise.repeat(coarse, 0).repeat(coarse, 1)
        Image.fromarray(noise).save(folder / f"epoch_{number + 1:04d}.png")
    return sorted(folder.glob("*.png"))


def test_the_animation_is_shrunk_until_it_fits_and_pauses_at_its_end(tmp_path):
    frames = frames_of(tmp_path / "a", 3, (150, 120), 4)
    step_images.animate(frames, tmp_path / "large.gif")
    step_images.animate(frames, tmp_path / "small.gif", most=355_000)
    with Image.open(tmp_path / "large.gif") as large, Image.open(tmp_path / "small.gif") as small:
        assert large.size == (600, 480) and small.size[0] < 540
        assert small.n_frames == 3
        small.seek(0)
        assert small.info["duration"] == 500
        small.seek(2)
        assert small.info["duration"] == 3000
    assert (tmp_path / "small.gif").stat().st_size <= 355_000 < (tmp_path / "large.gif").stat().st_size


def test_frames_of_several_sizes_are_fitted_into_the_last_ones(tmp_path):
    frames = frames_of(tmp_path / "a", 2) + frames_of(tmp_path / "b", 1, (200, 200))
    step_images.animate(frames, tmp_path / "x.gif")
    with Image.open(tmp_path / "x.gif") as made:
        assert made.size == (200, 200) and made.n_frames == 3


def test_a_color_of_few_pixels_keeps_its_place_in_the_animation(tmp_path):
    (frame,) = frames_of(tmp_path / "a", 1)
    pixels = np.asarray(Image.open(frame)).copy()
    pixels[:3, :3] = pictures.PALETTE[4]
    Image.fromarray(pixels).save(frame)
    step_images.animate([frame], tmp_path / "x.gif")
    with Image.open(tmp_path / "x.gif") as made:
        assert tuple(np.asarray(made.convert("RGB"))[1, 1]) == pictures.PALETTE[4]


def test_a_resumed_run_animates_the_earlier_epochs_too(tmp_path, small):
    _, trainer = fit(tmp_path, epochs=2)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    first = (tmp_path / "steps" / "epoch_0001.png").read_bytes()
    shutil.copy(tmp_path / "steps" / "epoch_0002.png", tmp_path / "steps" / "epoch_0009.png")  # of another, longer run
    fit(tmp_path, epochs=3, ckpt=tmp_path / "last.ckpt")
    assert (tmp_path / "steps" / "epoch_0001.png").read_bytes() == first
    with Image.open(tmp_path / "steps.gif") as made:
        assert made.n_frames == 4  # with the one before the first step


def test_at_most_so_many_frames_are_taken_the_last_among_them():
    assert step_images._spread(1000, 120)[-1] == 999 and len(set(step_images._spread(1000, 120))) == 120
    assert step_images._spread(3, 120) == [0, 1, 2]
    assert (
        step_images._spread(0, 4) == []
        and Path("a/epoch_0012.png").stem
        and step_images._epoch(Path("epoch_0012.png")) == 12
    )
