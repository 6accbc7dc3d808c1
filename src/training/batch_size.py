"""The largest batch that a GPU's memory holds."""

import copy
import gc
from collections.abc import Callable
from typing import TYPE_CHECKING

from tools.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_module import SegmentationModule
    from loading.dataset import Sample
    from settings import Settings
    from training.trainer import Hardware, Update

STEPS = 2  # the optimizer's own memory is there from the second on
# torch's words, and those of cuBLAS and cuDNN, which ask the driver by themselves
NO_MEMORY = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def largest(fits: Callable[[int], bool], limit: int) -> int:
    """Find the largest n of 1 .. `limit` that `fits`, 0 where none does: doubled until one does not, then bisected.

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
    """Return whether `step` runs without running out of memory; `empty` gives back what it left.

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


def repeated(sample: "Sample", size: int) -> "dict[str, Tensor]":
    """Make a batch of `size` copies of one sample of dataset.MaskDataset."""
    from loading import dataset

    return dataset.collate([sample] * size)


def train_steps(
    module: "SegmentationModule", batch: "dict[str, Tensor]", update: "Update", hardware: "Hardware", ema: float
) -> None:
    """Make a few optimizer steps on a copy of `module`: forward, backward, update, average. It stays as it is."""
    from training import callbacks, trainer

    hooks = [callbacks.AveragedWeights(ema)] if ema else []
    batches = trainer.repeated(batch, STEPS * update.accumulate)
    trainer.bare(STEPS, update, hardware, hooks).fit(copy.deepcopy(module), batches)


def search(settings: "Settings", fold: str) -> None:
    """Try batches of a fold's largest image on the GPU, and say the largest that fits. Raises UserError without one."""
    import torch

    from tools.hardware import choose_device
    from training.fold_training import FoldTraining
    from training.trainer import quieten

    device = choose_device(settings.DEVICE)
    if device != "cuda":
        raise UserError(
            f"make batch fills a CUDA GPU's memory, and this runs on {device}; there the batch is limited by patience, "
            "so keep TRAIN_BATCH_SIZE=8 or so."
        )
    quieten()
    training = FoldTraining(settings, fold)
    training.refuse_seen_weights()
    data, rows = training.data, training.train_rows
    row = max(rows.tolist(), key=lambda row: data.cache.shapes[row][0] * data.cache.shapes[row][1])
    sample = data.train_dataloader().dataset[0, row, 0]

    def step(size: int) -> None:
        train_steps(training.module, repeated(sample, size), training.update, training.hardware, settings.EMA)

    def fits(size: int) -> bool:
        fine = fits_memory(lambda: step(size), torch.cuda.empty_cache)
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
