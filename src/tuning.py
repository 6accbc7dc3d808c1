"""From probabilities to masks, tuned without cheating: what is used on a fold was chosen on the other folds.

The rules are searched on histograms and objects of the saved probabilities; no network is needed.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

import console
import images
import metrics
import objects
import postprocess
from dataspec import DataSpec
from outoffold import OutOfFold
from postprocess import Rule
from scoring import Scale

FINE = tuple(round(0.02 * step, 2) for step in range(1, 50))  # thresholds that cost a look at a histogram each
COARSE = (0.1, 0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8, 0.9)  # those whose objects are looked at
FEW = (0.3, 0.4, 0.5, 0.6, 0.7)  # for measures that need each mask drawn
SHARES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)  # of an image's pixels: smallest objects, and the area of a top threshold


@dataclass(frozen=True)
class Table:
    """What each rule does to each image: counts int (N, S, R, 4) and the METRIC's values (N, S, R), rules simple first.

    The first rule is the one in use.
    """

    rules: tuple[Rule, ...]
    counts: np.ndarray
    values: np.ndarray


def candidates(rule: Rule, task: str, by_counts: bool, pixels: int) -> tuple[Rule, ...]:
    """The rules that are tried, `rule` first, then from simple to elaborate, for images of some `pixels`.

    by_counts: the METRIC is a ratio of pixel counts, so that histograms tell all; else fewer are tried.
    """
    areas = sorted({max(2, round(share * pixels)) for share in SHARES})
    if task == "multiclass":  # the likeliest class needs no threshold
        thresholds, coarse, fills = (), (rule.threshold,), (0,)
    else:
        thresholds, coarse, fills = (FINE, COARSE, (0, 1)) if by_counts else (FEW, FEW, (0, 1))
    found = [rule, *(Rule(threshold) for threshold in thresholds)]
    for fill in fills:
        found += [Rule(t, fill_holes=fill, keep_largest=n) for t in coarse for n in (0, 1)]
        found += [Rule(t, area, fill) for t in coarse for area in areas]
    if task != "multiclass" and by_counts:
        found += [
            Rule(t, top_threshold=top, top_area=area) for t in coarse for top in (*coarse, 0.95) if top >= t
            for area in areas
        ]  # fmt: skip
    return tuple(dict.fromkeys(found))


def table(found: OutOfFold, rule: Rule, scale: Scale, max_pixels: int) -> Table:
    """Try every candidate on every held-out image, in threads."""
    heights_widths = [images.read_size(found.root / image) for image in found.table["image"].head(100)]
    pixels = int(np.median([height * width for height, width in heights_widths]))
    rules = candidates(rule, found.spec.task, scale.measure.kind == "counts", pixels)
    columns = list(zip(found.table["image"], found.table["mask"], found.table["kfold"], strict=True))

    def one(row: tuple[str, str, int]) -> tuple[np.ndarray, np.ndarray]:
        return _of_image(found, row, rules, scale, max_pixels)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        label = f"{len(rules)} rules"
        parts = list(console.track(_in_order(pool, one, columns), len(columns), label))
    counts, values = (np.stack(part) for part in zip(*parts, strict=True))
    return Table(rules, counts, values)


def _in_order(pool: ThreadPoolExecutor, task: Any, rows: list) -> Iterator[Any]:
    """pool.map, ended at once by an error instead of after all other rows."""
    try:
        yield from pool.map(task, rows)
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise


def _of_image(
    found: OutOfFold, row: tuple[str, str, int], rules: tuple[Rule, ...], scale: Scale, max_pixels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Counts (S, R, 4) and values (S, R) of one image."""
    (image, reference, fold), spec = row, found.spec
    p8 = found.maps(image, fold)
    mask = spec.read_mask(found.root, reference, p8.shape[1:], max_pixels, image)
    truths, labelled = spec.class_planes(mask), spec.labelled(mask)
    if scale.measure.kind == "counts":
        planes = _planes(p8, spec)
        counts = np.stack(
            [counts_by_rule(plane, truth, labelled, rules) for plane, truth in zip(planes, truths, strict=True)]
        )
        return counts, scale.measure.from_counts(*np.moveaxis(counts, -1, 0), empty=scale.empty)
    there = objects.read(spec, found.root, reference, p8.shape[1:], max_pixels, image) if scale.has_objects else None
    return _drawn(p8, spec, truths, labelled, there, rules, scale)


def _planes(p8: np.ndarray, spec: DataSpec) -> list[np.ndarray]:
    """For each scored class what a threshold cuts: its map, or 255 where it is the likeliest class (multiclass)."""
    if spec.task != "multiclass":
        return [p8[index] for index in spec.scored]
    best = p8.argmax(0)
    return [(best == index).astype(np.uint8) * 255 for index in spec.scored]


