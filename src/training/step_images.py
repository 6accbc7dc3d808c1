"""The same few images before the first step and after each epoch, as the network sees them: steps/epoch_0003.png.

At the end all of them are one animation, steps.gif.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import Callback

from lightning_module import Validation
from loading.datamodule import MaskDataModule
from metrics import overlap
from tools import pictures
from tools.files import atomic_write
from training import callbacks, step_board

WIDTH = 280  # of a picture on the page, in pixels
TITLES = ["image", "truth", "probability", "prediction"]
UNLABELED = (128, 128, 132)  # RGB of the pixels that count nowhere
MOST_FRAMES, MOST_WIDTH, MOST_BYTES = 120, 900, 5_000_000  # of the animation


class StepImages(Callback):
    """Drawings of `count` held-out images, spread over the fold and the same each epoch, with the network's answer.

    Written into `folder` before the first step (epoch_0000) and after each epoch with a validation; at the end of fit
    all of its pictures, an interrupted run's too, become <folder>.gif beside it. Where nothing is held out (FOLD=full)
    the first training images are drawn instead, not augmented. The weights are those that validation scores: the
    averaged ones where there are any.
    """

    def __init__(self, folder: Path, validation: Validation, count: int, names: Sequence[str] = ()) -> None:
        """names: of the images, by their rows in the folds table."""
        self.folder, self.validation, self.count, self.names = folder, validation, count, names
        self.spec = validation.spec
        self.validated = False

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not trainer.global_step:
            self._draw(trainer, module, 0)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # the first moment at which the epoch's losses are known; the weights are still those that were validated
        if self.validated or not len(_data(trainer).valid_rows):
            self._draw(trainer, module, trainer.current_epoch + 1)
        self.validated = False

    def on_fit_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # a run that was stopped may have drawn more epochs than its checkpoint has
        frames = [path for path in sorted(self.folder.glob("epoch_*.png")) if _epoch(path) <= trainer.current_epoch]
        if frames:
            animate(frames, self.folder.with_suffix(".gif"))

    def _draw(self, trainer: pl.Trainer, module: pl.LightningModule, epoch: int) -> None:
        data = _data(trainer)
        rows, samples = _chosen(data.train_rows, data.valid_rows, self.count), []
        with scored_network(trainer, module):
            for row in rows:  # one at a time: RESIZE=none leaves them at their own sizes
                image, mask = data.cache[row]
                samples.append((image, mask, self._probability(module, image)))
        held_out = not np.isin(rows, data.train_rows).all()
        page = step_board.board(
            [self._row(row, *sample) for row, sample in zip(rows, samples, strict=True)],
            TITLES,
            _heading(epoch, trainer.max_epochs, trainer.callback_metrics),
            "the same held-out images each epoch" if held_out else "images that it trains on, the same each epoch",
            self._legend([mask for _, mask, _ in samples]),
        )
        _save_whole(page, self.folder / f"epoch_{epoch:04d}.png", "PNG")

    def _probability(self, module: pl.LightningModule, image: np.ndarray) -> np.ndarray:
        """uint8 (H, W, channels) -> float32 (C, H, W) in [0, 1], of all classes."""
        pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].to(module.device)
        logits = module(pixels)[0].float()
        return (logits.softmax(0) if self.spec.task == "multiclass" else logits.sigmoid()).cpu().numpy()

    def _row(
        self, row: int, image: np.ndarray, mask: np.ndarray, probability: np.ndarray
    ) -> tuple[str, list[np.ndarray]]:
        """Return caption and pictures of an image: itself, its truth, the probabilities, the predicted outline."""
        truth, labeled = self.spec.class_planes(mask), self.spec.labeled(mask)
        predicted = decide(probability, self.validation)
        counts = [overlap.count(*planes, labeled) for planes in zip(predicted, truth, strict=True)]
        tp, fp, fn = (np.array([[count[name] for count in counts]]) for name in ("tp", "fp", "fn"))
        dice = overlap.summarize(tp, fp, fn, self.validation.empty)["image"]["dice"]
        small = enlarged(pictures.as_rgb(image), WIDTH)
        shown = pictures.overlays(small, _smooth(truth, small.shape[:2]))
        if labeled is not None:
            shown[_smooth(~labeled[None], small.shape[:2])[0]] = UNLABELED
        likely = np.stack([_scaled(plane, small.shape[:2]) for plane in probability[list(self.spec.scored)]])
        answer = pictures.outlines(small, _smooth(predicted, (2 * small.shape[0], 2 * small.shape[1])))
        said = f"Dice {dice:.4f}" if math.isfinite(dice) else "nothing there, nothing predicted"
        name = self.names[row] if self.names else f"row {row} of the folds table"
        return f"{name}    {said}", [small, shown, pictures.heat(likely.clip(0, 1)), answer]

    def _legend(self, masks: list[np.ndarray]) -> list[tuple[str, step_board.Patch]]:
        names = self.spec.scored_names
        ramp = np.repeat(np.linspace(0, 1, 120, dtype=np.float32)[None, None], 14, axis=1)  # (1, 14, 120)
        entries: list[tuple[str, step_board.Patch]] = list(pictures.legend(names))
        if len(names) == 1:
            entries.append(("probability, from 0 to 1", pictures.heat(ramp)))
        else:
            entries.append(("probability: black is 0, the class's full color 1", (0, 0, 0)))
        labeled = [self.spec.labeled(mask) for mask in masks]  # None where all pixels count
        if any(pixels is not None and not pixels.all() for pixels in labeled):
            entries.append(("not labeled", UNLABELED))
        return entries


def _data(trainer: pl.Trainer) -> MaskDataModule:
    """Return the loaders that the Trainer was given."""
    return trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it outside of its class


def decide(probability: np.ndarray, validation: Validation) -> np.ndarray:
    """Turn probabilities (C, H, W) into bool (S, H, W), as the module's validation decides."""
    spec = validation.spec
    if spec.task == "multiclass":
        return probability.argmax(0)[None] == np.array(spec.scored)[:, None, None]
    return probability[list(spec.scored)] >= validation.threshold


