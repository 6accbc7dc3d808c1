"""Which rule makes masks of probabilities: the constants', or what `make tune` found, where it may be used.

A tuned rule is right for the predictions it was tuned on: the same models, TTA and size. Under others it is refused.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.dataspec import DataSpec
from prediction import postprocess
from prediction.postprocess import Rule
from tools.errors import UserError, listing
from tools.files import read_json

if TYPE_CHECKING:
    from settings import Settings

TUNED = "tuned.json"  # in oof_seed<s>/
_SAID = {
    "folds_sha256": "the folds table",
    "tta": "TTA",
    "tta_mean": "TTA_MEAN",
    "tile": "TILE",
    "overlap": "OVERLAP",
    "sizes": "the networks' size",
    "models": "the set of models",
    "shares": "the ensemble's shares",
}


def configured(settings: "Settings", spec: DataSpec) -> tuple[Rule, ...]:
    """Return the constants' rule, once for each scored class. Raises UserError for one that would do nothing."""
    rule = Rule(
        threshold=settings.THRESHOLD,
        min_area=settings.MIN_AREA,
        fill_holes=settings.FILL_HOLES,
        keep_largest=settings.KEEP_LARGEST,
        split=settings.SPLIT,
        top_threshold=settings.TOP_THRESHOLD,
        top_area=settings.TOP_AREA,
    )
    if bool(rule.top_threshold) != bool(rule.top_area):
        raise UserError(
            f"TOP_THRESHOLD={rule.top_threshold:g} and TOP_AREA={rule.top_area} only work together: an image's mask is "
            "empty unless TOP_AREA pixels reach TOP_THRESHOLD. Give both, or neither."
        )
    if spec.task == "multiclass" and (rule.fill_holes or rule.top_threshold):
        raise UserError(
            "FILL_HOLES and TOP_THRESHOLD are for binary and multilabel masks: in a class map a hole is another class."
        )
    return (rule,) * len(spec.scored)


def tuned_path(settings: "Settings") -> Path:
    """Return where `make tune` keeps what it found."""
    return Path(settings.LOGS, settings.EXPERIMENT, f"oof_seed{settings.SEED}", TUNED)


def chosen(settings: "Settings", spec: DataSpec, provenance: dict[str, Any]) -> tuple[Rule, ...]:
    """Return the rules by POSTPROCESS for predictions of this provenance (see `prediction_folders.provenance`).

    Raises UserError where a tuned rule was tuned under another one.
    """
    if settings.POSTPROCESS == "settings":
        return configured(settings, spec)
    path, again = tuned_path(settings), f"Tune on these: make tune EXPERIMENT={settings.EXPERIMENT}"
    found = read_json(path, again, {"tuned": dict, "classes": list, "provenance": dict})
    then = found["provenance"]
    differ = [
        f"{said}: {_shown(then.get(key))} there, {_shown(provenance.get(key))} here"
        for key, said in _SAID.items()
        if then.get(key) != provenance.get(key)
    ]
    if found["classes"] != list(spec.scored_names):
        there, here = (", ".join(map(str, names)) for names in (found["classes"], spec.scored_names))
        differ.append(f"the classes: {there} there, {here} here")
    if differ:
        raise UserError(
            f"{path} was tuned on other predictions than these; what differs:{listing(differ)}\n"
            f"Predict with what it was tuned under, or use POSTPROCESS=settings. {again}"
        )
    rules = postprocess.all_from_json(found["tuned"].get("rules"), str(path))
    if len(rules) != len(spec.scored):
        raise UserError(f"{path} has {len(rules)} rules for {len(spec.scored)} classes. {again}")
    return rules


def refuse_tuned(settings: "Settings") -> None:
    """Raise UserError for POSTPROCESS=tuned: held-out images are never scored by a rule that was chosen on them."""
    if settings.POSTPROCESS == "tuned":
        raise UserError(
            "POSTPROCESS=tuned would score held-out images by a rule that was chosen on them. It is for inference and "
            "submission; make tune shows what to expect of it (the cross-fitted score)."
        )


def _shown(value: object) -> str:
    if isinstance(value, list) and value and isinstance(value[0], str):
        return f"{len(value)} ({', '.join(part[:8] for part in value[:6])}{', ...' if len(value) > 6 else ''})"
    return str(value)
