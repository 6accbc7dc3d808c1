"""Images and groups -> a table of folds, split or kept, checked for leaks and written with its JSON."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data import groups, layouts, pairing, splits
from formats import images
from tools import run_folders
from tools.errors import UserError, listing
from tools.files import read_json, sha256, write_json, write_text

if TYPE_CHECKING:
    import pandas as pd

    from settings import Settings


def index_table(settings: "Settings", table: str) -> tuple[Any, pairing.Found]:
    """The images and masks to split, from TABLE or the layout, and what is known of them."""
    if table:
        frame, classes = own_table(Path(table), settings)
        first = frame["image"][0]
        channels = len(images.slices(Path(settings.INPUT) / first)) if "{z}" in first else 3
        return frame, pairing.Found("table", f"{table}, your own", [], classes=classes, channels=channels)
    found = layouts.find(settings.INPUT, settings.LAYOUT, settings.TRAIN_PATH, settings.MASK_PATH)
    frame = layouts.table(found, settings.GROUP)
    print(f"Found {found.sentence}: {len(frame)} pairs. The first ones:")
    for image, mask in zip(frame["image"][:5], frame["mask"][:5], strict=True):
        print(f"  {image}  <->  {mask or 'an empty mask'}")
    if settings.GROUP == "auto" and not found.group:
        warn_of_views(list(frame["image"]))
    return frame, found


def warn_of_views(names: list[str]) -> None:
    """Say so where names look like views of one thing and nothing keeps those together."""
    hint = groups.hint(names)
    if hint:
        print(f"Warning: {hint.sentence} If so: make folds GROUP='{hint.rule}'. If not: GROUP=none")


def own_table(path: Path, settings: "Settings") -> tuple[Any, tuple[str, ...]]:
    """A user's CSV, with the columns it lacks filled in, and its classes. kfold stays only where the user gave it."""
    frame = splits.read_csv(path, "TABLE names a CSV of image,mask[,group][,stratum][,kfold].")
    column = settings.GROUP.removeprefix("column:") if settings.GROUP.startswith("column:") else ""
    for needed in ("image", "mask", *filter(None, [column])):
        if needed not in frame:
            raise UserError(f"{path} has no column {needed}; it has {', '.join(frame.columns)}.")
    if splits.FOR_FOLD in frame:
        raise UserError(
            f"{path} has pseudo-labels, each for one fold ({splits.FOR_FOLD}): make pseudo wrote it, and it is used "
            f"as it is: make cv EXPERIMENT=... TRAIN_FOLDS={path}. make folds takes the table that it was made of."
        )
    if column:
        frame["group"] = frame[column]
    elif settings.GROUP not in ("auto", "none") or "group" not in frame:
        frame["group"] = groups.assign(list(frame["image"]), settings.GROUP)
        if settings.GROUP == "auto":
            warn_of_views(list(frame["image"]))
    if "stratum" not in frame:
        frame["stratum"] = ""
    lone = frame["group"] == ""
    frame.loc[lone, "group"] = frame["image"][lone]
    keep = [column for column in splits.COLUMNS if column in frame]
    frame = layouts.check(frame[keep].sort_values("image", ignore_index=True), f"{path}: ")
    empty = int((frame["mask"] == "").sum())
    print(
        f"{path}: {len(frame)} pairs of your own"
        + (", with their folds" if "kfold" in frame else "")
        + (f"; {empty} without a mask count as empty masks." if empty else ".")
    )
    return frame, layouts.classes_of(list(frame["mask"]), Path(settings.INPUT))


def split(frame: "pd.DataFrame", areas: np.ndarray, n_folds: int, seed: int, old: Any | None) -> Any:
    """Add kfold and stratum to the index table; images of `old` keep the fold that they have there.

    areas (N, S): the share of each class in each image. Folds get alike sizes, strata and images of each class.
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
    return frame.assign(stratum=[strata[group] for group in member], kfold=folds[member])


def _features(strata: list[str], sizes: np.ndarray, member: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """(G, F): each group's images by stratum and, with several classes, by the classes that they show."""
    kinds = np.unique(strata)
    by_stratum = (np.array(strata)[:, None] == kinds) * sizes[:, None].astype(float)
    if areas.shape[1] == 1:
        return by_stratum
    shown = np.zeros((len(sizes), areas.shape[1]))
    np.add.at(shown, member, areas > 0)
    return np.concatenate([by_stratum, shown], axis=1)


def _fixed(frame: "pd.DataFrame", member: np.ndarray, count: int, old: Any | None) -> np.ndarray:
    """The fold (G,) that each group has in the table `old`, -1 where it is new."""
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
    """Whether the table at `path` was put there, or edited, by the user: the JSON beside it does not vouch for it."""
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
) -> Any:
    """The folds table: the user's (frame has kfold), a new split, or the old one extended by new images.

    `table` is where the user's own comes from, "" for none. Refuses to replace a table that was made otherwise, is the
    user's, or was trained on, unless `overwrite`.
    """
    path = Path(settings.TRAIN_FOLDS)
    there, own = path.is_file(), users_own(path)
    before = read_json(path.with_suffix(".json"), "").get("made_with") if there and not own else None
    same, adopted = before == made_with, bool(table) and Path(table) == path
    if there and not (same or adopted or overwrite):
        old = before or {}
        differ = [
            f"{name}: {old.get(name)} there, {value} now" for name, value in made_with.items() if old.get(name) != value
        ]
        raise UserError(
            f"{path} was made otherwise:{listing(differ)}\n"
            "Keep both with OUTPUT=folder, or replace it: make folds OVERWRITE=1"
        )
    old = splits.read(path) if same and not overwrite else None
    if "kfold" in frame:
        result = splits.check(frame, Path(table))
    else:
        result = split(frame, areas, settings.N_FOLDS, settings.FOLDS_SEED, old)
    if there and not overwrite and as_csv(result) != path.read_text(encoding="utf-8"):
        used = run_folders.tables_in_use(settings.LOGS, sha256(path))
        if used:
            raise UserError(
                f"{path} would change, and these runs were trained on it:{listing(used)}\n"
                "Replace it all the same: make folds OVERWRITE=1"
            )
    if old is not None:
        new = len(set(result["image"]) - set(old["image"]))
        change = "unchanged" if result.equals(old) else f"{new} new images, the others keep their folds"
        print(f"{path} is there already: {change}.")
    return result


def as_csv(table: "pd.DataFrame") -> str:
    """The table as its file holds it."""
    return table.to_csv(index=False, lineterminator="\n")


def write(table: "pd.DataFrame", path: Path, about: dict[str, Any]) -> None:
    """Write the table, then the JSON beside it that says how it was made."""
    write_text(path, as_csv(table))
    write_json(path.with_suffix(".json"), {**about, "sha256": sha256(path)})


def strategy(given: bool, own: bool, classes: int) -> str:
    """How the folds came about, for people."""
    if given:
        return "the user's own" if own else "the split that came with the data"
    return "groups kept together, stratified by mask area" + (" and classes" if classes > 1 else "")
