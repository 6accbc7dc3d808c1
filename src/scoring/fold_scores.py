"""One fold's held-out masks predicted and scored at their original size: val/ in its run folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data import dataspec, splits
from prediction import chosen_rule, postprocess, prediction_folders
from scoring import blind_baseline, out_of_fold, score_rows, score_summary
from scoring.score_announcement import announce
from scoring.score_rows import Pairs
from scoring.worst_images import worst_sheet
from tools import run_folders
from tools.errors import UserError
from tools.files import write_json, write_text
from training import weights_origin

if TYPE_CHECKING:
    import pandas as pd

    from prediction.predictor import Predictor
    from settings import Settings

HELD_OUT_IMAGES, TRAINING_IMAGES = "held-out images", "training images (OVERFIT)"
SCORES, SUMMARY, WORST = "scores.csv", "summary.json", "worst.png"


def refuse_unscorable(settings: "Settings") -> None:
    """Raise UserError, before any training, for scoring constants that would stop the tester after it."""
    from prediction import tta

    chosen_rule.refuse_tuned(settings)
    chosen_rule.configured(settings, dataspec.read(Path(settings.TRAIN_FOLDS).with_suffix(".json")))
    score_rows.scale(settings.METRIC, settings.MEASURES, settings.EMPTY)
    tta.views(settings.TTA)


def write_scores(folder: Path, scores: "pd.DataFrame", summary: dict[str, Any]) -> None:
    """Write scores.csv, then summary.json, which says that both are whole."""
    write_text(folder / SCORES, scores.to_csv(index=False, lineterminator="\n"))
    write_json(folder / SUMMARY, summary)


def score_fold(settings: "Settings", fold: str) -> dict[str, Any]:
    """Predict and score one fold's held-out images; write val/ in its run folder and return the summary."""
    import pandas as pd

    chosen_rule.refuse_tuned(settings)
    run = run_folders.finished_run(settings.LOGS, settings.EXPERIMENT, fold, settings.SEED)
    table, folder = Path(settings.TRAIN_FOLDS), run / out_of_fold.VALIDATION
    rows, train = out_of_fold.held_out(splits.read(table), run, table)
    if settings.LIMIT:
        rows = rows.head(settings.LIMIT * settings.VALID_BATCH_SIZE)
        train = train.head(settings.LIMIT * settings.TRAIN_BATCH_SIZE)
    scale = score_rows.scale(settings.METRIC, settings.MEASURES, settings.EMPTY)
    from prediction.inference_job import load_predictor

    predictor = load_predictor(settings, [run])
    model, spec = predictor.models[0], predictor.spec
    rules = chosen_rule.configured(settings, spec)
    pairs = Pairs(rows, Path(settings.INPUT), spec, settings.MAX_PIXELS)
    with prediction_folders.atomic_folder(folder) as partial:
        _predict_held_out(predictor, pairs, settings.INPUT, partial)

        def maps(image: str, _: int = 0) -> np.ndarray:
            return prediction_folders.read_maps(partial, image, spec)

        constant = blind_baseline.masks(blind_baseline.shrunk(pairs.of(train)), scale)
        rows_of = score_rows.rows(pairs, maps, constant, size=model.size, resize=model.resize, rules=rules, scale=scale)
        scores = pd.DataFrame(rows_of)
        summary = {
            "experiment": settings.EXPERIMENT,
            "fold": fold,
            "scored_on": TRAINING_IMAGES if model.about.get("overfit") else HELD_OUT_IMAGES,
            "rules": [rule.as_json() for rule in rules],
            "tta": predictor.about()["tta"],
            "weights": model.about["weights"],
            weights_origin.SAID: str(weights_origin.began(model.about, settings.LOGS)),
            **score_summary.summarize(scores, spec.scored_names, scale),
        }
        write_scores(partial, scores, summary)
        worst_sheet(partial / WORST, scores, pairs, maps, rules, scale)
    announce(f"{settings.EXPERIMENT}, fold {fold}", summary)
    print(f"scores -> {folder / SCORES}\nthe worst twelve as a picture -> {folder / WORST}", flush=True)
    return summary


def _predict_held_out(predictor: "Predictor", pairs: Pairs, root: str, folder: Path) -> None:
    """Write the probability maps of the held-out images and their manifest; root: INPUT as the manifest has it."""
    from prediction.shipped_model import describe

    names = list(pairs.table["image"])
    answers = predictor.predict([pairs.root / image for image in names], pairs.max_pixels)
    named = ((path.relative_to(pairs.root).as_posix(), postprocess.to_p8(answer)) for path, answer in answers)
    prediction_folders.write_maps(named, pairs.spec, folder, len(names), "predicting")
    makers = describe(predictor.models)
    prediction_folders.write_manifest(folder, root, names, pairs.spec, makers, predictor.about())


def is_scored(run: Path) -> bool:
    """Return whether a run is finished and its held-out masks are scored."""
    return (run / run_folders.MODEL).is_file() and (run / out_of_fold.VALIDATION / SUMMARY).is_file()


def read_scores(
    folder: Path, again: str, columns: tuple[str, ...] = score_rows.COLUMNS, file: str = SCORES
) -> "pd.DataFrame":
    """Score rows as tester (or tune) wrote them. Raises UserError, with `again`, where they are something else."""
    scores = splits.read_csv(folder / file, again)
    try:
        numbers = [name for name in scores.columns if name not in ("image", "class", "group")]
        scores[numbers] = scores[numbers].replace("", "nan").astype(float)  # EMPTY=skip leaves blanks
        scores["kfold"] = scores["kfold"].astype(int)
        return scores[list(columns)]
    except (ValueError, KeyError) as error:
        raise UserError(f"{folder / file} is not what was written there ({error}). {again}") from error
