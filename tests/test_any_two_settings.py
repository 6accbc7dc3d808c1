"""Any two values of any two constants, from make folds to the submission: it finishes, or is refused in a sentence.

Where a row is refused, the constants that the sentence names go back to their default, so that the rest of the row is
tried too, until it finishes.
"""

import contextlib
import io
import re
import shutil
import traceback
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import covering
import folds
import inference
import model_dispatcher
import settings
import submission
import tester
import train
from conftest import write_mask
from metrics import measures
from modeling.losses import loss_sum
from tools import constants

NETWORKS = ("smp_linknet_tu-test_resnet", "smp_unet_tu-test_maxvit", "unetify_test_convnext")
# of constants without choices of their own: values that make a difference, the default among them or close to it
VALUES: dict[str, tuple[str, ...]] = {
    "DATASET": ("binary", "classes", "planes"),
    "N_FOLDS": ("2", "3"),
    "FOLDS_SEED": ("42", "1"),
    "GROUP": ("auto", "none", r"p(\d)"),
    "IGNORE": ("auto", "255", "-1"),
    "MASK_THRESHOLD": ("0", "100"),
    "CLASSES": ("", "part=class1+class2"),
    "IN_CHANNELS": ("0", "1", "3"),
    "MAX_PIXELS": ("100000000", "2000"),
    "LIMIT": ("0", "1"),
    "MODEL_NAME": ("unet", *NETWORKS),
    "MAX_FEATURES": ("16", "32"),
    "ENCODER_WEIGHTS": ("none", "imagenet", "encoder.safetensors"),
    "INIT": ("", "start", "start:42"),
    "IMAGE_SIZE": ("32,64", "40", "64"),
    "MODEL_MEAN": ("0.485,0.456,0.406", "0.5"),
    "MODEL_STD": ("0.229,0.224,0.225", "0.5"),
    "EPOCHS": ("1", "2"),
    "TRAIN_BATCH_SIZE": ("4", "1", "3"),
    "VALID_BATCH_SIZE": ("4", "1"),
    "ACCUMULATE": ("1", "2"),
    "SYNC_BATCHNORM": ("1", "0"),
    "LOSS": (
        "ce + dice", "bce + lovasz", "topk + focal", "distance_ce + boundary", "squared_dice + hausdorff",
        "generalized_dice + mcc", "generalized_dice_v2 + penalty_dice", "iou + tversky", "focal_tversky + asymmetric",
        "sensitivity_specificity + exp_log", "symmetric_lovasz",
    ),
    "LR": ("1e-3", "0"),
    "ENCODER_LR": ("1", "0.1", "0"),
    "MOMENTUM": ("0.9", "0"),
    "WEIGHT_DECAY": ("1e-2", "0"),
    "WARMUP": ("0.1", "0", "0.9"),
    "CYCLES": ("3", "1"),
    "PATIENCE": ("3", "0"),
    "GRADIENT_CLIP": ("1", "0"),
    "FREEZE_ENCODER": ("0", "1"),
    "EMA": ("0.99", "0"),
    "DEEP_SUPERVISION": ("0", "1", "2"),
    "CROP": ("0,0", "32,32", "24,40"),
    "MIX_ALPHA": ("0.4", "5"),
    "BALANCE": ("none", "strata", "area0=2"),
    "FOREGROUND": ("0", "0.5", "1"),
    "OVERFIT": ("0", "2"),
    "SEED": ("42", "0"),
    "EARLY_STOPPING": ("0", "1"),
    "METRIC": ("dice", "iou", "dsb2018", "hd95", "boundary_iou", "contrails"),
    "MEASURES": ("", ", ".join(measures.NAMES)),
    "TTA": ("none", "flips", "d4", "scales", "d4+scales"),
    "TILE": ("0", "32", "64"),
    "OVERLAP": ("0.25", "0"),
    "THRESHOLD": ("0.5", "0.3", "1"),
    "MIN_AREA": ("0", "5"),
    "FILL_HOLES": ("0", "1"),
    "KEEP_LARGEST": ("0", "1"),
    "SPLIT": ("0", "4"),
    "TOP_THRESHOLD": ("0", "0.9"),
    "TOP_AREA": ("0", "10"),
    "PRECISION": ("32", "bf16"),  # of the machine's section; 16 is refused on a CPU
}  # fmt: skip
ALONE = {  # constants that are the same in all rows, and why
    "TRAIN_PATH": "a path: tests/data",
    "MASK_PATH": "a path: tests/data",
    "TEST_PATH": "a path: tests/prediction",
    "ANNOTATOR": "a part of a name: tests/data",
    "TRAIN_FOLDS": "a path: each row has its own",
    "EXPERIMENT": "a name: each row has its own",
}
TRIED = ("data", "network", "training", "scoring")
USUAL = {"DATASET": "binary", "MODEL_NAME": "unet", "ENCODER_WEIGHTS": "none", "IMAGE_SIZE": "32,64", "EPOCHS": "1",
         "TRAIN_BATCH_SIZE": "4", "MAX_FEATURES": "16", "N_FOLDS": "2", "DIALECT": "uwmgi"}  # fmt: skip
