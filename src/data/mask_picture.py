"""A picture of what the masks mean: eight pairs, each class in a color of its own, and the legend."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.dataspec import DataSpec
from formats import mask_values
from formats.mask_reference import MaskReference
from tools import pictures

if TYPE_CHECKING:
    import pandas as pd

PAIRS, IN_A_ROW, WIDTH = 8, 2, 260
_NOT_LABELED, _GROUND = (190, 190, 190), (20, 20, 24)


def draw(path: Path, frame: "pd.DataFrame", areas: np.ndarray, root: Path, spec: DataSpec, max_pixels: int) -> str:
    """Write the picture of eight pairs, those that show the rarest classes first -> the legend in words.

    areas: (N, S) share of each scored class in each row of `frame`, in its order.
    """
    from data.level_statistics import eight_bits

    rows = typical_rows(areas)
    cells: list[tuple[str, list[np.ndarray]]] = []
    for start in range(0, len(rows), IN_A_ROW):
        some = rows[start : start + IN_A_ROW]
        names, drawn = [], []
        for row in some:
            image, mask = frame["image"].iloc[row], frame["mask"].iloc[row]
            pixels, labels = spec.read_pair(root, image, mask, max_pixels)
            drawn += [pictures.as_rgb(eight_bits(pixels)), _colored(labels, spec, root, mask, max_pixels)]
            names.append(image)
        cells.append(("   |   ".join(names), drawn))
    legend = _legend(spec, areas)
    titles = ["image", "mask"] * min(IN_A_ROW, len(rows))
    pictures.sheet(path, cells, titles, WIDTH, "", legend)
    return ", ".join(name for name, _ in legend[:6]) + (", ..." if len(legend) > 6 else "")


def typical_rows(areas: np.ndarray) -> list[int]:
    """Choose at most eight rows: for each class, the rarest first, its median mask; then others, evenly."""
    shown = [index for index in np.argsort((areas > 0).sum(0), kind="stable") if (areas[:, index] > 0).any()]
    chosen: list[int] = []
    while len(chosen) < min(PAIRS, int((areas.sum(1) > 0).sum())):
        before = len(chosen)
        for index in shown:
            filled = [row for row in np.flatnonzero(areas[:, index] > 0) if row not in chosen]
            if filled and len(chosen) < PAIRS:
                chosen.append(int(sorted(filled, key=lambda row: areas[row, index])[len(filled) // 2]))
        if len(chosen) == before:
            break
    return sorted(chosen)


def _colored(mask: np.ndarray, spec: DataSpec, root: Path, reference: str, max_pixels: int) -> np.ndarray:
    """Draw a mask (K, H, W) as RGB: flat colors of the classes, or of the objects where a file numbers them."""
    canvas = np.full((*mask.shape[1:], 3), _GROUND, np.uint8)
    where = MaskReference.parse(reference)
    if spec.objects == "labels" and where.kind == "path" and (root / where.path).is_file():
        labels = mask_values.numbered(root / where.path, max_pixels)
        canvas[labels > 0] = np.array(pictures.PALETTE, np.uint8)[labels[labels > 0] % len(pictures.PALETTE)]
        return canvas
    for index, plane in enumerate(spec.class_planes(mask)):
        canvas[plane > 0] = pictures.color_of(index, len(spec.scored))
    labeled = spec.labeled(mask)
    if labeled is not None:
        canvas[~labeled] = _NOT_LABELED
    return canvas


def _legend(spec: DataSpec, areas: np.ndarray) -> list[tuple[str, tuple[int, int, int]]]:
    """Name each class with its value and its share of the pixels, the background, and what is not labeled."""
    if spec.objects == "labels":
        return [("a color an object", pictures.PALETTE[0]), ("background", _GROUND)]
    keys = [",".join(map(str, color)) for color in spec.colors] or list(map(str, spec.values))
    value = dict(zip(spec.classes, keys, strict=False))
    entries = [
        (_entry(name, value, f"{100 * areas[:, place].mean():.2g}%"), pictures.color_of(place, len(spec.scored)))
        for place, name in enumerate(spec.scored_names)
    ]
    if len(spec.classes) > len(spec.scored) or spec.task != "multiclass":
        entries.append(("background", _GROUND))
    if spec.ignore and spec.task == "multiclass":
        entries.append((f"not labeled ({','.join(map(str, spec.ignore))})", _NOT_LABELED))
    return entries


def _entry(name: str, value: dict[str, str], share: str) -> str:
    return f"{name} ({value[name]}) {share}" if name in value else f"{name} {share}"
