"""The runs of make search: trials on some folds, then the winner's cross-validation. A stopped search can continue."""

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs import search_space, trial_runs
from jobs import trials as trials_module
from jobs.search_space import Parameter
from jobs.trial_runs import TimeOverError
from jobs.trials import RUNNING, Trial, Trials
from tools import constants, recipes, run_folders
from tools.errors import UserError, listing
from tools.files import read_json, write_json, write_text
from training import warm_start

FIXED, RESULT, WINNER, TABLE = "search.json", "result.json", "winner.cfg", "trials.csv"
PATIENCE = 5  # trials; once so many have failed and none succeeded, the others would fail too
QUIET = ("STEP_IMAGES=0", "LOGGER=none", "PROFILER=")  # a trial does without what nobody looks at


@dataclass(frozen=True)
class Search:
    """A search: the recipe's `settings`, the `space`, the trials' `folds`, `every` fold, the winner's name and seeds.

    `deadline`: of time.monotonic(), 0 for none.
    """

    name: str
    folder: Path
    settings: Any
    space: tuple[Parameter, ...]
    folds: tuple[str, ...]
    every: tuple[str, ...]
    seeds: tuple[int, ...]
    deadline: float

    @property
    def scale(self) -> Any:
        """Return the scale of the METRIC, by which trials are compared."""
        from scoring import score_rows

        return score_rows.scale(self.settings.METRIC, "", self.settings.EMPTY)

    def with_values(self, values: dict[str, str], *more: str) -> Any:
        """Return the recipe's settings with a trial's values and `more` NAME=value; MAX_MINUTES is what remains."""
        left = f"MAX_MINUTES={self.minutes_left():.4f}"
        settings = self.settings.changed(left, *(f"{name}={value}" for name, value in values.items()))
        # trials lie elsewhere, and the winner has other seeds
        start = [f"INIT={warm_start.anywhere(settings)}"] if settings.INIT else []
        return settings.changed(*start, *more)

    def minutes_left(self) -> float:
        """Return the minutes that remain, 0 for no limit. Raises TimeOverError."""
        if not self.deadline:
            return 0.0
        if self.is_over():
            raise TimeOverError
        return max(1e-4, (self.deadline - time.monotonic()) / 60)

    def is_over(self) -> bool:
        """Return whether MAX_MINUTES have passed."""
        return bool(self.deadline) and time.monotonic() >= self.deadline


def fixed_values(search: Search) -> dict[str, Any]:
    """Return what must stay the same from the start of a search to its end."""
    from training.preparation import fixed_settings

    return {
        **fixed_settings(search.settings),
        **search.settings.snapshot("scoring"),
        "SEED": search.settings.SEED,
        "FOLDS": list(search.folds),
        **{f"{recipes.SEARCH} {one.name}": one.text for one in search.space},
    }


def open_folder(search: Search) -> None:
    """Fix what is searched and on which folds, or refuse, with UserError, what differs from what was fixed."""
    path, now = search.folder / FIXED, fixed_values(search)
    if path.is_file():
        then = read_json(path, f"Remove {search.folder}, or give another NAME=.", {"fixed": dict})["fixed"]
        usual = [name for name, value in search.settings.defaults().items() if now.get(name) == value]
        differ = run_folders.differences(then, now, usual)
        if differ:
            raise UserError(
                f"{path}: all trials of a search share settings, folds and what is searched; these differ:"
                f"{listing(differ)}\nGive this one another NAME=, or remove {search.folder} to begin again."
            )
    elif (search.folder / trials_module.JOURNAL).exists():
        raise UserError(f"{path} is missing, and says what the journal beside it is of. Remove {search.folder}.")
    about = {"name": search.name, "metric": search.scale.metric, "higher": search.scale.measure.higher}
    about |= {"folds": list(search.folds), "every": list(search.every), "seed": search.settings.SEED}
    write_json(path, {**about, "space": [one.as_json() for one in search.space], "fixed": now})


