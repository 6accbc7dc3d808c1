"""CPU augmentation (albumentations 2.0.8, the last MIT release), behind one function so that it can be replaced.

albumentations keeps random generators of its own that ignore every global seed and repeat themselves in forked workers;
each call here therefore sets them from the sample's key.
"""

import os
import random
from typing import Any

import numpy as np

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks PyPI at import otherwise


def _transforms(name: str, square: bool) -> list:
    """The pipeline of that name; a quarter turn would swap an oblong image's sides, so those are mirrored only."""
    import albumentations as A
    import cv2

    colour = A.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05, p=0.5)
    # a bilinear mask of 0 and 1 is rounded by cv2: cut at one half, without nearest-neighbour's ragged outlines
    affine = {"border_mode": cv2.BORDER_REFLECT_101, "mask_interpolation": cv2.INTER_LINEAR}
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
    """A named pipeline: `(image (H, W, 3), mask (H, W), key) -> (image, mask)` of equal shapes, masks staying 0 and 1.

    Equal keys give equal results, in any process. Built at first use, so that it travels to spawned workers as its
    name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._compose: dict[bool, Any] = {}  # by whether the image is square

    def __call__(self, image: np.ndarray, mask: np.ndarray, key: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        square = image.shape[0] == image.shape[1]
        if square not in self._compose:
            import albumentations as A

            self._compose[square] = A.Compose(_transforms(self.name, square), strict=True)
        compose, sequence = self._compose[square], np.random.SeedSequence(key)
        compose.set_random_state(np.random.default_rng(sequence), random.Random(int(sequence.generate_state(1)[0])))
        result = compose(image=image, mask=mask)
        return result["image"], result["mask"]

    def __getstate__(self) -> dict:
        return {"name": self.name, "_compose": {}}


def make(name: str) -> Augmentation | None:
    """The pipeline of that name (config.AUGMENT), None for "none"."""
    return None if name == "none" else Augmentation(name)
