"""From probability to mask, the same in tester, inference and submission."""

import math

import cv2
import numpy as np


def level(threshold: float) -> int:
    """The whole number t such that `p8 >= t` means a probability of at least `threshold` (0 < threshold <= 1)."""
    return max(1, math.ceil(threshold * 255 - 1e-9))


def to_p8(probability: np.ndarray) -> np.ndarray:
    """float in [0, 1] -> uint8, rounded; what prediction folders hold."""
    return (probability * 255 + 0.5).astype(np.uint8)


def to_mask(p8: np.ndarray, threshold: float, min_area: int = 0) -> np.ndarray:
    """uint8 probabilities (H, W) -> 0/1 (H, W) without the objects (8 neighbours) of fewer than `min_area` pixels."""
    return without_specks((p8 >= level(threshold)).astype(np.uint8), min_area)


def without_specks(mask: np.ndarray, min_area: int) -> np.ndarray:
    """The mask 0/1 (H, W) without the objects (8 neighbours) of fewer than `min_area` pixels."""
    if min_area > 1 and mask.any():
        _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        keep = stats[:, cv2.CC_STAT_AREA] >= min_area
        keep[0] = False
        mask = keep[labels].astype(np.uint8)
    return mask


def to_masks(p8: np.ndarray, task: str, scored: tuple[int, ...], threshold: float, min_area: int = 0) -> np.ndarray:
    """uint8 probabilities (C, H, W) of all classes -> 0/1 (S, H, W) of the scored ones.

    Multiclass: each pixel is its likeliest class's, the first one's where several are equal; objects that are too small
    are then nobody's. Otherwise each class is cut at the threshold by itself.
    """
    if task != "multiclass":
        return np.stack([to_mask(p8[index], threshold, min_area) for index in scored])
    best = p8.argmax(0)
    return np.stack([without_specks((best == index).astype(np.uint8), min_area) for index in scored])
