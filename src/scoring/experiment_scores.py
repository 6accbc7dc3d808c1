"""Experiments side by side: their out-of-fold scores, checked to be of the models that are there, and their cost.

They may have been trained on different folds tables (one with pseudo-labels) as long as these hold out the same.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data import splits
from prediction import chosen_rule, postprocess
from prediction.postprocess import Rule
from scoring import fold_scores, out_of_fold, score_rows, score_summary, tuning
from scoring.out_of_fold import OutOfFold
from scoring.score_rows import Scale
from tools import run_folders
from tools.errors import UserError
from tools.files import read_json

if TYPE_CHECKING:
    from settings import Settings


@dataclass(frozen=True)
class Scored:
    """One experiment under one seed with its score rows, an image's classes together, sorted by image."""

    found: OutOfFold
    rules: tuple[Rule, ...]
    counts: np.ndarray  # (N, S, 4)
    values: np.ndarray  # (N, S)


def seeds_of(logs: str, experiment: str) -> list[int]:
    """Return the seeds under which an experiment has out-of-fold scores."""
    names = [re.fullmatch(r"oof_seed(\d+)", path.parent.name) for path in Path(logs, experiment).glob("*/summary.json")]
    return sorted(int(name[1]) for name in names if name)


def gather_line(experiment: str, seed: int) -> str:
    """Return the command that writes an experiment's out-of-fold scores."""
    return f"make oof EXPERIMENT={experiment} SEED={seed}"


def read(settings: "Settings", experiment: str, seed: int, scale: Scale, crossfitted: bool = False) -> Scored:
    """Read the scores of an experiment as oof (or, cross-fitted, tune) wrote them.

    Raises UserError where they are of other models, METRIC or EMPTY than now, or of a table that does not hold out what
    TRAIN_FOLDS does.
    """
    own, reference = _own_table(settings, experiment, seed), Path(settings.TRAIN_FOLDS)
    if own != reference:
        splits.refuse_other_held_out(splits.read(own), own, splits.read(reference), reference)
    found = out_of_fold.read(replace(settings, TRAIN_FOLDS=str(own)), experiment, seed)
    return scored(settings, found, scale, crossfitted)


def _own_table(settings: "Settings", experiment: str, seed: int) -> Path:
    """Return the folds table that an experiment was trained on, where it is unchanged; TRAIN_FOLDS otherwise."""
    table = Path(settings.TRAIN_FOLDS)
    folds = run_folders.finished_folds(settings.LOGS, experiment, seed)
    if not folds or not table.is_file():
        return table
    about = run_folders.read_model(run_folders.run_folder(settings.LOGS, experiment, folds[0], seed))
    return run_folders.table_of(table, [about.get("settings", {}).get("TRAIN_FOLDS")], about["folds_sha256"])


def scored(settings: "Settings", found: OutOfFold, scale: Scale, crossfitted: bool = False) -> Scored:
    """Read the same of held-out predictions that were read already."""
    experiment, seed = found.experiment, found.seed
    folder = Path(settings.LOGS, experiment, f"oof_seed{seed}")
    again, path, columns = gather_line(experiment, seed), folder / fold_scores.SUMMARY, score_rows.COLUMNS
    file = fold_scores.SCORES
    if crossfitted:
        again, path = f"make tune EXPERIMENT={experiment} SEED={seed}", folder / chosen_rule.TUNED
        file, columns = tuning.CROSSFITTED, ("image", "class", "kfold", "group", "tp", "fp", "fn", "tn", "score")
    summary = read_json(path, f"Run {again}", {"provenance": dict, "metric": str, "empty_policy": str})
    if summary["provenance"] != found.provenance:
        raise UserError(f"{path} is of other models or predictions than are there now. Run {again}")
    now = {"metric": scale.metric, "empty_policy": scale.empty}
    differ = [f"{name} {summary[name]} there, {value} now" for name, value in now.items() if summary[name] != value]
    if differ:
        raise UserError(f"{path} has another {' and '.join(differ)}. Run {again}, or say the METRIC and EMPTY of then.")
    scores = fold_scores.read_scores(folder, f"Run {again}", columns, file).sort_values("image", kind="stable")
    classes = len(found.spec.scored)
    expected = [image for image in found.table["image"] for _ in range(classes)]
    if list(scores["image"]) != expected:
        raise UserError(f"{folder / file} does not have each held-out image once. Run {again}")
    rules = postprocess.all_from_json(summary.get("rules"), str(path)) if not crossfitted else ()
    return Scored(found, rules, score_summary.counts_of(scores, classes), score_summary.values_of(scores, classes))


def settings_that_differ(parts: list[OutOfFold]) -> dict[str, list[str]]:
    """Return NAME: its value in each of these experiments, of the constants in which they differ.

    EXPERIMENT and SEED apart, which always do. An ensemble has no constants of its own, but members ("ensemble of").
    """
    whole = [_settings(part) for part in parts]
    differ = {}
    for name in sorted(set().union(*whole) - {"EXPERIMENT", "SEED"}):
        values = [str(values[name]) for values in whole if name in values]
        if len(set(values)) > 1 or name == "ensemble of":
            differ[name] = [str(values.get(name, "-")) for values in whole]
    return differ


def _settings(part: OutOfFold) -> dict[str, Any]:
    if part.provenance["shares"]:
        shares = ", ".join(f"{name} {share:.2f}" for name, share in part.provenance["shares"].items())
        return {"ensemble of": shares}
    run = Path(part.models[0]["folder"])
    table = run_folders.read_model(run).get("settings", {}).get("TRAIN_FOLDS", "-")
    return {**out_of_fold.recipe(run), "TRAIN_FOLDS": table, "TTA": part.provenance["tta"]}


def cost(found: OutOfFold) -> tuple[float, float]:
    """Return all its models' minutes of training together, and the most GPU memory that one took in GB (NaN: none)."""
    folders = [Path(part["folder"]) for part in found.models]
    abouts = [run_folders.read_model(folder) for folder in folders if (folder / run_folders.MODEL).is_file()]
    memory = [about["gpu_gigabytes"] for about in abouts if about.get("gpu_gigabytes")]
    return sum(float(about.get("minutes", np.nan)) for about in abouts), max(memory, default=float("nan"))
