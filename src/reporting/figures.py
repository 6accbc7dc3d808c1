"""Charts of a report, each with the sentence that says what there is to see."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from metrics import calibration
from reporting import charts, numbers
from reporting.charts import Estimate, Line
from reporting.evidence import Evidence

if TYPE_CHECKING:
    import pandas as pd

Figure = dict[str, str]  # {"svg": ..., "caption": ...}
MOST_CLASSES = 8  # as many as there are colors; the pixels of more classes are drawn together
MOST_GROUPS = 20


def draw(evidence: Evidence, curves: dict[int, dict[str, Any]]) -> dict[str, list[Figure]]:
    """Return the figures of each section that has any."""
    return {
        "numbers": _numbers(evidence),
        "beside": [_beside(evidence)],
        "folds": [_foreground(evidence)],
        "curves": _learning(curves),
        "spread": [_by_fold(evidence), *_by_group(evidence)],
        "reliability": [_reliability(evidence)],
        "area": _by_area(evidence),
    }


def _numbers(evidence: Evidence) -> list[Figure]:
    """Return the three numbers with their intervals, and the score against the threshold; nothing before make tune."""
    if not evidence.tuned:
        return []
    rows = [Estimate(part["title"], part["score"], part["low"], part["high"], part["strong"])
            for part in numbers.numbers(evidence)]  # fmt: skip
    name = numbers.axis_name(evidence)
    shown = [{"svg": charts.intervals("three", rows, name), "caption": "The three numbers with 95% intervals."}]
    curve = evidence.tuned.get("curve") or {}
    if len(curve.get("thresholds", [])) > 1:
        lines = [Line("", curve["thresholds"], curve["scores"])]
        marks = sorted({rule["threshold"] for rule in evidence.tuned["tuned"]["rules"]})
        svg = charts.lines("threshold", lines, "threshold on the probability", name, marks)
        caption = "The score at every threshold, on all folds. Dotted: what tuning on everything chose."
        shown.append({"svg": svg, "caption": caption})
    return shown


def _beside(evidence: Evidence) -> Figure:
    score = evidence.summary["score"]
    rows = [
        Estimate("constant mask", score.get("constant", math.nan)),
        *(Estimate(part["title"].lower(), part["score"], part["low"], part["high"], part["strong"])
          for part in numbers.numbers(evidence) if part["strong"]),
        Estimate("ceiling", score.get("ceiling", math.nan)),
    ]  # fmt: skip
    caption = "What ignores the image, what the networks reach, and what their input size allows."
    return {"svg": charts.intervals("beside", rows, numbers.axis_name(evidence)), "caption": caption}


def _foreground(evidence: Evidence) -> Figure:
    frame = evidence.by_image()
    values = [100 * frame["area"][frame["kfold"] == fold].to_numpy(float) for fold in evidence.folds]
    svg = charts.strips("foreground", list(map(str, evidence.folds)), values, "fold", "foreground, % of the image")
    return {"svg": svg, "caption": "A dot an image; the box holds the middle half, the line is the median, the "
                                   "diamond the mean. Folds that are alike look alike."}  # fmt: skip


def _learning(curves: dict[int, dict[str, Any]]) -> list[Figure]:
    """Return loss and Dice over the epochs, a color a fold; nothing where no fold has curves."""
    shown = []
    for name, ylabel, kinds, caption in (
        ("loss", "loss", ("train loss", "held-out loss"),
         "Solid: the held-out fold. Dashed: the training images, augmented, so it may lie above."),
        ("dice", "Dice at the networks' size", ("held-out Dice",),
         "Held-out Dice after each epoch, at the size that the networks see, so a little off the reported one."),
    ):  # fmt: skip
        lines = [
            Line(
                "" if kind.startswith("train") else f"fold {fold}",
                part[kind][0],
                part[kind][1],
                fold,
                kind.startswith("train"),
            )
            for fold, part in curves.items()
            for kind in kinds
            if kind in part
        ]
        if lines:
            shown.append({"svg": charts.lines(name, lines, "epoch", ylabel, whole=True), "caption": caption})
    return shown


def _by_fold(evidence: Evidence) -> Figure:
    frame = evidence.by_image().dropna(subset=["score"])
    values = [frame["score"][frame["kfold"] == fold].to_numpy(float) for fold in evidence.folds]
    svg = charts.strips(
        "folds", list(map(str, evidence.folds)), values, "fold", numbers.axis_name(evidence, image=True)
    )
    return {"svg": svg, "caption": "Each held-out image by the network that did not see it: a dot an image, the middle "
                                   "half, median and mean."}  # fmt: skip


def _by_group(evidence: Evidence) -> list[Figure]:
    """Return the groups with the worst mean; nothing where each image is a group by itself."""
    frame = evidence.by_image().dropna(subset=["score"])
    means = frame.groupby("group")["score"].mean()
    if len(means) in (0, len(frame)):
        return []
    worst = means.sort_values(ascending=evidence.summary["higher_is_better"], kind="stable").head(MOST_GROUPS)
    values = [frame["score"][frame["group"] == group].to_numpy(float) for group in worst.index]
    labels = [numbers.short(group, 18) for group in worst.index]
    svg = charts.rows_of_points("groups", labels, values, numbers.axis_name(evidence, image=True))
    said = f"The {len(worst)} worst of {len(means)} groups" if len(worst) < len(means) else f"All {len(means)} groups"
    return [{"svg": svg, "caption": f"{said}, the worst first: large dot, the mean; small dots, its images."}]


def _reliability(evidence: Evidence) -> Figure:
    counts, names = evidence.counts, evidence.classes
    if len(names) > MOST_CLASSES:
        counts, names = counts.sum(0, keepdims=True), ("all classes",)
    curves = [(name, *calibration.curve(part)) for name, part in zip(names, counts, strict=True)]
    caption = (
        "On the dashed line probabilities are true; above it there is more foreground than they say, below it less. "
        "The lower part counts the pixels of each bin (log): most are easy, so the middle rests on few of them."
    )
    return {"svg": charts.reliability("reliability", curves), "caption": caption}


def _by_area(evidence: Evidence) -> list[Figure]:
    """Return score against the true mask's area, a dot an image and class; nothing where all masks are empty."""
    scores = evidence.scores.dropna(subset=["score"])
    total = scores[["tp", "fp", "fn", "tn"]].sum(axis=1)
    scores = scores.assign(area=100 * (scores["tp"] + scores["fn"]) / total.clip(lower=1))
    scores = scores[scores["area"] > 0]
    if scores.empty:
        return []
    names = evidence.classes if 1 < len(evidence.classes) <= MOST_CLASSES else ("",)
    parts = [scores[scores["class"] == name] if name else scores for name in names]
    what = "an image" if len(evidence.classes) == 1 else "an image and class"
    series = [(name or what, part["area"].to_numpy(float), part["score"].to_numpy(float))
              for name, part in zip(names, parts, strict=True)]  # fmt: skip
    name = numbers.axis_name(evidence, image=True)
    svg = charts.by_area("area", series, name, _running_median(scores["area"], scores["score"]))
    return [{"svg": svg, "caption": f"A dot {what}; the line is the running median. Empty masks are left out."}]


def _running_median(area: "pd.Series", score: "pd.Series", parts: int = 10) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the median area and score of up to ten equal parts of the images; None for fewer than twenty images."""
    if len(area) < 20:
        return None
    order = np.argsort(area.to_numpy(float), kind="stable")
    chunks = np.array_split(order, min(parts, len(order) // 5))
    areas, scores = (column.to_numpy(float) for column in (area, score))
    return np.array([np.median(areas[chunk]) for chunk in chunks]), np.array(
        [np.median(scores[chunk]) for chunk in chunks]
    )
