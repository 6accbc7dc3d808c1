"""The mean of experiments, weighted or not, as an experiment of its own with its out-of-fold scores."""

import functools
import operator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data import splits
from metrics import stacking
from prediction import chosen_rule, prediction_folders
from scoring import blind_baseline, gathered_scores, out_of_fold, score_rows, score_summary
from scoring.blended_tests import blend_tests, joined
from scoring.out_of_fold import OutOfFold
from tools import console, run_folders
from tools.errors import UserError
from tools.files import write_json
from tools.names import check_name

if TYPE_CHECKING:
    import pandas as pd

    from settings import Settings

EQUAL, WEIGHTED = "equal weights", "weighted, cross-fitted"


def members(text: str, usual_seed: int) -> list[tuple[str, int]]:
    """Read the (experiment, seed) pairs that OF names. Raises UserError for fewer than two, or one twice."""
    found = []
    for part in filter(None, text.split(",")):
        experiment, _, seed = part.partition(":")
        if seed and not seed.isdecimal():
            raise UserError(f"OF={text}: expected a seed after the colon of {part}, such as {experiment}:1.")
        check_name("OF", experiment)
        found.append((experiment, int(seed) if seed else usual_seed))
    if len(found) < 2 or len(set(found)) < len(found):
        raise UserError(f"OF={text}: expected two or more different members, such as OF=a,b or OF=a:1,a:2,a:3.")
    return found


def member_key(member: tuple[str, int] | OutOfFold) -> str:
    experiment, seed = (member.experiment, member.seed) if isinstance(member, OutOfFold) else member
    return f"{experiment}:{seed}"


def weigh(parts: list[OutOfFold], max_pixels: int) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """Return the weights of each fold, which the others ask for, and those of all folds; each (M,), summing to 1."""
    first, grams = parts[0], dict[int, stacking.Gram]()
    columns = list(zip(first.table["image"], first.table["mask"], first.table["kfold"], strict=True))
    for image, reference, fold in console.track(columns, len(columns), "weighing"):
        maps = np.stack([part.maps(image, fold) for part in parts])  # (M, C, H, W)
        mask = first.spec.read_mask(first.root, reference, maps.shape[2:], max_pixels, image)
        labeled = first.spec.labeled(mask)
        for index, truth in zip(first.spec.scored, first.spec.class_planes(mask), strict=True):
            gram = stacking.gram(maps[:, index], truth, labeled)
            grams[fold] = grams[fold] + gram if fold in grams else gram
    return stacking.crossfitted(grams), stacking.weights(functools.reduce(operator.add, grams.values()))


def score(
    settings: "Settings", parts: list[OutOfFold], weights: dict[int, np.ndarray], scale: score_rows.Scale
) -> "pd.DataFrame":
    """Return score rows of the members' weighted mean, each fold under its own weights."""
    import pandas as pd

    first = parts[0]
    pairs, rules = first.pairs(settings.MAX_PIXELS), chosen_rule.configured(settings, first.spec)
    constants = blind_baseline.by_fold(pairs.of(splits.read(Path(settings.TRAIN_FOLDS))), scale, first.folders)
    size, resize = max((part.geometry for part in parts), key=lambda geometry: geometry[0][0] * geometry[0][1])
    rows: list[dict[str, Any]] = []
    for fold in sorted(first.folders):

        def maps(image: str, fold: int = fold) -> np.ndarray:
            return stacking.blend([part.maps(image, fold) for part in parts], weights[fold])

        held_out = pairs.of(first.table[first.table["kfold"] == fold])
        rows += score_rows.rows(held_out, maps, constants[fold], size=size, resize=resize, rules=rules, scale=scale)
    return pd.DataFrame(rows).sort_values("image", kind="stable", ignore_index=True)


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
    models, how = joined([{**part.provenance, "models": part.models} for part in parts])
    how |= {"shares": shares, "fold_of": dict(zip(images, folds, strict=True))}
    with prediction_folders.atomic_folder(folder) as partial:
        prediction_folders.write_maps(zip(images, blended, strict=True), first.spec, partial, len(images), "blending")
        prediction_folders.write_manifest(partial, settings.INPUT, images, first.spec, models, how)
    about = {
        "members": [member_key(part) for part in parts],
        "shares": shares,
        "fold_shares": {str(fold): [float(share) for share in own] for fold, own in weights.items()},
        "folds_sha256": first.provenance["folds_sha256"],
        "tta": how["tta"],
        "models": models,
    }
    write_json(place / run_folders.ENSEMBLE, about)


