"""make tester FOLD=0: score one fold's held-out masks at their original size; make oof: all folds, each image exactly once.

Writes val/ in the run folder: probability PNGs, scores.csv (a row an image), summary.json, worst.png; OOF=1 gathers them
in lightning_logs/<experiment>/oof_seed<s>/.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

import console
import images
import metrics
import postprocess
import runs
import settings as settings_module
import splits
from errors import UserError, command, listing

FLAGS = {"FOLD": "the fold whose held-out images are scored", "OOF": "1: gather every tested fold and score each image once"}
SCORES, SUMMARY = "scores.csv", "summary.json"


def held_out(frame: Any, folder: Path, table: Path) -> tuple[Any, Any]:
    """The rows that a run may be scored on and those it trained on. Raises UserError where the table is another one by now."""
    about = runs.read_json(folder / runs.MODEL, "Train it again.")
    if about.get("folds_sha256") != runs.sha256(table):
        raise UserError(
            f"{folder} was trained on another folds table than {table}, so its held-out images may be among those it has seen. "
            f"Put the old table back (a copy is {folder / runs.FOLDS}), or train again with OVERWRITE=1."
        )
    if about["fold"] == "full":
        raise UserError(f"{folder} was trained on every image; there is no held-out one to score. Score folds 0, 1, ... instead.")
    inside = frame["kfold"] == int(about["fold"])
    return frame[inside].reset_index(drop=True), frame[~inside]


def constant_mask(settings: Any, train: Any, side: int = 128) -> np.ndarray:
    """The best mask that ignores the image, found on the training masks stretched to (side, side): 0/1."""
    root = Path(settings.INPUT)
    masks = [images.mask_to_network(images.read_mask(root / mask, settings.MAX_PIXELS), (side, side), "stretch")
             for mask in console.track(train["mask"], len(train), "training masks")]  # fmt: skip
    stacked = np.stack(masks)
    return metrics.best_constant(stacked.mean(0), stacked)


def score_rows(settings: Any, rows: Any, folder: Path, constant: np.ndarray, size: tuple[int, int], resize: str) -> Any:
    """One dict an image: counts and scores of the prediction in `folder`, of the constant mask and of the resolution's ceiling."""
    root = Path(settings.INPUT)
    for image, mask, group, fold in console.track(zip(rows["image"], rows["mask"], rows["group"], rows["kfold"], strict=True), len(rows), "scoring"):
        truth = images.read_mask(root / mask, settings.MAX_PIXELS)
        p8 = images.read_gray(runs.prediction_path(folder, image))
        if p8.shape != truth.shape:
            raise UserError(f"{runs.prediction_path(folder, image)}: {p8.shape}, but the mask has {truth.shape}. Run make tester again.")
        counts = metrics.count(postprocess.to_mask(p8, settings.THRESHOLD, settings.MIN_AREA), truth)
        scores = metrics.scores(counts["tp"], counts["fp"], counts["fn"], settings.EMPTY)
        yield {
            "image": image, "class": "foreground", "kfold": fold, "group": group, **counts,
            **{name: round(float(value), 6) for name, value in scores.items()},
            **_reference("constant", _stretched(constant, truth.shape), truth),
            **_reference("ceiling", _redrawn(truth, size, resize), truth),
        }  # fmt: skip


def _reference(name: str, mask: np.ndarray, truth: np.ndarray) -> dict[str, int]:
    counts = metrics.count(mask, truth)
    return {f"{name}_{key}": counts[key] for key in ("tp", "fp", "fn")}


