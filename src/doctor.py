"""make doctor: before the night: environment, data, leaks, disk, a real training step, and how long it will all take.

Every image and mask is decoded once, strictly; nothing is written but OUTPUT/doctor.json. Exit code 1 where something
would stop a training or make its score worthless. QUICK=1 looks at 200 pairs and 200 test images, evenly spread.
"""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import settings as settings_module
from checkup.examination import check_all, seeds_of
from checkup.findings import OK, PROBLEM, WARNING, Report
from data import rle_order, splits
from tools.errors import UnlearnedError, command
from tools.files import write_json
from tools.flags import following, is_on, run_action

if TYPE_CHECKING:
    from settings import Settings

FLAGS = {
    "QUICK": "1: look at 200 pairs and 200 test images, evenly spread",
    "FOLD": "the folds that will be trained: 0, or 0,1, or full (default: all)",
    "SEEDS": "the seeds that they will be trained with: 42,43,44 (default: SEED)",
    "TABLE": "a CSV of your own, as make folds takes it",
}
BATCH_FLAGS = {"FOLD": "with this fold's training images (default 0; full: with all)"}
RLE_FLAGS = {
    "TABLE": "the CSV of run lengths, where there are several below INPUT",
    "ID": "the image, as the table names it; otherwise one with a mask of the usual size",
    "CLASS": "the class, where the table has some; otherwise all of them together",
}
REPORT = "doctor.json"


def _deliver(settings: "Settings", report: Report, seconds: float, decoding_seconds: float, quick: bool) -> str:
    """Write doctor.json where possible, and return where it is."""
    path = Path(settings.OUTPUT, REPORT)
    about = {
        "dataset": settings.DATASET,
        "experiment": settings.EXPERIMENT,
        "quick": quick,
        "seconds": round(seconds, 1),
        "decoding_seconds": round(decoding_seconds, 1),
        **{f"{level}s": report.count(level) for level in (PROBLEM, WARNING)},
        "ok": report.count(OK),
        "checks": report.as_json(),
    }
    try:
        write_json(path, about)
    except OSError as error:
        return f"{path} could not be written ({error.strerror or error})"
    return f"{path}"


@command
def examine(argv: list[str]) -> None:
    """Do what the module's docstring says."""
    start = time.monotonic()
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    seeds_of(flags.SEEDS)
    quick, report = is_on(flags.QUICK), Report()
    made, decoding_seconds = check_all(settings, flags, report)
    seconds = time.monotonic() - start
    where = _deliver(settings, report, seconds, decoding_seconds, quick)
    problems, warnings = report.count(PROBLEM), report.count(WARNING)
    counts = f"{problems} problem{'s' * (problems != 1)}, {warnings} warning{'s' * (warnings != 1)}"
    took = f"{seconds:.0f} s, of which decoding every file once takes {decoding_seconds:.1f} s -> {where}"
    if problems:
        raise UnlearnedError(f"{counts}: see to the problems before a training. {took}")
    print(f"{counts}: nothing stops a training. {took}")
    print(following("cv" if made else "folds", flags))


@command
def batch(argv: list[str]) -> None:
    """make batch FOLD=0: the largest TRAIN_BATCH_SIZE that the GPU's memory holds, tried in real training steps."""
    settings, flags = settings_module.command_line(argv, batch.__doc__, BATCH_FLAGS)
    splits.read(Path(settings.TRAIN_FOLDS))  # refuses before the imports where there is no table
    from training import batch_size

    batch_size.search(settings, flags.FOLD or "0")


@command
def rle_check(argv: list[str]) -> None:
    """make rle-check: one training mask decoded in each order of pixels, laid over its image: which order is right?"""
    settings, flags = settings_module.command_line(argv, rle_check.__doc__, RLE_FLAGS)
    rle_order.check(settings, flags.TABLE, flags.ID, flags.CLASS)


def main(argv: list[str] | None = None) -> int:
    return run_action(argv, examine, batch=batch, rle_check=rle_check)


if __name__ == "__main__":
    sys.exit(main())
