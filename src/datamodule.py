"""Folds table + fold -> loaders. The one owner of order: which sample comes when is a pure function of (seed, epoch).

So the number of workers does not matter, no generator's state need be saved, and a resumed run sees the rest of the
same order.
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Sampler

from dataset import Augment, Cache, MaskDataset
from errors import UserError


def epoch_order(seed: int, epoch: int, rows: np.ndarray) -> np.ndarray:
    """The order of `rows` in an epoch: a permutation that depends on nothing but its arguments."""
    return rows[np.random.default_rng([seed, epoch]).permutation(len(rows))]


class EpochSampler(Sampler):
    """Yields (epoch, row). Lightning calls `set_epoch` before each epoch, after a resume too."""

    def __init__(self, rows: np.ndarray, seed: int, shuffle: bool) -> None:
        self.rows, self.seed, self.shuffle, self.epoch = rows, seed, shuffle, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = epoch_order(self.seed, self.epoch, self.rows) if self.shuffle else self.rows
        return ((self.epoch, int(row)) for row in order)


def split_rows(kfold: np.ndarray, fold: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train and validate on for fold "0", "1", ... or "full" (every row, no validation). Raises UserError."""
    if fold == "full":
        return np.arange(len(kfold)), np.array([], np.int64)
    have = sorted(set(kfold[kfold >= 0].tolist()))
    if fold not in map(str, have):
        raise UserError(f"FOLD={fold}: the folds table has {', '.join(map(str, have))}; expected one of them, or full.")
    return np.flatnonzero(kfold != int(fold)), np.flatnonzero(kfold == int(fold))


def workers(wanted: int) -> int:
    """Loader processes: as wanted, or (-1) one a core, at most 8; on one core none."""
    if wanted >= 0:
        return wanted
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores) if cores > 1 else 0


def _quiet_worker(_: int) -> None:
    """One thread in each worker: the workers are the parallelism."""
    torch.set_num_threads(1)


class MaskDataModule(pl.LightningDataModule):
    """Loaders of one fold. Batches are as in dataset.MaskDataset; the last, smaller training batch is dropped."""

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
    ) -> None:
        super().__init__()
        self.cache, self.train_rows, self.valid_rows = cache, train_rows, valid_rows
        self.augment, self.seed, self.num_workers = augment, seed, num_workers
        self.train_batch_size = min(train_batch_size, len(train_rows))
        self.valid_batch_size = valid_batch_size
        self._refuse_mixed_shapes()

    def _refuse_mixed_shapes(self) -> None:
        """RESIZE=none leaves images at their own size, and a batch needs equal ones."""
        shapes = [tuple(self.cache.shapes[row]) for row in (*self.train_rows, *self.valid_rows)]
        if len(set(shapes)) > 1 and max(self.train_batch_size, self.valid_batch_size) > 1:
            raise UserError(
                f"RESIZE=none, but the images have {len(set(shapes))} different sizes, {shapes[0]} and others; "
                "a batch needs equal ones. RESIZE=fit keeps their aspect, or set TRAIN_BATCH_SIZE=1 VALID_BATCH_SIZE=1."
            )

    def _loader(self, rows: np.ndarray, batch_size: int, train: bool) -> DataLoader:
        dataset = MaskDataset(self.cache, self.seed, self.augment if train else None)
        processes = self.num_workers if train or self.num_workers == 0 else max(1, self.num_workers // 2)
        options: dict[str, Any] = {"persistent_workers": True, "prefetch_factor": 2} if processes else {}
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=EpochSampler(rows, self.seed, shuffle=train),
            drop_last=train,
            num_workers=processes,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_quiet_worker,
            **options,
        )

    def train_dataloader(self) -> DataLoader:
        return self._loader(self.train_rows, self.train_batch_size, train=True)

    def val_dataloader(self) -> DataLoader | list:
        return self._loader(self.valid_rows, self.valid_batch_size, train=False) if len(self.valid_rows) else []
