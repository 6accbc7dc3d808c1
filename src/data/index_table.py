"""The index table that folds are made of: image, mask, group, stratum, sorted by image.

It comes from a layout or from a CSV of the user's. All cells are texts. Paths are relative to INPUT.
"""

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from data import groups, layouts, splits
from data.layout_match import LayoutMatch
from data.name_checks import refuse_odd_names, refuse_twins
from data.table_dialect import with_dialect
from formats import annotations, images, rle_table
from formats.mask_reference import CLASS, MaskReference, tables_of
from tools.errors import UserError, listing

if TYPE_CHECKING:
    import pandas as pd

    from settings import Settings

COLUMNS = ("image", "mask", "group", "stratum")


@dataclass(frozen=True)
class IndexTable:
    """The table, where it comes from, and a hint where names look like views of one thing and no group is set."""

    frame: "pd.DataFrame"
    match: LayoutMatch
    hint: groups.Hint | None

    @property
    def warning(self) -> str:
        """Say what to do about the hint, "" where there is none."""
        if self.hint is None:
            return ""
        return f"{self.hint.sentence} If so: make folds GROUP='{self.hint.rule}'. If not: GROUP=none"


def index(settings: "Settings", table: str) -> IndexTable:
    """List the images and masks to split: those of `table`, or of the layout. Raises UserError."""
    if table:
        return of_users_table(Path(table), settings)
    return of_layout(layouts.find(layouts.Wanted.of(settings)), settings)


def of_layout(match: LayoutMatch, settings: "Settings") -> IndexTable:
    """Make the table of a layout's pairs, with kfold where the data come with a split."""
    import pandas as pd

    frame = pd.DataFrame({name: [getattr(pair, name) for pair in match.pairs] for name in ("image", "mask", "stratum")})
    frame.insert(2, "group", groups.assign(list(frame["image"]), settings.GROUP, match.group))
    if all(pair.kfold is not None for pair in match.pairs):
        frame["kfold"] = [str(pair.kfold) for pair in match.pairs]
    frame = _checked(frame.sort_values("image", ignore_index=True), "")
    ungrouped = settings.GROUP == "auto" and not match.group
    hint = groups.hint(list(frame["image"])) if ungrouped else None
    return IndexTable(frame, with_dialect(match, frame, settings), hint)


def of_users_table(path: Path, settings: "Settings") -> IndexTable:
    """Read a user's CSV and fill in the columns that it lacks; kfold stays only where the user gave it."""
    frame = splits.read_csv(path, "TABLE names a CSV of image,mask[,group][,stratum][,kfold].")
    column = settings.GROUP.removeprefix("column:") if settings.GROUP.startswith("column:") else ""
    for needed in ("image", "mask", *filter(None, [column])):
        if needed not in frame:
            raise UserError(f"{path} has no column {needed}; it has {', '.join(frame.columns)}.")
    if splits.FOR_FOLD in frame:
        raise UserError(
            f"{path} has pseudo-labels, each for one fold ({splits.FOR_FOLD}): make pseudo wrote it, and it is used "
            f"as it is: make cv EXPERIMENT=... TRAIN_FOLDS={path}. make folds takes the table that it was made of."
        )
    hint = None
    if column:
        frame["group"] = frame[column]
    elif settings.GROUP not in ("auto", "none") or "group" not in frame:
        frame["group"] = groups.assign(list(frame["image"]), settings.GROUP)
        hint = groups.hint(list(frame["image"])) if settings.GROUP == "auto" else None
    if "stratum" not in frame:
        frame["stratum"] = ""
    lone = frame["group"] == ""
    frame.loc[lone, "group"] = frame["image"][lone]
    keep = [column for column in splits.COLUMNS if column in frame]
    frame = _checked(frame[keep].sort_values("image", ignore_index=True), f"{path}: ")
    match = with_dialect(_users_match(frame, path, Path(settings.INPUT)), frame, settings)
    return IndexTable(frame, match, hint)


def _users_match(frame: "pd.DataFrame", path: Path, root: Path) -> LayoutMatch:
    """Describe a user's table as a layout's result: its sentence, its classes, a stack's number of slices."""
    empty = int((frame["mask"] == "").sum())
    sentence = (
        f"{path}: {len(frame)} pairs of your own"
        + (", with their folds" if "kfold" in frame else "")
        + (f"; {empty} without a mask count as empty masks." if empty else ".")
    )
    classes = classes_of(list(frame["mask"]), root)
    first = frame["image"][0]
    channels = len(images.slices(root / first)) if "{z}" in first else 3
    return LayoutMatch("table", sentence, [], classes=classes, channels=channels)


def classes_of(references: Sequence[str], root: Path) -> tuple[str, ...]:
    """Find the classes that have masks of their own: those of a table of run lengths, or what {class} stands for."""
    found = {name for table in tables_of(references) for name in rle_table.read(root / table).classes}
    drawn = (one for text in references if (one := MaskReference.parse(text)).kind == "annotations")
    found |= {name for one in drawn for name in annotations.classes(root, one)}
    patterns = [text for text in references if MaskReference.parse(text).kind == "class_files"]

    @cache
    def listed(folder: Path) -> list[str]:
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    for pattern in patterns:
        found |= _classes_below(root, pattern, listed, found)
    if patterns and not found:
        raise UserError(f"{root}: no file fits {patterns[0]}, whatever the class; paths are relative to INPUT.")
    return tuple(sorted(found))


def _classes_below(root: Path, pattern: str, listed: Callable[[Path], list[str]], known: set[str]) -> set[str]:
    """Find what {class} stands for in one pattern, by the sorted names that `listed` gives; but for those known."""
    before, _, after = pattern.partition(CLASS)
    folder = (root / before) if before.endswith("/") else (root / before).parent
    start = "" if before.endswith("/") else Path(before).name
    ending = after.partition("/")[0]
    names, found = listed(folder), set()
    for entry in names[bisect.bisect_left(names, start) :]:
        if not entry.startswith(start):
            break
        name = entry[len(start) :].removesuffix(ending)
        if name in known or entry != f"{start}{name}{ending}":
            continue
        if (root / pattern.replace(CLASS, name)).exists():
            found.add(name)
    return found


def _checked(frame: "pd.DataFrame", where: str) -> "pd.DataFrame":
    """Return the table. Raises UserError: an image twice, images of one stem, paths that climb, names for no table."""
    if (frame["image"] == "").any():
        raise UserError(f"{where}{int((frame['image'] == '').sum())} rows have no image.")
    paths = {"image": list(frame["image"]), "mask": [MaskReference.parse(text).path for text in frame["mask"]]}
    for column, of_column in paths.items():
        cells = zip(frame[column], of_column, strict=True)
        bad = [repr(text) for text, path in cells if _leads_out(path) or not text.isprintable()]
        if bad:
            raise UserError(f"{where}{column}: expected printable paths relative to INPUT:{listing(bad)}")
    refuse_odd_names([text for column in COLUMNS for text in frame[column]], where)
    refuse_twins(list(frame["image"]), where)
    return frame


def _leads_out(path: str) -> bool:
    """Say whether a path may lie outside INPUT."""
    return path.startswith(("/", "~")) or ".." in Path(path).parts
