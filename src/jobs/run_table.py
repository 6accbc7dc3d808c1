"""A table of runs, experiments x seeds x folds: its checks, its jobs, and running them. make cv builds it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import splits
from jobs import job_table
from jobs.fold_job import job_of
from jobs.job_table import Event, Job
from jobs.status import Silence, Status
from scoring import fold_scores
from tools import run_folders
from tools.errors import UserError
from training import builders

if TYPE_CHECKING:
    from jobs.pools import Runner

OF_THE_DATA = ("DATASET", "INPUT", "OUTPUT", "LOGS", "TRAIN_FOLDS", "METRIC", "EMPTY")  # the next command repeats these


@dataclass(frozen=True)
class Group:
    """The runs of one experiment under one seed.

    origin: where its settings come from. every: all folds of its table; folds: those that were asked for.
    """

    settings: Any
    origin: str
    every: tuple[str, ...]
    folds: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return the group's name for people."""
        return f"{self.settings.EXPERIMENT}, seed {self.settings.SEED}"

    def folder(self, fold: str) -> Path:
        """Return a run's folder."""
        return run_folders.run_folder(self.settings.LOGS, self.settings.EXPERIMENT, fold, self.settings.SEED)

    def is_scored(self, fold: str) -> bool:
        """Return whether a run is finished and scored."""
        return fold_scores.is_scored(self.folder(fold))


def announce(groups: list[Group], where: str) -> None:
    """Print the table in a few lines: which experiments, the origin of their settings, on which devices."""
    names = {group.settings.EXPERIMENT: group for group in groups}
    seeds = list(dict.fromkeys(str(group.settings.SEED) for group in groups))
    count = sum(len(group.folds) for group in groups)
    counts = [f"{many} {what}{'s' * (many != 1)}" for many, what in ((count, "run"), (len(names), "experiment"))]
    print(f"{counts[0]}: {counts[1]} x seed {', '.join(seeds)} x folds, {where}")
    for name, group in names.items():
        origin = f"{group.origin}; " if group.origin else ""
        print(f"  {name}: {origin}folds {', '.join(group.folds)} of {group.settings.TRAIN_FOLDS}", flush=True)


def make_caches(groups: list[Group]) -> None:
    """Decode all images once, here, rather than in each of the first runs; refuse broken images before any training."""
    done = set()
    for settings in (group.settings for group in groups):
        of = (settings.TRAIN_FOLDS, settings.IMAGE_SIZE, settings.RESIZE, settings.INPUT, settings.OUTPUT)
        if of not in done:
            builders.open_cache(settings, splits.read(Path(settings.TRAIN_FOLDS)), builders.data_spec(settings))
            done.add(of)


def work_off(groups: list[Group], chosen: list[Job], runner: "Runner", deadline: float, again: str) -> list[Event]:
    """Run the `chosen` jobs until `deadline`; return how each one ended. `again`: the command that continues."""
    first = groups[0].settings
    if not chosen:
        return []
    if runner.at_once != 1:
        make_caches(groups)
    total = sum(len(group.folds) for group in groups)
    show = Status(total, total - len(chosen)) if chosen[0].log else Silence()
    tables = sorted({group.settings.TRAIN_FOLDS for group in groups})
    folders = sorted({group.settings.INPUT for group in groups})
    pool = runner.pool(logs=first.LOGS, tables=tables, folders=folders)
    try:
        return job_table.work_off(chosen, pool, show, deadline)
    except KeyboardInterrupt:
        scored = sum(group.is_scored(fold) for group in groups for fold in group.folds)
        print(f"Stopped; {scored} of {total} runs are finished, and {again} goes on.", flush=True)
        raise


def check(groups: list[Group], overwrite: bool) -> None:
    """Refuse, with UserError and before any training, what would stop the training or the scoring after it."""
    from training import builders
    from training.preparation import fixed_settings, refuse_what_does_nothing

    fixed_by: dict[str, str] = {}
    for group in groups:
        if group.settings.DEVICES * group.settings.NODES > 1:
            raise UserError(
                "make cv trains each fold on one device, many at a time; DEVICES and NODES are make train's."
            )
        fold_scores.refuse_unscorable(group.settings)
        refuse_what_does_nothing(group.settings, group.folds[0])
        if builders.may_have_seen(group.settings):  # checking ImageNet's takes seconds of imports
            frame = splits.read(Path(group.settings.TRAIN_FOLDS))
            for fold in group.folds:
                builders.begun_from(group.settings, frame, fold)
        name, fixed = group.settings.EXPERIMENT, fixed_settings(group.settings)
        if not overwrite:
            run_folders.check_experiment(Path(group.settings.LOGS, name), fixed, group.settings.defaults())
        same = fixed_by.setdefault(str(sorted(fixed.items(), key=lambda item: item[0])), name)
        if same != name and group.settings.SEED == groups[0].settings.SEED:
            print(f"warning: {same} and {name} have the same settings, so the same networks are trained twice.")


def todo(groups: list[Group], overwrite: bool, runner: "Runner", short: bool, aloud: bool) -> list[Job]:
    """Return the runs to do as jobs, and print which are finished. short: labels by fold only; aloud: no log files."""
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
