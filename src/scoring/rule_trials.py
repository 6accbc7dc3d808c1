"""Many rules from probability to mask, each tried on every held-out image."""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from data.dataspec import DataSpec
from formats import images
from metrics import objects, overlap
from prediction import postprocess
from prediction.postprocess import Rule
from scoring import rule_sweep
from scoring.out_of_fold import OutOfFold
from scoring.score_rows import Scale
from tools import console, threads

FINE = tuple(round(0.02 * step, 2) for step in range(1, 50))  # thresholds that cost a look at a histogram each
COARSE = (0.1, 0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8, 0.9)  # those whose objects are looked at
FEW = (0.3, 0.4, 0.5, 0.6, 0.7)  # for measures that need each mask drawn
SHARES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)  # of an image's pixels: smallest objects, and the area of a top threshold
SPACINGS = (0.02, 0.05)  # of an image's side: the least distance between the centers of objects that are cut apart
Row = TypeVar("Row")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Trials:
    """What each rule does to each image: counts int (N, S, R, 4) and the METRIC's values (N, S, R), rules simple first.

    The first rule is the one in use.
    """

    rules: tuple[Rule, ...]
    counts: np.ndarray
    values: np.ndarray


def candidates(rule: Rule, task: str, kind: str, pixels: int) -> tuple[Rule, ...]:
    """Return the rules that are tried, `rule` first, then from simple to elaborate, for images of some `pixels`.

    kind: the METRIC's. Of one of pixel counts histograms tell all; for others fewer rules are tried. Touching objects
    are cut apart for one of objects only.
    """
    by_counts = kind == "counts"
    areas = sorted({max(2, round(share * pixels)) for share in SHARES})
    thresholds: tuple[float, ...] = FINE if by_counts else FEW
    coarse: tuple[float, ...] = COARSE if by_counts else FEW
    fills: tuple[int, ...] = (0, 1)
    if task == "multiclass":  # the likeliest class needs no threshold
        thresholds, coarse, fills = (), (rule.threshold,), (0,)
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


def run(found: OutOfFold, rule: Rule, scale: Scale, max_pixels: int) -> Trials:
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
    return Trials(rules, counts, values)


def _in_order(pool: ThreadPoolExecutor, job: Callable[[Row], Result], rows: Sequence[Row]) -> Iterator[Result]:
    """Yield as pool.map does, but an error ends it at once instead of after all other rows."""
    try:
        yield from pool.map(job, rows)
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise


def _of_image(
    found: OutOfFold, row: tuple[str, str, int], rules: tuple[Rule, ...], scale: Scale, max_pixels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return counts (S, R, 4) and values (S, R) of one image."""
    (image, reference, fold), spec = row, found.spec
    p8 = found.maps(image, fold)
    mask = spec.read_mask(found.root, reference, p8.shape[1:], max_pixels, image)
    truths, labeled = spec.class_planes(mask), spec.labeled(mask)
    planes = list(zip(_planes(p8, spec), truths, strict=True))
    if scale.measure.kind == "counts":
        counts = np.stack([rule_sweep.counts_by_rule(*plane, labeled, rules) for plane in planes])
        return counts, scale.measure.from_counts(*np.moveaxis(counts, -1, 0), empty=scale.empty)
    if scale.measure.kind == "objects":
        there = objects.read(spec, found.root, reference, p8.shape[1:], max_pixels, image)
        parts = [
            rule_sweep.objects_by_rule(*plane, true, labeled, rules, scale.measure, scale.empty)
            for plane, true in zip(planes, there, strict=True)
        ]
        counts, values = (np.stack(part) for part in zip(*parts, strict=True))
        return counts, values
    return _drawn(p8, spec, truths, labeled, rules, scale)


def _planes(p8: np.ndarray, spec: DataSpec) -> list[np.ndarray]:
    """Return what a threshold cuts of each scored class: its map, or 255 where it is the likeliest (multiclass)."""
    if spec.task != "multiclass":
        return [p8[index] for index in spec.scored]
    best = p8.argmax(0)
    return [(best == index).astype(np.uint8) * 255 for index in spec.scored]


def _drawn(
    p8: np.ndarray,
    spec: DataSpec,
    truths: np.ndarray,
    labeled: np.ndarray | None,
    rules: tuple[Rule, ...],
    scale: Scale,
) -> tuple[np.ndarray, np.ndarray]:
    """Count and measure masks that are drawn by each rule in turn, for measures of shapes."""
    counts = np.zeros((len(truths), len(rules), 4), np.int32)
    values = np.zeros((len(truths), len(rules)))
    for at, rule in enumerate(rules):
        masks = postprocess.to_masks(p8, spec.task, spec.scored, (rule,) * len(truths))
        for index, (drawn, truth) in enumerate(zip(masks, truths, strict=True)):
            counts[index, at] = list(overlap.count(drawn, truth, labeled).values())
            values[index, at] = scale.value(scale.metric, drawn, truth, labeled, None)
    return counts, values
