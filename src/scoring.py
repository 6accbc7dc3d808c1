"""Held-out masks against predicted ones: rows of counts, their summary, and what has to stand beside a score.

Beside the model stand the constant mask, which ignores the image, and the ceiling that the network's size sets.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import console
import images
import metrics
import postprocess
from dataspec import DataSpec

COLUMNS = (
    *("image", "class", "kfold", "group", *metrics.COUNTS, *metrics.SCORES),
    *(f"{kind}_{key}" for kind in ("constant", "ceiling") for key in ("tp", "fp", "fn")),
)  # of scores.csv
_KINDS = {"model": "", "constant": "constant_", "ceiling": "ceiling_"}  # summary's name -> prefix of the columns
_POLICIES = {"one": "counts as 1", "zero": "counts as 0", "skip": "is left out of the mean"}


def constant_mask(root: Path, frame: Any, spec: DataSpec, max_pixels: int, side: int = 128) -> np.ndarray:
    """The best masks that ignore the image, found on the training rows of `frame` stretched to (side, side).

    0/1 (S, side, side), one for each scored class.
    """

    def small(row: tuple[str, str]) -> np.ndarray:
        mask = spec.read_mask(root, row[1], images.read_size(root / row[0]), max_pixels, row[0])
        planes = spec.class_planes(mask).astype(np.uint8)
        return np.stack([images.mask_to_network(plane, (side, side), "stretch") for plane in planes])

    pairs = list(zip(frame["image"], frame["mask"], strict=True))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        stacked = np.stack(list(console.track(pool.map(small, pairs), len(pairs), "training masks")), axis=1)
    return np.stack([metrics.best_constant(masks.mean(0), masks) for masks in stacked])


def rows(
    table: Any,
    root: Path,
    read_maps: Callable[[str], np.ndarray],
    constant: np.ndarray,
    spec: DataSpec,
    *,
    size: tuple[int, int],
    resize: str,
    threshold: float,
    min_area: int,
    empty: str,
    max_pixels: int,
) -> Iterator[dict[str, Any]]:
    """One dict an image and scored class of `table`: counts and scores of its prediction, and both references' counts.

    `read_maps` gives an image's probability maps, uint8 (C, H, W).
    """
    columns = zip(table["image"], table["mask"], table["group"], table["kfold"], strict=True)
    for image, mask_reference, group, fold in console.track(columns, len(table), "scoring"):
        p8 = read_maps(image)
        mask = spec.read_mask(root, mask_reference, p8.shape[1:], max_pixels, image)
        truths, labelled = spec.class_planes(mask), spec.labelled(mask)
        predicted = postprocess.to_masks(p8, spec.task, spec.scored, threshold, min_area)
        best = redrawn(mask, spec, size, resize)
        for index, name in enumerate(spec.scored_names):
            truth = truths[index]
            counts = metrics.count(predicted[index], truth, labelled)
            scores = metrics.scores(counts["tp"], counts["fp"], counts["fn"], empty)
            yield {
                "image": image,
                "class": name,
                "kfold": fold,
                "group": group,
                **counts,
                **{key: round(float(value), 6) for key, value in scores.items()},
                **_reference("constant_", _stretched(constant[index], truth.shape), truth, labelled),
                **_reference("ceiling_", best[index], truth, labelled),
            }


def _reference(prefix: str, mask: np.ndarray, truth: np.ndarray, labelled: np.ndarray | None) -> dict[str, int]:
    counts = metrics.count(mask, truth, labelled)
    return {f"{prefix}{key}": counts[key] for key in ("tp", "fp", "fn")}


def _stretched(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return images.from_network(mask.astype(np.float32), shape, mask.shape, "stretch") >= 0.5


def redrawn(mask: np.ndarray, spec: DataSpec, size: tuple[int, int], resize: str) -> np.ndarray:
    """The truth (K, H, W) as a perfect network would give it, bool (S, H, W).

    Each small pixel's share of each class, enlarged; then the largest class, or each class cut at one half.
    """
    shape = mask.shape[1:]
    indices = range(len(spec.classes)) if spec.task == "multiclass" else spec.scored
    enlarged = []
    for index in indices:
        plane = (mask[0] == index) if spec.task == "multiclass" else mask[index] > 0
        small = images.coverage_to_network(plane.astype(np.uint8), size, resize).astype(np.float32)
        enlarged.append(images.from_network(small, shape, size, resize))
    if spec.task != "multiclass":
        return np.stack(enlarged) >= 127.5
    return np.argmax(enlarged, axis=0) == np.array(spec.scored)[:, None, None]


def summarise(scores: Any, classes: tuple[str, ...], empty: str) -> dict[str, Any]:
    """Mean over images and pooled over pixels, of the model, of the constant mask and of the resolution's ceiling.

    `scores` has the rows of an image together, one for each of `classes` in their order; with several the figures are
    means over the classes, and "classes" holds the model's for each.
    """
    counts = {
        name: [scores[f"{prefix}{key}"].to_numpy().reshape(-1, len(classes)) for key in ("tp", "fp", "fn")]
        for name, prefix in _KINDS.items()
    }
    tp, fp, fn = counts["model"]
    truth_empty = tp + fn == 0
    each = {name: metrics.summarise(tp[:, i], fp[:, i], fn[:, i], empty) for i, name in enumerate(classes)}
    return {
        "images": len(tp),
        "groups": int(scores["group"].nunique()),
        "empty_masks": int(truth_empty.sum()),
        "empty_and_predicted_empty": int((truth_empty & (fp == 0)).sum()),
        "empty_policy": empty,
        **{name: metrics.summarise(*values, empty) for name, values in counts.items()},
        "classes": each,
    }


def announce(title: str, summary: dict[str, Any]) -> None:
    """Print the scores with what has to stand beside them."""
    print(f"{title}: {summary['images']} {summary['scored_on']} in {summary['groups']} groups, at their original size")
    lines = {
        "mean over images": summary["model"]["image"],
        "pooled over pixels": summary["model"]["pooled"],
        "constant mask, mean": summary["constant"]["image"],
        "ceiling of the size, mean": summary["ceiling"]["image"],
    }
    print(console.table([{"": name, **values} for name, values in lines.items()]))
    several = len(summary["classes"]) > 1
    if several:
        print("  Each line is the mean over the classes; the model's, mean over images, class by class:")
        print(console.table([{"": name, **values["image"]} for name, values in summary["classes"].items()]))
    policy, of = summary["empty_policy"], f" of {summary['images']} x {len(summary['classes'])}" if several else ""
    print(
        f"  {summary['empty_masks']}{of} masks are empty; an empty prediction on an empty mask {_POLICIES[policy]} "
        f"(EMPTY={policy}).\n"
        f"  Threshold {summary['threshold']}, weights of the {summary['weights']}.\n"
        "  The constant mask ignores the image; the ceiling is what the true mask scores after it was shrunk to the\n"
        "  network's size and enlarged again."
    )


def worst_sheet(
    path: Path,
    scores: Any,
    table: Any,
    root: Path,
    read_maps: Callable[[str, int], np.ndarray],
    spec: DataSpec,
    *,
    threshold: float,
    min_area: int,
    max_pixels: int,
    most: int = 12,
) -> None:
    """Contact sheet of the images with the lowest Dice (image, truth, prediction, error), the mean over their classes.

    `read_maps(image, fold)` gives probability maps; `table` has each image's mask.
    """
    import pictures

    lines, mask_of = [], dict(zip(table["image"], table["mask"], strict=True))
    dices = scores.groupby(["image", "kfold"], sort=False)["dice"].mean().sort_values(kind="stable").head(most)
    for (image, fold), dice in dices.items():
        pixels, mask = spec.read_pair(root, image, mask_of[image], max_pixels)
        truth, picture = spec.class_planes(mask), pictures.as_rgb(pixels)
        predicted = postprocess.to_masks(read_maps(image, fold), spec.task, spec.scored, threshold, min_area)
        cells = [picture, pictures.overlays(picture, truth), pictures.overlays(picture, predicted)]
        if (labelled := spec.labelled(mask)) is not None:
            truth, predicted = truth & labelled, predicted * labelled
        lines.append((f"Dice {dice:.4f}   {Path(image).name}", [*cells, pictures.errors(picture, truth, predicted)]))
    note = f"the {len(lines)} images with the lowest Dice; {pictures.LEGEND}"
    titles = ["image", "truth", "prediction", "error"]
    pictures.sheet(path, lines, titles, note=note, legend=pictures.legend(spec.scored_names))
