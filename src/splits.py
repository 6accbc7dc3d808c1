"""The folds table: assigning groups to folds, checking a table, reading it back.

Columns image, mask, group, stratum, kfold, all texts but the last. kfold -1: always trained on, never validated.
"""

from pathlib import Path

import numpy as np

from errors import UserError, listing

COLUMNS = ("image", "mask", "group", "stratum", "kfold")


def strata(areas: np.ndarray, labels: list[str], n_folds: int, bins: int = 10) -> list[str]:
    """A stratum for each group from its label and its mean mask area: "empty", or which quantile of the areas it is in.

    Fewer quantiles where there are few groups, so that each stratum has a group for every fold.
    """
    filled = areas > 0
    count = int(max(1, min(bins, np.count_nonzero(filled) // n_folds)))
    ranks = np.zeros(len(areas), np.int64)
    ranks[filled] = (
        np.argsort(np.argsort(areas[filled], kind="stable"), kind="stable") * count // max(1, np.count_nonzero(filled))
    )
    names = [f"area{rank}" if full else "empty" for rank, full in zip(ranks, filled, strict=True)]
    return [f"{label}/{name}" if label else name for label, name in zip(labels, names, strict=True)]


def assign(
    sizes: np.ndarray, features: np.ndarray, n_folds: int, seed: int, fixed: np.ndarray | None = None
) -> np.ndarray:
    """A fold for each group: greedy, largest groups first, each to the fold that stays most even in both.

    sizes: images of each group (G,). features: how many of them are in each stratum, or show each class (G, F); rare
    ones weigh more. fixed: folds that are kept, -1 where free (G,). Groups come in a fixed order (by name), so that the
    result depends on the seed alone. The idea is sklearn's StratifiedGroupKFold's; there groups of one size keep their
    order of input, and nothing can be held fixed. Returns (G,) of 0 to n_folds - 1.
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


def read(path: Path, cure: str = "Run make folds first."):  # noqa: ANN201 (a DataFrame)
    """The folds table at `path`, checked. Raises UserError."""
    frame = read_csv(path, cure)
    missing = [column for column in COLUMNS if column not in frame]
    if missing:
        raise UserError(f"{path} lacks the column {', '.join(missing)}; expected {', '.join(COLUMNS)}. {cure}")
    return check(frame[list(COLUMNS)], path)


def read_csv(path: Path, cure: str):  # noqa: ANN201 (a DataFrame)
    """A CSV of texts: pandas would turn the id "NA" into a missing value, and "007" into 7."""
    import pandas as pd

    if not path.is_file():
        raise UserError(f"{path}: no such table. {cure}")
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False)
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not readable as CSV ({error}). {cure}") from error
    if frame.empty:
        raise UserError(f"{path} has no rows. {cure}")
    return frame


def check(frame, path: Path):  # noqa: ANN001, ANN201 (a DataFrame)
    """The table with kfold as numbers, or UserError: folds that are no numbers, with gaps or empty, a split group."""
    odd = frame["kfold"][
        ~frame["kfold"].astype(str).str.fullmatch(r"(-1|[0-9]{1,6})(\.0)?")
    ]  # 1.0: what pandas makes of 1
    if len(odd):
        raise UserError(f"{path}: kfold is to be a whole number from -1 on, got '{odd.iloc[0]}'.")
    folds = frame["kfold"].astype(float).astype(int)
    if frame["image"].duplicated().any():
        twice = sorted(frame["image"][frame["image"].duplicated()])
        raise UserError(f"{path}: images listed twice:{listing(twice)}")
    have = sorted(set(folds) - {-1})
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


def balance(frame, areas: np.ndarray, classes: tuple[str, ...]) -> list[dict]:  # noqa: ANN001 (a DataFrame)
    """One dict a fold: kfold, images, groups, empty masks, mean share of foreground, and images with each of `classes`.

    areas (N, S): the share of each class in each image, in rows' order.
    """
    rows, whole = [], areas.sum(1)
    for fold in sorted(frame["kfold"].unique()):
        inside = (frame["kfold"] == fold).to_numpy()
        row = {
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
