"""Rows of the table that need a network: training steps and inference, end to end."""

import contextlib
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import plain
import pytorch_lightning as pl
import torch
from timing import Row, in_turns, quietly

import lightning_module
import model_dispatcher
import parts
import postprocess
import predictor
import rle
import train
from losses import Loss

ENCODER, SIZE, BATCH, STEPS = "resnet34", 256, 2, 7  # the first step of each turn is not counted


class _Ends(pl.Callback):
    """When each step ended."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.at.append(time.perf_counter())


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
    _ours(words)


def _ours(words: list[str]) -> float:
    """Seconds a step of make train, from the end of its first to the end of its last."""
    ends = _Ends()
    original = lightning_module.SegmentationModule.configure_callbacks
    lightning_module.SegmentationModule.configure_callbacks = lambda _: [ends]  # type: ignore[method-assign]
    try:
        quietly(train, [*words, "FOLD=full", f"LIMIT={STEPS}", "EPOCHS=1", "OVERWRITE=1", "EXPERIMENT=bench"])
    finally:
        lightning_module.SegmentationModule.configure_callbacks = original  # type: ignore[method-assign]
    return (ends.at[-1] - ends.at[0]) / (len(ends.at) - 1)


def _plain(pairs: list[tuple[Path, Path]]) -> float:
    ends = _Ends()
    loader = torch.utils.data.DataLoader(plain.Pairs(pairs, SIZE), BATCH, shuffle=True, num_workers=2)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        trainer = pl.Trainer(
            max_steps=STEPS,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[ends],
            num_sanity_val_steps=0,
        )
        trainer.fit(plain.Module(ENCODER), loader)
    return (ends.at[-1] - ends.at[0]) / (len(ends.at) - 1)


class _Bare:
    """The step on a tensor that is already there: forward, loss, backward, optimiser."""

    def __init__(self) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        network = model_dispatcher.build(
            f"smp_unet_{ENCODER}", classes=1, channels=3, mean=(0.5,) * 3, std=(0.2,) * 3, encoder_weights="none"
        )
        self.network = network.to(self.device, memory_format=torch.channels_last).train()
        self.loss = Loss("ce + dice", "binary", (0,), 1)
        self.optimiser = torch.optim.AdamW(self.network.parameters())
        x = torch.rand(BATCH, 3, SIZE, SIZE, device=self.device)
        self.x = x.contiguous(memory_format=torch.channels_last)
        self.mask = (torch.rand(BATCH, 1, SIZE, SIZE, device=self.device) < 0.5).to(torch.uint8)

    def step(self) -> None:
        self.optimiser.zero_grad()
        with torch.autocast(self.device, torch.float16, enabled=self.device == "cuda"):
            logits = self.network(self.x)
        self.loss(logits.float(), self.mask).backward()
        self.optimiser.step()

    def __call__(self) -> float:
        self.step()
        if self.device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(STEPS - 1):
            self.step()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / (STEPS - 1)


def training_step(words: list[str], pairs: list[tuple[Path, Path]], repeats: int) -> Row:
    """A step of the whole training of these arguments, whose cache is there."""
    bare = _Bare()
    tasks = {"limit": bare, "ours": lambda: _ours(words), "plain": lambda: _plain(pairs)}
    return Row(
        f"training step end to end, {ENCODER} U-Net, {SIZE} px, batches of {BATCH}",
        in_turns(tasks, repeats),
        BATCH,
        "images",
        at_limit=0.95,
        note="limit: forward, loss, backward and optimiser on a tensor that is there; plain: smp's example, its loader",
    )


def inference(words: list[str], files: list[Path], repeats: int) -> Row:
    """Test images to the rows of a submission at their original size, no maps written; `words`: of the training."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    logs = next(Path(word.partition("=")[2]) for word in words if word.startswith("LOGS="))
    model = predictor.load(logs / "bench" / "foldfull_seed42", device)
    names = {path.name: path.name for path in files}
    keep = parts.RunLengths(
        parts.Maps(Path(), model.spec, files[0].parent), (postprocess.Rule(),), rle.DIALECTS["carvana"], names, []
    )

    def ours() -> None:
        for _ in predictor.Predictor([model], device, 8).predict(files, finish=keep):
            pass

    @torch.inference_mode()
    def forward() -> None:
        x = torch.rand(8, 3, SIZE, SIZE, device=device).contiguous(memory_format=torch.channels_last)
        answers = [model.network(x[: min(8, len(files) - at)]).sigmoid() for at in range(0, len(files), 8)]
        np.asarray(answers[-1].cpu())

    tasks = {"limit": forward, "ours": ours, "plain": lambda: plain.predict(model.network, files, model.size)}
    return Row(
        f"inference end to end, {ENCODER} U-Net, {SIZE} px, original size out, submission only",
        in_turns(tasks, repeats),
        len(files),
        "images",
        at_limit=0.95 if device == "cuda" else 0.8,
        note="limit: the forward passes alone; plain: one after the other, open, resize, forward, resize, run lengths",
    )
