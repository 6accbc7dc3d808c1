"""make folds: the training images and masks below INPUT -> OUTPUT/train_folds.csv, checked, balanced and free of leaks.

Every image and mask is decoded once, strictly; what is broken is listed before anything is written.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import audit
import console
import images
import layouts
import runs
import settings as settings_module
import splits
from errors import UserError, command, listing

FLAGS = {
    "TABLE": "a CSV of your own: image,mask[,group][,stratum][,kfold], paths relative to INPUT",
    "TIE": "1: put pixel-equal images into one group instead of refusing them",
    "OVERWRITE": "1: replace a folds table that was made otherwise, or that runs have used",
}


@dataclass(frozen=True)
class Examined:
    """What one strict decode of every pair tells: share of foreground and fingerprint, in the table's order."""

    areas: np.ndarray
    prints: list[bytes]


def examine(frame: Any, input_path: str, max_pixels: int) -> Examined:
    """Decode every pair of the table on all cores. Raises one UserError that lists everything broken."""
    root = Path(input_path)

    def one(pair: tuple[str, str]) -> tuple[float, bytes] | str:
        try:
            image, mask = images.read_pair(root / pair[0], root / pair[1], max_pixels)
        except UserError as error:
            return str(error)
        return float(mask.mean()), audit.fingerprint(image)

    pairs = list(zip(frame["image"], frame["mask"], strict=True))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(console.track(pool.map(one, pairs), len(pairs), "decoding"))
    problems = [result for result in results if isinstance(result, str)]
    images.refuse_listed(
        problems, "broken or mismatched pairs:", "Repair or remove these files, then run make folds again."
    )
    areas = np.array([result[0] for result in results])
    if not areas.any():
        raise UserError(
            f"{input_path}: all {len(areas)} masks are empty; there is nothing to learn. "
            "Are the values 0 and 1 (or 255)?"
        )
    return Examined(areas, [result[1] for result in results])


def index_table(settings: Any, table: str) -> tuple[Any, str, str]:
    """The images and masks to split, from TABLE or the layout -> (frame, layout's name, its submission dialect)."""
    if table:
        return own_table(Path(table), settings), "table", ""
    found = layouts.find(settings.INPUT, settings.LAYOUT, settings.TRAIN_PATH, settings.MASK_PATH)
    if settings.GROUP.startswith("column:"):
        raise UserError(f"GROUP={settings.GROUP} names a column of your own table; give that with TABLE=file.csv.")
    frame = layouts.table(found, settings.INPUT, settings.GROUP)
    print(f"Found {found.sentence}: {len(frame)} pairs. The first ones:")
    for image, mask in zip(frame["image"][:5], frame["mask"][:5], strict=True):
        print(f"  {image}  <->  {mask}")
    return frame, found.layout, found.dialect


def own_table(path: Path, settings: Any) -> Any:
    """A user's CSV, with the columns it lacks filled in. kfold stays only where the user gave it."""
    frame = splits.read_csv(path, "TABLE names a CSV of image,mask[,group][,stratum][,kfold].")
    column = settings.GROUP.removeprefix("column:") if settings.GROUP.startswith("column:") else ""
    for needed in ("image", "mask", *filter(None, [column])):
        if needed not in frame:
            raise UserError(f"{path} has no column {needed}; it has {', '.join(frame.columns)}.")
    if column:
        frame["group"] = frame[column]
    elif settings.GROUP not in ("auto", "none") or "group" not in frame:
        frame["group"] = layouts.groups(list(frame["image"]), "none" if settings.GROUP == "auto" else settings.GROUP)
    if "stratum" not in frame:
        frame["stratum"] = ""
    lone = frame["group"] == ""
    frame.loc[lone, "group"] = frame["image"][lone]
    keep = [column for column in splits.COLUMNS if column in frame]
    frame = layouts.check(frame[keep].sort_values("image", ignore_index=True), f"{path}: ")
    print(f"{path}: {len(frame)} pairs of your own" + (", with their folds." if "kfold" in frame else "."))
    return frame


def split(frame: Any, areas: np.ndarray, n_folds: int, seed: int, old: Any | None) -> Any:
    """Add kfold and stratum to the index table; images of `old` keep the fold that they have there."""
    groups = sorted(set(frame["group"]))
    if len(groups) < n_folds:
        cure = (
            f"use N_FOLDS={len(groups)} or less"
            if len(groups) > 1
            else "at least two are needed; GROUP=none: no groups"
        )
        raise UserError(f"N_FOLDS={n_folds}, but there are only {len(groups)} groups of images: {cure}.")
    number = {group: position for position, group in enumerate(groups)}
    member = frame["group"].map(number).to_numpy()
    sizes = np.bincount(member, minlength=len(groups))
    mean_areas = np.bincount(member, weights=areas, minlength=len(groups)) / sizes
    labels = frame.assign(member=member).groupby("member")["stratum"].first().tolist()
    strata = splits.strata(mean_areas, labels, n_folds)
    fixed = np.full(len(groups), -1)
    if old is not None:
        known = dict(zip(old["image"], old["kfold"], strict=True))
        for group, image in zip(member, frame["image"], strict=True):
            if known.get(image, fixed[group]) != fixed[group] and fixed[group] >= 0:
                raise UserError(
                    f"{image} belongs to a group that has images in folds {fixed[group]} and {known[image]} of "
                    "the table that is there. Split all images anew: make folds OVERWRITE=1"
                )
            fixed[group] = known.get(image, fixed[group])
    folds = splits.assign(sizes, strata, n_folds, seed, fixed)
    return frame.assign(stratum=[strata[group] for group in member], kfold=folds[member])


