"""The table of pairs that a training would read: the folds table, or what make folds would find."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from checkup.findings import Finding, problem, warning
from data import folds_table, index_table, layouts, spec_of_data, splits
from data.dataspec import DataSpec
from data.index_table import IndexTable
from data.layout_match import LayoutMatch
from tools.errors import UserError
from tools.files import read_json
from training import builders

if TYPE_CHECKING:
    import pandas as pd

    from settings import Settings


@dataclass(frozen=True)
class Table:
    """Pairs and what their pixels mean. `made`: by make folds, so that a training can begin."""

    frame: "pd.DataFrame"
    spec: DataSpec
    made: bool
    given: bool  # the folds are the user's, or came with the data
    layout: str


def find(settings: "Settings", table: str) -> tuple[Table, list[Finding]]:
    """Take the folds table where it is there, else what make folds would. Raises UserError where there is no pair."""
    path = Path(settings.TRAIN_FOLDS)
    edited = folds_table.users_own(path)
    if path.is_file() and not edited and not table:
        return _of_folds_table(settings, path)
    index, findings = _index(settings, table or (str(path) if edited else ""))
    frame, hints = index.frame, spec_of_data.hints_of(settings, index.frame, index.match)
    root = Path(settings.INPUT)
    spec = spec_of_data.find(list(frame["mask"]), list(frame["image"]), root, hints, settings.MAX_PIXELS).spec
    if edited:
        findings.append(warning("folds table", f"{path} is your own, or was edited: make folds checks and takes it"))
    return Table(index.frame, spec, made=False, given="kfold" in index.frame, layout=index.match.layout), findings


def _of_folds_table(settings: "Settings", path: Path) -> tuple[Table, list[Finding]]:
    frame, spec = splits.read(path), builders.data_spec(settings)
    about = read_json(path.with_suffix(".json"), "Run make folds.")
    given = str(about.get("strategy", "")) in {folds_table.strategy(True, own, 1) for own in (True, False)}
    count = len(splits.fold_names(frame))
    findings = [Finding("folds table", f"{path}: {len(frame)} pairs in {count} folds", figures={"pairs": len(frame)})]
    try:
        match = layouts.match_layout(layouts.Wanted.of(settings))
    except UserError:  # a table of the user's own has no layout; the decoding will tell what is missing
        return Table(frame, spec, made=True, given=given, layout="table"), findings
    known, there = set(frame["image"]), {pair.image for pair in match.pairs}
    new = sorted(there - known)
    if new and known & there:
        findings.append(
            warning("new pairs", f"{len(new)} are not in the folds table, such as {new[0]}: make folds adds them")
        )
    findings += _alone(match)
    return Table(frame, spec, made=True, given=given, layout=match.layout), findings


def _index(settings: "Settings", table: str) -> tuple[IndexTable, list[Finding]]:
    """Index the pairs as make folds does, but list what has no partner and go on with the others."""
    if table:
        index = index_table.index(settings, table)
        said = f"Warning: {index.warning} {index.match.sentence}" if index.hint else index.match.sentence
        return index, [Finding("pairs", said)]
    match = layouts.match_layout(layouts.Wanted.of(settings))
    findings = _alone(match)
    if not match.pairs:
        raise UserError(f"{settings.INPUT}: {match.sentence}, but there is no pair of image and mask.")
    index = index_table.of_layout(match, settings)
    count = len(index.frame)
    findings.insert(0, Finding("pairs", f"{count}; {match.sentence}", figures={"pairs": count}))
    if index.hint:
        findings.append(warning("groups", index.warning))
    return index, findings


def _alone(match: LayoutMatch) -> list[Finding]:
    if not match.alone:
        return [Finding("partners", "each image has its mask, and each mask its image")]
    text = f"{len(match.alone)} images or masks have no partner, and make folds refuses them: add what is missing, "
    return [problem("partners", f"{text}remove them, or UNPAIRED=skip", match.alone)]


def sample(frame: "pd.DataFrame", most: int) -> "pd.DataFrame":
    """Take at most `most` rows, evenly spread over the table, with their positions as the index."""
    count = min(most, len(frame))
    return frame.iloc[np.arange(count) * len(frame) // count]


def with_folds(
    table: Table, frame: "pd.DataFrame", areas: np.ndarray, settings: "Settings"
) -> tuple["pd.DataFrame | None", Iterator[Finding]]:
    """Give `frame` the folds that it has, or that make folds would give it (None where it cannot), and what to say."""
    try:
        if "kfold" in frame:
            whole = frame if table.made else splits.check(frame, Path(settings.TRAIN_FOLDS))
        else:
            whole = folds_table.split(frame, areas, settings.N_FOLDS, settings.FOLDS_SEED, None)
    except UserError as error:
        return None, iter([problem("folds", str(error))])
    return whole, _balance(whole, areas, table.spec, not table.made and not table.given)


def _balance(frame: "pd.DataFrame", areas: np.ndarray, spec: DataSpec, planned: bool) -> Iterator[Finding]:
    """Say how even the folds are, and classes that a fold does not show."""
    rows = [row for row in splits.balance(frame, areas, spec.scored_names) if row["kfold"] >= 0]
    counts = [row["images"] for row in rows]
    text = f"{len(rows)} folds of {min(counts)} to {max(counts)} images in {frame['group'].nunique()} groups"
    yield Finding("folds", text + (", as make folds would make them" if planned else ""), figures={"balance": rows})
    unseen = [
        f"fold {fold} holds out no image that shows {name}"
        for fold in splits.numbered_folds(frame["kfold"])
        for name, shares in zip(spec.scored_names, areas.T, strict=True)
        if not (shares[(frame["kfold"] == fold).to_numpy()] > 0).any() and (shares > 0).any()
    ]
    if unseen:
        yield warning("classes of the folds", "their score there says nothing: fewer N_FOLDS, or leave it so", unseen)
