"""The table of pairs that a training would read: the folds table, or what make folds would find."""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from checkup.findings import Finding, problem, warning
from data import examine, folds_table, groups, layouts, pairing, splits
from data.dataspec import DataSpec
from tools.errors import UserError
from tools.files import read_json
from training import builders

if TYPE_CHECKING:
    import pandas as pd

    from settings import Settings


@dataclass(frozen=True)
class Table:
    """Pairs and what their pixels mean. `made`: by make folds, so that a training can begin."""

    frame: Any
    spec: DataSpec
    made: bool
    given: bool  # the folds are the user's, or came with the data
    layout: str


def find(settings: "Settings", table: str) -> tuple[Table, list[Finding]]:
    """The folds table where it is there, or what make folds would take. Raises UserError where there is no pair."""
    path = Path(settings.TRAIN_FOLDS)
    edited = folds_table.users_own(path)
    if path.is_file() and not edited and not table:
        return _made(settings, path)
    table = table or (str(path) if edited else "")
    found, findings = _found(settings, table)
    frame = found[0]
    dialect = settings.DIALECT if settings.DIALECT != "auto" else found[1].dialect
    root = Path(settings.INPUT)
    spec = examine.guess(
        frame,
        root,
        task=settings.TASK,
        classes=found[1].classes,
        ignore=settings.IGNORE,
        channels=settings.IN_CHANNELS or found[1].channels,
        dialect=dialect or layouts.table_dialect(frame, root),
    )
    if edited:
        findings.append(warning("folds table", f"{path} is your own, or was edited: make folds checks and takes it"))
    return Table(frame, spec, False, "kfold" in frame, found[1].layout), findings


def _made(settings: "Settings", path: Path) -> tuple[Table, list[Finding]]:
    frame, spec = splits.read(path), builders.data_spec(settings)
    about = read_json(path.with_suffix(".json"), "Run make folds.")
    given = str(about.get("strategy", "")) in {folds_table.strategy(True, own, 1) for own in (True, False)}
    count = frame["kfold"][frame["kfold"] >= 0].nunique()
    findings = [Finding("folds table", f"{path}: {len(frame)} pairs in {count} folds", figures={"pairs": len(frame)})]
    try:
        found = layouts.look(settings.INPUT, settings.LAYOUT, settings.TRAIN_PATH, settings.MASK_PATH)
    except UserError:  # a table of the user's own has no layout; the decoding will tell what is missing
        return Table(frame, spec, True, given, "table"), findings
    known, there = set(frame["image"]), {pair.image for pair in found.pairs}
    new = sorted(there - known)
    if new and known & there:
        findings.append(
            warning("new pairs", f"{len(new)} are not in the folds table, such as {new[0]}: make folds adds them")
        )
    findings += _alone(found)
    return Table(frame, spec, True, given, found.layout), findings


def _found(settings: "Settings", table: str) -> tuple[tuple[Any, pairing.Found], list[Finding]]:
    """As make folds does it, but that what has no partner is listed and the others are looked at."""
    if table:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            whole = folds_table.index_table(settings, table)
        return whole, [Finding("pairs", " ".join(said.getvalue().split()))]
    found = layouts.look(settings.INPUT, settings.LAYOUT, settings.TRAIN_PATH, settings.MASK_PATH)
    findings = _alone(found)
    if not found.pairs:
        raise UserError(f"{settings.INPUT}: {found.sentence}, but there is no pair of image and mask.")
    frame = layouts.table(found, settings.GROUP)
    findings.insert(0, Finding("pairs", f"{len(frame)}; {found.sentence}", figures={"pairs": len(frame)}))
    hint = groups.hint(list(frame["image"])) if settings.GROUP == "auto" and not found.group else None
    if hint:
        findings.append(warning("groups", f"{hint.sentence} If so: make folds GROUP='{hint.rule}'. If not: GROUP=none"))
    return (frame, found), findings


def _alone(found: pairing.Found) -> list[Finding]:
    if not found.alone:
        return [Finding("partners", "each image has its mask, and each mask its image")]
    text = f"{len(found.alone)} images or masks have no partner, and make folds refuses them: add what is missing, or "
    return [problem("partners", f"{text}remove them", found.alone)]


def sample(frame: "pd.DataFrame", most: int) -> Any:
    """At most `most` rows, evenly spread over the table, with their positions as the index."""
    count = min(most, len(frame))
    return frame.iloc[np.arange(count) * len(frame) // count]


def with_folds(
    table: Table, frame: "pd.DataFrame", areas: np.ndarray, settings: "Settings"
) -> tuple[Any, Iterator[Finding]]:
    """`frame` with the folds that it has, or that make folds would give it (None where it cannot), and what to say."""
    try:
        if "kfold" in frame:
            whole = frame if table.made else splits.check(frame, Path(settings.TRAIN_FOLDS))
        else:
            whole = folds_table.split(frame, areas, settings.N_FOLDS, settings.FOLDS_SEED, None)
    except UserError as error:
        return None, iter([problem("folds", str(error))])
    return whole, _balance(whole, areas, table.spec, not table.made and not table.given)


def _balance(frame: "pd.DataFrame", areas: np.ndarray, spec: DataSpec, planned: bool) -> Iterator[Finding]:
    """How even the folds are, and classes that a fold does not show."""
    rows = [row for row in splits.balance(frame, areas, spec.scored_names) if row["kfold"] >= 0]
    counts = [row["images"] for row in rows]
    text = f"{len(rows)} folds of {min(counts)} to {max(counts)} images in {frame['group'].nunique()} groups"
    yield Finding("folds", text + (", as make folds would make them" if planned else ""), figures={"balance": rows})
    unseen = [
        f"fold {fold} holds out no image that shows {name}"
        for fold in sorted(set(frame["kfold"]) - {-1})
        for name, shares in zip(spec.scored_names, areas.T, strict=True)
        if not (shares[(frame["kfold"] == fold).to_numpy()] > 0).any() and (shares > 0).any()
    ]
    if unseen:
        yield warning("classes of the folds", "their score there says nothing: fewer N_FOLDS, or leave it so", unseen)