def next_trial(search: Search, trials: Trials, total: int) -> Trial | None:
    """Return the trial that was running when the search stopped, or a new one; None where there are `total` already.

    The first trial has the recipe's own values, so that the winner is never worse than they are on the search's folds.
    """
    have = trials.all()
    running = next((trial for trial in have if trial.state == RUNNING), None)
    if running or len(have) >= total:
        return running
    search.minutes_left()
    own = {
        one.name: search_space.place_of(one, getattr(search.settings, one.name), search.settings.value_of)
        for one in search.space
    }
    inside = not have and all(value is not None for value in own.values())
    return trials.begin(own if inside else None)


def run_trial(search: Search, trial: Trial) -> tuple[float, str]:
    """Train and score a trial's folds, or continue them; return its score and its problem ("" for none)."""
    logs, experiment = search.folder / "runs", f"trial{trial.number:04d}"
    for fold in search.folds:
        settings = search.with_values(trial.values, f"LOGS={logs}", f"EXPERIMENT={experiment}", *QUIET)
        label, log = f"trial {trial.number}, fold {fold}", logs / experiment / f"fold{fold}{trial_runs.LOG}"
        problem = trial_runs.run_fold(settings, fold, search.is_over, label, log)
        if problem:
            return float("nan"), problem
    score = trial_runs.score_of(settings, search.folds, search.scale)
    return score, "none of the held-out images has a score (EMPTY=skip)" if math.isnan(score) else ""


def try_all(search: Search, trials: Trials, total: int) -> None:
    """Run the trials, and print a line for each. Raises TimeOverError."""
    for trial in trials.all():
        if trial.state != RUNNING:  # the search was killed after the trial ended, before the steps below
            trial_runs.tidy(search.folder / "runs" / f"trial{trial.number:04d}")
            trial_runs.write_table(search.folder / TABLE, trials.all(), search.scale.metric)
    while following := next_trial(search, trials, total):
        start = time.monotonic()
        print(f"trial {following.number}: {following.words}", flush=True)
        score, problem = run_trial(search, following)
        ended = trials.end(following, score, problem, (time.monotonic() - start) / 60)
        trial_runs.tidy(search.folder / "runs" / f"trial{following.number:04d}")
        trial_runs.write_table(search.folder / TABLE, trials.all(), search.scale.metric)
        print(trial_runs.said(trials, ended, total, search.scale.metric), flush=True)
        if ended.number + 1 >= PATIENCE:
            refuse_all_failed(search, trials)


def refuse_all_failed(search: Search, trials: Trials) -> Trial:
    """Return the best trial. Raises UserError where all failed: then the cause lies outside of what is searched."""
    have, best = trials.all(), trials.best()
    if best is None:
        raise UserError(
            f"All {len(have)} trials failed, the first of them so: {have[0].problem}\nOnce that is mended, begin "
            f"again: remove {search.folder}, or give another NAME=."
        )
    return best


def write_winner(search: Search, winner: Trial) -> Path:
    """Write the winner as a recipe: every value that differs from config.py, with the search's reasons."""
    settings = replace(search, deadline=0.0).with_values(winner.values)
    data = [f"DATASET={settings.DATASET}"]
    default, sections = settings.fresh(*data).snapshot(), ("data", "network", "training", "scoring")
    values = {
        name: value
        for name, value in settings.snapshot(*sections).items()
        if name not in ("SEED", "EXPERIMENT", "DATASET") and (value != default[name] or name in winner.values)
    }
    reasons = {one.name: f"of {one.text}" + (f": {one.reason}" if one.reason else "") for one in search.space}
    by = f"trial {winner.number} of make search, by fold {', '.join(search.folds)}"
    lines = [f"# {by}: {search.scale.metric} {winner.score:.4f} there, the best of many: no figure to report."]
    reasons["EXPERIMENT"] = "of its cross-validation"
    for line in [*data, f"EXPERIMENT={search.name}", *constants.lines_of(values)]:
        name, _, value = line.partition("=")
        lines.append(f"{name} = {value}  # {reasons.get(name, 'as the search was given it')}")
    path = search.folder / WINNER
    write_text(path, "\n".join(lines) + "\n")
    return path
