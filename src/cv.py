"""make cv: train and score every fold, skip what is finished, go on with what was stopped, end with mean and spread.

EXPERIMENT=a,b SEEDS=0,1,2 makes a table of runs, experiments x seeds x folds, and works it off: one process a device of
this computer, or on a Ray cluster (RAY=), or as a SLURM job array (SLURM=1). An experiment that has a folder keeps the
settings that its first run fixed; one of a recipe's name begins with that recipe. The same command again goes on.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jobs
import run_table
import runs
import settings as settings_module
import splits
import tester
from errors import UserError, command, listing
from jobs import Job
from run_table import Group

FLAGS = {
    "OVERWRITE": "1: train finished folds again",
    "SEEDS": "seeds of the training, such as 0,1,2; without it SEED",
    "FOLDS": "folds of the table, such as 0,1; without it all",
    **jobs.FLAGS,
    "SLURM": "1: write a job array script for sbatch, and run nothing",
}


def perform(overrides: list[str], flags: dict[str, str]) -> str:
    """Train one fold, or go on with it, then score it; returns what is left to do (see jobs.Job). Raises UserError."""
    import train

    settings, fold = settings_module.load(overrides), flags["FOLD"]
    overwrite = settings_module.flag_is_on(flags.get("OVERWRITE", ""))
    folder = runs.run_folder(settings.LOGS, settings.EXPERIMENT, fold, settings.SEED)
    if overwrite or not (folder / runs.MODEL).is_file():
        train.fit(settings, fold, resume=runs.resumable(folder) and not overwrite, overwrite=overwrite)
    if not (folder / runs.MODEL).is_file():
        return "MAX_MINUTES stopped its training"
    tester.score_fold(settings, fold)
    return ""


def job_of(settings: Any, fold: str, overwrite: bool, label: str = "", log: str = "") -> Job:
    """One run as a job."""
    folder = runs.run_folder(settings.LOGS, settings.EXPERIMENT, fold, settings.SEED)
    paths = (str(folder), str(folder.with_name(runs.SETTINGS)))
    values = settings_module.snapshot(settings)
    del values["MAX_MINUTES"]  # each gets what remains
    flags = {"FOLD": fold, "OVERWRITE": str(int(overwrite))}
    return Job(label or f"fold {fold}", "cv", tuple(settings_module.lines_of(values)), flags, log, paths, paths)


def run_fold(settings: Any, fold: str, label: str, log: str) -> str:
    """Train and score one fold in a process of its own, which prints to the file `log`; returns what went wrong, or "".

    A terminal shows the last that it printed, under `label`. What MAX_MINUTES stopped is told as a problem too: the
    same call goes on.
    """
    from job_status import Live
    from processes import Processes, places

    devices, _ = places(settings.DEVICE, 1)
    deadline = jobs.deadline_after(settings.MAX_MINUTES)
    job = job_of(settings, fold, False, label, log)
    (event,) = jobs.work_off([job], Processes(devices), Live(1), deadline)
    return "" if event.state == jobs.DONE else event.text


def table(settings: Any, flags: Any) -> list[Group]:
    """Experiments x seeds with their folds. Raises UserError for whatever would fail every run of one of them."""
    typed = [text.partition("=")[0] for text in flags.overrides]
    if flags.SEEDS and "SEED" in typed:
        raise UserError("SEED= is one seed and SEEDS= several; give one of them.")
    names = jobs.listed("EXPERIMENT", settings.EXPERIMENT)
    seeds = jobs.listed("SEEDS", flags.SEEDS) if flags.SEEDS else [str(settings.SEED)]
    several = len(names) > 1 or any((flags.SEEDS, flags.FOLDS, flags.RAY, flags.SLURM))
    groups = []
    for name in names:
        runs.check_name("EXPERIMENT", name)
        own, origin = _settings_of(name, flags, "EXPERIMENT" in typed) if several else (settings, "")
        for seed in seeds:
            seeded = settings_module.load([*settings_module.lines_of(settings_module.snapshot(own)), f"SEED={seed}"])
            every = splits.fold_names(splits.read(Path(seeded.TRAIN_FOLDS)))
            groups.append(Group(seeded, origin, every, _chosen(flags.FOLDS, every, seeded.TRAIN_FOLDS)))
    seeds_of = [group.settings.SEED for group in groups[: len(seeds)]]
    if len(set(seeds_of)) < len(seeds):
        raise UserError(f"SEEDS={flags.SEEDS} names a seed twice.")
    return groups


def _settings_of(name: str, flags: Any, named: bool) -> tuple[Any, str]:
    """An experiment's settings and where they come from: what its first run fixed, or a recipe of its name, or neither.

    The recipes of RECIPE= and the command line are laid over these; where they contradict what is fixed, `check`
    refuses.
    """
    recipe = named and (settings_module.RECIPES / f"{name}.cfg").is_file()
    first = settings_module.read_recipe(name) if recipe else []
    over = [line for recipe in flags.RECIPE.split(",") if recipe for line in settings_module.read_recipe(recipe)]
    over += [*flags.overrides, f"EXPERIMENT={name}"]
    settings = settings_module.load([*first, *over])
    if runs.is_ensemble(settings.LOGS, name):
        raise UserError(f"EXPERIMENT={name} is an ensemble; it has no network to train. Name its members.")
    path = Path(settings.LOGS, name, runs.SETTINGS)
    if not path.is_file():
        return settings, f"recipe {name}" if recipe else "the settings of this command"
    fixed = runs.read_json(path, "Remove the experiment's folder or choose another EXPERIMENT=name.")
    lines = settings_module.lines_of({key: value for key, value in fixed.items() if key in settings_module.DEFAULTS})
    settings = settings_module.load([*first, *lines, *over])
    if not any(line.startswith("TRAIN_FOLDS=") for line in over):
        settings = replace(settings, TRAIN_FOLDS=_table_of(path.parent, settings.TRAIN_FOLDS, fixed))
    return settings, f"as its first run fixed it ({path})"


def _table_of(experiment: Path, table: str, fixed: dict[str, Any]) -> str:
    """The folds table that an experiment was trained on, where it is still there; else `table`."""
    begun, cure = sorted(experiment.glob(f"fold*/{runs.ORIGIN}")), "Remove that run's folder."
    then = [runs.read_json(path, cure, {"settings": dict})["settings"].get("TRAIN_FOLDS") for path in begun]
    return str(runs.table_of(Path(table), then, fixed.get("folds_sha256")))


def _chosen(wanted: str, every: tuple[str, ...], table: str) -> tuple[str, ...]:
    chosen = jobs.listed("FOLDS", wanted) if wanted else every
    unknown = [fold for fold in chosen if fold not in every]
    if unknown:
        raise UserError(f"FOLDS={wanted}: {table} has the folds {', '.join(every)}, and no {unknown[0]}.")
    return tuple(chosen)


def check(groups: list[Group], overwrite: bool) -> None:
    """Refuse, before any training, what would stop it or the scoring after it."""
    from train import fixed_settings, refuse_what_does_nothing

    fixed_by: dict[str, str] = {}
    for group in groups:
        if group.settings.DEVICES * group.settings.NODES > 1:
            raise UserError(
                "make cv trains each fold on one device, many at a time; DEVICES and NODES are make train's."
            )
        tester.refuse_unscorable(group.settings)
        refuse_what_does_nothing(group.settings, group.folds[0])
        name, fixed = group.settings.EXPERIMENT, fixed_settings(group.settings)
        if not overwrite:
            runs.check_experiment(Path(group.settings.LOGS, name), fixed, settings_module.DEFAULTS)
        same = fixed_by.setdefault(str(sorted(fixed.items(), key=lambda item: item[0])), name)
        if same != name and group.settings.SEED == groups[0].settings.SEED:
            print(f"warning: {same} and {name} have the same settings, so the same networks are trained twice.")


def todo(groups: list[Group], overwrite: bool, runner: Any, short: bool, aloud: bool) -> list[Job]:
    """The runs that are to be done, as jobs; says which are finished. short: labels by fold only; aloud: no files."""
    chosen = []
    for group in groups:
        name, seed = group.settings.EXPERIMENT, group.settings.SEED
        settings = replace(group.settings, WORKERS=runner.workers(group.settings.WORKERS))
        for fold in group.folds:
            label, folder = f"fold {fold}" if short else f"{name}, fold {fold}, seed {seed}", group.folder(fold)
            if not overwrite and group.is_scored(fold):
                print(f"{label}: finished already, skipped ({folder})", flush=True)
                continue
            log = Path(settings.OUTPUT, "cv", f"{name}_{folder.name}.log")
            chosen.append(job_of(settings, fold, overwrite, label, "" if aloud else str(log)))
    return chosen


def to_slurm(groups: list[Group], flags: Any) -> None:
    """Write the job array script of what is not finished, and say how it is submitted."""
    import runners
    import slurm

    if settings_module.flag_is_on(flags.OVERWRITE) or flags.RAY:
        other = "RAY=" if flags.RAY else "OVERWRITE=1"
        why = "has a queue of its own" if flags.RAY else "would throw away what a requeued element goes on from"
        raise UserError(f"SLURM=1 and {other}: {other} {why}; leave it out.")
    first, lines = groups[0].settings, []
    gpus = runners.gpus_of(flags)
    if gpus % 1:  # of NaN too
        if flags.GPUS:
            raise UserError(f"GPUS={flags.GPUS}: SLURM counts whole GPUs.")
        gpus = 0.0 if first.DEVICE == "cpu" else 1.0
    typed = [text for text in flags.overrides if text.partition("=")[0] not in ("EXPERIMENT", "SEED")]
    named = any(text.startswith("EXPERIMENT=") for text in flags.overrides)
    for group in groups:
        words = [f"RECIPE={flags.RECIPE}"] * bool(flags.RECIPE) + typed
        words += [f"EXPERIMENT={group.settings.EXPERIMENT}"] * named + [f"SEEDS={group.settings.SEED}"]
        lines += [[*words, f"FOLDS={fold}"] for fold in group.folds if not group.is_scored(fold)]
    if not lines:
        raise UserError("All of these runs are finished and scored; there is nothing to submit.")
    at_once, cpus = jobs.whole_number("JOBS", flags.JOBS, len(lines)), runners.cores_of(flags)
    folder = Path(first.OUTPUT, "slurm")
    run_table.announce(groups, "as a SLURM job array")
    script = slurm.write(folder, lines, name=f"{first.DATASET}-cv", jobs=at_once, gpus=int(gpus), cpus=cpus)
    print(f"{len(lines)} runs, an element each\nNext: sbatch {script}")
    print("The element that ends an experiment scores its folds together; the same make cv without SLURM=1 shows all.")


def refuse_failed(groups: list[Group], events: list[Any], problems: list[str], plain: bool, again: str) -> None:
    """End with a sentence: what failed (raises UserError), or what MAX_MINUTES has left."""
    failed = [f"{event.job.label}: {event.text}" for event in events if event.state == jobs.FAILED]
    left = [f"{event.job.label}: {event.text}" for event in events if event.state == jobs.LEFT]
    count = sum(len(group.folds) for group in groups)
    if failed and plain:
        first = f"The first: {failed[0]}"
        raise UserError(f"{len(failed)} of {count} folds failed; make cv again goes on with them. {first}")
    if failed:
        raise UserError(f"{len(failed)} of {count} runs failed; {again} goes on with them:{listing(failed)}")
    if problems:
        raise UserError(f"What could not be scored out of fold:{listing(problems)}")
    if left:
        minutes = f"MAX_MINUTES={groups[0].settings.MAX_MINUTES:g}"
        print(f"{minutes} is over: {len(left)} of {count} runs are left, and {again} goes on:{listing(left)}")


@command
def main(argv: list[str] | None = None) -> None:
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    overwrite = settings_module.flag_is_on(flags.OVERWRITE)
    if settings.OVERFIT:
        raise UserError("OVERFIT scores the images it trains on: there is nothing to cross-validate; train one fold.")
    deadline = jobs.deadline_after(settings.MAX_MINUTES)  # of the whole command, caches included
    groups = table(settings, flags)
    import runners

    check(groups, overwrite)
    again = f"the same command{' without OVERWRITE=1' * overwrite}"
    if settings_module.flag_is_on(flags.SLURM):
        to_slurm(groups, flags)
        return
    runner = runners.choose(flags, settings.DEVICE)
    several = any((len(groups) > 1, flags.SEEDS, flags.FOLDS, flags.RAY))
    plain = not several and runner.at_once == 1
    alone = runner.at_once == 1 and (plain or sum(len(group.folds) for group in groups) == 1)
    if not plain:
        run_table.announce(groups, runner.words)
    chosen = todo(groups, overwrite, runner, short=not several, aloud=alone)
    events = run_table.work_off(groups, chosen, runner, deadline, again)
    states = {event.state for event in events}
    if plain and states <= {jobs.DONE}:
        tester.gather(settings)
        return
    if plain and jobs.FAILED in states:
        refuse_failed(groups, events, [], plain, again)
    lines, problems = run_table.gather(groups, aloud=len(groups) == 1)
    run_table.report(lines, flags.overrides)
    refuse_failed(groups, events, problems, plain, again)


if __name__ == "__main__":
    sys.exit(main())
