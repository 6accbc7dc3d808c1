"""make pseudo EXPERIMENT=x: test images that a model is sure of become rows to train on, in a folds table of their own.

The model of fold k has never seen the masks that fold k holds out, so its labels may be trained on where fold k is held
out: they become rows of kfold -1 whose for_fold is k, and no other fold sees them. A label of another fold's model, or
of the mean of all, knows fold k's masks: training on it would make a lie of fold k's score. FOLD=full holds out
nothing, and has the labels of the mean of all folds. Second rounds work: earlier pseudo-labels are replaced.

Writes output/<dataset>/train_folds_<name>.{csv,json}, pseudo/<name>/ (the masks) and pseudo/<name>.png.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import console
import dataspec
import folds as folds_script
import images
import labellers
import outoffold
import postprocess
import predictions
import pseudolabels
import rules
import runs
import settings as settings_module
import splits
import threads
from dataspec import DataSpec
from errors import UserError, command, listing
from labellers import Source

FLAGS = {
    "CONFIDENCE": "keep an image whose confidence reaches this, 0 to 1 (default 0.9); see pseudolabels.confidence",
    "NAME": "name of the table and of the experiment to train on it (default <experiment>_pseudo)",
    "OVERWRITE": "1: replace pseudo-labels that runs were trained on",
}
STRATUM = "pseudo"  # of the new rows, so that BALANCE=pseudo=2 can say how often they come
SHOWN = 6  # kept and rejected images in the picture


@dataclass(frozen=True)
class Found:
    """One test image as one source predicted it: confidence in [0, 1], share of foreground in its mask."""

    source: Source
    image: str
    confidence: float
    area: float


def lowest(text: str) -> float:
    """CONFIDENCE as a number. Raises UserError."""
    try:
        value = float(text or 0.9)
    except ValueError as error:
        raise UserError(f"CONFIDENCE={text}: expected a number from 0 to 1, such as 0.9.") from error
    if not 0 <= value <= 1:
        raise UserError(f"CONFIDENCE={text}: expected a number from 0 to 1, such as 0.9.")
    return value


def refuse_taken(settings: Any, name: str, overwrite: bool) -> Path:
    """Where the new table goes. Raises UserError where something else is there, or runs were trained on it."""
    runs.check_name("NAME", name)
    table = Path(settings.OUTPUT, f"train_folds_{name}.csv")
    if table.resolve() == Path(settings.TRAIN_FOLDS).resolve() or name == settings.EXPERIMENT:
        raise UserError(f"NAME={name} is what the labels are made from; give them another NAME.")
    runs.refuse_foreign(masks_folder(settings, name))
    if not table.is_file():
        return table
    about = runs.read_json(table.with_suffix(".json"), f"Move {table} away, or choose another NAME.")
    if "pseudo" not in about:
        raise UserError(f"{table} was not written by make pseudo, so it is not ours to replace. Choose another NAME.")
    used = runs.tables_in_use(settings.LOGS, runs.sha256(table))
    if used and not overwrite:
        raise UserError(
            f"{table} is there, and these runs were trained on it:{listing(used)}\n"
            "Keep both with NAME=another, or replace it: OVERWRITE=1"
        )
    return table


def masks_folder(settings: Any, name: str) -> Path:
    """Where the masks of pseudo-labels lie."""
    return Path(settings.OUTPUT, "pseudo", name)


def judge(source: Source, names: list[str], spec: DataSpec, to_mask: tuple[postprocess.Rule, ...]) -> list[Found]:
    """How sure a source is of each image."""

    def one(name: str) -> Found:
        p8 = predictions.read_maps(source.folder, name, spec)
        masks = postprocess.to_masks(p8, spec.task, spec.scored, to_mask)
        return Found(source, name, pseudolabels.confidence(p8, spec, to_mask), float(masks.any(0).mean()))

    with threads.pool() as pool:
        return list(console.track(pool.map(one, names), len(names), f"judging fold {source.fold}"))


def label_of(found: Found, spec: DataSpec, to_mask: tuple[postprocess.Rule, ...], least: float) -> Any:
    """The probabilities (C, H, W) of an image and its pseudo-label (K, H, W)."""
    p8 = predictions.read_maps(found.source.folder, found.image, spec)
    return p8, pseudolabels.labels(p8, spec, postprocess.to_masks(p8, spec.task, spec.scored, to_mask), least)


def reference(path: Path, root: Path) -> str:
    """`path` relative to INPUT `root`, as the tables have it; ../ where it lies elsewhere, links followed.

    It climbs by what this program knows of its folders, never by what an image is called.
    """
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return Path(os.path.relpath(path.resolve(), root.resolve())).as_posix()


def new_rows(settings: Any, kept: list[Found], references: list[str], images_root: Path, place: Path) -> list[dict]:
    """A row of the folds table for each kept label; each image is a group of its own."""
    root, rows = Path(settings.INPUT), []
    masks = reference(place, root)
    for found, mask in zip(kept, references, strict=True):
        image = reference(images_root / found.image, root)
        rows.append({"image": image, "mask": f"{masks}/{mask}", "group": image, "stratum": STRATUM, "kfold": -1,
                     splits.FOR_FOLD: found.source.fold})  # fmt: skip
    return rows


def write_masks(
    place: Path, kept: list[Found], images_root: Path, spec: DataSpec, to_mask: Any, least: float, about: dict[str, Any]
) -> list[str]:
    """Write the kept masks below `place`, all or none of them; returns their references below it."""

    with predictions.whole(place) as partial:

        def one(found: Found) -> str:
            _, mask = label_of(found, spec, to_mask, least)
            size = images.read_size(images_root / found.image, 10**10)
            if mask.shape[1:] != tuple(size):
                raise UserError(
                    f"{found.image} has {size[1]} x {size[0]} pixels by now, and was predicted with {mask.shape[2]} x "
                    f"{mask.shape[1]}. Predict again: make inference FOLD={found.source.fold}"
                )
            return pseudolabels.write(partial, f"fold{found.source.fold}", found.image, mask, spec)

        with threads.pool() as pool:
            references = list(console.track(pool.map(one, kept), len(kept), "writing masks"))
        runs.write_json(partial / runs.MANIFEST, about)
    return references


def made_with(
    settings: Any, sources: list[Source], lines: list[dict[str, Any]], least: float, to_mask: Any
) -> dict[str, Any]:
    """What pseudo-labels were made of, JSON-ready: table, models of each fold, rule and confidence."""
    table = Path(settings.TRAIN_FOLDS)
    return {
        "made_of": str(table),
        "made_of_sha256": runs.sha256(table),
        "experiment": settings.EXPERIMENT,
        "seed": settings.SEED,
        "confidence": least,
        "rules": [rule.as_json() for rule in to_mask],
        "models": {source.fold: [part["weights_sha256"] for part in source.models] for source in sources},
        "folds": lines,
    }


def write_table(settings: Any, path: Path, base: Any, rows: list[dict], about: dict[str, Any]) -> None:
    """The rows that were there and the new ones, with a JSON beside them that keeps what the data's pixels mean."""
    import pandas as pd

    new = pd.DataFrame(rows)
    result = splits.check(pd.concat([base.assign(**{splits.FOR_FOLD: ""}), new], ignore_index=True), path)
    sidecar = runs.read_json(Path(settings.TRAIN_FOLDS).with_suffix(".json"), "Run make folds.")
    folds_script.write(result, path, {**sidecar, "made_with": None, "pseudo": about})


