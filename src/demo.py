"""make demo: render a data set, then walk the whole path on it, from folds to a scored submission.

Carvana's pictures may not be passed on, so these are our own: cars on a turntable, 16 views each (studio.py), in
Carvana's layout. LAYOUT renders one of the other layouts instead, small (scene_layouts.py). The answers of the test
images lie in input/demo/.answers, where only this script looks.
"""

import csv
import os
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import scene_layouts
import settings as settings_module
from data import dataspec
from formats import images, rle
from metrics import overlap
from scene_layouts import DONE
from scenes.files import ANSWERS
from tools import console, run_folders, threads
from tools.errors import UserError, command, nearest
from tools.files import read_json, write_json
from tools.flags import is_on

if TYPE_CHECKING:
    from settings import Settings
    from tools.flags import Flags

FLAGS = {
    "LAYOUT": f"carvana (default) or one of: {', '.join(scene_layouts.LAYOUTS)}",
    "COUNT": "training images of the other layouts (default: about 60)",
    "CARS": "Carvana's layout: cars to train on, 16 pictures each (default 20)",
    "TEST_CARS": "cars of the test set (default 5)",
    "WIDTH": "width of the pictures in pixels (default 959; Carvana's is 1918); the height is two thirds of it",
    "ONLY": "render: only make the data; score: only score the submission; otherwise the whole path",
    "OVERWRITE": "1: render the data again",
}


# A recipe -> the layout that it is made for, and what is laid over it to be done in minutes
RECIPES = {
    **dict.fromkeys(("nails", "nails_kornia", "nails_tf", "scratch", "pretrained"), ("folders", "quick")),
    "carvana_fp16": ("carvana", "quick,quick_carvana"),
    "ui_overfit": ("ui", "quick,quick_unet"),
}
# What a user of that layout would type too: a dialect, where the layout has none, and what the data need
ALSO = {
    **{name: ["DIALECT=hubmap"] for name in ("folders", "split", "ui", "table")},
    **{name: ["DIALECT=uwmgi"] for name in ("classmap", "palette", "colours")},
    "class_files": ["DIALECT=uwmgi", "GROUP=(patient[0-9]+)_"],
    "rle_classes": ["GROUP=(case[0-9]+)_"],
    "slices": ["DIALECT=hubmap"],
    "near_infrared": ["DIALECT=uwmgi", "IN_CHANNELS=4"],
}


def car_name(seed: int, number: int) -> str:
    """Twelve hexadecimal digits, as Carvana's cars are called."""
    return np.random.default_rng([seed, number, 7]).bytes(6).hex()


def _render_one(job: tuple[int, int, int, int, int, str]) -> tuple[str, str]:
    """Render one picture with its mask into a folder; returns (file name, run lengths)."""
    from PIL import Image

    import cars
    import studio

    seed, number, view, height, width, folder = job
    picture, mask = studio.render(cars.make_car(seed, number), view, height, width, seed)
    name = f"{car_name(seed, number)}_{view:02d}"
    train = "train_hq" in folder
    Image.fromarray(picture).save(Path(folder, f"{name}.jpg"), quality=92)
    if train:
        _palette(mask).save(Path(folder).with_name("train_masks") / f"{name}_mask.gif")
    return f"{name}.jpg", rle.encode(mask, "C")


def _palette(mask: np.ndarray) -> Any:
    """A mask as Carvana's GIFs have it: palette indices 0 (black) and 1 (white)."""
    from PIL import Image

    image = Image.fromarray(mask).convert("P")
    image.putpalette([0, 0, 0, 255, 255, 255])
    return image


