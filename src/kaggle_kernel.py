"""make kernel EXPERIMENT=x COMPETITION=slug: an experiment as a Kaggle data set and a notebook that works offline.

Writes output/kernel/: dataset/ (source, models, wheels, checksums), kernel/ (the notebook and its metadata), README.md
with what to type. TRAIN=1 FOLD=0 makes one that trains a fold on Kaggle's GPU instead.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import settings as settings_module
from shipping import kernel_fetch, kernel_push, kernel_rehearsal, kernel_run
from shipping.kernel_build import BACK, MADE, PLACE, prediction, training
from tools.errors import UserError, command
from tools.files import write_json
from tools.flags import is_on, run_action

FLAGS = {
    "FOLD": "as for make inference: 0, or 0,1,2, or full; without it every finished fold. With TRAIN=1: the one fold",
    "COMPETITION": "the competition's name as in its address, from which the kernel gets the images",
    "TRAIN": "1: a kernel that trains FOLD on Kaggle's GPU",
    "HOURS": "what the competition allows; 9 unless told",
    "HALF": "1: weights in 16 bits, which halves the upload",
    "USER": "your name on Kaggle; else that of ~/.kaggle/kaggle.json",
    "WHEELS": "further packages to take along, by the names they are imported as: timm",
}
REHEARSAL_FLAGS = {
    "WITH": "a Python of your own that has Kaggle's versions; else .venv-kaggle is made (5 GB, minutes)",
    "MOUNT": "where the data set is mounted: datasets (datasets/<owner>/<slug>, today's) or plain (<slug>, as it was)",
    "ZIPPED": "1: the competition's folders as zips, as old competitions have them",
}
PUSH_FLAGS = {"ACCELERATOR": "the GPU to ask for; NvidiaTeslaT4 unless told", "MESSAGE": "of a data set's new version"}
FETCH_FLAGS = {
    "ZIP": "what the kernel packed; else it is fetched from Kaggle",
    "OVERWRITE": "1: replace a run folder of that name",
}


@command
def build(argv: list[str]) -> None:
    """Do what the module's docstring says."""
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    train = is_on(flags.TRAIN)
    if train and not flags.FOLD:
        raise UserError("Which fold? make kernel TRAIN=1 FOLD=0")
    if PLACE.exists() and not (PLACE / "dataset" / kernel_run.MARKER).is_file():
        raise UserError(f"{PLACE} holds no kernel of ours, so it is not ours to replace. Move it away first.")
    partial = PLACE.with_name(".kernel.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        said = (training if train else prediction)(settings, flags, partial)
        write_json(partial / MADE, {"settings": settings.overrides()})
        if (PLACE / BACK).is_dir():
            os.replace(PLACE / BACK, partial / BACK)
        shutil.rmtree(PLACE, ignore_errors=True)
        os.replace(partial, PLACE)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    marker = json.loads((PLACE / "dataset" / kernel_run.MARKER).read_text(encoding="utf-8"))
    print(
        f"{said}\nthe data set {marker['dataset']} and the notebook {marker['kernel']} -> {PLACE}\n"
        f"Next: make kernel-rehearsal, then what {PLACE / 'README.md'} says"
    )


@command
def rehearse(argv: list[str]) -> None:
    """Do what shipping/kernel_rehearsal.py says."""
    _, flags = settings_module.command_line(argv, kernel_rehearsal.__doc__, REHEARSAL_FLAGS)
    settings = settings_module.load(kernel_rehearsal.made_with())
    kernel_rehearsal.rehearse(settings, flags.WITH, flags.MOUNT, is_on(flags.ZIPPED))


@command
def push(argv: list[str]) -> None:
    """Do what shipping/kernel_push.py says."""
    _, flags = settings_module.command_line(argv, kernel_push.__doc__, PUSH_FLAGS)
    kernel_push.push(flags.ACCELERATOR, flags.MESSAGE)


@command
def fetch(argv: list[str]) -> None:
    """Do what shipping/kernel_fetch.py says."""
    settings, flags = settings_module.command_line(argv, kernel_fetch.__doc__, FETCH_FLAGS)
    kernel_fetch.bring_home(Path(settings.LOGS), flags.ZIP, is_on(flags.OVERWRITE))


def main(argv: list[str] | None = None) -> int:
    return run_action(argv, build, rehearsal=rehearse, push=push, fetch=fetch)


if __name__ == "__main__":
    sys.exit(main())
