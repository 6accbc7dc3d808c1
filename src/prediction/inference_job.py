"""What one call of make inference predicts, with which models, in one part or several."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import images_to_predict
from data.dataspec import DataSpec
from formats import rle
from prediction import chosen_rule, prediction_folders, resumable, shards, submission_file
from tools import locks, run_folders
from tools.errors import UserError
from tools.files import digest_of, read_json
from tools.names import check_name

if TYPE_CHECKING:
    from prediction.postprocess import Rule
    from prediction.predictor import Predictor
    from settings import Settings


def chosen_folds(settings: "Settings", fold: str) -> list[str]:
    """Return the folds that FOLD names, or every finished numbered one, or full where there is no other."""
    if fold:
        folds = fold.split(",")
        if len(set(folds)) < len(folds):
            raise UserError(f"FOLD={fold} names a fold twice.")
        return folds
    have = run_folders.finished_folds(settings.LOGS, settings.EXPERIMENT, settings.SEED)
    return [name for name in have if name != "full"] or have or ["0"]  # "0": for the error that says what is missing


def prediction_folder(settings: "Settings", fold: str, name: str = "") -> Path:
    """Return predictions/<experiment>_fold<k>_seed<s> below OUTPUT, or under the user's, or an ensemble's, name."""
    if run_folders.is_ensemble(settings.LOGS, settings.EXPERIMENT):
        name = name or settings.EXPERIMENT
    folds = "-".join(chosen_folds(settings, fold))
    name = name or f"{settings.EXPERIMENT}_fold{folds}_seed{settings.SEED}"
    check_name("NAME", name)
    return Path(settings.OUTPUT, "predictions", name)


def picture_of(folder: Path) -> Path:
    """Return the contact sheet beside a prediction folder."""
    return folder.with_name(f"{folder.name}.png")


def load_predictor(settings: "Settings", folders: list[Path], bf16: bool = False) -> "Predictor":
    """Load these run folders' models as one predictor, their mean, on the settings' device.

    In 16 bits on CUDA, as PRECISION says; in bf16, which PRECISION may name for a training alone, where `bf16` is too.
    """
    from prediction.predictor import Half, Predictor
    from prediction.shipped_model import load
    from tools.hardware import choose_devices, choose_precision

    devices = choose_devices(settings.DEVICE)
    precision, _ = choose_precision(settings.PRECISION, devices[0].partition(":")[0])
    half: Half = "16" if precision == "16-mixed" else "bf16" if bf16 and precision == "bf16-mixed" else ""
    return Predictor(
        [load(folder, devices[0]) for folder in folders],
        devices,
        settings.VALID_BATCH_SIZE,
        half=half,
        tta=settings.TTA,
        tta_mean=settings.TTA_MEAN,
        tile=settings.TILE,
        overlap=settings.OVERLAP,
    )


def choose_dialect(settings: "Settings") -> rle.Dialect:
    """Return DIALECT, or the one that make folds found; its columns and ids as the sample submission has them.

    Raises UserError where there is none, or the sample's columns are no dialect's.
    """
    name: str = settings.DIALECT
    sidecar, form = Path(settings.TRAIN_FOLDS).with_suffix(".json"), dict[str, Any]()
    if name == "auto" or sidecar.is_file():
        about = read_json(sidecar, "Run make folds first, or name the competition's DIALECT.")
        found = str(about.get("dialect", ""))
        name = found if name == "auto" else name
        form = about.get("form", {}) if name == found else {}
        if name not in rle.DIALECTS:
            raise UserError(
                f"The layout has no dialect of its own; name the competition's: DIALECT={' or '.join(rle.DIALECTS)}."
            )
    dialect, sample = rle.formed(name, form, str(sidecar)), submission_file.find_sample(settings.INPUT)
    own = submission_file.formed(dialect, sample)
    if settings.DIALECT == "auto" and not form:
        _refuse_other_order(dialect, own, sample)
    return own


def _refuse_other_order(dialect: rle.Dialect, own: rle.Dialect, sample: Path | None) -> None:
    """Raise UserError where the sample's columns are those of known dialects, all with another order than ours."""
    same = [one for one in rle.DIALECTS.values() if one.columns == own.columns]
    if same and all((one.order, one.relative) != (dialect.order, dialect.relative) for one in same):
        raise UserError(
            f"{sample} has the columns {', '.join(own.columns)}, those of {' or '.join(one.name for one in same)}; the "
            f"layout's dialect {dialect.name} has another order of pixels. Say which: DIALECT=name"
        )


