"""The constants of config.py, one run's overrides laid over them, frozen. Only scripts import this module.

Precedence: config.py, then the recipes from left to right, then NAME=value of the command line.
"""

import argparse
import ast
import dataclasses
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import config
from tools.errors import UserError, listing, nearest

RECIPES = Path(__file__).parent / "recipes"
SEARCH = "[search]"  # the line in a recipe below which make search finds what it may vary
OVERFITTED = "_overfit"  # OVERFIT's experiments are called so: scores of training images lie beside no other
SECTIONS: dict[str, list[str]] = {}  # heading -> names, as config.py groups them
for _line in Path(config.__file__).read_text(encoding="utf-8").splitlines():
    if _heading := re.match(r"# === (\w+):", _line):
        SECTIONS[_heading[1]] = []
    elif _constant := re.match(r"([A-Z][A-Z0-9_]*) = ", _line):
        SECTIONS[list(SECTIONS)[-1]].append(_constant[1])

DEFAULTS: dict[str, Any] = {name: getattr(config, name) for names in SECTIONS.values() for name in names}
_CHOICES = {
    "DEVICE": ("auto", "cpu", "cuda", "mps"),
    "PRECISION": ("auto", "16", "bf16", "32"),
    "LOGGER": ("tensorboard", "wandb", "none"),
    "OPTIMIZER": ("adam", "adamw", "sgd", "radam", "nadam"),
    "SCHEDULE": ("cosine", "restarts", "onecycle", "poly", "constant", "plateau"),
    "AUGMENT_ON": ("cpu", "device"),
    "MIX": ("none", "mixup", "cutmix", "both"),
    "PROFILER": ("", "simple", "advanced", "pytorch"),
    "LAYOUT": ("auto", "carvana", "instances", "split", "beside", "folders", "rle"),
    "TASK": ("auto", "binary", "multiclass", "multilabel"),
    "NORMALISE": ("auto", "measured", "constants"),
    "RESIZE": ("stretch", "fit", "none"),
    "AUGMENT": ("none", "flips", "upright", "turns", "affine", "nails", "strong"),
    "CHECKPOINT": ("last", "best"),
    "EMPTY": ("one", "zero", "skip"),
    "TTA_MEAN": ("probability", "logit"),
    "POSTPROCESS": ("settings", "tuned"),
    "DIALECT": ("auto", "carvana", "dsb2018", "tgs", "airbus", "siim", "hubmap", "uwmgi", "contrails", "vesuvius"),
}
_TABLES = ("TRAIN_FOLDS", "SUBMISSION")  # a JSON is written beside each
_RANGES = {  # lowest and highest value that makes sense
    "WORKERS": (-1, 256),
    "DEVICES": (1, 1024),
    "NODES": (1, 4096),
    "SYNC_BATCHNORM": (0, 1),
    "MAX_MINUTES": (0.0, 1e6),
    "CHECKPOINT_MINUTES": (0.0, 1e6),
    "N_FOLDS": (2, 1000),
    "FOLDS_SEED": (0, 2**32 - 1),
    "MAX_PIXELS": (1, 10**10),
    "IGNORE": (-1, 65535),
    "IN_CHANNELS": (0, 1024),
    "LIMIT": (0, 10**9),
    "EPOCHS": (1, 10**6),
    "TRAIN_BATCH_SIZE": (1, 10**5),
    "VALID_BATCH_SIZE": (1, 10**5),
    "ACCUMULATE": (1, 10**5),
    "LR": (0.0, 100.0),
    "ENCODER_LR": (0.0, 100.0),
    "MOMENTUM": (0.0, 0.9999),
    "CYCLES": (1, 1000),
    "PATIENCE": (0, 10**6),
    "FREEZE_ENCODER": (0, 10**6),
    "DEEP_SUPERVISION": (0, 8),
    "MAX_FEATURES": (1, 8192),
    "STEP_IMAGES": (0, 64),
    "CROP": (0, 20_000),
    "MIX_ALPHA": (0.01, 100.0),
    "FOREGROUND": (0.0, 1.0),
    "OVERFIT": (0, 10**9),
    "WARMUP": (0.0, 0.99),
    "WEIGHT_DECAY": (0.0, 10.0),
    "GRADIENT_CLIP": (0.0, 1e9),
    "EMA": (0.0, 0.999999),
    "SEED": (0, 2**32 - 1),
    "EARLY_STOPPING": (0, 10**6),
    "TILE": (0, 20_000),
    "OVERLAP": (0.0, 0.75),
    "THRESHOLD": (0.004, 1.0),
    "MIN_AREA": (0, 10**9),
    "FILL_HOLES": (0, 1),
    "KEEP_LARGEST": (0, 10**6),
    "SPLIT": (0, 20_000),
    "TOP_THRESHOLD": (0.0, 1.0),
    "TOP_AREA": (0, 10**9),
    "IMAGE_SIZE": (8, 20_000),
    "MODEL_MEAN": (-10.0, 10.0),
    "MODEL_STD": (1e-6, 10.0),
}

