"""The constants of config.py, one run's overrides laid over them, frozen. Only verbs load settings.

Precedence: config.py, then the recipes from left to right, then NAME=value of the command line.
"""

import argparse
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import config
from tools import constants, recipes
from tools.constants import Ending, Range
from tools.errors import UserError, listing, nearest
from tools.flags import Flags

OVERFITTED = "_overfit"  # OVERFIT's experiments are called so: scores of training images lie beside no other


@dataclass(frozen=True)
class Settings:
    """One run's constants, frozen; made by `load`. Names, order and comments are config.py's (a test compares them)."""

    # === machine: where things lie and what they run on; never changes a result on purpose
    INPUT: str  # the competition's files, as downloaded
    OUTPUT: str  # folds, cache, predictions, submission
    LOGS: str  # a folder for each experiment, in it one for each fold and seed
    WEIGHTS: str  # ImageNet weights that `make weights` packed for working offline
    DEVICE: Literal["auto", "cpu", "cuda", "mps"]  # auto | cpu | cuda | mps
    # of this computer, to train one fold together (DDP); TRAIN_BATCH_SIZE is divided among them
    DEVICES: Annotated[int, Range(1, 1024)]
    NODES: Annotated[int, Range(1, 4096)]  # computers with DEVICES each: start it by torchrun or srun on each
    # auto (16 on CUDA; a training on a CPU tries bf16; else 32) | 16 | bf16 | 32
    PRECISION: Literal["auto", "16", "bf16", "32"]
    # processes that load samples; -1: one a core, at most 8; 0: in the training process
    WORKERS: Annotated[int, Range(-1, 256)]
    # tensorboard | wandb (pip install wandb; WANDB_MODE=offline) | none; metrics.csv always
    LOGGER: Literal["tensorboard", "wandb", "none"]
    # held-out images drawn after each epoch, in steps/ and as steps.gif; 0: none
    STEP_IMAGES: Annotated[int, Range(0, 64)]
    # a training stops cleanly after this many, and RESUME=1 continues it; 0: no limit. Kaggle ends a kernel at 720
    MAX_MINUTES: Annotated[float, Range(0.0, 1e6)]
    # at most between checkpoints for RESUME=1, at an optimizer step; 0: after each epoch only
    CHECKPOINT_MINUTES: Annotated[float, Range(0.0, 1e6)]
    # "" | simple | advanced | pytorch: Lightning's report in the run folder, of the first device
    PROFILER: Literal["", "simple", "advanced", "pytorch"]
    SUBMISSION: Annotated[str, Ending(".csv")]

    # === data: which images, and how they are split
    DATASET: str  # a folder below input/
    # auto | carvana | instances | split | beside | folders | rle | coco | yolo | labelme | contrails | solved
    LAYOUT: Literal[
        "auto", "carvana", "instances", "split", "beside", "folders", "rle", "coco", "yolo", "labelme", "contrails",
        "solved"
    ]  # fmt: skip
    # "": where the layout keeps it (train_hq, ...) | a folder, or a pattern: 'input/x/*_RGB.tif'
    TRAIN_PATH: str
    # "": where the layout keeps it (train_masks, ...) | a folder, or a pattern: 'input/x/*_color.png'
    MASK_PATH: str
    ANNOTATOR: str  # where several people drew the masks: "" takes the first | a part of the name of another's: 2ndHO
    # images and masks without a partner: refuse | skip | empty (images without a mask show nothing)
    UNPAIRED: Literal["refuse", "skip", "empty"]
    TEST_PATH: str  # "": where the layout keeps it (test_hq, stage1_test, ...)
    TRAIN_FOLDS: Annotated[str, Ending(".csv")]
    N_FOLDS: Annotated[int, Range(2, 1000)]
    # of the split; SEED is the training's, so that seeds can be repeated on the same folds
    FOLDS_SEED: Annotated[int, Range(0, 2**32 - 1)]
    # auto | none | a regex with one (group) on the image's path | folder | folder:2 | gap:5 and gap:60s (numbers,
    # times in the name) | column:NAME of the table that TABLE= names
    GROUP: str
    # auto (as make folds finds it) | binary | multiclass (one class a pixel) | multilabel (classes overlap)
    TASK: Literal["auto", "binary", "multiclass", "multilabel"]
    # "": as they are | "vehicle=car+truck, road": merged, renamed, and what is not listed left out, by make folds
    CLASSES: str
    # the value of a class map that is not labeled: auto (255 where the masks show it) | a value | -1: none
    IGNORE: str
    # the lowest gray of a binary mask that is foreground; 0: as make folds finds it
    MASK_THRESHOLD: Annotated[int, Range(0, 65535)]
    MASK_CHANNEL: Literal["auto", "color", "alpha"]  # auto | color | alpha: where a mask with an alpha channel is drawn
    # 0: as make folds finds them (3; a stack's slices) | 1: gray | 3: RGB | n: all of a file's channels
    IN_CHANNELS: Annotated[int, Range(0, 1024)]
    MAX_PIXELS: Annotated[int, Range(1, 10**10)]  # an image whose header promises more is refused before it is decoded
    LIMIT: Annotated[int, Range(0, 10**9)]  # 0: all; n: only n batches of everything (make smoke)

    # === network: what is trained
    # smp_<architecture>_<encoder>: whatever smp can build, tu- encoders included | unet: the plain one | unetify_<timm
    # name> or unetify_tv-<torchvision name>: a U-Net's decoder around a backbone
    MODEL_NAME: str
    MAX_FEATURES: Annotated[int, Range(1, 8192)]  # of the plain unet, at its bottom
    ENCODER_WEIGHTS: str  # imagenet | none | a local .safetensors or .pth
    # "" | an experiment: fold k begins as fold k's model of it, as far as shapes allow, in place of ENCODER_WEIGHTS;
    # a:43 takes SEED=43's
    INIT: str
    # height, width of the network's input; IMAGE_SIZE=256 means a square
    IMAGE_SIZE: Annotated[tuple[int, int], Range(8, 20000)]
    # stretch | fit (keep the aspect, pad) | none (own size; a batch needs equal sizes)
    RESIZE: Literal["stretch", "fit", "none"]
    # auto (as the encoder's weights were trained; data for random ones) | data (constants for 8-bit RGB, else measured)
    # | measured (by make folds) | constants: the next two, which auto takes too where they are given
    NORMALIZE: Literal["auto", "data", "measured", "constants"]
    # of RGB in [0, 1]; these are ResNets' of ImageNet
    MODEL_MEAN: Annotated[tuple[float, float, float], Range(-10.0, 10.0)]
    MODEL_STD: Annotated[tuple[float, float, float], Range(1e-06, 10.0)]

    # === training: how
    EXPERIMENT: str  # name of the folder below LOGS
    EPOCHS: Annotated[int, Range(1, 10**6)]
    TRAIN_BATCH_SIZE: Annotated[int, Range(1, 10**5)]
    VALID_BATCH_SIZE: Annotated[int, Range(1, 10**5)]
    ACCUMULATE: Annotated[int, Range(1, 10**5)]  # batches per optimizer step
    # 1: on several GPUs batch norms see the whole batch, as on one; 0: each its own share
    SYNC_BATCHNORM: Annotated[int, Range(0, 1)]
    LOSS: str  # names joined by +, with weights and arguments: 0.5*dice + focal(gamma=2); README lists them
    OPTIMIZER: Literal["adam", "adamw", "sgd", "radam", "nadam"]  # adam | adamw | sgd | radam | nadam
    LR: Annotated[float, Range(0.0, 100.0)]  # the peak, after the warm-up; make lr FOLD=0 suggests one
    # the encoder's share of LR; less keeps more of what its weights know
    ENCODER_LR: Annotated[float, Range(0.0, 100.0)]
    MOMENTUM: Annotated[float, Range(0.0, 0.9999)]  # of sgd
    WEIGHT_DECAY: Annotated[float, Range(0.0, 10.0)]  # not on norms and biases
    # cosine (to zero) | restarts | onecycle | poly | constant | plateau (halved when Dice stalls)
    SCHEDULE: Literal["cosine", "restarts", "onecycle", "poly", "constant", "plateau"]
    WARMUP: Annotated[float, Range(0.0, 0.99)]  # share of all steps over which the learning rate rises
    CYCLES: Annotated[int, Range(1, 1000)]  # of restarts
    # epochs without a better validation Dice before plateau halves the learning rate
    PATIENCE: Annotated[int, Range(0, 10**6)]
    GRADIENT_CLIP: Annotated[float, Range(0.0, 1e9)]  # the gradient's norm is clipped at this value; 0: off
    # number of first epochs in which the encoder stays as it is, its batch norms too
    FREEZE_ENCODER: Annotated[int, Range(0, 10**6)]
    EMA: Annotated[float, Range(0.0, 0.999999)]  # decay of the averaged weights that are scored and shipped; 0: off
    # coarser levels of the decoder that are trained too, and not shipped; 0: none
    DEEP_SUPERVISION: Annotated[int, Range(0, 8)]
    # none | flips | upright (mirrored, a little turned) | turns (no side is up: cells, satellites) | affine (and a
    # mirror) | carvana and hands (the tutorials') | nails (photographs) | strong (for random weights)
    AUGMENT: Literal["none", "flips", "upright", "turns", "affine", "carvana", "nails", "hands", "strong"]
    # cpu: in the loader's processes | device: with Kornia, a batch at a time, after the transfer
    AUGMENT_ON: Literal["cpu", "device"]
    # height, width of random crops to train on, of IMAGE_SIZE's frame or RESIZE=none's; 0,0: whole images
    CROP: Annotated[tuple[int, int], Range(0, 20000)]
    MIX: Literal["none", "mixup", "cutmix", "both"]  # none | mixup | cutmix | both
    # parameter of the beta distribution of mixup's and CutMix's shares; smaller: one image prevails
    MIX_ALPHA: Annotated[float, Range(0.01, 100.0)]
    BALANCE: str  # none | strata (each as often as any other) | name=2,other=1 (the strata's shares; else 1)
    # share of training images (with CROP: of crops) that show foreground; 0: as they come
    FOREGROUND: Annotated[float, Range(0.0, 1.0)]
    # n: train and validate on the first n training images; fails under Dice 0.9; its own folder, ..._overfit
    OVERFIT: Annotated[int, Range(0, 10**9)]
    SEED: Annotated[int, Range(0, 2**32 - 1)]
    # epochs without a better validation Dice before stopping; 0: off, the schedule runs to its end
    EARLY_STOPPING: Annotated[int, Range(0, 10**6)]
    # last | best: the best epoch is chosen on the fold that is reported, and every number says so
    CHECKPOINT: Literal["last", "best"]

    # === scoring: from probability to mask to number
    METRIC: str  # the competition's measure: dice, dsb2018, contrails, hd95, ...; docs/scores.md lists them
    MEASURES: str  # further measures to report: "boundary_iou, surface_dice(tolerance=2)"
    # Dice of an empty prediction on an empty mask: one | zero | skip (left out of the mean)
    EMPTY: Literal["one", "zero", "skip"]
    TTA: str  # the mean over views of each image: none | flips | d4 | scales | d4+scales
    TTA_MEAN: Literal["probability", "logit"]  # probability | logit: what is averaged over the views
    # n: network frames larger than n x n are predicted in tiles of that size; a multiple of 32; 0: whole
    TILE: Annotated[int, Range(0, 20000)]
    OVERLAP: Annotated[float, Range(0.0, 0.75)]  # of neighboring tiles, as a share of one
    # settings (the seven lines below) | tuned (what make tune found; inference and submission)
    POSTPROCESS: Literal["settings", "tuned"]
    # a pixel is foreground where the probability reaches it; multiclass takes the likeliest class
    THRESHOLD: Annotated[float, Range(0.004, 1.0)]
    MIN_AREA: Annotated[int, Range(0, 10**9)]  # objects of fewer pixels are removed; 0: none
    FILL_HOLES: Annotated[int, Range(0, 1)]  # 1: holes in a mask are filled
    KEEP_LARGEST: Annotated[int, Range(0, 10**6)]  # n: only the n largest objects of an image stay; 0: all
    # n: touching objects are cut apart where their centers lie at least n px apart (watershed); 0: none
    SPLIT: Annotated[int, Range(0, 20000)]
    # an image's mask is empty unless TOP_AREA pixels reach this probability; 0: no such test
    TOP_THRESHOLD: Annotated[float, Range(0.0, 1.0)]
    TOP_AREA: Annotated[int, Range(0, 10**9)]
    # auto (the layout's) | carvana | dsb2018 | tgs | airbus | siim | hubmap | uwmgi | contrails | vesuvius; also how a
    # table of training masks is read
    DIALECT: Literal["auto", "carvana", "dsb2018", "tgs", "airbus", "siim", "hubmap", "uwmgi", "contrails", "vesuvius"]

    def snapshot(self, *sections: str) -> dict[str, Any]:
        """Return the constants of these sections, or of all, as JSON has them."""
        names = [name for section in sections or SECTIONS for name in SECTIONS[section]]
        values = {name: getattr(self, name) for name in names}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def lines(self, *without: str) -> list[str]:
        """Return NAME=value of every constant but those named."""
        return constants.lines_of({name: value for name, value in self.snapshot().items() if name not in without})

    def overrides(self, *without: str) -> list[str]:
        """Return the NAME=value that make these settings of config.py's constants, but for those named."""
        default = load().snapshot()
        differ = {name: value for name, value in self.snapshot().items() if value != default[name]}
        return constants.lines_of({name: value for name, value in differ.items() if name not in without})

    def changed(self, *lines: str) -> "Settings":
        """Return these settings with NAME=value laid over them. Raises UserError as `load` does."""
        return load([*self.lines(), *lines])

    @staticmethod
    def fresh(*lines: str) -> "Settings":
        """Return config.py's constants with NAME=value laid over them. Raises UserError as `load` does."""
        return load(list(lines))

    @staticmethod
    def defaults() -> dict[str, Any]:
        """Return config.py's constants as they stand there, templates included."""
        return dict(DEFAULTS)

    @staticmethod
    def sections() -> dict[str, list[str]]:
        """Return the names under each heading of config.py."""
        return dict(SECTIONS)

    @staticmethod
    def value_of(name: str, text: str) -> Any:
        """Return what NAME=text stands for. Raises UserError where it is of another type, no choice or out of range."""
        value = constants.parse(name, text, DEFAULTS[name])
        constants.check(name, value, HINTS[name])
        return value


