"""Held-out masks against predicted ones: rows of counts and of the METRIC's values.

Beside the model stand the constant mask, which ignores the image (see `blind_baseline`), and the ceiling of the
network's size.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.dataspec import DataSpec
from formats import images
from formats.resize import coverage_to_network, from_network
from metrics import measures, objects, overlap
from prediction import postprocess
from tools import console
from tools.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

KINDS = {"model": "", "constant": "constant_", "ceiling": "ceiling_"}  # summary's name -> prefix of the columns
COLUMNS = (
    *("image", "class", "kfold", "group", *overlap.COUNTS, *overlap.SCORES),
    *(f"{kind}_{key}" for kind in ("constant", "ceiling") for key in overlap.COUNTS),
    *(f"{prefix}score" for prefix in KINDS.values()),
)  # of scores.csv; a column for each of MEASURES follows


@dataclass(frozen=True)
class Pairs:
    """Images with their masks: rows of a folds table, the folder that their paths start from, what pixels mean."""

    table: "pd.DataFrame"
    root: Path
    spec: DataSpec
    max_pixels: int  # an image whose header promises more is refused

    def of(self, table: "pd.DataFrame") -> "Pairs":
        """Return the same for other rows."""
        return replace(self, table=table)


@dataclass(frozen=True)
class Scale:
    """What is measured: the METRIC, by which everything is decided, more measures by name, and the empty masks' policy.

    An image's `score` is the METRIC's value; of a metric that counts all images' pixels together, that of this image
    by itself, which is for sorting only.
    """

    metric: str
    also: tuple[str, ...]
    empty: str

    @property
    def measure(self) -> measures.Measure:
        return measures.get(self.metric)

    @property
    def has_objects(self) -> bool:
        return any(measures.get(name).kind == "objects" for name in (self.metric, *self.also))

    def value(
        self,
        name: str,
        prediction: np.ndarray,
        truth: np.ndarray,
        labeled: np.ndarray | None,
        truth_objects: np.ndarray | None,
    ) -> float:
        """Return the measure `name` of one image and class.

        Masks 0/1 (H, W); labeled: bool (H, W), the pixels that count, None: all; the truth's objects int32 (H, W).
        """
        measure = measures.get(name)
        if measure.pooled:
            return float(measure.from_counts(**overlap.count(prediction, truth, labeled), empty=self.empty))
        return measure.value(prediction, truth, labeled=labeled, truth_objects=truth_objects, empty=self.empty)

    def total(self, counts: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the METRIC over images for each row of their weights: (N, S, 4), (N, S), (B, N) -> (B,)."""
        return measures.total(self.measure, counts, values, weights, self.empty)


def scale(metric: str, also: str, empty: str) -> Scale:
    """Return the Scale of METRIC, MEASURES (a list with commas) and EMPTY. Raises UserError for a wrong name."""
    names = tuple(part.strip() for part in re.split(r",(?![^(]*\))", also) if part.strip())
    for name in (metric, *names):
        measures.get(name)
    return Scale(metric, names, empty)


def rows(
    pairs: Pairs,
    read_maps: Callable[[str], np.ndarray],
    constant: np.ndarray,
    *,
    size: tuple[int, int],
    resize: str,
    rules: tuple[postprocess.Rule, ...],
    scale: Scale,
) -> Iterator[dict[str, Any]]:
    """Yield a dict for each image and scored class: counts and scores of its prediction and of both references.

    `read_maps` gives an image's probability maps, uint8 (C, H, W); size, resize: the network's frame. Raises UserError
    where a map has not the mask's size: a score at the network's size would not be the original's.
    """
    table, root, spec = pairs.table, pairs.root, pairs.spec
    columns = zip(table["image"], table["mask"], table["group"], table["kfold"], strict=True)
    for image, reference, group, fold in console.track(columns, len(table), "scoring"):
        p8 = read_maps(image)
        shape = images.read_size(root / image, pairs.max_pixels)
        _refuse_other_size(image, p8.shape[1:], shape)
        mask = spec.read_mask(root, reference, shape, pairs.max_pixels, image)
        truths, labeled = spec.class_planes(mask), spec.labeled(mask)
        truth_objects: Sequence[np.ndarray | None] = [None] * len(truths)
        if scale.has_objects:
            truth_objects = list(objects.read(spec, root, reference, shape, pairs.max_pixels, image))
        predicted = postprocess.to_masks(p8, spec.task, spec.scored, rules)
        best = redrawn(mask, spec, size, resize)
        for index, name in enumerate(spec.scored_names):
            alone = stretched(constant[index], shape)
            masks = {"": predicted[index], "constant_": alone, "ceiling_": best[index]}
            yield {
                "image": image,
                "class": name,
                "kfold": fold,
                "group": group,
                **_figures(masks, truths[index], labeled, truth_objects[index], scale),
            }


def _figures(
    masks: dict[str, np.ndarray],
    truth: np.ndarray,
    labeled: np.ndarray | None,
    truth_objects: np.ndarray | None,
    scale: Scale,
) -> dict[str, Any]:
    """Return the columns of one image and class; masks: by the columns' prefix, "" for the model's."""
    counts = {prefix: overlap.count(drawn, truth, labeled) for prefix, drawn in masks.items()}
    values = overlap.scores(counts[""]["tp"], counts[""]["fp"], counts[""]["fn"], scale.empty)

    def value(name: str, prefix: str) -> float:
        return scale.value(name, masks[prefix], truth, labeled, truth_objects)

    return {
        **counts[""],
        **{key: round(float(values[key]), 6) for key in overlap.SCORES},
        **{f"{prefix}{key}": counts[prefix][key] for prefix in masks if prefix for key in overlap.COUNTS},
        **{f"{prefix}score": value(scale.metric, prefix) for prefix in masks},
        **{other: value(other, "") for other in scale.also},
    }


def _refuse_other_size(image: str, have: tuple[int, ...], want: tuple[int, int]) -> None:
    if tuple(have) != tuple(want):
        raise UserError(
            f"The probability map of {image} has {have[1]} x {have[0]} pixels, and the image {want[1]} x {want[0]}: a "
            "score at another size is not the original's. Predict again: make tester FOLD=k"
        )


def stretched(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Enlarge a small 0/1 mask to `shape`, bool (H, W)."""
    return from_network(mask.astype(np.float32), shape, mask.shape, "stretch") >= 0.5


def redrawn(mask: np.ndarray, spec: DataSpec, size: tuple[int, int], resize: str) -> np.ndarray:
    """Draw the truth (K, H, W) again as a perfect network would give it, bool (S, H, W).

    Each small pixel's share of each class, enlarged; then the largest class, or each class cut at one half.
    """
    shape = mask.shape[1:]
    indices = range(len(spec.classes)) if spec.task == "multiclass" else spec.scored
    enlarged = []
    for index in indices:
        plane = (mask[0] == index) if spec.task == "multiclass" else mask[index] > 0
        small = coverage_to_network(plane.astype(np.uint8), size, resize).astype(np.float32)
        enlarged.append(from_network(small, shape, size, resize))
    if spec.task != "multiclass":
        return np.stack(enlarged) >= 127.5
    return np.argmax(enlarged, axis=0) == np.array(spec.scored)[:, None, None]
