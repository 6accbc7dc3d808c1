"""make inference: a folder of images -> a prediction folder, one 8-bit probability PNG an image (and class), full size.

One model (FOLD=0), the mean of several (FOLD=0,1,2), or, without FOLD, of every finished fold of the experiment, on all
GPUs of the computer. MAPS=0 keeps the rows of the submission alone. SHARD=1/4 predicts every fourth image; make merge
joins the four. SHARDS=4 predicts all four, in processes of their own or on a Ray cluster (RAY=), and joins them. What
was stopped goes on where it was when the same command is given again.
"""

import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import console
import jobs
import layouts
import locks
import parts
import predictions
import rle
import rules
import runs
import settings as settings_module
import shards
import submission_file
from errors import UserError, command, listing

FLAGS = {
    "FOLD": "0, or 0,1,2, or full; without it every finished fold",
    "NAME": "name of the prediction folder",
    "SHARD": "i/n: the i-th of n parts of the images, for n computers; make merge joins them",
    "MAPS": "0: keep the masks' run lengths only, which is all that a submission needs; else probability maps",
    "SHARDS": "n: all n parts by a queue, joined at the end",
    **jobs.FLAGS,
}


def chosen_folds(settings: Any, fold: str) -> list[str]:
    """The folds that FOLD names, or every finished numbered one, or full where there is no other."""
    if fold:
        folds = fold.split(",")
        if len(set(folds)) < len(folds):
            raise UserError(f"FOLD={fold} names a fold twice.")
        return folds
    have = runs.finished_folds(settings.LOGS, settings.EXPERIMENT, settings.SEED)
    return [name for name in have if name != "full"] or have or ["0"]  # "0": for the error that says what is missing


def prediction_folder(settings: Any, fold: str, name: str = "") -> Path:
    """output/<dataset>/predictions/<experiment>_fold<k>_seed<s>, or the name that the user, or an ensemble, has."""
    if runs.is_ensemble(settings.LOGS, settings.EXPERIMENT):
        name = name or settings.EXPERIMENT
    folds = "-".join(chosen_folds(settings, fold))
    name = name or f"{settings.EXPERIMENT}_fold{folds}_seed{settings.SEED}"
    runs.check_name("NAME", name)
    return Path(settings.OUTPUT, "predictions", name)


def picture_of(folder: Path) -> Path:
    """The contact sheet beside a prediction folder."""
    return folder.with_name(f"{folder.name}.png")


def load_predictor(settings: Any, folders: list[Path]) -> Any:
    """The mean of these run folders' models on the settings' device."""
    import predictor
    from hardware import choose_devices, choose_precision

    devices = choose_devices(settings.DEVICE)
    precision, _ = choose_precision(settings.PRECISION, devices[0].partition(":")[0])
    models = [predictor.load(folder, devices[0]) for folder in folders]
    half, views = precision == "16-mixed", {"tta": settings.TTA, "tta_mean": settings.TTA_MEAN}
    cut = {"tile": settings.TILE, "overlap": settings.OVERLAP}
    return predictor.Predictor(models, devices, settings.VALID_BATCH_SIZE, half=half, **views, **cut)


def choose_dialect(settings: Any) -> rle.Dialect:
    """DIALECT, or the one of the layout that the folds table was made from."""
    name = settings.DIALECT
    if name == "auto":
        sidecar = Path(settings.TRAIN_FOLDS).with_suffix(".json")
        name = str(
            runs.read_json(sidecar, "Run make folds first, or name the competition's DIALECT.").get("dialect", "")
        )
        if name not in rle.DIALECTS:
            raise UserError(
                f"The layout has no dialect of its own; name the competition's: DIALECT={' or '.join(rle.DIALECTS)}."
            )
    return rle.DIALECTS[name]


def parse_shard(text: str) -> tuple[int, int]:
    """ "2/4" -> (2, 4); "" -> (1, 1). Raises UserError for anything that is no part of a whole."""
    if not text:
        return 1, 1
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"SHARD={text}: expected i/n with i from 1 to n, such as SHARD=1/4.")
    return int(match[1]), int(match[2])


def shard_folder(folder: Path, index: int, count: int) -> Path:
    """Where shard `index` of `count` of a prediction folder lies; the folder itself of a single one."""
    return folder if count == 1 else folder.with_name(f"{folder.name}.shard{index}of{count}")


