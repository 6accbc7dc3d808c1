"""Which values one mask file holds: how often, how thin and how connected each is. Evidence for what masks mean."""

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from formats import packed_colors
from formats.decode import decode
from formats.samples import Samples

_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
_LOOKED = 24  # values of one file whose regions are counted, evenly chosen
_SIDE = 384  # pixels; regions are counted in every n-th row and column of larger masks
SMEARED = 128  # the lowest gray that is foreground in a JPEG of 0 and 255
_VIVID = 64  # a JPEG's gray pixels have channels that differ by less


@dataclass(frozen=True)
class MaskNote:
    """What one file, or one of its planes, holds. V values, sorted; figures are int64 (V,)."""

    path: Path
    shape: tuple[int, int]  # H, W
    color: bool  # values are colors, packed into one number each
    jpeg: bool
    values: np.ndarray  # gray values, a palette's indices, or packed colors
    counts: np.ndarray  # pixels
    shown: np.ndarray  # the gray that a binary mask has there: a color's or palette entry's luma, the value otherwise
    inner: np.ndarray  # pixels whose four neighbors are alike; all where there are only 0 and one other value
    parts: np.ndarray  # connected regions, -1 where they were not counted
    rim: float = 0.0  # share of the border's pixels in the upper half of the grays
    ordered: tuple[int, int] = (0, 0)  # pairs of following values that begin in the order of rows, and all such pairs
    vivid: tuple[int, ...] = ()  # of a JPEG: pixels of each of 8 strong colors (bits red, green, blue)
    alpha: "MaskNote | None" = None  # where it varies
    agrees: bool = False  # whether alpha and the rest say the same
    planes: int = 0  # of an array that has several
    apart: bool = False  # whether none of them overlap

    @property
    def strict_cut(self) -> int:
        """Return the lowest gray that is foreground where no threshold says so: of a smeared file the middle."""
        return SMEARED if self.jpeg and int(self.shown.max(initial=0)) > 1 else 1

    @property
    def nonzero(self) -> set[int]:
        """Return the values that are not 0, or not black."""
        return set(self.values[self.values > 0].tolist())


def read(path: Path, max_pixels: int) -> MaskNote:
    """Decode a mask file and note its values. Raises UserError."""
    return note_of(decode(path, max_pixels))


def note_of(samples: Samples) -> MaskNote:
    """Note the values of a mask file; alpha apart. Raises UserError for channels that are neither gray nor color."""
    note = _without_alpha(samples)
    alpha = _alpha(samples)
    if alpha is None or (alpha == alpha.flat[0]).all():
        return note
    plane = _of_plane(samples, alpha)
    shown = binary_values(samples)
    return replace(note, alpha=plane, agrees=bool(((shown > 0) == (alpha > 0)).all()))


def _alpha(samples: Samples) -> np.ndarray | None:
    """Return the alpha (H, W), None where there is none."""
    channels = None if samples.planes else {"gray": 2, "rgb": 4}.get(samples.kind)
    return np.ascontiguousarray(samples.values[..., -1]) if samples.values.shape[2] == channels else None


def alpha_of(samples: Samples) -> np.ndarray:
    """Return the alpha (H, W); where there is none all is opaque, so the gray decides."""
    alpha = _alpha(samples)
    return binary_values(samples) if alpha is None else alpha


def binary_values(samples: Samples) -> np.ndarray:
    """Return the grays (H, W) of a binary mask; of a palette whose colors are alike in gray its indices."""
    if samples.planes:
        return np.asarray((samples.values > 0).any(2), np.uint8)
    if samples.kind == "palette":
        indices = samples.indices()
        if samples.luma()[0] == 0 and indices.max(initial=0) <= 1:
            return indices  # black and one other, whichever it is
        present = np.flatnonzero(np.bincount(indices.ravel(), minlength=256))
        if len(np.unique(samples.luma()[present])) < len(present):
            return indices
    return samples.gray()


