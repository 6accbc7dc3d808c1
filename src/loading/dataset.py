"""A row of the folds table -> a sample, from a cache of decoded, resized images in one memory-mapped file.

The cache's name is a hash of all that it was made from (files with size and time, what their pixels mean, IMAGE_SIZE,
RESIZE), so a stale one is never read; it is written under another name and renamed when whole.
"""

import warnings
from collections.abc import Callable
from typing import TypedDict

import numpy as np
import torch

from loading.cache import Cache

Augment = Callable[[np.ndarray, np.ndarray, tuple[int, ...]], tuple[np.ndarray, np.ndarray]]


class Sample(TypedDict):
    """An image uint8 (H, W, C), its mask uint8 (K, H, W) as in dataspec, and their row of the folds table.

    The arrays may be views of the cache's file: to be read only.
    """

    image: np.ndarray
    mask: np.ndarray
    row: int


class MaskDataset(torch.utils.data.Dataset):
    """Samples by (epoch, row, repeat); `collate` makes batches of them.

    The augmentation is keyed on (seed, epoch, row) and on how often the row came before in the epoch, so a sample does
    not depend on the worker or on what was loaded before.
    """

    def __init__(self, cache: Cache, seed: int, augment: Augment | None = None) -> None:
        self.cache, self.seed, self.augment = cache, seed, augment

    def __len__(self) -> int:
        return len(self.cache)

    def __getitem__(self, place: tuple[int, int, int]) -> Sample:
        epoch, row, repeat = place
        image, mask = self.cache[row]
        if self.augment is not None:
            key = (self.seed, epoch, row, repeat) if repeat else (self.seed, epoch, row)
            image, mask = self.augment(image, mask, key)
        return {"image": image, "mask": mask, "row": row}


def collate(samples: list[Sample]) -> dict[str, torch.Tensor]:
    """Make a batch of samples: "image" uint8 (N, C, H, W), "mask" uint8 (N, K, H, W), "row" int64 (N,).

    One copy, into the memory that a loader's process shares. The channels of a pixel stay beside each other, as
    convolutions want them (torch.channels_last), so that nothing is transposed here or there.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # it is only copied
        tensors = [
            {
                "row": sample["row"],
                "image": torch.from_numpy(np.ascontiguousarray(sample["image"])),
                "mask": torch.from_numpy(np.ascontiguousarray(sample["mask"])),
            }
            for sample in samples
        ]
    batch = torch.utils.data.default_collate(tensors)
    return {**batch, "image": batch["image"].permute(0, 3, 1, 2)}
