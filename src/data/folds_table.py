"""The index table and the masks' areas -> a table of folds, split or kept, and written with its JSON."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data import splits
from tools import run_folders
from tools.errors import UserError, listing
from tools.files import read_json, sha256, write_json, write_text

if TYPE_CHECKING:
    import pandas as pd

    from settings import Settings

LABELED = "labeled_strata"  # the JSON says that `stratum` is the label alone, without the area that assigns folds
_AREA = re.compile(r"(?:^|/)(?:area\d+|empty)$")


def split(
    frame: "pd.DataFrame",
    areas: np.ndarray,
    n_folds: int,
    seed: int,
    old: "pd.DataFrame | None",
    cells: bool = False,
) -> "pd.DataFrame":
    """Add kfold to the index table; images of `old` keep the fold that they have there.

    areas (N, S): the share of each class in each image. Folds get alike sizes, strata and images of each class. cells:
    the column stratum gets the area behind its label, as tables of before have it.
    """
    names = sorted(set(frame["group"]))
    if len(names) < n_folds:
        cure = (
            f"use N_FOLDS={len(names)} or less" if len(names) > 1 else "at least two are needed; GROUP=none: no groups"
        )
        raise UserError(f"N_FOLDS={n_folds}, but there are only {len(names)} groups of images: {cure}.")
    number = {group: position for position, group in enumerate(names)}
    member = frame["group"].map(number).to_numpy()
    sizes = np.bincount(member, minlength=len(names))
    mean_areas = np.bincount(member, weights=areas.sum(1), minlength=len(names)) / sizes
    labels = frame.assign(member=member).groupby("member")["stratum"].first().tolist()
    strata = splits.strata(mean_areas, labels, n_folds)
    folds = splits.assign(
        sizes, _features(strata, sizes, member, areas), n_folds, seed, _fixed(frame, member, len(names), old)
    )
    result = frame.assign(kfold=folds[member])
    return result.assign(stratum=[strata[group] for group in member]) if cells else result


def stratum_labels(frame: "pd.DataFrame", path: Path) -> list[str]:
    """Return what the layout, or the user, calls the stratum of each row of the folds table at `path`."""
    sidecar = path.with_suffix(".json")
    about = read_json(sidecar, "Run make folds.") if sidecar.is_file() else {}
    of_before = about.get("made_with") is not None and not about.get(LABELED)
    return [_AREA.sub("", str(text)) if of_before else str(text) for text in frame["stratum"]]


def _features(strata: list[str], sizes: np.ndarray, member: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Count (G, F): each group's images by stratum and, with several classes, by the classes that they show."""
    kinds = np.unique(strata)
    by_stratum = (np.array(strata)[:, None] == kinds) * sizes[:, None].astype(float)
    if areas.shape[1] == 1:
        return by_stratum
    shown = np.zeros((len(sizes), areas.shape[1]))
    np.add.at(shown, member, areas > 0)
    return np.concatenate([by_stratum, shown], axis=1)


def _fixed(frame: "pd.DataFrame", member: np.ndarray, count: int, old: "pd.DataFrame | None") -> np.ndarray:
    """Find the fold (G,) that each group has in the table `old`, -1 where it is new."""
    fixed = np.full(count, -1)
    if old is None:
        return fixed
    known = dict(zip(old["image"], old["kfold"], strict=True))
    for group, image in zip(member, frame["image"], strict=True):
        if known.get(image, fixed[group]) != fixed[group] and fixed[group] >= 0:
            raise UserError(
                f"{image} belongs to a group that has images in folds {fixed[group]} and {known[image]} of "
                "the table that is there. Split all images anew: make folds OVERWRITE=1"
            )
        fixed[group] = known.get(image, fixed[group])
    return fixed


def users_own(path: Path) -> bool:
    """Say whether the user put or edited the table at `path`: the JSON beside it does not vouch for it."""
    sidecar = path.with_suffix(".json")
    if not path.is_file():
        return False
    if not sidecar.is_file():
        return True
    about = read_json(sidecar, "Remove it; make folds writes it again.")
    return about.get("made_with") is None or about.get("sha256") != sha256(path)


def choose(
    frame: "pd.DataFrame",
    areas: np.ndarray,
    settings: "Settings",
    *,
    table: str,
    overwrite: bool,
    made_with: dict[str, Any],
) -> tuple["pd.DataFrame", bool]:
    """Make the folds table: the user's (frame has kfold), a new split, or the old one extended by new images.

    Returns it and whether its column stratum has labels alone (LABELED), which a table of before keeps as it was.
    `table` is where the user's own comes from, "" for none. Refuses to replace a table that was made otherwise, is the
    user's, or was trained on, unless `overwrite`.
    """
    path = Path(settings.TRAIN_FOLDS)
    there, own = path.is_file(), users_own(path)
    about = read_json(path.with_suffix(".json"), "") if there and not own else {}
    before = about.get("made_with")
    same, adopted = before == made_with, bool(table) and Path(table) == path
    if there and not (same or adopted or overwrite):
        _refuse_made_otherwise(path, before or {}, made_with)
    old = splits.read(path) if same and not overwrite else None
    if "kfold" in frame:
        result = splits.check(frame, Path(table))
    else:
        cells = old is not None and not about.get(LABELED)
        result = split(frame, areas, settings.N_FOLDS, settings.FOLDS_SEED, old, cells)
    if there and not overwrite:
        _refuse_used(path, result, settings.LOGS)
    if old is not None:
        new = len(set(result["image"]) - set(old["image"]))
        change = "unchanged" if result.equals(old) else f"{new} new images, the others keep their folds"
        print(f"{path} is there already: {change}.")
    return result, old is None or bool(about.get(LABELED))


def _refuse_made_otherwise(path: Path, then: dict[str, Any], made_with: dict[str, Any]) -> None:
    """Refuse to replace a table that was made with other constants, or by the user; say which differ."""
    differ = [f"{name}: {then.get(name)} there, {now} now" for name, now in made_with.items() if then.get(name) != now]
    raise UserError(
        f"{path} was made otherwise:{listing(differ)}\n"
        "Keep both with OUTPUT=folder, or replace it: make folds OVERWRITE=1"
    )


def _refuse_used(path: Path, result: "pd.DataFrame", logs: str) -> None:
    """Refuse to change a table that runs were trained on."""
    if as_csv(result) == path.read_text(encoding="utf-8"):
        return
    used = run_folders.tables_in_use(logs, sha256(path))
    if used:
        raise UserError(
            f"{path} would change, and these runs were trained on it:{listing(used)}\n"
            "Replace it all the same: make folds OVERWRITE=1"
        )


def as_csv(table: "pd.DataFrame") -> str:
    """Write the table as its file holds it."""
    return table.to_csv(index=False, lineterminator="\n")


def write(table: "pd.DataFrame", path: Path, about: dict[str, Any]) -> None:
    """Write the table, then the JSON beside it that says how it was made."""
    write_text(path, as_csv(table))
    write_json(path.with_suffix(".json"), {**about, "sha256": sha256(path)})


def strategy(given: bool, own: bool, classes: int) -> str:
    """Say for people how the folds came about."""
    if given:
        return "the user's own" if own else "the split that came with the data"
    return "groups kept together, stratified by mask area" + (" and classes" if classes > 1 else "")
