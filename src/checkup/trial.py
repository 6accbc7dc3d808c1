"""A training on trial: a few rows through the real loader and the real step, timed; nothing is kept."""

import contextlib
import copy
import dataclasses
import hashlib
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from data.dataspec import DataSpec
from loading.cache import Cache
from loading.datamodule import DataOrder, MaskDataModule, workers
from loading.samplers import RankBatches
from tools.hardware import Precision
from training import builders, callbacks
from training import trainer as trainer_module
from training.trainer import Hardware, Update

if TYPE_CHECKING:
    import pandas as pd

    from lightning_module import Augment, SegmentationModule
    from settings import Settings

ROWS = 16  # that are decoded once more for the trial
PROBES = 16  # samples of one picture: what differs among them is the augmentation's doing
Batch = dict[str, torch.Tensor]
ENOUGH_SECONDS, ENOUGH_STEPS, MOST_SECONDS = 2.0, 3, 20.0  # of timing steps, after the warm-up


class Repeated(Cache):
    """Rows of a cache, again and again up to `count`; read as the cache itself is."""

    def __init__(self, cache: Cache, rows: list[int], count: int) -> None:
        super().__init__(cache.path)
        self.cache, self.rows = cache, [rows[at % len(rows)] for at in range(count)]
        self.shapes = [cache.shapes[row] for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        return self.cache[self.rows[row]]


def small_cache(settings: "Settings", frame: "pd.DataFrame", spec: DataSpec, folder: Path) -> Cache:
    """Build the cache of `frame`'s few rows, in `folder`."""
    return builders.open_cache(dataclasses.replace(settings, OUTPUT=str(folder)), frame, spec)


def rows(settings: "Settings", cache: Cache) -> list[int]:
    """Choose the rows to try: all, or the largest where RESIZE=none leaves them at sizes of their own."""
    every = list(range(len(cache)))
    if settings.RESIZE != "none" or all(settings.CROP):
        return every
    return [max(every, key=lambda row: cache.shapes[row][0] * cache.shapes[row][1])]


def loader(settings: "Settings", spec: DataSpec, cache: Cache, batch: int, processes: int) -> DataLoader:
    """Build the training's loader over every row of `cache`."""
    places = np.arange(len(cache))
    data = MaskDataModule(
        cache,
        places,
        places[:0],
        DataOrder(settings.SEED, batch, batch),
        augment=builders.augmentation(settings, spec),
        cropped=all(settings.CROP),
        num_workers=processes,
    )
    return data.train_dataloader()


def _begin_epoch(batches: DataLoader, epoch: int) -> None:
    """Set the epoch of a training's loader."""
    order = batches.batch_sampler
    if not isinstance(order, RankBatches):
        raise TypeError(f"expected a training's loader, got batches by {type(order).__name__}")
    order.sampler.set_epoch(epoch)


def digests(batches: DataLoader, epoch: int) -> list[tuple[int, str]]:
    """List List (row, hash of image and mask) of each sample of an epoch, in the order of loading."""
    _begin_epoch(batches, epoch)
    return [
        (int(batch["row"][0]), hashlib.blake2b(batch["image"].numpy().tobytes() + batch["mask"].numpy().tobytes())
         .hexdigest())
        for batch in batches
    ]  # fmt: skip


def frozen_on_cpu(settings: "Settings", spec: DataSpec, cache: Cache, row: int) -> list[str]:
    """Say what is not random about the loaders' augmentation, [] where all is well; tried on copies of one row."""
    probe = Repeated(cache, [row], PROBES)
    processes = min(2, workers(settings.WORKERS))
    batches = loader(settings, spec, probe, 1, processes)
    first, second, again = (digests(batches, epoch) for epoch in (0, 1, 0))
    wrong = []
    if dict(first) != dict(again):
        wrong.append("the same epoch gives other samples when it is repeated, so a resumed run differs")
    if processes and dict(first) != dict(digests(loader(settings, spec, probe, 1, 0), 0)):
        wrong.append("the samples depend on the number of loader processes")
    if dict(first) == dict(second):
        wrong.append("two epochs get the same samples")
    if len(set(dict(first).values())) == 1:
        wrong.append("every sample of an epoch is augmented alike")
    if processes == 2 and [hashed for _, hashed in first[::2]] == [hashed for _, hashed in first[1::2]]:
        wrong.append("two loader processes draw the same random numbers")
    return wrong


def frozen_on_device(augment: "Augment", batch: Batch, seed: int, device: str) -> list[str]:
    """Say the same of an augmentation that works on whole batches, on their device."""

    def drawn(epoch: int, index: int) -> torch.Tensor:
        return augment(batch["image"].to(device), batch["mask"].to(device), (seed, epoch, index))[0].cpu()

    first, wrong = drawn(0, 0), []
    if not torch.equal(first, drawn(0, 0)):
        wrong.append("the same step gives another batch when it is repeated, so a resumed run differs")
    for what, place in (("epochs", (1, 0)), ("steps", (0, 1))):
        if torch.equal(first, drawn(*place)):
            wrong.append(f"two {what} get the same batch")
    return wrong


class Watch(pl.Callback):
    """Looks at the gradients of the first steps, and times those after the warm-up until enough are timed."""

    def __init__(self, warm_up: int, most: int) -> None:
        self.warm_up, self.most = warm_up, most
        self.seconds: list[float] = []
        self.losses: list[float] = []
        self.not_finite: list[list[str]] = []  # names of the parameters, for each step looked at
        self.begun = self.start = 0.0

    def _now(self) -> float:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return time.perf_counter()

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self.start = self._now()
        self.begun = self.begun or self.start

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        # Lightning has unscaled them by now; overflows of 16 bits are expected until the scaler has found its factor
        if len(self.not_finite) <= self.warm_up + 1:
            named = ((name, value.grad) for name, value in module.named_parameters() if value.grad is not None)
            self.not_finite.append([name for name, grad in named if not torch.isfinite(grad).all()])

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        now = self._now()
        self.losses.append(float(trainer.callback_metrics["train_loss_step"]))
        self.seconds.append(now - self.start)
        timed = self.seconds[self.warm_up :]
        enough = len(timed) >= ENOUGH_STEPS and sum(timed) >= ENOUGH_SECONDS
        # only the scaler of 16 bits leaves such a step out; any other spoils the weights, and hides where it began
        spoilt = any(self.not_finite[-1:]) and not trainer.precision.startswith("16")
        if enough or spoilt or (timed and now - self.begun > MOST_SECONDS):
            trainer.should_stop = True

    @property
    def step_seconds(self) -> float:
        return statistics.median(self.seconds[self.warm_up :])


def steps(
    settings: "Settings",
    module: "SegmentationModule",
    batch: Batch,
    device: str,
    precision: Precision,
    warm_up: int,
    most: int,
) -> Watch:
    """Take up to `most` real optimizer steps with this batch, on a copy of `module`. UserError for a loss that is NaN.

    Without accumulation, so that each batch is a step of its own.
    """
    watch = Watch(warm_up, most)
    hooks = [watch, *([callbacks.AveragedWeights(settings.EMA)] if settings.EMA else [])]
    update = Update(gradient_clip=settings.GRADIENT_CLIP)
    trainer = trainer_module.bare(most, update, Hardware(device, precision), hooks)
    try:
        trainer.fit(copy.deepcopy(module), trainer_module.repeated(batch, most))
    except SystemExit as stopped:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from stopped
    return watch


def forward_seconds(module: "SegmentationModule", images: torch.Tensor, device: str, precision: str) -> float:
    """Time the validation of an image: one pass without gradients; a GPU gets the whole batch, after one to warm up."""
    images = images if device == "cuda" else images[:2]
    network, images = copy.deepcopy(module).eval().to(device), images.to(device)
    kind = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}.get(precision)
    halved = torch.autocast(device, kind) if kind else contextlib.nullcontext()
    with torch.no_grad(), halved:
        for _ in range(2 if device == "cuda" else 1):
            if device == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            network(images).cpu()
    return (time.perf_counter() - start) / len(images)


def loader_seconds(settings: "Settings", spec: DataSpec, cache: Cache, batch: int) -> float:
    """Time the loader's batches in seconds each, over an epoch of a few, its processes running already."""
    processes = workers(settings.WORKERS)
    count = max(4, 4 * processes)
    batches = loader(settings, spec, Repeated(cache, rows(settings, cache), count * batch), batch, processes)
    for _ in batches:  # starts the processes, builds their pipelines
        if not processes:
            break
    _begin_epoch(batches, 1)
    start, done = time.perf_counter(), 0
    for _ in batches:
        done += 1
        if not processes and time.perf_counter() - start > 1:
            break
    return (time.perf_counter() - start) / done
