"""Confident test predictions -> rows to train on, each for the fold whose model made it."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from data import splits
from data.dataspec import BACKGROUND, IGNORED, DataSpec
from formats import images
from prediction import postprocess, prediction_folders
from prediction.postprocess import Rule
from scoring.label_sources import Source
from tools import console, run_folders, threads
from tools.errors import UserError
from tools.files import sha256, write_json

if TYPE_CHECKING:
    from settings import Settings

MARGIN = 0.1  # of a threshold, up and down, within which a mask should stay what it is


def confidence(p8: np.ndarray, spec: DataSpec, rules: tuple[Rule, ...]) -> float:
    """How sure the model is of its own masks of an image, in [0, 1].

    p8: uint8 probabilities (C, H, W); rules: one for each scored class. It is the Dice between the masks that the rule
    cuts with its threshold lowered and raised by MARGIN, 1 where all edges are steep: the stability score of Segment
    Anything (Kirillov et al. 2023), with Dice for IoU. (The Dice that a model expects of itself,
    2 sum(p m) / (sum(p) + sum(m)), needs calibrated probabilities: on 160 held-out nuclei of a short training its rank
    correlation with the true Dice was 0.2, and this one's 0.66.) A class map is cut class by class around one half.
    The least sure of the classes that the image shows counts; where it shows none it is 1 - the highest probability.
    """
    shown = postprocess.to_masks(p8, spec.task, spec.scored, rules).any((1, 2))
    if not shown.any():
        return 1 - int(p8[list(spec.scored)].max()) / 255
    wide, narrow = (_shifted(p8, spec, rules, by) for by in (-MARGIN, MARGIN))
    both, sizes = (wide & narrow).sum((1, 2), dtype=np.int64), (wide.sum((1, 2)) + narrow.sum((1, 2)))
    return float(min(2 * both[at] / max(1, sizes[at]) for at in np.flatnonzero(shown)))


def _shifted(p8: np.ndarray, spec: DataSpec, rules: tuple[Rule, ...], by: float) -> np.ndarray:
    """The masks 0/1 (S, H, W) by the rules with other thresholds; of a class map each class is cut at 0.5 + by."""
    middles = [0.5 if spec.task == "multiclass" else rule.threshold for rule in rules]
    moved = [
        replace(rule, threshold=min(1.0, max(1 / 255, middle + by)))
        for rule, middle in zip(rules, middles, strict=True)
    ]
    return np.stack([postprocess.to_mask(p8[index], rule) for index, rule in zip(spec.scored, moved, strict=True)])


def labels(p8: np.ndarray, spec: DataSpec, masks: np.ndarray, least: float) -> np.ndarray:
    """What is to be trained on, a mask uint8 (K, H, W) as dataspec has it.

    Of a class map with a value for "not labelled", pixels are that whose likeliest class does not reach the probability
    `least`. Pixels of an object that the rule removed are background, or not labelled, where there is such a thing.
    """
    if spec.task != "multiclass":
        return masks.astype(np.uint8)
    likeliest = p8.argmax(0)
    found = likeliest.astype(np.uint8)
    removed = np.isin(likeliest, spec.scored) & ~masks.any(0)
    if BACKGROUND in spec.classes:
        found[removed] = spec.classes.index(BACKGROUND)
    elif knows_unlabelled(spec):
        found[removed] = IGNORED
    if knows_unlabelled(spec) and least > 0:
        found[p8.max(0) < postprocess.level(least)] = IGNORED
    return found[None]


def is_class_map(spec: DataSpec) -> bool:
    """Whether masks are files of class values or colours; else of 0 and 255, one for each class."""
    return spec.task == "multiclass" and bool(spec.values or spec.colours)


def knows_unlabelled(spec: DataSpec) -> bool:
    """Whether a pixel of a mask can be not labelled."""
    return is_class_map(spec) and bool(spec.ignore)


def write(root: Path, folder: str, image: str, mask: np.ndarray, spec: DataSpec) -> str:
    """Write a mask (K, H, W) of `image` below `root`/`folder` and read it back; returns its reference below `root`.

    Raises UserError where a name would lead out of `root`, or where what is read back is another mask.
    """
    path = run_folders.prediction_path(Path(folder), image)
    if spec.task == "binary" or is_class_map(spec):
        reference = path.as_posix()
        files = {root / path: _file_values(mask[0], spec)}
    else:
        reference = f"{path.with_suffix('').as_posix()}/{{class}}.png"
        planes = spec.class_planes(mask)
        files = {
            file: plane * np.uint8(255) for file, plane in zip(spec.class_paths(root, reference), planes, strict=True)
        }
    for file, values in files.items():
        if not file.resolve().is_relative_to(root.resolve()):
            raise UserError(f"{file} lies outside {root}: neither images nor classes may have .. in their names.")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(file, compress_level=1)
    if not np.array_equal(spec.read_mask(root, reference, mask.shape[1:], 10**10, image), mask):
        raise UserError(f"{root / reference}: reads as another mask than was written. Give {image} a plain name.")
    return reference


def _file_values(mask: np.ndarray, spec: DataSpec) -> np.ndarray:
    """A plane (H, W) of 0 and 1, or of class indices, -> the pixels of its file: (H, W), or RGB (H, W, 3)."""
    if spec.task == "binary":
        return mask * np.uint8(255)
    keys = np.array(spec.colours or [(value,) for value in spec.values], np.uint16)
    table = np.zeros((256, keys.shape[1]), np.uint16)
    table[: len(keys)] = keys
    if spec.ignore:
        table[IGNORED] = spec.ignore
    pixels = table[mask]
    pixels = pixels.astype(np.uint8) if spec.colours or table.max() < 256 else pixels
    return np.ascontiguousarray(pixels if spec.colours else pixels[..., 0])


STRATUM = "pseudo"  # of the new rows, so that BALANCE=pseudo=2 can say how often they come
SHOWN = 6  # kept and rejected images in the picture


@dataclass(frozen=True)
class Found:
    """One test image as one source predicted it: confidence in [0, 1], share of foreground in its mask."""

    source: Source
    image: str
    confidence: float
    area: float


def masks_folder(settings: "Settings", name: str) -> Path:
    """Where the masks of pseudo-labels lie."""
    return Path(settings.OUTPUT, "pseudo", name)


def judge(source: Source, names: list[str], spec: DataSpec, rules: tuple[postprocess.Rule, ...]) -> list[Found]:
    """How sure a source is of each image."""

    def one(name: str) -> Found:
        p8 = prediction_folders.read_maps(source.folder, name, spec)
        masks = postprocess.to_masks(p8, spec.task, spec.scored, rules)
        return Found(source, name, confidence(p8, spec, rules), float(masks.any(0).mean()))

    with threads.pool() as pool:
        return list(console.track(pool.map(one, names), len(names), f"judging fold {source.fold}"))


def label_of(found: Found, spec: DataSpec, rules: tuple[postprocess.Rule, ...], least: float) -> Any:
    """The probabilities (C, H, W) of an image and its pseudo-label (K, H, W)."""
    p8 = prediction_folders.read_maps(found.source.folder, found.image, spec)
    return p8, labels(p8, spec, postprocess.to_masks(p8, spec.task, spec.scored, rules), least)


def reference(path: Path, root: Path) -> str:
    """`path` relative to INPUT `root`, as the tables have it; ../ where it lies elsewhere, links followed.

    It climbs by what this program knows of its folders, never by what an image is called.
    """
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return Path(os.path.relpath(path.resolve(), root.resolve())).as_posix()


def new_rows(
    settings: "Settings", kept: list[Found], references: list[str], images_root: Path, place: Path
) -> list[dict]:
    """A row of the folds table for each kept label; each image is a group of its own."""
    root, rows = Path(settings.INPUT), []
    masks = reference(place, root)
    for found, mask in zip(kept, references, strict=True):
        image = reference(images_root / found.image, root)
        rows.append({"image": image, "mask": f"{masks}/{mask}", "group": image, "stratum": STRATUM, "kfold": -1,
                     splits.FOR_FOLD: found.source.fold})  # fmt: skip
    return rows


def write_masks(
    place: Path,
    kept: list[Found],
    images_root: Path,
    spec: DataSpec,
    rules: tuple[Rule, ...],
    least: float,
    about: dict[str, Any],
) -> list[str]:
    """Write the kept masks below `place`, all or none of them; returns their references below it."""

    with prediction_folders.atomic_folder(place) as partial:

        def one(found: Found) -> str:
            _, mask = label_of(found, spec, rules, least)
            size = images.read_size(images_root / found.image, 10**10)
            if mask.shape[1:] != tuple(size):
                raise UserError(
                    f"{found.image} has {size[1]} x {size[0]} pixels by now, and was predicted with {mask.shape[2]} x "
                    f"{mask.shape[1]}. Predict again: make inference FOLD={found.source.fold}"
                )
            return write(partial, f"fold{found.source.fold}", found.image, mask, spec)

        with threads.pool() as pool:
            references = list(console.track(pool.map(one, kept), len(kept), "writing masks"))
        write_json(partial / run_folders.MANIFEST, about)
    return references


def made_with(
    settings: "Settings", sources: list[Source], lines: list[dict[str, Any]], least: float, rules: tuple[Rule, ...]
) -> dict[str, Any]:
    """What pseudo-labels were made of, JSON-ready: table, models of each fold, rule and confidence."""
    table = Path(settings.TRAIN_FOLDS)
    return {
        "made_of": str(table),
        "made_of_sha256": sha256(table),
        "experiment": settings.EXPERIMENT,
        "seed": settings.SEED,
        "confidence": least,
        "rules": [rule.as_json() for rule in rules],
        "models": {source.fold: [part["weights_sha256"] for part in source.models] for source in sources},
        "folds": lines,
    }


def summary(found: list[Found], least: float) -> dict[str, Any]:
    """One source's line: images, how many are confident, their mean foreground, and the confidences' quartiles."""
    kept = [one for one in found if one.confidence >= least]
    quartiles = np.quantile([one.confidence for one in found], [0, 0.25, 0.5, 0.75, 1])
    area = f"{np.mean([one.area for one in kept]):.2%}" if kept else "-"
    values = [float(value) for value in quartiles]
    return {"for fold": found[0].source.fold, "test images": len(found), "confident": len(kept), "foreground": area,
            **dict(zip(("lowest", "25%", "median", "75%", "highest"), values, strict=True))}  # fmt: skip


def spread(found: list[Found]) -> list[Found]:
    """A few of them, evenly over their confidences, the surest first."""
    ordered = sorted(found, key=lambda one: -one.confidence)
    return [ordered[at] for at in sorted({round(part * (len(ordered) - 1) / (SHOWN - 1)) for part in range(SHOWN)})]
