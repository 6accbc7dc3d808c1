"""Leak audit: the same picture in two folds, as it is, mirrored or turned, makes the score a fiction.

A fingerprint that no mirroring or turning changes only nominates pairs; comparing all pixels decides.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable
from itertools import combinations

import numpy as np

UPRIGHT = "the same picture"
_TURNS = (
    (0, False, UPRIGHT),
    (0, True, "mirrored"),
    (1, False, "turned by 90"),
    (2, False, "turned by 180"),
    (3, False, "turned by 270"),
    (1, True, "mirrored and turned by 90"),
    (2, True, "mirrored and turned by 180"),
    (3, True, "mirrored and turned by 270"),
)


def fingerprint(image: np.ndarray) -> bytes:
    """Equal for all eight mirrored and turned versions of an image (H, W, 3): sides and each channel's histogram."""
    sides = np.array(sorted(image.shape[:2]))
    histograms = [np.bincount(image[..., channel].ravel(), minlength=256) for channel in range(image.shape[2])]
    return hashlib.blake2b(np.concatenate([sides, *histograms]).tobytes(), digest_size=16).digest()


def relation(first: np.ndarray, second: np.ndarray) -> str:
    """How `second` is `first`, to the pixel ("mirrored", ...), or "" where it is another picture."""
    for turns, mirrored, name in _TURNS:
        candidate = np.rot90(second[:, ::-1] if mirrored else second, turns)
        if candidate.shape == first.shape and np.array_equal(first, candidate):
            return name
    return ""


def copies(prints: list[bytes], read: Callable[[int], np.ndarray]) -> list[tuple[int, int, str]]:
    """All pairs (i, j, relation) of pixel-equal images; `read(i)` decodes the i-th, called for nominated ones only.

    In a set of many equal images each is compared with the first of its kind, so that a folder of copies stays cheap.
    """
    nominated = defaultdict(list)
    for index, digest in enumerate(prints):
        nominated[digest].append(index)
    found = []
    for indices in (group for group in nominated.values() if len(group) > 1):
        firsts: list[tuple[int, np.ndarray]] = []
        for index in indices:
            image = read(index)
            match = next(((first, how) for first, other in firsts if (how := relation(other, image))), None)
            if match:
                found.append((match[0], index, match[1]))
            else:
                firsts.append((index, image))
    return found


def tie(groups: list[str], pairs: list[tuple[int, int, str]]) -> list[str]:
    """The groups after those of each pair are made one, named by the first of their names."""
    leader = {group: group for group in groups}

    def root(group: str) -> str:
        while leader[group] != group:
            group = leader[group]
        return group

    for first, second, _ in pairs:
        low, high = sorted((root(groups[first]), root(groups[second])))
        leader[high] = low
    return [root(group) for group in groups]


def across(pairs: list[tuple[int, int, str]], folds: list[int]) -> list[tuple[int, int, str]]:
    """All pairs of copies in different folds, pairs of copies of one original included; -1 counts as a fold."""
    clusters: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for first, second, how in pairs:
        clusters[first].append((second, how))
    leaks = []
    for first, others in clusters.items():
        members = [(first, UPRIGHT), *others]
        for (a, _), (b, how) in combinations(members, 2):
            if folds[a] != folds[b]:
                leaks.append((a, b, how if a == first else "copies of one picture"))
                break
    return leaks