def outlook(settings: "Settings", spec: DataSpec) -> str:
    """Say what the rows of the submission will look like, or why none can be written; "" where none is expected."""
    sample = submission_file.find_sample(settings.INPUT)
    known = read_json(Path(settings.TRAIN_FOLDS).with_suffix(".json"), "").get("dialect") or settings.DIALECT != "auto"
    if not sample and not known:
        return ""
    try:
        dialect = choose_dialect(settings)
        submission_file.check_classes(spec, dialect)
        if sample:
            submission_file.refuse_other_classes(sample, dialect, spec)
    except UserError as error:
        return f"Warning: a submission cannot be written: {error}"
    order = {"C": "row by row", "F": "column by column"}[dialect.order]
    by = f"as in {sample}" if sample else "without a sample_submission.csv to see"
    rows = "one an object" if dialect.per_object else "one an image" + " and class" * dialect.has_classes
    ids = (
        "<image>_<class>" if dialect.joined else f"ids {'with' if dialect.with_suffix else 'without'} the file's ending"
    )
    return f"Submission: {','.join(dialect.columns)}, {ids}, {by}; rows {rows}, runs {order} (DIALECT={dialect.name})"


def parse_shard(text: str) -> tuple[int, int]:
    """Read "2/4" as (2, 4) and "" as (1, 1). Raises UserError for anything that is no part of a whole."""
    if not text:
        return 1, 1
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"SHARD={text}: expected i/n with i from 1 to n, such as SHARD=1/4.")
    return int(match[1]), int(match[2])


def shard_folder(folder: Path, index: int, count: int) -> Path:
    """Return where shard `index` of `count` of a prediction folder lies; the folder itself of a single one."""
    return folder if count == 1 else folder.with_name(f"{folder.name}.shard{index}of{count}")


def _keeper(settings: "Settings", maps: resumable.Maps, rules: "tuple[Rule, ...]", job: "Job") -> resumable.RunLengths:
    """Return what keeps the rows of the submission.

    Raises UserError before the work for what make submission would refuse after it.
    """
    dialect = choose_dialect(settings)
    ids = submission_file.image_ids(job.everything, dialect)
    keys = [(image_id, name) for image_id in ids for name in submission_file.check_classes(maps.spec, dialect)]
    submission_file.check_ids(keys, submission_file.find_sample(settings.INPUT), dialect, partial=bool(settings.LIMIT))
    return resumable.RunLengths(maps, rules, dialect, ids, prediction_folders.spread(job.names))


@dataclass(frozen=True)
class Wanted:
    """What the user asked for: folds ("0,1", "full", "": all), the folder's name, a part "i/n", maps or only rows."""

    fold: str = ""
    name: str = ""
    shard: str = ""
    maps: bool = True


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


def find_job(settings: "Settings", wanted: Wanted, stacked: bool) -> Job:
    """Find the images and the folder for their predictions.

    Raises UserError where there are none, or the folder is not ours.
    """
    index, count = parse_shard(wanted.shard)
    root, names = images_to_predict.test_names(settings.INPUT, settings.TEST_PATH, stacked)
    if settings.LIMIT:
        names = names[: settings.LIMIT * settings.VALID_BATCH_SIZE]
    if count > len(names):
        raise UserError(f"SHARD={wanted.shard}: there are only {len(names)} images in {root}.")
    folder = shard_folder(prediction_folder(settings, wanted.fold, wanted.name), index, count)
    run_folders.refuse_foreign(folder)
    return Job(root, names, index, count, folder)


