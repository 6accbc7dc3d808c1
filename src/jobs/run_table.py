"""A table of runs, experiments x seeds x folds: working it off, and what comes out of it. make cv builds it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import settings as settings_module
from data import splits
from jobs import job_table
from jobs.fold_job import job_of
from jobs.job_table import Event, Job
from jobs.status import Silence, Status
from scoring import fold_scores
from tools import run_folders
from tools.errors import UserError
from tools.files import read_json
from tools.names import check_name
from training import builders

OF_THE_DATA = ("DATASET", "INPUT", "OUTPUT", "LOGS", "TRAIN_FOLDS", "METRIC", "EMPTY")  # what the next command is told


@dataclass(frozen=True)
class Group:
    """The runs of one experiment under one seed.

    origin: where its settings come from. every: the folds of its table; folds: those that were asked for.
    """

    settings: Any
    origin: str
    every: tuple[str, ...]
    folds: tuple[str, ...]

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.settings.EXPERIMENT}, seed {self.settings.SEED}"

    def folder(self, fold: str) -> Path:
        """A run's folder."""
        return run_folders.run_folder(self.settings.LOGS, self.settings.EXPERIMENT, fold, self.settings.SEED)

    def is_scored(self, fold: str) -> bool:
        """Whether a run is finished and scored."""
        return fold_scores.is_scored(self.folder(fold))


def announce(groups: list[Group], where: str) -> None:
    """The table in a few lines: which experiments, from what, on which devices."""
    names = {group.settings.EXPERIMENT: group for group in groups}
    seeds = list(dict.fromkeys(str(group.settings.SEED) for group in groups))
    count = sum(len(group.folds) for group in groups)
    counts = [f"{many} {what}{'s' * (many != 1)}" for many, what in ((count, "run"), (len(names), "experiment"))]
    print(f"{counts[0]}: {counts[1]} x seed {', '.join(seeds)} x folds, {where}")
    for name, group in names.items():
        origin = f"{group.origin}; " if group.origin else ""
        print(f"  {name}: {origin}folds {', '.join(group.folds)} of {group.settings.TRAIN_FOLDS}", flush=True)


def make_caches(groups: list[Group]) -> None:
    """Decode all images once, here, rather than in each of the first runs; refuses broken ones before any training."""
    done = set()
    for settings in (group.settings for group in groups):
        of = (settings.TRAIN_FOLDS, settings.IMAGE_SIZE, settings.RESIZE, settings.INPUT, settings.OUTPUT)
        if of not in done:
            builders.open_cache(settings, splits.read(Path(settings.TRAIN_FOLDS)), builders.data_spec(settings))
            done.add(of)


def work_off(groups: list[Group], chosen: list[Job], runner: Any, deadline: float, again: str) -> list[Event]:
    """Train and score what is to be done by `deadline`; returns how each run ended. `again`: the words that go on."""
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


def table(settings: Any, flags: Any) -> list[Group]:
    """Experiments x seeds with their folds. Raises UserError for whatever would fail every run of one of them."""
    typed = [text.partition("=")[0] for text in flags.overrides]
    if flags.SEEDS and "SEED" in typed:
        raise UserError("SEED= is one seed and SEEDS= several; give one of them.")
    names = job_table.listed("EXPERIMENT", settings.EXPERIMENT)
    seeds = job_table.listed("SEEDS", flags.SEEDS) if flags.SEEDS else [str(settings.SEED)]
    several = len(names) > 1 or any((flags.SEEDS, flags.FOLDS, flags.RAY, flags.SLURM))
    groups = []
    for name in names:
        check_name("EXPERIMENT", name)
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
    if run_folders.is_ensemble(settings.LOGS, name):
        raise UserError(f"EXPERIMENT={name} is an ensemble; it has no network to train. Name its members.")
    path = Path(settings.LOGS, name, run_folders.SETTINGS)
    if not path.is_file():
        return settings, f"recipe {name}" if recipe else "the settings of this command"
    fixed = read_json(path, "Remove the experiment's folder or choose another EXPERIMENT=name.")
    lines = settings_module.lines_of({key: value for key, value in fixed.items() if key in settings_module.DEFAULTS})
    settings = settings_module.load([*first, *lines, *over])
    if not any(line.startswith("TRAIN_FOLDS=") for line in over):
        settings = replace(settings, TRAIN_FOLDS=_table_of(path.parent, settings.TRAIN_FOLDS, fixed))
    return settings, f"as its first run fixed it ({path})"


def _table_of(experiment: Path, table: str, fixed: dict[str, Any]) -> str:
    """The folds table that an experiment was trained on, where it is still there; else `table`."""
    begun, cure = sorted(experiment.glob(f"fold*/{run_folders.ORIGIN}")), "Remove that run's folder."
    then = [read_json(path, cure, {"settings": dict})["settings"].get("TRAIN_FOLDS") for path in begun]
    return str(run_folders.table_of(Path(table), then, fixed.get("folds_sha256")))


def _chosen(wanted: str, every: tuple[str, ...], table: str) -> tuple[str, ...]:
    chosen = job_table.listed("FOLDS", wanted) if wanted else every
    unknown = [fold for fold in chosen if fold not in every]
    if unknown:
        raise UserError(f"FOLDS={wanted}: {table} has the folds {', '.join(every)}, and no {unknown[0]}.")
    return tuple(chosen)


def check(groups: list[Group], overwrite: bool) -> None:
    """Refuse, before any training, what would stop it or the scoring after it."""
    from training.preparation import fixed_settings, refuse_what_does_nothing

    fixed_by: dict[str, str] = {}
    for group in groups:
        if group.settings.DEVICES * group.settings.NODES > 1:
            raise UserError(
                "make cv trains each fold on one device, many at a time; DEVICES and NODES are make train's."
            )
        fold_scores.refuse_unscorable(group.settings)
        refuse_what_does_nothing(group.settings, group.folds[0])
        name, fixed = group.settings.EXPERIMENT, fixed_settings(group.settings)
        if not overwrite:
            run_folders.check_experiment(Path(group.settings.LOGS, name), fixed, settings_module.DEFAULTS)
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