def summary(found: list[Found], least: float) -> dict[str, Any]:
    """One source's line: images, how many are confident, their mean foreground, and the confidences' quartiles."""
    kept = [one for one in found if one.confidence >= least]
    quartiles = np.quantile([one.confidence for one in found], [0, 0.25, 0.5, 0.75, 1])
    area = f"{np.mean([one.area for one in kept]):.2%}" if kept else "-"
    values = [float(value) for value in quartiles]
    return {"for fold": found[0].source.fold, "test images": len(found), "confident": len(kept), "foreground": area,
            **dict(zip(("lowest", "25%", "median", "75%", "highest"), values, strict=True))}  # fmt: skip


def spread(found: list[Found]) -> list[Found]:
    """A few of them, evenly over their confidences, the surest first."""
    ordered = sorted(found, key=lambda one: -one.confidence)
    return [ordered[at] for at in sorted({round(part * (len(ordered) - 1) / (SHOWN - 1)) for part in range(SHOWN)})]


def draw(
    path: Path, kept: list[Found], rejected: list[Found], root: Path, spec: DataSpec, to_mask: Any, settings: Any,
    least: float,
) -> None:  # fmt: skip
    """The contact sheet of some kept and some rejected images: image, probability, label."""
    import pictures

    lines = []
    for word, part in (("kept", kept), ("rejected", rejected)):
        for found in spread(part) if part else []:
            p8, mask = label_of(found, spec, to_mask, least)
            picture = pictures.as_rgb(spec.read_image(root / found.image, settings.MAX_PIXELS))
            planes = spec.class_planes(mask).astype(np.uint8)
            caption = f"{word}: {found.confidence:.4f}, for fold {found.source.fold}   {Path(found.image).name}"
            lines.append((caption, [picture, p8[list(spec.scored)].max(0), pictures.overlays(picture, planes)]))
    title = "probability" if len(spec.scored) == 1 else "highest probability of a class"
    note = f"{len(kept)} kept (confidence {least:g} and more), {len(rejected)} rejected; some of each, the surest first"
    titles = ["image", title, "label"]
    pictures.sheet(path, lines, titles, note=note, legend=pictures.legend(spec.scored_names))


