"""What a terminal shows of a summary: the scores, and what has to stand beside them."""

from typing import Any

import numpy as np

from metrics import measures
from prediction import postprocess
from scoring import blind_baseline
from scoring.score_summary import Interval
from tools import console
from training import weights_origin

_POLICIES = {"one": "counts as 1", "zero": "counts as 0", "skip": "is left out of the mean"}


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
    if len(summary["classes"]) > 1:
        _announce_classes(summary)
    _announce_metric(summary)
    if no_better := blind_baseline.said(summary["score"], summary["higher_is_better"]):
        print(f"  {no_better}")
    _announce_conditions(summary)


def _announce_classes(summary: dict[str, Any]) -> None:
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


def _announce_conditions(summary: dict[str, Any]) -> None:
    """Print what the scores depend on: empty masks, rules, views, weights, and what the references are."""
    several = len(summary["classes"]) > 1
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
    """Print METRIC where it is another than the table's first column, and the further measures."""
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
    return {name: _range(interval) for name, interval in intervals.items()}


def _range(interval: Interval) -> str:
    return "-" if np.isnan(interval[0]) else f"{interval[0]:.3f}..{interval[1]:.3f}"
