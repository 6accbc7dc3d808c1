"""make pseudo EXPERIMENT=x: test images that a model is sure of become rows to train on, in a folds table of their own.

The model of fold k has never seen the masks that fold k holds out, so its labels may be trained on where fold k is held
out: they become rows of kfold -1 whose for_fold is k, and no other fold sees them. A label of another fold's model, or
of the mean of all, knows fold k's masks: training on it would make a lie of fold k's score. FOLD=full holds out
nothing, and has the labels of the mean of all folds. Second rounds work: earlier pseudo-labels are replaced.

Writes output/<dataset>/train_folds_<name>.{csv,json}, pseudo/<name>/ (the masks) and pseudo/<name>.png.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import settings as settings_module
from data import dataspec, folds_table, splits
from data.dataspec import DataSpec
from prediction import chosen_rule
from scoring import label_sources, out_of_fold
from scoring.pseudo_labels import (
    Found,
    judge,
    label_of,
    made_with,
    masks_folder,
    new_rows,
    spread,
    summary,
    write_masks,
)
from tools import console, run_folders
from tools.errors import UserError, command, listing
from tools.files import read_json, sha256
from tools.flags import is_on
from tools.names import check_name

if TYPE_CHECKING:
    from prediction.postprocess import Rule
    from settings import Settings

FLAGS = {
    "CONFIDENCE": "keep an image whose confidence reaches this, 0 to 1 (default 0.9); see pseudolabels.confidence",
    "NAME": "name of the table and of the experiment to train on it (default <experiment>_pseudo)",
    "OVERWRITE": "1: replace pseudo-labels that runs were trained on",
}


def lowest(text: str) -> float:
    """CONFIDENCE as a number. Raises UserError."""
    try:
        value = float(text or 0.9)
    except ValueError as error:
        raise UserError(f"CONFIDENCE={text}: expected a number from 0 to 1, such as 0.9.") from error
    if not 0 <= value <= 1:
        raise UserError(f"CONFIDENCE={text}: expected a number from 0 to 1, such as 0.9.")
    return value


def refuse_taken(settings: "Settings", name: str, overwrite: bool) -> Path:
    """Where the new table goes. Raises UserError where something else is there, or runs were trained on it."""
    check_name("NAME", name)
    table = Path(settings.OUTPUT, f"train_folds_{name}.csv")
    if table.resolve() == Path(settings.TRAIN_FOLDS).resolve() or name == settings.EXPERIMENT:
        raise UserError(f"NAME={name} is what the labels are made from; give them another NAME.")
    run_folders.refuse_foreign(masks_folder(settings, name))
    if not table.is_file():
        return table
    about = read_json(table.with_suffix(".json"), f"Move {table} away, or choose another NAME.")
    if "pseudo" not in about:
        raise UserError(f"{table} was not written by make pseudo, so it is not ours to replace. Choose another NAME.")
    used = run_folders.tables_in_use(settings.LOGS, sha256(table))
    if used and not overwrite:
        raise UserError(
            f"{table} is there, and these runs were trained on it:{listing(used)}\n"
            "Keep both with NAME=another, or replace it: OVERWRITE=1"
        )
    return table


def write_table(settings: "Settings", path: Path, base: Any, rows: list[dict], about: dict[str, Any]) -> None:
    """The rows that were there and the new ones, with a JSON beside them that keeps what the data's pixels mean."""
    import pandas as pd

    new = pd.DataFrame(rows)
    result = splits.check(pd.concat([base.assign(**{splits.FOR_FOLD: ""}), new], ignore_index=True), path)
    sidecar = read_json(Path(settings.TRAIN_FOLDS).with_suffix(".json"), "Run make folds.")
    folds_table.write(result, path, {**sidecar, "made_with": None, "pseudo": about})