def next_line(settings: Any, run: Path, name: str, table: Path) -> str:
    """The command that trains on the new table as the experiment was trained on the old one."""
    defaults = settings_module.load([f"DATASET={settings.DATASET}"])
    shared = {**outoffold.recipe(run), **{place: getattr(settings, place) for place in ("INPUT", "OUTPUT", "LOGS")}}
    shared |= {"DATASET": settings.DATASET, "SEED": settings.SEED}
    usual = {**settings_module.snapshot(defaults), "DATASET": settings_module.DEFAULTS["DATASET"]}
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
    labellers.refuse_what_knows_the_masks(settings)
    source_table = Path(settings.TRAIN_FOLDS)
    frame = splits.read(source_table)
    spec = dataspec.read(source_table.with_suffix(".json"))
    to_mask = rules.configured(settings, spec)
    table = refuse_taken(settings, name, settings_module.flag_is_on(flags.OVERWRITE))
    by_fold = labellers.checked_runs(settings, frame)
    base = splits.without_pseudo(frame)
    root, names = labellers.test_names(settings, base, spec)

    wanted = {**{fold: [run] for fold, run in by_fold.items()}, "full": list(by_fold.values())}
    given = settings_module.as_overrides(settings)
    sources = [labellers.predicted(settings, given, fold, part, root, names) for fold, part in wanted.items()]
    judged = [judge(source, names, spec, to_mask) for source in sources]
    everything = [found for part in judged for found in part]
    kept = [found for found in everything if found.confidence >= least]
    rejected = [found for found in everything if found.confidence < least]
    print(console.table([summary(part, least) for part in judged]))
    refuse_none(kept, everything, least)

    place, picture = masks_folder(settings, name), masks_folder(settings, name).with_name(f"{name}.png")
    about = made_with(settings, sources, [summary(part, least) for part in judged], least, to_mask)
    references = write_masks(place, kept, root, spec, to_mask, least, about)
    write_table(settings, table, base, new_rows(settings, kept, references, root, place), about)
    draw(picture, kept, rejected, root, spec, to_mask, settings, least)
    print(
        f"{len(base)} rows as they were, and {len(kept)} pseudo-labels, each for one fold -> {table}\n"
        f"their masks -> {place}\nsome of them, and some rejected, as a picture: look at it -> {picture}\n"
        f"Next: {next_line(settings, by_fold['0'], name, table)}\n"
        f"then: make compare A={settings.EXPERIMENT} B={name}"
    )


if __name__ == "__main__":
    sys.exit(main())
