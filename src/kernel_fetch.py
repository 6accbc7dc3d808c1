"""make kernel-fetch ZIP=file: the run folder that a training kernel packed -> lightning_logs/, checked.

Without ZIP, Kaggle's client fetches the output of the kernel of output/kernel/ first.
"""

import os
import shutil
import sys
from pathlib import Path

import archives
import kaggle_client
import kernel_run
import locks
import runs
import settings as settings_module
from errors import UserError, command
from kaggle_client import ask
from kaggle_kernel import BACK, PLACE

FLAGS = {
    "ZIP": "what the kernel packed; else it is fetched from Kaggle",
    "OVERWRITE": "1: replace a run folder of that name",
}


def fetch() -> Path:
    """The archive of the kernel's output, by Kaggle's client. Raises UserError where it has none."""
    about = runs.read_json(PLACE / "dataset" / kernel_run.MARKER, "Name the archive: make kernel-fetch ZIP=file")
    back = PLACE / BACK
    client = kaggle_client.find("Kaggle's client is not here", f"Or as {PLACE / 'README.md'} says, with ZIP=file.")
    (back / f"{about['title']}.zip").unlink(missing_ok=True)  # an older one is not what the kernel has now
    ask(client, "kernels", "output", about["kernel"], "-p", str(back))
    archive = back / f"{about['title']}.zip"
    if not archive.is_file():
        raise UserError(f"The output of {about['kernel']} has no {archive.name}. Is it a training kernel, and done?")
    return archive


def put(room: Path, logs: Path, overwrite: bool) -> Path:
    """Move the one run folder below `room` to its place below `logs`; returns that.

    A run that is not finished may come, and takes the place of one that is not. Raises UserError where it is no run,
    does not hold what its model.json says, or belongs to other settings.
    """
    found = sorted(room.rglob(runs.ORIGIN))
    if len(found) != 1:
        raise UserError(f"The archive holds {len(found)} run folders, expected one, as a training kernel packs it.")
    run = found[0].parent
    runs.check_name("the experiment", run.parent.name)
    _refuse_changed(run)
    target = logs / run.parent.name / run.name
    if target.exists() and not overwrite and not runs.resumable(target):
        raise UserError(f"{target} is there already. OVERWRITE=1 replaces it.")
    fixed = runs.read_json(run.parent / runs.SETTINGS, "Fetch it again.")
    runs.check_experiment(target.parent, fixed)
    if runs.resumable(target) and not overwrite and _steps(target) > _steps(run):
        raise UserError(f"{target} has come further than what was fetched. OVERWRITE=1 replaces it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with locks.alone(target, "It is being trained here."):
        if target.exists():
            shutil.rmtree(target)
        os.replace(run, target)
    if not (target.parent / runs.SETTINGS).is_file():
        runs.write_json(target.parent / runs.SETTINGS, fixed)
    return target


def _steps(run: Path) -> int:
    """How far a run has come; a finished one further than any that is not."""
    import checkpoints

    return checkpoints.steps(checkpoints.choose(run / "checkpoints")) if runs.resumable(run) else 1 << 62


def _refuse_changed(run: Path) -> None:
    """Raises UserError where a fetched folder is not what its own files say."""
    fold = runs.read_json(run / runs.ORIGIN, "Fetch it again.", {"fold": str})["fold"]
    if not run.name.startswith(f"fold{fold}_seed"):
        raise UserError(f"{run.name}: its {runs.ORIGIN} is of fold {fold}. Fetch it again.")
    if runs.resumable(run):
        import checkpoints

        checkpoints.choose(run / "checkpoints")
    elif runs.sha256(run / runs.WEIGHTS) != runs.read_model(run)["weights_sha256"]:
        raise UserError(f"{run.name}: {runs.WEIGHTS} is not the file that {runs.MODEL} describes. Fetch it again.")


@command
def main(argv: list[str] | None = None) -> None:
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    archive, logs = Path(flags.ZIP) if flags.ZIP else fetch(), Path(settings.LOGS)
    if not archive.is_file():
        raise UserError(f"ZIP={archive}: no such file.")
    logs.mkdir(parents=True, exist_ok=True)
    room = logs / ".fetched"
    shutil.rmtree(room, ignore_errors=True)
    try:
        archives.unpack(archive, room, str(archive), archives.Unpacking.of(archive.stat().st_size, logs))
        target = put(room, logs, settings_module.flag_is_on(flags.OVERWRITE))
    finally:
        shutil.rmtree(room, ignore_errors=True)
    fold = runs.read_json(target / runs.ORIGIN, "")["fold"]
    which = f"FOLD={fold} EXPERIMENT={target.parent.name}"
    if runs.resumable(target):
        print(
            f"fold {fold} of {target.parent.name}, not finished -> {target}\nNext, with the same settings: make kernel "
            f"TRAIN=1 {which}, which takes it along and goes on; or here make train {which} RESUME=1"
        )
        return
    print(f"fold {fold} of {target.parent.name}, trained on Kaggle -> {target}\nNext: make tester {which}")


if __name__ == "__main__":
    sys.exit(main())
