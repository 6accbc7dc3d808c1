"""make demo: render a data set, then walk the whole path on it, from folds to a scored submission.

Carvana's pictures may not be passed on, so these are our own: cars on a turntable, 16 views each, in Carvana's layout
(scenes/carvana.py). LAYOUT renders one of the other layouts instead, small (scenes/rendered_layouts.py). The answers of
the test images lie in input/demo/.answers, where only this script looks.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import settings as settings_module
from data import dataspec, splits
from formats import images
from metrics import overlap
from scenes.render import render, wanted_data
from scenes.rendered_layouts import LAYOUTS
from scenes.writer import ANSWERS, DONE
from settings import Settings
from tools import console, run_folders
from tools.errors import UserError, command
from tools.files import read_json
from tools.flags import is_on, run_action

FLAGS = {
    "LAYOUT": f"carvana (default) or one of: {', '.join(LAYOUTS)}",
    "COUNT": "training images of the other layouts (default: about 60)",
    "CARS": "Carvana's layout: cars to train on, 16 pictures each (default 20)",
    "TEST_CARS": "cars of the test set (default 5)",
    "WIDTH": "width of the pictures in pixels (default 959; Carvana's is 1918); the height is two thirds of it",
    "ONLY": "render: only make the data; score: only score the submission; otherwise the whole path",
    "OVERWRITE": "1: render the data again",
}
SMOKE_FLAGS = {"FOLD": "the fold to try (default 0)"}

# A recipe -> the layout that it is made for, and what is laid over it to be done in minutes
RECIPES = {
    **dict.fromkeys(("nails", "nails_kornia", "nails_tf", "scratch", "pretrained"), ("folders", "quick")),
    "carvana_fp16": ("carvana", "quick,quick_carvana"),
    "ui_overfit": ("ui", "quick,quick_unet"),
}
# What a user of that layout would type too: a dialect, where the layout has none, and what the data need
ALSO = {
    **{name: ["DIALECT=hubmap"] for name in ("folders", "split", "ui", "table", "slices")},
    **{name: ["DIALECT=uwmgi"] for name in ("classmap", "palette", "colours", "coco", "yolo", "labelme")},
    "class_files": ["DIALECT=uwmgi", "GROUP=(patient[0-9]+)_"],
    "rle_classes": ["GROUP=(case[0-9]+)_"],
    "near_infrared": ["DIALECT=uwmgi", "IN_CHANNELS=4"],
}


def score(settings: Settings) -> float:
    """Score the submission on the hidden answers: the mean over images and classes of Dice, 1 where both are empty.

    Decodes SUBMISSION as the competition would. Raises UserError where it, or the demo's answers, are not there.
    """
    from prediction.inference_job import choose_dialect
    from prediction.submission_file import image_ids, read_masks

    root, path = Path(settings.INPUT), Path(settings.SUBMISSION)
    cure = "Only the demo's own data can be scored: make demo"
    names = read_json(root / DONE, cure, {"answers": dict})["answers"]
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


def whole_path(settings: Settings, layout: str, forwarded: list[str]) -> None:
    """Make folds, train, score, predict, write the submission and score it on the hidden answers."""
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
The demo took {(time.monotonic() - start) / 60:.1f} minutes; a network that learned its images by heart submits nothing.
Look at:
  {run / "steps.gif"}
  {run / "val" / "worst.png"}""")
        return
    console.step("[4/6] make inference", inference.main, ["FOLD=0", *forwarded])
    console.step("[5/6] make submission", submission.main, ["FOLD=0", *forwarded])
    print("\n[6/6] the submission against the demo's own answers", flush=True)
    leaderboard = score(settings)
    print(f"\nThe demo took {(time.monotonic() - start) / 60:.1f} minutes. Mean Dice:")
    _say_scores(settings, run, leaderboard)
    print(f"""Look at:
  {run / "steps.gif"}
  {run / "val" / "worst.png"}
  {inference_job.picture_of(inference_job.prediction_folder(settings, "0"))}
  {Path(settings.TRAIN_FOLDS).with_name("folds.png")}""")
    typed = " ".join(console.quoted(argument) for argument in forwarded)
    print(f"""Type next:
  make cv {typed}    the other folds, then mean and spread
  make samples {typed}    what the network sees
  make folds DATASET=name    your own data, from input/name/""")


