"""Images and masks as arrays, by what they are for, and the one resize in both directions.

`decode` opens the file; here its samples become what was asked for:

| file | image, IN_CHANNELS=3 | IN_CHANNELS=1 | IN_CHANNELS=n | class map | mask in colors |
|---|---|---|---|---|---|
| gray | repeated | as it is | n=1 | its values | repeated |
| 1, 2, 4-bit gray | stretched to 0..255, repeated | stretched | n=1 | its values: 0, 1, ... | as the image |
| gray + alpha | alpha dropped | alpha dropped | n=2 | alpha dropped | as the image |
| RGB, YCbCr, LAB | as RGB | luma (ITU-R 601) | n=3 | the value, where R=G=B; else refused | as RGB |
| RGBA | alpha dropped | alpha dropped, luma | n=4: the fourth is data | as RGB | alpha dropped |
| palette | looked up | looked up, luma | refused | its indices (a GIF in grays: the grays) | looked up |
| CMYK | as RGB | as RGB, luma | n=4 | as RGB | as RGB |
| TIFF of other channels | refused | refused | n of them | refused | refused |
| 16 bits | through the window | through the window | through the window | its values | refused |
| stack a_{z}.png | 3 slices | 1 slice | n slices | refused | refused |

A window (low, high) maps 16-bit values linearly to 0..255, clipped; 8-bit values are kept. EXIF orientation is applied
to images and masks alike.
"""

import functools
import re
import time
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from formats import mask_values
from formats.decode import Halvings, decode, size_of
from formats.samples import Samples
from tools.errors import UserError, alike, listing

# Several images are worked on at a time, in threads or processes; threads within cv2 would only get in their way, and a
# process forked while they exist (a loader's worker) can wait for them for ever.
cv2.setNumThreads(0)

SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp"}
ARRAYS = {".npy"}  # images too, in folders that hold no others: beside images they are something else

_MAX_PIXELS = 100_000_000


def read_image(
    path: Path, max_pixels: int = _MAX_PIXELS, channels: int = 3, window: tuple[float, float] = (0, 65535)
) -> np.ndarray:
    """Decode to uint8 (H, W, channels) by the table above; 16-bit values from `window` to 0..255. Raises UserError."""
    levels = read_levels(path, max_pixels, channels)
    return levels if levels.dtype == np.uint8 else through_window(levels, window)


