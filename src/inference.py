"""make inference: a folder of images -> a prediction folder, one 8-bit probability PNG an image (and class), full size.

One model (FOLD=0), the mean of several (FOLD=0,1,2), or, without FOLD, of every finished fold of the experiment, on all
GPUs of the computer. MAPS=0 keeps the rows of the submission alone. SHARD=1/4 predicts every fourth image; make merge
joins the four. SHARDS=4 predicts all four, in processes of their own or on a Ray cluster (RAY=), and joins them. What
was stopped goes on where it was when the same command is given again.
"""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import settings as settings_module
from jobs import job_table
from prediction import chosen_rule, shards
from prediction.inference_job import Wanted, chosen_folds, find_job, picture_of, predict, prediction_folder
from tools import console, run_folders
from tools.errors import UserError, command, listing
from tools.flags import Flags, is_on, whole_number

if TYPE_CHECKING:
    from settings import Settings

FLAGS = {
    "FOLD": "0, or 0,1,2, or full; without it every finished fold",
    "NAME": "name of the prediction folder",
    "SHARD": "i/n: the i-th of n parts of the images, for n computers; make merge joins them",
    "MAPS": "0: keep the masks' run lengths only, which is all that a submission needs; else probability maps",
    "SHARDS": "n: all n parts by a queue, joined at the end",
    **job_table.FLAGS,
}


def wanted(flags: "Flags") -> Wanted:
    """The flags as prediction.inference_job takes them."""
    maps = not flags.MAPS or is_on(flags.MAPS)
    return Wanted(flags.FOLD, flags.NAME, flags.SHARD, maps)


def in_shards(settings: "Settings", flags: "Flags") -> Path:
    """Predict all SHARDS of the images by a queue and join them; returns the prediction folder. Raises UserError."""
    from jobs import pools
    from jobs.status import Status

    count = whole_number("SHARDS", flags.SHARDS, 1)
    if flags.SHARD or count < 2:
        raise UserError("SHARDS=n, of 2 or more, predicts all n parts and SHARD=i/n one of them; give one of the two.")
    runner = pools.choose(flags, settings.DEVICE)
    folds = chosen_folds(settings, flags.FOLD)
    models = [run_folders.finished_run(settings.LOGS, settings.EXPERIMENT, fold, settings.SEED) for fold in folds]
    folder, table = prediction_folder(settings, flags.FOLD, flags.NAME), []
    stacked = run_folders.read_model(models[0])["data"].get("stacked") is True
    needed = [str(model / name) for model in models for name in (run_folders.MODEL, run_folders.WEIGHTS)]
    needed.append(str(Path(settings.LOGS, settings.EXPERIMENT, f"oof_seed{settings.SEED}", chosen_rule.TUNED)))
    for index in range(1, count + 1):
        own = {name: getattr(flags, name) for name in ("FOLD", "NAME", "MAPS")} | {"SHARD": f"{index}/{count}"}
        part = find_job(settings, wanted(Flags(**own)), stacked).folder
        log, texts = f"{part}.log", tuple(settings.lines())
        table.append(
            job_table.Job(f"part {index} of {count}", "inference", texts, own, log, tuple(needed), (str(part),))
        )
    shards.refuse_other_division(folder, count)
    run_folders.refuse_foreign(folder)
    print(f"{count} parts of the images, {runner.words}; what each prints -> {folder}.shard*.log", flush=True)
    sidecar = [str(Path(settings.TRAIN_FOLDS).with_suffix(".json"))]
    tables = [path for path in sidecar if Path(path).is_file()]
    pool = runner.pool(logs=settings.OUTPUT, tables=tables, folders=[settings.INPUT])
    events = job_table.work_off(table, pool, Status(count))
    failed = [f"{event.job.label}: {event.text}" for event in events if event.state != job_table.DONE]
    if failed:
        raise UserError(f"{len(failed)} of {count} parts failed; the same command goes on with them:{listing(failed)}")
    shards.join(folder)
    shards.remove(folder)
    return folder


@command
def predict_images(argv: list[str]) -> None:
    """What the module's docstring says."""
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    same = same_words(argv, flags)
    if flags.SHARDS:
        folder = in_shards(settings, flags)
        picture_of(folder).unlink(missing_ok=True)  # of what was there before
        print(f"{flags.SHARDS} parts joined -> {folder}\nNext: make submission {same}".rstrip())
        return
    for name in job_table.FLAGS:
        if getattr(flags, name):
            raise UserError(f"{name}= is for SHARDS=n, the parts that it spreads; give both.")
    job = predict(settings, wanted(flags))
    last = f"make merge {same}, when all {job.count} parts lie in {job.folder.parent}"
    print("Next: " + (last if job.count > 1 else f"make submission {same}".rstrip()))


@command
def merge(argv: list[str]) -> None:
    """make merge: the parts that SHARD=1/4, 2/4, ... predicted -> one prediction folder, checked to be whole.

    The parts lie side by side in output/<dataset>/predictions/ (<name>.shard1of4, ...), copied there from wherever they
    were made. They stay; the maps are linked, which takes no room.
    """
    settings, flags = settings_module.command_line(
        argv, merge.__doc__, {name: FLAGS[name] for name in ("FOLD", "NAME")}
    )
    folder = prediction_folder(settings, flags.FOLD, flags.NAME)
    count, images = shards.join(folder)
    picture_of(folder).unlink(missing_ok=True)  # of what was there before
    print(f"{count} parts with {images} images, each once -> {folder}")
    print(f"Next: make submission {same_words(argv, flags)}".rstrip())


def perform(overrides: list[str], flags: dict[str, str]) -> str:
    """One part of the images (see jobs.job_table.Job)."""
    predict(settings_module.load(overrides), wanted(Flags(**flags)), anew=False)
    return ""


def same_words(argv: list[str], flags: "Flags") -> str:
    """What was typed, for the next command: FOLD and NAME however they were given, and the constants."""
    typed = [text for text in argv if re.match(r"[A-Z_]+=", text)]
    typed = [text for text in typed if text.partition("=")[0] not in FLAGS]
    chosen = [f"{name}={value}" for name in ("FOLD", "NAME") if (value := getattr(flags, name))]
    return " ".join(map(console.quoted, [*typed, *chosen]))


def main(argv: list[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    return merge(words[1:]) if words[:1] == ["merge"] else predict_images(words)


if __name__ == "__main__":
    sys.exit(main())
