"""The two folders of a Kaggle kernel, data set and notebook, from runs, rules and source."""

import dataclasses
import hashlib
import os
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import images_to_predict, splits
from prediction import chosen_rule, prediction_folders, submission_file
from prediction.inference_job import choose_dialect, chosen_folds, load_predictor
from shipping import kernel_bundle, kernel_pages, kernel_training
from shipping.onnx_check import real_images
from tools import constants, recipes, run_folders
from tools.errors import UserError
from tools.files import read_json, write_json, write_text
from tools.flags import is_on

if TYPE_CHECKING:
    from settings import Settings
    from tools.flags import Flags

PLACE = Path("output/kernel")
BACK = "back"  # the folder in it for what comes from Kaggle
MADE = "made.json"  # the settings that the kernel was made with, for the rehearsal; it is not uploaded
UNKNOWN = "YOUR-NAME"  # the kernel's owner where none was given
TRAINING_MINUTES = 690.0  # of the 720 that Kaggle gives: the rest is for scoring and packing
OF_THIS_COMPUTER = ("DEVICE", "WORKERS", "PRECISION", "LOGGER", "PROFILER")


def owner(user: str) -> str:
    """Return the user's name on Kaggle: USER, or the client's token; UNKNOWN where neither is there."""
    token = Path(os.environ.get("KAGGLE_CONFIG_DIR", Path.home() / ".kaggle"), "kaggle.json")
    if user or os.environ.get("KAGGLE_USERNAME"):
        return kernel_pages.slug(user or os.environ["KAGGLE_USERNAME"])
    if token.is_file():
        return str(read_json(token, "Give your name by USER=name.", {"username": str})["username"])
    return UNKNOWN


def titled(flags: "Flags", experiment: str, what: str) -> dict[str, Any]:
    """Return the names of the data set and of the kernel on Kaggle."""
    name, user = kernel_pages.slug(experiment), owner(flags.USER)
    room = 50 - len(f"maskfold--{what}-kernel")  # Kaggle cuts names at 50 letters, and ours differ at their ends
    if len(name) > room:
        name = f"{name[: room - 5]}-{hashlib.sha256(experiment.encode()).hexdigest()[:4]}"
    title = kernel_pages.slug(f"maskfold-{name}-{what}")
    if kernel_pages.slug(flags.COMPETITION) != flags.COMPETITION:
        raise UserError(
            f"COMPETITION={flags.COMPETITION}: expected the name in its address, as in "
            "kaggle.com/competitions/carvana-image-masking-challenge."
        )
    return {
        "title": title,
        "dataset": f"{user}/{title}",
        "kernel": f"{user}/{title}-kernel",
        "competition": flags.COMPETITION,
        "experiment": experiment,
    }


def _of_seed(settings: "Settings") -> str:
    """Return what distinguishes the kernels of different seeds, "" for the default seed."""
    usual = settings.defaults()["SEED"]
    return "" if usual == settings.SEED else f"-seed-{settings.SEED}"


def versions() -> dict[str, str]:
    """Return the versions that the kernel was made with."""
    return {"python": sys.version.split()[0], **{name: metadata.version(name) for name in ("torch", "numpy", "timm")}}


def relative(path: Path, below: Path, name: str) -> str:
    """Return `path` relative to `below`. Raises UserError where it lies elsewhere: Kaggle has nothing else."""
    try:
        return path.absolute().relative_to(below.absolute()).as_posix()  # no link followed: input/ may be one to a disk
    except ValueError as error:
        raise UserError(
            f"{name}={path} lies outside of {below}; the kernel has the competition's data only."
        ) from error


def write_kernel(partial: Path, about: dict[str, Any], cells: list[tuple[str, str]], intro: str, train: bool) -> None:
    """Write the notebook with its metadata, and the README."""
    page = partial / "kernel" / f"{about['title']}.ipynb"
    write_text(page, kernel_pages.notebook(about, cells, intro))
    write_json(page.parent / "kernel-metadata.json", kernel_pages.kernel_metadata(about, page.name))
    write_text(partial / "README.md", kernel_pages.readme(about, page.name, train))


def _hours(text: str) -> float:
    try:
        hours = float(text or 9)
    except ValueError as error:
        raise UserError(f"HOURS={text}: expected a number of hours, such as 9.") from error
    if not 0 < hours <= 12:
        raise UserError(f"HOURS={text}: a kernel may run 12 hours at most; competitions mostly allow 9.")
    return hours


def _refuse_ensemble(settings: "Settings") -> None:
    if run_folders.is_ensemble(settings.LOGS, settings.EXPERIMENT):
        raise UserError(
            f"{settings.EXPERIMENT} is an ensemble; a kernel takes the folds of one experiment along. Make one of its "
            "best member."
        )


