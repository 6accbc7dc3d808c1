"""What the masks of a whole data set hold, added up over all files: the figures behind the decision of mask_meaning."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from formats.mask_values import MaskNote

_BINS = 256
_DUST = 0.005  # of the main value's pixels: stray ones
_ODD = 0.2  # of the files may be gray all over
_AROUND = 0.9  # of the borders: what is there is the ground


def _histogram(notes: Sequence[MaskNote], step: int) -> np.ndarray:
    counts = np.zeros(_BINS, np.int64)
    for note in notes:
        np.add.at(counts, note.shown // step, note.counts)
    return counts


@dataclass
class ValueFigures:
    """One value, or packed color, over all files."""

    pixels: int = 0
    inner: int = 0  # pixels whose four neighbors have it too
    files: int = 0
    looked: int = 0  # files in which its regions were counted
    single: int = 0  # files in which it is one region

    @property
    def thickness(self) -> float:
        """Return the share of its pixels that lie within: 0 for lines and dust, near 1 for large regions."""
        return self.inner / max(1, self.pixels)


@dataclass(frozen=True)
class Modes:
    """The two grays that a set of soft or lossy masks has, and how much lies between them."""

    low: int
    high: int
    between: float  # share of all pixels

    @property
    def cut(self) -> int:
        """Return the lowest gray that is foreground."""
        return (self.low + self.high + 1) // 2


@dataclass(frozen=True)
class MaskPool:
    """All notes of a data set's mask files, either all gray or all in colors."""

    notes: Sequence[MaskNote]
    color: bool
    values: dict[int, ValueFigures] = field(default_factory=dict)

    @classmethod
    def of(cls, notes: Iterable[MaskNote]) -> "MaskPool":
        """Add up notes; where any is in colors, grays count as colors."""
        kept = list(notes)
        pool = cls(kept, any(note.color for note in kept))
        for note in kept:
            keys = note.values * 0x10101 if pool.color and not note.color else note.values
            for key, count, inner, parts in zip(keys.tolist(), note.counts, note.inner, note.parts, strict=True):
                figures = pool.values.setdefault(key, ValueFigures())
                figures.pixels += int(count)
                figures.inner += int(inner)
                figures.files += 1
                figures.looked += int(parts >= 0)
                figures.single += int(parts == 1)
        return pool

    @cached_property
    def nonzero(self) -> list[int]:
        """List the values that are not 0, sorted."""
        return sorted(value for value in self.values if value)

    @cached_property
    def pixels(self) -> int:
        """Count the pixels of all files."""
        return sum(figures.pixels for figures in self.values.values())

    @property
    def jpeg(self) -> bool:
        """Say whether any file is a JPEG, whose values are smeared."""
        return any(note.jpeg for note in self.notes)

    @property
    def inverted(self) -> bool:
        """Say whether light goes all around nearly every file and covers most of it: black on white paper."""
        drawn = [note for note in self.notes if len(note.values) > 1]
        light = sum(int(note.counts[2 * note.shown > note.shown.max()].sum()) for note in drawn)
        around = sum(note.rim for note in drawn) >= _AROUND * len(drawn)
        some = len(drawn) >= 3 and not any(note.values[-1] == 0 for note in self.notes)  # nothing drawn would be white
        return some and around and 2 * light >= sum(int(note.counts.sum()) for note in drawn)

    def share(self, *values: int) -> float:
        """Return the share of all pixels with one of these values."""
        return sum(self.values[value].pixels for value in values if value in self.values) / max(1, self.pixels)

    def together(self, first: int, *others: int) -> bool:
        """Say whether any file has `first` and one of the others."""
        wanted = set(others)
        return any(first in found and found & wanted for found in (note.nonzero for note in self.notes))

    def alone(self) -> bool:
        """Say whether no file has more than one value beside 0."""
        return all(len(note.nonzero) <= 1 for note in self.notes)

    @cached_property
    def histogram(self) -> np.ndarray:
        """Count the grays that binary masks would have, int64 (256,); of 16 bits in 256 equal steps."""
        top = max((int(note.shown.max(initial=0)) for note in self.notes), default=0)
        return _histogram(self.notes, 1 if top < _BINS else (top + _BINS) // _BINS)

    @cached_property
    def modes(self) -> "Modes | None":
        """Find the two grays of a binary set with soft or lossy edges; None where there are more, or none.

        A few files that have none may be left out: they are broken, and refused by name once the others are understood.
        """
        if not self.color and max(self.values, default=0) >= _BINS:
            return None
        modes = two_modes(self.histogram)
        if modes:
            return modes
        kept = [note for note in self.notes if len(note.values) <= 2 or two_modes(_histogram([note], 1))]
        return two_modes(_histogram(kept, 1)) if len(kept) >= (1 - _ODD) * len(self.notes) else None

    def is_dust(self, values: Sequence[int], main: int) -> bool:
        """Say whether values are stray pixels beside one of `main` pixels: few, and none within a region of its own."""
        found = [self.values[value] for value in values]
        return all(figures.inner == 0 and figures.pixels <= _DUST * main for figures in found)

    def seen(self, value: int) -> str:
        """Describe a value for people: its share of the pixels and its files."""
        figures = self.values[value]
        return f"{percent(figures.pixels / max(1, self.pixels))} of the pixels in {figures.files} files"


def percent(share: float) -> str:
    """Write a share with two digits that count."""
    return "100%" if share >= 0.995 else f"{100 * share:.2g}%" if share else "0%"


def two_modes(histogram: np.ndarray) -> Modes | None:
    """Find two grays that nearly all pixels lie near; None where a third stands out, or the grays run through.

    histogram: counts (256,). The upper mode is the most frequent gray at least a quarter of the range above or below
    the most frequent one. What lies between may be the soft edges of the foreground: less than the foreground itself.
    """
    present = np.flatnonzero(histogram)
    if len(present) < 2:
        return None
    reach = max(1, int(present[-1] - present[0]) // 4)
    first = int(histogram.argmax())
    far = histogram.copy()
    far[max(0, first - reach + 1) : first + reach] = 0
    if not far.any():
        return None
    low, high = sorted((first, int(far.argmax())))
    width = high - low
    margin = max(0, width // 10)
    near = [slice(max(0, mode - margin), mode + margin + 1) for mode in (low, high)]
    dark, bright = (int(histogram[part].sum()) for part in near)
    between = int(histogram.sum()) - dark - bright
    if between > 0.6 * min(dark, bright) or _third(histogram, low, high):
        return None
    return Modes(low, high, between / int(histogram.sum()))


def _third(histogram: np.ndarray, low: int, high: int) -> bool:
    """Say whether another gray stands out beside the two: at least a seventh of the rarer mode lies near it."""
    near = max(0, (high - low) // 20)
    window = np.convolve(histogram, np.ones(2 * near + 1, np.int64), "same")
    limit = min(window[low], window[high]) / 7
    others, apart = window.copy(), (high - low) // 4
    for mode in (low, high):
        others[max(0, mode - apart) : mode + apart + 1] = 0
    usual = np.median(window[low : high + 1]) if high - low > 8 else 0
    return bool(((others >= limit) & (others > 3 * usual)).any())


@dataclass(frozen=True)
class ObjectSigns:
    """Signs that values number objects: what they are, and how strong they are."""

    plausible: bool
    sure: bool
    said: str


def object_signs(pool: MaskPool) -> ObjectSigns:
    """Tell numbers of objects from classes.

    Objects are numbered 1, 2, ... within each file, or each has a number of its own; each is one region; how many
    there are differs from file to file; and the number says nothing of the size. Classes are the same in all files.
    """
    filled = [note.nonzero for note in pool.notes if note.nonzero]
    counts = [len(found) for found in filled]
    looked = sum(pool.values[value].looked for value in pool.nonzero)
    single = sum(pool.values[value].single for value in pool.nonzero) / max(1, looked)
    said = (
        f"{min(counts, default=0)} to {max(counts, default=0)} values a file, {percent(single)} of them one region each"
    )
    if not looked or single < 0.9:
        return ObjectSigns(False, False, said)
    numbered = (
        len(set(counts)) > 1 and all(found == set(range(1, len(found) + 1)) for found in filled) and not pool.color
    )
    usual = float(np.median(counts))
    own = usual >= 2 and len(pool.nonzero) >= 3 * usual and _reuse(filled) <= 0.3
    if not (numbered or own):
        return ObjectSigns(False, False, said)
    sizes = _size_by_value(pool)
    steps = np.sum([note.ordered for note in pool.notes], axis=0)
    in_order = steps[1] >= 10 and steps[0] >= 0.9 * steps[1]
    fullest = Counter(counts)[max(counts)] / len(counts)
    varied = len(set(counts)) >= 3 and fullest <= 0.5
    if max(counts) <= 2 and not own:
        return ObjectSigns(len(filled) >= 6 and sizes < 0.2 and single > 0.95, False, said)
    sure = own or (varied and sizes < 0.4 and (max(counts) >= 5 or in_order))
    return ObjectSigns(sure or sizes < 0.6, sure, said)


def _reuse(filled: list[set[int]]) -> float:
    """Return in what share of the files a value occurs, on average over the values."""
    uses = Counter(value for found in filled for value in found)
    return float(np.mean(list(uses.values()))) / len(filled)


def _size_by_value(pool: MaskPool) -> float:
    """Return how much of the variance of log size the value explains, adjusted for chance: near 0 for objects."""
    sizes: dict[int, list[float]] = {}
    for note in pool.notes:
        for value, count in zip(note.values.tolist(), note.counts.tolist(), strict=True):
            if value:
                sizes.setdefault(value, []).append(float(np.log(count)))
    kept = [group for group in sizes.values() if len(group) >= 2]
    total = [size for group in kept for size in group]
    if len(kept) < 2 or len(total) <= len(kept) + 1:
        return 0.0
    spread = float(np.var(total) * len(total))
    within = float(sum(np.var(group) * len(group) for group in kept))
    if spread == 0:
        return 0.0
    return max(0.0, 1 - (within / (len(total) - len(kept))) / (spread / (len(total) - 1)))
