"""make kernel-fetch ZIP=file: the run folder that a training kernel packed -> lightning_logs/, checked.

Without ZIP, Kaggle's client fetches the output of the kernel of output/kernel/ first.
"""

import os
import shutil
from pathlib import Path

from formats import archives
from shipping import kernel_run
from shipping.kernel_build import BACK, PLACE
from tools import kaggle_client, locks, run_folders
from tools.errors import UserError
from tools.files import read_json, sha256, write_json
from tools.kaggle_client import ask
from tools.names import check_name


def fetch() -> Path:
    """Fetch the kernel's output by Kaggle's client; return its archive. Raises UserError where it has none."""
    about = read_json(PLACE / "dataset" / kernel_run.MARKER, "Name the archive: make kernel-fetch ZIP=file")
    back = PLACE / BACK
    client = kaggle_client.find("Kaggle's client is not here", f"Or as {PLACE / 'README.md'} says, with ZIP=file.")
    (back / f"{about['title']}.zip").unlink(missing_ok=True)  # an older archive is not the kernel's present output
    ask(client, "kernels", "output", about["kernel"], "-p", str(back))
    archive = back / f"{about['title']}.zip"
    if not archive.is_file():
        raise UserError(f"The output of {about['kernel']} has no {archive.name}. Is it a training kernel, and done?")
    return archive


def put(room: Path, logs: Path, overwrite: bool) -> Path:
    """Move the one run folder below `room` to its place below `logs`; return that place.

    An unfinished run is accepted too, and replaces an unfinished one. Raises UserError where it is no run, does not
    match its model.json, or belongs to other settings.
    """
    found = sorted(room.rglob(run_folders.ORIGIN))
    if len(found) != 1:
        raise UserError(f"The archive holds {len(found)} run folders, expected one, as a training kernel packs it.")
    run = found[0].parent
    check_name("the experiment", run.parent.name)
    _refuse_changed(run)
    target = logs / run.parent.name / run.name
    if target.exists() and not overwrite and not run_folders.resumable(target):
        raise UserError(f"{target} is there already. OVERWRITE=1 replaces it.")
    fixed = read_json(run.parent / run_folders.SETTINGS, "Fetch it again.")
    run_folders.check_experiment(target.parent, fixed)
    if run_folders.resumable(target) and not overwrite and _steps(target) > _steps(run):
        raise UserError(f"{target} has come further than what was fetched. OVERWRITE=1 replaces it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with locks.exclusive(target, "It is being trained here."):
        if target.exists():
            shutil.rmtree(target)
        os.replace(run, target)
    if not (target.parent / run_folders.SETTINGS).is_file():
        write_json(target.parent / run_folders.SETTINGS, fixed)
    return target


def _steps(run: Path) -> int:
    """Return how many steps a run has done; a finished run counts more than any unfinished one."""
    from training import checkpoints

    return checkpoints.steps(checkpoints.choose(run / "checkpoints")) if run_folders.resumable(run) else 1 << 62


def _refuse_changed(run: Path) -> None:
    """Raise UserError where a fetched folder does not match its own files' checksums."""
    fold = read_json(run / run_folders.ORIGIN, "Fetch it again.", {"fold": str})["fold"]
    if not run.name.startswith(f"fold{fold}_seed"):
        raise UserError(f"{run.name}: its {run_folders.ORIGIN} is of fold {fold}. Fetch it again.")
    if run_folders.resumable(run):
        from training import checkpoints

        checkpoints.choose(run / "checkpoints")
    elif sha256(run / run_folders.WEIGHTS) != run_folders.read_model(run)["weights_sha256"]:
        raise UserError(
            f"{run.name}: {run_folders.WEIGHTS} is not the file that {run_folders.MODEL} describes. Fetch it again."
        )


def bring_home(logs: Path, zipped: str, overwrite: bool) -> None:
    """Unpack `zipped`, or the output on Kaggle, check it, move its run folder below `logs`. Raises UserError."""
    archive = Path(zipped) if zipped else fetch()
    if not archive.is_file():
        raise UserError(f"ZIP={archive}: no such file.")
    logs.mkdir(parents=True, exist_ok=True)
    room = logs / ".fetched"
    shutil.rmtree(room, ignore_errors=True)
    try:
        archives.unpack(archive, room, str(archive), archives.Unpacking.of(archive.stat().st_size, logs))
        target = put(room, logs, overwrite)
    finally:
        shutil.rmtree(room, ignore_errors=True)
    fold = read_json(target / run_folders.ORIGIN, "")["fold"]
    which = f"FOLD={fold} EXPERIMENT={target.parent.name}"
    if run_folders.resumable(target):
        print(
            f"fold {fold} of {target.parent.name}, not finished -> {target}\nNext, with the same settings: make kernel "
            f"TRAIN=1 {which}, which takes it along and goes on; or here make train {which} RESUME=1"
        )
        return
    print(f"fold {fold} of {target.parent.name}, trained on Kaggle -> {target}\nNext: make tester {which}")
