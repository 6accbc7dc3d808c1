"""The one decode function of the project, strict about broken files, and the one resize in both directions.

Decoders disagree on EXIF rotation, cut JPEGs, palettes and 16 bits; that is why nothing else opens an image.
Rules: EXIF orientation is applied; alpha is dropped; palettes are looked up; more than 8 bits and several frames are
refused.
"""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from errors import UserError, listing

# Several images are worked on at a time, in threads or processes; threads within cv2 would only get in their way, and a
# process forked while they exist (a loader's worker) can wait for them for ever.
cv2.setNumThreads(0)

SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp"}
RESIZES = ("stretch", "fit", "none")
_EIGHT_BITS = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}


def _open(path: Path, max_pixels: int) -> Image.Image:
    """A fully decoded PIL image, upright. Raises UserError naming the file and what is wrong with it."""
    if not path.is_file():
        raise UserError(f"{path}: {'a folder, expected an image' if path.is_dir() else 'no such file'}.")
    Image.MAX_IMAGE_PIXELS = None  # our own limit below refuses instead of warning, and for every format
    try:
        image = Image.open(path)
    except Exception as error:  # whatever a decoder raises on a stranger's bytes
        raise UserError(f"{path}: not an image that Pillow can read ({error or type(error).__name__}).") from error
    with image:
        width, height = image.size
        if width * height > max_pixels:
            raise UserError(
                f"{path}: {width} x {height} pixels, more than MAX_PIXELS={max_pixels}; raise it if that is right."
            )
        if image.mode not in _EIGHT_BITS:
            raise UserError(
                f"{path}: mode {image.mode}; expected 8 bits a channel (grey, RGB, RGBA or a palette). Convert it."
            )
        try:
            if getattr(image, "n_frames", 1) > 1:
                raise UserError(f"{path}: {image.n_frames} frames; expected a single picture.")
            image.load()
            return ImageOps.exif_transpose(image)
        except UserError:
            raise
        except Exception as error:  # as above: truncated data, wrong checksums, ...
            raise UserError(
                f"{path}: broken or cut off ({error or type(error).__name__}). Fetch it again or remove it."
            ) from error


def read_image(path: Path, max_pixels: int = 100_000_000) -> np.ndarray:
    """Decode to RGB, uint8 (H, W, 3). Raises UserError."""
    return np.array(_open(path, max_pixels).convert("RGB"))


def read_mask(path: Path, max_pixels: int = 100_000_000) -> np.ndarray:
    """Decode a binary mask to uint8 (H, W) of 0 and 1; a folder is the union of its instance masks.

    Foreground is whatever is not 0, provided that there is only one such value; a JPEG's smeared values are cut at 128.
    Raises UserError for anything else.
    """
    if path.is_dir():
        files = list_images(path)
        if not files:
            raise UserError(f"{path}: no masks in this folder; expected one image per object.")
        return _union(files, max_pixels)
    image = _open(path, max_pixels)
    values = np.array(image)
    if image.mode not in ("L", "1"):
        looked_up = np.array(image.convert("L"))
        # a palette whose colours are all alike tells nothing: its indices are the mask then
        indices = image.mode == "P" and len(np.unique(looked_up)) < len(np.unique(values))
        values = values if indices else looked_up
    if path.suffix.lower() in (".jpg", ".jpeg") and values.max(initial=0) > 1:
        return (values >= 128).astype(np.uint8)
    present = np.flatnonzero(np.bincount(values.reshape(-1).astype(np.uint8), minlength=256))
    if len(present[present > 0]) > 1:
        shown = ", ".join(map(str, present[:8])) + (", ..." if len(present) > 8 else "")
        raise UserError(
            f"{path}: a binary mask has 0 and one other value; this one has {len(present)}: {shown}. "
            "Draw it with 0 and 255, or make it one file per class."
        )
    return (values > 0).astype(np.uint8)


def _union(files: list[Path], max_pixels: int) -> np.ndarray:
    whole = read_mask(files[0], max_pixels)
    for file in files[1:]:
        part = read_mask(file, max_pixels)
        if part.shape != whole.shape:
            raise UserError(f"{file}: {_size(part)} pixels, but {files[0].name} beside it has {_size(whole)}.")
        whole |= part
    return whole


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"


