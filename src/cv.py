"""make cv: train and score every fold, skip what is finished, go on with what was stopped, end with mean and spread.

EXPERIMENT=a,b SEEDS=0,1,2 makes a table of runs, experiments x seeds x folds, and works it off: one process a device of
this computer, or on a Ray cluster (RAY=), or as a SLURM job array (SLURM=1). An experiment that has a folder keeps the
settings that its first run fixed; one of a recipe's name begins with that recipe. The same command again goes on.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import settings as settings_module
from data import splits
from jobs import fold_job, job_table, run_results, run_table
from jobs.run_results import refuse_failed
from jobs.run_table import Group, check, todo
from jobs.slurm import to_slurm
from scoring import gathered_scores
from tools import constants, recipes, run_folders
from tools.errors import UserError, command
from tools.files import read_json
from tools.flags import following, is_on, listed
from tools.names import check_name

if TYPE_CHECKING:
    from settings import Settings
    from tools.flags import Flags

FLAGS = {
    "OVERWRITE": "1: train finished folds again",
    "SEEDS": "seeds of the training, such as 0,1,2; without it SEED",
    "FOLDS": "folds of the table, such as 0,1; without it all",
    **job_table.FLAGS,
    "SLURM": "1: write a job array script for sbatch, and run nothing",
}


def table(settings: "Settings", flags: "Flags") -> list[Group]:
    """Return experiments x seeds with their folds. Raises UserError for what would fail every run of one of them."""
    typed = [text.partition("=")[0] for text in flags.overrides]
    if flags.SEEDS and "SEED" in typed:
        raise UserError("SEED= is one seed and SEEDS= several; give one of them.")
    names = listed("EXPERIMENT", settings.EXPERIMENT)
    seeds = listed("SEEDS", flags.SEEDS) if flags.SEEDS else [str(settings.SEED)]
    several = len(names) > 1 or any((flags.SEEDS, flags.FOLDS, flags.RAY, flags.SLURM))
    groups = []
    for name in names:
        check_name("EXPERIMENT", name)
        own, origin = _settings_of(name, flags, "EXPERIMENT" in typed) if several else (settings, "")
        for seed in seeds:
            seeded = settings_module.load([*own.lines(), f"SEED={seed}"])
            every = splits.fold_names(splits.read(Path(seeded.TRAIN_FOLDS)))
            groups.append(Group(seeded, origin, every, _chosen(flags.FOLDS, every, seeded.TRAIN_FOLDS)))
    seeds_of = [group.settings.SEED for group in groups[: len(seeds)]]
    if len(set(seeds_of)) < len(seeds):
        raise UserError(f"SEEDS={flags.SEEDS} names a seed twice.")
    return groups


def _settings_of(name: str, flags: "Flags", named: bool) -> tuple[Any, str]:
    """Return an experiment's settings and origin: those that its first run fixed, a recipe of its name, or neither.

    The recipes of RECIPE= and the command line are laid over these; `check` refuses what contradicts the fixed ones.
    """
    recipe = named and (recipes.FOLDER / f"{name}.cfg").is_file()
    first = recipes.read(name) if recipe else []
    over = [line for recipe in flags.RECIPE.split(",") if recipe for line in recipes.read(recipe)]
    over += [*flags.overrides, f"EXPERIMENT={name}"]
    settings = settings_module.load([*first, *over])
    if run_folders.is_ensemble(settings.LOGS, name):
        raise UserError(f"EXPERIMENT={name} is an ensemble; it has no network to train. Name its members.")
    path = Path(settings.LOGS, name, run_folders.SETTINGS)
    if not path.is_file():
        return settings, f"recipe {name}" if recipe else "the settings of this command"
    fixed = read_json(path, "Remove the experiment's folder or choose another EXPERIMENT=name.")
    known = {key: value for key, value in constants.renamed(fixed).items() if key in settings_module.DEFAULTS}
    lines = constants.lines_of(known)
    settings = settings_module.load([*first, *lines, *over])
    if not any(line.startswith("TRAIN_FOLDS=") for line in over):
        settings = replace(settings, TRAIN_FOLDS=_table_of(path.parent, settings.TRAIN_FOLDS, fixed))
    return settings, f"as its first run fixed it ({path})"


def _table_of(experiment: Path, table: str, fixed: dict[str, Any]) -> str:
    """Return the folds table that an experiment was trained on, where it still exists; else `table`."""
    begun, cure = sorted(experiment.glob(f"fold*/{run_folders.ORIGIN}")), "Remove that run's folder."
    then = [read_json(path, cure, {"settings": dict})["settings"].get("TRAIN_FOLDS") for path in begun]
    return str(run_folders.table_of(Path(table), then, fixed.get("folds_sha256")))


def _chosen(wanted: str, every: tuple[str, ...], table: str) -> tuple[str, ...]:
    chosen = listed("FOLDS", wanted) if wanted else every
    unknown = [fold for fold in chosen if fold not in every]
    if unknown:
        raise UserError(f"FOLDS={wanted}: {table} has the folds {', '.join(every)}, and no {unknown[0]}.")
    return tuple(chosen)


def perform(overrides: list[str], flags: dict[str, str]) -> str:
    """Train and score one fold in this process (see jobs.job_table.Job); return what is left to do, or ""."""
    overwrite = is_on(flags.get("OVERWRITE", ""))
    return fold_job.perform(settings_module.load(overrides), flags["FOLD"], overwrite)


@command
def main(argv: list[str] | None = None) -> None:
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    overwrite = is_on(flags.OVERWRITE)
    if settings.OVERFIT:
        raise UserError("OVERFIT scores the images it trains on: there is nothing to cross-validate; train one fold.")
    deadline = job_table.deadline_after(settings.MAX_MINUTES)  # of the whole command, caches included
    groups = table(settings, flags)
    from jobs import pools

    check(groups, overwrite)
    again = f"the same command{' without OVERWRITE=1' * overwrite}"
    if is_on(flags.SLURM):
        to_slurm(groups, flags)
        return
    runner = pools.choose(flags, settings.DEVICE)
    several = any((len(groups) > 1, flags.SEEDS, flags.FOLDS, flags.RAY))
    plain = not several and runner.at_once == 1
    alone = runner.at_once == 1 and (plain or sum(len(group.folds) for group in groups) == 1)
    if not plain:
        run_table.announce(groups, runner.words)
    chosen = todo(groups, overwrite, runner, short=not several, aloud=alone)
    events = run_table.work_off(groups, chosen, runner, deadline, again)
    states = {event.state for event in events}
    if plain and states <= {job_table.DONE}:
        gathered_scores.gather(settings)
        print(following("tune", flags))
        return
    if plain and job_table.FAILED in states:
        refuse_failed(groups, events, [], plain, again)
    lines, problems = run_results.gather(groups, aloud=len(groups) == 1)
    run_results.report(lines, flags.overrides)
    refuse_failed(groups, events, problems, plain, again)


if __name__ == "__main__":
    sys.exit(main())