def through_window(levels: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Turn uint16 of any shape into uint8: `window` (low, high) becomes 0 to 255, what lies beyond is cut off."""
    return _window_table(*window)[levels]


@functools.lru_cache(8)
def _window_table(low: float, high: float) -> np.ndarray:
    """Tabulate, uint8 (65536,), what each 16-bit value becomes."""
    scaled = (np.arange(65536) - low) * (255 / max(high - low, 1e-9))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def read_levels(path: Path, max_pixels: int = _MAX_PIXELS, channels: int = 3) -> np.ndarray:
    """Decode the same before the window: uint8 or uint16 (H, W, channels). Raises UserError."""
    return _levels(path, max_pixels, channels)[0]


def read_halved(
    path: Path, max_pixels: int, channels: int, halvings: Halvings
) -> tuple[np.ndarray, tuple[int, int], bool]:
    """Decode as read_levels, halved by the decoder as `halvings` says; the full (H, W); and whether it can halve."""
    levels, halved = _levels(path, max_pixels, channels, halvings)
    return levels, (levels.shape[0] << (halved or 0), levels.shape[1] << (halved or 0)), halved is not None


def _levels(path: Path, max_pixels: int, channels: int, *halvings: Halvings) -> tuple[np.ndarray, int | None]:
    """Decode the levels, and say how often the decoder halved them; None where it cannot."""
    if "{z}" in path.name:
        return _read_stack(path, max_pixels, channels), None
    samples = decode(path, max_pixels, *halvings)
    count = 3 if samples.kind == "palette" and not samples.grays else samples.values.shape[2]
    if channels not in (1, 3) and count != channels:
        raise UserError(
            f"{path}: has {count} channels, but IN_CHANNELS={channels}. IN_CHANNELS={count} takes all of this "
            "file's, 3 makes color of it and 1 gray; every file needs the same number."
        )
    if channels not in (1, 3) or (samples.kind == "bands" and count == channels):
        return samples.values, samples.halved
    return samples.colors() if channels == 3 else samples.gray()[..., None], samples.halved


def _read_stack(path: Path, max_pixels: int, channels: int) -> np.ndarray:
    files = slices(path)
    if len(files) != channels:
        raise UserError(
            f"{path}: {len(files)} slices ({_names(files)}), but IN_CHANNELS={channels}; every stack needs as many."
        )
    planes = [decode(file, max_pixels).gray() for file in files]
    for file, plane in zip(files, planes, strict=True):
        if plane.shape != planes[0].shape:
            raise UserError(f"{file}: {_size(plane)} pixels, but {files[0].name} beside it has {_size(planes[0])}.")
        if plane.dtype != planes[0].dtype:
            bits = plane.dtype.itemsize * 8
            raise UserError(f"{file}: {bits} bits, but {files[0].name} beside it has {24 - bits}; make them alike.")
    return np.dstack(planes)


def slices(path: Path) -> list[Path]:
    """List the files of a stack images/a_{z}.png: those beside it with a number for {z}, by number. UserError."""
    if not path.parent.is_dir():
        raise UserError(f"{path.parent}: no such folder, expected the slices {path.name} in it.")
    before, _, after = path.name.partition("{z}")
    names = names_in(path.parent)
    found: dict[int, Path] = {}
    shape = re.compile(rf"{re.escape(before)}([0-9]+){re.escape(after)}")
    for position in range(bisect_left(names, before), len(names)):
        name = names[position]
        if not name.startswith(before):
            break
        if match := shape.fullmatch(name):
            number = int(match[1])
            if number in found:
                raise UserError(f"{found[number]} and {name} beside it have the same number; remove one of them.")
            found[number] = path.parent / name
    if not found:
        raise UserError(f"{path}: no slices; expected files with a number for {{z}} beside it.")
    return [found[number] for number in sorted(found)]


def image_files(path: Path) -> list[Path]:
    """List the files of an image: a stack's slices, or the file itself, there or not. Raises UserError for no slice."""
    return slices(path) if "{z}" in path.name else [path]


def stored_files(path: Path) -> list[Path]:
    """List the files of an image or a mask: a stack's slices, what a folder holds, or the file itself.

    Raises UserError where there is none.
    """
    if "{z}" in path.name:
        return slices(path)
    if not path.exists():
        raise UserError(f"{path}: no such file, but the folds table lists it. Put it back, or run make folds again.")
    return sorted(path.iterdir()) if path.is_dir() else [path]


def names_in(folder: Path) -> list[str]:
    """List the sorted names in a folder; kept, because a folder of slices is asked for once a stack."""
    changed = folder.stat().st_mtime
    # a clock ticks: what changed within its last tick may change again without showing
    return _listed(folder, changed if time.time() - changed > 2 else time.monotonic_ns())


@functools.lru_cache(4)
def _listed(folder: Path, _version: float) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def read_size(path: Path, max_pixels: int = _MAX_PIXELS) -> tuple[int, int]:
    """Read (H, W), as read_image gives them, from the header alone. Raises UserError."""
    return size_of(slices(path)[0] if "{z}" in path.name else path, max_pixels)


def read_labels(path: Path, max_pixels: int = _MAX_PIXELS) -> np.ndarray:
    """Read a class map's values as stored, uint8 or uint16 (H, W); of a palette its indices. Raises UserError."""
    samples = decode(path, max_pixels)
    if samples.grays:
        return samples.gray()
    if samples.kind in ("gray", "palette"):
        values = np.ascontiguousarray(samples.values[..., 0])
        return values if samples.step == 1 else values // np.uint8(samples.step)
    colors = samples.colors()
    red = np.ascontiguousarray(colors[..., 0])
    colored = (colors != red[..., None]).any(-1)
    if colored.any():
        row, column = np.argwhere(colored)[0]
        shown = ",".join(map(str, colors[row, column].tolist()))
        raise UserError(
            f"{path}: a mask in colors (r,g,b = {shown} at row {row}, column {column}); a table of the classes' "
            "colors is needed: classes.csv with the columns name,r,g,b."
        )
    return red


def read_colors(path: Path, max_pixels: int = _MAX_PIXELS) -> np.ndarray:
    """Read a mask drawn in colors, uint8 (H, W, 3). Raises UserError, also for 16 bits."""
    colors = decode(path, max_pixels).colors()
    if colors.dtype != np.uint8:
        raise UserError(f"{path}: 16 bits a channel; a mask in colors has 8. Save it as an 8-bit PNG.")
    return colors


def read_mask(path: Path, max_pixels: int = _MAX_PIXELS, threshold: int = 0, alpha: bool = False) -> np.ndarray:
    """Decode a binary mask to uint8 (H, W) of 0 and 1; a folder is the union of its instance masks.

    threshold: the lowest gray that is foreground; 1: all but 0, or black; 0: whatever is not 0, provided that there is
    only one such value (of a JPEG from 128 on), and UserError for anything else. alpha: the mask is the alpha channel.
    """
    if path.is_dir():
        return union(object_masks(path), max_pixels, threshold, alpha)
    samples = decode(path, max_pixels)
    if threshold == 1 and not (samples.jpeg or alpha):
        return _all_but_black(samples)
    values = mask_values.alpha_of(samples) if alpha else mask_values.binary_values(samples)
    if threshold:
        return (values >= threshold).view(np.uint8)
    top = values.max(initial=0)
    if top <= 1:
        return values.astype(np.uint8, copy=False)
    if samples.jpeg:
        return (values >= mask_values.SMEARED).view(np.uint8)
    if not mask_values.has_two_values(values, int(top), cv2.countNonZero(values)):
        present = np.unique(values)
        shown = ", ".join(map(str, present[:8])) + (", ..." if len(present) > 8 else "")
        raise UserError(
            f"{path}: a binary mask has 0 and one other value; this one has {len(present)}: {shown}. "
            "make folds finds out what they mean, from all masks."
        )
    return cv2.threshold(values, 0, 1, cv2.THRESH_BINARY)[1].astype(np.uint8, copy=False)


def object_masks(folder: Path) -> list[Path]:
    """List the files of a folder of instance masks, sorted by name. Raises UserError where there is none."""
    files = list_images(folder)
    if not files:
        raise UserError(f"{folder}: no masks in this folder; expected one image per object.")
    return files


def _all_but_black(samples: Samples) -> np.ndarray:
    """Return uint8 (H, W): 1 where a gray or an index is not 0, a color not black, or any plane shows something."""
    if samples.planes:
        return np.asarray((samples.values > 0).any(2), np.uint8)
    if samples.kind in ("gray", "palette") and not samples.grays:
        return (samples.values[..., 0] > 0).view(np.uint8)
    return np.asarray(samples.colors().any(-1), np.uint8)


def union(files: list[Path], max_pixels: int = _MAX_PIXELS, threshold: int = 0, alpha: bool = False) -> np.ndarray:
    """Unite binary masks of one size, uint8 (H, W), as read_mask reads each. Raises UserError."""
    whole = read_mask(files[0], max_pixels, threshold, alpha)
    for file in files[1:]:
        part = read_mask(file, max_pixels, threshold, alpha)
        if part.shape != whole.shape:
            raise UserError(f"{file}: {_size(part)} pixels, but {files[0].name} beside it has {_size(whole)}.")
        whole |= part
    return whole


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"


def _names(files: list[Path]) -> str:
    return ", ".join(file.name for file in files[:4]) + (", ..." if len(files) > 4 else "")


def list_images(folder: Path) -> list[Path]:
    """List the image files directly in `folder`, sorted by name; hidden files are left out."""
    return [folder / name for name in image_names(sorted(file.name for file in folder.iterdir()))]


def image_names(names: Iterable[str]) -> list[str]:
    """List the names of images among those of a folder: arrays only where there is no other. Hidden ones are none."""
    by_kind: dict[bool, list[str]] = {True: [], False: []}
    for name in names:
        suffix = name[name.rfind(".") :].lower()
        if name[0] != "." and (suffix in SUFFIXES or suffix in ARRAYS):
            by_kind[suffix in SUFFIXES].append(name)
    return by_kind[True] or by_kind[False]


def write_gray(path: Path, values: np.ndarray) -> None:
    """Write uint8 (H, W) as PNG, making the folders on the way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, compress_level=1)  # level 6 takes five times as long for a fifth less


def read_gray(path: Path) -> np.ndarray:
    """Read an 8-bit probability map back, uint8 (H, W). Raises UserError where it is missing or of another kind."""
    samples = decode(path, 10**10)
    if samples.kind != "gray" or samples.values.shape[2] != 1 or samples.values.dtype != np.uint8 or samples.step != 1:
        raise UserError(f"{path}: {samples.kind}; a probability map is 8-bit gray. Run make inference again.")
    return samples.values[..., 0]


def refuse_listed(problems: list[str], what: str, cure: str) -> None:
    """Raise one UserError that lists every problem, of many alike the first; none where there is no problem."""
    if problems:
        raise UserError(f"{len(problems)} {what}{listing(alike(problems))}\n{cure}")