def _drawn(
    p8: np.ndarray, spec: DataSpec, truths: np.ndarray, labelled: Any, there: Any, rules: tuple[Rule, ...], scale: Scale
) -> tuple[np.ndarray, np.ndarray]:
    """Counts and values of masks that are drawn by each rule in turn, for measures of shapes and objects."""
    counts = np.zeros((len(truths), len(rules), 4), np.int32)
    values = np.zeros((len(truths), len(rules)))
    for at, rule in enumerate(rules):
        masks = postprocess.to_masks(p8, spec.task, spec.scored, (rule,) * len(truths))
        for index, (drawn, truth) in enumerate(zip(masks, truths, strict=True)):
            counts[index, at] = list(metrics.count(drawn, truth, labelled).values())
            its_objects = None if there is None else there[index]
            values[index, at] = scale.value(scale.metric, drawn, truth, labelled, its_objects)
    return counts, values


def counts_by_rule(
    p8: np.ndarray, truth: np.ndarray, labelled: np.ndarray | None, rules: tuple[Rule, ...]
) -> np.ndarray:
    """tp, fp, fn, tn, int32 (R, 4), of one map uint8 (H, W) cut by each rule, without drawing one mask a rule.

    Equal to `metrics.count` of `postprocess.to_mask`.
    """
    inside = np.ones(p8.shape, bool) if labelled is None else labelled
    true = truth & inside
    reached = {  # pixels at or above each level: all of them, the true ones, the ones that count
        name: np.bincount(pixels, minlength=256)[::-1].cumsum()[::-1]
        for name, pixels in (("area", p8.ravel()), ("tp", p8[true]), ("counted", p8[inside]))
    }
    positive, total = int(true.sum()), int(inside.sum())
    kept: dict[tuple[int, int], np.ndarray] = {}
    found = np.zeros((len(rules), 4), np.int32)
    for at, rule in enumerate(rules):
        level = postprocess.level(rule.threshold)
        if rule.top_threshold and reached["area"][postprocess.level(rule.top_threshold)] < rule.top_area:
            tp, counted = 0, 0
        elif not (rule.min_area > 1 or rule.fill_holes or rule.keep_largest):
            tp, counted = reached["tp"][level], reached["counted"][level]
        else:
            if (level, rule.fill_holes) not in kept:
                kept[level, rule.fill_holes] = _objects(p8 >= level, rule.fill_holes, true, inside)
            tp, counted = _of_kept(kept[level, rule.fill_holes], rule)
        found[at] = tp, counted - tp, positive - tp, total - counted - positive + tp
    return found


def _objects(mask: np.ndarray, fill_holes: int, true: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Area, true pixels and pixels that count of each object, (n, 3), the largest first."""
    mask = mask.astype(np.uint8)
    if fill_holes:
        mask = postprocess.without_holes(mask)
    number, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    columns = [stats[:, cv2.CC_STAT_AREA], *(np.bincount(labels[where], minlength=number) for where in (true, inside))]
    sizes = np.stack(columns, axis=1)[1:]
    return sizes[np.argsort(-sizes[:, 0], kind="stable")]


def _of_kept(sizes: np.ndarray, rule: Rule) -> tuple[int, int]:
    """True pixels and pixels that count of the objects that a rule keeps."""
    keep = int((sizes[:, 0] >= rule.min_area).sum()) if rule.min_area > 1 else len(sizes)
    if rule.keep_largest:
        keep = min(keep, rule.keep_largest)
    tp, counted = sizes[:keep, 1:].sum(0)
    return int(tp), int(counted)


def search(tried: Table, folds: np.ndarray, scale: Scale) -> tuple[dict[int, list[int]], list[int], np.ndarray]:
    """The best rule of each class for each fold, chosen on the other folds; the best on all; all rules' scores on all.

    Rules are numbers of `tried.rules`, scores (S, R). Of equally good ones the first, the simplest, is taken.
    """
    names = sorted(set(folds.tolist()))
    weights = np.stack([np.ones(len(folds)), *((folds != fold).astype(float) for fold in names)])
    classes, number = tried.counts.shape[1], len(tried.rules)
    scores = np.empty((classes, number, len(weights)))
    for index in range(classes):
        for at in range(number):
            one = slice(index, index + 1)
            scores[index, at] = scale.total(tried.counts[:, one, at], tried.values[:, one, at], weights)
    worth = scores if scale.measure.higher else -scores
    best = np.where(np.isnan(worth), -np.inf, worth).argmax(1)  # (S, 1 + folds)
    crossfitted = {fold: best[:, 1 + at].tolist() for at, fold in enumerate(names)}
    return crossfitted, best[:, 0].tolist(), scores[:, :, 0]


def pick(tried: Table, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts (N, S, 4) and values (N, S) under the rules `chosen` (N, S), numbers of `tried.rules`."""
    image, index = np.indices(chosen.shape)
    return tried.counts[image, index, chosen], tried.values[image, index, chosen]


def curve(tried: Table, scores: np.ndarray) -> dict[str, list]:
    """METRIC on all images at each plain threshold: thresholds, and the classes' mean scores."""
    plain = sorted(
        (rule.threshold, at) for at, rule in enumerate(tried.rules) if rule == replace(Rule(), threshold=rule.threshold)
    )
    return {
        "thresholds": [threshold for threshold, _ in plain],
        "scores": [float(np.nanmean(scores[:, at])) for _, at in plain],
    }
