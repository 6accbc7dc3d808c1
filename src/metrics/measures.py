"""A name -> a measure of masks: what is reported, and what METRIC decides by. docs/scores.md has them in a table.

A measure gives each image and class a value, or one ratio of all images' counts together (pooled); `total` makes one
number of many images, and of each of thousands of bootstrap resamples of them at once.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from metrics import objects, overlap, surface_distances
from metrics.overlap import Numbers
from tools.errors import UserError, nearest


@dataclass(frozen=True)
class Measure:
    """One way to score masks. `name` is what `get` understands, with an argument where it is not the default."""

    name: str
    about: str
    kind: str  # counts: of tp, fp, fn, tn alone; mask: of two masks; objects: of labels
    higher: bool = True  # whether more is better; less is for distances
    pooled: bool = False  # one ratio of all images' pixels, else the mean over images
    unit: str = ""  # "" or px
    _of: Callable[..., Any] = field(repr=False, kw_only=True)
    _policy: str = ""  # what a competition says of empty masks, whatever EMPTY does

    def value(
        self,
        prediction: np.ndarray,
        truth: np.ndarray,
        *,
        labeled: np.ndarray | None = None,
        truth_objects: np.ndarray | None = None,
        empty: str = "one",
    ) -> float:
        """Return the value of one image and class, NaN where the policy `empty` skips it; a pooled measure has none.

        Masks (H, W), any non-zero pixel being foreground. labeled: bool (H, W), the pixels that count, None: all.
        truth_objects: labels (H, W) as of `objects.read`; None: the connected components of `truth`.
        """
        if self.pooled:
            raise ValueError(f"{self.name} is one ratio of all images; an image has no value of its own.")
        if self.kind == "counts":
            return float(self.from_counts(**overlap.count(prediction, truth, labeled), empty=empty))
        policy = self._policy or empty
        if self.kind == "mask":
            return float(self._of(prediction, truth, labeled, policy))
        if labeled is not None:
            prediction, truth = prediction * labeled, truth * labeled
            truth_objects = None if truth_objects is None else truth_objects * labeled
        true = objects.components(truth) if truth_objects is None else truth_objects
        return self.from_overlap(objects.match(objects.components(prediction), true), policy)

    def from_overlap(self, overlap: np.ndarray, empty: str = "one") -> float:
        """Return the same from the IoU (P, T) of objects, as of `objects.match`, for the kind "objects" alone."""
        if self.kind != "objects":
            raise ValueError(f"{self.name} does not look at objects.")
        return float(self._of(overlap, self._policy or empty))

    def from_counts(self, tp: Numbers, fp: Numbers, fn: Numbers, tn: Numbers, *, empty: str = "one") -> np.ndarray:
        """Return the same from counts, elementwise, for the kind "counts"; of a pooled measure from sums of counts."""
        if self.kind != "counts":
            raise ValueError(f"{self.name} needs masks; counts do not tell it.")
        return self._of(tp, fp, fn, tn, self._policy or empty)


def by_class(
    measure: Measure, counts: np.ndarray, values: np.ndarray, weights: np.ndarray, empty: str = "one"
) -> np.ndarray:
    """Return the score of each class, all images together, for each of B weightings of them, float64 (B, S).

    counts: (N, S, 4) of tp, fp, fn, tn, which pooled measures read; values: (N, S) as of `value`, NaN where an image is
    skipped, which the others do; weights: (B, N), how often each image counts. It is the weighted mean over images, or
    the ratio of weighted sums; NaN where nothing is left of a class.
    """
    if measure.pooled:
        sums = weights @ counts.reshape(len(counts), -1).astype(np.float64)  # (B, S * 4)
        return measure.from_counts(*np.moveaxis(sums.reshape(len(weights), -1, 4), 2, 0), empty=empty)
    kept = np.isfinite(values)
    sums = weights @ np.where(kept, values, 0.0)  # (B, S)
    left = weights @ kept.astype(np.float64)
    return np.divide(sums, left, out=np.full_like(sums, np.nan), where=left > 0)


def total(
    measure: Measure, counts: np.ndarray, values: np.ndarray, weights: np.ndarray, empty: str = "one"
) -> np.ndarray:
    """Return the mean of `by_class` over the classes in which something is left, float64 (B,); NaN without any."""
    classes = by_class(measure, counts, values, weights, empty)
    there = np.isfinite(classes)
    number = there.sum(1)
    added = np.where(there, classes, 0.0).sum(1)
    return np.divide(added, number, out=np.full(len(weights), np.nan), where=number > 0)


def _score(name: str, tp: Numbers, fp: Numbers, fn: Numbers, tn: Numbers, empty: str) -> np.ndarray:
    return overlap.scores(tp, fp, fn, empty, tn=tn)[name]


_SCORES = {name: functools.partial(_score, name) for name in (*overlap.SCORES, *overlap.TN_SCORES)}


def _half_f(tp: Numbers, fp: Numbers, fn: Numbers, _tn: Numbers, empty: str) -> np.ndarray:
    return overlap.f_score(tp, fp, fn, 0.5, empty)


def _thresholds_passed(tp: Numbers, fp: Numbers, fn: Numbers, tn: Numbers, empty: str) -> np.ndarray:
    """Return the share of IoU thresholds 0.5, 0.55, ... 0.95 that the IoU is above."""
    return (_SCORES["iou"](tp, fp, fn, tn, empty)[..., None] > objects.THRESHOLDS).mean(-1)


def _uwmgi(prediction: np.ndarray, truth: np.ndarray, labeled: np.ndarray | None, empty: str) -> float:
    counts = overlap.count(prediction, truth, labeled)
    dice = float(overlap.f_score(counts["tp"], counts["fp"], counts["fn"], 1, empty))
    apart = surface_distances.region_hausdorff(prediction, truth, labeled) / math.hypot(*truth.shape)
    return 0.4 * dice + 0.6 * (1 - apart)  # NaN where Dice is


_MEASURES = {
    measure.name: measure
    for measure in (
        Measure("dice", "Dice, mean over images", "counts", _of=_SCORES["dice"]),
        Measure("iou", "intersection over union, mean over images", "counts", _of=_SCORES["iou"]),
        Measure("precision", "share of predicted pixels that are true", "counts", _of=_SCORES["precision"]),
        Measure("recall", "share of true pixels that are predicted", "counts", _of=_SCORES["recall"]),
        Measure("specificity", "share of background that is left alone", "counts", _of=_SCORES["specificity"]),
        Measure("accuracy", "share of pixels that are right", "counts", _of=_SCORES["accuracy"]),
        Measure("pooled_dice", "Dice of all images' pixels together", "counts", pooled=True, _of=_SCORES["dice"]),
        Measure("pooled_iou", "IoU of all images' pixels together", "counts", pooled=True, _of=_SCORES["iou"]),
        Measure("boundary_iou", "IoU of the masks' rims", "mask", _of=surface_distances.boundary_iou),
        Measure("surface_dice", "share of the outlines within a tolerance", "mask", _of=surface_distances.surface_dice),
        Measure(
            "hausdorff", "largest surface distance", "mask", higher=False, unit="px", _of=surface_distances.hausdorff
        ),
        Measure(
            "hd95", "95th percentile of surface distances", "mask", higher=False, unit="px", _of=surface_distances.hd95
        ),
        Measure(
            "assd", "average symmetric surface distance", "mask", higher=False, unit="px", _of=surface_distances.assd
        ),
        Measure("carvana", "Carvana 2017: mean Dice", "counts", _of=_SCORES["dice"], _policy="one"),
        Measure("siim", "SIIM-ACR 2019: mean Dice", "counts", _of=_SCORES["dice"], _policy="one"),
        Measure("hubmap", "HuBMAP 2021: mean Dice", "counts", _of=_SCORES["dice"], _policy="one"),
        Measure("dsb2018", "Data Science Bowl 2018: mean AP of objects", "objects", _of=objects.average_precision),
        Measure("tgs", "TGS 2018: share of IoU thresholds passed", "counts", _of=_thresholds_passed, _policy="one"),
        Measure("airbus", "Airbus 2018: mean F2 of objects", "objects", _of=objects.mean_f2, _policy="one"),
        Measure("contrails", "Contrails 2023: global Dice", "counts", pooled=True, _of=_SCORES["dice"]),
        Measure("uwmgi", "UWMGI 2022, slice by slice: 0.4 Dice + 0.6 Hausdorff", "mask", _of=_uwmgi, _policy="skip"),
        Measure("vesuvius", "Vesuvius 2023: F0.5 of all pixels together", "counts", pooled=True, _of=_half_f),
    )
}
# of a measure that takes one: the argument, its default (as in `surface_distances`), its lowest and highest value
_ARGUMENTS = {"boundary_iou": ("dilation", 0.02, 0.001, 0.5), "surface_dice": ("tolerance", 2.0, 0.0, 1000.0)}
NAMES = tuple(_MEASURES)


def get(text: str) -> Measure:
    """Return the measure that `text` names: "dice", "surface_dice(tolerance=2)".

    Raises UserError for an unknown name, an argument that it does not take, a value out of range.
    """
    parts = re.fullmatch(r"\s*([^\s()]*)\s*(?:\((.*)\))?\s*", text)
    name, written = parts.groups() if parts else (text, None)
    if name not in _MEASURES:
        raise UserError(f"METRIC: there is no measure '{name}'.{nearest(name, NAMES)} There are: {', '.join(NAMES)}.")
    return _with_argument(_MEASURES[name], written) if written else _MEASURES[name]


def _with_argument(measure: Measure, written: str) -> Measure:
    """Return `measure` with the argument "tolerance=2"."""
    if measure.name not in _ARGUMENTS:
        raise UserError(f"METRIC: {measure.name} takes no argument, got '{written}'.")
    name, default, low, high = _ARGUMENTS[measure.name]
    usage = f"expected {measure.name}({name}=v) with a number v from {low:g} to {high:g}; {default:g} is the default"
    key, _, number = (part.strip() for part in written.partition("="))
    if key != name:
        raise UserError(f"METRIC: {measure.name} got '{written}'; {usage}.{nearest(key, [name])}")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise UserError(f"METRIC: {measure.name} got {name}={number}; {usage}.")
    if value == default:
        return measure
    changed = functools.partial(measure._of, **{name: value})
    return dataclasses.replace(measure, name=f"{measure.name}({name}={value:.15g})", _of=changed)
