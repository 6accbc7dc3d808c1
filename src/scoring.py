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
import runs
from errors import UserError

COLUMNS = (
    *("image", "class", "kfold", "group", *metrics.COUNTS, *metrics.SCORES),
    *(f"{kind}_{key}" for kind in ("constant", "ceiling") for key in ("tp", "fp", "fn")),
)  # of scores.csv
_KINDS = {"model": "", "constant": "constant_", "ceiling": "ceiling_"}  # summary's name -> prefix of the columns
_POLICIES = {"one": "counts as 1", "zero": "counts as 0", "skip": "is left out of the mean"}


def constant_mask(root: Path, masks: list[str], max_pixels: int, side: int = 128) -> np.ndarray:
    """The best mask that ignores the image, found on the training `masks` stretched to (side, side): 0/1."""

    def small(mask: str) -> np.ndarray:
        return images.mask_to_network(images.read_mask(root / mask, max_pixels), (side, side), "stretch")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        stacked = np.stack(list(console.track(pool.map(small, masks), len(masks), "training masks")))
    return metrics.best_constant(stacked.mean(0), stacked)


def rows(
    table: Any,
    root: Path,
    folder: Path,
    constant: np.ndarray,
    *,
    size: tuple[int, int],
    resize: str,
    threshold: float,
    min_area: int,
    empty: str,
    max_pixels: int,
) -> Iterator[dict[str, Any]]:
    """One dict an image of `table`: counts and scores of its prediction in `folder`, and both references' counts."""
    columns = zip(table["image"], table["mask"], table["group"], table["kfold"], strict=True)
    for image, mask, group, fold in console.track(columns, len(table), "scoring"):
        truth, path = images.read_mask(root / mask, max_pixels), runs.prediction_path(folder, image)
        p8 = images.read_gray(path)
        if p8.shape != truth.shape:
            raise UserError(f"{path}: {p8.shape}, but the mask has {truth.shape}. Run make tester again.")
        counts = metrics.count(postprocess.to_mask(p8, threshold, min_area), truth)
        scores = metrics.scores(counts["tp"], counts["fp"], counts["fn"], empty)
        yield {
            "image": image,
            "class": "foreground",
            "kfold": fold,
            "group": group,
            **counts,
            **{name: round(float(value), 6) for name, value in scores.items()},
            **_reference("constant_", _stretched(constant, truth.shape), truth),
            **_reference("ceiling_", redrawn(truth, size, resize), truth),
        }


def _reference(prefix: str, mask: np.ndarray, truth: np.ndarray) -> dict[str, int]:
    counts = metrics.count(mask, truth)
    return {f"{prefix}{key}": counts[key] for key in ("tp", "fp", "fn")}


def _stretched(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return images.from_network(mask.astype(np.float32), shape, mask.shape, "stretch") >= 0.5


def redrawn(truth: np.ndarray, size: tuple[int, int], resize: str) -> np.ndarray:
    """The truth as a perfect network would give it: each small pixel's share of foreground, enlarged, cut at 0.5."""
    small = images.coverage_to_network(truth, size, resize).astype(np.float32)
    return images.from_network(small, truth.shape, size, resize) >= 127.5


def summarise(scores: Any, empty: str) -> dict[str, Any]:
    """Mean over images and pooled over pixels, of the model, of the constant mask and of the resolution's ceiling."""
    truth_empty = (scores["tp"] + scores["fn"]) == 0
    values = {}
    for name, prefix in _KINDS.items():
        counts = (scores[f"{prefix}{key}"].to_numpy() for key in ("tp", "fp", "fn"))
        values[name] = metrics.summarise(*counts, empty)
    return {
        "images": len(scores),
        "groups": int(scores["group"].nunique()),
        "empty_masks": int(truth_empty.sum()),
        "empty_and_predicted_empty": int((truth_empty & (scores["fp"] == 0)).sum()),
        "empty_policy": empty,
        **values,
    }


def announce(title: str, summary: dict[str, Any]) -> None:
    """Print the scores with what has to stand beside them."""
    print(f"{title}: {summary['images']} held-out images in {summary['groups']} groups, at their original size")
    lines = {
        "mean over images": summary["model"]["image"],
        "pooled over pixels": summary["model"]["pooled"],
        "constant mask, mean": summary["constant"]["image"],
        "ceiling of the size, mean": summary["ceiling"]["image"],
    }
    print(console.table([{"": name, **values} for name, values in lines.items()]))
    policy = summary["empty_policy"]
    print(
        f"  {summary['empty_masks']} masks are empty; an empty prediction on an empty mask {_POLICIES[policy]} "
        f"(EMPTY={policy}).\n"
        f"  Threshold {summary['threshold']}, weights of the {summary['weights']}.\n"
        "  The constant mask ignores the image; the ceiling is what the true mask scores after it was shrunk to the\n"
        "  network's size and enlarged again."
    )


def worst_sheet(
    path: Path,
    scores: Any,
    root: Path,
    folder_of: Callable[[int], Path],
    *,
    threshold: float,
    min_area: int,
    max_pixels: int,
    most: int = 12,
) -> None:
    """Contact sheet of the lowest Dice (image, truth, prediction, error); `scores` has the masks' paths as a column."""
    import pictures

    lines = []
    worst = scores.sort_values("dice", kind="stable")[["image", "mask", "kfold", "dice"]].head(most)
    for image, mask, fold, dice in worst.itertuples(index=False):
        picture, truth = images.read_pair(root / image, root / mask, max_pixels)
        p8 = images.read_gray(runs.prediction_path(folder_of(fold), image))
        predicted = postprocess.to_mask(p8, threshold, min_area)
        overlays = [pictures.overlay(picture, truth), pictures.overlay(picture, predicted)]
        cells = [picture, *overlays, pictures.errors(picture, truth, predicted)]
        lines.append((f"Dice {dice:.4f}   {Path(image).name}", cells))
    note = f"the {len(lines)} images with the lowest Dice; {pictures.LEGEND}"
    pictures.sheet(path, lines, ["image", "truth", "prediction", "error"], note=note)
