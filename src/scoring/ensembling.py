"""The mean of experiments, weighted or not: its out-of-fold scores and its blended test predictions."""

import dataclasses
import functools
import operator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data import splits
from metrics import stacking
from prediction import chosen_rule, inference_job, prediction_folders
from scoring import blind_baseline, out_of_fold, score_rows, score_summary
from scoring.out_of_fold import OutOfFold
from tools import console, run_folders
from tools.errors import UserError, listing
from tools.files import write_json
from tools.names import check_name

if TYPE_CHECKING:
    from settings import Settings

EQUAL, WEIGHTED = "equal weights", "weighted, cross-fitted"


def members(settings: "Settings", text: str) -> list[tuple[str, int]]:
    """The (experiment, seed) pairs that OF names. Raises UserError for fewer than two, or one twice."""
    found = []
    for part in filter(None, text.split(",")):
        experiment, _, seed = part.partition(":")
        if seed and not seed.isdecimal():
            raise UserError(f"OF={text}: expected a seed after the colon of {part}, such as {experiment}:1.")
        check_name("OF", experiment)
        found.append((experiment, int(seed) if seed else settings.SEED))
    if len(found) < 2 or len(set(found)) < len(found):
        raise UserError(f"OF={text}: expected two or more different members, such as OF=a,b or OF=a:1,a:2,a:3.")
    return found


def member_key(member: tuple[str, int] | OutOfFold) -> str:
    experiment, seed = (member.experiment, member.seed) if isinstance(member, OutOfFold) else member
    return f"{experiment}:{seed}"


def weigh(parts: list[OutOfFold], max_pixels: int) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """For each fold the weights that the other folds ask for, and those of all folds; each (M,), summing to 1."""
    first, grams = parts[0], {}
    columns = list(zip(first.table["image"], first.table["mask"], first.table["kfold"], strict=True))
    for image, reference, fold in console.track(columns, len(columns), "weighing"):
        maps = np.stack([part.maps(image, fold) for part in parts])  # (M, C, H, W)
        mask = first.spec.read_mask(first.root, reference, maps.shape[2:], max_pixels, image)
        labelled = first.spec.labelled(mask)
        for index, truth in zip(first.spec.scored, first.spec.class_planes(mask), strict=True):
            gram = stacking.gram(maps[:, index], truth, labelled)
            grams[fold] = grams[fold] + gram if fold in grams else gram
    return stacking.crossfitted(grams), stacking.weights(functools.reduce(operator.add, grams.values()))


def score(settings: "Settings", parts: list[OutOfFold], weights: dict[int, np.ndarray], scale: score_rows.Scale) -> Any:
    """Score rows of the members' weighted mean, each fold under its own weights."""
    import pandas as pd

    frame, first = splits.read(Path(settings.TRAIN_FOLDS)), parts[0]
    constants = blind_baseline.by_fold(first.root, frame, first.spec, scale, settings.MAX_PIXELS, first.folders)
    size, resize = max((part.geometry for part in parts), key=lambda found: found[0][0] * found[0][1])
    rows: list[dict[str, Any]] = []
    for fold in sorted(first.folders):

        def maps(image: str, fold: int = fold) -> np.ndarray:
            return stacking.blend([part.maps(image, fold) for part in parts], weights[fold])

        held_out = first.table[first.table["kfold"] == fold]
        how = {"rules": chosen_rule.configured(settings, first.spec), "scale": scale, "max_pixels": settings.MAX_PIXELS}
        rows += score_rows.rows(
            held_out, first.root, maps, constants[fold], first.spec, size=size, resize=resize, **how
        )
    return pd.DataFrame(rows).sort_values("image", kind="stable", ignore_index=True)


def _manifests(parts: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The models of several manifests, each once, and their TTA and sizes joined."""
    keys = ["tta", "tta_mean", *(key for key in ("tile", "overlap") if any(key in part for part in parts))]
    how = {key: " and ".join(sorted({str(part.get(key, "none")) for part in parts})) for key in keys}
    return prediction_folders.distinct(parts), {**how, "sizes": [size for part in parts for size in part["sizes"]]}


def keep(
    settings: "Settings",
    place: Path,
    parts: list[OutOfFold],
    weights: dict[int, np.ndarray],
    shares: dict[str, float],
) -> None:
    """Write the blended held-out maps and ensemble.json."""
    first = parts[0]
    folder = place / f"oof_seed{settings.SEED}" / out_of_fold.VALIDATION
    images, folds = list(first.table["image"]), [int(fold) for fold in first.table["kfold"]]
    blended = (
        stacking.blend([part.maps(image, fold) for part in parts], weights[fold])
        for image, fold in zip(images, folds, strict=True)
    )
    models, how = _manifests([{**part.provenance, "models": part.models} for part in parts])
    how |= {"shares": shares, "fold_of": dict(zip(images, folds, strict=True))}
    with prediction_folders.atomic_folder(folder) as partial:
        prediction_folders.write_maps(zip(images, blended, strict=True), first.spec, partial, len(images), "blending")
        prediction_folders.write_manifest(partial, settings.INPUT, images, first.spec, models, how)
    about = {
        "members": [member_key(part) for part in parts],
        "shares": shares,
        "fold_shares": {str(fold): [float(share) for share in found] for fold, found in weights.items()},
        "folds_sha256": first.provenance["folds_sha256"],
        "tta": how["tta"],
        "models": models,
    }
    write_json(place / run_folders.ENSEMBLE, about)


def blend_tests(settings: "Settings", name: str, parts: list[OutOfFold], shares: dict[str, float]) -> str:
    """Blend the members' test predictions into one of this name; returns what to say of it."""
    folders, manifests, lacking = [], [], []
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
    shares: dict,
) -> str:
    spec, names, root = first.spec, manifests[0]["images"], Path(manifests[0]["root"])
    folder = Path(settings.OUTPUT, "predictions", name)
    blended = (
        stacking.blend([prediction_folders.read_maps(part, image, spec) for part in folders], list(shares.values()))
        for image in names
    )
    models, how = _manifests(manifests)
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


def pays(scores: dict[str, Any], names: tuple[str, ...], scale: score_rows.Scale) -> bool:
    """Whether the weighted mean scores better, out of fold, than the equal one, which is kept otherwise.

    The weights minimise a squared error, which members that are sure of themselves win; METRIC may think otherwise.
    """
    weighted, equal = (score_summary.score(scores[way], names, scale) for way in (WEIGHTED, EQUAL))
    return weighted > equal if scale.measure.higher else weighted < equal
