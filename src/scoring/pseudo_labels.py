"""Probabilities of a test image -> a label to train on: how sure it is, and its file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from data.dataspec import BACKGROUND, IGNORED, DataSpec
from prediction import postprocess
from prediction.postprocess import Rule
from tools import run_folders
from tools.errors import UserError

MARGIN = 0.1  # of a threshold, up and down, within which a mask should stay what it is


def confidence(p8: np.ndarray, spec: DataSpec, rules: tuple[Rule, ...]) -> float:
    """Return how sure the model is of its own masks of an image, in [0, 1].

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
    """Cut masks 0/1 (S, H, W) by the rules with other thresholds; of a class map each class at 0.5 + by."""
    middles = [0.5 if spec.task == "multiclass" else rule.threshold for rule in rules]
    moved = [
        replace(rule, threshold=min(1.0, max(1 / 255, middle + by)))
        for rule, middle in zip(rules, middles, strict=True)
    ]
    return np.stack([postprocess.to_mask(p8[index], rule) for index, rule in zip(spec.scored, moved, strict=True)])


def labels(p8: np.ndarray, spec: DataSpec, masks: np.ndarray, least: float) -> np.ndarray:
    """Return what is to be trained on, a mask uint8 (K, H, W) as dataspec has it.

    Of a class map with a value for "not labeled", pixels are that whose likeliest class does not reach the probability
    `least`. Pixels of an object that the rule removed are background, or not labeled, where there is such a thing.
    """
    if spec.task != "multiclass":
        return masks.astype(np.uint8)
    likeliest = p8.argmax(0)
    label = likeliest.astype(np.uint8)
    removed = np.isin(likeliest, spec.scored) & ~masks.any(0)
    if BACKGROUND in spec.classes:
        label[removed] = spec.classes.index(BACKGROUND)
    elif knows_unlabeled(spec):
        label[removed] = IGNORED
    if knows_unlabeled(spec) and least > 0:
        label[p8.max(0) < postprocess.level(least)] = IGNORED
    return label[None]


def is_class_map(spec: DataSpec) -> bool:
    """Return whether masks are files of class values or colors; else of 0 and 255, one for each class."""
    return spec.task == "multiclass" and bool(spec.values or spec.colors)


def knows_unlabeled(spec: DataSpec) -> bool:
    """Return whether a pixel of a mask can be not labeled."""
    return is_class_map(spec) and spec.leaves_out


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
    """Turn a plane (H, W) of 0 and 1, or of class indices, into its file's pixels: (H, W), or RGB (H, W, 3)."""
    if not spec.is_class_map:
        return mask * np.uint8(255)
    keys, ignore = spec.class_values()
    if spec.task == "binary":  # of a class map: one class of it, and what is of none
        keys = [spec.value_of_none, *keys]
    table = np.zeros((256, len(keys[0])), np.uint16)
    table[: len(keys)] = keys
    if ignore:
        table[IGNORED] = ignore
    pixels = table[mask]
    pixels = pixels.astype(np.uint8) if spec.colors or table.max() < 256 else pixels
    return np.ascontiguousarray(pixels if spec.colors else pixels[..., 0])
