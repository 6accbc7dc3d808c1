"""make ensemble OF=a,b:1 NAME=c: the mean of several experiments' and seeds' predictions, scored out of fold.

`b:1` is experiment b under SEED=1. WEIGHTED=1 weighs the members; the weights that a fold is scored with were chosen on
the other folds. Writes lightning_logs/<name>/ as an experiment of its own (make tune, compare and report take it), and
blends the members' test predictions where make inference has made all of them.
"""

import dataclasses
import functools
import operator
import sys
from pathlib import Path
from typing import Any

import numpy as np

import blending
import console
import inference
import outoffold
import predictions
import rules
import runs
import scoring
import settings as settings_module
import splits
import summaries
import tester
from errors import UserError, command, listing
from outoffold import OutOfFold

FLAGS = {
    "OF": "the members: experiments, each with :seed where it is another than SEED: a,b:1,b:2",
    "NAME": "name of the ensemble, an experiment of its own",
    "WEIGHTED": "1: weigh the members by what the other folds' images ask for; else all count alike",
}


EQUAL, WEIGHTED = "equal weights", "weighted, cross-fitted"


def members(settings: Any, text: str) -> list[tuple[str, int]]:
    """The (experiment, seed) pairs that OF names. Raises UserError for fewer than two, or one twice."""
    found = []
    for part in filter(None, text.split(",")):
        experiment, _, seed = part.partition(":")
        if seed and not seed.isdecimal():
            raise UserError(f"OF={text}: expected a seed after the colon of {part}, such as {experiment}:1.")
        runs.check_name("OF", experiment)
        found.append((experiment, int(seed) if seed else settings.SEED))
    if len(found) < 2 or len(set(found)) < len(found):
        raise UserError(f"OF={text}: expected two or more different members, such as OF=a,b or OF=a:1,a:2,a:3.")
    return found


def _key(member: tuple[str, int] | OutOfFold) -> str:
    experiment, seed = (member.experiment, member.seed) if isinstance(member, OutOfFold) else member
    return f"{experiment}:{seed}"


def place_of(settings: Any, name: str) -> Path:
    """The ensemble's folder. Raises UserError where it is missing a name, or has a trained experiment's."""
    if not name:
        raise UserError("What is the ensemble called? make ensemble OF=a,b NAME=c")
    runs.check_name("NAME", name)
    place = Path(settings.LOGS, name)
    if place.exists() and not (place / runs.ENSEMBLE).is_file():
        raise UserError(f"{place} is a trained experiment's; give the ensemble another NAME.")
    return place


def weigh(parts: list[OutOfFold], max_pixels: int) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """For each fold the weights that the other folds ask for, and those of all folds; each (M,), summing to 1."""
    first, grams = parts[0], {}
    columns = list(zip(first.table["image"], first.table["mask"], first.table["kfold"], strict=True))
    for image, reference, fold in console.track(columns, len(columns), "weighing"):
        maps = np.stack([part.maps(image, fold) for part in parts])  # (M, C, H, W)
        mask = first.spec.read_mask(first.root, reference, maps.shape[2:], max_pixels, image)
        labelled = first.spec.labelled(mask)
        for index, truth in zip(first.spec.scored, first.spec.class_planes(mask), strict=True):
            gram = blending.gram(maps[:, index], truth, labelled)
            grams[fold] = grams[fold] + gram if fold in grams else gram
    return blending.crossfitted(grams), blending.weights(functools.reduce(operator.add, grams.values()))


def score(settings: Any, parts: list[OutOfFold], weights: dict[int, np.ndarray], scale: scoring.Scale) -> Any:
    """Score rows of the members' weighted mean, each fold under its own weights."""
    import pandas as pd

    frame, first = splits.read(Path(settings.TRAIN_FOLDS)), parts[0]
    small = scoring.small_masks(first.root, frame, first.spec, settings.MAX_PIXELS)
    size, resize = max((part.geometry for part in parts), key=lambda found: found[0][0] * found[0][1])
    rows: list[dict[str, Any]] = []
    for fold in sorted(first.folders):

        def maps(image: str, fold: int = fold) -> np.ndarray:
            return blending.blend([part.maps(image, fold) for part in parts], weights[fold])

        constant = scoring.constant_mask(small[:, splits.split_rows(frame, str(fold))[0]])
        held_out = first.table[first.table["kfold"] == fold]
        how = {"rules": rules.configured(settings, first.spec), "scale": scale, "max_pixels": settings.MAX_PIXELS}
        rows += scoring.rows(held_out, first.root, maps, constant, first.spec, size=size, resize=resize, **how)
    return pd.DataFrame(rows).sort_values("image", kind="stable", ignore_index=True)


