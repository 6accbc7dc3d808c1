"""Numbers of a report as texts: the one to believe, the two beside it, their intervals and the rules behind them."""

import math
from typing import Any

from data.dataspec import DataSpec
from metrics import measures
from prediction import postprocess
from reporting.evidence import Evidence

NAMES = {"dice": "Dice", "iou": "IoU", "pooled_dice": "Dice", "pooled_iou": "IoU", "hd95": "HD95", "assd": "ASSD"}
NOTHING = "–"


def short(name: str, most: int = 40) -> str:
    """Return a name of at most `most` letters; a longer one loses its middle."""
    half = (most - 1) // 2
    return name if len(name) <= most else f"{name[:half]}…{name[-half:]}"


def score_name(evidence: Evidence) -> str:
    """Return the METRIC as it is written: Dice, HD95, surface_dice(tolerance=2)."""
    return NAMES.get(evidence.summary["metric"], evidence.summary["metric"])


def metric_name(evidence: Evidence) -> str:
    """Return the METRIC as a sentence says it: mean Dice, Dice over all images together."""
    name = score_name(evidence)
    return f"{name} over all images together" if measures.get(evidence.summary["metric"]).pooled else f"mean {name}"


def axis_name(evidence: Evidence, image: bool = False) -> str:
    """Return the METRIC as an axis has it, with its unit; `image`: of single images."""
    unit = measures.get(evidence.summary["metric"]).unit
    name = f"{score_name(evidence)} of an image" if image else metric_name(evidence)
    return f"{name}, {unit}" if unit else name


def number(evidence: Evidence, value: object, digits: int = 4, of: str = "") -> str:
    """Return a score of the METRIC, or of the measure `of`, as a text with its unit; a dash where there is none."""
    unit = measures.get(of or evidence.summary["metric"]).unit
    if not is_number(value):
        return NOTHING
    return f"{value:.2f} {unit}" if unit else f"{value:.{digits}f}"


def between(evidence: Evidence, part: dict[str, Any], of: str = "") -> str:
    """Return its interval as a text: "0.79 to 0.83", "" where there is none."""
    if not (is_number(part.get("low")) and is_number(part.get("high"))):
        return ""
    return f"{number(evidence, part['low'], 3, of)} to {number(evidence, part['high'], 3, of)}"


def is_number(value: object) -> bool:
    """Return whether `value` is a figure that can be shown: no text, no NaN."""
    return isinstance(value, int | float) and math.isfinite(value)


def numbers(evidence: Evidence) -> list[dict[str, Any]]:
    """Return the three numbers, or the untuned one alone: title, value, interval, meaning, whether to believe it."""
    tuned, untuned = evidence.tuned, evidence.summary["score"]
    about = {
        "untuned": ("Untuned", "The rule of the settings, chosen before anything was seen."),
        "crossfitted": ("Cross-fitted", "Each fold is cut by the rule that the other folds chose: the one to believe."),
        "tuned": ("Tuned on everything", "The rule was chosen on the images that it is scored on. It flatters."),
    }
    if not tuned:
        parts = {"untuned": {**untuned, "score": untuned["model"], "rules": evidence.summary["rules"]}}
    else:
        parts = {kind: tuned[kind] for kind in about}
    believed = "crossfitted" if tuned else "untuned"
    return [
        {
            "title": about[kind][0],
            "text": about[kind][1],
            "value": number(evidence, part.get("score")),
            "score": part.get("score"),
            "low": part.get("low", math.nan),
            "high": part.get("high", math.nan),
            "interval": between(evidence, part),
            "rules": said_rules(part["rules"], evidence.found.spec),
            "strong": kind == believed,
        }
        for kind, part in parts.items()
    ]


def said_rules(values: list[dict[str, Any]], spec: DataSpec) -> list[str]:
    """Return rules in JSON (one a scored class, or such a list for each fold) as texts; equal ones only once."""
    if isinstance(values, dict):
        by_fold = {fold: said_rules(part, spec) for fold, part in values.items()}
        if len({tuple(said) for said in by_fold.values()}) == 1:
            return next(iter(by_fold.values()))
        return [f"fold {fold}: {text}" for fold, said in by_fold.items() for text in said]
    rules = [postprocess.from_json(part, "The rule") for part in values]
    said = [str(rule) for rule in rules]
    if spec.task == "multiclass":  # it uses no threshold
        said = [str(rule).replace(f"threshold {rule.threshold:g}", "the likeliest class") for rule in rules]
    if len(set(said)) == 1:
        return said[:1]
    return [f"{name}: {text}" for name, text in zip(spec.scored_names, said, strict=True)]