@contextmanager
def scored_network(trainer: pl.Trainer, module: pl.LightningModule) -> Iterator[None]:
    """Give `module` the network that validation scores, in evaluation mode and in the training's precision.

    Afterwards weights, modes and random generators are as they were.
    """
    own, network = module.get_submodule("network"), callbacks.averaged_network(trainer, module)
    modes = [(part, part.training) for part in network.modules()]
    cuda = [module.device] if module.device.type == "cuda" else []
    module.network = network.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(cuda), trainer.precision_plugin.forward_context():
            yield
    finally:
        module.network = own
        for part, training in modes:
            part.training = training


def animate(frames: list[Path], path: Path, most: int = MOST_BYTES) -> None:
    """Write pictures as one GIF that pauses on the last, shrunk to at most `most` bytes or a side of 320 pixels.

    All share one palette of 256 colors, so that what does not change does not flicker. Of many frames at most
    MOST_FRAMES are taken, evenly spaced.
    """
    frames = [frames[index] for index in _spread(len(frames), MOST_FRAMES)]
    size = Image.open(frames[-1]).size
    duration = [max(80, min(500, 20_000 // len(frames)))] * (len(frames) - 1) + [3000]
    scale = min(1.0, MOST_WIDTH / size[0])
    with atomic_write(path) as temporary:
        while True:
            small = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
            first, *rest = _quantized(frames, small)
            first.save(temporary, "GIF", save_all=True, append_images=rest, duration=duration, loop=0, optimize=False)
            bytes_ = temporary.stat().st_size
            if bytes_ <= most or max(small) <= 320:
                return
            scale *= min(0.9, math.sqrt(most / bytes_))


def _quantized(frames: list[Path], size: tuple[int, int]) -> list[Image.Image]:
    """Return the frames at `size`, in one palette made from some of them."""
    palette = _palette([frames[index] for index in _spread(len(frames), 6)])
    # the nearest color of each of 32 levels a channel: thirty times faster than a search for each pixel
    levels = np.stack(np.meshgrid(*[np.arange(32) * 8 + 4] * 3, indexing="ij"), -1).reshape(-1, 3)
    nearest = ((palette**2).sum(1) - 2 * levels @ palette.T).argmin(1).astype(np.uint8)
    made = []
    for path in frames:
        pixels = np.asarray(_on_paper(path, size)).astype(np.int32) >> 3
        frame = Image.fromarray(nearest[pixels @ np.array([1024, 32, 1])], "P")
        frame.putpalette(palette.astype(np.uint8).tobytes())
        made.append(frame)
    return made


def _palette(frames: list[Path]) -> np.ndarray:
    """Return int (256, 3): the colors that mean something, however few their pixels, and the most common ones."""
    fixed = [pictures.HIT, *pictures.PALETTE, UNLABELED, pictures.PAPER, pictures.INK, pictures.GRAY]
    montage = Image.fromarray(np.concatenate([np.asarray(_on_paper(path, (320, 320))) for path in frames]))
    common = montage.quantize(256 - len(fixed), Image.Quantize.MEDIANCUT).getpalette("RGB") or []
    rest = np.array(common[: 3 * (256 - len(fixed))]).reshape(-1, 3)
    padding = np.repeat(rest[-1:], 256 - len(fixed) - len(rest), axis=0)
    return np.concatenate([np.array(fixed), rest, padding])


def _on_paper(path: Path, size: tuple[int, int]) -> Image.Image:
    """Fit a picture into `size` without changing its aspect: a resumed run's may have had other rows."""
    with Image.open(path) as picture:
        scale = min(size[0] / picture.width, size[1] / picture.height)
        small = (min(size[0], round(picture.width * scale)), min(size[1], round(picture.height * scale)))
        page = Image.new("RGB", size, pictures.PAPER)
        page.paste(picture.convert("RGB").resize(small, Image.Resampling.LANCZOS))
        return page


def _chosen(train_rows: np.ndarray, valid_rows: np.ndarray, count: int) -> list[int]:
    """Return the rows that are drawn: `count` held-out ones spread evenly, or the first training ones."""
    rows = valid_rows[_spread(len(valid_rows), count)] if len(valid_rows) else train_rows[:count]
    return rows.tolist()


def _spread(length: int, count: int) -> list[int]:
    """Return at most `count` of 0 .. length - 1, evenly spaced, the first and the last included."""
    return np.linspace(0, length - 1, min(length, count)).round().astype(int).tolist()


def _epoch(path: Path) -> int:
    return int(path.stem.removeprefix("epoch_"))


def _heading(epoch: int, epochs: int | None, values: Mapping[str, torch.Tensor]) -> str:
    parts = [f"Epoch {epoch} of {epochs}" if epoch else "Before the first step"]
    for name, label in (("valid_dice", "validation Dice"), ("valid_loss", "loss"), ("train_loss_epoch", "train loss")):
        if name in values:
            parts.append(f"{label} {float(values[name]):.4f}")
    return "   ".join(parts)


def enlarged(image: np.ndarray, width: int) -> np.ndarray:
    """Resize RGB (H, W, 3) to `width` pixels, its aspect kept."""
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    smaller = width < image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)


def _scaled(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(plane.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)


def _smooth(planes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize masks (S, H, W) to bool at `size`, with the outlines of a drawn line rather than of square pixels."""
    return np.stack([_scaled(plane, size) >= 0.5 for plane in planes])


def _save_whole(page: Image.Image, path: Path, kind: str) -> None:
    """Write a picture whole or not at all: the animation reads an interrupted run's."""
    with atomic_write(path) as temporary:
        page.save(temporary, kind)
