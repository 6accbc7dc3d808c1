"""Score rows -> a summary with intervals, what a terminal shows of it, and a picture of the worst images."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.dataspec import DataSpec
from metrics import bootstrap, measures, overlap
from prediction import postprocess
from scoring import blind_baseline, score_rows
from scoring.score_rows import Scale
from tools import console
from training import weights_origin

if TYPE_CHECKING:
    import pandas as pd

_POLICIES = {"one": "counts as 1", "zero": "counts as 0", "skip": "is left out of the mean"}
DRAWS = 2000  # of the bootstrap
Interval = tuple[float, float]


def counts_of(scores: "pd.DataFrame", classes: int, prefix: str = "") -> np.ndarray:
    """tp, fp, fn, tn (N, S, 4) of score rows, those of an image together."""
    columns = [f"{prefix}{key}" for key in overlap.COUNTS]
    return scores[columns].to_numpy(np.int64).reshape(-1, classes, len(columns))


def values_of(scores: "pd.DataFrame", classes: int, column: str = "score") -> np.ndarray:
    """A measure's values (N, S) of score rows; NaN where the policy skips the image."""
    return scores[column].to_numpy(float).reshape(-1, classes)


def summarise(scores: "pd.DataFrame", classes: tuple[str, ...], scale: Scale) -> dict[str, Any]:
    """Mean over images and pooled over pixels, of the model, of the constant mask and of the resolution's ceiling.

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
        **{kind: overlap.summarise(*np.moveaxis(part, -1, 0)[:3], scale.empty) for kind, part in counts.items()},
        "intervals": _intervals(counts["model"], weights, groups, scale.empty),
        "classes": {
            name: {
                **overlap.summarise(*np.moveaxis(part, -1, 0)[:3], scale.empty),
                "intervals": _intervals(part, weights, groups, scale.empty),
            }
            for name, part in parts.items()
        },
    }


def score(scores: "pd.DataFrame", classes: tuple[str, ...], scale: Scale) -> float:
    """The METRIC over score rows, those of an image together; NaN where the policy leaves nothing."""
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
    """A measure over images with its 95% bootstrap interval: (score, low, high); NaN where there is no interval."""

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
    """METRIC of the model with its interval, and class by class, and of the other kinds, by counts and values of each.

    "unpredicted" and "absent" name the classes without a predicted and a true pixel, "constant_empty" those whose
    constant mask is the empty one (for every image).
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
    found = interval(measures.get(name), counts, values, weights, groups, scale.empty)
    return dict(zip(("model", "low", "high"), found, strict=True))


def _intervals(
    counts: np.ndarray, weights: np.ndarray, groups: np.ndarray, empty: str
) -> dict[str, dict[str, Interval]]:
    """Of Dice, IoU, precision and recall, as means over images and pooled."""
    each = overlap.scores(*np.moveaxis(counts, -1, 0)[:3], empty)
    kinds: dict[str, dict[str, Interval]] = {"image": {}, "pooled": {}}
    for name in overlap.SCORES:
        for kind, parts in kinds.items():
            measure = replace(measures.get(name), pooled=kind == "pooled")
            parts[name] = interval(measure, counts, each[name], weights, groups, empty)[1:]
    return kinds


def announce(title: str, summary: dict[str, Any]) -> None:
    """Print the scores with what has to stand beside them."""
    print(f"{title}: {summary['images']} {summary['scored_on']} in {summary['groups']} groups, at their original size")
    lines = {
        "mean over images": summary["model"]["image"],
        "  95% interval": _shown(summary["intervals"]["image"]),
        "pooled over pixels": summary["model"]["pooled"],
        "  95% interval ": _shown(summary["intervals"]["pooled"]),
        "constant mask, mean": summary["constant"]["image"],
        "ceiling of the size, mean": summary["ceiling"]["image"],
    }
    print(console.table([{"": name, **values} for name, values in lines.items()]))
    several = len(summary["classes"]) > 1
    if several:
        print("  Each line is the mean over the classes; the model's, mean over images, class by class:")
        by_class = {
            name: {
                **part["image"],
                "95% of Dice": _range(part["intervals"]["image"]["dice"]),
                summary["metric"]: summary["score"]["classes"][name][0],
                f"constant mask's {summary['metric']}": summary["score"]["constant_classes"][name],
            }
            for name, part in summary["classes"].items()
        }
        print(console.table([{"": name, **values} for name, values in by_class.items()]))
    _announce_metric(summary)
    if no_better := blind_baseline.said(summary["score"], summary["higher_is_better"]):
        print(f"  {no_better}")
    policy, of = summary["empty_policy"], f" of {summary['images']} x {len(summary['classes'])}" if several else ""
    rules = dict.fromkeys(str(postprocess.from_json(rule, "summary")) for rule in summary["rules"])
    print(
        f"  {summary['empty_masks']}{of} masks are empty; an empty prediction on an empty mask {_POLICIES[policy]} "
        f"(EMPTY={policy}{_left_out(summary)}).\n"
        f"  {' / '.join(rules).capitalize()}; TTA {summary['tta']}; weights of the {summary['weights']}; begun "
        f"with: {summary[weights_origin.SAID]}.\n"
        f"  Intervals: other {'groups' if summary['groups'] < summary['images'] else 'images'}, the same networks. "
        "The constant mask ignores the image\n"
        f"  (best by {summary['metric']} on the training images{_empty_constants(summary)}); the ceiling is what the\n"
        "  true mask scores after it was shrunk to the network's size and enlarged again."
    )


