"""Names, manifests and refusals of experiment folders, run folders and prediction folders.

lightning_logs/<experiment>/settings.json,
.../fold<k>_seed<s>/{train_folds.csv, model.safetensors, model.json, checkpoints/, val/}.
"""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from errors import UserError, listing

MODEL, WEIGHTS, FOLDS, MANIFEST = "model.json", "model.safetensors", "train_folds.csv", "manifest.json"


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a whole file or none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_json(path: Path, values: Any) -> None:
    """Write `values` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, cure: str) -> dict[str, Any]:
    """The JSON object in `path`. Raises UserError, ending with `cure`, where it is missing or broken."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file. {cure}") from error
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}). {cure}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a JSON object. {cure}")
    return values


def run_folder(logs: str, experiment: str, fold: str, seed: int) -> Path:
    """lightning_logs/<experiment>/fold<k>_seed<s>; `fold` is a number or "full"."""
    if not re.fullmatch(r"\w[\w.+-]*", experiment):
        raise UserError(f"EXPERIMENT={experiment} is to be a folder's name: letters, digits and . _ + - only.")
    return Path(logs) / experiment / f"fold{fold}_seed{seed}"


def finished_run(logs: str, experiment: str, fold: str, seed: int) -> Path:
    """The folder of a run that has its model. Raises UserError naming what there is and the command that makes it."""
    folder = run_folder(logs, experiment, fold, seed)
    if (folder / MODEL).is_file() and (folder / WEIGHTS).is_file():
        return folder
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


def finished_folds(logs: str, experiment: str, seed: int) -> list[str]:
    """The folds of an experiment that have a model: numbers in order, then "full"."""
    names = [
        re.fullmatch(rf"fold(\d+|full)_seed{seed}", path.parent.name)
        for path in Path(logs, experiment).glob(f"*/{MODEL}")
    ]
    folds = [name[1] for name in names if name]
    return sorted((fold for fold in folds if fold != "full"), key=int) + [fold for fold in folds if fold == "full"]


def prepare_run(folder: Path, resume: bool, overwrite: bool) -> None:
    """Make a run folder, or refuse one that is in use."""
    if resume and overwrite:
        raise UserError("RESUME=1 goes on with a run and OVERWRITE=1 throws it away; give one of them.")
    there = folder.is_dir() and any(folder.iterdir())
    if resume and not (folder / "checkpoints" / "last.ckpt").is_file():
        raise UserError(f"{folder} has no checkpoints/last.ckpt to resume from; leave RESUME=1 out to start.")
    if there and not resume and not overwrite:
        raise UserError(
            f"{folder} holds a run already. "
            "RESUME=1 goes on with it, OVERWRITE=1 starts again, EXPERIMENT=name keeps both."
        )
    if there and overwrite:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)


def hold_experiment(folder: Path, values: dict[str, Any], folds_sha: str, overwrite: bool) -> None:
    """Let the first run of an experiment fix `values` in settings.json and refuse a later one that differs.

    With `overwrite`, and no other run's model in the folder, the new values replace the old ones.
    """
    path, fixed = folder / "settings.json", {**values, "folds_sha256": folds_sha}
    if path.is_file() and not (overwrite and not list(folder.glob(f"*/{MODEL}"))):
        old = read_json(path, "Remove the experiment's folder or choose another EXPERIMENT=name.")
        differ = [
            f"{name}: {old.get(name)} there, {fixed.get(name)} now"
            for name in {**old, **fixed}
            if old.get(name) != fixed.get(name)
        ]
        if differ:
            raise UserError(
                f"{path}: the folds of one experiment share data, network and training settings; "
                f"these differ:{listing(differ)}\n"
                "Give this run a name of its own: EXPERIMENT=name"
            )
        return
    write_json(path, fixed)


def tables_in_use(logs: str, sha: str) -> list[str]:
    """The run folders that were trained on the folds table with this sha256."""
    return sorted(str(path.parent) for path in Path(logs).glob(f"*/*/{FOLDS}") if sha256(path) == sha)


def prediction_path(folder: Path, image: str) -> Path:
    """Where the probability map of `image` (relative to INPUT) lies in a prediction folder."""
    return folder / Path(image).with_suffix(".png")
