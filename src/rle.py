"""Masks as run lengths and back, in the dialects of Kaggle's competitions, and the rows of a submission.

A run is "start length", start counted from 1. Dialects differ in the pixels' order, the columns and in what a row is.
Sources: kaggle.com/c/carvana-image-masking-challenge and kaggle.com/c/data-science-bowl-2018, "Evaluation".
"""

from dataclasses import dataclass

import cv2
import numpy as np

from errors import UserError


@dataclass(frozen=True)
class Dialect:
    """How one competition writes its masks down."""

    name: str
    order: str  # "C": left to right, then down; "F": down, then left to right
    columns: tuple[str, str]
    with_suffix: bool  # the id keeps the file's suffix
    per_object: bool  # one row for every connected object instead of one for the image


DIALECTS = {
    "carvana": Dialect("carvana", "C", ("img", "rle_mask"), with_suffix=True, per_object=False),
    "dsb2018": Dialect("dsb2018", "F", ("ImageId", "EncodedPixels"), with_suffix=False, per_object=True),
}


def encode(mask: np.ndarray, order: str) -> str:
    """Non-zero pixels of (H, W) -> "start length start length ...", "" for an empty mask."""
    flat = np.ravel(mask != 0, order=order)
    edges = np.empty(flat.size + 1, bool)
    edges[0], edges[-1] = flat[0], flat[-1]
    np.not_equal(flat[1:], flat[:-1], out=edges[1:-1])
    runs = np.flatnonzero(edges).reshape(-1, 2)  # start and end of each run, from 0
    runs[:, 1] -= runs[:, 0]
    runs[:, 0] += 1
    return " ".join(map(str, runs.ravel().tolist()))


def decode(text: str, shape: tuple[int, int], order: str, where: str = "run lengths") -> np.ndarray:
    """Run lengths -> uint8 (H, W) of 0 and 1.

    Raises UserError, beginning with `where`, for an odd count, something that is no number, a start or length below 1,
    runs that overlap or are unsorted, and runs beyond the image.
    """
    try:
        numbers = np.array(text.split(), dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{where}: run lengths are whole numbers, got '{text[:40]}'.") from error
    if numbers.size % 2:
        raise UserError(f"{where}: {numbers.size} numbers; run lengths come in pairs of start and length.")
    starts, lengths = numbers[0::2] - 1, numbers[1::2]
    if (starts < 0).any() or (lengths < 1).any():
        raise UserError(f"{where}: starts and lengths count from 1, got '{text[:40]}'.")
    pixels = shape[0] * shape[1]
    if (starts >= pixels).any() or (lengths > pixels - starts).any():
        raise UserError(f"{where}: a run ends beyond the {shape[1]} x {shape[0]} pixels of the image.")
    ends = starts + lengths
    if (starts[1:] < ends[:-1]).any():
        raise UserError(f"{where}: runs overlap or are not sorted.")
    flat = np.zeros(pixels, np.uint8)
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        flat[start:end] = 1
    return flat.reshape(shape, order=order)


def rows(image_id: str, mask: np.ndarray, dialect: Dialect) -> list[tuple[str, str]]:
    """The submission's rows for one image: one, or one per connected object (8 neighbours).

    An empty mask is one empty row.
    """
    if not dialect.per_object or not mask.any():
        return [(image_id, encode(mask, dialect.order))]
    return [(image_id, text) for text in encode_objects(mask, dialect.order)]


def encode_objects(mask: np.ndarray, order: str) -> list[str]:
    """`encode` of every connected object (8 neighbours), each within its own bounding box's cost."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    height, width = mask.shape
    texts = []
    for label in range(1, count):
        x, y, w, h, _ = stats[label]
        part = labels[y : y + h, x : x + w] == label
        # runs never cross the edge of the box in the scanned direction, so only the starts need moving
        pairs = np.array(encode(_framed(part, order), order).split(), dtype=np.int64).reshape(-1, 2)
        line, offset = np.divmod(pairs[:, 0] - 1, (h if order == "F" else w) + 1)
        if order == "F":
            pairs[:, 0] = (x + line) * height + y + offset + 1
        else:
            pairs[:, 0] = (y + line) * width + x + offset + 1
        texts.append(" ".join(map(str, _joined(pairs).ravel().tolist())))
    return texts


def _framed(part: np.ndarray, order: str) -> np.ndarray:
    """One empty line at the end of each scan line, so that no run goes on into the next one."""
    return np.pad(part, ((0, 1), (0, 0)) if order == "F" else ((0, 0), (0, 1)))


def _joined(pairs: np.ndarray) -> np.ndarray:
    """Merge runs that touch, as where an object reaches both edges of the image."""
    new = np.ones(len(pairs), bool)
    new[1:] = pairs[1:, 0] != pairs[:-1, 0] + pairs[:-1, 1]
    return np.stack([pairs[new, 0], np.add.reduceat(pairs[:, 1], np.flatnonzero(new))], axis=1)
