"""Pictures for people: overlays, contact sheets, the balance of folds. No torch; matplotlib is imported where used."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

HIT, EXTRA, MISSED = (60, 190, 90), (230, 70, 60), (60, 110, 240)  # RGB: true positive, false positive, false negative
LEGEND = "green: right, red: predicted but not true, blue: missed"


def thumbnail(image: np.ndarray, width: int) -> np.ndarray:
    """uint8 (H, W[, 3]) -> RGB of `width` pixels, height in proportion (at most 1.5 times the width)."""
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    height = min(round(image.shape[0] * width / image.shape[1]), width * 3 // 2)
    return cv2.resize(image, (width, max(1, height)), interpolation=cv2.INTER_AREA)


def overlay(image: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int] = HIT, alpha: float = 0.45) -> np.ndarray:
    """The image (H, W, 3) with the mask's pixels tinted and its outline drawn."""
    tinted = image.copy()
    inside = mask > 0
    tinted[inside] = (tinted[inside] * (1 - alpha) + np.array(colour) * alpha).astype(np.uint8)
    outline, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.ascontiguousarray(tinted), outline, -1, colour, max(1, image.shape[1] // 400))


def errors(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """The image in grey with hits, extra and missed pixels coloured."""
    shown = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2) // 2 + 64
    truth, prediction = truth > 0, prediction > 0
    for where, colour in ((truth & prediction, HIT), (prediction & ~truth, EXTRA), (truth & ~prediction, MISSED)):
        shown[where] = (shown[where] * 0.35 + np.array(colour) * 0.65).astype(np.uint8)
    return shown


def sheet(
    path: Path, rows: list[tuple[str, list[np.ndarray]]], titles: list[str], width: int = 260, note: str = ""
) -> None:
    """Write a contact sheet: one row a caption with its pictures (uint8, any size), `titles` above the columns."""
    gap, line = 8, 16
    cells = [(caption, [thumbnail(picture, width) for picture in pictures]) for caption, pictures in rows]
    heights = [max(picture.shape[0] for picture in pictures) + line + gap for _, pictures in cells]
    columns = max(len(pictures) for _, pictures in cells)
    canvas = Image.new("RGB", (columns * (width + gap) + gap, sum(heights) + 2 * line + gap), (250, 250, 248))
    draw = ImageDraw.Draw(canvas)
    for column, title in enumerate(titles):
        draw.text((gap + column * (width + gap), 2), title, fill=(20, 20, 20))
    draw.text((gap, line), note, fill=(110, 110, 110))
    top = 2 * line + gap // 2
    for (caption, pictures), height in zip(cells, heights, strict=True):
        draw.text((gap, top), caption, fill=(60, 60, 60))
        for column, picture in enumerate(pictures):
            canvas.paste(Image.fromarray(picture), (gap + column * (width + gap), top + line))
        top += height
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path)


def balance(path: Path, kfold: np.ndarray, areas: np.ndarray, groups: np.ndarray) -> None:
    """Write the folds' balance: images and groups per fold, and how large their masks are."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    folds = np.unique(kfold)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    counts = [int((kfold == fold).sum()) for fold in folds]
    bars = left.bar(range(len(folds)), counts, color="#4878a8")
    left.bar_label(
        bars,
        [f"{n}\n{len(set(groups[kfold == fold]))} groups" for n, fold in zip(counts, folds, strict=True)],
        padding=2,
        fontsize=8,
    )
    left.set(xlabel="fold", ylabel="images", xticks=range(len(folds)), xticklabels=folds, ylim=(0, max(counts) * 1.25))
    right.boxplot(
        [areas[kfold == fold] * 100 for fold in folds],
        tick_labels=folds,
        whis=(0, 100),
        medianprops={"color": "#c04040"},
    )
    right.set(xlabel="fold", ylabel="foreground, % of the image", title="mask area: median, quartiles, extremes")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