Settings = dataclasses.make_dataclass(
    "Settings", [(name, type(value), value) for name, value in DEFAULTS.items()], frozen=True
)
Settings.__module__ = __name__  # so that it travels to other processes
Settings.__doc__ = "One run's constants (see config.py), frozen; made by `load`."


def _parse(name: str, text: str) -> Any:
    """The value of constant `name` from its text, in the type that config.py gives it."""
    default = DEFAULTS[name]
    text = text.strip()
    if isinstance(default, str):
        return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
    expected = "a whole number" if isinstance(default, int) else "a number"
    try:
        value = ast.literal_eval(text)
        if isinstance(default, tuple):
            expected = f"{len(default)} numbers such as {','.join(map(str, default))}"
            value = tuple(value) if isinstance(value, tuple | list) else (value,) * len(default)
            if len(value) != len(default):
                raise ValueError(f"{len(value)} numbers")
            return tuple(_number(item, type(default[0])) for item in value)
        return _number(value, type(default))
    except (ValueError, SyntaxError, TypeError, OverflowError, MemoryError, RecursionError) as error:
        raise UserError(f"{name}={text} is not {expected} (config.py has {name} = {default!r}).") from error


def _number(value: Any, kind: type) -> Any:
    finite = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not finite or kind(value) != value:
        raise ValueError(value)
    return kind(value)


def _check(name: str, value: Any) -> None:
    if name in _CHOICES and value not in _CHOICES[name]:
        allowed = ", ".join(choice or "''" for choice in _CHOICES[name])
        raise UserError(f"{name}={value} is none of: {allowed}.{nearest(str(value), _CHOICES[name])}")
    if name in _TABLES and not value.endswith(".csv"):
        raise UserError(f"{name}={value}: expected the name of a .csv file.")
    if name in _RANGES:
        low, high = _RANGES[name]
        for number in value if isinstance(value, tuple) else (value,):
            if not low <= number <= high:
                raise UserError(f"{name}={value} is out of range: expected {low} to {high}.")


def _expand(values: dict[str, Any]) -> dict[str, Any]:
    """Fill in every `{NAME}`, to any depth; an unknown or circular one is refused."""

    def fill(name: str, seen: tuple[str, ...]) -> Any:
        if name in seen:
            raise UserError(f"{' -> '.join((*seen, name))}: these constants contain each other.")
        value = values[name]
        if name == "GROUP" or not isinstance(value, str):  # a regex has braces of its own
            return value

        def insert(match: re.Match) -> str:
            if match[1] not in values:
                raise UserError(f"{name}={value}: config.py has no {match[1]}.{nearest(match[1], values)}")
            return str(fill(match[1], (*seen, name)))

        return re.sub(r"\{(\w*)\}", insert, value)

    return {name: fill(name, ()) for name in values}


