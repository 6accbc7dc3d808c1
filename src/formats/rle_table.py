"""Tables of run lengths as competitions ship them for training: several rows an image, with or without a class.

A table is read once for the whole process. How other tables refer to one image's masks in it says mask_reference.py.
"""

import csv
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from formats import rle
from tools.errors import UserError
from tools.files import read_once

EMPTY = {"", "nan", "NaN", "-1", "-", "1 0"}  # what tables hold where an image has no object
# The usual names of the columns in lower case, the best first: `id` may only number the rows where there is another.
IDS = (
    "imageid", "image_id", "img", "image", "record_id", "img_id", "image_name", "imageid_classid", "image_label",
    "image_class", "filename", "file_name", "id",
)  # fmt: skip
RLES = (
    "encodedpixels", "encoded_pixels", "rle_mask", "mask_rle", "rle", "segmentation", "encoding", "predicted",
    "annotation", "pixels",
)  # fmt: skip
CLASSES = ("class", "classid", "class_id", "class_name", "label", "category", "category_id")
COMBINED = ("_label", "_classid", "_class")  # how the name of an id column ends whose cells are <image>_<class>

# The columns of each competition's training table, case and all. ImageId,EncodedPixels are Airbus's, and also the 2018
# Data Science Bowl's and SIIM-ACR's; only a space in SIIM-ACR's header tells that apart.
_TRAINING = {
    ("img", "", "rle_mask"): "carvana",
    ("id", "", "rle_mask"): "tgs",
    ("id", "class", "segmentation"): "uwmgi",
    ("id", "class", "predicted"): "uwmgi",
    ("id", "", "encoding"): "hubmap",
    ("id", "", "predicted"): "hubmap",
    ("record_id", "", "encoded_pixels"): "contrails",
    ("Id", "", "Predicted"): "vesuvius",
}


@dataclass(frozen=True, eq=False)
class RleTable:
    """A table's rows, sorted by image and kept as text until a mask is asked for."""

    path: Path
    columns: tuple[str, ...]  # the header, as the file has it
    ids: tuple[str, ...]  # each image once, in the file's order, also where all its rows are empty
    classes: tuple[str, ...]  # sorted; () where the table has no class
    _number: dict[str, int] = field(repr=False)  # id -> its place in ids
    _first: np.ndarray = field(repr=False)  # (ids + 1,) where each image's rows begin
    _lines: np.ndarray = field(repr=False)  # line in the file, of each row that is not empty
    _kinds: np.ndarray = field(repr=False)  # place in classes, of each row
    _texts: list[str] = field(repr=False)

    def runs(self, image_id: str, class_name: str = "") -> list[tuple[int, str]]:
        """List (line, run lengths) of one image's rows that are not empty; `class_name` "" means every class.

        Raises UserError for an id or a class that the table does not have.
        """
        if image_id not in self._number:
            raise UserError(f"{self.path} has no id {image_id}; its ids look like {', '.join(self.ids[:3])}.")
        if class_name and class_name not in self.classes:
            have = f"it has {', '.join(self.classes[:20])}" if self.classes else "it has no column of classes"
            raise UserError(f"{self.path} has no class {class_name}; {have}.")
        wanted = self.classes.index(class_name) if class_name else None
        number = self._number[image_id]
        rows = range(self._first[number], self._first[number + 1])
        return [(int(self._lines[row]), self._texts[row]) for row in rows if wanted in (None, self._kinds[row])]

    @property
    def has_rows_of_objects(self) -> bool:
        """Say whether any image has several rows (of one class): a row an object."""
        owners = np.repeat(np.arange(len(self.ids)), np.diff(self._first))
        kinds = owners * (len(self.classes) + 1) + self._kinds
        return len(np.unique(kinds)) < len(kinds)

    def mask(self, image_id: str, class_name: str, shape: tuple[int, int], dialect: rle.Dialect) -> np.ndarray:
        """Unite the image's rows, uint8 (H, W) of 0 and 1; `class_name` "" means every class.

        Raises UserError that names file, line and id for run lengths that are broken or do not fit `shape`.
        """
        whole = np.zeros(shape, np.uint8)
        for line, text in self.runs(image_id, class_name):
            whole |= rle.from_text(text, shape, dialect, f"{self.path}, line {line} ({image_id})")
        return whole


def find_columns(header: Sequence[str]) -> tuple[str, str, str] | None:
    """Find (id, class or "", run lengths) in a header by their usual names; None where it is no such table.

    The names come back as the header writes them, without spaces around them.
    """
    names: dict[str, str] = {}
    for name in header:
        names.setdefault(name.strip().lower(), name.strip())
    found = [next((names[name] for name in usual if name in names), "") for usual in (IDS, CLASSES, RLES)]
    return (found[0], found[1], found[2]) if found[0] and found[2] else None


