"""A trial's runs: trained and scored in child processes, summarized, and tidied up."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs import fold_job
from jobs.trials import FINISHED, Trial, Trials
from scoring import fold_scores, gathered_scores, out_of_fold, score_summary
from tools import locks, run_folders
from tools.errors import UserError, listing
from tools.files import write_text
from training import builders

if TYPE_CHECKING:
    from jobs.search_run import Search
    from scoring.score_rows import Scale
    from settings import Settings

KEPT = ("metrics.csv", "scores.csv", "summary.json", run_folders.MODEL, run_folders.ORIGIN, run_folders.SETTINGS)
LOG = ".log"


class TimeOverError(Exception):
    """The end of MAX_MINUTES."""


def run_fold(settings: "Settings", fold: str, is_over: Callable[[], bool], label: str, log: Path) -> str:
    """Train and score a fold unless that is done, or continue it; return its problem, "" for none.

    It prints to the end of the file `log`; `label` names it in a terminal. Raises KeyboardInterrupt and TimeOverError
    where it is left unfinished, and UserError where another process works on it.
    """
    folder = run_folders.run_folder(settings.LOGS, settings.EXPERIMENT, fold, settings.SEED)
    if fold_scores.is_scored(folder):
        return ""
    with locks.exclusive(folder, "Wait for it; then the same command goes on."):
        pass  # the training of a killed search has not ended yet: no failure of the trial
    problem = fold_job.run_fold(settings, fold, label, str(log))
    if problem == "stopped by Ctrl-C":
        raise KeyboardInterrupt
    if problem and is_over():
        raise TimeOverError
    return f"{problem} (all of it: {log})" if problem else ""


def score_of(settings: "Settings", folds: Sequence[str], scale: "Scale") -> float:
    """Return the METRIC over the held-out images of these folds, as tester scored them; NaN where none has a score."""
    import pandas as pd

    parts = []
    for fold in folds:
        run = run_folders.run_folder(settings.LOGS, settings.EXPERIMENT, fold, settings.SEED)
        parts.append(fold_scores.read_scores(run / out_of_fold.VALIDATION, f"Remove {run}."))
    return score_summary.score(pd.concat(parts), builders.data_spec(settings).scored_names, scale)


def tidy(folder: Path) -> None:
    """Remove all but curves, scores and logs of a trial's runs: weights, checkpoints and maps would fill the disk."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.name not in KEPT and path.suffix != LOG:
            path.unlink()


def write_table(path: Path, trials: Sequence[Trial], metric: str) -> None:
    """Write the trials as a CSV, a row for each."""
    import pandas as pd

    rows = [
        {"trial": one.number, "state": one.state.lower(), metric: one.score, "minutes": one.minutes}
        | one.values
        | {"problem": one.problem}
        for one in trials
    ]
    write_text(path, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))


def said(trials: Trials, trial: Trial, total: int, metric: str) -> str:
    """Return a trial's line: number, values, score, the best so far, how many trials and minutes are left."""
    best, have = trials.best(), trials.all()
    outcome = f"{metric} {trial.score:.4f}" if trial.state == FINISHED else f"FAILED: {trial.problem}"
    so_far = f"best so far {best.score:.4f} (trial {best.number})" if best else "none has a score yet"
    to_go = max(0, total - len(have))
    left = math.ceil(to_go * sum(one.minutes for one in have) / len(have))
    return (
        f"trial {trial.number} ({trial.words}): {outcome} after {trial.minutes:.1f} minutes; {so_far}; "
        f"{to_go} to go" + (f", about {left} minutes" if to_go else "")
    )


def cross_validate(search: "Search", winner: Trial) -> dict[str, Any]:
    """Train and score the winner of a search (see search_run.Search) on all folds under new seeds; return the scores.

    Raises TimeOverError, and UserError where a run fails or the experiment holds another winner's runs.
    """
    experiment, failed, scored = Path(search.settings.LOGS, search.name), [], {}
    _refuse_another_winner(search, winner, experiment)
    for seed in search.seeds:
        for fold in search.every:
            settings = search.with_values(winner.values, f"EXPERIMENT={search.name}", f"SEED={seed}")
            label, start = f"fold {fold}, seed {seed}", time.monotonic()
            log = Path(settings.OUTPUT, "cv", f"{search.name}_fold{fold}_seed{seed}{LOG}")  # as make cv names it
            problem = run_fold(settings, fold, search.is_over, label, log)
            failed += [f"{label}: {problem}"] if problem else []
            outcome = f"FAILED: {problem}" if problem else "trained and scored"
            print(f"{label}: {outcome} after {(time.monotonic() - start) / 60:.1f} minutes", flush=True)
        if not failed:
            scored[str(seed)] = gathered_scores.gather(settings)
    if failed:
        raise UserError(
            f"{len(failed)} runs of the winner failed; the same command goes on with them:{listing(failed)}"
        )
    scores = {seed: summary["score"]["model"] for seed, summary in scored.items()}
    others = [
        mean
        for summary in scored.values()
        for fold, mean in summary["folds"].items()
        if str(fold) not in search.folds and not math.isnan(mean)
    ]
    return {
        "trial": winner.number,
        "values": winner.values,
        "scores": scores,
        "mean": sum(scores.values()) / len(scores),
        "other_folds": sum(others) / len(others) if others else None,
    }


def _refuse_another_winner(search: "Search", winner: Trial, experiment: Path) -> None:
    """Refuse, with UserError, to mix two winners in one experiment: after more trials another one may have won."""
    from training.preparation import fixed_settings

    settings = search.with_values(winner.values, f"EXPERIMENT={search.name}")
    try:
        run_folders.check_experiment(experiment, fixed_settings(settings), settings.defaults())
    except UserError as error:
        raise UserError(
            f"{experiment} is the cross-validation of another winner than trial {winner.number}, which has won now. "
            f"Remove that folder, and the same command cross-validates this one. ({error})"
        ) from error
