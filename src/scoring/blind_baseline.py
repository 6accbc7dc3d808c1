"""The masks to beat: what scores best by METRIC on the training images and ignores the image that it is laid on.

Each scored class has one, chosen by itself: the mean training mask cut at one of many levels, of which the lowest is
everything, or the empty mask. In a class map those of several classes may overlap, so that no one map has them all:
their mean is at least what any one of these maps would reach.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from data import splits
from formats import images
from formats.resize import coverage_to_network
from metrics import measures, objects, overlap
from scoring import score_rows
from scoring.out_of_fold import OutOfFold
from scoring.score_rows import Pairs, Scale
from tools import console, threads

if TYPE_CHECKING:
    pass

SIDE = 128  # of the shrunk masks
# levels by the share below of the pixels that are ever foreground; small objects always in one place need the last ones
SHARES = np.union1d(np.linspace(0, 1, 41), 1 - np.geomspace(0.02, 0.0005, 7))
FEW_LEVELS, FEW_IMAGES = 12, 48  # for measures that need each mask drawn, at the images' original size
MOST_NAMED = 20  # classes in a sentence


@dataclass(frozen=True)
class Training:
    """Training masks, shrunk: 255 where all of a small pixel is a class's, or is labeled.

    cover: uint8 (S, N, SIDE, SIDE), with a pixel above 0 wherever the mask is not empty. labeled: uint8
    (N, SIDE, SIDE). pixels: (N,), those of the original.
    """

    pairs: Pairs
    cover: np.ndarray
    labeled: np.ndarray
    pixels: np.ndarray

    def part(self, rows: np.ndarray) -> "Training":
        """Return some rows of it, by their numbers."""
        kept = {"cover": self.cover[:, rows], "labeled": self.labeled[rows], "pixels": self.pixels[rows]}
        return replace(self, pairs=self.pairs.of(self.pairs.table.iloc[rows]), **kept)


def shrunk(training: Pairs) -> Training:
    """Read and shrink the training masks, in threads."""
    root, spec, max_pixels = training.root, training.spec, training.max_pixels

    def small(row: tuple[str, str]) -> tuple[np.ndarray, np.ndarray, int]:
        mask = spec.read_mask(root, row[1], images.read_size(root / row[0], max_pixels), max_pixels, row[0])
        labeled = spec.labeled(mask)
        inside = np.ones(mask.shape[1:], bool) if labeled is None else labeled
        cover = np.stack([_shrunk(plane) for plane in spec.class_planes(mask)])
        return cover, np.maximum(_shrunk(inside), cover.max(0)), inside.size

    rows = list(zip(training.table["image"], training.table["mask"], strict=True))
    with threads.pool() as pool:
        parts = list(console.track(pool.map(small, rows), len(rows), "training masks"))
    cover, labeled, pixels = zip(*parts, strict=True)
    return Training(training, np.stack(cover, 1), np.stack(labeled), np.array(pixels))


def _shrunk(plane: np.ndarray) -> np.ndarray:
    small = coverage_to_network(plane.astype(np.uint8), (SIDE, SIDE), "stretch")
    if plane.any() and not small.any():  # a speck, rounded away; but METRIC asks whether a mask is empty
        at = np.argwhere(plane)[0] * SIDE // plane.shape
        small[tuple(at)] = 1
    return small


def masks(training: Training, scale: Scale) -> np.ndarray:
    """Return the best masks that ignore the image, 0/1 uint8 (S, SIDE, SIDE).

    A METRIC of pixel counts is taken of the shrunk masks; any other at the original size, of fewer levels on some of
    the images.
    """
    if scale.measure.kind == "counts":
        best = []
        for cover in training.cover:
            drawn = _candidates(cover, training.labeled)
            best.append(drawn[_best_by_counts(_counts(drawn, cover, training), scale)])
    else:
        few = [_few(cover, training, scale) for cover in training.cover]
        looked_at = zip(few, _looked_at(training, few, scale), strict=True)
        best = [drawn[_best(np.zeros((*values.shape, 4)), values, scale)] for drawn, values in looked_at]
    return np.stack(best).reshape(-1, SIDE, SIDE)


def by_fold(pairs: Pairs, scale: Scale, folds: Iterable[int]) -> dict[int, np.ndarray]:
    """Return for each fold the masks (S, SIDE, SIDE) that its own training images say; pairs: of the whole table."""
    training = shrunk(pairs)
    return {fold: masks(training.part(splits.split_rows(pairs.table, str(fold))[0]), scale) for fold in folds}


def _candidates(cover: np.ndarray, labeled: np.ndarray) -> np.ndarray:
    """Return masks 0/1 uint8 (L, SIDE * SIDE) of one class.

    The mean mask from its lowest level (everything) up, then nothing.
    """
    seen = labeled.sum(0, dtype=np.float64)
    mean = np.divide(cover.sum(0, dtype=np.float64), seen, out=np.zeros_like(seen), where=seen > 0).ravel()
    there = mean[mean > 0] if mean.any() else mean
    levels = np.unique(np.append(np.quantile(there, SHARES), mean.min()))
    return np.concatenate([mean >= levels[:, None], np.zeros((1, mean.size), bool)]).astype(np.uint8)


def _counts(drawn: np.ndarray, cover: np.ndarray, training: Training) -> np.ndarray:
    """Count tp, fp, fn, tn, float64 (N, L, 4), in units that are the same for all images."""
    planes, parts = drawn.T.astype(np.float32), []  # whose sums are whole numbers below 2 to the 24th: exact
    for start in range(0, len(cover), 64):
        true, inside = (part[start : start + 64].reshape(-1, len(planes)).astype(np.float32)
                        for part in (cover, training.labeled))  # fmt: skip
        tp, area = (part @ planes for part in (true, inside))
        positive, every = (part.sum(1, keepdims=True) for part in (true, inside))
        parts.append(np.stack([tp, area - tp, positive - tp, every - area - positive + tp], axis=-1))
    return np.concatenate(parts) * training.pixels[:, None, None].astype(np.float64)


def _best_by_counts(counts: np.ndarray, scale: Scale) -> int:
    return _best(counts, scale.measure.from_counts(*np.moveaxis(counts, -1, 0), empty=scale.empty), scale)


def _best(counts: np.ndarray, values: np.ndarray, scale: Scale) -> int:
    """Return the first of the best candidates, of counts (N, L, 4) and values (N, L)."""
    score = measures.by_class(scale.measure, counts, values, np.ones((1, len(values))), scale.empty)[0]
    return int(np.where(np.isnan(score), -np.inf, score if scale.measure.higher else -score).argmax())


def _few(cover: np.ndarray, training: Training, scale: Scale) -> np.ndarray:
    """Return the candidates (L, SIDE * SIDE) that are looked at: the best by Dice, levels from all, nothing."""
    drawn = _candidates(cover, training.labeled)
    best = _best_by_counts(_counts(drawn, cover, training), replace(scale, metric="dice"))
    nothing = len(drawn) - 1
    levels = np.linspace(0, nothing - 1, FEW_LEVELS).astype(int).tolist()
    return drawn[list(dict.fromkeys([best, *levels, nothing]))]


def _looked_at(training: Training, drawn: list[np.ndarray], scale: Scale) -> list[np.ndarray]:
    """Return for each class the METRIC's values (n, L) of its candidates on n training images, spread over all."""
    table = training.pairs.table
    rows = table.iloc[np.unique(np.linspace(0, len(table) - 1, FEW_IMAGES).astype(int))]

    def look(row: tuple[str, str]) -> list[np.ndarray]:
        truths, labeled, there = _truth(training.pairs, row, scale)
        return [
            np.array([_value(scale, mask.reshape(SIDE, SIDE), truth, labeled, its) for mask in of_class])
            for of_class, truth, its in zip(drawn, truths, there, strict=True)
        ]

    pairs = list(zip(rows["image"], rows["mask"], strict=True))
    with threads.pool() as pool:
        parts = list(console.track(pool.map(look, pairs), len(pairs), "constant masks"))
    return [np.stack(of_class) for of_class in zip(*parts, strict=True)]


