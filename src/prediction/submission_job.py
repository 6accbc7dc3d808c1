"""A prediction folder -> the rows of a submission, checked against what made them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import dataspec
from data.dataspec import DataSpec
from formats import rle
from prediction import chosen_rule, postprocess, prediction_folders, resumable, submission_file
from prediction.inference_job import choose_dialect, prediction_folder
from tools import console, run_folders, threads
from tools.errors import UserError
from tools.files import sha256, write_json

if TYPE_CHECKING:
    from prediction.postprocess import Rule
    from settings import Settings


def rows_of_maps(
    folder: Path, spec: DataSpec, dialect: rle.Dialect, ids: dict[str, str], rules: "tuple[Rule, ...]"
) -> Iterator[submission_file.Row]:
    """Yield the rows of all images of a prediction folder, worked out in threads."""
    classes = submission_file.check_classes(spec, dialect)

    def rows(image_id: str) -> list[submission_file.Row]:
        p8 = prediction_folders.read_maps(folder, ids[image_id], spec)
        masks = postprocess.to_masks(p8, spec.task, spec.scored, rules)
        return submission_file.rows_of(image_id, masks, classes, dialect)

    for own in console.track(threads.map_ahead(ids, rows, 32), len(ids), "encoding"):
        yield from own


def refuse_other_rows(
    folder: Path, manifest: dict[str, Any], dialect: rle.Dialect, rules: "tuple[Rule, ...]", again: str
) -> None:
    """Raise UserError where rows were kept by another rule or dialect than now, or are not those of the manifest."""
    kept = (manifest.get("dialect"), manifest.get("form", {}), manifest.get("rules"))
    if kept != (dialect.name, json.loads(json.dumps(dialect.form)), [rule.as_json() for rule in rules]):
        raise UserError(
            f"{folder} holds run lengths in the dialect {kept[0]} by other rules from probability to mask than now. "
            f"{again} MAPS=0, or without MAPS=0, which leaves both open."
        )
    resumable.refuse_changed_rows(folder, manifest, again)


def write(settings: "Settings", fold: str, name: str = "") -> None:
    """Write SUBMISSION from the prediction folder that `fold` and `name` mean, and its JSON; say what was checked.

    Raises UserError where the predictions are not whole, not of today's models, or do not fit the sample submission.
    """
    folder = prediction_folder(settings, fold, name)
    again = f"Predict first: make inference{f' FOLD={fold}' if fold else ''}"
    manifest = _read_whole(folder, again)
    spec = dataspec.from_json(manifest["data"], str(folder / run_folders.MANIFEST))
    rules = chosen_rule.chosen(settings, spec, prediction_folders.provenance(manifest["models"], manifest))
    dialect, sample = choose_dialect(settings), submission_file.find_sample(settings.INPUT)
    if "rows_sha256" in manifest:
        refuse_other_rows(folder, manifest, dialect, rules, again)
    else:
        prediction_folders.refuse_exchanged(folder, manifest, again)
    classes, ids = submission_file.check_classes(spec, dialect), submission_file.image_ids(manifest["images"], dialect)
    keys = [(image_id, name) for image_id in ids for name in classes]
    order = submission_file.check_ids(keys, sample, dialect, partial=bool(settings.LIMIT))

    path = Path(settings.SUBMISSION)
    wanted = {image_id: ids[image_id] for image_id in dict.fromkeys(image_id for image_id, _ in order)}
    if "rows_sha256" in manifest:
        rows = submission_file.write_ordered(path, dialect, folder / resumable.ROWS, order)
    else:
        encoded = path.with_name(f".{path.name}.rows")
        try:
            submission_file.write(encoded, dialect, rows_of_maps(folder, spec, dialect, wanted, rules))
            rows = submission_file.write_ordered(path, dialect, encoded, order)
        finally:
            encoded.unlink(missing_ok=True)
    values = {
        "predictions": str(folder),
        "dialect": dialect.name,
        "postprocess": settings.POSTPROCESS,
        "rules": [rule.as_json() for rule in rules],
        "images": len(wanted),
        "rows": rows,
        "sha256": sha256(path),
        "models": manifest["models"],
    }
    write_json(path.with_suffix(".json"), values)
    print(
        f"{rows} rows for {len(wanted)} images in the dialect {dialect.name}; "
        f"{_ids_checked(sample, bool(settings.LIMIT))}; read back and equal to the masks -> {path}"
    )


def _read_whole(folder: Path, again: str) -> dict[str, Any]:
    """Return a folder's manifest. Raises UserError where it is one part of several, or of other models than today's."""
    manifest = run_folders.read_manifest(folder, again)
    run_folders.refuse_stale(folder, manifest, again)
    if "shard" in manifest:
        raise UserError(f"{folder} is one part of {manifest['shard'].get('of')}. Join them first: make merge")
    return manifest


def _ids_checked(sample: Path | None, partial: bool) -> str:
    if not sample:
        return "no sample_submission.csv to check the ids against"
    return "ids found in the sample" if partial else f"ids equal to {sample}"