def _stretched(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return images.from_network(mask.astype(np.float32), shape, mask.shape, "stretch") >= 0.5


def _redrawn(truth: np.ndarray, size: tuple[int, int], resize: str) -> np.ndarray:
    """The truth as a perfect network would give it: each small pixel's share of foreground, enlarged, cut at one half."""
    small = images.coverage_to_network(truth, size, resize).astype(np.float32)
    return images.from_network(small, truth.shape, size, resize) >= 127.5


def summarise(scores: Any, empty: str) -> dict[str, Any]:
    """Mean over images and pooled over pixels, of the model, of the constant mask and of the resolution's ceiling."""
    columns = [(name, prefix) for name, prefix in (("model", ""), ("constant", "constant_"), ("ceiling", "ceiling_"))]
    both_empty = int(((scores["tp"] + scores["fp"] + scores["fn"]) == 0).sum())
    truth_empty = int(((scores["tp"] + scores["fn"]) == 0).sum())
    values = {name: metrics.summarise(*(scores[f"{prefix}{key}"].to_numpy() for key in ("tp", "fp", "fn")), empty) for name, prefix in columns}
    return {"images": len(scores), "groups": int(scores["group"].nunique()), "empty_masks": truth_empty, "empty_and_predicted_empty": both_empty,
            "empty_policy": empty, **values}  # fmt: skip


def announce(title: str, summary: dict[str, Any]) -> None:
    """Print the scores with what has to stand beside them."""
    print(f"{title}: {summary['images']} held-out images in {summary['groups']} groups, at their original size")
    lines = [("mean over images", summary["model"]["image"]), ("pooled over pixels", summary["model"]["pooled"]),
             ("constant mask, mean", summary["constant"]["image"]), ("ceiling of the size, mean", summary["ceiling"]["image"])]  # fmt: skip
    print(console.table([{"": name, **values} for name, values in lines]))
    policy = {"one": "counts as 1", "zero": "counts as 0", "skip": "is left out of the mean"}[summary["empty_policy"]]
    print(f"  {summary['empty_masks']} masks are empty; an empty prediction on an empty mask {policy} (EMPTY={summary['empty_policy']}).")
    print(f"  threshold {summary['threshold']}, weights of the {summary['weights']}. The constant mask ignores the image; the ceiling is "
          "what the true mask scores after it was shrunk to the network's size and enlarged again.")  # fmt: skip


def worst_sheet(path: Path, scores: Any, settings: Any, folder_of: Any, most: int = 12) -> None:
    """Contact sheet of the lowest Dice: image, truth, prediction, error."""
    import pictures

    root, rows = Path(settings.INPUT), []
    for image, mask, fold, dice in scores.sort_values("dice", kind="stable")[["image", "mask", "kfold", "dice"]].head(most).itertuples(index=False):
        picture, truth = images.read_pair(root / image, root / mask, settings.MAX_PIXELS)
        predicted = postprocess.to_mask(images.read_gray(runs.prediction_path(folder_of(fold), image)), settings.THRESHOLD, settings.MIN_AREA)
        cells = [picture, pictures.overlay(picture, truth), pictures.overlay(picture, predicted), pictures.errors(picture, truth, predicted)]
        rows.append((f"Dice {dice:.4f}   {Path(image).name}", cells))
    pictures.sheet(path, rows, ["image", "truth", "prediction", "error"], note=f"the {len(rows)} images with the lowest Dice; {pictures.LEGEND}")


def write_scores(folder: Path, scores: Any, summary: dict[str, Any]) -> None:
    runs.write_text(folder / SCORES, scores.to_csv(index=False, lineterminator="\n"))
    runs.write_json(folder / SUMMARY, summary)


def test_fold(settings: Any, fold: str) -> dict[str, Any]:
    """Predict and score one fold's held-out images; writes val/ in its run folder and returns the summary."""
    import pandas as pd

    run = runs.finished_run(settings.LOGS, settings.EXPERIMENT, fold, settings.SEED)
    table = Path(settings.TRAIN_FOLDS)
    rows, train = held_out(splits.read(table), run, table)
    if settings.LIMIT:
        rows, train = rows.head(settings.LIMIT * settings.VALID_BATCH_SIZE), train.head(settings.LIMIT * settings.TRAIN_BATCH_SIZE)
    from inference import load_predictor, write_maps

    predictor = load_predictor(settings, [run])
    root, folder, model = Path(settings.INPUT), run / "val", predictor.models[0]
    predictions = predictor.predict([root / image for image in rows["image"]], settings.MAX_PIXELS)
    for file in (folder / runs.MANIFEST, folder / SCORES, folder / SUMMARY):
        file.unlink(missing_ok=True)  # a half-written folder must not look like a finished one
    write_maps(predictions, folder, lambda path: path.relative_to(root).as_posix(), len(rows), "predicting")
    import predictor as predictor_module

    manifest = {"root": settings.INPUT, "images": list(rows["image"]), "models": predictor_module.describe([model])}
    runs.write_json(folder / runs.MANIFEST, manifest)

    scores = pd.DataFrame(score_rows(settings, rows, folder, constant_mask(settings, train), model.size, model.resize))
    summary = {"experiment": settings.EXPERIMENT, "fold": fold, "threshold": settings.THRESHOLD, "min_area": settings.MIN_AREA,
               "weights": model.about["weights"], **summarise(scores, settings.EMPTY)}  # fmt: skip
    write_scores(folder, scores, summary)
    worst_sheet(folder / "worst.png", scores.assign(mask=rows["mask"]), settings, lambda _: folder)
    announce(f"{settings.EXPERIMENT}, fold {fold}", summary)
    print(f"scores -> {folder / SCORES}\nthe worst twelve as a picture -> {folder / 'worst.png'}", flush=True)
    return summary


def gather(settings: Any) -> dict[str, Any]:
    """Score every fold's val/ together. Raises UserError for an image that is predicted twice or not at all."""
    import pandas as pd

    table = Path(settings.TRAIN_FOLDS)
    frame, parts, weights = splits.read(table), {}, set()
    folds = sorted(set(frame["kfold"]) - {-1})
    for fold in folds:
        run = runs.finished_run(settings.LOGS, settings.EXPERIMENT, str(fold), settings.SEED)
        held_out(frame, run, table)
        summary = runs.read_json(run / "val" / SUMMARY, f"Score it first: make tester FOLD={fold}")
        differ = [name for name in ("threshold", "min_area", "empty_policy") if summary[name] != getattr(settings, {"empty_policy": "EMPTY"}.get(name, name.upper()))]
        if differ:
            raise UserError(f"{run / 'val'} was scored with another {' and '.join(differ)}; run make tester FOLD={fold} again.")
        model = runs.read_json(run / runs.MODEL, "Train it again.")
        manifest = runs.read_json(run / "val" / runs.MANIFEST, f"Score it again: make tester FOLD={fold}")
        if manifest["models"][0]["weights_sha256"] != model["weights_sha256"]:
            raise UserError(f"{run / 'val'} holds predictions of another model than {run / runs.WEIGHTS}; run make tester FOLD={fold} again.")
        parts[fold] = pd.read_csv(run / "val" / SCORES, dtype={"image": str, "group": str}, keep_default_na=False)
        weights.add(summary["weights"])
    scores = pd.concat(parts.values()).sort_values("image", ignore_index=True)
    expected = frame[frame["kfold"] >= 0].sort_values("image", ignore_index=True)
    twice, missing = sorted(scores["image"][scores["image"].duplicated()]), sorted(set(expected["image"]) - set(scores["image"]))
    if twice or missing:
        what = f"{len(twice)} images are predicted twice" if twice else f"{len(missing)} images are not predicted"
        raise UserError(f"{settings.EXPERIMENT}: {what}:{listing(twice or missing, 10)}\nScore every fold again: make tester FOLD=k")
    folder = Path(settings.LOGS, settings.EXPERIMENT, f"oof_seed{settings.SEED}")
    fold_means = {int(fold): summarise(part, settings.EMPTY)["model"]["image"]["dice"] for fold, part in parts.items()}
    summary = {"experiment": settings.EXPERIMENT, "folds": fold_means, "threshold": settings.THRESHOLD, "min_area": settings.MIN_AREA,
               "weights": ", ".join(sorted(weights)), **summarise(scores, settings.EMPTY)}  # fmt: skip
    write_scores(folder, scores, summary)

    def folder_of(fold: int) -> Path:
        return runs.run_folder(settings.LOGS, settings.EXPERIMENT, str(fold), settings.SEED) / "val"

    worst_sheet(folder / "worst.png", scores.assign(mask=expected["mask"]), settings, folder_of)
    announce(f"{settings.EXPERIMENT}, out of fold", summary)
    print(console.table([{"fold": fold, "mean Dice": value} for fold, value in fold_means.items()]))
    print(f"mean of the folds {np.mean(list(fold_means.values())):.4f}, standard deviation {np.std(list(fold_means.values()), ddof=1):.4f}")
    print(f"scores -> {folder / SCORES}\nthe worst twelve as a picture -> {folder / 'worst.png'}", flush=True)
    return summary


@command
def main(argv: list[str] | None = None) -> None:
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    if settings_module.flag_is_on(flags.OOF):
        gather(settings)
    elif flags.FOLD:
        test_fold(settings, flags.FOLD)
    else:
        raise UserError("Which fold? make tester FOLD=0 (or python src/tester.py --fold 0); make oof gathers all of them.")


if __name__ == "__main__":
    sys.exit(main())