def _say_scores(settings: Settings, run: Path, leaderboard: float) -> None:
    summary = read_json(run / "val" / "summary.json", "")
    dice = {name: summary[name]["image"]["dice"] for name in ("model", "constant", "ceiling")}
    height, width = settings.IMAGE_SIZE
    print(f"""\
  {dice["model"]:.4f}  fold 0, {summary["images"]} held-out images that the network never saw
  {leaderboard:.4f}  the submission, on the hidden answers of the test images
  {dice["constant"]:.4f}  a constant mask that ignores the image
  {dice["ceiling"]:.4f}  the true masks, shrunk to {height} x {width} px and enlarged again""")


def _without(given: list[str], names: Sequence[str]) -> list[str]:
    """Leave out the arguments of these flags, written FLAG=value, --flag=value or --flag value."""
    kept, value_follows = [], False
    for text in given:
        own = text.partition("=")[0].lstrip("-").upper() in names
        if not own and not value_follows:
            kept.append(text)
        value_follows = own and text.startswith("--") and "=" not in text
    return kept


def _forwarded(given: list[str], recipe: str, layout: str, over: str) -> list[str]:
    """Add what the layout and a recipe's demo need to what the user typed, for each command of the path."""
    argv = _without(given, tuple(FLAGS))
    if over:
        argv = [f"RECIPE={recipe},{over}", *_without(argv, ("RECIPE",))]
    elif not recipe:
        argv.insert(0, "RECIPE=demo" if layout == "carvana" else "RECIPE=demo,layouts")
    for text in [] if layout == "carvana" else [f"DATASET=demo_{layout}", "N_FOLDS=4", *ALSO.get(layout, [])]:
        if not any(argument.startswith(text.partition("=")[0] + "=") for argument in argv):
            argv.append(text)
    return argv


@command
def demo(argv: list[str]) -> None:
    """Do what the module's docstring says."""
    given = list(argv)
    _, flags = settings_module.command_line(given, __doc__, FLAGS)
    made_for, over = RECIPES.get(flags.RECIPE, ("carvana", ""))
    flags.LAYOUT = flags.LAYOUT or made_for
    wanted = wanted_data(flags)
    argv = _forwarded(given, flags.RECIPE, flags.LAYOUT, over)
    settings, _ = settings_module.command_line(argv, __doc__, FLAGS)
    if flags.ONLY not in ("", "render", "score"):
        raise UserError(f"ONLY={flags.ONLY}: expected render or score.")
    if flags.ONLY == "score":
        print(f"{score(settings):.4f} mean Dice of {settings.SUBMISSION} on the hidden answers")
        return
    render(Path(settings.INPUT), flags.LAYOUT, wanted, is_on(flags.OVERWRITE))
    if flags.ONLY != "render":
        whole_path(settings, flags.LAYOUT, argv)


@command
def smoke(argv: list[str]) -> None:
    """make smoke: two batches of everything, from training to submission, in folders of its own: does it run at all?"""
    settings, flags = settings_module.command_line(argv, smoke.__doc__, SMOKE_FLAGS)
    for name in ("EXPERIMENT", "SUBMISSION", "LIMIT"):
        if any(argument.startswith(f"{name}=") for argument in argv):
            raise UserError(
                f"make smoke has an {name} of its own, so that nothing of yours is written over; leave it out."
            )
    splits.read(Path(settings.TRAIN_FOLDS))  # refuses before the imports where there is no table

    import inference
    import submission
    import tester
    import train

    fold = f"FOLD={flags.FOLD or 0}"
    recipes = ",".join(filter(None, [flags.RECIPE, "smoke"]))
    given = [argument for argument in argv if not argument.startswith(("FOLD=", "RECIPE="))]
    arguments = [fold, f"RECIPE={recipes}", *given]
    console.step("[1/4] make train", train.main, [*arguments, "OVERWRITE=1"])
    console.step("[2/4] make tester", tester.main, arguments)
    console.step("[3/4] make inference", inference.main, arguments)
    console.step("[4/4] make submission", submission.main, arguments)
    tried, _ = settings_module.command_line(arguments, smoke.__doc__, SMOKE_FLAGS)
    print(
        "\nEverything runs. The scores above mean nothing; "
        f"{tried.LOGS}/{tried.EXPERIMENT} and {Path(tried.SUBMISSION).parent} may be removed."
    )


def main(argv: list[str] | None = None) -> int:
    return run_action(argv, demo, smoke=smoke)


if __name__ == "__main__":
    sys.exit(main())