def draw(
    path: Path,
    kept: list[Found],
    rejected: list[Found],
    root: Path,
    spec: DataSpec,
    rules: "tuple[Rule, ...]",
    settings: "Settings",
    least: float,
) -> None:
    """The contact sheet of some kept and some rejected images: image, probability, label."""
    from tools import pictures

    lines = []
    for word, part in (("kept", kept), ("rejected", rejected)):
        for found in spread(part) if part else []:
            p8, mask = label_of(found, spec, rules, least)
            picture = pictures.as_rgb(spec.read_image(root / found.image, settings.MAX_PIXELS))
            planes = spec.class_planes(mask).astype(np.uint8)
            caption = f"{word}: {found.confidence:.4f}, for fold {found.source.fold}   {Path(found.image).name}"
            lines.append((caption, [picture, p8[list(spec.scored)].max(0), pictures.overlays(picture, planes)]))
    title = "probability" if len(spec.scored) == 1 else "highest probability of a class"
    note = f"{len(kept)} kept (confidence {least:g} and more), {len(rejected)} rejected; some of each, the surest first"
    titles = ["image", title, "label"]
    pictures.sheet(path, lines, titles, note=note, legend=pictures.legend(spec.scored_names))


def next_line(settings: "Settings", run: Path, name: str, table: Path) -> str:
    """The command that trains on the new table as the experiment was trained on the old one."""
    defaults = settings_module.load([f"DATASET={settings.DATASET}"])
    shared = {**out_of_fold.recipe(run), **{place: getattr(settings, place) for place in ("INPUT", "OUTPUT", "LOGS")}}
    shared |= {"DATASET": settings.DATASET, "SEED": settings.SEED}
    usual = {**defaults.snapshot(), "DATASET": settings_module.DEFAULTS["DATASET"]}
    given = [
        console.quoted(f"{key}={','.join(map(str, value)) if isinstance(value, list) else value}")
        for key, value in shared.items()
        if value != usual.get(key)
    ]
    return " ".join(["make cv", *given, f"EXPERIMENT={name}", console.quoted(f"TRAIN_FOLDS={table}")])


def refuse_none(kept: list[Found], found: list[Found], least: float) -> None:
    """Raises UserError where no image is confident."""
    if not kept:
        best = max(found, key=lambda one: one.confidence)
        raise UserError(
            f"No test image reaches CONFIDENCE={least:g}: the highest is {best.confidence:.4f}, {best.image} by fold "
            f"{best.source.fold}. Nothing was written; a lower CONFIDENCE keeps more, and more that is wrong."
        )


@command
def main(argv: list[str] | None = None) -> None:
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    least, name = lowest(flags.CONFIDENCE), flags.NAME or f"{settings.EXPERIMENT}_pseudo"
    label_sources.refuse_what_knows_the_masks(settings)
    source_table = Path(settings.TRAIN_FOLDS)
    frame = splits.read(source_table)
    spec = dataspec.read(source_table.with_suffix(".json"))
    rules = chosen_rule.configured(settings, spec)
    table = refuse_taken(settings, name, is_on(flags.OVERWRITE))
    by_fold = label_sources.checked_runs(settings, frame)
    base = splits.without_pseudo(frame)
    root, names = label_sources.test_names(settings, base, spec)

    wanted = {**{fold: [run] for fold, run in by_fold.items()}, "full": list(by_fold.values())}
    sources = [label_sources.predicted(settings, fold, part, root, names) for fold, part in wanted.items()]
    judged = [judge(source, names, spec, rules) for source in sources]
    everything = [found for part in judged for found in part]
    kept = [found for found in everything if found.confidence >= least]
    rejected = [found for found in everything if found.confidence < least]
    print(console.table([summary(part, least) for part in judged]))
    refuse_none(kept, everything, least)

    place, picture = masks_folder(settings, name), masks_folder(settings, name).with_name(f"{name}.png")
    about = made_with(settings, sources, [summary(part, least) for part in judged], least, rules)
    references = write_masks(place, kept, root, spec, rules, least, about)
    write_table(settings, table, base, new_rows(settings, kept, references, root, place), about)
    draw(picture, kept, rejected, root, spec, rules, settings, least)
    print(
        f"{len(base)} rows as they were, and {len(kept)} pseudo-labels, each for one fold -> {table}\n"
        f"their masks -> {place}\nsome of them, and some rejected, as a picture: look at it -> {picture}\n"
        f"Next: {next_line(settings, by_fold['0'], name, table)}\n"
        f"then: make compare A={settings.EXPERIMENT} B={name}"
    )


if __name__ == "__main__":
    sys.exit(main())