def load(overrides: list[str] = [], recipes: str = "") -> Any:  # noqa: B006 (never changed)
    """Settings from config.py, `recipes` ("nails,quick") and `overrides` (["LR=3e-4"]).

    Raises UserError for an unknown name or recipe, a wrong type, a value out of range, an unknown placeholder.
    """
    values, names = dict(DEFAULTS), [name for name in recipes.split(",") if name]
    lines = [(read_recipe(name), f"recipe {name}: ") for name in names]
    if names:
        # unless one of them, or the command line, names it
        values["EXPERIMENT"] = "_".join(Path(name).name.removesuffix(".cfg") for name in names)
    for recipe, where in lines:
        _lay(values, recipe, where)
    _lay(values, overrides)
    values = _expand(values)
    for name, value in values.items():
        _check(name, value)
    if values["OVERFIT"]:
        values["EXPERIMENT"] = values["EXPERIMENT"].removesuffix(OVERFITTED) + OVERFITTED
    return Settings(**values)


def _lay(values: dict[str, Any], lines: list[str], where: str = "") -> None:
    for line in lines:
        name, equals, text = line.partition("=")
        name = name.strip()
        if not equals:
            raise UserError(f"{where}expected NAME=value, got '{line}'.")
        if name not in DEFAULTS:
            raise UserError(f"{where}config.py has no {name}.{nearest(name.upper(), DEFAULTS)}")
        values[name] = _parse(name, text)


def read_recipe(name: str) -> list[str]:
    """The NAME=value lines of src/recipes/<name>.cfg, or of the file where `name` ends in .cfg; comments removed.

    What follows a line [search] is for make search alone, and no setting.
    """
    return [line for line, _ in recipe_parts(name)[0]]


def recipe_parts(name: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The lines of a recipe above and below [search], each with its comment."""
    path = Path(name) if name.endswith(".cfg") else RECIPES / f"{name}.cfg"
    if not path.is_file():
        if name.endswith(".cfg"):
            raise UserError(f"There is no recipe file {name}.")
        known = sorted(file.stem for file in RECIPES.glob("*.cfg"))
        raise UserError(f"There is no recipe {name} in {RECIPES}.{nearest(name, known)} It has: {', '.join(known)}.")
    lines = (line.partition("#") for line in path.read_text(encoding="utf-8").splitlines())
    whole = [(line.strip(), comment.strip()) for line, _, comment in lines if line.strip()]
    at = next((number for number, (line, _) in enumerate(whole) if line == SEARCH), len(whole))
    return whole[:at], whole[at + 1 :]


def value_of(name: str, text: str) -> Any:
    """What NAME=text stands for. Raises UserError where it is of another type, none of the choices or out of range."""
    value = _parse(name, text)
    _check(name, value)
    return value


def snapshot(settings: Any, sections: tuple[str, ...] = tuple(SECTIONS)) -> dict[str, Any]:
    """JSON-ready dict of the constants in `sections`."""
    names = [name for section in sections for name in SECTIONS[section]]
    values = {name: getattr(settings, name) for name in names}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def as_overrides(settings: Any, without: tuple[str, ...] = ()) -> list[str]:
    """The NAME=value that make these settings of config.py's constants, but for those in `without`."""
    default, now = snapshot(load()), snapshot(settings)
    return lines_of({name: value for name, value in now.items() if value != default[name] and name not in without})


def lines_of(values: dict[str, Any]) -> list[str]:
    """NAME=value for each, as `load` reads them."""
    return [
        f"{name}={','.join(map(str, value)) if isinstance(value, list | tuple) else value}"
        for name, value in values.items()
    ]


def command_line(argv: list[str] | None, about: str, flags: dict[str, str]) -> tuple[Any, Any]:
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
        elif equals and name not in DEFAULTS and name.isupper():
            here = "\nThis command also takes:" + listing([f"{flag}: {text}" for flag, text in flags.items()])
            raise UserError(f"config.py has no {name}.{nearest(name, [*DEFAULTS, *flags])}{here}")
        else:
            overrides.append(text)
    return load(overrides, chosen["RECIPE"]), SimpleNamespace(**chosen, overrides=tuple(overrides))


def flag_is_on(text: str) -> bool:
    """A yes/no flag: 1, true and yes against 0, false, no and "" (not given)."""
    if text.lower() in ("1", "true", "yes"):
        return True
    if text.lower() in ("", "0", "false", "no"):
        return False
    raise UserError(f"Expected 1 or 0 for a flag, got '{text}'.")
