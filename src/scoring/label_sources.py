"""Who may label test images for which fold: the predictions of models that know nothing of what it holds out."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import images_to_predict, splits
from data.dataspec import DataSpec
from prediction import inference_job, prediction_folders
from scoring import out_of_fold
from tools.errors import UserError, listing
from tools.run_folders import MANIFEST, finished_run, is_ensemble, read_manifest, read_model

if TYPE_CHECKING:
    import pandas as pd

    from settings import Settings


@dataclass(frozen=True)
class Source:
    """Test predictions that FOLD=`fold` may be trained on: their folder and the models that made them."""

    fold: str
    folder: Path
    models: list[dict[str, Any]]


def refuse_what_knows_the_masks(settings: "Settings") -> None:
    """Raise UserError for settings under which a fold's labels would know what it holds out."""
    if settings.OVERFIT:
        raise UserError("OVERFIT learns images by heart, without folds; pseudo-labels come from make cv's models.")
    if settings.POSTPROCESS == "tuned":
        raise UserError(
            "POSTPROCESS=tuned cuts masks by a rule that was chosen on all folds' held-out masks, and pseudo-labels "
            "must not know those. Leave it out; THRESHOLD, MIN_AREA, ... of your own are fine."
        )
    if is_ensemble(settings.LOGS, settings.EXPERIMENT):
        raise UserError(
            f"{settings.EXPERIMENT} is an ensemble: its test predictions are of all folds together, and know every "
            "held-out mask. Give one of its members: make pseudo EXPERIMENT=..."
        )


def checked_runs(settings: "Settings", frame: "pd.DataFrame") -> dict[str, Path]:
    """Return the run folder of each fold of the table, with a model that knows nothing of the fold's masks.

    Raises UserError for one that was trained with what does.
    """
    found = {}
    for fold in splits.fold_names(frame):
        run = finished_run(settings.LOGS, settings.EXPERIMENT, fold, settings.SEED)
        out_of_fold.held_out(frame, run, Path(settings.TRAIN_FOLDS))
        about = read_model(run)
        then = about.get("settings", {})
        steered = {
            "CHECKPOINT=best": then.get("CHECKPOINT") == "best",
            "EARLY_STOPPING": then.get("EARLY_STOPPING", 0) > 0,
            "SCHEDULE=plateau": then.get("SCHEDULE") == "plateau",
            "OVERFIT": bool(about.get("overfit")),
        }
        used = " and ".join(name for name, on in steered.items() if on)
        if used:
            raise UserError(
                f"{run} was trained with {used}, which went by the masks that fold {fold} holds out; labels of its "
                f"model would know them. Train again without it: make cv EXPERIMENT={settings.EXPERIMENT} OVERWRITE=1"
            )
        found[fold] = run
    return found


def test_names(settings: "Settings", frame: "pd.DataFrame", spec: DataSpec) -> tuple[Path, list[str]]:
    """Return the test images' folder, and each below it. Raises UserError for one that the table has already."""
    root, names = images_to_predict.test_names(settings.INPUT, settings.TEST_PATH, spec.stacked)
    if settings.LIMIT:
        names = names[: settings.LIMIT * settings.VALID_BATCH_SIZE]
    odd = [repr(name) for name in names if not name.isprintable()]
    if odd:
        raise UserError(f"{root}: these names cannot be kept in a table; rename them:{listing(odd)}")
    have = {(Path(settings.INPUT) / image).resolve() for image in frame["image"]}
    known = [name for name in names if (root / name).resolve() in have]
    if known:
        raise UserError(
            f"{root}: {len(known)} of these images are in {settings.TRAIN_FOLDS} already, with their masks; "
            f"pseudo-labels are for images without any:{listing(known, 5)}"
        )
    return root, names


def predicted(settings: "Settings", fold: str, run_folders: list[Path], root: Path, names: list[str]) -> Source:
    """Return the test predictions of these runs' mean for FOLD=`fold`: those that are there, or new ones."""
    of = ",".join(read_model(run)["fold"] for run in run_folders)
    folder = inference_job.prediction_folder(settings, of)
    why = _unfit(settings, folder, run_folders, root, names)
    if why:
        print(f"Predicting the test images by fold {of}: {why}", flush=True)
        inference_job.predict(settings, inference_job.Wanted(of))
        why = _unfit(settings, folder, run_folders, root, names)
        if why:
            raise UserError(f"{folder} was predicted just now, and does not fit: {why}")
    else:
        print(f"{folder}: fold {of}'s predictions are there already.", flush=True)
    return Source(fold, folder, read_manifest(folder, "")["models"])


def _unfit(settings: "Settings", folder: Path, run_folders: list[Path], root: Path, names: list[str]) -> str:
    """Say why a prediction folder cannot be used, "" where it can: of these models, images and views, unchanged."""
    from prediction import tta

    if not (folder / MANIFEST).is_file():
        return "there are no predictions yet."
    try:
        manifest = read_manifest(folder, "")
        prediction_folders.refuse_exchanged(folder, manifest, "")
    except UserError as error:
        return str(error).strip()
    mean = settings.TTA_MEAN if len(tta.views(settings.TTA)) > 1 else tta.MEANS[0]
    same = {
        "models": {part["weights_sha256"] for part in manifest["models"]}
        == {read_model(run)["weights_sha256"] for run in run_folders},
        "images": manifest["images"] == names and Path(str(manifest.get("root"))).resolve() == root.resolve(),
        "TTA": (manifest["tta"], manifest["tta_mean"]) == (tta.canonical(settings.TTA), mean),
    }
    differ = [what for what, equal in same.items() if not equal]
    return f"{folder} is of other {' and '.join(differ)}." if differ else ""
