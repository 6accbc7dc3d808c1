"""What make tune does: try rules on the held-out predictions, choose, and put an honest number beside the choice."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data import splits
from metrics import bootstrap
from prediction import chosen_rule
from scoring import blind_baseline, out_of_fold, rule_choice, rule_trials, score_rows, score_summary
from scoring.out_of_fold import OutOfFold
from scoring.rule_choice import Choice
from scoring.rule_trials import Trials
from scoring.score_rows import Scale
from tools import console
from tools.files import write_json, write_text

if TYPE_CHECKING:
    from settings import Settings

CROSSFITTED = "tuned_scores.csv"  # rows of the cross-fitted masks


def tune(settings: "Settings") -> Path:
    """Try the rules, choose, score, write and announce; return the path of tuned.json."""
    chosen_rule.refuse_tuned(settings)
    scale = score_rows.scale(settings.METRIC, "", settings.EMPTY)
    found = out_of_fold.read(settings)
    rule = chosen_rule.configured(settings, found.spec)[0]
    tried = rule_trials.run(found, rule, scale, settings.MAX_PIXELS)
    folds = found.table["kfold"].to_numpy()
    choice = rule_choice.search(tried, folds, scale)
    crossfitted = rule_choice.by_fold(choice.crossfitted, folds)
    ways = {
        "untuned": np.zeros_like(crossfitted),
        "crossfitted": crossfitted,
        "tuned": np.broadcast_to(choice.overall, crossfitted.shape),
        **{way: rule_choice.by_fold(chosen, folds) for way, chosen in choice.ways.items()},
    }
    groups = found.table["group"].to_numpy()
    weights = bootstrap.group_weights(groups, score_summary.DRAWS)
    scores: dict[str, dict[str, Any]] = {}
    for name, chosen in ways.items():
        counts, values = rule_choice.pick(tried, chosen)
        score = score_summary.interval(scale.measure, counts, values, weights, groups, scale.empty)
        scores[name] = dict(zip(("score", "low", "high"), score, strict=True))
    picked = rule_choice.pick(tried, crossfitted)
    held_out = _constants_on_held_out(settings, found, scale)
    counts_of, values_of = ({"model": model, "constant": of} for model, of in zip(picked, held_out, strict=True))
    beside = score_summary.metric(counts_of, values_of, found.spec.scored_names, weights, groups, scale)
    scores["crossfitted"] |= {key: value for key, value in beside.items() if key != "model"}
    result = _result(found, scale, tried, choice, scores)
    folder = Path(settings.LOGS, found.experiment, f"oof_seed{found.seed}")
    _write_scores(folder, found, *picked)
    write_json(folder / chosen_rule.TUNED, result)
    _announce(result, found, tried, choice)
    return folder / chosen_rule.TUNED


def _constants_on_held_out(settings: "Settings", found: OutOfFold, scale: Scale) -> tuple[np.ndarray, np.ndarray]:
    """Return counts (N, S, 4) and the METRIC's values (N, S) of each fold's constant masks."""
    every_row = found.pairs(settings.MAX_PIXELS).of(splits.read(Path(settings.TRAIN_FOLDS)))
    constants = blind_baseline.by_fold(every_row, scale, found.folders)
    return blind_baseline.on_held_out(found, constants, scale, settings.MAX_PIXELS)


def _result(
    found: OutOfFold, scale: Scale, tried: Trials, choice: Choice, scores: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Return what tuned.json holds; scores: of each way, to which the rules are added."""

    def rules(numbers: list[int]) -> list[dict[str, Any]]:
        return [tried.rules[number].as_json() for number in numbers]

    scores["untuned"]["rules"] = rules([0] * len(found.spec.scored))
    scores["crossfitted"]["rules"] = {str(fold): rules(best) for fold, best in choice.crossfitted.items()}
    scores["tuned"]["rules"] = rules(choice.overall)
    sign = 1 if scale.measure.higher else -1
    return {
        "experiment": found.experiment,
        "seed": found.seed,
        "metric": scale.metric,
        "higher": scale.measure.higher,
        "empty_policy": scale.empty,
        "classes": list(found.spec.scored_names),
        "rules_tried": len(tried.rules),
        **scores,
        "optimism": sign * (scores["tuned"]["score"] - scores["crossfitted"]["score"]),
        "curve": rule_choice.curve(tried, choice.scores),
        "provenance": found.provenance,
    }


def _write_scores(folder: Path, found: OutOfFold, counts: np.ndarray, values: np.ndarray) -> None:
    """Write the rows of the cross-fitted masks, for make compare TUNED=1."""
    import pandas as pd

    names = found.spec.scored_names
    rows = found.table.loc[found.table.index.repeat(len(names)), ["image", "kfold", "group"]].reset_index(drop=True)
    rows.insert(1, "class", list(names) * len(found.table))
    flat = pd.DataFrame(counts.reshape(-1, 4), columns=["tp", "fp", "fn", "tn"])
    table = pd.concat([rows, flat, pd.Series(values.reshape(-1), name="score")], axis=1)
    write_text(folder / CROSSFITTED, table.to_csv(index=False, lineterminator="\n"))


def _announce(result: dict[str, Any], found: OutOfFold, tried: Trials, choice: Choice) -> None:
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
        ways = {rule_choice.COMPONENTS: "each connected component of a mask is an object"}
        ways[rule_choice.WATERSHED] = "touching objects are cut apart"
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