def test_folder(settings: "Settings", stacked: bool) -> Path:
    """Return the folder of the test images, or an empty TEST_PATH, as a competition may hide all of its images."""
    path = Path(settings.TEST_PATH)
    if settings.TEST_PATH and path.is_dir() and not any(path.iterdir()):
        return path
    return images_to_predict.test_images(settings.INPUT, settings.TEST_PATH, stacked)[0]


def prediction(settings: "Settings", flags: "Flags", partial: Path) -> str:
    """Write a kernel that predicts; return what to print about it."""
    _refuse_ensemble(settings)
    folds = chosen_folds(settings, flags.FOLD)
    folders = [run_folders.finished_run(settings.LOGS, settings.EXPERIMENT, fold, settings.SEED) for fold in folds]
    about = titled(flags, settings.EXPERIMENT, f"predict{_of_seed(settings)}")
    stacked = run_folders.read_model(folders[0])["data"].get("stacked") is True
    root = test_folder(settings, stacked)
    about["test_path"] = relative(root, Path(settings.INPUT), "TEST_PATH")
    sample = submission_file.find_sample(settings.INPUT)
    about["sample"] = sample.name if sample else ""
    about["hours"], dialect = _hours(flags.HOURS), choose_dialect(settings)
    predictor = load_predictor(settings, folders)
    from prediction.shipped_model import describe

    how = predictor.about()
    chosen = chosen_rule.chosen(
        settings, predictor.spec, prediction_folders.provenance(describe(predictor.models), how)
    )
    plain = chosen_rule.configured(settings, predictor.spec)
    shown = real_images(settings, predictor.spec, 4)
    safe, differ = kernel_bundle.half_is_safe(predictor, chosen, shown, settings.MAX_PIXELS)
    half = is_on(flags.HALF)
    for run in folders:
        kernel_bundle.store_model(run, partial / "dataset" / "models" / run.name, half)
    files = kernel_bundle.modules_of("shipping.kernel_run")
    kernel_bundle.copy_source(partial / "dataset", files)
    packed = kernel_bundle.take_wheels(partial / "dataset", files, flags.WHEELS)
    about |= {
        "models": [run.name for run in folders],
        "data": predictor.spec.as_json(),
        "tta": how["tta"],
        "tta_mean": how["tta_mean"],
        "tile": settings.TILE,
        "overlap": settings.OVERLAP,
        "batch_size": settings.VALID_BATCH_SIZE,
        "max_pixels": settings.MAX_PIXELS,
        "dialect": dialect.name,
        "form": dialect.form,
        "rules": [rule.as_json() for rule in chosen],
        "plain_rules": [rule.as_json() for rule in plain],
        "half_safe": safe,
        "stored_half": half,
        "versions": versions(),
    }
    size = kernel_bundle.write_bundle(partial, about)
    intro = (
        f"# {settings.EXPERIMENT}\n\nMade by `make kernel`: {len(folders)} models ({', '.join(about['models'])}), "
        f"TTA={about['tta']}, {rules_line(chosen)}.\nIt needs no internet, and writes `submission.csv`."
    )
    write_kernel(partial, about, kernel_pages.PREDICT, intro, train=False)
    trained = {str(model.about.get("precision", "")).partition("-")[0] for model in predictor.models}
    of_bf16 = " (trained in bf16, for which a T4 has no units: there it predicts in fp16)" if "bf16" in trained else ""
    word = "are used on a GPU" if safe else "are NOT used, also on a GPU"
    return (
        f"{len(folders)} models, {len(files)} modules, {', '.join(packed)}: {size / 1e6:.1f} MB to upload\n"
        f"16 bits: Dice {1 - differ:.5f} with the masks in 32, on {len(shown)} images: they {word}{of_bf16}"
    )


def rules_line(chosen: tuple[Any, ...]) -> str:
    """Return the rules in words, once where all are equal."""
    return "; ".join(dict.fromkeys(map(str, chosen)))


def _take_weights(settings: "Settings", encoder: str, folder: Path) -> None:
    """Put the encoder's ImageNet weights into the bundle, as make weights packs them. Raises UserError."""
    from modeling import encoder_weights, weights_source
    from training import packing

    packed, package = encoder_weights.packed_weights(encoder, settings.WEIGHTS), weights_source.package_of(encoder)
    folder.mkdir(parents=True)
    if packed.is_file():
        shutil.copyfile(packed, folder / packed.name)
    elif package and package.installed():
        packing.pack(settings.MODEL_NAME, settings.WEIGHTS, settings.IMAGE_SIZE, folder / packed.name)
    else:
        raise UserError(f"{packed}: no such file; on Kaggle there is no network. Run make weights first.")


