"""Every mask file of a table decoded once, and what each holds: the evidence from which mask_meaning decides."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from data.mask_reading import asked
from formats import mask_values
from formats.decode import decode
from formats.images import object_masks
from formats.mask_reference import OBJECT, MaskReference
from formats.mask_values import MaskNote
from tools import console, threads
from tools.errors import UserError

_OF_FILES = ("path", "class_files", "object_files")  # kinds of references whose masks are image files
_REPEATED = 0.6  # of what any file of an image shows


@dataclass(frozen=True)
class Plane:
    """The union of one class's files in one row: how often each gray occurs, the highest of any file counting."""

    values: np.ndarray  # int64 (V,), sorted
    counts: np.ndarray  # pixels

    def share(self, cut: int) -> float:
        """Return the share of pixels whose gray is at least `cut`."""
        return float(self.counts[self.values >= cut].sum() / self.counts.sum())


@dataclass(frozen=True)
class RowNotes:
    """What the mask of one row holds: a note of each of its files, and the union of each class's files."""

    shape: tuple[int, int] | None  # H, W; None where there is no file
    files: tuple[MaskNote, ...]
    planes: tuple[Plane | None, ...]  # one a class of its own mask, None where it has no file
    whole: bool  # one file is the whole mask, so that it may be a class map
    twice: float = 0.0  # of several objects' files: the share of what any shows that several show


def survey(references: Sequence[str], root: Path, classes: tuple[str, ...], max_pixels: int) -> list[RowNotes | str]:
    """Decode the mask files behind each reference, or say what is broken; tables and annotations have none.

    classes: those that have masks of their own.
    """

    def look(text: str) -> RowNotes | str:
        try:
            return _row(MaskReference.parse(text), root, classes, max_pixels)
        except UserError as error:
            return str(error)

    if not any(MaskReference.parse(text).kind in _OF_FILES for text in references):
        return [RowNotes(None, (), (), False) for _ in references]
    return list(console.track(threads.map_ahead(references, look, 2 * threads.CORES), len(references), "masks"))


def _row(where: MaskReference, root: Path, classes: tuple[str, ...], max_pixels: int) -> RowNotes:
    if where.kind not in _OF_FILES:
        return RowNotes(None, (), (), False)
    paths = where.class_paths(root, classes) if where.kind == "class_files" else [root / where.path]
    if where.kind == "path" and not paths[0].is_dir():
        note = mask_values.read(paths[0], max_pixels)
        return RowNotes(note.shape, (note,), (), True)
    notes: list[MaskNote] = []
    planes: list[Plane | None] = []
    twice = 0.0
    for path in paths:
        if where.kind == "object_files":
            files = where.files(root, classes)
        elif path.is_dir():
            files = object_masks(path)
        else:
            files = [path] if path.exists() or where.kind == "path" else []
        noted, plane, twice = _union(files, max_pixels)
        notes += noted
        planes.append(plane)
    for note in notes:
        if note.shape != notes[0].shape:
            have, want = (f"{shape[1]} x {shape[0]}" for shape in (note.shape, notes[0].shape))
            raise UserError(f"{note.path}: {have} pixels, but {notes[0].path.name} beside it has {want}.")
    return RowNotes(notes[0].shape if notes else None, tuple(notes), tuple(planes), False, twice)


def refuse_repeated(references: Sequence[str], rows: Sequence[RowNotes | str], root: Path, command: str) -> None:
    """Ask whether numbered files that show the same are objects, or one object that several people drew.

    Raises UserError.
    """
    several = [
        (text, row)
        for text, row in zip(references, rows, strict=True)
        if isinstance(row, RowNotes) and len(row.files) > 1 and MaskReference.parse(text).kind == "object_files"
    ]
    if len(several) < 3 or sorted(row.twice for _, row in several)[len(several) // 2] < _REPEATED:
        return
    text, row = several[0]
    first = row.files[0].path.relative_to(root).as_posix()
    own = first[len(text.partition(OBJECT)[0]) :]
    mark = re.search(r"[\W_][^\W_]*$", text.partition(OBJECT)[0].rpartition("/")[2])
    pattern = row.files[0].path.with_name(f"*{mark[0] if mark else ''}{own}")
    lines = [
        f"several people drew the same, and the first is taken: {command} MASK_PATH='{pattern}'",
        f"each file is an object: {command} TASK=binary",
    ]
    seen = f"{len(several)} masks are several files, such as {first}, that show nearly the same"
    raise asked(str(root), seen, lines)


def _union(files: Sequence[Path], max_pixels: int) -> tuple[list[MaskNote], Plane | None, float]:
    """Note each file, the highest gray of all of them in each pixel, and the share that several show."""
    notes: list[MaskNote] = []
    again = 0
    highest: np.ndarray | None = None
    for file in files:
        samples = decode(file, max_pixels)
        notes.append(mask_values.note_of(samples))
        if len(files) == 1:
            return notes, Plane(*_by_gray(notes[0])), 0.0
        gray = mask_values.binary_values(samples)
        if highest is not None and highest.shape != gray.shape:
            return notes, None, 0.0  # the caller says so
        if highest is not None:
            again += cv2.countNonZero(cv2.min(highest, gray))
        highest = gray if highest is None else np.maximum(highest, gray)
    if highest is None:
        return notes, None, 0.0
    counts = np.bincount(highest.ravel())
    values = np.flatnonzero(counts)
    return notes, Plane(values, counts[values]), again / max(1, (len(files) - 1) * cv2.countNonZero(highest))


def _by_gray(note: MaskNote) -> tuple[np.ndarray, np.ndarray]:
    """Add up the pixels of each gray: several colors may have one."""
    values, places = np.unique(note.shown, return_inverse=True)
    return values, np.bincount(places, weights=note.counts).astype(np.int64)