def _empty_constants(summary: dict[str, Any]) -> str:
    empty = summary["score"]["constant_empty"]
    if not empty:
        return ""
    return ": the empty one" if len(empty) == len(summary["classes"]) else f": the empty one for {', '.join(empty)}"


def _left_out(summary: dict[str, Any]) -> str:
    gone = summary["empty_and_predicted_empty"]
    return f": {gone} left out" if summary["empty_policy"] == "skip" else ""


def _announce_metric(summary: dict[str, Any]) -> None:
    """METRIC where it is another than the table's first column, and the further measures."""
    lines = {}
    if summary["metric"] != "dice":
        lines[f"METRIC {summary['metric']}"] = summary["score"]
    lines |= summary["measures"]
    for name, part in lines.items():
        beside = f"; constant mask {part['constant']:.4f}, ceiling {part['ceiling']:.4f}" if "constant" in part else ""
        measure = measures.get(name.removeprefix("METRIC "))
        lower = "" if measure.higher else ", less is better"
        unit = f" {measure.unit}" if measure.unit else ""
        print(f"  {name}: {part['model']:.4f}{unit} ({_range((part['low'], part['high']))}{lower}){beside}")


def _shown(intervals: dict[str, Interval]) -> dict[str, str]:
    return {name: _range(found) for name, found in intervals.items()}


def _range(found: Interval) -> str:
    return "-" if np.isnan(found[0]) else f"{found[0]:.3f}..{found[1]:.3f}"


def worst_sheet(
    path: Path,
    scores: "pd.DataFrame",
    table: "pd.DataFrame",
    root: Path,
    read_maps: Callable[[str, int], np.ndarray],
    spec: DataSpec,
    *,
    rules: tuple[postprocess.Rule, ...],
    scale: Scale,
    max_pixels: int,
    most: int = 12,
) -> None:
    """Contact sheet of the images with the worst METRIC (image, truth, prediction, error), the mean over their classes.

    `read_maps(image, fold)` gives probability maps; `table` has each image's mask.
    """
    from tools import pictures

    lines, mask_of = [], dict(zip(table["image"], table["mask"], strict=True))
    means = scores.groupby(["image", "kfold"], sort=False)["score"].mean()
    worst = means.sort_values(kind="stable", ascending=scale.measure.higher, na_position="last").head(most)
    for (image, fold), value in worst.items():
        pixels, mask = spec.read_pair(root, image, mask_of[image], max_pixels)
        truth, picture = spec.class_planes(mask), pictures.as_rgb(pixels)
        predicted = postprocess.to_masks(read_maps(image, fold), spec.task, spec.scored, rules)
        cells = [picture, pictures.overlays(picture, truth), pictures.overlays(picture, predicted)]
        if (labelled := spec.labelled(mask)) is not None:
            truth, predicted = truth & labelled, predicted * labelled
        caption = f"{scale.metric} {value:.4f}   {Path(image).name}"
        lines.append((caption, [*cells, pictures.errors(picture, truth, predicted)]))
    note = f"the {len(lines)} worst images by {scale.metric}; {pictures.LEGEND}"
    titles = ["image", "truth", "prediction", "error"]
    pictures.sheet(path, lines, titles, note=note, legend=pictures.legend(spec.scored_names))
