"""make submission: a prediction folder -> the competition's CSV, its ids checked against sample_submission.csv.

The file is read back, decoded and compared with the masks before it is announced.
"""

import csv
import functools
import os
import sys
from pathlib import Path
from typing import Any

import console
import dataspec
import postprocess
import predictions
import rle
import rules
import runs
import settings as settings_module
from dataspec import DataSpec
from errors import UserError, command, listing
from inference import prediction_folder

Key = tuple[str, str]  # an image's id and a class, "" where the dialect has no column for it
FLAGS = {
    "FOLD": "which prediction: as given to make inference",
    "NAME": "name of the prediction folder, where one was given",
}


def choose_dialect(settings: Any) -> rle.Dialect:
    """DIALECT, or the one of the layout that the folds table was made from."""
    name = settings.DIALECT
    if name == "auto":
        sidecar = Path(settings.TRAIN_FOLDS).with_suffix(".json")
        name = str(
            runs.read_json(sidecar, "Run make folds first, or name the competition's DIALECT.").get("dialect", "")
        )
        if name not in rle.DIALECTS:
            raise UserError(
                f"The layout has no dialect of its own; name the competition's: DIALECT={' or '.join(rle.DIALECTS)}."
            )
    return rle.DIALECTS[name]


def find_sample(input_path: str) -> Path | None:
    """sample_submission.csv below INPUT, or the only CSV with that in its name (stage1_sample_submission.csv)."""
    found = [path for path in sorted(Path(input_path).glob("*sample_submission*.csv")) if path.is_file()]
    exact = [path for path in found if path.name == "sample_submission.csv"]
    if len(found) > 1 and not exact:
        raise UserError(
            f"Which sample is it?{listing([str(path) for path in found])}\nCall that one sample_submission.csv."
        )
    return (exact or found or [None])[0]


def image_ids(names: list[str], dialect: rle.Dialect) -> dict[str, str]:
    """Id -> image's name in the prediction folder. Raises UserError where two images would share an id."""
    ids: dict[str, str] = {}
    for name in names:
        file = Path(runs.image_name(name))
        image_id = file.name if dialect.with_suffix else file.stem
        if image_id in ids:
            raise UserError(f"{ids[image_id]} and {name} would both have the id {image_id}.")
        ids[image_id] = name
    return ids


def check_classes(spec: DataSpec, dialect: rle.Dialect) -> tuple[str, ...]:
    """The classes that each image has a row for: "" where the dialect has no column for them. Raises UserError."""
    if dialect.has_classes:
        return spec.scored_names
    if len(spec.scored) > 1:
        able = ", ".join(name for name, other in rle.DIALECTS.items() if other.has_classes)
        raise UserError(
            f"The dialect {dialect.name} has no column for a class, and there are {len(spec.scored)}: "
            f"{', '.join(spec.scored_names)}. Dialects that have one: DIALECT={able}."
        )
    return ("",)


def check_ids(keys: list[Key], sample: Path | None, dialect: rle.Dialect, partial: bool) -> list[Key]:
    """Keys (id, class) in the sample's order. Raises UserError where columns or ids differ.

    `partial`: some of the sample's may be missing.
    """
    if sample is None:
        return sorted(keys)
    width = len(dialect.columns) - 1
    try:
        with sample.open(newline="", encoding="utf-8-sig") as file:  # Excel puts a mark before UTF-8
            reader = csv.reader(file)
            header = tuple(name.strip() for name in next(reader, ()))
            expected = list(dict.fromkeys((row[0], row[1] if width > 1 else "") for row in reader if len(row) >= width))
    except (ValueError, csv.Error) as error:
        raise UserError(f"{sample}: not readable as CSV in UTF-8 ({error}).") from error
    if header != dialect.columns:
        raise UserError(
            f"{sample} has the columns {', '.join(header)}; "
            f"the dialect {dialect.name} has {', '.join(dialect.columns)}. Set DIALECT."
        )
    have = set(keys)
    missing, extra = sorted(set(expected) - have), sorted(have - set(expected))
    if extra or (missing and not partial):
        which = (
            f"{len(missing)} ids of it have no prediction" if missing else f"{len(extra)} predictions have no id in it"
        )
        shown = listing([" ".join(filter(None, key)) for key in missing or extra], 10)
        raise UserError(
            f"{sample} and the predictions do not match; {which}:{shown}\nPredict its images: TEST_PATH=folder"
        )
    return [key for key in expected if key in have]