def refuse_leaks(frame: Any, pairs: list[tuple[int, int, str]]) -> None:
    """Raise UserError for a pair of `audit.copies` whose images lie in different folds."""
    leaks = audit.across(pairs, frame["kfold"].tolist())
    if leaks:
        shown = [
            f"{frame['image'][a]} (fold {frame['kfold'][a]}) and {frame['image'][b]} (fold {frame['kfold'][b]}): {how}"
            for a, b, how in leaks
        ]
        raise UserError(
            f"{len(leaks)} images lie in two folds, so a model would be scored on what it has seen:{listing(shown)}\n"
            "Tie them into one group: make folds TIE=1 (or remove the copies)."
        )
    same_fold = f"; {len(pairs)} pixel-equal pairs, each within one fold" if pairs else ""
    print(f"Leak audit: no group and no pixel-equal image (mirrored and turned ones included) in two folds{same_fold}.")


def users_own(path: Path) -> bool:
    """Whether the table at `path` was put there, or edited, by the user: the JSON beside it does not vouch for it."""
    sidecar = path.with_suffix(".json")
    if not path.is_file():
        return False
    if not sidecar.is_file():
        return True
    about = runs.read_json(sidecar, "Remove it; make folds writes it again.")
    return about.get("made_with") is None or about.get("sha256") != runs.sha256(path)


def choose(
    frame: Any, areas: np.ndarray, settings: Any, *, table: str, overwrite: bool, made_with: dict[str, Any]
) -> Any:
    """The folds table: the user's (frame has kfold), a new split, or the old one extended by new images.

    `table` is where the user's own comes from, "" for none. Refuses to replace a table that was made otherwise, is the
    user's, or was trained on, unless `overwrite`.
    """
    path = Path(settings.TRAIN_FOLDS)
    there, own = path.is_file(), users_own(path)
    same = there and not own and runs.read_json(path.with_suffix(".json"), "").get("made_with") == made_with
    adopted = bool(table) and Path(table) == path
    if there and not (same or adopted or overwrite):
        raise UserError(
            f"{path} was made otherwise (now {made_with}). "
            "Keep both with OUTPUT=folder, or replace it: make folds OVERWRITE=1"
        )
    old = splits.read(path) if same and not overwrite else None
    if "kfold" in frame:
        result = splits.check(frame, Path(table))
    else:
        result = split(frame, areas, settings.N_FOLDS, settings.FOLDS_SEED, old)
    if there and not overwrite and as_csv(result) != path.read_text(encoding="utf-8"):
        used = runs.tables_in_use(settings.LOGS, runs.sha256(path))
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


def as_csv(table: Any) -> str:
    """The table as its file holds it."""
    return table.to_csv(index=False, lineterminator="\n")


def write(table: Any, path: Path, about: dict[str, Any]) -> None:
    """Write the table, then the JSON beside it that says how it was made."""
    runs.write_text(path, as_csv(table))
    runs.write_json(path.with_suffix(".json"), {**about, "sha256": runs.sha256(path)})


@command
def main(argv: list[str] | None = None) -> None:
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    path, overwrite, tie = (
        Path(settings.TRAIN_FOLDS),
        settings_module.flag_is_on(flags.OVERWRITE),
        settings_module.flag_is_on(flags.TIE),
    )
    table = flags.TABLE or (str(path) if not overwrite and users_own(path) else "")
    frame, layout, dialect = index_table(settings, table)
    examined = examine(frame, settings.INPUT, settings.MAX_PIXELS)
    pairs = audit.copies(examined.prints, lambda row: images.read_image(Path(settings.INPUT) / frame["image"][row]))
    if tie:
        frame["group"] = audit.tie(list(frame["group"]), pairs)
        print(f"Tied {len(pairs)} pixel-equal images into the groups of their originals.")
    own = "kfold" in frame
    made_with = {
        "n_folds": settings.N_FOLDS,
        "seed": settings.FOLDS_SEED,
        "group": settings.GROUP,
        "layout": layout,
        "tie": tie,
    }
    result = choose(frame, examined.areas, settings, table=table, overwrite=overwrite, made_with=made_with)
    refuse_leaks(result, pairs)

    balance = splits.balance(result, examined.areas)
    strategy = "the user's own" if own else "groups kept together, stratified by mask area"
    about = {
        "layout": layout,
        "dialect": dialect,
        "strategy": strategy,
        "made_with": None if own else made_with,
        "balance": balance,
    }
    write(result, path, about)
    print(console.table(balance))
    import pictures

    picture = path.with_name("folds.png")
    pictures.balance(picture, result["kfold"].to_numpy(), examined.areas, result["group"].to_numpy())
    print(
        f"{len(result)} images in {result['group'].nunique()} groups, {strategy} -> {path}\n"
        f"balance as a picture -> {picture}"
    )


if __name__ == "__main__":
    sys.exit(main())