HINTS: dict[str, Any] = get_type_hints(Settings, include_extras=True)
DEFAULTS: dict[str, Any] = {field.name: getattr(config, field.name) for field in fields(Settings)}
SECTIONS: dict[str, list[str]] = {}  # heading -> names, as config.py groups them
for _line in Path(config.__file__).read_text(encoding="utf-8").splitlines():
    if _heading := re.match(r"# === (\w+):", _line):
        SECTIONS[_heading[1]] = []
    elif _constant := re.match(r"([A-Z][A-Z0-9_]*) = ", _line):
        SECTIONS[list(SECTIONS)[-1]].append(_constant[1])


def load(overrides: list[str] = [], names: str = "") -> Settings:  # noqa: B006 (never changed)
    """Return config.py's constants under the recipes `names` ("nails,quick") and `overrides` (["LR=3e-4"]).

    Raises UserError for an unknown name or recipe, a wrong type, a value out of range, an unknown placeholder.
    """
    values, chosen = dict(DEFAULTS), [name for name in names.split(",") if name]
    lines = [(recipes.read(name), f"recipe {name}: ") for name in chosen]
    if chosen:
        # unless one of them, or the command line, names it
        values["EXPERIMENT"] = "_".join(Path(name).name.removesuffix(".cfg") for name in chosen)
    for recipe, where in lines:
        _lay(values, recipe, where)
    _lay(values, overrides)
    values = constants.expand(values, as_they_are=("GROUP",))  # a regex has braces of its own
    for name, value in values.items():
        constants.check(name, value, HINTS[name])
    if values["OVERFIT"]:
        values["EXPERIMENT"] = values["EXPERIMENT"].removesuffix(OVERFITTED) + OVERFITTED
    return Settings(**values)


