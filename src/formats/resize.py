"""Images and masks between their own size and a network's frame: halving, one bilinear step, and back."""

from collections.abc import Callable

import cv2
import numpy as np

from formats.decode import MOST_HALVINGS

RESIZES = ("stretch", "fit", "none")


def values_present(values: np.ndarray) -> np.ndarray:
    """List the values that occur in uint8 (H, W), ascending; numpy's sorting takes 17 times as long."""
    return np.flatnonzero(cv2.calcHist([values], [0], None, [256], [0, 256]))


def content_box(original: tuple[int, int], size: tuple[int, int], resize: str) -> tuple[int, int, int, int]:
    """Find where an image of `original` (H, W) lies in the network's frame: top, left, height, width.

    `size` is IMAGE_SIZE; `resize` is stretch (fills the frame), fit (keeps the aspect, centered) or none (own size).
    """
    if resize == "none":
        return 0, 0, *original
    if resize == "stretch":
        return 0, 0, *size
    scale = min(size[0] / original[0], size[1] / original[1])
    height, width = (max(1, round(side * scale)) for side in original)
    return (size[0] - height) // 2, (size[1] - width) // 2, height, width


def _by_fours(change: Callable[[np.ndarray], np.ndarray], array: np.ndarray) -> np.ndarray:
    """Let OpenCV work on (H, W[, C]): it takes four channels at most, and drops the axis of a single one."""
    if array.ndim == 2:
        return change(array)
    parts = [change(np.ascontiguousarray(array[..., first : first + 4])) for first in range(0, array.shape[2], 4)]
    parts = [part if part.ndim == 3 else part[..., None] for part in parts]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, 2)


def _scaled(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (H, W[, C]) to `size` by `resize_steps`.

    OpenCV's area averaging for broken ratios takes seven times as long as this, and twice as long as decoding a JPEG.
    """
    for step, method in resize_steps(array.shape[:2], size):
        array = _resized(array, step, method)
    return array


def _resized(array: np.ndarray, size: tuple[int, int], method: int) -> np.ndarray:
    return _by_fours(lambda part: cv2.resize(part, size[::-1], interpolation=method), array)


def resize_steps(shape: tuple[int, ...], size: tuple[int, int]) -> list[tuple[tuple[int, int], int]]:
    """Plan steps ((H, W), OpenCV's interpolation) from `shape` to `size`: blocks are averaged, broken rests bilinear.

    Halved while both sides are even and at least twice as long; then bilinear, by less than a factor of 2, to a side
    times a power of two, and halved again. A picture's levels of detail as Williams has them (Pyramidal parametrics,
    SIGGRAPH 1983). The first halvings of a JPEG are its decoder's (DataSpec.read_frames).
    """
    (height, width), (new_height, new_width) = shape, size
    halves = [(height >> n, width >> n) for n in range(halving_count(shape, size) + 1)]
    steps, last = [(half, cv2.INTER_AREA) for half in halves[1:]], halves[-1]
    tall, wide = _doubled(new_height, last[0]), _doubled(new_width, last[1])
    if (tall, wide) != last:
        steps.append(((tall, wide), cv2.INTER_LINEAR))
    while (tall, wide) != (new_height, new_width):
        tall, wide = tall // 2 if tall > new_height else tall, wide // 2 if wide > new_width else wide
        steps.append(((tall, wide), cv2.INTER_AREA))
    return steps


def _doubled(side: int, most: int) -> int:
    """Double `side` as often as it stays at most `most`."""
    return side << max(0, (most // side).bit_length() - 1)


def halving_count(shape: tuple[int, ...], size: tuple[int, int]) -> int:
    """Count how often both sides are even and at least twice as long as those of `size`."""
    often = 0
    while all(old >> often & 1 == 0 and old >> often >= 2 * new for old, new in zip(shape, size, strict=True)):
        often += 1
    return often


def halvings(shape: tuple[int, int], size: tuple[int, int], resize: str) -> int:
    """Count how often a decoder may halve (H, W) for the network: as often as `resize_steps` begins with it."""
    return min(MOST_HALVINGS, halving_count(shape, content_box(shape, size, resize)[2:]))


def image_to_network(image: np.ndarray, size: tuple[int, int], resize: str) -> np.ndarray:
    """Turn uint8 (H, W, C) into uint8 (h, w, C) as the network sees it; `fit` repeats the border outwards."""
    top, left, height, width = content_box(image.shape[:2], size, resize)
    scaled = _scaled(image, (height, width))
    if (height, width) == tuple(size) or resize == "none":
        return scaled
    sides = top, size[0] - height - top, left, size[1] - width - left
    return _by_fours(lambda part: cv2.copyMakeBorder(part, *sides, cv2.BORDER_REPLICATE), scaled)


def coverage_to_network(mask: np.ndarray, size: tuple[int, int], resize: str) -> np.ndarray:
    """Turn 0/1 (H, W) into uint8 (h, w), 255 where all of a pixel was foreground; `fit` pads with background."""
    top, left, height, width = content_box(mask.shape, size, resize)
    scaled = _scaled(mask * np.uint8(255), (height, width))
    if (height, width) == tuple(size) or resize == "none":
        return scaled
    framed = np.zeros(size, np.uint8)
    framed[top : top + height, left : left + width] = scaled
    return framed


def mask_to_network(mask: np.ndarray, size: tuple[int, int], resize: str) -> np.ndarray:
    """Turn 0/1 (H, W) into 0/1 (h, w): a pixel is foreground where at least half of it was."""
    return (coverage_to_network(mask, size, resize) >= 128).astype(np.uint8)


def labels_to_network(labels: np.ndarray, size: tuple[int, int], resize: str, ignore: int = 255) -> np.ndarray:
    """Shrink class indices uint8 (H, W), `ignore` where not labeled -> uint8 (h, w); `fit` pads with `ignore`.

    Each small pixel takes what covers most of it; of equals the highest class (as mask_to_network), `ignore` last.
    """
    top, left, height, width = content_box(labels.shape, size, resize)
    if labels.shape == (height, width):
        scaled = labels
    else:
        present = values_present(labels)
        order = sorted(present.tolist(), key=lambda value: (value != ignore, value))
        scaled, most = np.full((height, width), order[0], np.uint8), np.zeros((height, width), np.uint8)
        for value in order if len(order) > 1 else ():
            cover = _scaled((labels == value) * np.uint8(255), (height, width))
            won = cover >= most
            scaled[won], most[won] = value, cover[won]
    if (height, width) == tuple(size) or resize == "none":
        return scaled
    framed = np.full(size, ignore, np.uint8)
    framed[top : top + height, left : left + width] = scaled
    return framed


def from_network(
    probability: np.ndarray,
    original: tuple[int, int],
    size: tuple[int, int],
    resize: str,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Turn float32 (h, w) of the network's frame into the original (H, W), bilinear; in `out` where it is given."""
    top, left, height, width = content_box(original, size, resize)
    inside = np.ascontiguousarray(probability[top : top + height, left : left + width])
    if inside.shape != tuple(original):
        return cv2.resize(inside, original[::-1], dst=out, interpolation=cv2.INTER_LINEAR)
    if out is None:
        return inside
    out[:] = inside
    return out