MACHINE = ["WORKERS=0", "STEP_IMAGES=0", "DEVICE=cpu", "LOGGER=none", "WEIGHTS=weights"]
STEPS = (folds.main, train.main, tester.main, inference.main, submission.main)
QUICK = 10  # rows of make test: what 40 s hold; all others are in make test-slow


def every_value() -> dict[str, tuple[str, ...]]:
    """The values of each constant that is tried: its own choices, or those above."""
    names = [name for section in TRIED for name in settings.SECTIONS[section] if name not in ALONE]
    return {name: constants.choices(settings.HINTS[name]) or VALUES[name] for name in names} | {
        "PRECISION": VALUES["PRECISION"]
    }


def test_every_constant_has_values_or_a_reason_to_have_none():
    """A new constant, choice or loss cannot be forgotten."""
    for section in TRIED:
        for name in settings.SECTIONS[section]:
            given = [bool(constants.choices(settings.HINTS[name])), name in VALUES, name in ALONE]
            assert sum(given) == 1, name
    assert set(VALUES) | set(ALONE) <= {name for names in settings.SECTIONS.values() for name in names}
    for name, values in every_value().items():
        for value in values:
            settings.Settings.value_of(name, value)
        assert len(set(values)) == len(values) > 1, name
    assert set(re.findall(r"\w+", " ".join(VALUES["LOSS"]))) == set(loss_sum.LOSSES)


def test_every_pair_of_values_is_in_a_row():
    values = {"A": ("1", "2", "3"), "B": ("x", "y"), "C": ("u", "v"), "D": ("p", "q", "r")}
    made = covering.rows(values)
    pairs = {(one, row[one], other, row[other]) for row in made for one in values for other in values if one < other}
    assert len(pairs) == sum(len(values[a]) * len(values[b]) for a in values for b in values if a < b)
    assert 9 <= len(made) <= 13


