"""Folds table + fold -> loaders. The one owner of order: which sample comes when is a pure function of (seed, epoch).

So the number of workers does not matter, no generator's state need be saved, and a resumed run sees the rest of the
same order.
"""

import os
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Sampler

from loading.cache import Cache
from loading.dataset import Augment, MaskDataset, collate
from loading.samplers import EpochSampler, RankBatches, ShapeBatches
from tools import child_processes, signals, threads
from tools.errors import UserError


def workers(wanted: int, cores: int = 0) -> int:
    """Return the number of loader processes: as wanted, or (-1) one a core, at most 8; on one core none.

    `cores`: how many there are to take; 0: this computer's, of which several ranks take a share each.
    """
    if wanted >= 0:
        return wanted
    mine = cores or threads.cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(8, mine) if mine > 1 else 0


def _quiet_worker(_: int) -> None:
    """Set a worker up: one thread, as the workers are the parallelism; when to stop is the training's decision."""
    torch.set_num_threads(1)
    signals.deaf_worker()
    child_processes.die_with_parent()


@dataclass(frozen=True, eq=False)
class DataOrder:
    """Which training sample comes when, in which batch and in which process."""

    seed: int
    train_batch_size: int  # images, of all ranks together
    valid_batch_size: int
    weights: np.ndarray | None = None  # how often each training row comes; None: once an epoch
    rank: int = 0  # of `ranks` that train together: each loads its share of a batch
    ranks: int = 1
    limit: int = 0  # batches of a validation, 0 all; those of an epoch's training are the Trainer's matter


class MaskDataModule(pl.LightningDataModule):
    """Loaders of one fold. Batches are of dataset.collate; the last, smaller training batch is dropped."""

    def __init__(
        self,
        cache: Cache,
        train_rows: np.ndarray,
        valid_rows: np.ndarray,
        order: DataOrder,
        *,
        augment: Augment | None = None,
        cropped: bool = False,
        num_workers: int = 0,
    ) -> None:
        """`cropped`: the augmentation makes all of one size."""
        super().__init__()
        self.cache, self.train_rows, self.valid_rows = cache, train_rows, valid_rows
        self.order, self.augment, self.cropped, self.num_workers = order, augment, cropped, num_workers
        self.train_batch_size = min(order.train_batch_size, len(train_rows))
        self._refuse_unequal_shares()
        self._start = (0, 0)  # epoch and samples of it that a resumed run has seen
        self._refuse_mixed_shapes()

    def _refuse_unequal_shares(self) -> None:
        ranks = self.order.ranks
        if self.train_batch_size % ranks:
            near = -(-self.train_batch_size // ranks) * ranks
            raise UserError(
                f"A batch of {self.train_batch_size} images cannot be divided among {ranks} devices; take a "
                f"TRAIN_BATCH_SIZE that can, such as {near}."
            )

    def state_dict(self) -> dict[str, int]:
        """Return where the order stands, at an optimizer step: the rest follows from the seed."""
        trainer: Any = self.trainer  # None only before a Trainer has it; and its types know no `processed`
        loop = trainer.fit_loop
        batches = loop.epoch_loop.batch_progress.current.processed % trainer.num_training_batches
        return {"epoch": loop.epoch_progress.current.processed, "samples": batches * self.train_batch_size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on there; Lightning calls it before it asks for loaders."""
        self._start = state["epoch"], state["samples"]

    def _refuse_mixed_shapes(self) -> None:
        """Refuse what RESIZE=none leaves at sizes of its own where a training batch needs equal ones."""
        shapes = [tuple(self.cache.shapes[row]) for row in self.train_rows]
        if len(set(shapes)) > 1 and self.train_batch_size > 1 and not self.cropped:
            raise UserError(
                f"RESIZE=none, but the images have {len(set(shapes))} different sizes, {shapes[0]} and others; "
                "a batch needs equal ones. CROP=256 trains on crops, RESIZE=fit keeps the aspect, TRAIN_BATCH_SIZE=1 "
                "takes one at a time."
            )

    def _loader(self, train: bool) -> DataLoader:
        order, rank = self.order, (self.order.rank, self.order.ranks)
        if train:
            dataset = MaskDataset(self.cache, order.seed, self.augment)
            samples = EpochSampler(self.train_rows, order.seed, order.weights, self._start)
            batches: Sampler = RankBatches(samples, self.train_batch_size, *rank)
        else:
            dataset = MaskDataset(self.cache, order.seed)
            batches = ShapeBatches(self.valid_rows, self.cache.shapes, order.valid_batch_size, *rank, order.limit)
        processes = self.num_workers if train or self.num_workers == 0 else max(1, self.num_workers // 2)
        options: dict[str, Any] = {"persistent_workers": True, "prefetch_factor": 2} if processes else {}
        if processes:
            child_processes.end_with_this_process(os.getpid())
        if processes and sys.platform == "linux":
            # said, because in a process of make cv the default is to start workers that import everything again
            options["multiprocessing_context"] = "fork"
        return DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=processes,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_quiet_worker,
            **options,
        )

    def train_dataloader(self) -> DataLoader:
        return self._loader(train=True)

    def val_dataloader(self) -> DataLoader | list:
        return self._loader(train=False) if len(self.valid_rows) else []
