"""The largest batch that a GPU's memory holds."""

import copy
import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tools.errors import UserError

if TYPE_CHECKING:
    from lightning_module import SegmentationModule
    from settings import Settings

STEPS = 2  # the optimiser's own memory is there from the second on
# torch's words, and those of cuBLAS and cuDNN, which ask the driver by themselves
NO_MEMORY = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def largest(fits: Callable[[int], bool], limit: int) -> int:
    """The largest n of 1 .. `limit` for which `fits`, 0 where none does: doubled until one is too large, then bisected.

    What fits, fits at every smaller n too. Asks about 2 log2(n) times, and never for more than twice what fits.
    """
    good, bad = 0, limit + 1
    while good < limit:
        size = min(max(1, 2 * good), limit)
        if not fits(size):
            bad = size
            break
        good = size
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def fits_memory(step: Callable[[], None], empty: Callable[[], None]) -> bool:
    """Whether `step` runs without running out of memory; `empty` gives back what it left.

    Any other error is raised.
    """
    try:
        step()
        fine = True
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if not any(text in str(error) for text in NO_MEMORY):
            raise
        fine = False
    # only here is the error, which holds the step's tensors, gone
    gc.collect()
    empty()
    return fine


def repeated(sample: dict[str, Any], size: int) -> dict[str, Any]:
    """A batch of `size` copies of one sample of dataset.MaskDataset."""
    from loading import dataset

    return dataset.collate([sample] * size)


def train_steps(
    module: "SegmentationModule", batch: dict[str, Any], device: str, precision: str, settings: "Settings"
) -> None:
    """A few optimiser steps on a copy of `module`, which stays as it is: forward, backward, update, average."""
    from torch.utils.data import DataLoader

    from training import callbacks
    from training.lr_range_test import bare_trainer

    hooks = [callbacks.AveragedWeights(settings.EMA)] if settings.EMA else []
    trainer = bare_trainer(STEPS, device, precision, settings.ACCUMULATE, settings.GRADIENT_CLIP, hooks)
    trainer.fit(copy.deepcopy(module), DataLoader([batch] * STEPS * settings.ACCUMULATE, batch_size=None))


def search(settings: "Settings", fold: str) -> None:
    """Try batches of a fold's largest image on the GPU, and say the largest that fits. Raises UserError without one."""
    import torch

    from tools.hardware import choose_device
    from training import trainer
    from training.lr_range_test import parts

    device = choose_device(settings.DEVICE)
    if device != "cuda":
        raise UserError(
            f"make batch fills a CUDA GPU's memory, and this runs on {device}; there the batch is limited by patience, "
            "so keep TRAIN_BATCH_SIZE=8 or so."
        )
    trainer.quieten()
    module, data, device, precision = parts(settings, fold)
    rows = data.train_rows
    row = max(rows.tolist(), key=lambda row: data.cache.shapes[row][0] * data.cache.shapes[row][1])
    sample = data.train_dataloader().dataset[0, row, 0]

    def fits(size: int) -> bool:
        fine = fits_memory(
            lambda: train_steps(module, repeated(sample, size), device, precision, settings), torch.cuda.empty_cache
        )
        print(f"  {size} images a batch: {'fits' if fine else 'too large'}", flush=True)
        return fine

    _say(largest(fits, len(rows)), len(rows), settings, fold)


def _say(best: int, limit: int, settings: "Settings", fold: str) -> None:
    size = f"{settings.IMAGE_SIZE[0]} x {settings.IMAGE_SIZE[1]} px"
    if best == 0:
        raise UserError(f"Not one image of {size} fits. A smaller IMAGE_SIZE, CROP or MODEL_NAME helps.")
    if best == limit:
        print(f"All {limit} training images of the fold fit into one batch; memory does not limit TRAIN_BATCH_SIZE.")
        return
    advised = max(1, best * 9 // 10)
    print(
        f"The largest TRAIN_BATCH_SIZE that fits at {size} is {best}. {advised} leaves a tenth to validation and to "
        "whatever else comes to use the GPU; a larger batch wants another LR, see make lr."
    )
    print(f"make train FOLD={fold} TRAIN_BATCH_SIZE={advised}")
