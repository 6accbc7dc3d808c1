"""One fold as a job: trained or resumed, then scored."""

from typing import TYPE_CHECKING

from jobs import job_table
from jobs.job_table import Job
from scoring import fold_scores
from tools import constants, run_folders
from training import warm_start

if TYPE_CHECKING:
    from settings import Settings


def perform(settings: "Settings", fold: str, overwrite: bool) -> str:
    """Train one fold, or continue it, then score it; return what is left to do, or "". Raises UserError."""
    from training.fold_training import FoldTraining

    folder = run_folders.run_folder(settings.LOGS, settings.EXPERIMENT, fold, settings.SEED)
    if overwrite or not (folder / run_folders.MODEL).is_file():
        resume = run_folders.resumable(folder) and not overwrite
        FoldTraining(settings, fold, resume=resume, overwrite=overwrite).run()
    if not (folder / run_folders.MODEL).is_file():
        return "MAX_MINUTES stopped its training"
    fold_scores.score_fold(settings, fold)
    return ""


def job_of(settings: "Settings", fold: str, overwrite: bool, label: str = "", log: str = "") -> Job:
    """Return one run as a job."""
    folder = run_folders.run_folder(settings.LOGS, settings.EXPERIMENT, fold, settings.SEED)
    paths = (str(folder), str(folder.with_name(run_folders.SETTINGS)))
    values = settings.snapshot()
    del values["MAX_MINUTES"]  # each job gets the minutes that remain
    flags = {"FOLD": fold, "OVERWRITE": str(int(overwrite))}
    start = warm_start.files(warm_start.place(settings, fold)) if settings.INIT else []
    brings = (*paths, *map(str, start))
    return Job(label or f"fold {fold}", "cv", tuple(constants.lines_of(values)), flags, log, brings, paths)


def run_fold(settings: "Settings", fold: str, label: str, log: str) -> str:
    """Train and score one fold in a child process that prints to the file `log`; return its problem, or "".

    A terminal shows the last line that it printed, under `label`. A fold that MAX_MINUTES stopped counts as a problem
    too; the same call continues it.
    """
    from jobs.local_pool import Processes, places
    from jobs.status import Live

    devices, _ = places(settings.DEVICE, 1)
    deadline = job_table.deadline_after(settings.MAX_MINUTES)
    job = job_of(settings, fold, False, label, log)
    (event,) = job_table.work_off([job], Processes(devices), Live(1), deadline)
    return "" if event.state == job_table.DONE else event.text