def _keeper(settings: Any, maps: parts.Maps, to_mask: Any, job: "Job") -> parts.RunLengths:
    """What keeps the rows of the submission; refuses before the work what make submission would refuse after it."""
    dialect = choose_dialect(settings)
    ids = submission_file.image_ids(job.everything, dialect)
    keys = [(image_id, name) for image_id in ids for name in submission_file.check_classes(maps.spec, dialect)]
    submission_file.check_ids(keys, submission_file.find_sample(settings.INPUT), dialect, partial=bool(settings.LIMIT))
    return parts.RunLengths(maps, to_mask, dialect, ids, predictions.spread(job.names))


@dataclass(frozen=True)
class Job:
    """What one call predicts: the images `names` below `root`, part `index` of `count` of `everything`."""

    root: Path
    everything: list[str]
    index: int
    count: int
    folder: Path

    @property
    def names(self) -> list[str]:
        return self.everything[self.index - 1 :: self.count]


def find_job(settings: Any, flags: Any, stacked: bool) -> Job:
    """The images and the folder for their predictions. Raises UserError where there are none, or it is not ours."""
    index, count = parse_shard(flags.SHARD)
    root, names = layouts.test_names(settings.INPUT, settings.TEST_PATH, stacked)
    if settings.LIMIT:
        names = names[: settings.LIMIT * settings.VALID_BATCH_SIZE]
    if count > len(names):
        raise UserError(f"SHARD={flags.SHARD}: there are only {len(names)} images in {root}.")
    folder = shard_folder(prediction_folder(settings, flags.FOLD, flags.NAME), index, count)
    runs.refuse_foreign(folder)
    return Job(root, names, index, count, folder)


def describe(job: Job, predictor: Any) -> dict[str, Any]:
    """The manifest's part that is known before the work."""
    from predictor import describe

    makers, how = describe(predictor.models), predictor.about()
    sizes = predictions.provenance(makers, how)["sizes"]
    about = {"root": str(job.root), "images": job.names, "data": predictor.spec.as_json(), "models": makers}
    about |= {**how, "sizes": sizes, "half": predictor.half}
    if job.count > 1:
        about["shard"] = {"index": job.index, "of": job.count, "all": runs.digest_of(job.everything)}
    return about


def carry_out(
    job: Job, predictor: Any, keep: Any, about: dict[str, Any], to_mask: Any, max_pixels: int
) -> tuple[int, float, int]:
    """Predict what is missing, draw the contact sheet, put the folder in its place.

    Returns how many images were predicted, in how many seconds, and how many are drawn.
    """
    spec, partial = predictor.spec, predictions.partial_of(job.folder)

    def predict(paths: list[Path], keep: parts.Keep) -> Iterator[list[Any]]:
        return predictor.predict(paths, max_pixels, keep, parts.PART)

    plan = {**about, "images": runs.digest_of(job.names), **keep.about()}
    with locks.alone(partial, "Wait for it, or give this one another NAME=."):
        start = time.monotonic()
        before = parts.work(partial, plan, job.root, job.names, predict, keep)
        seconds = time.monotonic() - start
        shown = predictions.shown(partial, job.names, spec, job.root, max_pixels)
        predictions.contact_sheet(picture_of(job.folder), shown, spec, to_mask)
        parts.finish(partial, job.folder, job.names, keep, about)
    return len(job.names) - before, seconds, len(shown)


def predict(settings: Any, flags: Any, anew: bool = True) -> Job:
    """Predict the images that the flags name, or a part of them, and say it. Raises UserError.

    anew: what is finished just so is predicted again all the same.
    """
    with_maps = not flags.MAPS or settings_module.flag_is_on(flags.MAPS)
    folds = chosen_folds(settings, flags.FOLD)
    folders = [runs.finished_run(settings.LOGS, settings.EXPERIMENT, fold, settings.SEED) for fold in folds]
    job = find_job(settings, flags, runs.read_model(folders[0])["data"].get("stacked") is True)
    predictor = load_predictor(settings, folders)
    spec, about = predictor.spec, describe(job, predictor)
    to_mask = rules.chosen(settings, spec, predictions.provenance(about["models"], about))
    keep = parts.Maps(predictions.partial_of(job.folder), spec, job.root)
    if not with_maps:
        keep = _keeper(settings, keep, to_mask, job)
    if not anew and shards.is_done(job.folder, about, keep, [job.root / name for name in job.names]):
        print(f"{job.folder} is finished already", flush=True)
        return job
    what = f", part {job.index} of {job.count}" if job.count > 1 else ""
    print(
        f"Mean of {len(folders)} models ({', '.join(str(path) for path in folders)}) on {len(job.names)} images of "
        f"{job.root}{what}, on {' and '.join(predictor.devices)}",
        flush=True,
    )
    done, seconds, shown = carry_out(job, predictor, keep, about, to_mask, settings.MAX_PIXELS)
    print(
        f"{done} images in {seconds:.0f} s, {done / max(seconds, 1e-9):.1f} a second\n"
        f"{keep.label(len(job.names))} -> {job.folder}\n{shown} of them as a picture -> {picture_of(job.folder)}"
    )
    return job


