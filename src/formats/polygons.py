"""Polygons -> masks by one rule, that of pycocotools: the parts of an object are united, a part is filled even-odd.

Coordinates are pixels: a pixel (x, y) reaches from x to x + 1, and a polygon has it where its middle lies inside, to a
fifth of a pixel. What lies outside of the image is cut off. A hole is a polygon that runs into itself and out again.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tools.errors import UserError

FAR = 1.0  # how far outside, in sides of the image, a coordinate may lie


def ring(numbers: Any, where: str) -> np.ndarray:
    """Read x, y, x, y, ... or pairs of them -> float64 (N, 2). Raises UserError, beginning with `where`, for others."""
    try:
        points = np.asarray(numbers, np.float64).reshape(-1, 2)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: a polygon is a list of x, y, x, y, ...; got {str(numbers)[:60]}.") from error
    if len(points) < 3:
        raise UserError(f"{where}: a polygon of {len(points)} points; expected 3 or more.")
    if not np.isfinite(points).all():
        raise UserError(f"{where}: a coordinate is no number.")
    return points


def reaches_out(points: np.ndarray, shape: tuple[int, int]) -> bool:
    """Say whether a ring leaves the image of this (H, W)."""
    return bool((points < 0).any() or (points > [shape[1], shape[0]]).any())


def mask_of(rings: Sequence[np.ndarray], shape: tuple[int, int], where: str) -> np.ndarray:
    """Fill rings (N, 2) of x and y and unite them -> uint8 (H, W) of 0 and 1.

    Raises UserError for coordinates that lie farther outside than a side of the image: they are of another one.
    """
    try:
        from pycocotools import mask as coco
    except ImportError as error:
        raise UserError(f"{where}: polygons need pycocotools: pip install pycocotools") from error
    sides = np.array([shape[1], shape[0]])
    for points in rings:
        if (points < -FAR * sides).any() or (points > (1 + FAR) * sides).any():
            x, y = points[np.abs(points / sides - 0.5).max(1).argmax()]
            raise UserError(
                f"{where}: the point {x:.0f}, {y:.0f} lies far outside of the {shape[1]} x {shape[0]} pixels of the "
                "image. Is it of another image, or of another size?"
            )
    parts = coco.frPyObjects([points.ravel().tolist() for points in rings], *shape)
    return np.ascontiguousarray(coco.decode(coco.merge(parts)))


def circle(center: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """Make a ring of the circle around `center` through `edge`, a point each two pixels at most."""
    radius = float(np.hypot(*(edge - center)))
    angles = np.linspace(0, 2 * np.pi, max(32, int(np.ceil(np.pi * radius))), endpoint=False)
    return center + radius * np.stack([np.cos(angles), np.sin(angles)], 1)


def rectangle(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Make a ring of the rectangle with these opposite corners."""
    (left, top), (right, bottom) = np.minimum(one, other), np.maximum(one, other)
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def from_counts(counts: Any, shape: tuple[int, int], where: str) -> np.ndarray:
    """Decode COCO's run lengths, column by column, the first of them background -> uint8 (H, W) of 0 and 1.

    counts: a list, or COCO's compressed text. Raises UserError where they are none, or not of this size.
    """
    if isinstance(counts, (str, bytes)):
        counts = _uncompressed(counts.encode("latin-1", "replace") if isinstance(counts, str) else counts, where)
    try:
        lengths = np.asarray(counts, np.int64).reshape(-1)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{where}: run lengths are whole numbers; got {str(counts)[:60]}.") from error
    pixels = shape[0] * shape[1]
    if (lengths < 0).any() or (lengths > pixels).any() or lengths.sum() != pixels:
        raise UserError(
            f"{where}: run lengths of {lengths.sum():,} pixels, but the image has {shape[1]} x {shape[0]} = {pixels:,}."
        )
    values = np.arange(len(lengths), dtype=np.uint8) & 1
    return np.ascontiguousarray(np.repeat(values, lengths).reshape(shape, order="F"))


def _uncompressed(text: bytes, where: str) -> list[int]:
    """Read COCO's compressed counts: six bits a sign, from 48 on, and from the fourth count on the change to the last
    but one. Raises UserError for other signs, and a count that does not end.
    """
    counts: list[int] = []
    value = shift = 0
    for sign in text:
        bits = sign - 48
        if not 0 <= bits < 64 or shift > 40:
            raise UserError(f"{where}: no compressed run lengths of COCO, by the sign {chr(sign)!r}.")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise UserError(f"{where}: compressed run lengths that break off.")
    return counts
