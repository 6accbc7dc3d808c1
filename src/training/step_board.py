"""Contact sheets to show to others: a heading, a legend and rows of pictures. No torch; matplotlib for its font."""

import functools
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tools.pictures import GRAY, INK, PAPER

Patch = tuple[int, int, int] | np.ndarray  # RGB, or a strip of pixels uint8 (14, W, 3)
Entry = tuple[int, str, Patch]  # of a legend's line: x, name, patch


def board(
    rows: list[tuple[str, list[np.ndarray]]],
    titles: list[str],
    heading: str,
    note: str,
    legend: list[tuple[str, Patch]],
) -> Image.Image:
    """Draw a page: a heading, a note, a legend, and rows of pictures of equal width, each with a caption.

    `legend`: names beside a patch of their color, or beside a strip of pixels (H, W, 3).
    """
    margin, gap, width = 28, 12, rows[0][1][0].shape[1]
    page = len(titles) * (width + gap) - gap
    lines = _legend_lines(legend, page)
    top = margin + 62 + 24 * len(lines) + 28  # heading, note, legend, titles
    heights = [max(picture.shape[0] for picture in pictures) + 34 for _, pictures in rows]
    canvas = Image.new("RGB", (page + 2 * margin, top + sum(heights) + margin - 14), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((margin, margin - 6), _cut(heading, page, 22, True), INK, _font(22, True))
    draw.text((margin, margin + 30), _cut(note, page, 14), GRAY, _font(14))
    for number, line in enumerate(lines):
        _draw_legend(canvas, (margin, margin + 60 + 24 * number), line)
    for column, title in enumerate(titles):
        draw.text((margin + column * (width + gap), top - 24), _cut(title, width, 14, True), INK, _font(14, True))
    for (caption, pictures), height in zip(rows, heights, strict=True):
        for column, picture in enumerate(pictures):
            canvas.paste(Image.fromarray(picture), (margin + column * (width + gap), top))
        draw.text((margin, top + height - 30), _cut(caption, page, 13), GRAY, _font(13))
        top += height
    return canvas


@functools.cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which comes with matplotlib on every computer and knows Greek and Cyrillic class names."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), size)


def _cut(text: str, width: int, size: int, bold: bool = False) -> str:
    """Return the text, with an ellipsis where it is wider than `width` pixels."""
    font = _font(size, bold)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _legend_lines(legend: list[tuple[str, Patch]], width: int) -> list[list[Entry]]:
    """Break a legend into lines of at most `width` pixels."""
    lines: list[list[Entry]] = []
    left = width + 1
    for name, patch in legend:
        shown = _cut(name, width // 2, 13)
        wide = _patch_width(patch) + 8 + int(_font(13).getlength(shown)) + 22
        if left + wide > width + 22:
            lines.append([])
            left = 0
        lines[-1].append((left, shown, patch))
        left += wide
    return lines


def _patch_width(patch: Patch) -> int:
    return patch.shape[1] if isinstance(patch, np.ndarray) else 14


def _draw_legend(canvas: Image.Image, place: tuple[int, int], line: list[Entry]) -> None:
    draw = ImageDraw.Draw(canvas)
    for left, name, patch in line:
        x, y = place[0] + left, place[1]
        if isinstance(patch, np.ndarray):
            canvas.paste(Image.fromarray(patch), (x, y))
        else:
            draw.rounded_rectangle((x, y, x + 13, y + 13), 3, fill=patch)
        draw.text((x + _patch_width(patch) + 8, y - 2), name, INK, _font(13))
