"""The competition's CSV as a file: its ids, its rows, and masks read back from it. Also used within a Kaggle kernel."""

import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import groupby, zip_longest
from pathlib import Path

import numpy as np

from data.dataspec import DataSpec
from formats import rle, rle_table
from formats.images import SUFFIXES
from formats.rle import Key
from tools.errors import UserError, listing
from tools.files import atomic_write
from tools.names import image_name

Row = tuple[str, ...]


def find_sample(input_path: str) -> Path | None:
    """Find sample_submission.csv below INPUT, or the only CSV with that in its name (stage1_sample_submission.csv)."""
    found = [path for path in sorted(Path(input_path).glob("*sample_submission*.csv")) if path.is_file()]
    exact = [path for path in found if path.name == "sample_submission.csv"]
    if len(found) > 1 and not exact:
        raise UserError(
            f"Which sample is it?{listing([str(path) for path in found])}\nCall that one sample_submission.csv."
        )
    return next(iter(exact or found), None)


def image_ids(names: list[str], dialect: rle.Dialect) -> dict[str, str]:
    """Return id -> image's name in the prediction folder. Raises UserError where two images would share an id."""
    ids: dict[str, str] = {}
    for name in names:
        image_id = dialect.id_of(name if dialect.is_by_path(name) else image_name(name))
        if image_id in ids:
            raise UserError(f"{ids[image_id]} and {name} would both have the id {image_id}.")
        ids[image_id] = name
    return ids


def check_classes(spec: DataSpec, dialect: rle.Dialect) -> tuple[str, ...]:
    """Return the classes that each image has a row for: "" where the dialect has no column for them.

    Raises UserError for several classes without a column.
    """
    if dialect.has_classes:
        split = {name: rle.split_joined(f"i{'.png' * dialect.with_suffix}_{name}")[1] for name in spec.scored_names}
        if dialect.joined and any(name != own for name, own in split.items()):
            raise UserError(f"Ids <image>_<class> cannot be told apart with a _ in a class's name: {', '.join(split)}.")
        return spec.scored_names
    if len(spec.scored) > 1:
        able = ", ".join(name for name, other in rle.DIALECTS.items() if other.has_classes)
        raise UserError(
            f"The dialect {dialect.name} has no column for a class, and there are {len(spec.scored)}: "
            f"{', '.join(spec.scored_names)}. Dialects that have one: DIALECT={able}."
        )
    return ("",)


def formed(dialect: rle.Dialect, sample: Path | None) -> rle.Dialect:
    """Take the columns and the form of the ids from the sample, where there is one; all else stays the dialect's.

    Raises UserError where the sample is no CSV, or has columns that no dialect can write.
    """
    if sample is None:
        return dialect
    header, rows = _read_sample(sample)
    names = tuple(name.strip() for name in header)
    found = rle_table.find_columns(header)
    if found is None or len(names) != len(set(names) & set(found)) or names[0] != found[0]:
        raise UserError(
            f"{sample} has the columns {', '.join(header) or 'of no header'}; no submission can be written like that: "
            "no dialect has them. Expected an id, a class where there is one, and run lengths, such as "
            f"{','.join(dialect.columns)}."
        )
    joined = not found[1] and found[0].lower().endswith(rle_table.COMBINED)
    own = replace(dialect, columns=names, joined=joined, class_last=bool(found[1]) and names[2] == found[1])
    ids = [own.parts(row)[0][0] for row in rows if len(row) == len(names)]
    if ids:
        own = replace(own, with_suffix=sum(Path(name).suffix.lower() in SUFFIXES for name in ids) * 2 > len(ids))
    return own


def _read_sample(sample: Path) -> tuple[Row, list[Row]]:
    """Read the sample's header and rows. Raises UserError where it is no CSV."""
    try:
        with sample.open(newline="", encoding="utf-8-sig") as file:  # Excel puts a mark before UTF-8
            reader = csv.reader(file)
            return tuple(next(reader, ())), [tuple(row) for row in reader]
    except (ValueError, csv.Error) as error:
        raise UserError(f"{sample}: not readable as CSV in UTF-8 ({error}).") from error


def keys_of(sample: Path, dialect: rle.Dialect) -> list[Key]:
    """Read the sample's keys (id, class), in its order. Raises UserError where it is no CSV, or of another form."""
    header, rows = _read_sample(sample)
    if tuple(name.strip() for name in header) != dialect.columns:
        raise UserError(
            f"{sample} has the columns {', '.join(header)}, but the submission has {', '.join(dialect.columns)}: "
            "another sample than when it was made. Make it again."
        )
    try:
        return list(dict.fromkeys(dialect.parts(row)[0] for row in rows if len(row) == len(dialect.columns)))
    except UserError as error:
        raise UserError(f"{sample}: {error}") from error


def refuse_other_classes(sample: Path, dialect: rle.Dialect, spec: DataSpec) -> None:
    """Raise UserError where the sample's classes are others than those that are predicted."""
    wanted = {name for _, name in keys_of(sample, dialect)}
    have = set(check_classes(spec, dialect))
    if wanted and wanted != have:
        raise UserError(
            f"{sample} has rows for {', '.join(sorted(wanted)[:12])}; the classes are {', '.join(sorted(have)[:12])}."
        )


def absent(keys: list[Key], sample: Path | None, dialect: rle.Dialect) -> list[Key]:
    """Return the sample's keys of images that are not there.

    None where that is all of them: the ids are of another kind.
    """
    if sample is None:
        return []
    expected, there = keys_of(sample, dialect), {image_id for image_id, _ in keys}
    missing = [key for key in expected if key[0] not in there]
    return missing if len(missing) < len(expected) else []