def render_data(root: Path, seed: int, cars: int, test_cars: int, width: int) -> None:
    """Render the whole data set beside `root` and rename it when whole."""
    height, temporary = width * 2 // 3, root.with_name(f".{root.name}.{os.getpid()}")
    for folder in ("train_hq", "train_masks", "test_hq", ANSWERS):
        (temporary / folder).mkdir(parents=True)
    jobs = [(seed, number, view, height, width, str(temporary / ("train_hq" if number < cars else "test_hq")))
            for number in range(cars + test_cars) for view in range(1, 17)]  # fmt: skip
    try:
        with ProcessPoolExecutor(threads.CORES, mp_context=get_context("forkserver")) as pool:
            rows = list(console.track(pool.map(_render_one, jobs, chunksize=4), len(jobs), "rendering"))
        train, test = rows[: cars * 16], rows[cars * 16 :]
        write_table(temporary / "train_masks.csv", train)
        write_table(temporary / ANSWERS / "test_masks.csv", test)
        answers = {f"test_hq/{name}": f"rle:test_masks.csv#{name}" for name, _ in test}
        write_table(temporary / "sample_submission.csv", sorted((name, "1 1") for name, _ in test))
        about = {"layout": "carvana", "seed": seed, "cars": cars, "test_cars": test_cars, "width": width}
        counts = {"count": len(train), "test_count": len(test)}
        write_json(temporary / DONE, {**about, **counts, "answers": answers})
        if root.exists():
            shutil.rmtree(root)
        os.replace(temporary, root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_table(path: Path, rows: list[tuple[str, str]]) -> None:
    """A CSV of img,rle_mask."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(rle.DIALECTS["carvana"].columns)
        writer.writerows(rows)


def score(settings: "Settings") -> float:
    """The submission's score on the hidden answers: the mean over images and classes of Dice, 1 where both are empty.

    Decodes SUBMISSION as the competition would. Raises UserError where it, or the demo's answers, are not there.
    """
    from prediction.inference_job import choose_dialect
    from prediction.submission_file import image_ids, read_masks

    root, path = Path(settings.INPUT), Path(settings.SUBMISSION)
    names = read_json(root / DONE, "Only the demo's own data can be scored: make demo", {"answers": dict})["answers"]
    if not path.is_file():
        raise UserError(f"{path}: no such file. Write it first: make submission")
    spec, dialect = dataspec.read(Path(settings.TRAIN_FOLDS).with_suffix(".json")), choose_dialect(settings)
    shapes, truths = {}, {}
    for image_id, image in image_ids(list(names), dialect).items():
        shapes[image_id] = images.read_size(root / image)
        planes = spec.class_planes(spec.read_mask(root / ANSWERS, names[image], shapes[image_id], image=image))
        for name, plane in zip(spec.scored_names if dialect.has_classes else ("",), planes, strict=True):
            truths[image_id, name] = plane
    ours, dices = dict(read_masks(path, dialect, lambda key: shapes[key[0]])), []
    for key, truth in truths.items():
        if key not in ours:
            raise UserError(f"{path} has no row for {' '.join(key)}.")
        counts = overlap.count(ours[key], truth)
        dices.append(float(overlap.scores(counts["tp"], counts["fp"], counts["fn"])["dice"]))
    return float(np.mean(dices))


def whole_path(settings: "Settings", layout: str, forwarded: list[str]) -> None:
    """Folds, training, scoring, inference, submission and its score on the hidden answers."""
    import folds
    import inference
    import submission
    import tester
    import train
    from prediction import inference_job

    start, run = time.monotonic(), run_folders.run_folder(settings.LOGS, settings.EXPERIMENT, "0", settings.SEED)
    table = [f"TABLE={settings.INPUT}/my.csv"] if layout == "table" else []
    console.step("[1/6] make folds", folds.main, [*forwarded, *table])
    console.step("[2/6] make train", train.main, ["FOLD=0", *forwarded, "OVERWRITE=1"])
    console.step("[3/6] make tester", tester.main, ["FOLD=0", *forwarded])
    if settings.OVERFIT:
        print(f"""
The demo took {(time.monotonic() - start) / 60:.1f} minutes; a network that learnt its images by heart submits nothing.
Look at:
  {run / "steps.gif"}
  {run / "val" / "worst.png"}""")
        return
    console.step("[4/6] make inference", inference.main, ["FOLD=0", *forwarded])
    console.step("[5/6] make submission", submission.main, ["FOLD=0", *forwarded])
    print("\n[6/6] the submission against the demo's own answers", flush=True)
    leaderboard = score(settings)
    summary = read_json(run / "val" / "summary.json", "")
    predictions = inference_job.picture_of(inference_job.prediction_folder(settings, "0"))
    dice = {name: summary[name]["image"]["dice"] for name in ("model", "constant", "ceiling")}
    height, width = settings.IMAGE_SIZE
    typed = " ".join(console.quoted(argument) for argument in forwarded)
    print(f"""
The demo took {(time.monotonic() - start) / 60:.1f} minutes. Mean Dice:
  {dice["model"]:.4f}  fold 0, {summary["images"]} held-out images that the network never saw
  {leaderboard:.4f}  the submission, on the hidden answers of the test images
  {dice["constant"]:.4f}  a constant mask that ignores the image
  {dice["ceiling"]:.4f}  the true masks, shrunk to {height} x {width} px and enlarged again
Look at:
  {run / "steps.gif"}
  {run / "val" / "worst.png"}
  {predictions}
  {Path(settings.TRAIN_FOLDS).with_name("folds.png")}
Type next:
  make cv {typed}    the other folds, then mean and spread
  make samples {typed}    what the network sees
  make folds DATASET=name    your own data, from input/name/""")


def whole_number(flags: "Flags", name: str, default: int, low: int) -> int:
    text = getattr(flags, name) or str(default)
    if not text.isdecimal() or int(text) < low:
        raise UserError(f"{name}={text}: expected a whole number of at least {low}.")
    return int(text)


def wanted_data(flags: "Flags") -> dict[str, Any]:
    """What the flags ask for, as it is kept beside the data. Raises UserError for flags that do not fit."""
    if (flags.LAYOUT or "carvana") == "carvana":
        if flags.COUNT:
            raise UserError("COUNT is for the other layouts; Carvana's has CARS and TEST_CARS.")
        return {
            "layout": "carvana",
            "seed": 42,
            "cars": whole_number(flags, "CARS", 20, 2),
            "test_cars": whole_number(flags, "TEST_CARS", 5, 1),
            "width": whole_number(flags, "WIDTH", 959, 48),
        }
    if flags.LAYOUT not in scene_layouts.LAYOUTS:
        known = ["carvana", *scene_layouts.LAYOUTS]
        raise UserError(f"LAYOUT={flags.LAYOUT} is none of: {', '.join(known)}.{nearest(flags.LAYOUT, known)}")
    for name in ("CARS", "TEST_CARS", "WIDTH"):
        if getattr(flags, name):
            raise UserError(f"{name} is for Carvana's layout; LAYOUT={flags.LAYOUT} has COUNT.")
    return {"layout": flags.LAYOUT, "seed": 42, "count": whole_number(flags, "COUNT", scene_layouts.COUNT, 8)}


def render(root: Path, wanted: dict[str, Any], overwrite: bool) -> None:
    """Render the wanted data below `root`, unless they are there. Raises UserError where other data lie there."""
    if root.exists() and not (root / DONE).is_file():
        raise UserError(f"{root} holds data that are not the demo's; nothing was written. Choose another DATASET=name.")
    have = read_json(root / DONE, f"Remove {root} and render it again.") if root.exists() else {}
    if not overwrite and {key: have.get(key) for key in wanted} == wanted:
        print(f"{root} is there already, {have['count'] + have['test_count']} pictures.")
        return
    start = time.monotonic()
    if wanted["layout"] == "carvana":
        render_data(root, wanted["seed"], wanted["cars"], wanted["test_cars"], wanted["width"])
    else:
        scene_layouts.write(wanted["layout"], root, wanted["seed"], wanted["count"])
    done = read_json(root / DONE, "")
    print(f"Rendered {done['count'] + done['test_count']} pictures in {time.monotonic() - start:.0f} s -> {root}")


def _without(given: list[str], names: Sequence[str]) -> list[str]:
    """The arguments without these flags, written FLAG=value, --flag=value or --flag value."""
    kept, value_follows = [], False
    for text in given:
        own = text.partition("=")[0].lstrip("-").upper() in names
        if not own and not value_follows:
            kept.append(text)
        value_follows = own and text.startswith("--") and "=" not in text
    return kept


@command
def main(argv: list[str] | None = None) -> None:
    given = list(sys.argv[1:] if argv is None else argv)
    _, flags = settings_module.command_line(given, __doc__, FLAGS)
    made_for, over = RECIPES.get(flags.RECIPE, ("carvana", ""))
    flags.LAYOUT = flags.LAYOUT or made_for
    wanted = wanted_data(flags)
    layout, argv = wanted["layout"], _without(given, tuple(FLAGS))
    if over:
        argv = [f"RECIPE={flags.RECIPE},{over}", *_without(argv, ("RECIPE",))]
    elif not flags.RECIPE:
        argv.insert(0, "RECIPE=demo" if layout == "carvana" else "RECIPE=demo,layouts")
    for text in [] if layout == "carvana" else [f"DATASET=demo_{layout}", "N_FOLDS=4", *ALSO.get(layout, [])]:
        if not any(argument.startswith(text.partition("=")[0] + "=") for argument in argv):
            argv.append(text)
    settings, _ = settings_module.command_line(argv, __doc__, FLAGS)
    if flags.ONLY not in ("", "render", "score"):
        raise UserError(f"ONLY={flags.ONLY}: expected render or score.")
    if flags.ONLY == "score":
        print(f"{score(settings):.4f} mean Dice of {settings.SUBMISSION} on the hidden answers")
        return
    render(Path(settings.INPUT), wanted, is_on(flags.OVERWRITE))
    if flags.ONLY != "render":
        whole_path(settings, layout, argv)


if __name__ == "__main__":
    sys.exit(main())
