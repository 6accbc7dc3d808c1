"""The held-out predictions of all folds as one: every image exactly once, from the network that never saw it.

What would make a lie of them is refused here, by name: another folds table, another model, foreign predictions, an
image twice or not at all, folds of different settings.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data import dataspec, splits
from data.dataspec import DataSpec
from prediction import prediction_folders
from scoring.score_rows import Pairs
from tools import constants, run_folders
from tools.errors import UserError, listing
from tools.files import read_json, sha256
from training import weights_origin

if TYPE_CHECKING:
    import pandas as pd

    from settings import Settings

VALIDATION = "val"  # the folder of a run's held-out predictions and their scores


@dataclass(frozen=True)
class OutOfFold:
    """An experiment's held-out predictions under one seed.

    table: the rows (image, mask, group, stratum, kfold) with kfold >= 0, sorted by image. folders: the prediction
    folder of each fold. models: what the manifests say of their makers. provenance: what a rule that is tuned on these
    predictions depends on, JSON-ready.
    """

    experiment: str
    seed: int
    root: Path
    table: "pd.DataFrame"
    spec: DataSpec
    folders: dict[int, Path]
    models: list[dict[str, Any]]
    provenance: dict[str, Any]

    def maps(self, image: str, fold: int) -> np.ndarray:
        """Read the probability maps of an image, uint8 (C, H, W)."""
        return prediction_folders.read_maps(self.folders[fold], image, self.spec)

    def pairs(self, max_pixels: int) -> Pairs:
        """Return the held-out images with their masks."""
        return Pairs(self.table, self.root, self.spec, max_pixels)

    @property
    def weights(self) -> str:
        """Say which weights were scored, such as "last epoch", or "chosen on this fold" where that was done."""
        return ", ".join(sorted({part["weights"] for part in self.models}))

    @property
    def origin(self) -> str:
        """Say what its models began with; weights_origin.UNSURE is among it where nobody can say that."""
        folders = [Path(part["folder"]) for part in self.models]
        abouts = [
            (run_folders.read_model(run), str(run.parents[1])) for run in folders if (run / run_folders.MODEL).is_file()
        ]
        return "; ".join(sorted({str(weights_origin.began(*about)) for about in abouts}))

    @property
    def geometry(self) -> tuple[tuple[int, int], str]:
        """Return the largest (height, width) that a network of these sees, and how images are brought to it."""
        height, width, resize = max(self.provenance["sizes"], key=lambda size: size[0] * size[1])
        return (height, width), resize


def held_out(frame: "pd.DataFrame", folder: Path, table: Path) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """Return the rows a run may be scored on and those it trained on.

    Raises UserError where the table is another by now. An OVERFIT run is scored on its own training rows, and its
    summary says so.
    """
    about = run_folders.read_model(folder)
    if about["folds_sha256"] != sha256(table):
        raise UserError(
            f"{folder} was trained on another folds table than {table}, "
            "so its held-out images may be among those it has seen. "
            f"Put the old table back (a copy is {folder / run_folders.FOLDS}), or train again with OVERWRITE=1."
        )
    if not folder.name.startswith(f"fold{about['fold']}_"):
        raise UserError(
            f"{folder / run_folders.MODEL} is of fold {about['fold']}: its network was trained on images that "
            f"{folder.name} holds out. Train this fold again: make train ... OVERWRITE=1"
        )
    if about["fold"] == "full" and not about.get("overfit"):
        raise UserError(
            f"{folder} was trained on every image; there is no held-out one to score. Score folds 0, 1, ... instead."
        )
    now = dataspec.read(table.with_suffix(".json"))
    then = dataspec.from_json(about["data"], str(folder / run_folders.MODEL))
    if now != then:
        raise UserError(
            f"{folder} was trained on data of {then.task} masks ({', '.join(then.classes)}; {then.channels} channels), "
            f"and {table.with_suffix('.json')} has other ones by now ({now.task}; {', '.join(now.classes)}; "
            f"{now.channels} channels, or another window). Train again with OVERWRITE=1."
        )
    train, inside = splits.split_rows(frame, about["fold"])
    if weights_origin.BEGUN not in about and not about.get("overfit"):  # of code that did not look
        root, logs = Path(about.get("settings", {}).get("INPUT", "")), str(folder.parents[1])
        kept = weights_origin.HeldOut(frame.iloc[inside], about["fold"], table, root, logs)
        weights_origin.check(weights_origin.began(about, logs), kept)
    if about.get("overfit"):
        learned = frame.iloc[train].head(about["overfit"]).reset_index(drop=True)
        return learned, learned
    return frame.iloc[inside].reset_index(drop=True), frame.iloc[train]


def read(settings: "Settings", experiment: str = "", seed: int | None = None) -> OutOfFold:
    """Read the held-out predictions of `experiment` (EXPERIMENT) under `seed` (SEED), checked.

    Raises UserError for whatever the module's docstring names, and where a fold was not trained or not scored.
    """
    experiment, seed = experiment or settings.EXPERIMENT, settings.SEED if seed is None else seed
    table = Path(settings.TRAIN_FOLDS)
    frame = splits.read(table)
    rows = frame[frame["kfold"] >= 0].sort_values("image", ignore_index=True)
    spec, folds = dataspec.read(table.with_suffix(".json")), sorted(set(rows["kfold"]))
    if run_folders.is_ensemble(settings.LOGS, experiment):
        folders, manifests = _of_ensemble(settings, experiment, seed, folds)
    else:
        folders, manifests = _of_folds(settings, experiment, seed, frame, folds)
    _refuse_twice_or_missing(experiment, manifests, rows)
    _refuse_mixed(experiment, manifests)
    first = manifests[folds[0]]
    models = prediction_folders.distinct(manifests[fold] for fold in folds)
    provenance = prediction_folders.provenance(models, first)
    return OutOfFold(experiment, seed, Path(settings.INPUT), rows, spec, folders, models, provenance)


def _of_folds(
    settings: "Settings", experiment: str, seed: int, frame: "pd.DataFrame", folds: list[int]
) -> tuple[dict[int, Path], dict[int, dict[str, Any]]]:
    folders, manifests, recipes = {}, {}, {}
    for fold in folds:
        run = run_folders.finished_run(settings.LOGS, experiment, str(fold), seed)
        held_out(frame, run, Path(settings.TRAIN_FOLDS))
        about = run_folders.read_model(run)
        if about.get("overfit"):
            raise UserError(
                f"{run} learned its images by heart (OVERFIT); its training scores are no out-of-fold ones."
            )
        again = f"Score it again: make tester FOLD={fold} EXPERIMENT={experiment}"
        folder = run / VALIDATION
        manifest = run_folders.read_manifest(folder, again)
        if [part["weights_sha256"] for part in manifest["models"]] != [about["weights_sha256"]]:
            raise UserError(f"{folder} holds predictions of another model than {run / run_folders.WEIGHTS}. {again}")
        prediction_folders.refuse_exchanged(folder, manifest, again)
        folders[fold], manifests[fold], recipes[fold] = folder, manifest, recipe(run)
    for fold in folds:
        differ = [name for name in recipes[fold] if recipes[fold][name] != recipes[folds[0]].get(name)]
        if differ:
            raise UserError(
                f"Folds {folds[0]} and {fold} of {experiment} were trained with another {' and '.join(differ)}; the "
                "folds of one experiment share their settings. Train the odd one again with OVERWRITE=1."
            )
    return folders, manifests


def recipe(run: Path) -> dict[str, Any]:
    """Return what an experiment's folds share: the constants that its settings.json names, as this model has them."""
    names = read_json(run.parent / run_folders.SETTINGS, "Train a fold of it again: make train ... OVERWRITE=1")
    own = run_folders.read_model(run).get("settings", {})
    return {name: own.get(name) for name in constants.renamed(names) if name in own}


