"""What the doctor notes of each file while the one scan of the data set decodes it: modes, values, objects, ceiling."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from checkup import perfect
from checkup.perfect import Frame
from data.dataspec import DataSpec
from data.scan import DataScan, DecodedPair, areas_of, scan_pairs
from formats import decode, images
from formats.mask_reference import MaskReference
from formats.samples import Samples
from metrics import objects
from scoring.score_rows import Scale
from tools import console, threads
from tools.errors import UserError

KEEP = 512 << 20  # bytes of decoded images that stay for the leak audit, which would decode some again
SMEARED = "smeared by JPEG"
FileNote = TypeVar("FileNote")
Decoded = TypeVar("Decoded")


@dataclass(frozen=True)
class PairNotes:
    """What one pair showed beside what every scan keeps; figures by scored class are (S,)."""

    mode: str  # RGB of 8 bits, ...
    shape: tuple[int, int]  # H, W
    masks: tuple[tuple[str, str], ...]  # of each mask file: which values it has, its path
    unlabeled: float  # share of all pixels
    counts: np.ndarray  # (S, 4): tp, fp, fn, tn of the mask that a perfect network would give at its size
    values: np.ndarray  # METRIC of that mask
    objects: np.ndarray
    vanished: np.ndarray  # objects of which that mask has no pixel


DoctorScan = DataScan[PairNotes]


class _Stopwatch:
    """Adds up the CPU seconds of decoding over all threads."""

    def __init__(self) -> None:
        self._spent: list[float] = []

    @property
    def seconds(self) -> float:
        return sum(self._spent)

    def noting(
        self, decoding: Callable[[], Decoded], note: Callable[[Samples], FileNote]
    ) -> tuple[Decoded, list[FileNote]]:
        """Return what `decoding` does, and a note of each file that it decodes."""
        notes: list[FileNote] = []

        def take(samples: Samples, seconds: float) -> None:
            self._spent.append(seconds)
            notes.append(note(samples))

        with decode.noting(take):
            return decoding(), notes


@dataclass(frozen=True)
class PairReader:
    """Decodes a pair as make folds does, and notes what the checks want to know of it."""

    root: Path
    spec: DataSpec
    max_pixels: int
    frame: Frame
    scale: Scale
    stopwatch: _Stopwatch

    def __call__(self, row: int, image: str, reference: str) -> DecodedPair[PairNotes]:
        """Decode the pair of a row. Raises UserError where a file is broken or the sizes differ."""
        path = self.root / image
        levels, (mode, *_) = self.stopwatch.noting(
            lambda: images.read_levels(path, self.max_pixels, self.spec.channels), _mode
        )
        where, shape = MaskReference.parse(reference), (levels.shape[0], levels.shape[1])
        shows_where = (
            self.spec.task == "binary" or where.kind == "class_files"
        )  # each file says only where something is
        (mask, labels), values = self.stopwatch.noting(
            lambda: self._mask(where, shape, image), mask_values if shows_where else lambda _: ("", "")
        )
        labeled = self.spec.labeled(mask)
        against = list(perfect.against(mask, self.spec, labels, self.frame, self.scale))
        notes = PairNotes(
            mode,
            shape,
            tuple(value for value in values if value[0]),
            unlabeled=0.0 if labeled is None else 1 - np.count_nonzero(labeled) / labeled.size,
            counts=np.array([of_class.counts for of_class in against]),
            values=np.array([of_class.value for of_class in against]),
            objects=np.array([of_class.objects for of_class in against]),
            vanished=np.array([of_class.vanished for of_class in against]),
        )
        return DecodedPair(levels, areas_of(self.spec, mask), notes)

    def _mask(self, where: MaskReference, shape: tuple[int, int], image: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Read a mask (K, H, W) and, where the reference tells them apart, its objects' labels int32 (S, H, W)."""
        reference = str(where)
        if not _has_objects(self.spec, self.root, where):
            return self.spec.read_mask(self.root, reference, shape, self.max_pixels, image), None
        labels = objects.read(self.spec, self.root, reference, shape, self.max_pixels, image)
        return self.spec.from_planes(labels > 0, reference), labels


def scan_for_checks(
    pairs: Sequence[tuple[str, str]], root: Path, spec: DataSpec, frame: Frame, scale: Scale, max_pixels: int
) -> tuple[DoctorScan, float]:
    """Scan the pairs (image, mask) below `root` with the doctor's notes, and the CPU seconds that decoding took."""
    stopwatch = _Stopwatch()
    scan = scan_pairs(pairs, root, spec, PairReader(root, spec, max_pixels, frame, scale, stopwatch), KEEP)
    return scan, stopwatch.seconds


def _has_objects(spec: DataSpec, root: Path, where: MaskReference) -> bool:
    """Say whether the reference tells objects apart: run lengths, or one file an object."""
    if where.kind == "empty":
        return False
    return where.kind in ("run_lengths", "annotations", "object_files") or any(
        path.is_dir() for path in where.class_paths(root, spec.scored_sources)
    )


def _mode(samples: Samples) -> str:
    """Name a file's channels and bits: `RGB of 8 bits`."""
    count = samples.values.shape[2]
    names = {"rgb": {3: "RGB", 4: "RGBA"}, "gray": {1: "gray", 2: "gray with alpha"}, "cmyk": {4: "CMYK"}}
    kind = "gray" if samples.grays else samples.kind
    name = "palette" if kind == "palette" else names.get(kind, {}).get(count, f"{count} channels")
    return f"{name} of {samples.values.dtype.itemsize * 8} bits" + (", JPEG" if samples.jpeg else "")


def mask_values(samples: Samples) -> tuple[str, str]:
    """Say which values a binary mask's file has: `0/255`, `0/7`, smeared ones; and its path."""
    values = samples.gray() if samples.grays else samples.values[..., 0]
    top = int(values.max(initial=0))
    if samples.jpeg and ((values > 0) & (values < top)).any():
        return SMEARED, str(samples.path)
    return f"0/{top}" if top else "0", str(samples.path)  # with a third value the strict reading has refused it


@dataclass(frozen=True)
class ScannedTest:
    """The test images that could be read: their sizes; and what is broken."""

    shapes: list[tuple[int, int]]
    broken: list[str]
    seconds: float


def scan_test_images(files: Sequence[Path], spec: DataSpec, max_pixels: int) -> ScannedTest:
    """Decode every test image as inference will."""

    stopwatch = _Stopwatch()

    def shape_of(path: Path) -> tuple[int, int] | str:
        try:
            image, _ = stopwatch.noting(lambda: spec.read_image(path, max_pixels), lambda _: None)
        except UserError as error:
            return str(error)
        return image.shape[0], image.shape[1]

    results = list(console.track(threads.map_ahead(files, shape_of, 2 * threads.CORES), len(files), "test images"))
    return ScannedTest(
        [shape for shape in results if not isinstance(shape, str)],
        [text for text in results if isinstance(text, str)],
        stopwatch.seconds,
    )
