"""A row for each experiment, by its cross-fitted scores, or why it has none."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prediction import chosen_rule
from scoring import blind_baseline, experiment_scores, fold_scores, score_rows
from tools import console, run_folders
from tools.errors import UserError
from tools.files import read_json, write_text
from training.weights_origin import UNSURE

if TYPE_CHECKING:
    from settings import Settings


def publish(settings: "Settings") -> Path:
    """Print the leaderboard with its notes and write it; return its path. Raises UserError where it is empty."""
    import pandas as pd

    scale = score_rows.scale(settings.METRIC, "", settings.EMPTY)
    lines, left_out = collect(settings, scale)
    for text in left_out:
        print(f"left out: {text}")
    if not lines:
        raise UserError(
            f"No experiment in {settings.LOGS} has out-of-fold scores on {settings.TRAIN_FOLDS}. Run make cv"
        )
    shown = table(lines, experiment_scores.settings_that_differ([one["found"] for one in lines]))
    less = "" if scale.measure.higher else ", less is better"
    print(f"{settings.DATASET} by {scale.metric}{less}; a constant mask reaches {lines[0]['constant']:.4f}")
    print(console.table(shown))
    _announce_notes(lines, shown, scale.measure.higher)
    path = Path(settings.OUTPUT, "leaderboard.csv")
    write_text(path, pd.DataFrame(shown).rename(columns={"": "place"}).to_csv(index=False, lineterminator="\n"))
    return path


def _announce_notes(lines: list[dict[str, Any]], shown: list[dict[str, Any]], higher: bool) -> None:
    """Print what the marks in the table mean, and which scores a constant mask reaches."""
    if any("*" in one["experiment"] for one in shown):
        print("  * its epochs were chosen on the folds that are reported (CHECKPOINT=best): the score flatters")
    if any(UNSURE in one["experiment"] for one in shown):
        print(f"  {UNSURE}: of the weights that it began with, which may have seen what is held out")
    if any(one["cross-fitted"] == "-" for one in shown):
        print("  -: not tuned; sorted by the untuned score. make tune EXPERIMENT=name gives the cross-fitted one")
    for one in lines:
        if no_better := blind_baseline.said(one["beside"], higher):
            print(f"  {one['experiment']}, seed {one['seed']}: {no_better}")


def line(settings: "Settings", experiment: str, seed: int, scale: score_rows.Scale) -> dict[str, Any]:
    """Return the row of one experiment under one seed. Raises UserError where it may not stand beside the others."""
    scored = experiment_scores.read(settings, experiment, seed, scale)
    folder = Path(settings.LOGS, experiment, f"oof_seed{seed}")
    score = read_json(folder / fold_scores.SUMMARY, "", {"score": dict})["score"]
    minutes, memory = experiment_scores.cost(scored.found)
    row = {"experiment": experiment, "seed": seed, "found": scored.found, "score": score["model"],
             "low": score["low"], "high": score["high"], "untuned": score["model"], "tuned": np.nan, "optimism": np.nan,
             "constant": score["constant"], "beside": score, "minutes": minutes, "gpu": memory}  # fmt: skip
    if (folder / chosen_rule.TUNED).is_file():
        experiment_scores.scored(settings, scored.found, scale, crossfitted=True)  # refuses what is stale
        tuned = read_json(folder / chosen_rule.TUNED, "", {"crossfitted": dict, "tuned": dict})
        part = tuned["crossfitted"]
        row |= {"score": part["score"], "low": part["low"], "high": part["high"], "tuned": tuned["tuned"]["score"],
                  "optimism": tuned["optimism"], "beside": {"constant": score["constant"], **part}}  # fmt: skip
    return row


def collect(settings: "Settings", scale: score_rows.Scale) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the lines, best first, and what was left out with its reason."""
    lines, left_out = [], []
    for place in sorted(path for path in Path(settings.LOGS).glob("*") if path.is_dir()):
        seeds = experiment_scores.seeds_of(settings.LOGS, place.name)
        if not seeds and any(place.glob(f"*/{run_folders.MODEL}")):
            left_out.append(f"{place.name}: {_why_unscored(place)}")
        for seed in seeds:
            try:
                lines.append(line(settings, place.name, seed, scale))
            except UserError as error:
                left_out.append(f"{place.name}, seed {seed}: {error}")
    sign = -1 if scale.measure.higher else 1
    return sorted(lines, key=lambda one: (np.isnan(one["score"]), sign * one["score"])), left_out


def _why_unscored(place: Path) -> str:
    try:
        heart = any(run_folders.read_model(path.parent).get("overfit") for path in place.glob(f"*/{run_folders.MODEL}"))
    except UserError as error:
        return str(error)
    return "learned its images by heart (OVERFIT)" if heart else "not scored out of fold: make cv"


def table(lines: list[dict[str, Any]], differ: dict[str, list[str]]) -> list[dict[str, Any]]:
    """Return the lines as columns to print; what is not known is a dash."""
    shown = []
    for at, one in enumerate(lines):
        best_epoch, unsure = "chosen on" in one["found"].weights, UNSURE in one["found"].origin
        shown.append({
            "": at + 1,
            "experiment": one["experiment"] + (" *" if best_epoch else "") + (f" ({UNSURE})" if unsure else ""),
            "seed": one["seed"],
            "cross-fitted": _number(one["score"]) if not np.isnan(one["tuned"]) else "-",
            "95% interval": "-" if np.isnan(one["low"]) else f"{one['low']:.4f}..{one['high']:.4f}",
            "untuned": _number(one["untuned"]),
            "tuned on all": _number(one["tuned"]),
            "optimism": _number(one["optimism"]),
            "minutes": f"{one['minutes']:.1f}",
            "GPU GB": _number(one["gpu"]),
            "differs in": "; ".join(f"{name}={values[at]}" for name, values in differ.items() if values[at] != "-"),
        })  # fmt: skip
    return shown


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.4f}"
