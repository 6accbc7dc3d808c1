"""One fold's held-out masks predicted and scored at their original size: val/ in its run folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data import dataspec, splits
from prediction import chosen_rule, postprocess, prediction_folders
from scoring import blind_baseline, out_of_fold, score_rows, score_summary
from tools import run_folders
from tools.errors import UserError
from tools.files import write_json, write_text
from training import weights_origin

if TYPE_CHECKING:
    import pandas as pd

    from settings import Settings

HELD_OUT_IMAGES, TRAINING_IMAGES = "held-out images", "training images (OVERFIT)"
SCORES, SUMMARY, WORST = "scores.csv", "summary.json", "worst.png"


def refuse_unscorable(settings: "Settings") -> None:
    """Raises UserError, before any training, for scoring constants that would stop the tester after it."""
    from prediction import tta

    chosen_rule.refuse_tuned(settings)
    chosen_rule.configured(settings, dataspec.read(Path(settings.TRAIN_FOLDS).with_suffix(".json")))
    score_rows.scale(settings.METRIC, settings.MEASURES, settings.EMPTY)
    tta.views(settings.TTA)


def write_scores(folder: Path, scores: "pd.DataFrame", summary: dict[str, Any]) -> None:
    """scores.csv, then summary.json, which says that both are whole."""
    write_text(folder / SCORES, scores.to_csv(index=False, lineterminator="\n"))
    write_json(folder / SUMMARY, summary)


def score_fold(settings: "Settings", fold: str) -> dict[str, Any]:
    """Predict and score one fold's held-out images; writes val/ in its run folder and returns the summary."""
    import pandas as pd

    chosen_rule.refuse_tuned(settings)
    run = run_folders.finished_run(settings.LOGS, settings.EXPERIMENT, fold, settings.SEED)
    table, root, folder = Path(settings.TRAIN_FOLDS), Path(settings.INPUT), run / out_of_fold.VALIDATION
    rows, train = out_of_fold.held_out(splits.read(table), run, table)
    if settings.LIMIT:
        rows = rows.head(settings.LIMIT * settings.VALID_BATCH_SIZE)
        train = train.head(settings.LIMIT * settings.TRAIN_BATCH_SIZE)
    scale = score_rows.scale(settings.METRIC, settings.MEASURES, settings.EMPTY)
    from prediction.inference_job import load_predictor

    predictor = load_predictor(settings, [run])
    from prediction.predictor import describe

    model, spec = predictor.models[0], predictor.spec
    rules = chosen_rule.configured(settings, spec)
    with prediction_folders.atomic_folder(folder) as partial:
        found = predictor.predict([root / image for image in rows["image"]], settings.MAX_PIXELS)
        names, makers = list(rows["image"]), describe([model])
        named = ((path.relative_to(root).as_posix(), postprocess.to_p8(answer)) for path, answer in found)
        prediction_folders.write_maps(named, spec, partial, len(rows), "predicting")
        prediction_folders.write_manifest(partial, settings.INPUT, names, spec, makers, predictor.about())

        def maps(image: str, _: int = 0) -> np.ndarray:
            return prediction_folders.read_maps(partial, image, spec)

        constant = blind_baseline.masks(blind_baseline.shrunk(root, train, spec, settings.MAX_PIXELS), scale)
        how = {"rules": rules, "scale": scale, "max_pixels": settings.MAX_PIXELS}
        rows_of = score_rows.rows(rows, root, maps, constant, spec, size=model.size, resize=model.resize, **how)
        scores = pd.DataFrame(rows_of)
        summary = {
            "experiment": settings.EXPERIMENT,
            "fold": fold,
            "scored_on": TRAINING_IMAGES if model.about.get("overfit") else HELD_OUT_IMAGES,
            "rules": [rule.as_json() for rule in rules],
            "tta": predictor.about()["tta"],
            "weights": model.about["weights"],
            weights_origin.SAID: str(weights_origin.began(model.about, settings.LOGS)),
            **score_summary.summarise(scores, spec.scored_names, scale),
        }
        write_scores(partial, scores, summary)
        score_summary.worst_sheet(partial / WORST, scores, rows, root, maps, spec, **how)
    score_summary.announce(f"{settings.EXPERIMENT}, fold {fold}", summary)
    print(f"scores -> {folder / SCORES}\nthe worst twelve as a picture -> {folder / WORST}", flush=True)
    return summary


def is_scored(run: Path) -> bool:
    """Whether a run is finished and its held-out masks are scored."""
    return (run / run_folders.MODEL).is_file() and (run / out_of_fold.VALIDATION / SUMMARY).is_file()


def read_scores(folder: Path, again: str, columns: tuple[str, ...] = score_rows.COLUMNS, file: str = SCORES) -> Any:
    """Score rows as tester (or tune) wrote them. Raises UserError, with `again`, where they are something else."""
    scores = splits.read_csv(folder / file, again)
    try:
        numbers = [name for name in scores.columns if name not in ("image", "class", "group")]
        scores[numbers] = scores[numbers].replace("", "nan").astype(float)  # EMPTY=skip leaves blanks
        scores["kfold"] = scores["kfold"].astype(int)
        return scores[list(columns)]
    except (ValueError, KeyError) as error:
        raise UserError(f"{folder / file} is not what was written there ({error}). {again}") from error
