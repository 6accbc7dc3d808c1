"""Random crops to train on, before the augmentation: pure functions of the sample's key."""

from dataclasses import dataclass

import numpy as np

from data.dataspec import IGNORED
from loading.augmentations import Augmentation


@dataclass(frozen=True)
class Cropped:
    """A crop of `size` as in `crop`, then the augmentation: `(image, mask, key) -> (image, mask)`."""

    size: tuple[int, int]
    foreground: float
    labels: bool
    background: int
    augment: Augmentation | None

    def __call__(self, image: np.ndarray, mask: np.ndarray, key: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        image, mask = crop(image, mask, self.size, key, self.foreground, self.labels, self.background)
        return (image, mask) if self.augment is None else self.augment(np.ascontiguousarray(image), mask, key)


def crop(
    image: np.ndarray,
    mask: np.ndarray,
    size: tuple[int, int],
    key: tuple[int, ...],
    foreground: float,
    labels: bool = False,
    background: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a random part of `size` (h, w) out of image (H, W, C) and mask (K, H, W); a function of `key` alone.

    With probability `foreground` it is centered, as far as the borders allow, on a pixel of a class that is drawn from
    those in the mask (Isensee et al. 2021, nnU-Net). `labels`: the mask holds class indices, of which `background`
    (-1: none) and IGNORED are no foreground. Where the image is smaller than `size`, both are continued by reflection.
    """
    # a stream of its own: the augmentation of the same key must not follow from where the crop was taken
    generator = np.random.default_rng(np.random.SeedSequence(key, spawn_key=(1,)))
    pixel = _foreground_pixel(mask, generator, labels, background) if generator.random() < foreground else None
    parts, padding = [], []
    for axis in (0, 1):
        have, want = image.shape[axis], size[axis]
        last = max(0, have - want)
        start = int(generator.integers(last + 1)) if pixel is None else min(max(pixel[axis] - want // 2, 0), last)
        missing = max(0, want - have)
        parts.append(slice(start, start + want))
        padding.append((missing // 2, missing - missing // 2))
    image, mask = image[*parts], mask[:, *parts]
    if any(map(any, padding)):
        image = np.pad(image, [*padding, (0, 0)], mode="reflect")
        mask = np.pad(mask, [(0, 0), *padding], mode="reflect")
    return image, mask


def _foreground_pixel(
    mask: np.ndarray, generator: np.random.Generator, labels: bool, background: int
) -> tuple[int, int] | None:
    """Return (y, x) of a random pixel of a random class of the mask; None where it has none."""
    if labels:
        counts = np.bincount(mask[0].ravel(), minlength=256)
        classes = [index for index in np.flatnonzero(counts).tolist() if index not in (background, IGNORED)]
    else:
        classes = [index for index, plane in enumerate(mask) if plane.any()]
    if not classes:
        return None
    chosen = classes[generator.integers(len(classes))]
    pixels = np.flatnonzero(mask[0] == chosen if labels else mask[chosen])
    return divmod(int(pixels[generator.integers(len(pixels))]), mask.shape[2])