def pays(scores: "dict[str, pd.DataFrame]", names: tuple[str, ...], scale: score_rows.Scale) -> bool:
    """Return whether the weighted mean scores better, out of fold, than the equal one, which is kept otherwise.

    The weights minimize a squared error, which members that are sure of themselves win; METRIC may think otherwise.
    """
    weighted, equal = (score_summary.score(scores[way], names, scale) for way in (WEIGHTED, EQUAL))
    return weighted > equal if scale.measure.higher else weighted < equal


def place_of(logs: str, name: str) -> Path:
    """Return the ensemble's folder. Raises UserError where it is missing a name, or has a trained experiment's."""
    if not name:
        raise UserError("What is the ensemble called? make ensemble OF=a,b NAME=c")
    check_name("NAME", name)
    place = Path(logs, name)
    if place.exists() and not (place / run_folders.ENSEMBLE).is_file():
        raise UserError(f"{place} is a trained experiment's; give the ensemble another NAME.")
    return place


def ensemble(settings: "Settings", name: str, of: str, weighted: bool) -> str:
    """Blend and score the members that `of` names as the experiment `name`; return what to say of the test images.

    weighted: by what the other folds' images ask for, where that scores better than equal weights. Raises UserError.
    """
    chosen_rule.refuse_tuned(settings)
    place = place_of(settings.LOGS, name)
    scale = score_rows.scale(settings.METRIC, settings.MEASURES, settings.EMPTY)
    parts = [out_of_fold.read(settings, *member) for member in members(of, settings.SEED)]
    if name in {part.experiment for part in parts}:
        raise UserError(f"NAME={name} is one of the members.")
    equal = np.full(len(parts), 1 / len(parts))
    by_fold, shares = dict.fromkeys(parts[0].folders, equal), dict.fromkeys(map(member_key, parts), float(equal[0]))
    scores = {EQUAL: score(settings, parts, by_fold, scale)}
    final = scores[EQUAL]
    if weighted:
        fitted, overall = weigh(parts, settings.MAX_PIXELS)
        scores[WEIGHTED] = score(settings, parts, fitted, scale)
        if pays(scores, parts[0].spec.scored_names, scale):
            by_fold, final = fitted, scores[WEIGHTED]
            shares = dict(zip(map(member_key, parts), map(float, overall), strict=True))
    keep(settings, place, parts, by_fold, shares)
    found = out_of_fold.read(settings, name)
    gathered_scores.publish(settings, found, final, scale, chosen_rule.configured(settings, found.spec))
    _announce(parts, scores, shares, scale)
    return blend_tests(settings, name, parts, shares)


def _announce(
    parts: list[OutOfFold], scores: "dict[str, pd.DataFrame]", shares: dict[str, float], scale: score_rows.Scale
) -> None:
    names = parts[0].spec.scored_names
    lines = [{"": label, scale.metric: score_summary.score(rows, names, scale)} for label, rows in scores.items()]
    print(console.table(lines))
    weights = ", ".join(f"{name} {share:.3f}" for name, share in shares.items())
    if WEIGHTED in scores and not pays(scores, names, scale):
        print("  Weights do not pay here: the equal ones are kept.")
    else:
        whose = "; each fold was scored under those of the others" if WEIGHTED in scores else ""
        print(f"  weights: {weights}{whose}")