def check_ids(keys: list[Key], sample: Path | None, dialect: rle.Dialect, partial: bool) -> list[Key]:
    """Return keys (id, class) in the sample's order. Raises UserError where columns or ids differ.

    `partial`: some of the sample's may be missing.
    """
    if sample is None:
        return sorted(keys)
    expected, have = keys_of(sample, dialect), set(keys)
    missing, extra = sorted(set(expected) - have), sorted(have - set(expected))
    if extra or (missing and not partial):
        which = (
            f"{len(missing)} ids of it have no prediction" if missing else f"{len(extra)} predictions have no id in it"
        )
        shown = listing([" ".join(filter(None, key)) for key in missing or extra], 10)
        raise UserError(
            f"{sample} and the predictions do not match; {which}:{shown}\nPredict its images: TEST_PATH=folder"
        )
    return [key for key in expected if key in have]


def rows_of(image_id: str, masks: np.ndarray, classes: tuple[str, ...], dialect: rle.Dialect) -> list[Row]:
    """Return the rows of one image's masks, 0/1 (S, H, W), one for each of `classes`; decoded again and compared.

    Raises UserError where they do not say what the masks do.
    """
    rows: list[Row] = []
    for name, mask in zip(classes, masks, strict=True):
        own = rle.rows(image_id, mask, dialect, name)
        back = np.zeros(mask.shape, np.uint8)
        for row in own:
            back += rle.from_text(
                dialect.parts(row)[1], mask.shape, dialect, image_id
            )  # an overlap becomes 2, and differs
        if (back != mask).any():
            raise UserError(f"{image_id}: what was written does not decode to the mask; please report this.")
        rows += own
    return rows


def write(path: Path, dialect: rle.Dialect, rows: Iterable[Row]) -> None:
    """Write the CSV under another name and rename it when whole."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(dialect.columns)
        writer.writerows(rows)


class Rows:
    """The rows of a CSV, found by key without being held in memory."""

    def __init__(self, path: Path, dialect: rle.Dialect) -> None:
        csv.field_size_limit(1 << 30)  # a mask's runs are longer than the csv module expects of a cell
        self.path, self.places = path, dict[Key, list[int]]()
        with path.open("rb") as file:
            self._check(file.readline(), 1, dialect.columns)
            at = file.tell()
            for number, line in enumerate(file, 2):
                cells = self._check(line, number, None, len(dialect.columns))
                self.places.setdefault(dialect.parts(tuple(cells))[0], []).append(at)
                at += len(line)

    def _check(self, line: bytes, number: int, exactly: tuple[str, ...] | None, count: int = 0) -> list[str]:
        cells = next(csv.reader([line.decode("utf-8")]), [])
        if (exactly and tuple(cells) != exactly) or (count and len(cells) != count):
            expected = ", ".join(exactly or ()) or f"{count} cells"
            raise UserError(f"{self.path}, line {number}: expected {expected}. Run make inference again.")
        return cells

    def of(self, keys: Iterable[Key]) -> Iterator[Row]:
        """Yield the rows of `keys`, in their order."""
        with self.path.open("rb") as file:
            for key in keys:
                for at in self.places[key]:
                    file.seek(at)
                    yield tuple(next(csv.reader([file.readline().decode("utf-8")])))


def rows_in(path: Path) -> Iterator[Row]:
    """Yield the rows of a CSV below its head."""
    csv.field_size_limit(1 << 30)  # a mask's runs are longer than the csv module expects of a cell
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        next(reader, None)
        yield from map(tuple, reader)


def write_ordered(path: Path, dialect: rle.Dialect, unordered: Path, keys: list[Key]) -> int:
    """Write the rows of `unordered` for `keys`, in their order, and read them back; returns their number.

    Raises UserError where what is read is not what was to be written.
    """
    source = Rows(unordered, dialect)
    lacking = [key for key in keys if key not in source.places]
    if lacking:
        raise UserError(f"{unordered} has no row for {' '.join(lacking[0])}. Run make inference again.")
    write(path, dialect, source.of(keys))
    count = 0
    for count, (row, there) in enumerate(zip_longest(source.of(keys), rows_in(path)), 1):
        if row != there:
            raise UserError(f"{path}: row {count} is not what was written; please report this.")
    return count


def read_masks(
    path: Path, dialect: rle.Dialect, shape_of: Callable[[Key], tuple[int, int]]
) -> Iterator[tuple[Key, np.ndarray]]:
    """Yield ((id, class or ""), 0/1 mask (H, W)) of a submission, the rows of one key joined.

    Raises UserError for a broken or overlapping row.
    """
    for key, rows in groupby(_placed_rows(path, dialect), key=lambda row: row[0]):
        shape = shape_of(key)
        mask = np.zeros(shape, np.uint8)
        for _, place, text in rows:
            part = rle.from_text(text, shape, dialect, place)
            if (mask & part).any():
                raise UserError(f"{place}: overlaps an earlier object of the image.")
            mask |= part
        yield key, mask


def _placed_rows(path: Path, dialect: rle.Dialect) -> Iterator[tuple[Key, str, str]]:
    """Yield each row's key, where it stands, and its run lengths."""
    for number, row in enumerate(rows_in(path), 2):
        if len(row) != len(dialect.columns):
            raise UserError(f"{path}, line {number}: {len(row)} cells, expected {len(dialect.columns)}.")
        key, text = dialect.parts(row)
        yield key, f"{path}, line {number} ({row[0]})", text
