"""Pictures for people: overlays, contact sheets, the balance of folds. No torch; matplotlib is imported where used."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from tools.files import atomic_write

HIT, EXTRA, MISSED = (60, 190, 90), (230, 70, 60), (60, 110, 240)  # RGB: true positive, false positive, false negative
PALETTE = (  # of classes: distinct for most eyes, Okabe and Ito's and some more
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167), (0, 114, 178),
    (120, 94, 240), (148, 203, 61), (166, 86, 40), (250, 110, 130), (90, 200, 190),
)  # fmt: skip
LEGEND = "green: right, red: predicted but not true, blue: missed"
PAPER, INK, GRAY = (250, 250, 248), (25, 25, 28), (105, 105, 110)


def thumbnail(image: np.ndarray, width: int) -> np.ndarray:
    """Return uint8 (H, W[, 3]) as RGB of `width` pixels, height in proportion (at most 1.5 times the width)."""
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    height = min(round(image.shape[0] * width / image.shape[1]), width * 3 // 2)
    return cv2.resize(image, (width, max(1, height)), interpolation=cv2.INTER_AREA)


def overlay(image: np.ndarray, mask: np.ndarray, color: tuple[int, int, int] = HIT, alpha: float = 0.45) -> np.ndarray:
    """Return the image (H, W, 3) with the mask's pixels tinted and its outline drawn."""
    tinted = image.copy()
    inside = mask > 0
    tinted[inside] = (tinted[inside] * (1 - alpha) + np.array(color) * alpha).astype(np.uint8)
    outline, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.ascontiguousarray(tinted), outline, -1, color, max(1, image.shape[1] // 400))


def as_rgb(image: np.ndarray) -> np.ndarray:
    """Return uint8 (H, W, C) as RGB: gray repeated, the first three of four channels, the middle one of a stack."""
    channels = image.shape[2]
    if channels in (3, 4):
        return np.ascontiguousarray(image[..., :3])
    return np.repeat(image[..., channels // 2, None], 3, axis=2)


def color_of(index: int, classes: int) -> tuple[int, int, int]:
    """Return the RGB color of a class: green where there is only one."""
    return HIT if classes == 1 else PALETTE[index % len(PALETTE)]


def overlays(image: np.ndarray, masks: np.ndarray, alpha: float = 0.45) -> np.ndarray:
    """Return RGB (H, W, 3) with each class of `masks` (S, H, W) tinted and outlined in its own color."""
    for index, mask in enumerate(masks):
        image = overlay(image, mask, color_of(index, len(masks)), alpha)
    return image


def legend(names: tuple[str, ...]) -> list[tuple[str, tuple[int, int, int]]]:
    """Return each class with its color, for `sheet`; nothing where there is only one."""
    return [(name, color_of(index, len(names))) for index, name in enumerate(names)] if len(names) > 1 else []


def errors(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Return the image in gray, RGB (H, W, 3), with right, extra and missed pixels of 0/1 (S, H, W) colored.

    A pixel where one class is missed and another one is predicted instead counts as extra.
    """
    shown = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2) // 2 + 64
    truth, prediction = truth > 0, prediction > 0
    extra, missed = (prediction & ~truth).any(0), (truth & ~prediction).any(0)
    right = (truth & prediction).any(0) & ~extra & ~missed
    for where, color in ((right, HIT), (missed, MISSED), (extra, EXTRA)):
        shown[where] = (shown[where] * 0.35 + np.array(color) * 0.65).astype(np.uint8)
    return shown


def sheet(
    path: Path,
    rows: list[tuple[str, list[np.ndarray]]],
    titles: list[str],
    width: int = 260,
    note: str = "",
    legend: list[tuple[str, tuple[int, int, int]]] = [],  # noqa: B006 (never changed)
) -> None:
    """Write a contact sheet: one row a caption with its pictures (uint8, any size), `titles` above the columns.

    `legend` names classes beside patches of their color, in the line of `note`.
    """
    gap, line = 8, 16
    cells = [(caption, [thumbnail(picture, width) for picture in pictures]) for caption, pictures in rows]
    heights = [max(picture.shape[0] for picture in pictures) + line + gap for _, pictures in cells]
    columns = max(len(pictures) for _, pictures in cells)
    canvas = Image.new("RGB", (columns * (width + gap) + gap, sum(heights) + 2 * line + gap), (250, 250, 248))
    draw = ImageDraw.Draw(canvas)
    for column, title in enumerate(titles):
        draw.text((gap + column * (width + gap), 2), title, fill=(20, 20, 20))
    draw.text((gap, line), note, fill=(110, 110, 110))
    left = gap + (int(draw.textlength(note)) + 2 * gap if note else 0)
    for name, color in legend:
        draw.rectangle((left, line + 2, left + 10, line + 12), fill=color)
        draw.text((left + 14, line), name, fill=(60, 60, 60))
        left += 14 + int(draw.textlength(name)) + 2 * gap
    top = 2 * line + gap // 2
    for (caption, pictures), height in zip(cells, heights, strict=True):
        draw.text((gap, top), caption, fill=(60, 60, 60))
        for column, picture in enumerate(pictures):
            canvas.paste(Image.fromarray(picture), (gap + column * (width + gap), top + line))
        top += height
    with atomic_write(path) as temporary:
        canvas.save(temporary)


def outlines(image: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return RGB (H, W, 3) with a line along the inside of each class of `masks`, dark-edged for a single class.

    masks: bool (S, kH, kW), k times as large as the image, so that the lines are smooth. No line is drawn where an
    object leaves the image.
    """
    shown = cv2.resize(image, masks.shape[:0:-1], interpolation=cv2.INTER_LINEAR)
    line = max(2, masks.shape[2] // 130)
    around = np.ones((2 * line + 1, 2 * line + 1), np.uint8)
    for index, mask in enumerate(masks.astype(np.uint8)):
        if len(masks) == 1:
            shown[cv2.dilate(mask, around[line:, line:]) != cv2.erode(mask, around, borderValue=1)] = INK
        shown[(mask > 0) & (cv2.erode(mask, around, borderValue=1) == 0)] = color_of(index, len(masks))
    return cv2.resize(shown, image.shape[1::-1], interpolation=cv2.INTER_AREA)


def heat(probability: np.ndarray) -> np.ndarray:
    """Return probabilities in [0, 1] (S, H, W) as RGB: a heat map of one class, or the mixed colors of several.

    0 is black in both; 1 is the heat map's lightest color, or the class's own. Colors are mixed as light.
    """
    if len(probability) == 1:
        p8 = (probability[0] * 255 + 0.5).astype(np.uint8)
        return cv2.cvtColor(cv2.applyColorMap(p8, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    dark = np.ones((*probability.shape[1:], 3), np.float32)
    for index, plane in enumerate(probability):
        dark *= 1 - plane[..., None] * (np.array(color_of(index, len(probability)), np.float32) / 255)
    return ((1 - dark) * 255 + 0.5).astype(np.uint8)


def balance(path: Path, kfold: np.ndarray, areas: np.ndarray, groups: np.ndarray, classes: tuple[str, ...]) -> None:
    """Write a picture of the folds' balance: images and groups per fold, the masks' sizes, and which classes appear.

    areas (N, S): the share of each of `classes` in each image.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    folds, several = np.unique(kfold), len(classes) > 1
    figure, axes = plt.subplots(1, 2 + several, figsize=(9 + 4.5 * several, 3.6), layout="constrained")
    counts = [int((kfold == fold).sum()) for fold in folds]
    bars = axes[0].bar(range(len(folds)), counts, color="#4878a8")
    axes[0].bar_label(
        bars,
        [f"{n}\n{len(set(groups[kfold == fold]))} groups" for n, fold in zip(counts, folds, strict=True)],
        padding=2,
        fontsize=8,
    )
    axes[0].set(
        xlabel="fold", ylabel="images", xticks=range(len(folds)), xticklabels=folds, ylim=(0, max(counts) * 1.25)
    )
    axes[1].boxplot(
        [areas[kfold == fold].sum(1) * 100 for fold in folds],
        tick_labels=folds,
        whis=(0, 100),
        medianprops={"color": "#c04040"},
    )
    axes[1].set(xlabel="fold", ylabel="foreground, % of the image", title="mask area: median, quartiles, extremes")
    if several:
        wide = 0.8 / len(classes)
        for index, name in enumerate(classes):
            shown = [int((areas[kfold == fold, index] > 0).sum()) for fold in folds]
            color = tuple(part / 255 for part in color_of(index, len(classes)))
            axes[2].bar(np.arange(len(folds)) - 0.4 + (index + 0.5) * wide, shown, wide, color=color, label=name)
        axes[2].set(xlabel="fold", ylabel="images that show the class", xticks=range(len(folds)), xticklabels=folds)
        if len(classes) <= 12:
            axes[2].legend(fontsize=7)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)
