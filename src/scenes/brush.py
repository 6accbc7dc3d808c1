"""Brushes for the rendered data sets: smooth-edged outlines, clouds of noise, shadow and grain. numpy and cv2 only.

A cover is float32 (H, W): the share of each pixel that a shape covers. Outlines are points (x, y) in pixels; a pixel's
center has whole coordinates. Colors are RGB from 0 to 255, one for all (C,) or one a pixel (H, W, C).
"""

from collections.abc import Sequence

import cv2
import numpy as np

cv2.setNumThreads(0)  # pictures are rendered side by side

SUPERSAMPLING = 4
Random = np.random.Generator
Color = Sequence[float] | np.ndarray


def rgb(color: Color) -> np.ndarray:
    """Turn a color into float32 (C,), to reckon with."""
    return np.asarray(color, np.float32)


def cover(shape: tuple[int, int], outline: np.ndarray) -> np.ndarray:
    """Measure how much of each pixel lies within an outline (N, 2): float32 (H, W) in [0, 1]."""
    fine = np.zeros((shape[0] * SUPERSAMPLING, shape[1] * SUPERSAMPLING), np.uint8)
    corners = ((outline + 0.5) * SUPERSAMPLING - 0.5) * 16  # four bits below the pixel
    cv2.fillPoly(fine, [np.round(corners).astype(np.int32)], 255, shift=4)
    return cv2.resize(fine, shape[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def crisp(covered: np.ndarray) -> np.ndarray:
    """Mark the pixels that are at least half covered: 0/1 (H, W)."""
    return (covered >= 0.5).astype(np.uint8)


def lay(picture: np.ndarray, covered: np.ndarray, color: Color) -> None:
    """Lay a color over a float32 picture (H, W, C) where a cover says so."""
    picture += covered[..., None] * (np.asarray(color, np.float32) - picture)


def fill(picture: np.ndarray, outline: np.ndarray, color: Color, opacity: float = 1.0) -> None:
    """Lay a color over what lies within an outline (N, 2)."""
    lay(picture, opacity * cover(picture.shape[:2], outline), color)


def shade(picture: np.ndarray, covered: np.ndarray, blur: float, strength: float) -> None:
    """Darken a picture by the soft shadow of a cover, which falls to the lower right."""
    moved = cv2.warpAffine(covered, np.array([[1, 0, 0.6 * blur], [0, 1, blur]], np.float32), covered.shape[::-1])
    picture *= 1 - strength * cv2.GaussianBlur(moved, (0, 0), blur)[..., None]


def clouds(random: Random, shape: tuple[int, int], cell: float, octaves: int = 3) -> np.ndarray:
    """Make smooth noise, float32 (H, W) of mean 0 and deviation about 0.5, its coarsest lumps `cell` pixels wide."""
    whole = np.zeros(shape, np.float32)
    for octave in range(octaves):
        step = max(cell / 2**octave, 1.0)
        grid = random.normal(0, 0.6 / 1.8**octave, (int(shape[0] / step) + 2, int(shape[1] / step) + 2))
        whole += cv2.resize(grid.astype(np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC)
    return whole


def finish(picture: np.ndarray, random: Random, blur: float, grain: float) -> np.ndarray:
    """Add the lens's blur and the sensor's grain (a deviation in levels): float32 (H, W, C) -> uint8."""
    soft = cv2.GaussianBlur(picture, (0, 0), blur) if blur else picture
    soft = soft + grain * random.standard_normal(picture.shape, np.float32)
    return np.clip(soft + 0.5, 0, 255).astype(np.uint8)


def blob(
    random: Random, center: Color, radii: Sequence[float] | np.ndarray, turn: float = 0, wobble: float = 0
) -> np.ndarray:
    """Outline (N, 2) an ellipse, turned by radians; `wobble` is how uneven it is, as a share of its radius."""
    angle, radius = np.linspace(0, 2 * np.pi, 48, endpoint=False), np.ones(48)
    for wave in range(2, 6 if wobble else 2):
        radius += wobble / wave * random.normal() * np.cos(wave * angle + random.uniform(0, 2 * np.pi))
    outline = np.stack([radii[0] * radius * np.cos(angle), radii[1] * radius * np.sin(angle)], axis=1)
    return outline @ rotation(turn).T + np.asarray(center)


def rotation(turn: float) -> np.ndarray:
    """Make the 2 x 2 matrix that turns a column vector by radians."""
    return np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])


def box(left: float, top: float, right: float, bottom: float, radius: float = 0.0) -> np.ndarray:
    """Outline (N, 2) a rectangle with round corners."""
    angle = np.linspace(0, np.pi / 2, 7 if radius else 1)
    arc = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    low, high = np.array([left, top]) + radius, np.array([right, bottom]) - radius
    corners = (high, (low[0], high[1]), low, (high[0], low[1]))
    return np.concatenate([corner + arc @ rotation(turn * np.pi / 2).T for turn, corner in enumerate(corners)])