def scene(seed: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """A picture (40, 48, 3) of two discs, and where they are."""
    random, (y, x) = np.random.default_rng(seed), np.mgrid[:40, :48]
    discs = [
        (y - random.integers(10, 30)) ** 2 + (x - random.integers(10, 38)) ** 2 <= (5 + seed % 4) ** 2 for _ in "ab"
    ]
    noise = random.integers(0, 60, (40, 48, 3))
    picture = np.where(discs[1][..., None], noise + (0, 150, 0), np.where(discs[0][..., None], noise + 150, noise))
    return picture.astype(np.uint8), discs


def write_data() -> None:
    """Three data sets of 8 images and 2 to predict: one class, one class a pixel, classes that overlap.

    `before` has 4 images with one class, of other scenes.
    """
    for name in (*VALUES["DATASET"], "before"):
        count, root = 4 if name == "before" else 8, Path("input", name)
        for number in range(count + 2):
            picture, discs = scene(number + 20 * (name == "before"))
            path = root / ("images" if number < count else "test/images") / f"p{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
            if number < count:
                write_masks(root / "masks", path.name, discs, name)


def write_masks(folder: Path, name: str, discs: list[np.ndarray], kind: str) -> None:
    if kind == "planes":
        for one, disc in zip("ab", discs, strict=True):
            write_mask(folder / one / name, disc)
        return
    labels = np.where(discs[1], 2, np.where(discs[0], 1, 0)).astype(np.uint8)
    labels[:, 46:] = 255
    folder.mkdir(parents=True, exist_ok=True)
    empty = name == "p3.png"
    Image.fromarray(labels if kind == "classes" else (discs[0] & (not empty)) * np.uint8(255)).save(folder / name)


def write_weights() -> None:
    """A file of random weights for each of the networks, as make weights packs it, and one to be named."""
    from modeling.segmenter import save_network
    from training import weights_origin

    for name in NETWORKS:
        _, encoder = model_dispatcher.parse(name)
        network = model_dispatcher.build(name, size=(64, 64)).body.encoder
        save_network(network, Path(f"weights/{encoder}.safetensors"), {weights_origin.MARK: weights_origin.IMAGENET})
    shutil.copy("weights/tu-test_resnet.safetensors", "encoder.safetensors")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The data, packed weights, and an experiment to begin as, which has seen other images with one class."""
    folder = tmp_path_factory.mktemp("pairs")
    with contextlib.chdir(folder):
        write_data()
        Path("weights").mkdir()
        write_weights()
        start = [f"{name}={value}" for name, value in USUAL.items()]
        start += [*MACHINE, "EXPERIMENT=start", "OUTPUT=start", "DATASET=before"]
        assert folds.main(start) == 0 and train.main([*start, "FOLD=full"]) == 0
    return folder


def run(row: dict[str, str], number: int, first: int) -> tuple[str, str, int]:
    """Walk the path from step `first` on; returns how it ended, what was said, and at which step.

    It ends as done, unlearned, refused or with a wrong code. Raises what the code raises.
    """
    own = [f"{name}={value}" for name, value in row.items()]
    own += [*MACHINE, f"EXPERIMENT=row{number}", f"OUTPUT=output/row{number}"]
    for step, main in enumerate(STEPS[first:], first):
        said = io.StringIO()
        argv = [*own, "OVERWRITE=1"] if main in (folds.main, train.main) else own
        with contextlib.redirect_stderr(said):
            code = main(argv if main is folds.main else [*argv, "FOLD=0"])
        if code:
            word = "unlearned" if code == 1 and row["OVERFIT"] != "0" else "refused" if code == 2 else "wrong code"
            return word, f"{main.__module__}: {said.getvalue().strip()}", step
    return "done", "", len(STEPS)


def usual(name: str) -> str:
    default = settings.DEFAULTS[name]
    return USUAL.get(name) or (",".join(map(str, default)) if isinstance(default, tuple) else str(default))


def walk(row: dict[str, str], number: int) -> tuple[str, list[str], str]:
    """Run a row, and again without what was refused; returns how it ended, what was refused, and what was said last."""
    row, refused, first = dict(row), [], 0
    while True:
        try:
            ended, said, step = run(row, number, first)
        except BaseException:
            return "traceback", refused, traceback.format_exc()[-3000:] + f"\n{row}"
        if ended == "unlearned":  # by two images in an epoch or two: OVERFIT's own answer
            refused.append(f"OVERFIT=2: {said.splitlines()[0][:200]}")
            row["OVERFIT"], first = "0", 1
            continue
        if ended != "refused":
            return ended, refused, said
        if "Traceback" in said or ": error: " not in said:
            return "no sentence", refused, f"{said}\n{row}"
        named = [name for name in _named(said, row) if row[name] != usual(name)]
        if not named:
            return "refused without a constant's name", refused, f"{said}\n{row}"
        refused.append(f"{named[0]}={row[named[0]]}: {said.splitlines()[0][:200]}")
        row[named[0]] = usual(named[0])
        # runs of one experiment may differ in scoring, so what was trained stays
        first = 0 if named[0] in settings.SECTIONS["data"] else step if named[0] in settings.SECTIONS["scoring"] else 1


def _named(said: str, row: dict[str, str]) -> list[str]:
    """The constants that a sentence names, then those whose file it names, then what a data set's files may refute."""
    words = re.findall(r"[A-Z]{2}[A-Z_]+", said)
    files = ["ENCODER_WEIGHTS"] if row["ENCODER_WEIGHTS"] in said else []
    return [*(name for name in dict.fromkeys(words) if name in row), *files, "TASK", "LAYOUT", "IGNORE"]


def report(results: list[tuple[str, list[str], str]]) -> None:
    """Print how the rows ended, and what was refused how often; fail where a row ended otherwise."""
    ends, reasons = Counter(end for end, _, _ in results), Counter()
    for _, refused, _ in results:
        reasons.update(line.partition(":")[0] for line in refused)
    clean = sum(not refused and end == "done" for end, refused, _ in results)
    print(f"\n{len(results)} rows: {dict(ends)}; {clean} at once, the others without what was refused:")
    for line, count in reasons.most_common():
        example = next(text for _, refused, _ in results for text in refused if text.partition(":")[0] == line)
        print(f"  {count:3}  {example}")
    wrong = [f"row {number}, {end}: {said}" for number, (end, _, said) in enumerate(results)
             if end != "done"]  # fmt: skip
    assert not wrong, "\n\n".join(wrong)


def test_any_two_settings_finish_or_are_refused_in_a_sentence(place):
    with contextlib.chdir(place):
        report([walk(row, number) for number, row in enumerate(covering.rows(every_value())[:QUICK])])


@pytest.mark.slow
def test_all_rows(place):
    with contextlib.chdir(place):
        made = covering.rows(every_value())
        report([walk(row, number) for number, row in enumerate(made[QUICK:], QUICK)])
