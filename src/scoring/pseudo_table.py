"""Confident test predictions -> rows of a folds table, each for the fold whose model made it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import dataspec, folds_table, splits
from prediction import chosen_rule
from scoring import label_sources, out_of_fold, pseudo_judgment
from scoring.label_sources import Source
from scoring.pseudo_judgment import Judged, Labeling
from tools import console, run_folders
from tools.errors import UserError, listing
from tools.files import read_json, sha256
from tools.names import check_name

if TYPE_CHECKING:
    import pandas as pd

    from settings import Settings

STRATUM = "pseudo"  # of the new rows, so that BALANCE=pseudo=2 can say how often they come


def make(settings: "Settings", name: str, least: float, overwrite: bool) -> str:
    """Label the test images that each fold's model is sure of, for that fold; return what to say of it.

    Writes the table `name`, its masks and a picture. least: the confidence that is kept. Raises UserError.
    """
    label_sources.refuse_what_knows_the_masks(settings)
    source_table = Path(settings.TRAIN_FOLDS)
    frame = splits.read(source_table)
    spec = dataspec.read(source_table.with_suffix(".json"))
    rules = chosen_rule.configured(settings, spec)
    table = refuse_taken(settings, name, overwrite)
    by_fold = label_sources.checked_runs(settings, frame)
    base = splits.without_pseudo(frame)
    root, names = label_sources.test_names(settings, base, spec)

    how = Labeling(root, spec, rules, least)
    wanted = {**{fold: [run] for fold, run in by_fold.items()}, "full": list(by_fold.values())}
    sources = [label_sources.predicted(settings, fold, part, root, names) for fold, part in wanted.items()]
    by_source = [how.judge(source, names) for source in sources]
    judged = [one for part in by_source for one in part]
    kept = [one for one in judged if one.confidence >= least]
    rejected = [one for one in judged if one.confidence < least]
    lines = [how.summary(part) for part in by_source]
    print(console.table(lines))
    pseudo_judgment.refuse_none(kept, judged, least)

    place = masks_folder(settings.OUTPUT, name)
    picture, manifest = place.with_name(f"{name}.png"), made_with(settings, sources, lines, how)
    references = pseudo_judgment.write_masks(place, kept, how, manifest)
    write_table(settings, table, base, new_rows(settings, kept, references, root, place), manifest)
    pseudo_judgment.draw(picture, kept, rejected, how, settings.MAX_PIXELS)
    return (
        f"{len(base)} rows as they were, and {len(kept)} pseudo-labels, each for one fold -> {table}\n"
        f"their masks -> {place}\nsome of them, and some rejected, as a picture: look at it -> {picture}\n"
        f"Next: {next_line(settings, by_fold['0'], name, table)}"
    )


def masks_folder(output: str, name: str) -> Path:
    """Return where the masks of pseudo-labels lie."""
    return Path(output, "pseudo", name)


def refuse_taken(settings: "Settings", name: str, overwrite: bool) -> Path:
    """Return where the new table goes. Raises UserError where something else is there, or runs were trained on it."""
    check_name("NAME", name)
    table = Path(settings.OUTPUT, f"train_folds_{name}.csv")
    if table.resolve() == Path(settings.TRAIN_FOLDS).resolve() or name == settings.EXPERIMENT:
        raise UserError(f"NAME={name} is what the labels are made from; give them another NAME.")
    run_folders.refuse_foreign(masks_folder(settings.OUTPUT, name))
    if not table.is_file():
        return table
    sidecar = read_json(table.with_suffix(".json"), f"Move {table} away, or choose another NAME.")
    if "pseudo" not in sidecar:
        raise UserError(f"{table} was not written by make pseudo, so it is not ours to replace. Choose another NAME.")
    used = run_folders.tables_in_use(settings.LOGS, sha256(table))
    if used and not overwrite:
        raise UserError(
            f"{table} is there, and these runs were trained on it:{listing(used)}\n"
            "Keep both with NAME=another, or replace it: OVERWRITE=1"
        )
    return table


def reference(path: Path, root: Path) -> str:
    """Return `path` relative to INPUT `root`, as the tables have it; ../ where it lies elsewhere, links followed.

    It climbs by what this program knows of its folders, never by what an image is called.
    """
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return Path(os.path.relpath(path.resolve(), root.resolve())).as_posix()


def new_rows(
    settings: "Settings", kept: list[Judged], references: list[str], images_root: Path, place: Path
) -> list[dict[str, Any]]:
    """Return a row of the folds table for each kept label; each image is a group of its own."""
    root, rows = Path(settings.INPUT), []
    masks = reference(place, root)
    for judged, mask in zip(kept, references, strict=True):
        image = reference(images_root / judged.image, root)
        rows.append({"image": image, "mask": f"{masks}/{mask}", "group": image, "stratum": STRATUM, "kfold": -1,
                     splits.FOR_FOLD: judged.source.fold})  # fmt: skip
    return rows


def write_table(
    settings: "Settings", path: Path, base: "pd.DataFrame", rows: list[dict[str, Any]], manifest: dict[str, Any]
) -> None:
    """Write the rows that were there and the new ones, and a JSON beside them that keeps what the pixels mean."""
    import pandas as pd

    new, old = pd.DataFrame(rows), Path(settings.TRAIN_FOLDS)
    base = base.assign(**{splits.FOR_FOLD: ""}, stratum=folds_table.stratum_labels(base, old))
    result = splits.check(pd.concat([base, new], ignore_index=True), path)
    sidecar = read_json(old.with_suffix(".json"), "Run make folds.")
    about = {**sidecar, folds_table.LABELED: True, "made_with": None, "pseudo": manifest}
    folds_table.write(result, path, about)


def made_with(
    settings: "Settings", sources: list[Source], lines: list[dict[str, Any]], how: Labeling
) -> dict[str, Any]:
    """Return what pseudo-labels were made of, JSON-ready: table, models of each fold, rule and confidence."""
    table = Path(settings.TRAIN_FOLDS)
    return {
        "made_of": str(table),
        "made_of_sha256": sha256(table),
        "experiment": settings.EXPERIMENT,
        "seed": settings.SEED,
        "confidence": how.least,
        "rules": [rule.as_json() for rule in how.rules],
        "models": {source.fold: [part["weights_sha256"] for part in source.models] for source in sources},
        "folds": lines,
    }


def next_line(settings: "Settings", run: Path, name: str, table: Path) -> str:
    """Return the command that trains on the new table as the experiment was trained on the old one."""
    defaults = settings.fresh(f"DATASET={settings.DATASET}")
    shared = {**out_of_fold.recipe(run), **{place: getattr(settings, place) for place in ("INPUT", "OUTPUT", "LOGS")}}
    shared |= {"DATASET": settings.DATASET, "SEED": settings.SEED}
    usual = {**defaults.snapshot(), "DATASET": settings.defaults()["DATASET"]}
    given = [
        console.quoted(f"{key}={','.join(map(str, value)) if isinstance(value, list) else value}")
        for key, value in shared.items()
        if value != usual.get(key)
    ]
    return " ".join(["make cv", *given, f"EXPERIMENT={name}", console.quoted(f"TRAIN_FOLDS={table}")])
