"""make tester FOLD=0: score one fold's held-out masks at their original size; make oof: all folds, each image once.

Writes val/ in the run folder: probability PNGs, scores.csv (a row an image), summary.json, worst.png; OOF=1 gathers
them in lightning_logs/<experiment>/oof_seed<s>/.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

import console
import dataspec
import outoffold
import postprocess
import predictions
import rules
import runs
import scoring
import settings as settings_module
import splits
import summaries
from errors import UserError, command, listing

FLAGS = {
    "FOLD": "the fold whose held-out images are scored",
    "OOF": "1: gather every tested fold and score each image once",
}
HELD_OUT_IMAGES, TRAINING_IMAGES = "held-out images", "training images (OVERFIT)"
SCORES, SUMMARY, WORST = "scores.csv", "summary.json", "worst.png"


def refuse_unscorable(settings: Any) -> None:
    """Raises UserError, before any training, for scoring constants that would stop the tester after it."""
    import tta

    rules.refuse_tuned(settings)
    rules.configured(settings, dataspec.read(Path(settings.TRAIN_FOLDS).with_suffix(".json")))
    scoring.scale(settings.METRIC, settings.MEASURES, settings.EMPTY)
    tta.views(settings.TTA)


def write_scores(folder: Path, scores: Any, summary: dict[str, Any]) -> None:
    """scores.csv, then summary.json, which says that both are whole."""
    runs.write_text(folder / SCORES, scores.to_csv(index=False, lineterminator="\n"))
    runs.write_json(folder / SUMMARY, summary)


def score_fold(settings: Any, fold: str) -> dict[str, Any]:
    """Predict and score one fold's held-out images; writes val/ in its run folder and returns the summary."""
    import pandas as pd

    rules.refuse_tuned(settings)
    run = runs.finished_run(settings.LOGS, settings.EXPERIMENT, fold, settings.SEED)
    table, root, folder = Path(settings.TRAIN_FOLDS), Path(settings.INPUT), run / outoffold.VALIDATION
    rows, train = outoffold.held_out(splits.read(table), run, table)
    if settings.LIMIT:
        rows = rows.head(settings.LIMIT * settings.VALID_BATCH_SIZE)
        train = train.head(settings.LIMIT * settings.TRAIN_BATCH_SIZE)
    scale = scoring.scale(settings.METRIC, settings.MEASURES, settings.EMPTY)
    from inference import load_predictor

    predictor = load_predictor(settings, [run])
    from predictor import describe

    model, spec = predictor.models[0], predictor.spec
    to_mask = rules.configured(settings, spec)
    with predictions.whole(folder) as partial:
        found = predictor.predict([root / image for image in rows["image"]], settings.MAX_PIXELS)
        names, makers = list(rows["image"]), describe([model])
        named = ((path.relative_to(root).as_posix(), postprocess.to_p8(answer)) for path, answer in found)
        predictions.write_maps(named, spec, partial, len(rows), "predicting")
        predictions.write_manifest(partial, settings.INPUT, names, spec, makers, predictor.about())

        def maps(image: str, _: int = 0) -> np.ndarray:
            return predictions.read_maps(partial, image, spec)

        constant = scoring.constant_mask(scoring.small_masks(root, train, spec, settings.MAX_PIXELS))
        how = {"rules": to_mask, "scale": scale, "max_pixels": settings.MAX_PIXELS}
        rows_of = scoring.rows(rows, root, maps, constant, spec, size=model.size, resize=model.resize, **how)
        scores = pd.DataFrame(rows_of)
        summary = {
            "experiment": settings.EXPERIMENT,
            "fold": fold,
            "scored_on": TRAINING_IMAGES if model.about.get("overfit") else HELD_OUT_IMAGES,
            "rules": [rule.as_json() for rule in to_mask],
            "tta": predictor.about()["tta"],
            "weights": model.about["weights"],
            **summaries.summarise(scores, spec.scored_names, scale),
        }
        write_scores(partial, scores, summary)
        summaries.worst_sheet(partial / WORST, scores, rows, root, maps, spec, **how)
    summaries.announce(f"{settings.EXPERIMENT}, fold {fold}", summary)
    print(f"scores -> {folder / SCORES}\nthe worst twelve as a picture -> {folder / WORST}", flush=True)
    return summary


def is_scored(run: Path) -> bool:
    """Whether a run is finished and its held-out masks are scored."""
    return (run / runs.MODEL).is_file() and (run / outoffold.VALIDATION / SUMMARY).is_file()