def _take_start(settings: "Settings", fold: str, place: Path) -> str:
    """Copy what tells of the run that INIT's fold begins from into the bundle; return where it lies, here as there.

    Raises UserError where that run is of another data set and has images of the same paths: Kaggle cannot compare them.
    """
    from training import builders, warm_start, weights_origin

    run = warm_start.source(settings, fold, builders.data_spec(settings))
    origin = weights_origin.of_file(run / run_folders.WEIGHTS, settings.LOGS)
    if Path(origin.input).resolve() != Path(settings.INPUT).resolve():
        frame = splits.read(Path(settings.TRAIN_FOLDS))
        weights_origin.check(dataclasses.replace(origin, input="not there"), builders.held_out(settings, frame, fold))
    place.mkdir(parents=True)
    for path in warm_start.files(run):
        shutil.copyfile(path, place / path.name)
    return relative(run, Path(), "LOGS")


def training(settings: "Settings", flags: "Flags", partial: Path) -> str:
    """Write a kernel that trains one fold; return what to print about it."""
    import model_dispatcher
    from training import builders, checkpoints, preparation

    run = run_folders.run_folder(settings.LOGS, settings.EXPERIMENT, flags.FOLD or "?", settings.SEED)
    about = titled(flags, settings.EXPERIMENT, f"train-fold-{flags.FOLD}{_of_seed(settings)}")
    table = Path(settings.TRAIN_FOLDS)
    for path in (table, table.with_suffix(".json")):
        if not path.is_file():
            raise UserError(f"{path}: no such file. Run make folds first: the kernel takes the folds along.")
    if re.search(r"^[^#]*\.\./", table.read_text(encoding="utf-8"), re.M):
        raise UserError(f"{table} has masks outside of {settings.INPUT} (pseudo-labels), which do not travel.")
    if flags.HOURS or is_on(flags.HALF):
        raise UserError("HOURS and HALF are for kernels that predict; leave them out with TRAIN=1.")
    names = ("INPUT", "OUTPUT", "LOGS", "WEIGHTS", "TRAIN_FOLDS")
    there = {name: relative(Path(getattr(settings, name)), Path(), name) for name in names}
    settings = preparation.as_begun(settings.changed(*constants.lines_of(there)))
    about |= {"input": there["INPUT"], "table": there["TRAIN_FOLDS"], "weights": there["WEIGHTS"]}
    about["run"] = relative(run, Path(), "LOGS")
    if not settings.MAX_MINUTES:
        settings = dataclasses.replace(settings, MAX_MINUTES=TRAINING_MINUTES)
    words = [f"FOLD={flags.FOLD}", *settings.overrides(*OF_THIS_COMPUTER)]
    goes_on = run_folders.resumable(run)
    if goes_on:  # from where an earlier session stopped, here or on Kaggle
        words.append("RESUME=1")
        whole, copied = checkpoints.choose(run / "checkpoints"), partial / "dataset" / kernel_training.RUN
        shutil.copytree(run, copied, ignore=shutil.ignore_patterns("*.ckpt", "val"))
        shutil.copyfile(whole, copied / "checkpoints" / run_folders.LAST)
    builders.begun_from(settings, splits.read(table), flags.FOLD)  # checked here: Kaggle has no other runs
    _, encoder = model_dispatcher.parse(settings.MODEL_NAME)
    if settings.INIT:
        about["init"] = _take_start(settings, flags.FOLD, partial / "dataset" / kernel_training.START)
    elif encoder and settings.ENCODER_WEIGHTS == "imagenet":
        _take_weights(settings, encoder, partial / "dataset" / "weights")
    elif settings.ENCODER_WEIGHTS not in ("none", "imagenet"):
        raise UserError("ENCODER_WEIGHTS=file does not travel; put it into input/weights/ under its encoder's name.")
    for suffix in (".csv", ".json"):
        (partial / "dataset").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(table.with_suffix(suffix), partial / "dataset" / f"train_folds{suffix}")
    files = kernel_bundle.modules_of("train", "tester", "shipping.kernel_run", "shipping.kernel_training")
    kernel_bundle.copy_source(partial / "dataset", [*files, *recipes.FOLDER.glob("*.cfg")])
    packed_names = kernel_bundle.take_wheels(partial / "dataset", files, flags.WHEELS)
    about |= {"words": words, "hours": 12.0, "versions": versions()}
    size = kernel_bundle.write_bundle(partial, about)
    intro = f"# {settings.EXPERIMENT}, fold {flags.FOLD}\n\nMade by `make kernel TRAIN=1`: it trains without internet."
    write_kernel(partial, about, kernel_pages.TRAIN, intro, train=True)
    start = f"It goes on with {run}. " if goes_on else ""
    return f"{start}{len(files)} modules, {', '.join(packed_names)}: {size / 1e6:.1f} MB to upload"