def describe(job: Job, predictor: "Predictor") -> dict[str, Any]:
    """Return the manifest's part that is known before the work."""
    from prediction.shipped_model import describe

    makers, how = describe(predictor.models), predictor.about()
    manifest = {
        "root": str(job.root),
        "images": job.names,
        "data": predictor.spec.as_json(),
        "models": makers,
        **how,
        "sizes": prediction_folders.provenance(makers, how)["sizes"],
        "half": {"": False, "16": True}.get(predictor.half, predictor.half),
    }
    if job.count > 1:
        manifest["shard"] = {"index": job.index, "of": job.count, "all": digest_of(job.everything)}
    return manifest


def carry_out(
    job: Job,
    predictor: "Predictor",
    keep: resumable.Keep,
    manifest: dict[str, Any],
    rules: "tuple[Rule, ...]",
    max_pixels: int,
) -> tuple[int, float, int]:
    """Predict what is missing, draw the contact sheet, put the folder in its place.

    Returns how many images were predicted, in how many seconds, and how many are drawn.
    """
    spec, partial = predictor.spec, prediction_folders.partial_of(job.folder)

    def predict(paths: list[Path], keep: resumable.Keep) -> Iterator[list[Any]]:
        return predictor.predict(paths, max_pixels, keep, resumable.PART)

    plan = {**manifest, "images": digest_of(job.names), **keep.about()}
    with locks.exclusive(partial, "Wait for it, or give this one another NAME=."):
        start = time.monotonic()
        before = resumable.work(partial, plan, job.root, job.names, predict, keep)
        seconds = time.monotonic() - start
        shown = prediction_folders.shown(partial, job.names, spec, job.root, max_pixels)
        prediction_folders.contact_sheet(picture_of(job.folder), shown, spec, rules)
        resumable.finish(partial, job.folder, job.names, keep, manifest)
    return len(job.names) - before, seconds, len(shown)


def _say_how_far(predictor: "Predictor", rules: "tuple[Rule, ...]", job: Job, max_pixels: int) -> None:
    """Say how the masks of a few images differ from those in 32 bits, which scores are made of."""
    from prediction import sixteen_bits

    few = [job.root / name for name in prediction_folders.spread(job.names, sixteen_bits.CHECKED)]
    differ = sixteen_bits.masks_differ(predictor, "bf16", rules, few, max_pixels)
    print(f"In bf16: on {len(few)} of these images its masks have Dice {1 - differ:.5f} with those in 32", flush=True)


def predict(settings: "Settings", wanted: Wanted, anew: bool = True) -> Job:
    """Predict the images that are wanted, or a part of them, and say it. Raises UserError.

    anew: what is finished just so is predicted again all the same.
    """
    folds = chosen_folds(settings, wanted.fold)
    folders = [run_folders.finished_run(settings.LOGS, settings.EXPERIMENT, fold, settings.SEED) for fold in folds]
    job = find_job(settings, wanted, run_folders.read_model(folders[0])["data"].get("stacked") is True)
    predictor = load_predictor(settings, folders, bf16=True)
    spec, manifest = predictor.spec, describe(job, predictor)
    rules = chosen_rule.chosen(settings, spec, prediction_folders.provenance(manifest["models"], manifest))
    maps = resumable.Maps(prediction_folders.partial_of(job.folder), spec, job.root)
    keep: resumable.Keep = maps if wanted.maps else _keeper(settings, maps, rules, job)
    if not anew and shards.is_done(job.folder, manifest, keep, [job.root / name for name in job.names]):
        print(f"{job.folder} is finished already", flush=True)
        return job
    what = f", part {job.index} of {job.count}" if job.count > 1 else ""
    print(
        f"Mean of {len(folders)} models ({', '.join(str(path) for path in folders)}) on {len(job.names)} images of "
        f"{job.root}{what}, on {' and '.join(predictor.devices)}",
        flush=True,
    )
    if predictor.half == "bf16":
        _say_how_far(predictor, rules, job, settings.MAX_PIXELS)
    done, seconds, shown = carry_out(job, predictor, keep, manifest, rules, settings.MAX_PIXELS)
    print(
        f"{done} images in {seconds:.0f} s, {done / max(seconds, 1e-9):.1f} a second\n"
        f"{keep.label(len(job.names))} -> {job.folder}\n{shown} of them as a picture -> {picture_of(job.folder)}"
    )
    return job
