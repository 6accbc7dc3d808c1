"""From probability to mask, the same in tester, tuning, inference and submission."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np

from prediction import watershed
from tools.errors import UserError


@dataclass(frozen=True)
class Rule:
    """How the probabilities of one class become its mask.

    In this order: the whole image's mask is empty where fewer than `top_area` pixels reach `top_threshold` (0: no such
    test; "two thresholds and an area", the winners of Kaggle's pneumothorax competition, 2019); pixels that reach
    `threshold` are foreground; holes are filled; touching objects are cut apart by a watershed where their centers lie
    at least `split` pixels apart (0: none is; see `watershed`); objects (8 neighbors) of fewer than `min_area` pixels
    are removed; the `keep_largest` largest stay (0: all).
    """

    threshold: float = 0.5
    min_area: int = 0
    fill_holes: int = 0
    keep_largest: int = 0
    top_threshold: float = 0.0
    top_area: int = 0
    split: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return a JSON-ready dict; `from_json` reads it back."""
        return asdict(self)

    def __str__(self) -> str:
        parts = [f"threshold {self.threshold:g}"]
        if self.top_threshold and self.top_area:
            parts.append(f"empty below {self.top_area} px of {self.top_threshold:g}")
        if self.fill_holes:
            parts.append("holes filled")
        if self.split:
            parts.append(f"touching objects cut apart, centers {self.split} px and more apart")
        if self.min_area > 1:
            parts.append(f"objects of {self.min_area} px and more")
        if self.keep_largest:
            parts.append("the largest" if self.keep_largest == 1 else f"the {self.keep_largest} largest")
        return ", ".join(parts)


def from_json(values: object, where: str) -> Rule:
    """Read a Rule from what `as_json` gave, of old also without `split`.

    Raises UserError where that is something else.
    """
    try:
        if not isinstance(values, dict):
            raise TypeError(f"{values!r:.40}")
        rule = Rule(
            threshold=float(values["threshold"]),
            min_area=int(values["min_area"]),
            fill_holes=int(values["fill_holes"]),
            keep_largest=int(values["keep_largest"]),
            top_threshold=float(values["top_threshold"]),
            top_area=int(values["top_area"]),
            split=int(values.get("split", 0)),
        )
        if not 0 < rule.threshold <= 1 or not 0 <= rule.top_threshold <= 1 or min(asdict(rule).values()) < 0:
            raise ValueError(str(rule))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where} holds no rule from probability to mask ({error}).") from error
    return rule


def all_from_json(values: object, where: str) -> tuple[Rule, ...]:
    """Read rules from a list of what `as_json` gave. Raises UserError where that is something else."""
    if not isinstance(values, list):
        raise UserError(f"{where} holds no list of rules from probability to mask.")
    return tuple(from_json(value, where) for value in values)


def level(threshold: float) -> int:
    """Return the whole number t for which `p8 >= t` means a probability of at least `threshold` in (0, 1]."""
    return max(1, math.ceil(threshold * 255 - 1e-9))


def to_p8(probability: np.ndarray) -> np.ndarray:
    """Round float in [0, 1] to uint8, which prediction folders hold."""
    p8, flat = np.empty(probability.shape, np.uint8), np.ascontiguousarray(probability).reshape(-1)
    parts, step = p8.reshape(-1), 1 << 16  # a part stays in the processor's cache over its three passes
    for at in range(0, flat.size, step):
        part = flat[at : at + step] * 255
        part += 0.5
        parts[at : at + step] = part
    return p8


def to_mask(p8: np.ndarray, rule: Rule) -> np.ndarray:
    """Cut uint8 probabilities (H, W) by `rule` -> 0/1 (H, W)."""
    if rule.top_threshold and np.count_nonzero(p8 >= level(rule.top_threshold)) < rule.top_area:
        return np.zeros(p8.shape, np.uint8)
    mask = (p8 >= level(rule.threshold)).view(np.uint8)
    if rule.fill_holes:
        mask = without_holes(mask)
    return _objects(mask, rule)


def _objects(mask: np.ndarray, rule: Rule) -> np.ndarray:
    if rule.split:
        mask = watershed.apart(mask, rule.split)
    return kept_objects(mask, rule.min_area, rule.keep_largest)


def without_holes(mask: np.ndarray) -> np.ndarray:
    """Fill the holes of a mask 0/1 (H, W): background (4 neighbors) that does not reach the image's border."""
    framed = np.pad(mask, 1)  # so that the outside is one region, found from a corner
    cv2.floodFill(framed, None, (0, 0), 2, flags=4)
    return (framed[1:-1, 1:-1] != 2).astype(np.uint8)


def kept_objects(mask: np.ndarray, min_area: int, keep_largest: int = 0) -> np.ndarray:
    """Keep of a mask 0/1 (H, W) only objects (8 neighbors) of `min_area` pixels, and of them the n largest.

    Of two equally large ones the first in reading order stays.
    """
    if (min_area > 1 or keep_largest) and mask.any():
        _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        keep = kept(stats[1:, cv2.CC_STAT_AREA], min_area, keep_largest)
        mask = np.concatenate([[False], keep])[labels].astype(np.uint8)
    return mask


def kept(areas: np.ndarray, min_area: int, keep_largest: int = 0) -> np.ndarray:
    """Return which objects of these areas, in reading order, `kept_objects` leaves, bool (n,)."""
    keep = areas >= min_area
    if keep_largest:
        keep[np.argsort(-areas, kind="stable")[keep_largest:]] = False
    return keep


def to_masks(p8: np.ndarray, task: str, scored: tuple[int, ...], rules: tuple[Rule, ...]) -> np.ndarray:
    """Cut uint8 probabilities (C, H, W) of all classes -> 0/1 (S, H, W) of the scored ones, each by its own rule.

    Multiclass: each pixel is its likeliest class's, the first one's where several are equal; objects that a rule
    removes, and the lines that it cuts between objects, are then nobody's. Otherwise each class is cut by itself.
    """
    if task != "multiclass":
        return np.stack([to_mask(p8[index], rule) for index, rule in zip(scored, rules, strict=True)])
    best = p8.argmax(0)
    return np.stack(
        [_objects((best == index).astype(np.uint8), rule) for index, rule in zip(scored, rules, strict=True)]
    )
