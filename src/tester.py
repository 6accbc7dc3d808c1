"""make tester FOLD=0: score one fold's held-out masks at their original size; make oof: all folds, each image once.

Writes val/ in the run folder: probability PNGs, scores.csv (a row an image), summary.json, worst.png; OOF=1 gathers
them in lightning_logs/<experiment>/oof_seed<s>/.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

import console
import dataspec
import runs
import scoring
import settings as settings_module
import splits
from errors import UserError, command, listing

FLAGS = {
    "FOLD": "the fold whose held-out images are scored",
    "OOF": "1: gather every tested fold and score each image once",
}
HELD_OUT_IMAGES, TRAINING_IMAGES = "held-out images", "training images (OVERFIT)"
SCORES, SUMMARY, WORST = "scores.csv", "summary.json", "worst.png"


def held_out(frame: Any, folder: Path, table: Path) -> tuple[Any, Any]:
    """The rows a run may be scored on and those it trained on. Raises UserError where the table is another by now.

    An OVERFIT run is scored on its own training rows, and its summary says so.
    """
    about = runs.read_model(folder)
    if about["folds_sha256"] != runs.sha256(table):
        raise UserError(
            f"{folder} was trained on another folds table than {table}, "
            "so its held-out images may be among those it has seen. "
            f"Put the old table back (a copy is {folder / runs.FOLDS}), or train again with OVERWRITE=1."
        )
    if about["fold"] == "full" and not about.get("overfit"):
        raise UserError(
            f"{folder} was trained on every image; there is no held-out one to score. Score folds 0, 1, ... instead."
        )
    now, then = dataspec.read(table.with_suffix(".json")), dataspec.from_json(about["data"], str(folder / runs.MODEL))
    if now != then:
        raise UserError(
            f"{folder} was trained on data of {then.task} masks ({', '.join(then.classes)}; {then.channels} channels), "
            f"and {table.with_suffix('.json')} has other ones by now ({now.task}; {', '.join(now.classes)}; "
            f"{now.channels} channels, or another window). Train again with OVERWRITE=1."
        )
    inside = frame["kfold"].astype(str) == about["fold"]
    if about.get("overfit"):
        learnt = frame[~inside].head(about["overfit"]).reset_index(drop=True)
        return learnt, learnt
    return frame[inside].reset_index(drop=True), frame[~inside]


def write_scores(folder: Path, scores: Any, summary: dict[str, Any]) -> None:
    """scores.csv, then summary.json, which says that both are whole."""
    runs.write_text(folder / SCORES, scores.to_csv(index=False, lineterminator="\n"))
    runs.write_json(folder / SUMMARY, summary)


def score_fold(settings: Any, fold: str) -> dict[str, Any]:
    """Predict and score one fold's held-out images; writes val/ in its run folder and returns the summary."""
    import pandas as pd

    run = runs.finished_run(settings.LOGS, settings.EXPERIMENT, fold, settings.SEED)
    table, root, folder = Path(settings.TRAIN_FOLDS), Path(settings.INPUT), run / "val"
    rows, train = held_out(splits.read(table), run, table)
    if settings.LIMIT:
        rows = rows.head(settings.LIMIT * settings.VALID_BATCH_SIZE)
        train = train.head(settings.LIMIT * settings.TRAIN_BATCH_SIZE)
    from inference import load_predictor, read_maps, write_maps

    predictor = load_predictor(settings, [run])
    import predictor as predictor_module

    model, spec = predictor.models[0], predictor.spec
    runs.refuse_foreign(folder)
    partial = run / ".val.partial"  # an earlier scoring stays until this one is whole
    shutil.rmtree(partial, ignore_errors=True)
    predictions = predictor.predict([root / image for image in rows["image"]], settings.MAX_PIXELS)
    try:
        write_maps(predictions, spec, partial, lambda path: path.relative_to(root).as_posix(), len(rows), "predicting")
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    manifest = {
        "root": settings.INPUT,
        "images": list(rows["image"]),
        "data": spec.as_json(),
        "models": predictor_module.describe(predictor.models),
    }
    runs.write_json(partial / runs.MANIFEST, manifest)

    def maps(image: str, _: int = 0) -> np.ndarray:
        return read_maps(partial, image, spec)

    to_mask = {"threshold": settings.THRESHOLD, "min_area": settings.MIN_AREA}
    constant = scoring.constant_mask(root, train, spec, settings.MAX_PIXELS)
    geometry = {"size": model.size, "resize": model.resize, "max_pixels": settings.MAX_PIXELS}
    scores = pd.DataFrame(scoring.rows(rows, root, maps, constant, spec, empty=settings.EMPTY, **geometry, **to_mask))
    summary = {
        "experiment": settings.EXPERIMENT,
        "fold": fold,
        "scored_on": TRAINING_IMAGES if model.about.get("overfit") else HELD_OUT_IMAGES,
        **to_mask,
        "weights": model.about["weights"],
        **scoring.summarise(scores, spec.scored_names, settings.EMPTY),
    }
    write_scores(partial, scores, summary)
    scoring.worst_sheet(partial / WORST, scores, rows, root, maps, spec, max_pixels=settings.MAX_PIXELS, **to_mask)
    runs.replace_folder(partial, folder)
    scoring.announce(f"{settings.EXPERIMENT}, fold {fold}", summary)
    print(f"scores -> {folder / SCORES}\nthe worst twelve as a picture -> {folder / WORST}", flush=True)
    return summary


