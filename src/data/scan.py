"""The one scan of a data set, of make folds and of make doctor: each file decoded once, strictly, on all cores."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from data import level_statistics
from data.dataspec import DataSpec
from data.leak_audit import spectra
from data.spec_of_data import FoundSpec
from formats import images, rle_table
from formats.mask_reference import tables_of
from tools import console, threads
from tools.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

Notes = TypeVar("Notes")


@dataclass(frozen=True)
class DecodedPair(Generic[Notes]):
    """An image, uint8 or uint16 (H, W, C), its classes' shares (S,), and what else the reader notes of them."""

    levels: np.ndarray
    areas: np.ndarray
    notes: Notes


@dataclass(frozen=True)
class ScannedPair(Generic[Notes]):
    """What stays of a pair once it was decoded."""

    row: int  # in the table
    areas: np.ndarray  # (S,) share of each scored class among the labeled pixels
    thumbnail: np.ndarray  # for the leak audit
    notes: Notes
    levels: np.ndarray | None  # the decoded image, where there was room to keep it


@dataclass(frozen=True)
class DataScan(Generic[Notes]):
    """All pairs that could be read, in the table's order, and a line for each that could not."""

    spec: DataSpec  # with the statistics of these images
    pairs: list[ScannedPair[Notes]]
    broken: list[str]

    @property
    def rows(self) -> list[int]:
        """List the rows of the table that could be read."""
        return [pair.row for pair in self.pairs]

    @property
    def notes(self) -> list[Notes]:
        """List what the reader noted of each pair."""
        return [pair.notes for pair in self.pairs]

    @property
    def areas(self) -> np.ndarray:
        """Stack the shares of each scored class, (N, S)."""
        return np.array([pair.areas for pair in self.pairs])

    @property
    def thumbnails(self) -> np.ndarray:
        """Stack the thumbnails, uint8 (N, 64, 64)."""
        return np.array([pair.thumbnail for pair in self.pairs])

    def only(self, places: Iterable[int]) -> "DataScan[Notes]":
        """Return a scan of some of its pairs, by their places in `pairs`."""
        return replace(self, pairs=[self.pairs[place] for place in places])


def scan_pairs(
    names: Sequence[tuple[str, str]],
    root: Path,
    spec: DataSpec,
    read: Callable[[int, str, str], DecodedPair[Notes]],
    keep: int = 0,
) -> DataScan[Notes]:
    """Decode each pair (row, image, mask's reference) below `root` by `read`; list what it refuses as broken.

    keep: bytes of decoded images that may stay for the leak audit, which would decode some of them again.
    """
    for table in sorted(tables_of(mask for _, mask in names)):
        rle_table.read(root / table)  # once, before the threads

    def scan_row(row: int) -> tuple[ScannedPair[Notes], np.ndarray] | str:
        try:
            decoded = read(row, *names[row])
        except UserError as error:
            return str(error)
        levels = decoded.levels
        thumbnail = spectra.thumbnail(level_statistics.eight_bits(levels))
        pair = ScannedPair(row, decoded.areas, thumbnail, decoded.notes, levels if keep else None)
        return pair, level_statistics.histogram(levels)

    pairs, broken, room = [], [], keep
    histograms: dict[int, np.ndarray] = {}  # by the number of levels
    results = threads.map_ahead(range(len(names)), scan_row, 2 * threads.CORES)
    for result in console.track(results, len(names), "decoding"):
        if isinstance(result, str):
            broken.append(result)
            continue
        pair, counts = result
        room -= 0 if pair.levels is None else pair.levels.nbytes
        pairs.append(pair if room >= 0 else replace(pair, levels=None))
        histograms[counts.shape[1]] = histograms.get(counts.shape[1], 0) + counts
    return DataScan(level_statistics.measured(spec, histograms) if pairs else spec, pairs, broken)


def areas_of(spec: DataSpec, mask: np.ndarray) -> np.ndarray:
    """Measure the share (S,) of each scored class among the labeled pixels of a mask (K, H, W)."""
    labeled = spec.labeled(mask)
    pixels = mask[0].size if labeled is None else max(1, int(labeled.sum()))
    return np.array([np.count_nonzero(plane) for plane in spec.class_planes(mask)]) / pixels  # axis= is slower


def scan_table(frame: "pd.DataFrame", root: Path, found: FoundSpec, max_pixels: int) -> DataScan[None]:
    """Scan every pair of a table, whose mask files were decoded already.

    Raises one UserError that lists all that is broken, or says that all is empty.
    """
    spec = found.spec

    def read(row: int, image: str, mask: str) -> DecodedPair[None]:
        levels = images.read_levels(root / image, max_pixels, spec.channels)
        shape = (levels.shape[0], levels.shape[1])
        areas = found.areas(row, shape, image)
        if areas is None:
            areas = areas_of(spec, spec.read_mask(root, mask, shape, max_pixels, image))
        return DecodedPair(levels, areas, None)

    scan = scan_pairs(list(zip(frame["image"], frame["mask"], strict=True)), root, spec, read)
    images.refuse_listed(
        scan.broken, "broken or mismatched pairs:", "Repair or remove these files, then run make folds again."
    )
    if not scan.areas.any():
        count = len(scan.pairs)
        raise UserError(
            f"{root}: all {count} masks are empty; there is nothing to learn. Are the values 0 and 1 (or 255)?"
        )
    return scan
