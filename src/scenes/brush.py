"""Brushes for the rendered data sets: smooth-edged polygons, clouds of noise, light and grain. numpy and cv2 only.

A cover is float32 (H, W): the share of each pixel that a shape covers. Points are (x, y) in pixels; a pixel's centre
has whole coordinates. Colours are RGB from 0 to 255.
"""

import functools
from collections.abc import Sequence

import cv2
import numpy as np

cv2.setNumThreads(0)  # pictures are rendered side by side

SUPERSAMPLING = 4
Random = np.random.Generator
Colour = Sequence[float] | np.ndarray


def cover(shape: tuple[int, int], *polygons: np.ndarray) -> np.ndarray:
    """How much of each pixel the union of the polygons (N, 2) covers: float32 (H, W) in [0, 1]."""
    whole, union = np.zeros(shape, np.float32), len(polygons) > 1
    for points in polygons:
        low = np.clip(np.floor(points.min(0)).astype(int) - 1, 0, shape[::-1])
        high = np.clip(np.ceil(points.max(0)).astype(int) + 2, 0, shape[::-1])
        width, height = high - low
        if width == 0 or height == 0:
            continue
        fine = np.zeros((height * SUPERSAMPLING, width * SUPERSAMPLING), np.uint8)
        corners = ((points - low + 0.5) * SUPERSAMPLING - 0.5) * 16
        cv2.fillPoly(fine, [np.round(corners).astype(np.int32)], 255, shift=4)
        part = cv2.resize(fine, (int(width), int(height)), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        place = whole[low[1] : high[1], low[0] : high[0]]
        np.maximum(place, part, out=place) if union else np.copyto(place, part)
    return whole


def near(points: np.ndarray, margin: float) -> tuple[tuple[slice, slice], np.ndarray]:
    """The part of a picture that holds the points (N, 2) with a margin, and (x, y) of that part's first pixel.

    A small thing is drawn in its part alone: all else would be computed for nothing.
    """
    low = np.clip(np.floor(points.min(0) - margin).astype(int), 0, None)
    high = np.clip(np.ceil(points.max(0) + margin).astype(int), 1, None)
    return (slice(low[1], high[1]), slice(low[0], high[0])), low


def lay(picture: np.ndarray, covered: np.ndarray, colour: Colour) -> None:
    """Lay a colour (C,), or one for each pixel (H, W, C), over a float32 picture (H, W, C) where a cover says so."""
    x, y, width, height = cv2.boundingRect((covered > 0).astype(np.uint8))
    box = slice(y, y + height), slice(x, x + width)
    colour = np.asarray(colour, np.float32)
    picture[box] += covered[box][..., None] * ((colour[box] if colour.ndim == 3 else colour) - picture[box])


def fill(picture: np.ndarray, outline: np.ndarray, colour: Colour, opacity: float = 1.0) -> None:
    """`lay` within an outline (N, 2), computed in its part of the picture alone."""
    part, low = near(outline, 1)
    canvas = picture[part]
    if canvas.size:
        colour = np.asarray(colour, np.float32)
        colour = colour[part] if colour.ndim == 3 else colour
        canvas += opacity * cover(canvas.shape[:2], outline - low)[..., None] * (colour - canvas)


def shade(picture: np.ndarray, covered: np.ndarray, shift: tuple[float, float], blur: float, strength: float) -> None:
    """Darken a picture by the soft shadow of a cover, moved by `shift` (x, y)."""
    x, y, width, height = cv2.boundingRect((covered > 0).astype(np.uint8))
    if not width:
        return
    reach = int(3 * blur + max(abs(shift[0]), abs(shift[1])) + 1)
    left, top = max(x - reach, 0), max(y - reach, 0)
    near = slice(top, y + height + reach), slice(left, x + width + reach)
    part = covered[near]
    moved = cv2.warpAffine(part, np.float32([[1, 0, shift[0]], [0, 1, shift[1]]]), part.shape[::-1])
    picture[near] *= 1 - strength * cv2.GaussianBlur(moved, (0, 0), blur)[..., None]


def clouds(random: Random, shape: tuple[int, int], cell: float, octaves: int = 3) -> np.ndarray:
    """Smooth noise, float32 (H, W) of mean 0 and deviation about 0.5; its coarsest lumps are `cell` pixels wide."""
    whole = np.zeros(shape, np.float32)
    for octave in range(octaves):
        step = max(cell / 2**octave, 1.0)
        grid = random.normal(0, 0.6 / 1.8**octave, (int(shape[0] / step) + 2, int(shape[1] / step) + 2))
        whole += cv2.resize(grid.astype(np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC)
    return whole


def blob(
    random: Random, centre: Colour, radii: tuple[float, float], turn: float = 0.0, wobble: float = 0.0, points: int = 48
) -> np.ndarray:
    """The outline (N, 2) of an ellipse, turned by radians; `wobble` is how uneven it is, as a share of its radius."""
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    radius = np.ones(points)
    for wave in range(2, 6 if wobble else 2):
        radius += wobble / wave * random.normal() * np.cos(wave * angle + random.uniform(0, 2 * np.pi))
    outline = np.stack([radii[0] * radius * np.cos(angle), radii[1] * radius * np.sin(angle)], axis=1)
    return outline @ rotation(turn).T + np.asarray(centre)


def rotation(turn: float) -> np.ndarray:
    """The 2 x 2 matrix that turns a column vector by radians."""
    return np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])


def box(left: float, top: float, right: float, bottom: float, radius: float = 0.0) -> np.ndarray:
    """A rectangle's outline with round corners."""
    angle = np.linspace(0, np.pi / 2, 7 if radius else 1)
    arc = radius * (np.stack([np.cos(angle), np.sin(angle)], axis=1) if radius else np.zeros((1, 2)))
    corners = ((right, bottom, 0), (left, bottom, 1), (left, top, 2), (right, top, 3))
    inward = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    return np.concatenate(
        [
            np.array([x, y]) + radius * np.array(move) + arc @ rotation(quarter * np.pi / 2).T
            for (x, y, quarter), move in zip(corners, inward, strict=True)
        ]
    )


def band(line: np.ndarray, width: float) -> np.ndarray:
    """The outline of a line (N, 2) drawn with a pen of `width` pixels."""
    along = np.gradient(line, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.maximum(np.linalg.norm(along, axis=1)[:, None], 1e-9)
    return np.concatenate([line + across * width / 2, (line - across * width / 2)[::-1]])


@functools.lru_cache(64)
def mesh(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """x and y of each pixel, float32 (H, W) each; not to be changed."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    return x, y


def finish(picture: np.ndarray, random: Random, blur: float, grain: float) -> np.ndarray:
    """The lens's blur and the sensor's grain (a deviation in levels): float32 (H, W, C) -> uint8."""
    soft = cv2.GaussianBlur(picture, (0, 0), blur) if blur else picture
    soft = soft + grain * random.standard_normal(picture.shape, np.float32)
    return np.clip(soft + 0.5, 0, 255).astype(np.uint8)


def crisp(covered: np.ndarray) -> np.ndarray:
    """0/1 (H, W): pixels that are at least half covered."""
    return (covered >= 0.5).astype(np.uint8)
