"""make demo: render a data set in Carvana's layout, then walk the whole path on it, from folds to a scored submission.

Carvana's pictures may not be passed on, so these are our own: cars on a turntable, 16 views each (studio.py). The
answers of the test cars lie in input/demo/.answers, where only this script looks.
"""

import csv
import os
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

import console
import metrics
import rle
import runs
import settings as settings_module
from errors import UserError, command

FLAGS = {
    "CARS": "cars to train on, 16 pictures each (default 20)",
    "TEST_CARS": "cars of the test set (default 5)",
    "WIDTH": "width of the pictures in pixels (default 959; Carvana's is 1918); the height is two thirds of it",
    "ONLY": "render: only make the data; score: only score the submission; otherwise the whole path",
    "OVERWRITE": "1: render the data again",
}
DONE, ANSWERS = "demo.json", ".answers/test_masks.csv"


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
    for folder in ("train_hq", "train_masks", "test_hq", ".answers"):
        (temporary / folder).mkdir(parents=True)
    jobs = [(seed, number, view, height, width, str(temporary / ("train_hq" if number < cars else "test_hq")))
            for number in range(cars + test_cars) for view in range(1, 17)]  # fmt: skip
    try:
        with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("forkserver")) as pool:
            rows = list(console.track(pool.map(_render_one, jobs, chunksize=4), len(jobs), "rendering"))
        train, test = rows[: cars * 16], rows[cars * 16 :]
        write_table(temporary / "train_masks.csv", train)
        write_table(temporary / ANSWERS, test)
        write_table(temporary / "sample_submission.csv", sorted((name, "1 1") for name, _ in test))
        runs.write_json(
            temporary / DONE, {"seed": seed, "cars": cars, "test_cars": test_cars, "width": width, "height": height}
        )
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


def score(submission: Path, root: Path) -> float:
    """Carvana's score of a submission on the hidden answers: the mean over images of Dice, 1 where both are empty."""
    from submission import read_masks

    about = runs.read_json(
        root / DONE, "Only the demo's own data can be scored: make demo", {"height": int, "width": int}
    )
    if not submission.is_file():
        raise UserError(f"{submission}: no such file. Write it first: make submission")
    shape, dialect = (about["height"], about["width"]), rle.DIALECTS["carvana"]

    def masks(path: Path) -> Iterator[tuple[str, np.ndarray]]:
        return read_masks(path, dialect, lambda _: shape)

    ours, dices = dict(masks(submission)), []
    for image_id, truth in masks(root / ANSWERS):
        if image_id not in ours:
            raise UserError(f"{submission} has no row for {image_id}.")
        counts = metrics.count(ours[image_id], truth)
        dices.append(float(metrics.scores(counts["tp"], counts["fp"], counts["fn"])["dice"]))
    return float(np.mean(dices))


def whole_path(settings: Any, forwarded: list[str]) -> None:
    """Folds, training, scoring, inference, submission and its score on the hidden answers."""
    import folds
    import inference
    import submission
    import tester
    import train

    start = time.monotonic()
    console.step("[1/6] make folds", folds.main, forwarded)
    console.step("[2/6] make train", train.main, ["FOLD=0", *forwarded, "OVERWRITE=1"])
    console.step("[3/6] make tester", tester.main, ["FOLD=0", *forwarded])
    console.step("[4/6] make inference", inference.main, ["FOLD=0", *forwarded])
    console.step("[5/6] make submission", submission.main, ["FOLD=0", *forwarded])
    print("\n[6/6] the submission against the demo's own answers", flush=True)
    leaderboard = score(Path(settings.SUBMISSION), Path(settings.INPUT))
    run = runs.run_folder(settings.LOGS, settings.EXPERIMENT, "0", settings.SEED)
    summary = runs.read_json(run / "val" / "summary.json", "")
    predictions = inference.picture_of(inference.prediction_folder(settings, "0"))
    dice = {name: summary[name]["image"]["dice"] for name in ("model", "constant", "ceiling")}
    height, width = settings.IMAGE_SIZE
    print(f"""
The demo took {(time.monotonic() - start) / 60:.1f} minutes. Mean Dice:
  {dice["model"]:.4f}  fold 0, {summary["images"]} held-out images of cars that the network never saw
  {leaderboard:.4f}  the submission, on the hidden answers of the test cars
  {dice["constant"]:.4f}  a constant mask that ignores the image
  {dice["ceiling"]:.4f}  the true masks, shrunk to {height} x {width} px and enlarged again
Look at:
  {run / "val" / "worst.png"}
  {predictions}
  {Path(settings.TRAIN_FOLDS).with_name("folds.png")}
Type next:
  make cv {" ".join(forwarded)}    the other folds, then mean and spread
  make samples {" ".join(forwarded)}    what the network sees
  make folds DATASET=name    your own data, from input/name/""")


def whole_number(flags: Any, name: str, default: int, low: int) -> int:
    text = getattr(flags, name) or str(default)
    if not text.isdecimal() or int(text) < low:
        raise UserError(f"{name}={text}: expected a whole number of at least {low}.")
    return int(text)


@command
def main(argv: list[str] | None = None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    if not any(argument.startswith(("RECIPE=", "--recipe", "-h", "--help")) for argument in argv):
        argv.insert(0, "RECIPE=demo")
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    if flags.ONLY not in ("", "render", "score"):
        raise UserError(f"ONLY={flags.ONLY}: expected render or score.")
    root = Path(settings.INPUT)
    wanted = {
        "cars": whole_number(flags, "CARS", 20, 2),
        "test_cars": whole_number(flags, "TEST_CARS", 5, 1),
        "width": whole_number(flags, "WIDTH", 959, 48),
    }
    if flags.ONLY == "score":
        print(f"{score(Path(settings.SUBMISSION), root):.4f} mean Dice of {settings.SUBMISSION} on the hidden answers")
        return
    if root.exists() and not (root / DONE).is_file():
        raise UserError(f"{root} holds data that are not the demo's; nothing was written. Choose another DATASET=name.")
    have = runs.read_json(root / DONE, f"Remove {root} and render it again.") if root.exists() else {}
    if (
        settings_module.flag_is_on(flags.OVERWRITE)
        or {key: have.get(key) for key in wanted} != wanted
        or have.get("seed") != 42
    ):
        start = time.monotonic()
        render_data(root, 42, wanted["cars"], wanted["test_cars"], wanted["width"])
        print(
            f"Rendered {wanted['cars'] + wanted['test_cars']} cars, 16 views each, "
            f"in {time.monotonic() - start:.0f} s -> {root}"
        )
    else:
        print(f"{root} is there already, {have['cars'] + have['test_cars']} cars of 16 views each.")
    if flags.ONLY != "render":
        whole_path(settings, [argument for argument in argv if argument.partition("=")[0] not in FLAGS])


if __name__ == "__main__":
    sys.exit(main())