def read_pair(image_path: Path, mask_path: Path, max_pixels: int = 100_000_000) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask of one row; UserError where their sizes differ."""
    image, mask = read_image(image_path, max_pixels), read_mask(mask_path, max_pixels)
    if image.shape[:2] != mask.shape:
        raise UserError(f"{mask_path}: {_size(mask)} pixels, but its image {image_path} has {_size(image)}.")
    return image, mask


def list_images(folder: Path) -> list[Path]:
    """The image files directly in `folder`, sorted by name; hidden files are left out."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and file.name[0] != ".")


def write_gray(path: Path, values: np.ndarray) -> None:
    """Write uint8 (H, W) as PNG, making the folders on the way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, compress_level=1)  # level 6 takes five times as long for a fifth less


def read_gray(path: Path) -> np.ndarray:
    """Read an 8-bit probability map back, uint8 (H, W). Raises UserError where it is missing or of another kind."""
    image = _open(path, 10**10)
    if image.mode != "L":
        raise UserError(f"{path}: mode {image.mode}; a probability map is 8-bit grey. Run make inference again.")
    return np.array(image)


def content_box(original: tuple[int, int], size: tuple[int, int], resize: str) -> tuple[int, int, int, int]:
    """Where an image of `original` (H, W) lies in the network's frame: top, left, height, width.

    `size` is IMAGE_SIZE; `resize` is stretch (fills the frame), fit (keeps the aspect, centred) or none (own size).
    """
    if resize == "none":
        return 0, 0, *original
    if resize == "stretch":
        return 0, 0, *size
    scale = min(size[0] / original[0], size[1] / original[1])
    height, width = (max(1, round(side * scale)) for side in original)
    return (size[0] - height) // 2, (size[1] - width) // 2, height, width


def _scaled(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (H, W[, C]) to `size`: area averaging where it shrinks, bilinear where it grows."""
    if array.shape[:2] == tuple(size):
        return array
    shrinks = size[0] * size[1] < array.shape[0] * array.shape[1]
    return cv2.resize(array, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def image_to_network(image: np.ndarray, size: tuple[int, int], resize: str) -> np.ndarray:
    """uint8 (H, W, 3) -> uint8 (h, w, 3) as the network sees it; `fit` repeats the border outwards."""
    top, left, height, width = content_box(image.shape[:2], size, resize)
    scaled = _scaled(image, (height, width))
    if (height, width) == tuple(size) or resize == "none":
        return scaled
    bottom, right = size[0] - height - top, size[1] - width - left
    return cv2.copyMakeBorder(scaled, top, bottom, left, right, cv2.BORDER_REPLICATE)


def coverage_to_network(mask: np.ndarray, size: tuple[int, int], resize: str) -> np.ndarray:
    """0/1 (H, W) -> uint8 (h, w), 255 where all of a pixel was foreground; `fit` pads with background."""
    top, left, height, width = content_box(mask.shape, size, resize)
    scaled = _scaled(mask * np.uint8(255), (height, width))
    if (height, width) == tuple(size) or resize == "none":
        return scaled
    framed = np.zeros(size, np.uint8)
    framed[top : top + height, left : left + width] = scaled
    return framed


def mask_to_network(mask: np.ndarray, size: tuple[int, int], resize: str) -> np.ndarray:
    """0/1 (H, W) -> 0/1 (h, w): a pixel is foreground where at least half of it was."""
    return (coverage_to_network(mask, size, resize) >= 128).astype(np.uint8)


def from_network(probability: np.ndarray, original: tuple[int, int], size: tuple[int, int], resize: str) -> np.ndarray:
    """float32 (h, w) in the network's frame -> float32 at the original (H, W), bilinear."""
    top, left, height, width = content_box(original, size, resize)
    inside = np.ascontiguousarray(probability[top : top + height, left : left + width])
    if inside.shape == tuple(original):
        return inside
    return cv2.resize(inside, original[::-1], interpolation=cv2.INTER_LINEAR)


def refuse_listed(problems: list[str], what: str, cure: str) -> None:
    """Raise one UserError that lists every problem, if there is any."""
    if problems:
        raise UserError(f"{len(problems)} {what}{listing(problems)}\n{cure}")