def _manifests(parts: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The models of several manifests, each once, and their TTA and sizes joined."""
    keys = ["tta", "tta_mean", *(key for key in ("tile", "overlap") if any(key in part for part in parts))]
    how = {key: " and ".join(sorted({str(part.get(key, "none")) for part in parts})) for key in keys}
    return predictions.distinct(parts), {**how, "sizes": [size for part in parts for size in part["sizes"]]}


def keep(
    settings: Any,
    place: Path,
    parts: list[OutOfFold],
    weights: dict[int, np.ndarray],
    shares: dict[str, float],
) -> None:
    """Write the blended held-out maps and ensemble.json."""
    first = parts[0]
    folder = place / f"oof_seed{settings.SEED}" / outoffold.VALIDATION
    images, folds = list(first.table["image"]), [int(fold) for fold in first.table["kfold"]]
    blended = (
        blending.blend([part.maps(image, fold) for part in parts], weights[fold])
        for image, fold in zip(images, folds, strict=True)
    )
    models, how = _manifests([{**part.provenance, "models": part.models} for part in parts])
    how |= {"shares": shares, "fold_of": dict(zip(images, folds, strict=True))}
    with predictions.whole(folder) as partial:
        predictions.write_maps(zip(images, blended, strict=True), first.spec, partial, len(images), "blending")
        predictions.write_manifest(partial, settings.INPUT, images, first.spec, models, how)
    about = {
        "members": [_key(part) for part in parts],
        "shares": shares,
        "fold_shares": {str(fold): [float(share) for share in found] for fold, found in weights.items()},
        "folds_sha256": first.provenance["folds_sha256"],
        "tta": how["tta"],
        "models": models,
    }
    runs.write_json(place / runs.ENSEMBLE, about)


def blend_tests(settings: Any, name: str, parts: list[OutOfFold], shares: dict[str, float]) -> str:
    """Blend the members' test predictions into one of this name; returns what to say of it."""
    folders, manifests, lacking = [], [], []
    for part in parts:
        its = dataclasses.replace(settings, EXPERIMENT=part.experiment, SEED=part.seed)
        folder = inference.prediction_folder(its, "")
        line = f"make inference EXPERIMENT={part.experiment} SEED={part.seed}"
        if not (folder / runs.MANIFEST).is_file():
            lacking.append(line)
            continue
        manifest = runs.read_manifest(folder, line)
        runs.refuse_stale(folder, manifest, line)
        predictions.refuse_exchanged(folder, manifest, line)
        then, now = part.provenance, predictions.provenance(manifest["models"], manifest)
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
    settings: Any, name: str, folders: list[Path], manifests: list[dict[str, Any]], first: OutOfFold, shares: dict
) -> str:
    spec, names, root = first.spec, manifests[0]["images"], Path(manifests[0]["root"])
    folder = Path(settings.OUTPUT, "predictions", name)
    blended = (
        blending.blend([predictions.read_maps(part, image, spec) for part in folders], list(shares.values()))
        for image in names
    )
    models, how = _manifests(manifests)
    with predictions.whole(folder) as partial:
        predictions.write_maps(zip(names, blended, strict=True), spec, partial, len(names), "blending test images")
        shown = predictions.shown(partial, names, spec, root, settings.MAX_PIXELS)
        predictions.write_manifest(partial, str(root), names, spec, models, {**how, "shares": shares})
    predictions.contact_sheet(inference.picture_of(folder), shown, spec, rules.configured(settings, spec))
    return f"{len(names)} test images blended -> {folder}\nNext: make submission EXPERIMENT={name}"


def pays(scores: dict[str, Any], names: tuple[str, ...], scale: scoring.Scale) -> bool:
    """Whether the weighted mean scores better, out of fold, than the equal one, which is kept otherwise.

    The weights minimise a squared error, which members that are sure of themselves win; METRIC may think otherwise.
    """
    weighted, equal = (summaries.score(scores[way], names, scale) for way in (WEIGHTED, EQUAL))
    return weighted > equal if scale.measure.higher else weighted < equal


def _announce(parts: list[OutOfFold], scores: dict[str, Any], shares: dict[str, float], scale: scoring.Scale) -> None:
    names = parts[0].spec.scored_names
    lines = [{"": label, scale.metric: summaries.score(rows, names, scale)} for label, rows in scores.items()]
    print(console.table(lines))
    weights = ", ".join(f"{name} {share:.3f}" for name, share in shares.items())
    if WEIGHTED in scores and not pays(scores, names, scale):
        print("  Weights do not pay here: the equal ones are kept.")
    else:
        whose = "; each fold was scored under those of the others" if WEIGHTED in scores else ""
        print(f"  weights: {weights}{whose}")


@command
def main(argv: list[str] | None = None) -> None:
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    rules.refuse_tuned(settings)
    weighted, place = settings_module.flag_is_on(flags.WEIGHTED), place_of(settings, flags.NAME)
    scale = scoring.scale(settings.METRIC, settings.MEASURES, settings.EMPTY)
    parts = [outoffold.read(settings, *member) for member in members(settings, flags.OF)]
    if flags.NAME in {part.experiment for part in parts}:
        raise UserError(f"NAME={flags.NAME} is one of the members.")
    equal = np.full(len(parts), 1 / len(parts))
    by_fold, shares = dict.fromkeys(parts[0].folders, equal), dict.fromkeys(map(_key, parts), float(equal[0]))
    scores = {EQUAL: score(settings, parts, by_fold, scale)}
    final = scores[EQUAL]
    if weighted:
        fitted, overall = weigh(parts, settings.MAX_PIXELS)
        scores[WEIGHTED] = score(settings, parts, fitted, scale)
        if pays(scores, parts[0].spec.scored_names, scale):
            by_fold, final = fitted, scores[WEIGHTED]
            shares = dict(zip(map(_key, parts), map(float, overall), strict=True))
    keep(settings, place, parts, by_fold, shares)
    found = outoffold.read(settings, flags.NAME)
    tester.publish(settings, found, final, scale, rules.configured(settings, found.spec))
    _announce(parts, scores, shares, scale)
    print(blend_tests(settings, flags.NAME, parts, shares))


if __name__ == "__main__":
    sys.exit(main())
