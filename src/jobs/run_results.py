"""Results of a table of runs: scores out of fold, the table of experiments, and the failures."""

import statistics
from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Any

from jobs import job_table
from jobs.run_table import OF_THE_DATA, Group
from scoring import gathered_scores
from tools import console
from tools.errors import UserError, listing


def refuse_failed(groups: list[Group], events: list[Any], problems: list[str], plain: bool, again: str) -> None:
    """Raise UserError for runs that failed, with their reasons, or print which ones MAX_MINUTES has left."""
    failed = [f"{event.job.label}: {event.text}" for event in events if event.state == job_table.FAILED]
    left = [f"{event.job.label}: {event.text}" for event in events if event.state == job_table.LEFT]
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


def gather(groups: list[Group], aloud: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """Score each group whose folds are all scored, out of fold; return a line for each group, and the problems.

    aloud: print the scoring's output rather than write it to a file.
    """
    lines, problems = [], []
    for group in groups:
        settings, score, means = group.settings, float("nan"), []
        lacking = [fold for fold in group.every if not group.is_scored(fold)]
        log = Path(settings.OUTPUT, "cv", f"{settings.EXPERIMENT}_oof_seed{settings.SEED}.log")
        try:
            if not lacking:
                with job_table.printing_to("" if aloud else str(log)):
                    summary = gathered_scores.gather(settings)
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
    """Print the summary of experiments and seeds, and the next commands. `typed`: the command's NAME=value."""
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
    words = job_table.words([text for text in typed if text.partition("=")[0] in OF_THE_DATA])
    if len(whole) > 1:
        print(f"Is one really better? make compare A={whole[0]} B={whole[1]} {words}".rstrip())
    if whole:
        print(f"Next: make leaderboard {words}".rstrip())
