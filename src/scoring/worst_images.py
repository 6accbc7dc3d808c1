"""A contact sheet of the images that were predicted worst."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prediction import postprocess
from scoring.score_rows import Pairs, Scale

if TYPE_CHECKING:
    import pandas as pd

MOST = 12  # images


def worst_sheet(
    path: Path,
    scores: "pd.DataFrame",
    pairs: Pairs,
    read_maps: Callable[[str, int], np.ndarray],
    rules: tuple[postprocess.Rule, ...],
    scale: Scale,
) -> None:
    """Draw the images with the worst METRIC, the mean over their classes: image, truth, prediction, error.

    `read_maps(image, fold)` gives probability maps; `pairs` has each image's mask.
    """
    from tools import pictures

    spec, mask_of = pairs.spec, dict(zip(pairs.table["image"], pairs.table["mask"], strict=True))
    means = scores.groupby(["image", "kfold"], sort=False)["score"].mean()
    worst = means.sort_values(kind="stable", ascending=scale.measure.higher, na_position="last").head(MOST)
    lines = []
    for (image, fold), value in worst.items():
        pixels, mask = spec.read_pair(pairs.root, image, mask_of[image], pairs.max_pixels)
        truth, picture = spec.class_planes(mask), pictures.as_rgb(pixels)
        predicted = postprocess.to_masks(read_maps(image, fold), spec.task, spec.scored, rules)
        cells = [picture, pictures.overlays(picture, truth), pictures.overlays(picture, predicted)]
        if (labeled := spec.labeled(mask)) is not None:
            truth, predicted = truth & labeled, predicted * labeled
        caption = f"{scale.metric} {value:.4f}   {Path(image).name}"
        lines.append((caption, [*cells, pictures.errors(picture, truth, predicted)]))
    note = f"the {len(lines)} worst images by {scale.metric}; {pictures.LEGEND}"
    titles = ["image", "truth", "prediction", "error"]
    pictures.sheet(path, lines, titles, note=note, legend=pictures.legend(spec.scored_names))
