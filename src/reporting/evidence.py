"""The evidence of a report: out-of-fold scores, tuning, learning curves, and one pass over every prediction."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metrics import calibration
from prediction import chosen_rule, postprocess
from reporting import label_errors
from scoring import fold_scores, out_of_fold
from tools import console, run_folders, threads
from tools.errors import UserError
from tools.files import read_json
from tools.names import check_name

if TYPE_CHECKING:
    from settings import Settings

_CURVES = {"train loss": "train_loss_epoch", "held-out loss": "valid_loss", "held-out Dice": "valid_dice"}


@dataclass(frozen=True)
class Suspect:
    """The largest region of an image where network and label disagree, and the number of its other regions."""

    image: str
    fold: int
    region: label_errors.Region
    others: int


@dataclass(frozen=True)
class Evidence:
    """The evidence for one experiment under one seed.

    scores: a row an image and class, as in scores.csv. tuned: the result of make tune, {} where it was not run. counts:
    pixels at each probability and truth (S, 256, 2) of the scored classes, see `charts.reliability`. suspects: images
    where a confident network disagrees with the label, the largest region first.
    """

    found: out_of_fold.OutOfFold
    scores: Any
    summary: dict[str, Any]
    tuned: dict[str, Any]
    counts: np.ndarray
    suspects: list[Suspect]

    @property
    def folds(self) -> list[int]:
        return sorted(self.found.folders)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.found.spec.scored_names

    def by_image(self) -> Any:
        """Return a row an image: image, kfold, group, score (mean over its classes), area (share of any foreground).

        The score is NaN where the policy for empty masks skips every class of the image.
        """
        total = self.scores[["tp", "fp", "fn", "tn"]].sum(axis=1)
        table = self.scores.assign(area=(self.scores["tp"] + self.scores["fn"]) / total.where(total > 0))
        parts = table.groupby("image", sort=False)
        whole = parts.agg({"kfold": "first", "group": "first", "score": "mean", "area": "sum"}).reset_index()
        whole["area"] = whole["area"].clip(upper=1)  # classes may overlap
        return whole


def gather(settings: "Settings") -> Evidence:
    """Read and check the evidence for EXPERIMENT and SEED. Raises UserError where it was not cross-validated."""
    folder = Path(settings.LOGS, settings.EXPERIMENT, f"oof_seed{settings.SEED}")
    named = f"EXPERIMENT={settings.EXPERIMENT} SEED={settings.SEED}"
    if not (folder / fold_scores.SUMMARY).is_file():
        check_name("EXPERIMENT", settings.EXPERIMENT)
        known = sorted(
            {path.parent.parent.name for path in Path(settings.LOGS).glob(f"*/oof_seed*/{fold_scores.SUMMARY}")}
        )
        there = f" Experiments that have one: {', '.join(known)}." if known else ""
        raise UserError(
            f"{folder} holds no out-of-fold scores, and a report is made of them.{there} Train and score every fold "
            f"first: make cv {named}"
        )
    found, again = out_of_fold.read(settings), f"Gather them again: make oof {named}"
    need = {"score": dict, "metric": str, "rules": list, "provenance": dict, "model": dict}
    summary = read_json(folder / fold_scores.SUMMARY, again, need)
    scores = fold_scores.read_scores(folder, again)
    if summary["provenance"] != found.provenance or set(scores["image"]) != set(found.table["image"]):
        raise UserError(f"{folder} was gathered from other predictions than there are by now. {again}")
    tuned = _tuned(folder, summary, named)
    counts, suspicious = survey(found, settings.MAX_PIXELS)
    return Evidence(found, scores, summary, tuned, counts, suspicious)


def _tuned(folder: Path, summary: dict[str, Any], named: str) -> dict[str, Any]:
    """Return the result of make tune, {} where it was not run. Raises UserError where it belongs to other scores."""
    path = folder / chosen_rule.TUNED
    if not path.is_file():
        return {}
    again = f"Tune on these: make tune {named}"
    parts = {"untuned": dict, "crossfitted": dict, "tuned": dict, "optimism": float, "provenance": dict}
    tuned = read_json(path, again, parts)
    of_both = (tuned["untuned"].get("rules"), path), (summary["rules"], folder / fold_scores.SUMMARY)
    now, then = (postprocess.all_from_json(values, str(file)) for values, file in of_both)
    same = {
        "predictions": tuned["provenance"] == summary["provenance"],
        "METRIC": tuned.get("metric") == summary["metric"],
        "EMPTY": tuned.get("empty_policy") == summary.get("empty_policy"),
        "rule of the settings": now == then,
    }
    differ = [name for name, equal in same.items() if not equal]
    if differ:
        raise UserError(
            f"{path} and the scores beside it are not of the same {' and '.join(differ)}, so their numbers cannot "
            f"stand side by side. {again}"
        )
    return tuned


def survey(found: out_of_fold.OutOfFold, max_pixels: int) -> tuple[np.ndarray, list[Suspect]]:
    """Read every held-out prediction once; return pixels at each probability and truth (S, 256, 2), and suspects."""
    spec = found.spec
    counts, suspicious = np.zeros((len(spec.scored), 256, 2), np.int64), []

    def look(row: tuple[str, str, int]) -> tuple[np.ndarray, list[Suspect]]:
        image, reference, fold = row
        p8 = found.maps(image, fold)
        mask = spec.read_mask(found.root, reference, p8.shape[1:], max_pixels, image)
        regions = label_errors.find(p8, mask, spec)
        first = [Suspect(image, fold, regions[0], len(regions) - 1)] if regions else []
        return calibration.count(p8[list(spec.scored)], spec.class_planes(mask), spec.labeled(mask)), first

    columns = found.table[["image", "mask", "kfold"]]
    rows = list(columns.itertuples(index=False, name=None))
    with threads.pool() as pool:
        for added, first in console.track(pool.map(look, rows), len(rows), "looking at predictions"):
            counts += added
            suspicious += first
    return counts, sorted(suspicious, key=lambda suspect: -suspect.region.size)


def learning_curves(logs: str, experiment: str, seed: int, folds: list[int]) -> dict[int, dict[str, Any]]:
    """Return {fold: {curve: (epochs from 1 on, values)}} of each fold that has a metrics.csv, named as in _CURVES."""
    import pandas as pd

    curves = {}
    for fold in folds:
        path = run_folders.run_folder(logs, experiment, str(fold), seed) / "metrics.csv"
        if not path.is_file():
            continue
        try:
            table = pd.read_csv(path)
            epochs = {name: table[["epoch", column]].dropna() for name, column in _CURVES.items() if column in table}
        except (ValueError, KeyError) as error:
            raise UserError(f"{path} is not what training writes ({error}). Move it away to do without.") from error
        last = {name: part.groupby("epoch")[part.columns[-1]].last() for name, part in epochs.items() if len(part)}
        if last:
            curves[fold] = {name: (part.index.to_numpy() + 1, part.to_numpy()) for name, part in last.items()}
    return curves
