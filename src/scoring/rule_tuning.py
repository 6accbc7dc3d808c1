"""The rule from probability to mask that scores best, chosen without the fold that it is scored on."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from data.dataspec import DataSpec
from formats import images
from metrics import objects, overlap
from prediction import postprocess
from prediction.postprocess import Rule
from scoring import out_of_fold, rule_sweep
from scoring.out_of_fold import OutOfFold
from scoring.score_rows import Scale
from tools import console, threads
from tools.files import write_text

FINE = tuple(round(0.02 * step, 2) for step in range(1, 50))  # thresholds that cost a look at a histogram each
COARSE = (0.1, 0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8, 0.9)  # those whose objects are looked at
FEW = (0.3, 0.4, 0.5, 0.6, 0.7)  # for measures that need each mask drawn
SHARES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)  # of an image's pixels: smallest objects, and the area of a top threshold
SPACINGS = (0.02, 0.05)  # of an image's side: the least distance between the centres of objects that are cut apart
COMPONENTS, WATERSHED = "components", "watershed"  # the ways from a mask to its objects


@dataclass(frozen=True)
class Table:
    """What each rule does to each image: counts int (N, S, R, 4) and the METRIC's values (N, S, R), rules simple first.

    The first rule is the one in use.
    """

    rules: tuple[Rule, ...]
    counts: np.ndarray
    values: np.ndarray


def candidates(rule: Rule, task: str, kind: str, pixels: int) -> tuple[Rule, ...]:
    """The rules that are tried, `rule` first, then from simple to elaborate, for images of some `pixels`.

    kind: the METRIC's. Of one of pixel counts histograms tell all; for others fewer rules are tried. Touching objects
    are cut apart for one of objects only.
    """
    by_counts = kind == "counts"
    areas = sorted({max(2, round(share * pixels)) for share in SHARES})
    if task == "multiclass":  # the likeliest class needs no threshold
        thresholds, coarse, fills = (), (rule.threshold,), (0,)
    else:
        thresholds, coarse, fills = (FINE, COARSE, (0, 1)) if by_counts else (FEW, FEW, (0, 1))
    found = [rule, *(Rule(threshold) for threshold in thresholds)]
    for fill in fills:
        found += [Rule(t, fill_holes=fill, keep_largest=n) for t in coarse for n in (0, 1)]
        found += [Rule(t, area, fill) for t in coarse for area in areas]
    if kind == "objects":
        spacings = sorted({max(2, round(share * math.sqrt(pixels))) for share in SPACINGS})
        smallest = (0, *areas)
        found += [Rule(t, a, fill, split=n) for n in spacings for fill in fills for t in coarse for a in smallest]
    if task != "multiclass" and by_counts:
        found += [
            Rule(t, top_threshold=top, top_area=area) for t in coarse for top in (*coarse, 0.95) if top >= t
            for area in areas
        ]  # fmt: skip
    return tuple(dict.fromkeys(found))


def table(found: OutOfFold, rule: Rule, scale: Scale, max_pixels: int) -> Table:
    """Try every candidate on every held-out image, in threads."""
    heights_widths = [images.read_size(found.root / image, 10**10) for image in found.table["image"].head(100)]
    pixels = int(np.median([height * width for height, width in heights_widths]))
    rules = candidates(rule, found.spec.task, scale.measure.kind, pixels)
    columns = list(zip(found.table["image"], found.table["mask"], found.table["kfold"], strict=True))

    def one(row: tuple[str, str, int]) -> tuple[np.ndarray, np.ndarray]:
        return _of_image(found, row, rules, scale, max_pixels)

    with threads.pool() as pool:
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
    planes = list(zip(_planes(p8, spec), truths, strict=True))
    if scale.measure.kind == "counts":
        counts = np.stack([rule_sweep.counts_by_rule(*plane, labelled, rules) for plane in planes])
        return counts, scale.measure.from_counts(*np.moveaxis(counts, -1, 0), empty=scale.empty)
    if scale.measure.kind == "objects":
        there = objects.read(spec, found.root, reference, p8.shape[1:], max_pixels, image)
        parts = [
            rule_sweep.objects_by_rule(*plane, true, labelled, rules, scale.measure, scale.empty)
            for plane, true in zip(planes, there, strict=True)
        ]
        counts, values = (np.stack(part) for part in zip(*parts, strict=True))
        return counts, values
    return _drawn(p8, spec, truths, labelled, rules, scale)


def _planes(p8: np.ndarray, spec: DataSpec) -> list[np.ndarray]:
    """For each scored class what a threshold cuts: its map, or 255 where it is the likeliest class (multiclass)."""
    if spec.task != "multiclass":
        return [p8[index] for index in spec.scored]
    best = p8.argmax(0)
    return [(best == index).astype(np.uint8) * 255 for index in spec.scored]


def _drawn(
    p8: np.ndarray, spec: DataSpec, truths: np.ndarray, labelled: Any, rules: tuple[Rule, ...], scale: Scale
) -> tuple[np.ndarray, np.ndarray]:
    """Counts and values of masks that are drawn by each rule in turn, for measures of shapes."""
    counts = np.zeros((len(truths), len(rules), 4), np.int32)
    values = np.zeros((len(truths), len(rules)))
    for at, rule in enumerate(rules):
        masks = postprocess.to_masks(p8, spec.task, spec.scored, (rule,) * len(truths))
        for index, (drawn, truth) in enumerate(zip(masks, truths, strict=True)):
            counts[index, at] = list(overlap.count(drawn, truth, labelled).values())
            values[index, at] = scale.value(scale.metric, drawn, truth, labelled, None)
    return counts, values


@dataclass(frozen=True)
class Choice:
    """What was chosen: numbers of `Table.rules`, one a scored class.

    crossfitted: for each fold, chosen on the others. overall: chosen on all. scores: (S, R), of each rule on all
    images. ways: for each way to objects, where there are several, what would be chosen for each fold in this way.
    """

    crossfitted: dict[int, list[int]]
    overall: list[int]
    scores: np.ndarray
    ways: dict[str, dict[int, list[int]]]


class _Chooser:
    """Chooses one class's rule, always on the folds that are not left out."""

    def __init__(self, tried: Table, index: int, folds: np.ndarray, scale: Scale, ways: dict[str, np.ndarray]) -> None:
        self.counts, self.values = (part[:, index : index + 1] for part in (tried.counts, tried.values))
        self.folds, self.scale, self.ways = folds, scale, ways
        self.names = sorted(set(folds.tolist()))
        lefts = [left for size in range(3) for left in combinations(self.names, size)]
        weights = np.stack([~np.isin(folds, left) for left in lefts]).astype(float)
        scores = np.stack([self._total(np.full(len(folds), at), weights) for at in range(len(tried.rules))])  # (R, B)
        self.scores = dict(zip(map(frozenset, lefts), scores.T, strict=True))

    def _total(self, chosen: np.ndarray, weights: np.ndarray) -> np.ndarray:
        image = np.arange(len(chosen))
        return self.scale.total(self.counts[image, :, chosen], self.values[image, :, chosen], weights)

    def _worth(self, score: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(score), -np.inf, score if self.scale.measure.higher else -score)

    def best(self, left: frozenset[int], way: str) -> int:
        """The rule of this way that is best without the folds `left`; of equally good ones the simplest."""
        numbers = self.ways[way]
        return int(numbers[self._worth(self.scores[left][numbers]).argmax()])

    def choose(self, left: frozenset[int]) -> int:
        """The best rule of the way that scores better, each fold being cut by what was best on the others."""
        rest = [fold for fold in self.names if fold not in left]
        if len(rest) > 1:
            worth = {way: self._worth(self._crossfitted(rest, left, way)) for way in self.ways}
        else:  # one fold alone cannot be cross-fitted
            worth = {way: self._worth(self.scores[left][self.best(left, way)]) for way in self.ways}
        return self.best(left, max(self.ways, key=lambda way: worth[way]))

    def _crossfitted(self, rest: list[int], left: frozenset[int], way: str) -> np.ndarray:
        best = {fold: self.best(left | {fold}, way) for fold in rest}
        chosen = np.array([best.get(fold, 0) for fold in self.folds.tolist()])
        return self._total(chosen, np.isin(self.folds, rest).astype(float)[None])[0]


