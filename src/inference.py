"""make inference: a folder of images -> a prediction folder, one 8-bit probability PNG an image (and class), full size.

One model (FOLD=0), the mean of several (FOLD=0,1,2), or, without FOLD, of every finished fold of the experiment.
"""

import sys
from pathlib import Path
from typing import Any

import layouts
import predictions
import rules
import runs
import settings as settings_module
from errors import UserError, command

FLAGS = {"FOLD": "0, or 0,1,2, or full; without it every finished fold", "NAME": "name of the prediction folder"}


def chosen_folds(settings: Any, fold: str) -> list[str]:
    """The folds that FOLD names, or every finished numbered one, or full where there is no other."""
    if fold:
        folds = fold.split(",")
        if len(set(folds)) < len(folds):
            raise UserError(f"FOLD={fold} names a fold twice.")
        return folds
    have = runs.finished_folds(settings.LOGS, settings.EXPERIMENT, settings.SEED)
    return [name for name in have if name != "full"] or have or ["0"]  # "0": for the error that says what is missing


def prediction_folder(settings: Any, fold: str, name: str = "") -> Path:
    """output/<dataset>/predictions/<experiment>_fold<k>_seed<s>, or the name that the user, or an ensemble, has."""
    if runs.is_ensemble(settings.LOGS, settings.EXPERIMENT):
        name = name or settings.EXPERIMENT
    folds = "-".join(chosen_folds(settings, fold))
    name = name or f"{settings.EXPERIMENT}_fold{folds}_seed{settings.SEED}"
    runs.check_name("NAME", name)
    return Path(settings.OUTPUT, "predictions", name)


def picture_of(folder: Path) -> Path:
    """The contact sheet beside a prediction folder."""
    return folder.with_name(f"{folder.name}.png")


def load_predictor(settings: Any, folders: list[Path]) -> Any:
    """The mean of these run folders' models on the settings' device."""
    import predictor
    from hardware import choose_device, choose_precision

    device = choose_device(settings.DEVICE)
    precision, _ = choose_precision(settings.PRECISION, device)
    models = [predictor.load(folder, device) for folder in folders]
    half, views = precision == "16-mixed", {"tta": settings.TTA, "tta_mean": settings.TTA_MEAN}
    return predictor.Predictor(models, device, settings.VALID_BATCH_SIZE, half=half, **views)


@command
def main(argv: list[str] | None = None) -> None:
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    folds = chosen_folds(settings, flags.FOLD)
    folders = [runs.finished_run(settings.LOGS, settings.EXPERIMENT, fold, settings.SEED) for fold in folds]
    stacked = runs.read_model(folders[0])["data"].get("stacked") is True
    root, files = layouts.test_images(settings.INPUT, settings.TEST_PATH, stacked)
    names = [path.relative_to(root).as_posix() for path in files]
    layouts.refuse_twins(names, f"{root}: ")
    if settings.LIMIT:
        files = files[: settings.LIMIT * settings.VALID_BATCH_SIZE]
    folder = prediction_folder(settings, flags.FOLD, flags.NAME)
    runs.refuse_foreign(folder)
    predictor = load_predictor(settings, folders)
    from predictor import describe

    spec = predictor.spec
    makers = describe(predictor.models)
    to_mask = rules.chosen(settings, spec, predictions.provenance(makers, predictor.about()))
    print(
        f"Mean of {len(folders)} models ({', '.join(str(path) for path in folders)}) on {len(files)} images of {root}",
        flush=True,
    )

    by_path = dict(zip(files, names[: len(files)], strict=True))
    with predictions.whole(folder) as partial:
        maps = predictor.predict(files, settings.MAX_PIXELS)
        shown = predictions.write_maps(maps, spec, partial, by_path.get, len(files), "predicting")
        predictions.write_manifest(partial, str(root), list(by_path.values()), spec, makers, predictor.about())
    predictions.contact_sheet(picture_of(folder), shown, spec, to_mask)
    of_classes = f" of {len(spec.classes)} classes each" if len(spec.classes) > 1 else ""
    print(
        f"{len(files)} probability maps{of_classes} -> {folder}\n"
        f"{len(shown)} of them as a picture -> {picture_of(folder)}"
    )
    same = " ".join(f"{name}={value}" for name, value in (("FOLD", flags.FOLD), ("NAME", flags.NAME)) if value)
    print(f"Next: make submission {same}".rstrip())


if __name__ == "__main__":
    sys.exit(main())