def guess_dialect(header: Sequence[str]) -> str:
    """Name the dialect whose training table has these columns; "airbus" (down, then right) for unknown ones.

    A guess: ImageId,EncodedPixels are also dsb2018's, and siim's where the header lost its space. make rle-check shows
    which order is right.
    """
    if " EncodedPixels" in header:
        return "siim"
    return _TRAINING.get(find_columns(header) or ("", "", ""), "airbus")


def is_own(header: Sequence[str], name: str) -> bool:
    """Say whether a header is that of the training table of the dialect `name`."""
    shared = find_columns(header) == ("ImageId", "", "EncodedPixels") and name in ("airbus", "dsb2018", "siim")
    return shared or _TRAINING.get(find_columns(header) or ("", "", "")) == name


def is_known(header: Sequence[str]) -> bool:
    """Say whether a header is that of a known competition's training table, whose order of pixels is known too."""
    return is_own(header, guess_dialect(header))


@read_once("a CSV of ids and run lengths", 4)
def read(path: Path) -> RleTable:
    """Read the table at `path`, once for as long as the file stays as it is, also where several threads ask for it.

    Raises UserError for a missing file, one that is not CSV in UTF-8, missing columns, no rows, and a broken row.
    """
    rows = _rows(path)
    _, header = next(rows, (0, []))
    return _gathered(path, header, _cells(path, header, rows))


def read_header(path: Path) -> list[str]:
    """Read the cells of a CSV's first line, [] where it is empty. Raises UserError where it is not CSV in UTF-8."""
    return next(_rows(path), (0, []))[1]


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Read (line, cells) of a CSV, its header first."""
    csv.field_size_limit(1 << 30)  # a mask's runs are longer than the csv module expects of a cell
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # Excel puts a mark before UTF-8
            reader = csv.reader(file)
            for row in reader:
                yield reader.line_num, row
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}: not readable as CSV in UTF-8 ({error}). Save it as that, or move it away.") from error


def _cells(path: Path, header: list[str], rows: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, str, str, str]]:
    """Read (line, id, class, run lengths) of each row below the header."""
    columns = find_columns(header)
    if columns is None:
        have = f"it has {', '.join(header)}" if header else "it is empty"
        raise UserError(f"{path}: found no columns of ids and run lengths such as ImageId,EncodedPixels; {have}.")
    stripped = [name.strip() for name in header]
    one, text = stripped.index(columns[0]), stripped.index(columns[2])
    other = stripped.index(columns[1]) if columns[1] else None
    combined = not columns[1] and columns[0].lower().endswith(COMBINED)
    for line, row in rows:
        if not row:
            continue
        if len(row) != len(header):
            raise UserError(f"{path}, line {line}: {len(row)} cells, expected {len(header)}.")
        image_id, class_name, runs = row[one], "" if other is None else row[other].strip(), row[text].strip()
        if combined:
            try:
                image_id, class_name = rle.split_joined(image_id, columns[0])
            except UserError as error:
                raise UserError(f"{path}, line {line}: {error}") from error
        elif not image_id:
            raise UserError(f"{path}, line {line}: no {columns[0]}.")
        elif other is not None and not class_name and runs not in EMPTY:  # without an object there may be no class
            raise UserError(f"{path}, line {line} ({image_id}): run lengths, but no {columns[1]}.")
        yield line, image_id, class_name, runs


def _gathered(path: Path, header: list[str], cells: Iterator[tuple[int, str, str, str]]) -> RleTable:
    """Gather the rows sorted by image, in flat arrays: a million of them need little more than their text."""
    numbers: dict[str, int] = {}
    kinds: dict[str, int] = {}
    owners, kind_of, lines, texts = array("q"), array("q"), array("q"), []
    for line, image_id, class_name, text in cells:
        owner = numbers.setdefault(image_id, len(numbers))
        kind = kinds.setdefault(class_name, len(kinds))
        if text not in EMPTY:
            owners.append(owner)
            kind_of.append(kind)
            lines.append(line)
            texts.append(text)
    if not numbers:
        raise UserError(f"{path}: there are no rows below its header.")
    classes = tuple(sorted(filter(None, kinds)))
    place = np.array([classes.index(name) if name else -1 for name in kinds])
    order = np.argsort(owners, kind="stable")  # rows of an image may lie anywhere in the file
    first = np.searchsorted(np.asarray(owners)[order], np.arange(len(numbers) + 1))
    return RleTable(
        path,
        tuple(header),
        tuple(numbers),
        classes,
        numbers,
        first,
        np.asarray(lines)[order],
        place[np.asarray(kind_of)][order],
        [texts[row] for row in order.tolist()],
    )
