"""CPU augmentation (albumentations 2.0.8, the last MIT release), behind one function so that it can be replaced.

albumentations keeps random generators of its own that ignore every global seed and repeat themselves in forked workers;
each call here therefore sets them from the sample's key.
"""

import os
import random
from typing import Any

import numpy as np

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks PyPI at import otherwise


def _transforms(name: str, square: bool, channels: int, labels: bool) -> list:
    """The pipeline of that name; a quarter turn would swap an oblong image's sides, so those are mirrored only."""
    import albumentations as A
    import cv2

    if channels == 3:
        colour = A.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05, p=0.5)
    else:  # hue and saturation are those of RGB
        colour = A.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.2, p=0.5)
    # a bilinear mask of 0 and 1 is rounded by cv2: cut at one half, without nearest-neighbour's ragged outlines; the
    # indices of a class map must not be mixed
    interpolation = cv2.INTER_NEAREST if labels else cv2.INTER_LINEAR
    affine = {"border_mode": cv2.BORDER_REFLECT_101, "mask_interpolation": interpolation}
    mirrored = [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)]
    return {
        "none": [],
        "flips": mirrored,
        "upright": [
            A.HorizontalFlip(p=0.5),
            A.Affine(scale=(0.9, 1.1), rotate=(-7, 7), translate_percent=(-0.06, 0.06), p=0.5, **affine),
            colour,
        ],
        "turns": [
            *([A.SquareSymmetry(p=1)] if square else mirrored),
            A.Affine(scale=(0.8, 1.25), translate_percent=(-0.1, 0.1), p=0.7, **affine),
            colour,
        ],
    }[name]


class Augmentation:
    """A named pipeline: `(image (H, W, C), mask (K, H, W), key) -> (image, mask)` of equal shapes.

    Masks keep their values; `labels`: they are class indices. Equal keys give equal results, in any process. Built at
    first use, so that it travels to spawned workers as its name.
    """

    def __init__(self, name: str, labels: bool = False) -> None:
        self.name, self.labels = name, labels
        self._compose: dict[tuple[bool, int], Any] = {}  # by whether the image is square, and its channels

    def __call__(self, image: np.ndarray, mask: np.ndarray, key: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        kind = image.shape[0] == image.shape[1], image.shape[2]
        if kind not in self._compose:
            import albumentations as A

            self._compose[kind] = A.Compose(_transforms(self.name, *kind, self.labels), strict=True)
        compose, sequence = self._compose[kind], np.random.SeedSequence(key)
        compose.set_random_state(np.random.default_rng(sequence), random.Random(int(sequence.generate_state(1)[0])))
        result = compose(image=image, masks=list(mask))
        return result["image"].reshape(image.shape), np.stack(result["masks"])

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_compose": {}}


def make(name: str, labels: bool = False) -> Augmentation | None:
    """The pipeline of that name (config.AUGMENT), None for "none"; `labels`: masks hold class indices."""
    return None if name == "none" else Augmentation(name, labels)