def _truth(
    pairs: Pairs, row: tuple[str, str], scale: Scale
) -> tuple[np.ndarray, np.ndarray | None, list[np.ndarray] | list[None]]:
    """Read one row at its original size: bool (S, H, W), the pixels that count, the objects of each class (or None)."""
    (image, reference), root, spec, max_pixels = row, pairs.root, pairs.spec, pairs.max_pixels
    shape = images.read_size(root / image, max_pixels)
    mask = spec.read_mask(root, reference, shape, max_pixels, image)
    planes, labeled = spec.class_planes(mask), spec.labeled(mask)
    if scale.measure.kind != "objects":
        return planes, labeled, [None] * len(planes)
    return planes, labeled, list(objects.read(spec, root, reference, shape, max_pixels, image))


def _value(
    scale: Scale, small: np.ndarray, truth: np.ndarray, labeled: np.ndarray | None, truth_objects: np.ndarray | None
) -> float:
    return scale.value(scale.metric, score_rows.stretched(small, truth.shape), truth, labeled, truth_objects)


def on_held_out(
    found: OutOfFold, constants: dict[int, np.ndarray], scale: Scale, max_pixels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Score each fold's constant masks on its held-out images: counts (N, S, 4), the METRIC's values (N, S)."""

    pairs = found.pairs(max_pixels)

    def score(row: tuple[str, str, int]) -> tuple[list[list[int]], list[float]]:
        image, reference, fold = row
        truths, labeled, there = _truth(pairs, (image, reference), scale)
        counts, values = [], []
        for small, truth, its in zip(constants[fold], truths, there, strict=True):
            counts.append(list(overlap.count(score_rows.stretched(small, truth.shape), truth, labeled).values()))
            values.append(_value(scale, small, truth, labeled, its))
        return counts, values

    rows = list(zip(found.table["image"], found.table["mask"], found.table["kfold"], strict=True))
    with threads.pool() as pool:
        parts = list(console.track(pool.map(score, rows), len(rows), "constant masks"))
    counts, values = zip(*parts, strict=True)
    return np.array(counts), np.array(values)


@dataclass(frozen=True)
class Beside:
    """A score beside the constant mask's, of all classes or of the one that `name` says."""

    name: str
    score: float
    constant: float  # NaN where it is not known
    blank: bool  # not a pixel is predicted
    absent: bool  # and none is in the masks

    def is_no_better(self, higher: bool) -> bool:
        """Return whether it is a blank prediction's, or not the better one by more than rounding; no if undefined."""
        if not math.isfinite(self.score):
            return False
        worse = self.score <= self.constant + 1e-9 if higher else self.score >= self.constant - 1e-9
        return self.blank or worse

    def __str__(self) -> str:
        beside = f" against {self.constant:.4f}" if math.isfinite(self.constant) else ""
        absent = ", and none in the masks" if self.absent else ""
        return f"{self.name}{self.score:.4f}{beside}{', with not a pixel predicted' if self.blank else ''}{absent}"


def said(score: dict[str, Any], higher: bool) -> str:
    """Say that a score, or some class's, is no better than one that ignores the image; "" where all are better.

    score: "score" of a summary, or "crossfitted" of what was tuned; older ones tell less. A class of which not a pixel
    is predicted is no better than the empty mask, whichever the constant one is.
    """
    classes = {name: part[0] for name, part in score.get("classes", {}).items()}
    constants, unpredicted, absent = (score.get(key, {}) for key in ("constant_classes", "unpredicted", "absent"))
    blank, none = (bool(classes) and len(names) == len(classes) for names in (unpredicted, absent))
    model = score["model"] if "model" in score else score["score"]
    of = "the mean over the classes " if len(classes) > 1 else ""
    compared = [Beside(of, model, score.get("constant", math.nan), blank, none)]
    if len(classes) > 1:
        compared += [Beside(f"{name} ", value, constants.get(name, math.nan), name in unpredicted, name in absent)
                     for name, value in classes.items()]  # fmt: skip
    worse = [str(score) for score in compared if score.is_no_better(higher)]
    if len(worse) > MOST_NAMED:
        worse = [*worse[:MOST_NAMED], f"and {len(worse) - MOST_NAMED} more"]
    return f"This is no better than a constant mask, which ignores the image: {'; '.join(worse)}." if worse else ""
