"""Folds table + fold -> loaders. The one owner of order: which sample comes when is a pure function of (seed, epoch).

So the number of workers does not matter, no generator's state need be saved, and a resumed run sees the rest of the
same order.
"""

import os
import sys
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
    """Loader processes: as wanted, or (-1) one a core, at most 8; on one core none.

    `cores`: how many there are to take; 0: this computer's, of which several ranks take a share each.
    """
    if wanted >= 0:
        return wanted
    mine = cores or threads.cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(8, mine) if mine > 1 else 0


def _quiet_worker(_: int) -> None:
    """One thread in each worker: the workers are the parallelism. When to stop is the training's decision."""
    torch.set_num_threads(1)
    signals.deaf_worker()
    child_processes.die_with_parent()


class MaskDataModule(pl.LightningDataModule):
    """Loaders of one fold. Batches are of dataset.collate; the last, smaller training batch is dropped."""

    def __init__(
        self,
        cache: Cache,
        train_rows: np.ndarray,
        valid_rows: np.ndarray,
        *,
        augment: Augment | None,
        seed: int,
        train_batch_size: int,
        valid_batch_size: int,
        num_workers: int = 0,
        weights: np.ndarray | None = None,
        cropped: bool = False,
        rank: int = 0,
        ranks: int = 1,
        limit: int = 0,
    ) -> None:
        """`weights`: how often each training row comes; `cropped`: the augmentation makes all of one size.

        `limit`: batches of a validation, 0 all; those of an epoch's training are the Trainer's matter.

        `rank` of `ranks` that train together: each loads its share of a batch of `train_batch_size`.
        """
        super().__init__()
        self.rank, self.ranks, self.limit = rank, ranks, limit
        self.weights, self.cropped = weights, cropped
        self.cache, self.train_rows, self.valid_rows = cache, train_rows, valid_rows
        self.augment, self.seed, self.num_workers = augment, seed, num_workers
        self.train_batch_size = min(train_batch_size, len(train_rows))
        self.valid_batch_size = valid_batch_size
        self._refuse_unequal_shares()
        self._start = (0, 0)  # epoch and samples of it that a resumed run has seen
        self._refuse_mixed_shapes()

    def _refuse_unequal_shares(self) -> None:
        if self.train_batch_size % self.ranks:
            near = -(-self.train_batch_size // self.ranks) * self.ranks
            raise UserError(
                f"A batch of {self.train_batch_size} images cannot be divided among {self.ranks} devices; take a "
                f"TRAIN_BATCH_SIZE that can, such as {near}."
            )

    def state_dict(self) -> dict[str, int]:
        """Where the order stands, at an optimiser step: the rest follows from the seed."""
        loop = self.trainer.fit_loop
        batches = loop.epoch_loop.batch_progress.current.processed % self.trainer.num_training_batches
        return {"epoch": loop.epoch_progress.current.processed, "samples": batches * self.train_batch_size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on there; Lightning calls it before it asks for loaders."""
        self._start = state["epoch"], state["samples"]

    def _refuse_mixed_shapes(self) -> None:
        """RESIZE=none leaves images at their own size, and a training batch needs equal ones."""
        shapes = [tuple(self.cache.shapes[row]) for row in self.train_rows]
        if len(set(shapes)) > 1 and self.train_batch_size > 1 and not self.cropped:
            raise UserError(
                f"RESIZE=none, but the images have {len(set(shapes))} different sizes, {shapes[0]} and others; "
                "a batch needs equal ones. CROP=256 trains on crops, RESIZE=fit keeps the aspect, TRAIN_BATCH_SIZE=1 "
                "takes one at a time."
            )

    def _loader(self, train: bool) -> DataLoader:
        which = self.rank, self.ranks
        if train:
            dataset = MaskDataset(self.cache, self.seed, self.augment)
            samples = EpochSampler(self.train_rows, self.seed, self.weights, self._start)
            order: Sampler = RankBatches(samples, self.train_batch_size, *which)
        else:
            dataset = MaskDataset(self.cache, self.seed)
            order = ShapeBatches(self.valid_rows, self.cache.shapes, self.valid_batch_size, *which, self.limit)
        processes = self.num_workers if train or self.num_workers == 0 else max(1, self.num_workers // 2)
        options: dict[str, Any] = {"persistent_workers": True, "prefetch_factor": 2} if processes else {}
        if processes:
            child_processes.end_with_this_process(os.getpid())
        if processes and sys.platform == "linux":
            # said, because in a process of make cv the default is to start workers that import everything again
            options["multiprocessing_context"] = "fork"
        return DataLoader(
            dataset,
            batch_sampler=order,
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
