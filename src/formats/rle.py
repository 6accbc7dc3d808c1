"""Masks as run lengths and back, in the dialects of Kaggle's competitions, and the rows of a submission.

A run is "start length", start counted from 1. Dialects differ in the pixels' order, the columns, in what a row is, in
how an empty mask is written, and one (SIIM-ACR) counts each start from the end of the run before.
"""

import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from tools.errors import UserError

Order = Literal["C", "F"]  # left to right, then down; or down, then left to right
Key = tuple[str, str]  # an image's id and a class, "" where there is no column for it
# the class follows the first _ after a file's ending, else the last _
_JOINED = re.compile(r"(.+?\.(?:jpe?g|png|tiff?|bmp|gif|webp|npy))_(.+)|(.+)_(.+)", re.I | re.S)


@dataclass(frozen=True)
class Dialect:
    """How one competition writes its masks down."""

    name: str
    order: Order
    columns: tuple[str, ...]  # id, run lengths; or id, class, run lengths
    with_suffix: bool  # the id keeps the file's suffix
    per_object: bool  # one row for every connected object instead of one for the image
    empty: str = ""  # what stands for an empty mask
    relative: bool = False  # a start is the gap since the end of the run before, the first counted from 0
    joined: bool = False  # an id is <image>_<class>
    class_last: bool = False  # the class stands behind the run lengths
    id_pattern: str = ""  # finds an id's parts, joined by _, in an image's path; where it misses, the file's name is it

    @property
    def has_classes(self) -> bool:
        """Say whether a row also names a class."""
        return self.joined or len(self.columns) == 3

    def id_of(self, path: str) -> str:
        """Return the id of the image at this POSIX path."""
        if found := self.id_pattern and re.search(self.id_pattern, path):
            return "_".join(found.groups())
        return Path(path).name if self.with_suffix else Path(path).stem

    def is_by_path(self, path: str) -> bool:
        """Say whether the id of the image at this POSIX path is made of parts of the path."""
        return bool(self.id_pattern and re.search(self.id_pattern, path))

    def cells(self, key: Key, text: str) -> tuple[str, ...]:
        """Write a row in the order of the columns."""
        if self.joined:
            return "_".join(key), text
        if self.class_last:
            return key[0], text, key[1]
        return (*key, text) if len(self.columns) == 3 else (key[0], text)

    def parts(self, cells: tuple[str, ...]) -> tuple[Key, str]:
        """Read a row that has as many cells as there are columns. Raises UserError for an id without a class."""
        if self.joined:
            return split_joined(cells[0]), cells[1]
        if self.class_last:
            return (cells[0], cells[2]), cells[1]
        return (cells[0], cells[1] if len(cells) == 3 else ""), cells[-1]

    @property
    def form(self) -> dict[str, Any]:
        """Return in what this differs from the dialect of its name, JSON-ready; `formed` reads it."""
        usual = asdict(DIALECTS[self.name])
        return {name: value for name, value in asdict(self).items() if value != usual[name]}


def formed(name: str, form: dict[str, Any], where: str) -> Dialect:
    """Return the dialect `name` with what `form` says otherwise. Raises UserError, naming `where`, for what is none."""
    usual = DIALECTS.get(name)
    kinds = {} if usual is None else {key: type(value) for key, value in asdict(usual).items()}
    own: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in form.items()}
    if usual is None or any(not isinstance(value, kinds.get(key, ())) for key, value in own.items()):
        raise UserError(f"{where} holds no dialect of submissions: {name} {form}. Make it again.")
    return replace(usual, **own)


def split_joined(text: str, column: str = "the id") -> Key:
    """Split <image>_<class>, a cell of `column`. Raises UserError for anything else."""
    match = _JOINED.fullmatch(text)
    if match is None:
        raise UserError(f"expected <image>_<class> for {column}, got '{text}'.")
    return match[1] or match[3], match[2] or match[4]


def _dialects(*dialects: Dialect) -> dict[str, Dialect]:
    return {dialect.name: dialect for dialect in dialects}


