"""make inference: a folder of images -> a prediction folder, one 8-bit probability PNG an image (and class), full size.

One model (FOLD=0), the mean of several (FOLD=0,1,2), or, without FOLD, of every finished fold of the experiment, on all
GPUs of the computer. MAPS=0 keeps the rows of the submission alone. SHARD=1/4 predicts every fourth image; make merge
joins the four. SHARDS=4 predicts all four, in processes of their own or on a Ray cluster (RAY=), and joins them. What
was stopped goes on where it was when the same command is given again.
"""

import sys

import settings as settings_module
from jobs import job_table
from jobs.inference_parts import predict_in_parts
from prediction import shards
from prediction.inference_job import Wanted, picture_of, predict, prediction_folder
from tools.errors import UserError, command
from tools.flags import Flags, following, is_on, run_action

FLAGS = {
    "FOLD": "0, or 0,1,2, or full; without it every finished fold",
    "NAME": "name of the prediction folder",
    "SHARD": "i/n: the i-th of n parts of the images, for n computers; make merge joins them",
    "MAPS": "0: keep the masks' run lengths only, which is all that a submission needs; else probability maps",
    "SHARDS": "n: all n parts by a queue, joined at the end",
    **job_table.FLAGS,
}


def wanted(flags: Flags) -> Wanted:
    """Return the flags as prediction.inference_job takes them."""
    maps = not flags.MAPS or is_on(flags.MAPS)
    return Wanted(flags.FOLD, flags.NAME, flags.SHARD, maps)


@command
def predict_images(argv: list[str] | None) -> None:
    """Do what the module's docstring says."""
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    if flags.SHARDS:
        folder = predict_in_parts(settings, flags)
        picture_of(folder).unlink(missing_ok=True)  # of what was there before
        print(f"{flags.SHARDS} parts joined -> {folder}\n{_then('submission', flags)}")
        return
    for name in job_table.FLAGS:
        if getattr(flags, name):
            raise UserError(f"{name}= is for SHARDS=n, the parts that it spreads; give both.")
    job = predict(settings, wanted(flags))
    later = f", when all {job.count} parts lie in {job.folder.parent}"
    print(f"{_then('merge', flags)}{later}" if job.count > 1 else _then("submission", flags))


@command
def merge(argv: list[str] | None) -> None:
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
    print(_then("submission", flags))


def perform(overrides: list[str], flags: dict[str, str]) -> str:
    """Predict one part of the images (see jobs.job_table.Job); return what is left to do, or ""."""
    predict(settings_module.load(overrides), wanted(Flags(**flags)), anew=False)
    return ""


def _then(target: str, flags: Flags) -> str:
    """Return the next command's line: FOLD and NAME, and the constants that were typed."""
    return following(
        target, flags, *(f"{name}={value}" for name in ("FOLD", "NAME") if (value := getattr(flags, name)))
    )


def main(argv: list[str] | None = None) -> int:
    return run_action(argv, predict_images, merge=merge)


if __name__ == "__main__":
    sys.exit(main())
