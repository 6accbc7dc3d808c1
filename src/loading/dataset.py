"""A row of the folds table -> a sample, from a cache of decoded, resized images in one memory-mapped file.

The cache's name is a hash of all that it was made from (files with size and time, what their pixels mean, IMAGE_SIZE,
RESIZE), so a stale one is never read; it is written under another name and renamed when whole.
"""

import warnings
from collections.abc import Callable

import numpy as np
import torch

from loading.cache import Cache

Augment = Callable[[np.ndarray, np.ndarray, tuple[int, ...]], tuple[np.ndarray, np.ndarray]]


class MaskDataset(torch.utils.data.Dataset):
    """Samples by (epoch, row, repeat): {"image": uint8 (H, W, C), "mask": uint8 (K, H, W) as in dataspec, "row": int}.

    Arrays, which may be views of the cache's file: to be read only. `collate` makes batches of them.

    The augmentation is keyed on (seed, epoch, row) and on how often the row came before in the epoch, so a sample does
    not depend on the worker or on what was loaded before.
    """

    def __init__(self, cache: Cache, seed: int, augment: Augment | None = None) -> None:
        self.cache, self.seed, self.augment = cache, seed, augment

    def __len__(self) -> int:
        return len(self.cache)

    def __getitem__(self, place: tuple[int, int, int]) -> dict:
        epoch, row, repeat = place
        image, mask = self.cache[row]
        if self.augment is not None:
            key = (self.seed, epoch, row, repeat) if repeat else (self.seed, epoch, row)
            image, mask = self.augment(image, mask, key)
        return {"image": image, "mask": mask, "row": row}


def collate(samples: list[dict]) -> dict[str, torch.Tensor]:
    """Samples -> a batch: "image" uint8 (N, C, H, W), "mask" uint8 (N, K, H, W), "row" int64 (N,).

    One copy, into the memory that a loader's process shares. The channels of a pixel stay beside each other, as
    convolutions want them (torch.channels_last), so that nothing is transposed here or there.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # it is only copied
        tensors = [
            {"row": sample["row"]}
            | {name: torch.from_numpy(np.ascontiguousarray(sample[name])) for name in ("image", "mask")}
            for sample in samples
        ]
    batch = torch.utils.data.default_collate(tensors)
    return {**batch, "image": batch["image"].permute(0, 3, 1, 2)}
