"""make tune: the best rule from probability to mask, and an honest number for it.

Reads the held-out predictions of every fold; writes tuned.json and tuned_scores.csv in oof_seed<s>/. Three scores stand
side by side: untuned, cross-fitted (each fold by what was chosen on the others: the one to believe), and tuned on
everything. Use the result with POSTPROCESS=tuned.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

import bootstrap
import console
import outoffold
import rules
import runs
import scoring
import settings as settings_module
import summaries
import tuning
from errors import command

CROSSFITTED = "tuned_scores.csv"  # rows of the cross-fitted masks


def tune(settings: Any, experiment: str = "", seed: int | None = None) -> dict[str, Any]:
    """Search, score, write and announce; returns what tuned.json holds."""
    scale = scoring.scale(settings.METRIC, "", settings.EMPTY)
    found = outoffold.read(settings, experiment, seed)
    rule = rules.configured(settings, found.spec)[0]
    tried = tuning.table(found, rule, scale, settings.MAX_PIXELS)
    folds = found.table["kfold"].to_numpy()
    choice = tuning.search(tried, folds, scale)
    shape = len(folds), len(found.spec.scored)
    ways = {
        "untuned": np.zeros(shape, int),
        "crossfitted": _by_fold(choice.crossfitted, folds),
        "tuned": np.broadcast_to(choice.overall, shape),
        **{way: _by_fold(chosen, folds) for way, chosen in choice.ways.items()},
    }
    groups = found.table["group"].to_numpy()
    weights = bootstrap.group_weights(groups, summaries.DRAWS)
    result: dict[str, Any] = {
        "experiment": found.experiment,
        "seed": found.seed,
        "metric": scale.metric,
        "higher": scale.measure.higher,
        "empty_policy": scale.empty,
        "classes": list(found.spec.scored_names),
        "rules_tried": len(tried.rules),
    }
    for name, chosen in ways.items():
        picked = tuning.pick(tried, chosen)
        score, low, high = summaries.interval(scale.measure, *picked, weights, groups, scale.empty)
        result[name] = {"score": score, "low": low, "high": high}
    result["untuned"]["rules"] = _json(tried, [0] * shape[1])
    result["crossfitted"]["rules"] = {str(fold): _json(tried, best) for fold, best in choice.crossfitted.items()}
    result["tuned"]["rules"] = _json(tried, choice.overall)
    sign = 1 if scale.measure.higher else -1
    result["optimism"] = sign * (result["tuned"]["score"] - result["crossfitted"]["score"])
    result["curve"] = tuning.curve(tried, choice.scores)
    result["provenance"] = found.provenance
    folder = Path(settings.LOGS, found.experiment, f"oof_seed{found.seed}")
    _write_scores(folder, found, *tuning.pick(tried, ways["crossfitted"]))
    runs.write_json(folder / rules.TUNED, result)
    _announce(result, found, tried, choice)
    print(f"the rule, with what it was tuned under -> {folder / rules.TUNED}")
    return result


def _by_fold(chosen: dict[int, list[int]], folds: np.ndarray) -> np.ndarray:
    """Numbers of rules (N, S) of images that lie in these folds."""
    return np.array([chosen[fold] for fold in folds.tolist()])


def _json(tried: tuning.Table, numbers: list[int]) -> list[dict[str, Any]]:
    return [tried.rules[number].as_json() for number in numbers]


def _write_scores(folder: Path, found: outoffold.OutOfFold, counts: np.ndarray, values: np.ndarray) -> None:
    """The cross-fitted rows, for make compare TUNED=1."""
    import pandas as pd

    names = found.spec.scored_names
    rows = found.table.loc[found.table.index.repeat(len(names)), ["image", "kfold", "group"]].reset_index(drop=True)
    rows.insert(1, "class", list(names) * len(found.table))
    flat = pd.DataFrame(counts.reshape(-1, 4), columns=["tp", "fp", "fn", "tn"])
    whole = pd.concat([rows, flat, pd.Series(values.reshape(-1), name="score")], axis=1)
    runs.write_text(folder / CROSSFITTED, whole.to_csv(index=False, lineterminator="\n"))


def _announce(result: dict[str, Any], found: outoffold.OutOfFold, tried: tuning.Table, choice: tuning.Choice) -> None:
    metric, less = result["metric"], "" if result["higher"] else " (less is better)"
    print(
        f"{found.experiment}, seed {found.seed}: {len(tried.rules)} rules on {len(found.table)} held-out images, "
        f"by {metric}{less}; EMPTY={result['empty_policy']}"
    )
    said = {
        "untuned": "as the constants say",
        "crossfitted": "each fold by what was best on the others: believe this one",
        "tuned": "chosen on the images it is scored on: what others would report",
    }
    _print_table(result, said)
    print(f"  optimism of tuning on everything: {result['optimism']:+.4f}")
    if choice.ways:
        print("Which way to objects scores better, each cross-fitted by itself:")
        ways = {tuning.COMPONENTS: "each connected component of a mask is an object"}
        ways[tuning.WATERSHED] = "touching objects are cut apart"
        _print_table(result, ways)
    for index, name in enumerate(found.spec.scored_names):
        of_class = f" of {name}" if len(found.spec.scored) > 1 else ""
        print(f"  The rule{of_class}, from all folds: {tried.rules[choice.overall[index]]}")
        for fold, best in choice.crossfitted.items():
            print(f"    fold {fold} was cut by: {tried.rules[best[index]]}")
    print("Use it: make inference POSTPROCESS=tuned, make submission POSTPROCESS=tuned (the same models, TTA and size)")


def _print_table(result: dict[str, Any], said: dict[str, str]) -> None:
    lines = [
        {
            "": {"crossfitted": "cross-fitted", "tuned": "tuned on everything"}.get(name, name),
            result["metric"]: result[name]["score"],
            "95% interval": f"{result[name]['low']:.4f}..{result[name]['high']:.4f}",
            " ": text,
        }
        for name, text in said.items()
    ]
    print(console.table(lines))


@command
def main(argv: list[str] | None = None) -> None:
    settings, _ = settings_module.command_line(argv, __doc__, {})
    rules.refuse_tuned(settings)
    tune(settings)


if __name__ == "__main__":
    sys.exit(main())
