"""Every file decoded once, strictly, on all cores; all that the checks want to know of it is taken on the way."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from checkup import perfect
from checkup.perfect import Frame
from data import examine
from data.dataspec import DataSpec
from data.leak_audit import spectra
from formats import decode, images, rle_table
from formats.decode import Samples
from metrics import objects
from scoring.score_rows import Scale
from tools import console, threads
from tools.errors import UserError

KEEP = 512 << 20  # bytes of decoded images that stay for the leak audit, which would decode some again
SMEARED = "smeared by JPEG"


@dataclass(frozen=True)
class Look:
    """What one pair showed; figures by scored class are (S,)."""

    mode: str  # RGB of 8 bits, ...
    shape: tuple[int, int]  # H, W
    masks: tuple[tuple[str, str], ...]  # of each mask file: which values it has, its path
    areas: np.ndarray  # share of the labelled pixels
    unlabelled: float  # share of all pixels
    thumbnail: np.ndarray
    histogram: np.ndarray
    counts: np.ndarray  # (S, 4): tp, fp, fn, tn of the mask that a perfect network would give at its size
    values: np.ndarray  # METRIC of that mask
    objects: np.ndarray
    vanished: np.ndarray  # objects of which that mask has no pixel
    levels: np.ndarray | None


@dataclass(frozen=True)
class DataScan:
    """All pairs that could be read, their positions in the table, what is broken, and the CPU seconds of decoding."""

    looks: list[Look]
    rows: list[int]
    broken: list[str]
    seconds: float
    spec: DataSpec  # with the statistics of these images

    @property
    def areas(self) -> np.ndarray:
        return np.array([look.areas for look in self.looks])

    @property
    def thumbnails(self) -> np.ndarray:
        return np.array([look.thumbnail for look in self.looks])


def look(
    pairs: Sequence[tuple[str, str]], root: Path, spec: DataSpec, frame: Frame, scale: Scale, max_pixels: int
) -> DataScan:
    """Decode and look at each pair (image, mask) below `root`; a broken one is listed, and stops nothing."""
    for table in sorted({rle_table.parse_reference(mask)[0] for _, mask in pairs if mask.startswith("rle:")}):
        rle_table.read(root / table)  # once, before the threads

    def one(pair: tuple[str, str]) -> tuple[Look | str, float]:
        clock = _Clock()
        try:
            return _look(pair, root, spec, frame, scale, max_pixels, clock), clock.seconds
        except UserError as error:
            return str(error), clock.seconds

    looks, rows, broken, seconds, room = [], [], [], 0.0, KEEP
    results = threads.map_ahead(pairs, one, 2 * threads.CORES)
    for row, (result, spent) in enumerate(console.track(results, len(pairs), "decoding")):
        seconds += spent
        if isinstance(result, str):
            broken.append(result)
            continue
        room -= result.levels.nbytes
        looks.append(result if room >= 0 else replace(result, levels=None))
        rows.append(row)
    histograms: dict[int, np.ndarray] = {}
    for result in looks:
        count = result.histogram.shape[1]
        histograms[count] = histograms.get(count, 0) + result.histogram
    measured = replace(spec, **examine.statistics(histograms)) if looks else spec
    return DataScan(looks, rows, broken, seconds, measured)


class _Clock:
    """Adds up what decoding took, and notes something of each file."""

    def __init__(self) -> None:
        self.seconds, self.notes = 0.0, []

    def noting(self, what: Any) -> Any:
        """A `note` for decode.noting that keeps `what(samples)`."""

        def note(samples: Samples, seconds: float) -> None:
            self.seconds += seconds
            self.notes.append(what(samples))

        return note


def _look(
    pair: tuple[str, str], root: Path, spec: DataSpec, frame: Frame, scale: Scale, max_pixels: int, clock: _Clock
) -> Look:
    image, reference = pair
    with decode.noting(clock.noting(_mode)):
        levels = images.read_levels(root / image, max_pixels, spec.channels)
    mode, clock.notes = clock.notes[0], []
    shape = levels.shape[:2]
    of_own = spec.task == "binary" or "{class}" in reference  # a file that says only where something is
    with decode.noting(clock.noting(mask_values if of_own else lambda _: ("", ""))):
        if _has_objects(spec, root, reference):
            there = objects.read(spec, root, reference, shape, max_pixels, image)
            mask = spec.from_planes(there > 0, reference)
        else:
            there, mask = None, spec.read_mask(root, reference, shape, max_pixels, image)
    labelled = spec.labelled(mask)
    found = perfect.against(mask, spec, there, frame, scale)
    counts, values, count, gone = zip(*found, strict=True)
    counts = np.array(counts)
    pixels = mask[0].size if labelled is None else max(1, int(labelled.sum()))
    return Look(
        mode,
        shape,
        tuple(note for note in clock.notes if note[0]),
        counts[:, [0, 2]].sum(1) / pixels,
        0.0 if labelled is None else 1 - np.count_nonzero(labelled) / labelled.size,
        spectra.thumbnail(examine.eight_bits(levels)),
        examine.histogram(levels),
        counts,
        np.array(values),
        np.array(count),
        np.array(gone),
        levels,
    )


def _has_objects(spec: DataSpec, root: Path, reference: str) -> bool:
    """Whether the reference itself says which object is which: run lengths, or a folder of one file an object."""
    if not reference or reference.startswith("rle:"):
        return bool(reference)
    return any(path.is_dir() for path in spec.class_paths(root, reference))


def _mode(samples: Samples) -> str:
    """A file's channels and bits in words: `RGB of 8 bits`."""
    count = samples.values.shape[2]
    names = {"rgb": {3: "RGB", 4: "RGBA"}, "grey": {1: "grey", 2: "grey with alpha"}, "cmyk": {4: "CMYK"}}
    kind = "grey" if samples.greys else samples.kind
    name = "palette" if kind == "palette" else names.get(kind, {}).get(count, f"{count} channels")
    return f"{name} of {samples.values.dtype.itemsize * 8} bits" + (", JPEG" if samples.jpeg else "")


def mask_values(samples: Samples) -> tuple[str, str]:
    """Which values a binary mask's file has: `0/255`, `0/7`, smeared ones; and its path."""
    values = samples.grey() if samples.greys else samples.values[..., 0]
    top = int(values.max(initial=0))
    if samples.jpeg and ((values > 0) & (values < top)).any():
        return SMEARED, str(samples.path)
    return f"0/{top}" if top else "0", str(samples.path)  # with a third value the strict reading has refused it


@dataclass(frozen=True)
class Tested:
    """The test images that could be read: their sizes; and what is broken."""

    shapes: list[tuple[int, int]]
    broken: list[str]
    seconds: float


def look_at_test(files: Sequence[Path], spec: DataSpec, max_pixels: int) -> Tested:
    """Decode every test image as inference will."""

    def one(path: Path) -> tuple[tuple[int, int] | str, float]:
        clock = _Clock()
        try:
            with decode.noting(clock.noting(lambda _: None)):
                return spec.read_image(path, max_pixels).shape[:2], clock.seconds
        except UserError as error:
            return str(error), clock.seconds

    results = list(console.track(threads.map_ahead(files, one, 2 * threads.CORES), len(files), "test images"))
    return Tested(
        [shape for shape, _ in results if not isinstance(shape, str)],
        [text for text, _ in results if isinstance(text, str)],
        sum(seconds for _, seconds in results),
    )