def _lay(values: dict[str, Any], lines: list[str], where: str = "") -> None:
    for line in lines:
        name, equals, text = line.partition("=")
        ((name, text),) = constants.renamed({name.strip(): text.strip()}).items()
        if not equals:
            raise UserError(f"{where}expected NAME=value, got '{line}'.")
        if name not in DEFAULTS:
            raise UserError(f"{where}config.py has no {name}.{nearest(name.upper(), DEFAULTS)}")
        values[name] = constants.parse(name, text, DEFAULTS[name])


def command_line(argv: list[str] | None, about: str | None, flags: dict[str, str]) -> tuple[Settings, Flags]:
    """Parse `FOLD=0 LR=3e-4` or `--fold 0 LR=3e-4` -> (Settings, flags as a namespace of texts, "" where not given).

    `flags` maps a command's own flags to their help. They, and RECIPE, are never part of the settings. Each flag may
    be given either way, so that make can forward every NAME=value as it is. The namespace has the constants as
    they were typed, too: `overrides`.
    """
    flags = {"RECIPE": "recipes to lay over config.py, from left to right: demo or nails,quick", **flags}
    parser = argparse.ArgumentParser(description=about, epilog="NAME=value overrides a constant of src/config.py.")
    parser.add_argument("overrides", nargs="*", metavar="NAME=value")
    for flag, text in flags.items():
        parser.add_argument(f"--{flag.lower()}", metavar=flag, default="", help=text)
    given = parser.parse_intermixed_args(argv)
    chosen = {flag: getattr(given, flag.lower()) for flag in flags}
    overrides = []
    for text in given.overrides:
        name, equals, value = text.partition("=")
        if equals and name in flags:
            chosen[name] = value
        elif equals and name not in DEFAULTS and name not in constants.FORMER and name.isupper():
            here = "\nThis command also takes:" + listing([f"{flag}: {text}" for flag, text in flags.items()])
            raise UserError(f"config.py has no {name}.{nearest(name, [*DEFAULTS, *flags])}{here}")
        else:
            overrides.append(text)
    return load(overrides, chosen["RECIPE"]), Flags(**chosen, overrides=tuple(overrides))