def _without_alpha(samples: Samples) -> MaskNote:
    if samples.planes:
        apart = int((samples.values > 0).sum(2).max()) == 1
        return replace(_of_plane(samples, binary_values(samples)), planes=samples.values.shape[2], apart=apart)
    if samples.jpeg:
        return _of_jpeg(samples)
    if samples.grays:
        return _of_plane(samples, samples.gray())
    if samples.kind == "palette":
        return _of_palette(samples)
    if samples.kind == "gray":
        plane = np.ascontiguousarray(samples.values[..., 0])
        return _of_plane(samples, plane if samples.step == 1 else plane // np.uint8(samples.step))
    colors = samples.colors()
    red = np.ascontiguousarray(colors[..., 0])
    if all(np.array_equal(red, colors[..., channel]) for channel in (1, 2)):
        return _of_plane(samples, red)
    return _of_colors(samples, colors)


def _of_jpeg(samples: Samples) -> MaskNote:
    """Note a JPEG's grays: its colors are smeared, so those that are strong are only counted."""
    note = _of_plane(samples, samples.gray())
    if samples.kind == "gray":
        return note
    colors = samples.colors()
    vivid = colors.max(2).astype(np.int16) - colors.min(2) >= _VIVID
    codes = (colors[vivid] >= 128) @ np.array([4, 2, 1])
    return replace(note, vivid=tuple(np.bincount(codes, minlength=8).tolist()))


def _of_palette(samples: Samples) -> MaskNote:
    note = _of_plane(samples, samples.indices())
    luma, values = samples.luma().astype(np.int64), note.values
    alike = len(np.unique(luma[values])) < len(values) or (luma[0] == 0 and values[-1] <= 1)
    return note if alike else replace(note, shown=luma[values], rim=_rim(luma[samples.indices()]))


def _of_plane(samples: Samples, plane: np.ndarray) -> MaskNote:
    """Note uint8 or uint16 (H, W)."""
    shape, top, filled = (plane.shape[0], plane.shape[1]), int(plane.max(initial=0)), cv2.countNonZero(plane)
    if has_two_values(plane, top, filled):
        present = [(value, count) for value, count in ((0, plane.size - filled), (top, filled)) if count]
        values, counts = (np.array(column, np.int64) for column in zip(*present, strict=True))
        parts = np.full(len(values), -1)
        return MaskNote(samples.path, shape, False, samples.jpeg, values, counts, values, counts, parts, _rim(plane))
    all_counts = np.bincount(plane.ravel())
    values = np.flatnonzero(all_counts)
    return _looked_at(
        MaskNote(
            samples.path, shape, False, samples.jpeg, values, all_counts[values], values, values, values, _rim(plane)
        ),
        plane,
    )


def has_two_values(plane: np.ndarray, top: int, filled: int) -> bool:
    """Say whether a plane has 0 and its highest value `top` alone; `filled`: pixels that are not 0.

    That is so just where their sum is as if they were; sums need no copy of the mask.
    """
    return bool(filled * top == cv2.sumElems(plane)[0])


def _rim(plane: np.ndarray) -> float:
    """Return the share of the border's pixels, (H, W), that are above half of its highest gray."""
    rim = np.concatenate([plane[0], plane[-1], plane[:, 0], plane[:, -1]])
    return np.count_nonzero(rim > int(rim.max(initial=0)) // 2) / rim.size


def _of_colors(samples: Samples, colors: np.ndarray) -> MaskNote:
    """Note RGB (H, W, 3); 16 bits by their upper 8, which are enough to tell colors apart."""
    if colors.dtype != np.uint8:
        colors = (colors >> 8).astype(np.uint8)
    packed = packed_colors.pack(colors).ravel()
    starts = np.concatenate([[0], np.flatnonzero(packed[1:] != packed[:-1]) + 1])  # runs of one color: few to sort
    lengths = np.diff(np.append(starts, packed.size))
    values, places = np.unique(packed[starts], return_inverse=True)
    counts = np.bincount(places, weights=lengths).astype(np.int64)
    shown = packed_colors.luma(values)
    shape = (colors.shape[0], colors.shape[1])
    note = MaskNote(samples.path, shape, True, False, values.astype(np.int64), counts, shown, counts, counts)
    if len(values) > 65535:
        return replace(note, inner=np.zeros_like(counts), parts=np.full(len(values), -1))
    return _looked_at(note, np.repeat(places, lengths).astype(np.uint16).reshape(shape), indexed=True)


def numbered(path: Path, max_pixels: int) -> np.ndarray:
    """Read a file in which each value, or color, numbers an object -> int32 (H, W), 1, 2, ... by the values' order."""
    samples = decode(path, max_pixels)
    if samples.kind in ("gray", "palette") and not samples.grays:
        keys = samples.values[..., 0]
    else:
        keys = packed_colors.pack(samples.colors())
    values, places = np.unique(keys, return_inverse=True)
    labels = places.reshape(keys.shape).astype(np.int32)
    return labels if values[0] == 0 else labels + 1


def _looked_at(note: MaskNote, plane: np.ndarray, indexed: bool = False) -> MaskNote:
    """Add how thin and how connected the values are; `indexed`: plane (H, W) has their places, not themselves."""
    keys = np.arange(len(note.values)) if indexed else note.values
    flat = cv2.erode(plane, _CROSS) == cv2.dilate(plane, _CROSS)
    inner = np.bincount(plane[flat].ravel(), minlength=int(keys[-1]) + 1)[keys]
    parts = np.full(len(keys), -1)
    if note.jpeg or len(keys) > 4096:
        return replace(note, inner=inner, parts=parts)
    step = max(1, -(-max(plane.shape) // _SIDE))
    some = np.ascontiguousarray(plane[::step, ::step])
    present, first = np.unique(some, return_index=True)
    first = first[present > 0] if not indexed else first
    ordered = int((np.diff(first) > 0).sum()), max(0, len(first) - 1)
    candidates = np.flatnonzero(note.values > 0)
    for place in candidates[:: max(1, -(-len(candidates) // _LOOKED))]:
        parts[place] = cv2.connectedComponents((some == keys[place]).view(np.uint8), connectivity=8)[0] - 1
    return replace(note, inner=inner, parts=parts, ordered=ordered)