def tested_fold(settings: Any, frame: Any, fold: int) -> tuple[Any, dict[str, Any]]:
    """One fold's scores.csv and summary.json. Raises UserError where they are of another model, table or threshold."""
    table = Path(settings.TRAIN_FOLDS)
    run = runs.finished_run(settings.LOGS, settings.EXPERIMENT, str(fold), settings.SEED)
    held_out(frame, run, table)
    if runs.read_model(run).get("overfit"):
        raise UserError(f"{run} learnt its images by heart (OVERFIT); its training scores are no out-of-fold ones.")
    again = f"Score it again: make tester FOLD={fold}"
    summary = runs.read_json(run / "val" / SUMMARY, again, {"weights": str})
    now = {"threshold": settings.THRESHOLD, "min_area": settings.MIN_AREA, "empty_policy": settings.EMPTY}
    differ = [name for name, value in now.items() if summary.get(name) != value]
    if differ:
        raise UserError(f"{run / 'val'} was scored with another {' and '.join(differ)} than now. {again}")
    manifest = runs.read_manifest(run / "val", again)
    if [part["weights_sha256"] for part in manifest["models"]] != [runs.read_model(run)["weights_sha256"]]:
        raise UserError(f"{run / 'val'} holds predictions of another model than {run / runs.WEIGHTS}. {again}")
    scores = splits.read_csv(run / "val" / SCORES, again)
    try:
        numbers = [name for name in scores.columns if name not in ("image", "class", "group")]
        scores[numbers] = scores[numbers].replace("", "nan").astype(float)  # EMPTY=skip leaves blanks
        scores["kfold"] = scores["kfold"].astype(int)
        return scores[list(scoring.COLUMNS)], summary
    except (ValueError, KeyError) as error:
        raise UserError(f"{run / 'val' / SCORES} is not what tester writes ({error}). {again}") from error


def gather(settings: Any) -> dict[str, Any]:
    """Score every fold's val/ together. Raises UserError for an image that is predicted twice or not at all."""
    import pandas as pd

    frame = splits.read(Path(settings.TRAIN_FOLDS))
    folds = sorted(set(frame["kfold"]) - {-1})
    parts, summaries = zip(*(tested_fold(settings, frame, fold) for fold in folds), strict=True)
    spec = dataspec.read(Path(settings.TRAIN_FOLDS).with_suffix(".json"))
    scores = pd.concat(parts).sort_values("image", kind="stable", ignore_index=True)
    expected = frame[frame["kfold"] >= 0].sort_values("image", ignore_index=True)
    twice = sorted(scores["image"][scores.duplicated(["image", "class"])])
    missing = sorted(set(expected["image"]) - set(scores["image"]))
    if twice or missing:
        what = f"{len(twice)} images are predicted twice" if twice else f"{len(missing)} images are not predicted"
        shown = listing(twice or missing, 10)
        raise UserError(f"{settings.EXPERIMENT}: {what}:{shown}\nScore every fold again: make tester FOLD=k")

    if len(scores) != len(expected) * len(spec.scored):
        raise UserError(
            f"{settings.EXPERIMENT}: some images lack a class's row. Score every fold again: make tester FOLD=k"
        )
    means = [scoring.summarise(part, spec.scored_names, settings.EMPTY)["model"]["image"]["dice"] for part in parts]
    to_mask = {"threshold": settings.THRESHOLD, "min_area": settings.MIN_AREA}
    summary = {
        "experiment": settings.EXPERIMENT,
        "folds": dict(zip(map(int, folds), means, strict=True)),
        "scored_on": HELD_OUT_IMAGES,
        **to_mask,
        "weights": ", ".join(sorted({part["weights"] for part in summaries})),
        **scoring.summarise(scores, spec.scored_names, settings.EMPTY),
    }
    folder = Path(settings.LOGS, settings.EXPERIMENT, f"oof_seed{settings.SEED}")
    write_scores(folder, scores, summary)

    from inference import read_maps

    def maps(image: str, fold: int) -> np.ndarray:
        run = runs.run_folder(settings.LOGS, settings.EXPERIMENT, str(fold), settings.SEED)
        return read_maps(run / "val", image, spec)

    root = Path(settings.INPUT)
    scoring.worst_sheet(folder / WORST, scores, expected, root, maps, spec, max_pixels=settings.MAX_PIXELS, **to_mask)
    scoring.announce(f"{settings.EXPERIMENT}, out of fold", summary)
    print(console.table([{"fold": fold, "mean Dice": mean} for fold, mean in zip(folds, means, strict=True)]))
    print(f"mean of the folds {np.nanmean(means):.4f}, standard deviation {np.nanstd(means, ddof=1):.4f}")
    print(f"scores -> {folder / SCORES}\nthe worst twelve as a picture -> {folder / WORST}", flush=True)
    return summary


@command
def main(argv: list[str] | None = None) -> None:
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    if settings_module.flag_is_on(flags.OOF):
        gather(settings)
    elif flags.FOLD:
        score_fold(settings, flags.FOLD)
    else:
        raise UserError(
            "Which fold? make tester FOLD=0 (or python src/tester.py --fold 0); make oof gathers all of them."
        )


if __name__ == "__main__":
    sys.exit(main())
