"""Scores of binary masks: count first, divide last.

A score is a ratio of the four counts; what an image without any foreground is worth is a policy, always said beside the
number.
"""

from collections.abc import Sequence

import numpy as np

Numbers = float | np.ndarray  # a number, or an array of them
COUNTS = ("tp", "fp", "fn", "tn")
SCORES = ("dice", "iou", "precision", "recall")
TN_SCORES = ("specificity", "accuracy")  # those that count true negatives too
POLICIES = {"one": 1.0, "zero": 0.0, "skip": float("nan")}


def count(prediction: np.ndarray, truth: np.ndarray, labeled: np.ndarray | None = None) -> dict[str, int]:
    """Count true and false positives and negatives of two masks (H, W), any non-zero pixel being foreground.

    labeled: bool (H, W), the pixels that count; None: all.
    """
    prediction, truth = prediction != 0, truth != 0
    if labeled is not None:
        prediction, truth = prediction[labeled], truth[labeled]
    tp = int(np.count_nonzero(prediction & truth))
    fp = int(np.count_nonzero(prediction)) - tp
    fn = int(np.count_nonzero(truth)) - tp
    return {"tp": tp, "fp": fp, "fn": fn, "tn": prediction.size - tp - fp - fn}


def scores(
    tp: Numbers, fp: Numbers, fn: Numbers, empty: str = "one", *, tn: Numbers | None = None
) -> dict[str, np.ndarray]:
    """Return Dice, IoU, precision and recall in [0, 1], elementwise; with `tn` specificity and accuracy too.

    Where neither mask has foreground, the four are what the policy `empty` says (skip: NaN). Precision without any
    predicted pixel, and recall without any true one, are 0 otherwise. Specificity and accuracy count background as
    well: there the policy only speaks where the truth has no background, or the image no labeled pixel.
    """
    tp, fp, fn = (np.asarray(item, dtype=np.float64) for item in (tp, fp, fn))
    nothing, policy = tp + fp + fn == 0, POLICIES[empty]
    found = {
        "dice": f_score(tp, fp, fn, 1, empty),
        "iou": _ratio(tp, tp + fp + fn, policy),
        "precision": np.where(nothing, policy, _ratio(tp, tp + fp, 0.0)),
        "recall": np.where(nothing, policy, _ratio(tp, tp + fn, 0.0)),
    }
    if tn is not None:
        tn = np.asarray(tn, dtype=np.float64)
        found["specificity"] = _ratio(tn, tn + fp, policy)
        found["accuracy"] = _ratio(tp + tn, tp + fp + fn + tn, policy)
    return found


def f_score(tp: Numbers, fp: Numbers, fn: Numbers, beta: float, empty: str = "one") -> np.ndarray:
    """Return F-beta in [0, 1], elementwise: recall counts `beta` times as much as precision (van Rijsbergen 1979).

    beta = 1 is Dice. Without any foreground it is what the policy `empty` says (skip: NaN).
    """
    tp, fp, fn = (np.asarray(item, dtype=np.float64) for item in (tp, fp, fn))
    hits = (1 + beta**2) * tp
    return _ratio(hits, hits + beta**2 * fn + fp, POLICIES[empty])


def _ratio(above: np.ndarray, below: np.ndarray, otherwise: float) -> np.ndarray:
    """Divide above by below; `otherwise` where below is 0."""
    return np.divide(above, below, out=np.full_like(below, otherwise), where=below > 0)


def summarize(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, empty: str) -> dict[str, dict[str, float]]:
    """Return {"image": mean over images, "pooled": all pixels counted together} of the four scores.

    Counts are (N,) or (N, S). With several classes (S) both are means over the classes. Images that the policy skips
    are left out of the mean, and a class with none left out of the classes' mean; with nothing left it is NaN.
    """
    tp, fp, fn = (np.asarray(item).reshape(len(item), -1) for item in (tp, fp, fn))
    each = scores(tp, fp, fn, empty)  # (N, S)
    pooled = scores(tp.sum(0), fp.sum(0), fn.sum(0), empty)  # (S,)
    return {
        "image": {name: _mean([_mean(column) for column in value.T]) for name, value in each.items()},
        "pooled": {name: _mean(value) for name, value in pooled.items()},
    }


def _mean(values: Sequence[float] | np.ndarray) -> float:
    """Return the mean of what is no NaN; NaN where nothing is left."""
    values = np.asarray(values, float)
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if len(kept) else float("nan")
