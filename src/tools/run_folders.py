"""Names, manifests and refusals of experiment folders, run folders and prediction folders.

lightning_logs/<experiment>/settings.json,
.../fold<k>_seed<s>/{train_folds.csv, model.safetensors, model.json, checkpoints/, val/}."""

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tools import constants
from tools.errors import UserError, listing
from tools.files import read_json, sha256, write_json
from tools.names import check_name, image_name, plain_name

MODEL, WEIGHTS, FOLDS = "model.json", "model.safetensors", "train_folds.csv"
MANIFEST, SETTINGS = "manifest.json", "settings.json"
ORIGIN = "run.json"  # settings, code, packages, computer and data of a run, written at its start
LAST, PREVIOUS = "last.ckpt", "previous.ckpt"  # in a run's checkpoints/, for resuming
ENSEMBLE = "ensemble.json"  # in the folder of an experiment that blends others
FOLD_NAME = r"0|[1-9][0-9]*|full"


def read_model(folder: Path) -> dict[str, Any]:
    """Return the model.json of a run folder. Raises UserError where it is not as training writes it."""
    cure = "Train it again: make train ... OVERWRITE=1"
    need = {"fold": str, "weights": str, "network": dict, "data": dict, "weights_sha256": str, "folds_sha256": str}
    about = read_json(folder / MODEL, cure, need)
    if not re.fullmatch(FOLD_NAME, about["fold"]):
        raise UserError(f"{folder / MODEL}: fold {about['fold']} is neither a number nor full. {cure}")
    settings = about.get("settings")
    return {**about, "settings": constants.renamed(settings)} if isinstance(settings, dict) else about


def read_manifest(folder: Path, cure: str) -> dict[str, Any]:
    """Return a prediction folder's manifest.json: the images' names and the models that made them. Raises UserError."""
    path = folder / MANIFEST
    manifest = read_json(path, cure, {"images": list, "models": list, "data": dict})
    models = all(isinstance(part, dict) and {"folder", "weights_sha256"} <= part.keys() for part in manifest["models"])
    if (
        not manifest["models"]
        or not manifest["images"]
        or not models
        or not all(isinstance(image, str) for image in manifest["images"])
    ):
        raise UserError(f"{path} is not what inference writes. {cure}")
    return manifest


def refuse_stale(folder: Path, manifest: dict[str, Any], again: str, made: str = "predicted by") -> None:
    """Refuse, with UserError, predictions of a model that has been trained again since."""
    for part in manifest["models"]:
        run = Path(part["folder"])
        if (run / MODEL).is_file() and read_model(run)["weights_sha256"] != part["weights_sha256"]:
            raise UserError(f"{folder} was {made} an earlier model of {run}. {again}")


def run_folder(logs: str, experiment: str, fold: str, seed: int) -> Path:
    """Return lightning_logs/<experiment>/fold<k>_seed<s>; `fold` is a number or "full"."""
    check_name("EXPERIMENT", experiment)
    if not re.fullmatch(FOLD_NAME, fold):
        raise UserError(f"FOLD={fold}: expected 0, 1, ... or full.")
    return Path(logs) / experiment / f"fold{fold}_seed{seed}"


def finished_run(logs: str, experiment: str, fold: str, seed: int) -> Path:
    """Return the folder of a finished run. Raises UserError naming other finished runs and the command to type."""
    folder = run_folder(logs, experiment, fold, seed)
    if (folder / MODEL).is_file() and (folder / WEIGHTS).is_file():
        return folder
    if is_ensemble(logs, experiment):
        raise UserError(
            f"{experiment} is an ensemble and has no network of its own: make inference with each of its members, then "
            f"make ensemble again blends what they predict. It is scored already (oof_seed{seed}); make tune takes it."
        )
    have = finished_folds(logs, experiment, seed)
    if have:
        raise UserError(
            f"{folder} has no finished model; experiment {experiment} with SEED={seed} has fold {', '.join(have)}. "
            f"Train it: make train FOLD={fold} EXPERIMENT={experiment}"
        )
    known = sorted({path.parent.parent.name for path in Path(logs).glob(f"*/*/{MODEL}")})
    names = (
        f" Finished experiments in {logs}: {', '.join(known)}."
        if known
        else f" No experiment in {logs} is finished yet."
    )
    raise UserError(
        f"There is no finished run {folder}.{names} Train it: make train FOLD={fold} EXPERIMENT={experiment}"
    )


def is_ensemble(logs: str, experiment: str) -> bool:
    """Return whether `make ensemble` wrote this experiment."""
    return Path(logs, experiment, ENSEMBLE).is_file()


def finished_folds(logs: str, experiment: str, seed: int) -> list[str]:
    """Return the folds of an experiment that have a model: numbers in order, then "full"."""
    names = [
        re.fullmatch(rf"fold(\d+|full)_seed{seed}", path.parent.name)
        for path in Path(logs, experiment).glob(f"*/{MODEL}")
    ]
    folds = [name[1] for name in names if name]
    return sorted((fold for fold in folds if fold != "full"), key=int) + [fold for fold in folds if fold == "full"]


