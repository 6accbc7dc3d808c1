"""Rows of the table that need a network: training steps and inference, end to end."""

import contextlib
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plain
import pytorch_lightning as pl
import torch
from timing import Row, extrapolated, in_turns, quietly

import config
import lightning_module
import model_dispatcher
import train
from formats import rle
from modeling.losses.loss_sum import Loss
from modeling.segmenter import Normalization
from prediction import postprocess, predictor, resumable, shipped_model

ENCODER, SIZE, BATCH = "resnet34", 256, config.TRAIN_BATCH_SIZE


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class _Beside(pl.Callback):
    """Seconds of a training's steps, each from the end of the bare step before it, and of those; the first not counted.

    So a computer that is slower for a while is so for both. The training's loader fills up during the bare step, but
    what it has ready, two batches a process, is at most what it would have anyway.
    """

    def __init__(self, bare: "_Bare") -> None:
        self.bare = bare
        self.steps: list[float] = []
        self.bare_steps: list[float] = []
        self._begun: float | None = None

    def on_train_batch_end(self, *_: Any) -> None:
        ended = _now()
        self.bare.step()
        begin = _now()
        if self._begun is not None:
            self.steps.append(ended - self._begun)
            self.bare_steps.append(begin - ended)
        self._begun = begin


def arguments(place: Path, root: Path) -> list[str]:
    """The command line of the benchmarks' trainings: our defaults, of the stated size, with random weights."""
    return [
        *("DATASET=bench", f"INPUT={root}", f"OUTPUT={place / 'out'}", f"LOGS={place / 'logs'}", "STEP_IMAGES=0"),
        *(f"MODEL_NAME=smp_unet_{ENCODER}", "ENCODER_WEIGHTS=none", f"IMAGE_SIZE={SIZE}", f"TRAIN_BATCH_SIZE={BATCH}"),
    ]


def prepare(place: Path, root: Path) -> None:
    """The folds table, the cache, and a run folder of a few steps."""
    import folds

    words = arguments(place, root)
    quietly(folds, words)
    _train(words, 1)


def _train(words: list[str], steps: int) -> None:
    quietly(train, [*words, "FOLD=full", f"LIMIT={steps}", "EPOCHS=1", "OVERWRITE=1", "EXPERIMENT=bench"])


def _ours(words: list[str], steps: int, beside: _Beside) -> None:
    """make train of so many steps."""
    original = lightning_module.SegmentationModule.configure_callbacks
    lightning_module.SegmentationModule.configure_callbacks = lambda _: [beside]  # type: ignore[method-assign]
    try:
        _train(words, steps)
    finally:
        lightning_module.SegmentationModule.configure_callbacks = original  # type: ignore[method-assign]


def _plain(pairs: list[tuple[Path, Path]], steps: int, beside: _Beside) -> None:
    loader = torch.utils.data.DataLoader(plain.Pairs(pairs, SIZE), BATCH, shuffle=True, num_workers=2)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        trainer = pl.Trainer(
            max_steps=steps,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[beside],
            num_sanity_val_steps=0,
        )
        trainer.fit(plain.Module(ENCODER), loader)


class _Bare:
    """The step on a tensor that is already there: forward, loss, backward, optimizer."""

    def __init__(self) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        network = model_dispatcher.build(
            f"smp_unet_{ENCODER}",
            classes=1,
            channels=3,
            normalization=Normalization((0.5,) * 3, (0.2,) * 3),
            encoder_weights="none",
        )
        self.network = network.to(self.device, memory_format=torch.channels_last).train()
        self.loss = Loss("ce + dice", "binary", (0,), 1)
        fused = self.device == "cpu" or None  # as ours
        self.optimizer = torch.optim.AdamW(self.network.parameters(), fused=fused)
        x = torch.rand(BATCH, 3, SIZE, SIZE, device=self.device)
        self.x = x.contiguous(memory_format=torch.channels_last)
        self.mask = (torch.rand(BATCH, 1, SIZE, SIZE, device=self.device) < 0.5).to(torch.uint8)

    def step(self) -> None:
        self.optimizer.zero_grad()
        with torch.autocast(self.device, torch.float16, enabled=self.device == "cuda"):
            logits = self.network(self.x)
        self.loss(logits.float(), self.mask).backward()
        self.optimizer.step()


def training_step(words: list[str], pairs: list[tuple[Path, Path]], turns: int) -> Row:
    """A step of the whole training of these arguments, whose cache is there; a turn is two steps of ours."""
    bare = _Bare()
    ours, other = _Beside(bare), _Beside(bare)
    _ours(words, 2 * turns + 1, ours)
    _plain(pairs, turns + 1, other)
    limit = np.reshape(ours.bare_steps, (turns, 2)).mean(1)
    plainly = limit * np.array(other.steps) / np.array(other.bare_steps)
    spent = {"limit": limit, "ours": np.reshape(ours.steps, (turns, 2)).mean(1), "plain": plainly}
    return Row(
        f"training step end to end, {ENCODER} U-Net, {SIZE} px, batches of {BATCH}",
        {name: list(map(float, seconds)) for name, seconds in spent.items()},
        BATCH,
        "images",
        at_limit=0.95,
        note="limit: forward, loss, backward and optimizer on a tensor that is there, after each step of ours; plain: "
        "smp's example and its loader, by the bare steps between its own",
    )


def inference(words: list[str], files: list[Path], repeats: int) -> Row:
    """Test images to the rows of a submission at their original size, no maps written; `words`: of the training."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    logs = next(Path(word.partition("=")[2]) for word in words if word.startswith("LOGS="))
    model = shipped_model.load(logs / "bench" / "foldfull_seed42", device)
    names = {path.name: path.name for path in files}
    keep = resumable.RunLengths(
        resumable.Maps(Path(), model.spec, files[0].parent), (postprocess.Rule(),), rle.DIALECTS["carvana"], names, []
    )

    def ours() -> None:
        for _ in predictor.Predictor([model], device, 8).predict(files, finish=keep):
            pass

    @torch.inference_mode()
    def forward() -> None:
        x = torch.rand(8, 3, SIZE, SIZE, device=device).contiguous(memory_format=torch.channels_last)
        answers = [model.network(x[: min(8, len(files) - at)]).sigmoid() for at in range(0, len(files), 8)]
        np.asarray(answers[-1].cpu())

    def one_by_one(sample: Sequence[Path]) -> None:
        plain.predict(model.network, list(sample), model.size)

    tasks = {"limit": forward, "ours": ours, "plain": lambda: extrapolated(one_by_one, files, 16)}
    return Row(
        f"inference end to end, {ENCODER} U-Net, {SIZE} px, original size out, submission only",
        in_turns(tasks, repeats),
        len(files),
        "images",
        at_limit=0.95 if device == "cuda" else 0.8,
        note="limit: the forward passes alone; plain: one after the other, open, resize, forward, resize, run lengths "
        "(16 images, extrapolated)",
    )
