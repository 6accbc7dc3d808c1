"""Score rows -> a summary with intervals."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from metrics import bootstrap, measures, overlap
from scoring import score_rows
from scoring.score_rows import Scale

if TYPE_CHECKING:
    import pandas as pd

DRAWS = 2000  # of the bootstrap
Interval = tuple[float, float]


def counts_of(scores: "pd.DataFrame", classes: int, prefix: str = "") -> np.ndarray:
    """Return tp, fp, fn, tn (N, S, 4) of score rows, those of an image together."""
    columns = [f"{prefix}{key}" for key in overlap.COUNTS]
    return scores[columns].to_numpy(np.int64).reshape(-1, classes, len(columns))


def values_of(scores: "pd.DataFrame", classes: int, column: str = "score") -> np.ndarray:
    """Return a measure's values (N, S) of score rows; NaN where the policy skips the image."""
    return scores[column].to_numpy(float).reshape(-1, classes)


def summarize(scores: "pd.DataFrame", classes: tuple[str, ...], scale: Scale) -> dict[str, Any]:
    """Return the mean over images and pooled over pixels, of the model, the constant mask and the size's ceiling.

    `scores` has the rows of an image together, one for each of `classes` in their order; with several the figures are
    means over the classes, and "classes" holds the model's for each. Intervals are 95% bootstrap intervals over
    groups: how the figure would vary with other cars or patients, these trained networks given.
    """
    counts = {kind: counts_of(scores, len(classes), prefix) for kind, prefix in score_rows.KINDS.items()}
    values = {kind: values_of(scores, len(classes), f"{prefix}score") for kind, prefix in score_rows.KINDS.items()}
    tp, fp, fn, _ = np.moveaxis(counts["model"], -1, 0)
    truth_empty, groups = tp + fn == 0, scores["group"].to_numpy()[:: len(classes)]
    weights = bootstrap.group_weights(groups, DRAWS)
    parts = {name: counts["model"][:, [index]] for index, name in enumerate(classes)}
    return {
        "images": len(tp),
        "groups": len(set(groups)),
        "empty_masks": int(truth_empty.sum()),
        "empty_and_predicted_empty": int((truth_empty & (fp == 0)).sum()),
        "empty_policy": scale.empty,
        "metric": scale.metric,
        "higher_is_better": scale.measure.higher,
        "score": metric(counts, values, classes, weights, groups, scale),
        "measures": {
            name: _of_column(scores, name, counts["model"], classes, weights, groups, scale) for name in scale.also
        },
        **{kind: _of_counts(part, scale.empty) for kind, part in counts.items()},
        "intervals": _intervals(counts["model"], weights, groups, scale.empty),
        "classes": {
            name: {
                **_of_counts(part, scale.empty),
                "intervals": _intervals(part, weights, groups, scale.empty),
            }
            for name, part in parts.items()
        },
    }


def _of_counts(counts: np.ndarray, empty: str) -> dict[str, dict[str, float]]:
    tp, fp, fn, _ = np.moveaxis(counts, -1, 0)
    return overlap.summarize(tp, fp, fn, empty)


def score(scores: "pd.DataFrame", classes: tuple[str, ...], scale: Scale) -> float:
    """Return the METRIC over score rows, those of an image together; NaN where the policy leaves nothing."""
    counts, values = counts_of(scores, len(classes)), values_of(scores, len(classes))
    return float(scale.total(counts, values, np.ones((1, len(counts))))[0])


def interval(
    measure: measures.Measure,
    counts: np.ndarray,
    values: np.ndarray,
    weights: np.ndarray,
    groups: np.ndarray,
    empty: str,
) -> tuple[float, float, float]:
    """Return a measure over images with its 95% bootstrap interval: (score, low, high); NaN without an interval."""

    def total(counts: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return measures.total(measure, counts, values, weights, empty)

    return bootstrap.score_interval(total, counts, values, groups, weights=weights)


def metric(
    counts: dict[str, np.ndarray],
    values: dict[str, np.ndarray],
    classes: tuple[str, ...],
    weights: np.ndarray,
    groups: np.ndarray,
    scale: Scale,
) -> dict[str, Any]:
    """Return METRIC of the model with its interval, also class by class, and of the other kinds.

    counts, values: of each kind. "unpredicted" and "absent" name the classes without a predicted and a true pixel,
    "constant_empty" those whose constant mask is the empty one (for every image).
    """
    ones, all_counts = np.ones((1, len(weights[0]))), {kind: part.sum(0) for kind, part in counts.items()}
    score, low, high = interval(scale.measure, counts["model"], values["model"], weights, groups, scale.empty)
    other = {kind: float(scale.total(counts[kind], values[kind], ones)[0]) for kind in counts if kind != "model"}
    each, constants = {}, {}
    for at, name in enumerate(classes):
        its = {kind: (counts[kind][:, [at]], values[kind][:, [at]]) for kind in ("model", "constant")}
        each[name] = interval(scale.measure, *its["model"], weights, groups, scale.empty)
        constants[name] = float(scale.total(*its["constant"], ones)[0])
    tp, fp, fn, _ = all_counts["model"].T
    nothing = {"unpredicted": tp + fp, "absent": tp + fn, "constant_empty": all_counts["constant"][:, :2].sum(1)}
    return {
        "model": score,
        "low": low,
        "high": high,
        **other,
        "classes": each,
        "constant_classes": constants,
        **{key: [name for name, n in zip(classes, pixels, strict=True) if n == 0] for key, pixels in nothing.items()},
    }


def _of_column(
    scores: "pd.DataFrame",
    name: str,
    counts: np.ndarray,
    classes: tuple[str, ...],
    weights: np.ndarray,
    groups: np.ndarray,
    scale: Scale,
) -> dict[str, float]:
    values = values_of(scores, len(classes), name)
    estimate = interval(measures.get(name), counts, values, weights, groups, scale.empty)
    return dict(zip(("model", "low", "high"), estimate, strict=True))


def _intervals(
    counts: np.ndarray, weights: np.ndarray, groups: np.ndarray, empty: str
) -> dict[str, dict[str, Interval]]:
    """Return the intervals of Dice, IoU, precision and recall, as means over images and pooled."""
    tp, fp, fn, _ = np.moveaxis(counts, -1, 0)
    each = overlap.scores(tp, fp, fn, empty)
    kinds: dict[str, dict[str, Interval]] = {"image": {}, "pooled": {}}
    for name in overlap.SCORES:
        for kind, parts in kinds.items():
            measure = replace(measures.get(name), pooled=kind == "pooled")
            parts[name] = interval(measure, counts, each[name], weights, groups, empty)[1:]
    return kinds