def search(tried: Table, folds: np.ndarray, scale: Scale) -> Choice:
    """Choose each class's rule for each fold on the other folds, and one on all.

    Rules that cut touching objects apart stand against those that leave connected components, where the METRIC looks
    at objects: which way is taken is decided by cross-fitted scores, for a fold by those among the other folds alone.
    """
    split = np.array([bool(rule.split) for rule in tried.rules])
    ways = {COMPONENTS: np.flatnonzero(~split)}
    if scale.measure.kind == "objects":
        ways[WATERSHED] = np.flatnonzero(split)
    names = sorted(set(folds.tolist()))
    parts = [_Chooser(tried, index, folds, scale, ways) for index in range(tried.counts.shape[1])]
    return Choice(
        {fold: [part.choose(frozenset([fold])) for part in parts] for fold in names},
        [part.choose(frozenset()) for part in parts],
        np.stack([part.scores[frozenset()] for part in parts]),
        {way: {fold: [part.best(frozenset([fold]), way) for part in parts] for fold in names} for way in ways}
        if len(ways) > 1
        else {},
    )


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


CROSSFITTED = "tuned_scores.csv"  # rows of the cross-fitted masks


def by_fold(chosen: dict[int, list[int]], folds: np.ndarray) -> np.ndarray:
    """Numbers of rules (N, S) of images that lie in these folds."""
    return np.array([chosen[fold] for fold in folds.tolist()])


def scores_json(tried: Table, numbers: list[int]) -> list[dict[str, Any]]:
    return [tried.rules[number].as_json() for number in numbers]


def write_tuned_scores(folder: Path, found: out_of_fold.OutOfFold, counts: np.ndarray, values: np.ndarray) -> None:
    """The cross-fitted rows, for make compare TUNED=1."""
    import pandas as pd

    names = found.spec.scored_names
    rows = found.table.loc[found.table.index.repeat(len(names)), ["image", "kfold", "group"]].reset_index(drop=True)
    rows.insert(1, "class", list(names) * len(found.table))
    flat = pd.DataFrame(counts.reshape(-1, 4), columns=["tp", "fp", "fn", "tn"])
    whole = pd.concat([rows, flat, pd.Series(values.reshape(-1), name="score")], axis=1)
    write_text(folder / CROSSFITTED, whole.to_csv(index=False, lineterminator="\n"))
