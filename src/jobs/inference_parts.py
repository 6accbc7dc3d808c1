"""A long prediction in parts: the parts are run as a table of jobs, then joined to one prediction folder."""

from pathlib import Path
from typing import TYPE_CHECKING

from jobs import job_table
from prediction import chosen_rule, shards
from prediction.inference_job import Wanted, chosen_folds, find_job, prediction_folder
from tools import run_folders
from tools.errors import UserError, listing
from tools.flags import whole_number

if TYPE_CHECKING:
    from settings import Settings
    from tools.flags import Flags


def predict_in_parts(settings: "Settings", flags: "Flags") -> Path:
    """Predict all SHARDS of the images as jobs and join them; return the prediction folder. Raises UserError."""
    from jobs import pools
    from jobs.status import Status

    count = whole_number("SHARDS", flags.SHARDS, 1)
    if flags.SHARD or count < 2:
        raise UserError("SHARDS=n, of 2 or more, predicts all n parts and SHARD=i/n one of them; give one of the two.")
    runner = pools.choose(flags, settings.DEVICE)
    folder, table = prediction_folder(settings, flags.FOLD, flags.NAME), _jobs(settings, flags, count)
    shards.refuse_other_division(folder, count)
    run_folders.refuse_foreign(folder)
    print(f"{count} parts of the images, {runner.words}; what each prints -> {folder}.shard*.log", flush=True)
    sidecar = Path(settings.TRAIN_FOLDS).with_suffix(".json")
    tables = [str(sidecar)] if sidecar.is_file() else []
    pool = runner.pool(logs=settings.OUTPUT, tables=tables, folders=[settings.INPUT])
    events = job_table.work_off(table, pool, Status(count))
    failed = [f"{event.job.label}: {event.text}" for event in events if event.state != job_table.DONE]
    if failed:
        raise UserError(f"{len(failed)} of {count} parts failed; the same command goes on with them:{listing(failed)}")
    shards.join(folder)
    shards.remove(folder)
    return folder


def _jobs(settings: "Settings", flags: "Flags", count: int) -> list[job_table.Job]:
    """Return one job for each part, a call of make inference, with the files that it reads and writes."""
    folds = chosen_folds(settings, flags.FOLD)
    runs = [run_folders.finished_run(settings.LOGS, settings.EXPERIMENT, fold, settings.SEED) for fold in folds]
    stacked = run_folders.read_model(runs[0])["data"].get("stacked") is True
    needed = [str(run / name) for run in runs for name in (run_folders.MODEL, run_folders.WEIGHTS)]
    needed.append(str(chosen_rule.tuned_path(settings)))
    table = []
    for index in range(1, count + 1):
        own = {name: getattr(flags, name) for name in ("FOLD", "NAME", "MAPS")} | {"SHARD": f"{index}/{count}"}
        part = find_job(settings, Wanted(flags.FOLD, flags.NAME, own["SHARD"]), stacked).folder
        log, texts = f"{part}.log", tuple(settings.lines())
        table.append(
            job_table.Job(f"part {index} of {count}", "inference", texts, own, log, tuple(needed), (str(part),))
        )
    return table
