"""A table of runs, experiments x seeds x folds: working it off, and what comes out of it. make cv builds it."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

import assembly
import console
import jobs
import runs
import splits
import tester
from errors import UserError
from job_status import Silence, Status
from jobs import Event, Job

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
        return runs.run_folder(self.settings.LOGS, self.settings.EXPERIMENT, fold, self.settings.SEED)

    def is_scored(self, fold: str) -> bool:
        """Whether a run is finished and scored."""
        return tester.is_scored(self.folder(fold))


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
            assembly.open_cache(settings, splits.read(Path(settings.TRAIN_FOLDS)), assembly.data_spec(settings))
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
        return jobs.work_off(chosen, pool, show, deadline)
    except KeyboardInterrupt:
        scored = sum(group.is_scored(fold) for group in groups for fold in group.folds)
        print(f"Stopped; {scored} of {total} runs are finished, and {again} goes on.", flush=True)
        raise


def gather(groups: list[Group], aloud: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """Score all folds together of each group that has them all; returns a line for each group, and what went wrong.

    aloud: print all that is found, rather than into a file.
    """
    lines, problems = [], []
    for group in groups:
        settings, score, means = group.settings, float("nan"), []
        lacking = [fold for fold in group.every if not group.is_scored(fold)]
        log = Path(settings.OUTPUT, "cv", f"{settings.EXPERIMENT}_oof_seed{settings.SEED}.log")
        try:
            if not lacking:
                with jobs.printing_to("" if aloud else str(log)):
                    summary = tester.gather(settings)
                score, means = (
                    summary["score"]["model"],
                    [mean for mean in summary["folds"].values() if not isnan(mean)],
                )
        except UserError as error:
            problems.append(f"{group.name}: {error}")
        lines.append({
            "experiment": settings.EXPERIMENT,
            "seed": settings.SEED,
            "folds": f"{len(group.every) - len(lacking)} of {len(group.every)}",
            settings.METRIC if len({group.settings.METRIC for group in groups}) == 1 else "METRIC": score,
            "mean of folds": statistics.mean(means) if means else float("nan"),
            "deviation": statistics.stdev(means) if len(means) > 1 else float("nan"),
        })  # fmt: skip
    return lines, problems


def report(lines: list[dict[str, Any]], typed: Sequence[str]) -> None:
    """The summary of experiments and seeds, and what to type next. `typed`: the command's NAME=value."""
    metric = list(lines[0])[3]
    names = list(dict.fromkeys(line["experiment"] for line in lines))
    print("Out of fold (nan: not all folds are scored):")
    print(console.table(lines))
    scored = [line for line in lines if not isnan(line[metric])]
    scores = {name: [line[metric] for line in scored if line["experiment"] == name] for name in names}
    for name, own in scores.items():
        if len(own) > 1:
            print(
                f"  {name}: {metric} {statistics.mean(own):.4f}, the mean of {len(own)} seeds; "
                f"standard deviation between seeds {statistics.stdev(own):.4f}"
            )
    whole = [name for name in names if scores[name]]
    words = jobs.words([text for text in typed if text.partition("=")[0] in OF_THE_DATA])
    if len(whole) > 1:
        print(f"Is one really better? make compare A={whole[0]} B={whole[1]} {words}".rstrip())
    if whole:
        print(f"Next: make leaderboard {words}".rstrip())