# Each as on its competition's pages "Evaluation" and "Data"; the names behind # follow kaggle.com/competitions/.
DIALECTS = _dialects(
    # carvana-image-masking-challenge: row by row, unlike nearly all that came later
    Dialect("carvana", "C", ("img", "rle_mask"), with_suffix=True, per_object=False),
    # data-science-bowl-2018: one row a nucleus, no pixel twice
    Dialect("dsb2018", "F", ("ImageId", "EncodedPixels"), with_suffix=False, per_object=True),
    # tgs-salt-identification-challenge
    Dialect("tgs", "F", ("id", "rle_mask"), with_suffix=False, per_object=False),
    # airbus-ship-detection: one row a ship, no pixel twice
    Dialect("airbus", "F", ("ImageId", "EncodedPixels"), with_suffix=True, per_object=True),
    # siim-acr-pneumothorax-segmentation, mask_functions.py: relative, on the transposed image
    Dialect("siim", "F", ("ImageId", "EncodedPixels"), False, False, empty="-1", relative=True),
    # hubmap-kidney-segmentation
    Dialect("hubmap", "F", ("id", "predicted"), with_suffix=False, per_object=False),
    # uw-madison-gi-tract-image-segmentation: the page says top to bottom, but public solutions read train.csv and write
    # their submissions left to right
    Dialect(
        "uwmgi",
        "C",
        ("id", "class", "predicted"),
        False,
        False,
        id_pattern=r"(?:^|/)(case\d+_day\d+)/scans/(slice_\d+)",
    ),
    # google-research-identify-contrails-reduce-global-warming
    Dialect(
        "contrails",
        "F",
        ("record_id", "encoded_pixels"),
        False,
        False,
        empty="-",
        id_pattern=r"(?:^|/)([^/]+)/band_\{z\}\.npy$",
    ),
    # vesuvius-challenge-ink-detection
    Dialect("vesuvius", "C", ("Id", "Predicted"), with_suffix=False, per_object=False),
)


def encode(mask: np.ndarray, order: Order) -> str:
    """Encode non-zero pixels of (H, W) -> "start length start length ...", "" for an empty mask."""
    flat = np.ravel(mask != 0, order=order)
    edges = np.empty(flat.size + 1, bool)
    edges[0], edges[-1] = flat[0], flat[-1]
    np.not_equal(flat[1:], flat[:-1], out=edges[1:-1])
    runs = np.flatnonzero(edges).reshape(-1, 2)  # start and end of each run, from 0
    runs[:, 1] -= runs[:, 0]
    runs[:, 0] += 1
    return _text(runs)


def decode(text: str, shape: tuple[int, int], order: Order, where: str = "run lengths") -> np.ndarray:
    """Decode run lengths -> uint8 (H, W) of 0 and 1.

    Raises UserError, beginning with `where`, for an odd count, something that is no number, a start or length below 1,
    runs that overlap or are unsorted, and runs beyond the image.
    """
    starts, lengths = numbers(text, where)
    if (starts < 1).any() or (lengths < 1).any():
        raise UserError(f"{where}: starts and lengths count from 1, got '{text[:40]}'.")
    return _painted(starts - 1, lengths, shape, order, where)


def to_text(mask: np.ndarray, dialect: Dialect) -> str:
    """Encode as the dialect writes it: relative, and with its own sign for an empty mask."""
    return _dialect_text(encode(mask, dialect.order), dialect)


def from_text(text: str, shape: tuple[int, int], dialect: Dialect, where: str = "run lengths") -> np.ndarray:
    """Decode a dialect's run lengths -> uint8 (H, W) of 0 and 1; blank, or the dialect's sign for it, is empty.

    Raises UserError as `decode` does; relative starts count from 0.
    """
    text = text.strip()  # the training file of SIIM-ACR has " -1"
    if text in ("", dialect.empty):
        return np.zeros(shape, np.uint8)
    if not dialect.relative:
        return decode(text, shape, dialect.order, where)
    gaps, lengths = numbers(text, where)
    if (gaps < 0).any() or (lengths < 1).any():
        raise UserError(f"{where}: relative starts count from 0 and lengths from 1, got '{text[:40]}'.")
    most = shape[0] * shape[1] + 1  # cut off what lies beyond the image anyway: the sums stay far from int64's end
    gaps, lengths = np.minimum(gaps, most), np.minimum(lengths, most)
    return _painted(np.cumsum(gaps + lengths) - lengths, lengths, shape, dialect.order, where)


