"""make cv: train and score every fold, one process each, skip what is finished, and end with mean and spread.

A fresh process for each fold, because memory is not given back between trainings in one.
"""

import multiprocessing
import sys
from pathlib import Path
from typing import Any

import runs
import settings as settings_module
import splits
from errors import UserError, command

PRELOAD = [
    "pandas",
    "segmentation_models_pytorch",
    "lightning_module",
    "callbacks",
    "predictor",
]  # imported once for all folds
FLAGS = {"OVERWRITE": "1: train finished folds again"}


def _one_fold(settings: Any, fold: str, resume: bool, overwrite: bool, outcome: Any) -> None:
    """A child process: train, then score; says what went wrong in a sentence."""
    import tester
    import train

    try:
        if overwrite or fold not in runs.finished_folds(settings.LOGS, settings.EXPERIMENT, settings.SEED):
            train.fit(settings, fold, resume=resume, overwrite=overwrite)
        tester.score_fold(settings, fold)
    except (UserError, OSError) as error:
        outcome.put(str(error))
    except KeyboardInterrupt:
        outcome.put("stopped by Ctrl-C")


def run_fold(settings: Any, fold: str, overwrite: bool) -> str:
    """Train and score one fold in a process of its own; returns what went wrong, "" where nothing did."""
    folder = runs.run_folder(settings.LOGS, settings.EXPERIMENT, fold, settings.SEED)
    resume = runs.resumable(folder) and not overwrite
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    outcome = context.SimpleQueue()
    child = context.Process(target=_one_fold, args=(settings, fold, resume, overwrite, outcome))
    child.start()
    child.join()
    if not outcome.empty():
        return outcome.get()
    return "" if child.exitcode == 0 else f"its process ended with code {child.exitcode}"


@command
def main(argv: list[str] | None = None) -> None:
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    overwrite = settings_module.flag_is_on(flags.OVERWRITE)
    if settings.OVERFIT:
        raise UserError("OVERFIT scores the images it trains on: there is nothing to cross-validate; train one fold.")
    frame = splits.read(Path(settings.TRAIN_FOLDS))
    import tester

    tester.refuse_unscorable(settings)
    folds = [str(fold) for fold in sorted(set(frame["kfold"]) - {-1})]
    failed = []
    if not overwrite:
        from train import fixed_settings

        runs.check_experiment(Path(settings.LOGS, settings.EXPERIMENT), fixed_settings(settings))
    for fold in folds:
        folder = runs.run_folder(settings.LOGS, settings.EXPERIMENT, fold, settings.SEED)
        if not overwrite and (folder / runs.MODEL).is_file() and (folder / "val" / "summary.json").is_file():
            print(f"fold {fold}: finished already, skipped ({folder})", flush=True)
            continue
        problem = run_fold(settings, fold, overwrite)
        if problem:
            failed.append(f"fold {fold}: {problem}")
            print(f"error: {failed[-1]}", file=sys.stderr, flush=True)
    if failed:
        raise UserError(
            f"{len(failed)} of {len(folds)} folds failed; make cv again goes on with them. The first: {failed[0]}"
        )
    tester.gather(settings)


if __name__ == "__main__":
    sys.exit(main())
