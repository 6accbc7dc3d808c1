"""The test predictions of an ensemble's members, blended into one prediction folder."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metrics import stacking
from prediction import chosen_rule, inference_job, prediction_folders
from scoring.out_of_fold import OutOfFold
from tools import run_folders
from tools.errors import UserError, listing

if TYPE_CHECKING:
    from settings import Settings


def joined(parts: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the models of several manifests, each once, and their TTA and sizes joined."""
    keys = ["tta", "tta_mean", *(key for key in ("tile", "overlap") if any(key in part for part in parts))]
    how = {key: " and ".join(sorted({str(part.get(key, "none")) for part in parts})) for key in keys}
    return prediction_folders.distinct(parts), {**how, "sizes": [size for part in parts for size in part["sizes"]]}


def blend_tests(settings: "Settings", name: str, parts: list[OutOfFold], shares: dict[str, float]) -> str:
    """Blend the members' test predictions into one of this name; returns what to say of it."""
    folders: list[Path] = []
    manifests: list[dict[str, Any]] = []
    lacking: list[str] = []
    for part in parts:
        its = dataclasses.replace(settings, EXPERIMENT=part.experiment, SEED=part.seed)
        folder = inference_job.prediction_folder(its, "")
        line = f"make inference EXPERIMENT={part.experiment} SEED={part.seed}"
        if not (folder / run_folders.MANIFEST).is_file():
            lacking.append(line)
            continue
        manifest = run_folders.read_manifest(folder, line)
        run_folders.refuse_stale(folder, manifest, line)
        prediction_folders.refuse_exchanged(folder, manifest, line)
        then, now = part.provenance, prediction_folders.provenance(manifest["models"], manifest)
        if then != now:
            differ = " and ".join(key for key in then if then[key] != now[key])
            raise UserError(f"{folder} was predicted with another {differ} than was scored out of fold. Again: {line}")
        folders.append(folder)
        manifests.append(manifest)
    if lacking:
        return f"No test predictions were blended: of some members there are none.{listing(lacking)}\nThen this again."
    if len({tuple(manifest["images"]) for manifest in manifests}) > 1:
        raise UserError(f"The members predicted different test images: {', '.join(map(str, folders))}.")
    return _blend_folders(settings, name, folders, manifests, parts[0], shares)


def _blend_folders(
    settings: "Settings",
    name: str,
    folders: list[Path],
    manifests: list[dict[str, Any]],
    first: OutOfFold,
    shares: dict[str, float],
) -> str:
    spec, names, root = first.spec, manifests[0]["images"], Path(manifests[0]["root"])
    folder = Path(settings.OUTPUT, "predictions", name)
    blended = (
        stacking.blend([prediction_folders.read_maps(part, image, spec) for part in folders], list(shares.values()))
        for image in names
    )
    models, how = joined(manifests)
    with prediction_folders.atomic_folder(folder) as partial:
        prediction_folders.write_maps(
            zip(names, blended, strict=True), spec, partial, len(names), "blending test images"
        )
        shown = prediction_folders.shown(partial, names, spec, root, settings.MAX_PIXELS)
        prediction_folders.write_manifest(partial, str(root), names, spec, models, {**how, "shares": shares})
    prediction_folders.contact_sheet(
        inference_job.picture_of(folder), shown, spec, chosen_rule.configured(settings, spec)
    )
    return f"{len(names)} test images blended -> {folder}\nNext: make submission EXPERIMENT={name}"