def _of_ensemble(
    settings: "Settings", experiment: str, seed: int, folds: list[int]
) -> tuple[dict[int, Path], dict[int, dict[str, Any]]]:
    place = Path(settings.LOGS) / experiment
    again = f"Blend it again: make ensemble OF=... NAME={experiment}"
    about = read_json(place / run_folders.ENSEMBLE, again, {"folds_sha256": str, "members": list})
    if about["folds_sha256"] != sha256(Path(settings.TRAIN_FOLDS)):
        raise UserError(f"{place} was made on another folds table than {settings.TRAIN_FOLDS}. {again}")
    folder = place / f"oof_seed{seed}" / VALIDATION
    manifest = run_folders.read_manifest(folder, again)
    prediction_folders.refuse_exchanged(folder, manifest, again)
    run_folders.refuse_stale(folder, manifest, again, "blended from")
    parts = {fold: {**manifest, "images": [i for i, k in manifest["fold_of"].items() if k == fold]} for fold in folds}
    return dict.fromkeys(folds, folder), parts


def _refuse_twice_or_missing(experiment: str, manifests: dict[int, dict[str, Any]], rows: "pd.DataFrame") -> None:
    predicted = [(image, fold) for fold, manifest in manifests.items() for image in manifest["images"]]
    names = Counter(image for image, _ in predicted)
    twice = sorted(image for image, times in names.items() if times > 1)
    missing = sorted(set(zip(rows["image"], rows["kfold"], strict=True)) - set(predicted))
    foreign = sorted(set(names) - set(rows["image"]))
    for found, what in (
        (twice, "images are predicted twice"),
        ([image for image, _ in missing], "images are not predicted"),
        (foreign, "predictions are of images that the table does not hold out"),
    ):
        if found:
            raise UserError(
                f"{experiment}: {len(found)} {what}:{listing(found, 10)}\nScore every fold again, without LIMIT: "
                f"make tester FOLD=k EXPERIMENT={experiment}"
            )


def _refuse_mixed(experiment: str, manifests: dict[int, dict[str, Any]]) -> None:
    (first, expected), *others = manifests.items()
    for fold, manifest in others:
        differ = [
            key for key in ("tta", "tta_mean", "tile", "overlap", "sizes") if manifest.get(key) != expected.get(key)
        ]
        if differ:
            raise UserError(
                f"Folds {first} and {fold} of {experiment} were predicted with another {' and '.join(differ)}. "
                f"Score them alike: make tester FOLD={fold} EXPERIMENT={experiment} TTA={expected['tta']}"
            )
