"""make cv: train and score every fold, skip what is finished, go on with what was stopped, end with mean and spread.

EXPERIMENT=a,b SEEDS=0,1,2 makes a table of runs, experiments x seeds x folds, and works it off: one process a device of
this computer, or on a Ray cluster (RAY=), or as a SLURM job array (SLURM=1). An experiment that has a folder keeps the
settings that its first run fixed; one of a recipe's name begins with that recipe. The same command again goes on.
"""

import sys

import settings as settings_module
from jobs import fold_job, job_table, run_results, run_table
from jobs.run_results import refuse_failed
from jobs.run_table import check, table, todo
from jobs.slurm import to_slurm
from scoring import gathered_scores
from tools.errors import UserError, command

FLAGS = {
    "OVERWRITE": "1: train finished folds again",
    "SEEDS": "seeds of the training, such as 0,1,2; without it SEED",
    "FOLDS": "folds of the table, such as 0,1; without it all",
    **job_table.FLAGS,
    "SLURM": "1: write a job array script for sbatch, and run nothing",
}


def perform(overrides: list[str], flags: dict[str, str]) -> str:
    """One fold, in a process of its own (see jobs.job_table.Job)."""
    overwrite = settings_module.flag_is_on(flags.get("OVERWRITE", ""))
    return fold_job.perform(settings_module.load(overrides), flags["FOLD"], overwrite)


@command
def main(argv: list[str] | None = None) -> None:
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    overwrite = settings_module.flag_is_on(flags.OVERWRITE)
    if settings.OVERFIT:
        raise UserError("OVERFIT scores the images it trains on: there is nothing to cross-validate; train one fold.")
    deadline = job_table.deadline_after(settings.MAX_MINUTES)  # of the whole command, caches included
    groups = table(settings, flags)
    from jobs import pools

    check(groups, overwrite)
    again = f"the same command{' without OVERWRITE=1' * overwrite}"
    if settings_module.flag_is_on(flags.SLURM):
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
        return
    if plain and job_table.FAILED in states:
        refuse_failed(groups, events, [], plain, again)
    lines, problems = run_results.gather(groups, aloud=len(groups) == 1)
    run_results.report(lines, flags.overrides)
    refuse_failed(groups, events, problems, plain, again)


if __name__ == "__main__":
    sys.exit(main())
