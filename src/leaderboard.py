"""make leaderboard: every experiment of the data set, by its cross-fitted score, with what differs and what it cost.

Writes output/<dataset>/leaderboard.csv. Left out, with the reason: what learnt its images by heart, what is not scored
out of fold, and what was scored by another METRIC or on a folds table that holds out something else.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

import console
import experiments
import rules
import runs
import scoring
import settings as settings_module
import tester
from errors import UserError, command


def line(settings: Any, experiment: str, seed: int, scale: scoring.Scale) -> dict[str, Any]:
    """One experiment under one seed. Raises UserError where it may not stand beside the others."""
    scored = experiments.read(settings, experiment, seed, scale)
    folder = Path(settings.LOGS, experiment, f"oof_seed{seed}")
    score = runs.read_json(folder / tester.SUMMARY, "", {"score": dict})["score"]
    minutes, memory = experiments.cost(scored.found)
    found = {"experiment": experiment, "seed": seed, "found": scored.found, "score": score["model"],
             "low": score["low"], "high": score["high"], "untuned": score["model"], "tuned": np.nan, "optimism": np.nan,
             "constant": score["constant"], "minutes": minutes, "gpu": memory}  # fmt: skip
    if (folder / rules.TUNED).is_file():
        experiments.scored(settings, scored.found, scale, crossfitted=True)  # refuses what is stale
        tuned = runs.read_json(folder / rules.TUNED, "", {"crossfitted": dict, "tuned": dict})
        part = tuned["crossfitted"]
        found |= {"score": part["score"], "low": part["low"], "high": part["high"], "tuned": tuned["tuned"]["score"],
                  "optimism": tuned["optimism"]}  # fmt: skip
    return found


def collect(settings: Any, scale: scoring.Scale) -> tuple[list[dict[str, Any]], list[str]]:
    """The lines, best first, and what was left out with its reason."""
    lines, left_out = [], []
    for place in sorted(path for path in Path(settings.LOGS).glob("*") if path.is_dir()):
        seeds = experiments.seeds_of(settings.LOGS, place.name)
        if not seeds and any(place.glob(f"*/{runs.MODEL}")):
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
        heart = any(runs.read_model(path.parent).get("overfit") for path in place.glob(f"*/{runs.MODEL}"))
    except UserError as error:
        return str(error)
    return "learnt its images by heart (OVERFIT)" if heart else "not scored out of fold: make cv"


def table(lines: list[dict[str, Any]], differ: dict[str, list[str]]) -> list[dict[str, Any]]:
    """The lines as columns to print; what is not known is a dash."""
    shown = []
    for at, one in enumerate(lines):
        best_epoch = "chosen on" in one["found"].weights
        shown.append({
            "": at + 1,
            "experiment": one["experiment"] + (" *" if best_epoch else ""),
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


@command
def main(argv: list[str] | None = None) -> None:
    settings, _ = settings_module.command_line(argv, __doc__, {})
    scale = scoring.scale(settings.METRIC, "", settings.EMPTY)
    lines, left_out = collect(settings, scale)
    for text in left_out:
        print(f"left out: {text}")
    if not lines:
        raise UserError(
            f"No experiment in {settings.LOGS} has out-of-fold scores on {settings.TRAIN_FOLDS}. Run make cv"
        )
    differ = experiments.settings_that_differ([one["found"] for one in lines])
    shown = table(lines, differ)
    less = "" if scale.measure.higher else ", less is better"
    print(f"{settings.DATASET} by {scale.metric}{less}; a constant mask reaches {lines[0]['constant']:.4f}")
    print(console.table(shown))
    if any("*" in one["experiment"] for one in shown):
        print("  * its epochs were chosen on the folds that are reported (CHECKPOINT=best): the score flatters")
    if any(one["cross-fitted"] == "-" for one in shown):
        print("  -: not tuned; sorted by the untuned score. make tune EXPERIMENT=name gives the cross-fitted one")
    import pandas as pd

    path = Path(settings.OUTPUT, "leaderboard.csv")
    runs.write_text(path, pd.DataFrame(shown).rename(columns={"": "place"}).to_csv(index=False, lineterminator="\n"))
    print(f"the same as a table -> {path}\nIs one really better? make compare A=... B=...")


if __name__ == "__main__":
    sys.exit(main())