def numbers(text: str, where: str = "run lengths") -> tuple[np.ndarray, np.ndarray]:
    """Read starts and lengths as they are written, int64 each. UserError for what is no pair of whole numbers."""
    try:
        values = np.array(text.split(), dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{where}: run lengths are whole numbers, got '{text[:40]}'.") from error
    if values.size % 2:
        raise UserError(f"{where}: {values.size} numbers; run lengths come in pairs of start and length.")
    return values[0::2], values[1::2]


def _painted(starts: np.ndarray, lengths: np.ndarray, shape: tuple[int, int], order: Order, where: str) -> np.ndarray:
    """Paint runs, `starts` from 0, as uint8 (H, W)."""
    pixels = shape[0] * shape[1]
    if (starts >= pixels).any() or (lengths > pixels - starts).any():
        raise UserError(f"{where}: a run ends beyond the {shape[1]} x {shape[0]} pixels of the image.")
    ends = starts + lengths
    if (starts[1:] < ends[:-1]).any():
        raise UserError(f"{where}: runs overlap or are not sorted.")
    flat = np.zeros(pixels, np.uint8)
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        flat[start:end] = 1
    return flat.reshape(shape, order=order)


def rows(image_id: str, mask: np.ndarray, dialect: Dialect, class_name: str = "") -> list[tuple[str, ...]]:
    """Write the rows for one image (and class) in the dialect's columns: one, or one per object (8 neighbors).

    An empty mask is one row. Raises UserError where only one of the two has a class: the dialect, or the mask.
    """
    if bool(class_name) != dialect.has_classes:
        lack = f"none for the class {class_name}" if class_name else "so each mask needs a class"
        raise UserError(f"DIALECT={dialect.name} has the columns {', '.join(dialect.columns)}, {lack}.")
    key = (image_id, class_name)
    if not dialect.per_object or not mask.any():
        return [dialect.cells(key, to_text(mask, dialect))]
    return [dialect.cells(key, _dialect_text(text, dialect)) for text in encode_objects(mask, dialect.order)]


def encode_objects(mask: np.ndarray, order: Order) -> list[str]:
    """Encode every connected object (8 neighbors), each within its own bounding box's cost."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    height, width = mask.shape
    texts = []
    for label in range(1, count):
        x, y, w, h, _ = stats[label]
        part = labels[y : y + h, x : x + w] == label
        # runs never cross the edge of the box in the scanned direction, so only the starts need moving
        pairs = _pairs(encode(_framed(part, order), order))
        line, offset = np.divmod(pairs[:, 0] - 1, (h if order == "F" else w) + 1)
        if order == "F":
            pairs[:, 0] = (x + line) * height + y + offset + 1
        else:
            pairs[:, 0] = (y + line) * width + x + offset + 1
        texts.append(_text(_joined(pairs)))
    return texts


def _dialect_text(text: str, dialect: Dialect) -> str:
    """Write the text of `encode` as the dialect writes it."""
    if not text:
        return dialect.empty
    if not dialect.relative:
        return text
    pairs = _pairs(text)
    pairs[:, 0] -= 1
    pairs[1:, 0] -= pairs[:-1].sum(axis=1)  # the right side is summed up before anything changes
    return _text(pairs)


def _pairs(text: str) -> np.ndarray:
    return np.array(text.split(), dtype=np.int64).reshape(-1, 2)


def _text(pairs: np.ndarray) -> str:
    return " ".join(map(str, pairs.ravel().tolist()))


def _framed(part: np.ndarray, order: Order) -> np.ndarray:
    """Add one empty line at the end of each scan line, so that no run goes on into the next one."""
    return np.pad(part, ((0, 1), (0, 0)) if order == "F" else ((0, 0), (0, 1)))


def _joined(pairs: np.ndarray) -> np.ndarray:
    """Merge runs that touch, as where an object reaches both edges of the image."""
    new = np.ones(len(pairs), bool)
    new[1:] = pairs[1:, 0] != pairs[:-1, 0] + pairs[:-1, 1]
    return np.stack([pairs[new, 0], np.add.reduceat(pairs[:, 1], np.flatnonzero(new))], axis=1)