def read_scores(folder: Path, again: str, columns: tuple[str, ...] = scoring.COLUMNS, file: str = SCORES) -> Any:
    """Score rows as tester (or tune) wrote them. Raises UserError, with `again`, where they are something else."""
    scores = splits.read_csv(folder / file, again)
    try:
        numbers = [name for name in scores.columns if name not in ("image", "class", "group")]
        scores[numbers] = scores[numbers].replace("", "nan").astype(float)  # EMPTY=skip leaves blanks
        scores["kfold"] = scores["kfold"].astype(int)
        return scores[list(columns)]
    except (ValueError, KeyError) as error:
        raise UserError(f"{folder / file} is not what was written there ({error}). {again}") from error


def tested_fold(settings: Any, found: outoffold.OutOfFold, fold: int, scale: scoring.Scale) -> Any:
    """One fold's scores.csv. Raises UserError where it was scored by other rules or another metric than now."""
    folder = found.folders[fold]
    again = f"Score it again: make tester FOLD={fold}"
    summary = runs.read_json(folder / SUMMARY, again, {"weights": str})
    then = postprocess.all_from_json(summary.get("rules"), f"{folder / SUMMARY}")
    now = {"empty_policy": scale.empty, "metric": scale.metric}
    differ = [name for name, value in now.items() if summary.get(name) != value]
    if then != rules.configured(settings, found.spec):
        differ = ["threshold, or another rule from probability to mask", *differ]
    if differ:
        raise UserError(f"{folder} was scored with another {' and '.join(differ)} than now. {again}")
    return read_scores(folder, again, tuple(dict.fromkeys((*scoring.COLUMNS, *scale.also))))  # iou is there already


def gather(settings: Any) -> dict[str, Any]:
    """Score every fold's val/ together. Raises UserError for an image that is predicted twice or not at all."""
    import pandas as pd

    rules.refuse_tuned(settings)
    scale = scoring.scale(settings.METRIC, settings.MEASURES, settings.EMPTY)
    if runs.is_ensemble(settings.LOGS, settings.EXPERIMENT):
        raise UserError(f"{settings.EXPERIMENT} is an ensemble: make ensemble OF=... NAME=... scores what it blends.")
    found = outoffold.read(settings)
    spec, folds = found.spec, sorted(found.folders)
    parts = [tested_fold(settings, found, fold, scale) for fold in folds]
    scores = pd.concat(parts).sort_values("image", kind="stable", ignore_index=True)
    _refuse_gaps(found, scores)
    return publish(settings, found, scores, scale, rules.configured(settings, spec))


def _refuse_gaps(found: outoffold.OutOfFold, scores: Any) -> None:
    """Refuse score rows that do not have each held-out image and class exactly once."""
    twice = sorted(scores["image"][scores.duplicated(["image", "class"])])
    missing = sorted(set(found.table["image"]) - set(scores["image"]))
    if twice or missing:
        what = f"{len(twice)} images are predicted twice" if twice else f"{len(missing)} images are not predicted"
        shown = listing(twice or missing, 10)
        raise UserError(f"{found.experiment}: {what}:{shown}\nScore every fold again: make tester FOLD=k")
    if len(scores) != len(found.table) * len(found.spec.scored):
        raise UserError(
            f"{found.experiment}: some images lack a class's row, or are of no fold. Score every fold again: "
            "make tester FOLD=k"
        )


def publish(
    settings: Any, found: outoffold.OutOfFold, scores: Any, scale: scoring.Scale, to_mask: tuple[Any, ...]
) -> dict[str, Any]:
    """Write and announce the out-of-fold scores of an experiment or ensemble: oof_seed<s>/; returns the summary."""
    names = found.spec.scored_names
    parts = {int(fold): part for fold, part in scores.groupby("kfold")}
    means = [summaries.score(part, names, scale) for part in parts.values()]
    summary = {
        "experiment": found.experiment,
        "folds": dict(zip(parts, means, strict=True)),
        "scored_on": HELD_OUT_IMAGES,
        "rules": [rule.as_json() for rule in to_mask],
        "tta": found.provenance["tta"],
        "weights": found.weights,
        "provenance": found.provenance,
        **summaries.summarise(scores, names, scale),
    }
    folder = Path(settings.LOGS, found.experiment, f"oof_seed{found.seed}")
    write_scores(folder, scores, summary)
    how = {"rules": to_mask, "scale": scale, "max_pixels": settings.MAX_PIXELS}
    summaries.worst_sheet(folder / WORST, scores, found.table, found.root, found.maps, found.spec, **how)
    summaries.announce(f"{found.experiment}, out of fold", summary)
    print(console.table([{"fold": fold, scale.metric: mean} for fold, mean in summary["folds"].items()]))
    kept = [mean for mean in means if np.isfinite(mean)]
    if len(kept) > 1:
        print(f"mean of the folds {np.mean(kept):.4f}, standard deviation {np.std(kept, ddof=1):.4f}")
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
