"""All tested folds scored together, each image exactly once: oof_seed<s>/ in the experiment's folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prediction import chosen_rule, postprocess
from prediction.postprocess import Rule
from scoring import out_of_fold, score_rows, score_summary
from scoring.fold_scores import HELD_OUT_IMAGES, SCORES, SUMMARY, WORST, read_scores, write_scores
from scoring.score_announcement import announce
from scoring.worst_images import worst_sheet
from tools import console, run_folders
from tools.errors import UserError, listing
from tools.files import read_json
from training import weights_origin

if TYPE_CHECKING:
    import pandas as pd

    from settings import Settings


def tested_fold(
    settings: "Settings", found: out_of_fold.OutOfFold, fold: int, scale: score_rows.Scale
) -> "pd.DataFrame":
    """Read one fold's scores.csv. Raises UserError where it was scored by other rules or another metric than now."""
    folder = found.folders[fold]
    again = f"Score it again: make tester FOLD={fold}"
    summary = read_json(folder / SUMMARY, again, {"weights": str})
    then = postprocess.all_from_json(summary.get("rules"), f"{folder / SUMMARY}")
    now = {"empty_policy": scale.empty, "metric": scale.metric}
    differ = [name for name, value in now.items() if summary.get(name) != value]
    if then != chosen_rule.configured(settings, found.spec):
        differ = ["threshold, or another rule from probability to mask", *differ]
    if differ:
        raise UserError(f"{folder} was scored with another {' and '.join(differ)} than now. {again}")
    if "constant_classes" not in summary.get("score", {}):
        print(f"{folder} was scored by an earlier version, for which an empty mask was no constant one. {again}")
    return read_scores(folder, again, tuple(dict.fromkeys((*score_rows.COLUMNS, *scale.also))))  # iou is there already


def gather(settings: "Settings") -> dict[str, Any]:
    """Score every fold's val/ together. Raises UserError for an image that is predicted twice or not at all."""
    import pandas as pd

    chosen_rule.refuse_tuned(settings)
    scale = score_rows.scale(settings.METRIC, settings.MEASURES, settings.EMPTY)
    if run_folders.is_ensemble(settings.LOGS, settings.EXPERIMENT):
        raise UserError(f"{settings.EXPERIMENT} is an ensemble: make ensemble OF=... NAME=... scores what it blends.")
    found = out_of_fold.read(settings)
    spec, folds = found.spec, sorted(found.folders)
    parts = [tested_fold(settings, found, fold, scale) for fold in folds]
    scores = pd.concat(parts).sort_values("image", kind="stable", ignore_index=True)
    _refuse_gaps(found, scores)
    return publish(settings, found, scores, scale, chosen_rule.configured(settings, spec))


def _refuse_gaps(found: out_of_fold.OutOfFold, scores: "pd.DataFrame") -> None:
    """Raise UserError for score rows that do not have each held-out image and class exactly once."""
    twice = sorted(scores["image"][scores.duplicated(["image", "class"])])
    missing = sorted(set(found.table["image"]) - set(scores["image"]))
    if twice or missing:
        what = f"{len(twice)} images are predicted twice" if twice else f"{len(missing)} images are not predicted"
        shown = listing(twice or missing, 10)
        raise UserError(f"{found.experiment}: {what}:{shown}\nScore every fold again: make tester FOLD=k")
    if len(scores) != len(found.table) * len(found.spec.scored):
        raise UserError(
            f"{found.experiment}: some images lack a class's row, or are of no fold. Score every fold again: "
            "make tester FOLD=k"
        )


def publish(
    settings: "Settings",
    found: out_of_fold.OutOfFold,
    scores: "pd.DataFrame",
    scale: score_rows.Scale,
    rules: tuple[Rule, ...],
) -> dict[str, Any]:
    """Write and announce the out-of-fold scores of an experiment or ensemble: oof_seed<s>/; returns the summary."""
    names = found.spec.scored_names
    parts = {int(fold): part for fold, part in scores.groupby("kfold")}
    means = [score_summary.score(part, names, scale) for part in parts.values()]
    summary = {
        "experiment": found.experiment,
        "folds": dict(zip(parts, means, strict=True)),
        "scored_on": HELD_OUT_IMAGES,
        "rules": [rule.as_json() for rule in rules],
        "tta": found.provenance["tta"],
        "weights": found.weights,
        weights_origin.SAID: found.origin,
        "provenance": found.provenance,
        **score_summary.summarize(scores, names, scale),
    }
    folder = Path(settings.LOGS, found.experiment, f"oof_seed{found.seed}")
    write_scores(folder, scores, summary)
    worst_sheet(folder / WORST, scores, found.pairs(settings.MAX_PIXELS), found.maps, rules, scale)
    announce(f"{found.experiment}, out of fold", summary)
    print(console.table([{"fold": fold, scale.metric: mean} for fold, mean in summary["folds"].items()]))
    kept = [mean for mean in means if np.isfinite(mean)]
    if len(kept) > 1:
        print(f"mean of the folds {np.mean(kept):.4f}, standard deviation {np.std(kept, ddof=1):.4f}")
    print(f"scores -> {folder / SCORES}\nthe worst twelve as a picture -> {folder / WORST}", flush=True)
    return summary
