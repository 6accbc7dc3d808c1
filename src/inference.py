"""make inference: a folder of images -> a prediction folder, one 8-bit probability PNG an image (and class), full size.

One model (FOLD=0), the mean of several (FOLD=0,1,2), or, without FOLD, of every finished fold of the experiment.
"""

import shutil
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import console
import images
import layouts
import postprocess
import runs
import settings as settings_module
from dataspec import DataSpec
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
    """output/<dataset>/predictions/<experiment>_fold<k>_seed<s>, or the name that the user gave."""
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
    return predictor.Predictor(models, device, settings.VALID_BATCH_SIZE, half=precision == "16-mixed")


def write_maps(
    predictions: Any, spec: DataSpec, folder: Path, name_of: Any, total: int, label: str
) -> list[tuple[str, Any, Any]]:
    """Write each image's probability maps in threads; returns twelve spread over all (name, image, p8) to show."""
    shown, waiting = [], deque()
    wanted = {index * total // 12 for index in range(12)}
    with ThreadPoolExecutor(2) as pool:
        for index, (path, image, probabilities) in enumerate(console.track(predictions, total, label)):
            p8, name = postprocess.to_p8(probabilities), name_of(path)
            for file, plane in zip(map_paths(folder, name, spec), p8, strict=True):
                waiting.append(pool.submit(images.write_gray, file, plane))
            while len(waiting) > 32:
                waiting.popleft().result()  # a full disk is raised here
            if index in wanted:
                shown.append((name, image, p8))
        for future in waiting:
            future.result()
    return shown


def map_paths(folder: Path, image: str, spec: DataSpec) -> list[Path]:
    """The probability map of each class of `image`, in the classes' order."""
    names = spec.classes if len(spec.classes) > 1 else ("",)
    return [runs.prediction_path(folder, image, name) for name in names]


def read_maps(folder: Path, image: str, spec: DataSpec) -> Any:
    """The probability maps of `image`, uint8 (C, H, W). Raises UserError where they are missing or differ in size."""
    import numpy as np

    paths = map_paths(folder, image, spec)
    maps = [images.read_gray(path) for path in paths]
    for path, p8 in zip(paths, maps, strict=True):
        if p8.shape != maps[0].shape:
            raise UserError(f"{path}: {p8.shape}, but {paths[0]} has {maps[0].shape}. Run make inference again.")
    return np.stack(maps)


def contact_sheet(
    path: Path, shown: list[tuple[str, Any, Any]], spec: DataSpec, threshold: float, min_area: int
) -> None:
    """Write images, probabilities and masks side by side, with a legend of several classes."""
    import pictures

    rows = []
    for name, image, p8 in shown:
        masks = postprocess.to_masks(p8, spec.task, spec.scored, threshold, min_area)
        picture = pictures.as_rgb(image)
        foreground = p8[list(spec.scored)].max(0)
        rows.append((f"{Path(name).name}   {masks.any(0).mean():.1%} foreground",
                     [picture, foreground, pictures.overlays(picture, masks)]))  # fmt: skip
    title = "probability" if len(spec.scored) == 1 else "highest probability of a class"
    pictures.sheet(path, rows, ["image", title, "mask"], legend=pictures.legend(spec.scored_names))


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
    spec = predictor.spec
    print(
        f"Mean of {len(folders)} models ({', '.join(str(path) for path in folders)}) on {len(files)} images of {root}",
        flush=True,
    )

    import predictor as predictor_module

    partial = folder.with_name(f".{folder.name}.partial")  # what was there stays until the new one is whole
    shutil.rmtree(partial, ignore_errors=True)
    by_path = dict(zip(files, names[: len(files)], strict=True))
    predictions = predictor.predict(files, settings.MAX_PIXELS)
    try:
        shown = write_maps(predictions, spec, partial, by_path.get, len(files), "predicting")
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)  # half a prediction is of no use
        raise
    manifest = {
        "root": str(root),
        "images": list(by_path.values()),
        "data": spec.as_json(),
        "models": predictor_module.describe(predictor.models),
    }
    runs.write_json(partial / runs.MANIFEST, manifest)
    runs.replace_folder(partial, folder)
    contact_sheet(picture_of(folder), shown, spec, settings.THRESHOLD, settings.MIN_AREA)
    of_classes = f" of {len(spec.classes)} classes each" if len(spec.classes) > 1 else ""
    print(
        f"{len(files)} probability maps{of_classes} -> {folder}\n"
        f"{len(shown)} of them as a picture -> {picture_of(folder)}"
    )
    same = " ".join(f"{name}={value}" for name, value in (("FOLD", flags.FOLD), ("NAME", flags.NAME)) if value)
    print(f"Next: make submission {same}".rstrip())


if __name__ == "__main__":
    sys.exit(main())