def write_rows(path: Path, dialect: rle.Dialect, keys: list[Key], mask_of: Any) -> int:
    """Write the CSV under another name and rename it when whole; returns the number of rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, count = path.with_name(f".{path.name}.{os.getpid()}"), 0
    try:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(dialect.columns)
            for image_id, name in console.track(keys, len(keys), "encoding"):
                rows = rle.rows(image_id, mask_of((image_id, name)), dialect, name)
                writer.writerows(rows)
                count += len(rows)
        verify(temporary, dialect, keys, mask_of)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def verify(path: Path, dialect: rle.Dialect, keys: list[Key], mask_of: Any) -> None:
    """Decode the written file and compare it with the masks, pixel by pixel. Raises UserError where they differ."""
    decoded = read_masks(path, dialect, lambda key: mask_of(key).shape)
    for key in keys:
        found, mask = next(decoded)
        if found != key or (mask != mask_of(key)).any():
            raise UserError(
                f"{path}: {' '.join(key)} does not decode to the mask that was written; please report this."
            )


def read_masks(path: Path, dialect: rle.Dialect, shape_of: Any) -> Any:
    """Yield ((id, class or ""), 0/1 mask (H, W)) of a submission, the rows of one key joined.

    Raises UserError for a broken or overlapping row.
    """
    csv.field_size_limit(1 << 30)  # a mask's runs are longer than the csv module expects of a cell
    cells = len(dialect.columns)
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        next(reader, None)
        current, whole = None, None
        for number, row in enumerate(reader, 2):
            if len(row) != cells:
                raise UserError(f"{path}, line {number}: {len(row)} cells, expected {cells}.")
            key = (row[0], row[1] if cells > 2 else "")
            if key != current:
                if current is not None:
                    yield current, whole
                current, whole = key, 0
            part = rle.from_text(row[-1], shape_of(key), dialect, f"{path}, line {number} ({row[0]})")
            if (whole & part).any():
                raise UserError(f"{path}, line {number} ({row[0]}): overlaps an earlier object of the image.")
            whole = whole | part
        if current is not None:
            yield current, whole


@command
def main(argv: list[str] | None = None) -> None:
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    folder = prediction_folder(settings, flags.FOLD, flags.NAME)
    again = f"Predict first: make inference{f' FOLD={flags.FOLD}' if flags.FOLD else ''}"
    manifest = runs.read_manifest(folder, again)
    runs.refuse_stale(folder, manifest, again)
    predictions.refuse_exchanged(folder, manifest, again)
    spec = dataspec.from_json(manifest["data"], str(folder / runs.MANIFEST))
    to_mask = rules.chosen(settings, spec, predictions.provenance(manifest["models"], manifest))
    dialect, sample = choose_dialect(settings), find_sample(settings.INPUT)
    classes, ids = check_classes(spec, dialect), image_ids(manifest["images"], dialect)
    keys = [(image_id, name) for image_id in ids for name in classes]
    order = check_ids(keys, sample, dialect, partial=bool(settings.LIMIT))

    @functools.lru_cache(4)  # of the image's classes together: written, then read for their shape and compared
    def masks_of(image_id: str) -> Any:
        p8 = predictions.read_maps(folder, ids[image_id], spec)
        return postprocess.to_masks(p8, spec.task, spec.scored, to_mask)

    def mask_of(key: Key) -> Any:
        return masks_of(key[0])[classes.index(key[1])]

    path = Path(settings.SUBMISSION)
    rows = write_rows(path, dialect, order, mask_of)
    about = {
        "predictions": str(folder),
        "dialect": dialect.name,
        "postprocess": settings.POSTPROCESS,
        "rules": [rule.as_json() for rule in to_mask],
        "images": len({image_id for image_id, _ in order}),
        "rows": rows,
        "sha256": runs.sha256(path),
        "models": manifest["models"],
    }
    runs.write_json(path.with_suffix(".json"), about)
    checked = (
        f"ids equal to {sample}"
        if sample and not settings.LIMIT
        else "no sample_submission.csv to check the ids against"
        if not sample
        else "ids found in the sample"
    )
    print(
        f"{rows} rows for {about['images']} images in the dialect {dialect.name}; "
        f"{checked}; read back and equal to the masks -> {path}"
    )


if __name__ == "__main__":
    sys.exit(main())