def resumable(folder: Path) -> bool:
    """Return whether a run is unfinished and has a checkpoint that RESUME=1 can continue from."""
    checkpoints = (folder / "checkpoints" / name for name in (LAST, PREVIOUS))
    return not (folder / MODEL).is_file() and any(path.is_file() for path in checkpoints)


def check_run(
    folder: Path, fixed: dict[str, Any], resume: bool, overwrite: bool, defaults: Mapping[str, Any] = {}
) -> None:
    """Refuse a run folder in use, or settings other than those of the experiment's other runs. Writes nothing.

    fixed: what all runs of the experiment share; with `overwrite` it may change where no other run has a model. Raises
    UserError.
    """
    if resume and overwrite:
        raise UserError("RESUME=1 goes on with a run and OVERWRITE=1 throws it away; give one of them.")
    worth_keeping = (folder / MODEL).exists() or resumable(folder)
    if resume and not worth_keeping:
        raise UserError(f"{folder} has no checkpoints/last.ckpt to resume from; leave RESUME=1 out to start.")
    if worth_keeping and not resume and not overwrite:
        raise UserError(
            f"{folder} holds a run already. "
            "RESUME=1 goes on with it, OVERWRITE=1 starts again, EXPERIMENT=name keeps both."
        )
    others = [model for model in folder.parent.glob(f"*/{MODEL}") if model.parent != folder]
    if not overwrite or others:
        check_experiment(folder.parent, fixed, defaults)


def check_experiment(folder: Path, fixed: dict[str, Any], defaults: Mapping[str, Any] = {}) -> None:
    """Refuse, with UserError, settings other than those that the experiment's first run fixed.

    defaults: of constants. A constant that did not exist at that first run may have its default now.
    """
    path = folder / SETTINGS
    if not path.is_file():
        return
    old = read_json(path, "Remove the experiment's folder or choose another EXPERIMENT=name.")
    differ = differences(old, fixed, [name for name, value in defaults.items() if fixed.get(name) == value])
    if differ:
        raise UserError(
            f"{path}: the folds of one experiment share data, network and training settings; "
            f"these differ:{listing(differ)}\n"
            "Give this run a name of its own: EXPERIMENT=name"
        )


def differences(then: dict[str, Any], now: dict[str, Any], new: Iterable[str] = ()) -> list[str]:
    """Return `LR: 0.001 there, 0.01 now` for each name whose values differ, or that only one of the two has.

    new: names that `then` may lack without a difference, because those constants did not exist yet.
    """
    then, now = constants.renamed(then), constants.renamed(now)
    unknown = {name for name in new if name not in then}
    names = [name for name in {**then, **now} if then.get(name) != now.get(name) and name not in unknown]
    return [f"{name}: {then.get(name)} there, {now.get(name)} now" for name in names]


def open_run(folder: Path, fixed: dict[str, Any], resume: bool) -> None:
    """Make the run folder, empty unless it is resumed, and fix the experiment's settings; `check_run` comes first."""
    if folder.is_dir() and not resume:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder.parent / SETTINGS, fixed)


def tables_in_use(logs: str, sha: str) -> list[str]:
    """Return the run folders that were trained on the folds table with this sha256."""
    return sorted(str(path.parent) for path in Path(logs).glob(f"*/*/{FOLDS}") if sha256(path) == sha)


def table_of(table: Path, trained_on: Iterable[object], sha: str | None) -> Path:
    """Return the folds table with this sha256: `table`, a path in `trained_on`, or a file of that name beside `table`.

    Return `table` where no such table is left.
    """
    then = [Path(str(path)) for path in trained_on if path]
    there = (path for path in (table, *then, *(table.with_name(path.name) for path in then)) if path.is_file())
    return next((path for path in there if sha256(path) == sha), table)


def refuse_foreign(folder: Path) -> None:
    """Refuse, with UserError, a prediction folder that holds files but no manifest: it is not ours to replace."""
    if folder.exists() and not (folder / MANIFEST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} holds no {MANIFEST}, so it is not ours to replace. Move it away first.")


def replace_folder(whole: Path, folder: Path) -> None:
    """Replace `folder` by the finished prediction folder `whole`."""
    refuse_foreign(folder)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)  # two renames in a row, so that a kill leaves the old folder or the new one
    os.replace(whole, folder)
    shutil.rmtree(old, ignore_errors=True)


def prediction_path(folder: Path, image: str, class_name: str = "") -> Path:
    """Return the path of the probability map of `image` (relative to INPUT) in a prediction folder.

    With several classes each has its own map, in a folder of the image's name: <folder>/images/a/<class>.png.
    """
    whole = folder / Path(image_name(image)).with_suffix(".png")
    return whole.with_suffix("") / f"{plain_name(class_name)}.png" if class_name else whole
