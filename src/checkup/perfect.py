"""The mask that a perfect network would give at IMAGE_SIZE, against the truth: counts, METRIC, objects that vanish.

As score_rows.redrawn but for ties, which fall as bytes round: a small part of its time, as only the surroundings of
the foreground are enlarged. Where classes exclude each other it is redrawn itself.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from data.dataspec import DataSpec
from formats.resize import content_box, coverage_to_network
from scoring import score_rows
from scoring.score_rows import Scale


@dataclass(frozen=True)
class ClassCeiling:
    """How the best possible mask of one class does: tp, fp, fn, tn; METRIC; its objects, and those that vanish."""

    counts: list[int]
    value: float
    objects: int
    vanished: int


@dataclass(frozen=True)
class Frame:
    """What the network sees of an image: IMAGE_SIZE and RESIZE."""

    size: tuple[int, int]
    resize: str


def against(
    mask: np.ndarray, spec: DataSpec, there: np.ndarray | None, frame: Frame, scale: Scale
) -> Iterator[ClassCeiling]:
    """Score each class of a mask (K, H, W) against itself; `there`: its objects' labels int32 (S, H, W), or None.

    Without labels, the objects are the connected components.
    """
    if spec.task == "multiclass":
        labeled, drawn = spec.labeled(mask), score_rows.redrawn(mask, spec, frame.size, frame.resize)
        pixels = mask[0].size if labeled is None else int(np.count_nonzero(labeled))
        for number, (truth, own) in enumerate(zip(spec.class_planes(mask), drawn, strict=True)):
            kept = own if labeled is None else own & labeled  # what is not labeled is no class's
            labels = None if there is None else there[number]
            counts, present, gone = _counted(truth, kept, labels, pixels)
            yield ClassCeiling(counts, _value(scale, counts, own, truth, labeled, labels), present, gone)
        return
    for number, index in enumerate(spec.scored):
        yield _of_plane(mask[index], None if there is None else there[number], frame, scale)


def _of_plane(plane: np.ndarray, labels: np.ndarray | None, frame: Frame, scale: Scale) -> ClassCeiling:
    """Score one plane of 0 and 1 (H, W) against itself."""
    box, drawn = _drawn(plane, frame)
    truth = plane.view(bool)
    counts, present, gone = _counted(truth[box], drawn, None if labels is None else labels[box], plane.size)
    if scale.measure.kind == "counts":
        return ClassCeiling(counts, _value(scale, counts, drawn, truth, None, labels), present, gone)
    whole = np.zeros(plane.shape, bool)
    whole[box] = drawn
    return ClassCeiling(counts, _value(scale, counts, whole, truth, None, labels), present, gone)


def _value(
    scale: Scale,
    counts: list[int],
    drawn: np.ndarray,
    truth: np.ndarray,
    labeled: np.ndarray | None,
    labels: np.ndarray | None,
) -> float:
    """Measure the METRIC, from counts where these tell it."""
    if scale.measure.kind == "counts":
        tp, fp, fn, tn = counts
        return float(scale.measure.from_counts(tp, fp, fn, tn, empty=scale.empty))
    return scale.value(scale.metric, drawn, truth, labeled, labels)


def _counted(
    truth: np.ndarray, drawn: np.ndarray, labels: np.ndarray | None, pixels: int
) -> tuple[list[int], int, int]:
    """Count tp, fp, fn, tn of two bool (h, w), outside of which nothing is; the objects, and those that vanish."""
    hits = truth & drawn
    tp, predicted, true = (int(np.count_nonzero(part)) for part in (hits, drawn, truth))
    return [tp, predicted - tp, true - tp, pixels - predicted - true + tp], *_vanished(truth, hits, labels)


def _drawn(plane: np.ndarray, frame: Frame) -> tuple[tuple[slice, slice], np.ndarray]:
    """Find where anything is drawn for a plane of 0 and 1 (H, W), and what, bool (h, w)."""
    shape = plane.shape
    above, beside, *size = content_box(shape, frame.size, frame.resize)
    left, top, width, height = cv2.boundingRect(plane)
    around = np.s_[top : top + height, left : left + width]
    if not width or tuple(size) == shape:
        return around, plane[around].view(bool)
    small = coverage_to_network(plane, frame.size, frame.resize)
    small = small[above : above + size[0], beside : beside + size[1]]
    rows, small_rows = _span(top, top + height, shape[0], size[0])
    columns, small_columns = _span(left, left + width, shape[1], size[1])
    part = rows.stop - rows.start, columns.stop - columns.start
    enlarged = cv2.resize(small[small_rows, small_columns], part[::-1], interpolation=cv2.INTER_LINEAR)
    cv2.threshold(enlarged, 127, 1, cv2.THRESH_BINARY, dst=enlarged)
    return (rows, columns), enlarged.view(bool)


def _span(first: int, stop: int, full: int, few: int) -> tuple[slice, slice]:
    """Widen first to stop of `full` pixels by one of `few` cells or more: as pixels and as cells, both whole."""
    parts = math.gcd(full, few)
    pixels, cells = full // parts, few // parts
    low, high = max(0, first // pixels - 1), min(parts, -(-stop // pixels) + 1)
    return slice(low * pixels, high * pixels), slice(low * cells, high * cells)


def _vanished(truth: np.ndarray, hits: np.ndarray, labels: np.ndarray | None) -> tuple[int, int]:
    """Count how many objects there are (labels, or connected components), and how many have no pixel of `hits`."""
    if labels is not None:
        own = labels * truth  # an object may be hidden by others
        present, seen = (
            np.bincount(part.ravel(), minlength=int(labels.max(initial=0)) + 1) > 0 for part in (own, own * hits)
        )
        present[0] = False
        return int(present.sum()), int((present & ~seen).sum())
    # outer outlines of components of 8 neighbors: with few of them, a fraction of the time of labels
    outlines, tree = cv2.findContours(truth.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if not outlines:
        return 0, 0
    outer = [line[:, 0] for line, parent in zip(outlines, tree[0, :, 3], strict=True) if parent < 0]
    unsure = [line for line in outer if not hits[line[:, 1], line[:, 0]].any()]
    if not unsure:
        return len(outer), 0
    count, found = cv2.connectedComponents(truth.view(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    seen = np.bincount(found[hits], minlength=count) > 0
    return count - 1, int((~seen[1:]).sum())
