"""The work of a Kaggle kernel that trains: lay the bundle out as at home, train, test, pack the run folder."""

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path

from formats.mask_reference import MaskReference
from shipping.kernel_run import Bundle, find_data
from tools import run_folders
from tools.errors import UserError

RUN = "run"  # in the bundle of a training that resumes
START = "init"  # in the bundle of a training that begins as INIT's model


def lay_out(bundle: Bundle) -> list[str]:
    """Lay out input/, output/ and the folds table below working, as they are at home; return the words for train.

    The images of the folds table must be in the competition's data.
    """
    about, working = bundle.about, bundle.working
    with (bundle.folder / "train_folds.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    masks = [MaskReference.parse(row["mask"]).path for row in rows]
    tops = dict.fromkeys(Path(name).parts[0] for name in (*(row["image"] for row in rows), *masks) if name)
    data, link = find_data(bundle, *tops), working / about["input"]
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(data, target_is_directory=True)
    table = working / about["table"]
    table.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".csv", ".json"):
        shutil.copyfile(bundle.folder / f"train_folds{suffix}", table.with_suffix(suffix))
    if (bundle.folder / "weights").is_dir():
        shutil.copytree(bundle.folder / "weights", working / about["weights"], dirs_exist_ok=True)
    if (bundle.folder / START).is_dir():
        shutil.copytree(bundle.folder / START, working / about["init"], dirs_exist_ok=True)
    if (bundle.folder / RUN).is_dir():  # what an earlier session reached
        shutil.copytree(bundle.folder / RUN, working / about["run"], dirs_exist_ok=True)
    return about["words"]


def scripts(bundle: Bundle) -> Iterator[str]:
    """Yield the scripts to run in turn: the training, then, if it was finished, the tester."""
    run = bundle.working / bundle.about["run"]
    yield "train.py"
    if (run / run_folders.MODEL).is_file():
        yield "tester.py"
    else:
        print(f"The time is over before the training was done; {run} goes home as it is, to go on from there.")


def bring_back(bundle: Bundle) -> Path:
    """Pack the run folder for the way home, remove what would only fill the kernel's output; return the archive."""
    about, working = bundle.about, bundle.working
    run = working / about["run"]
    if not (run / run_folders.MODEL).is_file() and not run_folders.resumable(run):
        raise UserError(f"{run} has neither a {run_folders.MODEL} nor a checkpoint: the training did not get that far.")
    target = working / f"{about['title']}.zip"
    (working / about["input"]).unlink()
    made = shutil.make_archive(str(target.with_suffix("")), "zip", working, run.parent.relative_to(working))
    runs = [Path(about[name]).parts[0] for name in ("run", "init") if name in about]
    for folder in ("input", "output", ".unpacked", *runs):
        shutil.rmtree(working / folder, ignore_errors=True)
    print(f"{Path(made).stat().st_size / 1e6:.1f} MB -> {made}")
    return Path(made)
