"""make tune: the best rule from probability to mask, and an honest number for it.

Reads the held-out predictions of every fold; writes tuned.json and tuned_scores.csv in oof_seed<s>/. Three scores stand
side by side: untuned, cross-fitted (each fold by what was chosen on the others: the one to believe), and tuned on
everything. Use the result with POSTPROCESS=tuned.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import settings as settings_module
from data import splits
from metrics import bootstrap
from prediction import chosen_rule
from scoring import blind_baseline, out_of_fold, rule_tuning, score_rows, score_summary
from scoring.rule_tuning import by_fold, scores_json, write_tuned_scores
from tools import console
from tools.errors import command
from tools.files import write_json

if TYPE_CHECKING:
    from settings import Settings


def tune(settings: "Settings", experiment: str = "", seed: int | None = None) -> dict[str, Any]:
    """Search, score, write and announce; returns what tuned.json holds."""
    scale = score_rows.scale(settings.METRIC, "", settings.EMPTY)
    found = out_of_fold.read(settings, experiment, seed)
    rule = chosen_rule.configured(settings, found.spec)[0]
    tried = rule_tuning.table(found, rule, scale, settings.MAX_PIXELS)
    folds = found.table["kfold"].to_numpy()
    choice = rule_tuning.search(tried, folds, scale)
    shape = len(folds), len(found.spec.scored)
    ways = {
        "untuned": np.zeros(shape, int),
        "crossfitted": by_fold(choice.crossfitted, folds),
        "tuned": np.broadcast_to(choice.overall, shape),
        **{way: by_fold(chosen, folds) for way, chosen in choice.ways.items()},
    }
    groups, names = found.table["group"].to_numpy(), found.spec.scored_names
    constants = blind_baseline.by_fold(
        found.root, splits.read(Path(settings.TRAIN_FOLDS)), found.spec, scale, settings.MAX_PIXELS, found.folders
    )
    weights = bootstrap.group_weights(groups, score_summary.DRAWS)
    result: dict[str, Any] = {
        "experiment": found.experiment,
        "seed": found.seed,
        "metric": scale.metric,
        "higher": scale.measure.higher,
        "empty_policy": scale.empty,
        "classes": list(names),
        "rules_tried": len(tried.rules),
    }
    for name, chosen in ways.items():
        picked = rule_tuning.pick(tried, chosen)
        score, low, high = score_summary.interval(scale.measure, *picked, weights, groups, scale.empty)
        result[name] = {"score": score, "low": low, "high": high}
    compared = (
        rule_tuning.pick(tried, ways["crossfitted"]),
        blind_baseline.on_held_out(found, constants, scale, settings.MAX_PIXELS),
    )
    counts, values = (dict(zip(("model", "constant"), pair, strict=True)) for pair in zip(*compared, strict=True))
    beside = score_summary.metric(counts, values, names, weights, groups, scale)
    result["crossfitted"] |= {key: value for key, value in beside.items() if key != "model"}
    result["untuned"]["rules"] = scores_json(tried, [0] * shape[1])
    result["crossfitted"]["rules"] = {str(fold): scores_json(tried, best) for fold, best in choice.crossfitted.items()}
    result["tuned"]["rules"] = scores_json(tried, choice.overall)
    sign = 1 if scale.measure.higher else -1
    result["optimism"] = sign * (result["tuned"]["score"] - result["crossfitted"]["score"])
    result["curve"] = rule_tuning.curve(tried, choice.scores)
    result["provenance"] = found.provenance
    folder = Path(settings.LOGS, found.experiment, f"oof_seed{found.seed}")
    write_tuned_scores(folder, found, counts["model"], values["model"])
    write_json(folder / chosen_rule.TUNED, result)
    _announce(result, found, tried, choice)
    print(f"the rule, with what it was tuned under -> {folder / chosen_rule.TUNED}")
    return result


def _announce(
    result: dict[str, Any], found: out_of_fold.OutOfFold, tried: rule_tuning.Table, choice: rule_tuning.Choice
) -> None:
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
    print(f"  a constant mask, which ignores the image: {result['crossfitted']['constant']:.4f}")
    if no_better := blind_baseline.said(result["crossfitted"], result["higher"]):
        print(f"  {no_better}")
    if choice.ways:
        print("Which way to objects scores better, each cross-fitted by itself:")
        ways = {rule_tuning.COMPONENTS: "each connected component of a mask is an object"}
        ways[rule_tuning.WATERSHED] = "touching objects are cut apart"
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
    chosen_rule.refuse_tuned(settings)
    tune(settings)


if __name__ == "__main__":
    sys.exit(main())