def perform(overrides: list[str], flags: dict[str, str]) -> str:
    """One part of the images (see jobs.Job)."""
    predict(settings_module.load(overrides), SimpleNamespace(**flags), anew=False)
    return ""


def in_shards(settings: Any, flags: Any) -> Path:
    """Predict all SHARDS of the images by a queue and join them; returns the prediction folder. Raises UserError."""
    import runners
    from job_status import Status

    count = jobs.whole_number("SHARDS", flags.SHARDS, 1)
    if flags.SHARD or count < 2:
        raise UserError("SHARDS=n, of 2 or more, predicts all n parts and SHARD=i/n one of them; give one of the two.")
    runner = runners.choose(flags, settings.DEVICE)
    folds = chosen_folds(settings, flags.FOLD)
    models = [runs.finished_run(settings.LOGS, settings.EXPERIMENT, fold, settings.SEED) for fold in folds]
    folder, table = prediction_folder(settings, flags.FOLD, flags.NAME), []
    stacked = runs.read_model(models[0])["data"].get("stacked") is True
    needed = [str(model / name) for model in models for name in (runs.MODEL, runs.WEIGHTS)]
    needed.append(str(Path(settings.LOGS, settings.EXPERIMENT, f"oof_seed{settings.SEED}", rules.TUNED)))
    for index in range(1, count + 1):
        own = {name: getattr(flags, name) for name in ("FOLD", "NAME", "MAPS")} | {"SHARD": f"{index}/{count}"}
        part = find_job(settings, SimpleNamespace(**own), stacked).folder
        log, texts = f"{part}.log", tuple(settings_module.lines_of(settings_module.snapshot(settings)))
        table.append(jobs.Job(f"part {index} of {count}", "inference", texts, own, log, tuple(needed), (str(part),)))
    shards.refuse_other_division(folder, count)
    runs.refuse_foreign(folder)
    print(f"{count} parts of the images, {runner.words}; what each prints -> {folder}.shard*.log", flush=True)
    sidecar = [str(Path(settings.TRAIN_FOLDS).with_suffix(".json"))]
    tables = [path for path in sidecar if Path(path).is_file()]
    pool = runner.pool(logs=settings.OUTPUT, tables=tables, folders=[settings.INPUT])
    events = jobs.work_off(table, pool, Status(count))
    failed = [f"{event.job.label}: {event.text}" for event in events if event.state != jobs.DONE]
    if failed:
        raise UserError(f"{len(failed)} of {count} parts failed; the same command goes on with them:{listing(failed)}")
    shards.join(folder)
    shards.remove(folder)
    return folder


@command
def main(argv: list[str] | None = None) -> None:
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    same = same_words(argv, flags)
    if flags.SHARDS:
        folder = in_shards(settings, flags)
        picture_of(folder).unlink(missing_ok=True)  # of what was there before
        print(f"{flags.SHARDS} parts joined -> {folder}\nNext: make submission {same}".rstrip())
        return
    for name in jobs.FLAGS:
        if getattr(flags, name):
            raise UserError(f"{name}= is for SHARDS=n, the parts that it spreads; give both.")
    job = predict(settings, flags)
    last = f"make merge {same}, when all {job.count} parts lie in {job.folder.parent}"
    print("Next: " + (last if job.count > 1 else f"make submission {same}".rstrip()))


def same_words(argv: list[str] | None, flags: Any) -> str:
    """What was typed, for the next command: FOLD and NAME however they were given, and the constants."""
    typed = [text for text in (sys.argv[1:] if argv is None else argv) if re.match(r"[A-Z_]+=", text)]
    typed = [text for text in typed if text.partition("=")[0] not in FLAGS]
    chosen = [f"{name}={value}" for name in ("FOLD", "NAME") if (value := getattr(flags, name))]
    return " ".join(map(console.quoted, [*typed, *chosen]))


if __name__ == "__main__":
    sys.exit(main())
