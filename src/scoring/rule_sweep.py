"""What each of many rules does to one probability map, without drawing one mask a rule.

Plain thresholds are read off histograms. Objects are looked at once for each threshold, holes filled or not, and way of
cutting them apart: the rules that keep some of these by their areas then only choose among them.
"""

from dataclasses import replace

import cv2
import numpy as np

from metrics import objects
from metrics.measures import Measure
from prediction import postprocess
from prediction.postprocess import Rule


def counts_by_rule(
    p8: np.ndarray, truth: np.ndarray, labeled: np.ndarray | None, rules: tuple[Rule, ...]
) -> np.ndarray:
    """Count tp, fp, fn, tn, int32 (R, 4), of one map uint8 (H, W) cut by each rule.

    Equal to `metrics.count` of `postprocess.to_mask`. truth: 0/1 or bool (H, W); labeled: the pixels that count.
    """
    inside = np.ones(p8.shape, bool) if labeled is None else labeled
    true = truth.astype(bool) if labeled is None else truth.astype(bool) & inside
    every = histogram(p8)
    # pixels at or above each level: all of them, the true ones, the ones that count
    by_level = {
        "area": every,
        "tp": histogram(p8, true),
        "counted": every if labeled is None else histogram(p8, inside),
    }
    reached = {name: counts[::-1].cumsum()[::-1] for name, counts in by_level.items()}
    sizes: dict[Rule, np.ndarray] = {}
    found = np.zeros((len(rules), 2), np.int64)
    for at, rule in enumerate(rules):
        level = postprocess.level(rule.threshold)
        if rule.top_threshold and reached["area"][postprocess.level(rule.top_threshold)] < rule.top_area:
            continue
        if not (rule.min_area > 1 or rule.fill_holes or rule.keep_largest or rule.split):
            found[at] = reached["tp"][level], reached["counted"][level]
            continue
        drawn = _drawn_alike(rule)
        if drawn not in sizes:
            sizes[drawn] = _objects(p8, drawn, true, inside)[1]
        found[at] = sizes[drawn][postprocess.kept(sizes[drawn][:, 0], rule.min_area, rule.keep_largest), 1:].sum(0)
    return _four(found, int(true.sum()), int(inside.sum()))


def histogram(p8: np.ndarray, among: np.ndarray | None = None) -> np.ndarray:
    """Count the pixels of uint8 (H, W) at each level, int64 (256,); of bool `among` only those that are True."""
    rows = max(1, (1 << 24) // p8.shape[1])  # OpenCV counts in float32, which is exact so far
    counts = np.zeros(256, np.int64)
    for top in range(0, len(p8), rows):
        mask = None if among is None else np.ascontiguousarray(among[top : top + rows]).view(np.uint8)
        part = np.ascontiguousarray(p8[top : top + rows])
        counts += cv2.calcHist([part], [0], mask, [256], [0, 256]).ravel().astype(np.int64)
    return counts


def objects_by_rule(
    p8: np.ndarray,
    truth: np.ndarray,
    true_objects: np.ndarray,
    labeled: np.ndarray | None,
    rules: tuple[Rule, ...],
    measure: Measure,
    empty: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the same counts, int32 (R, 4), and the values (R,) of a measure of the kind "objects".

    Equal to `measure.value` of `postprocess.to_mask`. true_objects: labels (H, W) as of `objects.read`.
    """
    inside = np.ones(p8.shape, bool) if labeled is None else labeled
    true, there = truth.astype(bool) & inside, true_objects * inside
    looked_at: dict[Rule, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    found, values = np.zeros((len(rules), 2), np.int64), np.zeros(len(rules))
    for at, rule in enumerate(rules):
        drawn = _drawn_alike(rule)
        if drawn not in looked_at:
            labels, sizes = _objects(p8, drawn, true, inside)
            parts, whole = _labeled_parts(labels, len(sizes), labeled)
            looked_at[drawn] = sizes, objects.match(parts, there), whole
        sizes, overlap, whole = looked_at[drawn]
        keep = postprocess.kept(sizes[:, 0], rule.min_area, rule.keep_largest)
        if rule.top_threshold and np.count_nonzero(p8 >= postprocess.level(rule.top_threshold)) < rule.top_area:
            keep[:] = False
        found[at] = sizes[keep, 1:].sum(0)
        values[at] = measure.from_overlap(overlap[keep[whole]], empty)
    return _four(found, int(true.sum()), int(inside.sum())), values


def _drawn_alike(rule: Rule) -> Rule:
    """Return the rule without what only chooses among whole objects: those with the same one share their objects."""
    level = postprocess.level(rule.threshold) / 255
    return replace(Rule(level), fill_holes=rule.fill_holes, split=rule.split)


def _objects(p8: np.ndarray, rule: Rule, true: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a rule's objects: labels int32 (H, W), and each one's area, true pixels and pixels that count, (n, 3)."""
    number, labels, stats, _ = cv2.connectedComponentsWithStats(postprocess.to_mask(p8, rule), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    counted = areas if inside.all() else np.bincount(labels[inside], minlength=number)
    return labels, np.stack([areas, np.bincount(labels[true], minlength=number), counted], axis=1)[1:]


def _labeled_parts(labels: np.ndarray, number: int, labeled: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return what unlabeled pixels leave of objects 1 to `number`: parts 1, 2, ... and whose they are, from 0."""
    if labeled is None:
        return labels, np.arange(number)
    parts = objects.components(labels * labeled)  # several of one object, or none
    whole = np.zeros(int(parts.max(initial=0)) + 1, np.int64)
    whole[parts.ravel()] = labels.ravel()
    return parts, whole[1:] - 1


def _four(found: np.ndarray, positive: int, total: int) -> np.ndarray:
    """Return tp, fp, fn, tn, int32 (R, 4), of true and of all predicted pixels (R, 2)."""
    tp, counted = found.T
    return np.stack([tp, counted - tp, positive - tp, total - counted - positive + tp], axis=1).astype(np.int32)
