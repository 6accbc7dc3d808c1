"""The folds table: assigning groups to folds, checking a table, reading it back.

Columns image, mask, group, stratum, kfold, all texts but the last. kfold -1: always trained on, never validated; with
a fold (or full) in the optional column for_fold: only where that one is trained, because it is a pseudo-label, and only
the models of that fold knew nothing of the masks that it holds out. Such an image may have a row for each fold.
"""

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tools.errors import UserError, listing
from tools.names import is_path

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("image", "mask", "group", "stratum", "kfold")
FOR_FOLD = "for_fold"  # optional: "" for all, or the only FOLD that trains on the row


def strata(areas: np.ndarray, labels: list[str], n_folds: int, bins: int = 10) -> list[str]:
    """Name a stratum for each group from its label and its mean mask area.

    The area is "empty", or which quantile of the areas it is in: fewer quantiles where there are few groups, so that
    each stratum has a group for every fold.
    """
    filled = areas > 0
    shown = int(np.count_nonzero(filled))
    count = max(1, min(bins, shown // n_folds))
    ranks = np.zeros(len(areas), np.int64)
    ranks[filled] = np.argsort(np.argsort(areas[filled], kind="stable"), kind="stable") * count // max(1, shown)
    names = [f"area{rank}" if full else "empty" for rank, full in zip(ranks, filled, strict=True)]
    return [f"{label}/{name}" if label else name for label, name in zip(labels, names, strict=True)]


def assign(
    sizes: np.ndarray, features: np.ndarray, n_folds: int, seed: int, fixed: np.ndarray | None = None
) -> np.ndarray:
    """Choose a fold for each group: greedy, largest groups first, each to the fold that stays most even in both.

    sizes: images of each group (G,). features: how many of them are in each stratum, or show each class (G, F); rare
    ones weigh more. fixed: folds that are kept, -1 where free (G,). Groups come in a fixed order (by name), so that the
    result depends on the seed alone. Returns (G,) of 0 to n_folds - 1.

    sklearn's StratifiedGroupKFold, whose idea this is, is not used: it cannot hold folds fixed when images are added.
    """
    totals = features.sum(0)
    rarity = np.divide(1.0, totals, out=np.zeros_like(totals, float), where=totals > 0)
    folds = np.full(len(sizes), -1) if fixed is None else fixed.copy()
    have, images = np.zeros((n_folds, features.shape[1])), np.zeros(n_folds)  # of each fold
    np.add.at(have, folds[folds >= 0], features[folds >= 0])
    np.add.at(images, folds[folds >= 0], sizes[folds >= 0])
    random = np.random.default_rng(seed).permutation(len(sizes))
    tie = np.random.default_rng(seed + 1).permutation(n_folds)  # which fold is first among equals
    weights = (features > 0) * rarity
    rarest = weights.argmax(1)
    for group in sorted(np.flatnonzero(folds < 0), key=lambda g: (-sizes[g], -weights[g].max(), rarest[g], random[g])):
        share = (have * rarity) @ (weights[group] / weights[group].sum())
        cost = np.round(share + images / sizes.sum(), 12)
        folds[group] = min(range(n_folds), key=lambda fold: (cost[fold], tie[fold]))
        have[folds[group]] += features[group]
        images[folds[group]] += sizes[group]
    return folds


def read(path: Path, cure: str = "Run make folds first.") -> "pd.DataFrame":
    """Read the folds table at `path`, checked. Raises UserError."""
    frame = read_csv(path, cure)
    missing = [column for column in COLUMNS if column not in frame]
    if missing:
        raise UserError(f"{path} lacks the column {', '.join(missing)}; expected {', '.join(COLUMNS)}. {cure}")
    return check(frame[[*COLUMNS, *(column for column in (FOR_FOLD,) if column in frame)]], path)


def read_csv(path: Path, cure: str) -> "pd.DataFrame":
    """Read a CSV of texts: pandas would turn the id "NA" into a missing value, and "007" into 7."""
    import pandas as pd

    if not path.is_file():
        raise UserError(f"{path}: no such table. {cure}")
    try:
        _refuse_ragged(path)
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False)
    except (ValueError, OSError, csv.Error) as error:
        raise UserError(f"{path}: not readable as CSV ({error}). {cure}") from error
    if frame.empty:
        raise UserError(f"{path} has no rows. {cure}")
    return frame


def _refuse_ragged(path: Path) -> None:
    """Refuse a row of more or fewer cells than the header: pandas would fill it up, and an image lose its mask."""
    csv.field_size_limit(1 << 30)  # a cell of run lengths may be long
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        for row in reader:
            if row and len(row) != len(header):
                raise UserError(f"{path}, line {reader.line_num}: {len(row)} cells, expected {len(header)}.")


def check(frame: "pd.DataFrame", path: Path) -> "pd.DataFrame":
    """Return the table with kfold as numbers.

    Raises UserError for folds that are no numbers, have gaps or are empty, and for a group in two folds.
    """
    odd = frame["kfold"][
        ~frame["kfold"].astype(str).str.fullmatch(r"(-1|[0-9]{1,6})(\.0)?")
    ]  # 1.0: what pandas makes of 1
    if len(odd):
        raise UserError(f"{path}: kfold is to be a whole number from -1 on, got '{odd.iloc[0]}'.")
    folds = frame["kfold"].astype(float).astype(int)
    frame = _check_for_fold(frame, folds, path)
    _refuse_odd_texts(frame, folds, path)
    per_row = [column for column in ("image", FOR_FOLD) if column in frame]
    if frame[per_row].duplicated().any():
        twice = sorted(frame["image"][frame[per_row].duplicated()])
        raise UserError(f"{path}: images listed twice:{listing(twice)}")
    have = numbered_folds(folds)
    if have != list(range(len(have))) or len(have) < 2:
        raise UserError(
            f"{path}: expected folds 0, 1, ... without a gap and at least two, "
            f"got {', '.join(map(str, have)) or 'none'}."
        )
    per_group = folds.groupby(frame["group"]).agg(lambda column: sorted(set(column)))
    split = [f"{group}: folds {', '.join(map(str, where))}" for group, where in per_group.items() if len(where) > 1]
    if split:
        raise UserError(
            f"{path}: {len(split)} groups lie in more than one fold, "
            f"so a model would be scored on what it has seen:{listing(split)}\n"
            "Give each group one fold, or make the folds anew: make folds OVERWRITE=1"
        )
    return frame.assign(kfold=folds)


def _refuse_odd_texts(frame: "pd.DataFrame", folds: "pd.Series", path: Path) -> None:
    """Refuse control characters, formulas, and held-out images that climb: their predictions would be written there."""
    texts = {text for column in ("image", "mask", "group", "stratum") if column in frame for text in frame[column]}
    odd = [repr(text) for text in sorted(texts) if text and not is_path(text)]
    if odd:
        raise UserError(f"{path}: cells that hold control characters or begin like a formula (=, +, @):{listing(odd)}")
    outside = [text for text in frame["image"][folds >= 0] if text[:1] in ("", "/", "~") or ".." in Path(text).parts]
    if outside:
        raise UserError(f"{path}: expected images by their paths relative to INPUT, and below it:{listing(outside)}")


def _check_for_fold(frame: "pd.DataFrame", folds: "pd.Series", path: Path) -> "pd.DataFrame":
    """Return the table with for_fold as "", "0", ... or "full". UserError where a fold trains on what it holds out."""
    if FOR_FOLD not in frame:
        return frame
    wanted = frame[FOR_FOLD].str.removesuffix(".0")  # 1.0: what pandas makes of 1 beside blanks
    known = {"", "full", *map(str, numbered_folds(folds))}
    odd = wanted[~wanted.isin(known)]
    if len(odd):
        raise UserError(f"{path}: {FOR_FOLD} is to be empty, full, or a fold of the table; got '{odd.iloc[0]}'.")
    held_out = frame["image"][(wanted != "") & (folds != -1)]
    if len(held_out):
        raise UserError(f"{path}: {FOR_FOLD} is for rows of kfold -1; these have another:{listing(list(held_out))}")
    both = frame["image"][(wanted != "") & frame["image"].isin(frame["image"][wanted == ""])]
    if len(both):
        raise UserError(
            f"{path}: these images have a row of their own and one for a single fold, so that a fold would train on "
            f"what it holds out, or twice:{listing(sorted(set(both)))}"
        )
    return frame.assign(**{FOR_FOLD: wanted})


def numbered_folds(kfold: "np.ndarray | pd.Series") -> list[int]:
    """List the folds that hold anything out, ascending: all of the column kfold but -1."""
    return sorted(set(kfold.tolist()) - {-1})


def fold_names(frame: "pd.DataFrame") -> tuple[str, ...]:
    """List the folds of a table as FOLD names them, in order."""
    return tuple(map(str, numbered_folds(frame["kfold"])))


def split_rows(frame: "pd.DataFrame", fold: str) -> tuple[np.ndarray, np.ndarray]:
    """Find the rows to train and to validate on for fold "0", "1", ... or "full" (no validation). Raises UserError.

    All rows but the fold's own are trained on, and of those with a for_fold this fold's.
    """
    kfold = frame["kfold"].to_numpy()
    ours = frame[FOR_FOLD].isin(["", fold]).to_numpy() if FOR_FOLD in frame else np.ones(len(kfold), bool)
    if fold == "full":
        return np.flatnonzero(ours), np.array([], np.int64)
    have = fold_names(frame)
    if fold not in have:
        raise UserError(f"FOLD={fold}: the folds table has {', '.join(have)}; expected one of them, or full.")
    return np.flatnonzero(ours & (kfold != int(fold))), np.flatnonzero(kfold == int(fold))


def without_pseudo(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Return the rows that all folds share, without the column for_fold."""
    return frame[frame[FOR_FOLD] == ""].drop(columns=FOR_FOLD) if FOR_FOLD in frame else frame


def refuse_other_held_out(frame: "pd.DataFrame", path: Path, reference: "pd.DataFrame", where: Path) -> None:
    """Refuse two tables whose held-out rows differ in image, mask, group or fold: their scores are of two tests.

    Rows of kfold -1 may differ: nothing is scored on them.
    """
    columns = ["image", "mask", "group", "kfold"]
    one, other = (
        set(table.loc[table["kfold"] >= 0, columns].itertuples(index=False, name=None)) for table in (frame, reference)
    )
    differ = sorted({row[0] for row in one ^ other})
    if differ:
        raise UserError(
            f"{path} and {where} do not hold out the same: {len(differ)} images are in one only, or have another mask, "
            f"group or fold there, so scores on them cannot be compared:{listing(differ, 5)}"
        )


def balance(frame: "pd.DataFrame", areas: np.ndarray, classes: tuple[str, ...]) -> list[dict[str, int | float]]:
    """Sum up each fold: kfold, images, groups, empty masks, mean share of foreground, images with each of `classes`.

    areas (N, S): the share of each class in each image, in rows' order.
    """
    rows, whole = [], areas.sum(1)
    for fold in sorted(frame["kfold"].unique()):
        inside = (frame["kfold"] == fold).to_numpy()
        row: dict[str, int | float] = {
            "kfold": int(fold),
            "images": int(inside.sum()),
            "groups": int(frame["group"][inside].nunique()),
            "empty": int((whole[inside] == 0).sum()),
            "mean_area": round(float(whole[inside].mean()), 5),
        }
        present = (areas[inside] > 0).sum(0)
        rows.append(
            row | ({name: int(n) for name, n in zip(classes, present, strict=True)} if len(classes) > 1 else {})
        )
    return rows
