"""The section of a report on the search whose winner the experiment is: what was tried, and what that is worth."""

from pathlib import Path
from typing import Any

from jobs import search_space
from jobs.search_space import Parameter
from jobs.trials import FAILED, FINISHED, JOURNAL, Trial, Trials
from reporting import charts
from reporting.charts import Estimate
from tools.files import read_json

FIXED, RESULT = "search.json", "result.json"
FEW = 10  # with fewer finished trials importances are hardly more than a guess


def section(folder: Path) -> dict[str, Any]:
    """Return the charts and sentences of the search in `folder`; {} where there is none. Raises UserError."""
    if not (folder / FIXED).is_file() or not (folder / JOURNAL).is_file():
        return {}
    cure = f"Remove {folder}: it is what make search left."
    need = {"space": list, "folds": list, "every": list, "metric": str, "higher": bool, "seed": int}
    about = read_json(folder / FIXED, cure, need)
    result = read_json(folder / RESULT, cure) if (folder / RESULT).is_file() else {}
    space = [search_space.from_json(one) for one in about["space"]]
    trials = Trials(folder, space, about["higher"], about["seed"])
    finished = [trial for trial in trials.all() if trial.state == FINISHED]
    figures = [_history(trials, finished, about["metric"]), *_importances(trials, len(finished))] if finished else []
    figures += [_scatter(one, at, finished, trials.best(), about["metric"]) for at, one in enumerate(space) if finished]
    return {"figures": figures, "said": _said(about, result, trials), "failed": _failed(trials)}


def _said(about: dict[str, Any], result: dict[str, Any], trials: Trials) -> list[str]:
    """Return sentences on what was tried, how the winner was chosen, and what to believe."""
    have, best, metric = trials.all(), trials.best(), about["metric"]
    folds = f"fold{'s' * (len(about['folds']) > 1)} {', '.join(about['folds'])} of {', '.join(about['every'])}"
    failed = sum(trial.state == FAILED for trial in have)
    lines = [f"{len(have)} trials were tried" + (f", {failed} of which failed" if failed else "") + f", by {folds}."]
    if best is None:
        return [*lines, "None of them has a score."]
    lines.append(
        f"Trial {best.number} has won: {best.words}, {metric} {best.score:.4f} there. It is the best of many on the "
        "images that chose it, so this is no figure to report."
    )
    honest = result.get("honest")
    if not honest:
        return [*lines, "Its cross-validation under new seeds has not been finished: nothing honest is measured yet."]
    scores = ", ".join(f"{score:.4f} (seed {seed})" for seed, score in honest["scores"].items())
    other = honest["other_folds"]
    apart = f" On the folds that had no say in the choice: {other:.4f}." if other is not None else ""
    lines.append(f"Cross-validated under new seeds: {metric} {honest['mean']:.4f}, the one to report; {scores}.{apart}")
    if honest["trial"] != best.number:
        lines.append(f"That is trial {honest['trial']}: more trials were made since, and another one is ahead.")
    return lines


def _failed(trials: Trials) -> list[str]:
    return [f"trial {one.number} ({one.words}): {one.problem}" for one in trials.all() if one.state == FAILED]


def _history(trials: Trials, finished: list[Trial], metric: str) -> dict[str, str]:
    pick, best = max if trials.higher else min, list[float]()
    for trial in finished:
        best.append(pick([trial.score, *best[-1:]]))
    numbers, scores = [trial.number for trial in finished], [trial.score for trial in finished]
    svg = charts.scatter(
        "search-history",
        numbers,
        scores,
        "trial",
        f"{metric} on the search's folds",
        charts.Scale(whole=True),
        best=best,
    )
    return {"svg": svg, "caption": "A dot a trial; the line is the best so far."}


def _importances(trials: Trials, finished: int) -> list[dict[str, str]]:
    """Return the chart of importances; nothing where all scores are equal or only one constant was searched."""
    shares = trials.importances() if len(trials.space) > 1 else {}
    rows = [Estimate(name, share) for name, share in shares.items()]
    if not rows:
        return []
    svg = charts.intervals("search-importances", rows, "share of the scores' variance")
    few = f" Of {finished} trials: a guess." if finished < FEW else ""
    return [
        {"svg": svg, "caption": f"What mattered (fANOVA): the share of the variance that a constant explains.{few}"}
    ]


def _scatter(one: Parameter, at: int, finished: list[Trial], best: Trial | None, metric: str) -> dict[str, str]:
    """Return a chart of each trial's score against its value of one constant."""
    values = [trial.values[one.name] for trial in finished]
    x = [float(one.options.index(value)) if one.options else float(value) for value in values]
    mark = next((place for place, trial in enumerate(finished) if best and trial.number == best.number), None)
    svg = charts.scatter(
        f"search-{at}", x, [trial.score for trial in finished], one.name + (" (log)" if one.log else ""),
        f"{metric} on the search's folds",
        charts.Scale(one.log, None if one.options else (one.low, one.high), one.options, one.whole), mark=mark,
    )  # fmt: skip
    return {"svg": svg, "caption": f"{one.name} = {one.text}" + (f": {one.reason}." if one.reason else ".")}
