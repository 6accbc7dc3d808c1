"""The DataSpec of a table's images and masks: from the constants, the layout, classes.csv, and every mask file."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data import class_merge, mask_classes, mask_meaning, mask_survey
from data.class_table import NOT_LABELED, read_class_table
from data.dataspec import BACKGROUND, MOST_CLASSES, DataSpec, refuse_size
from data.layout_match import LayoutMatch
from data.mask_reading import Reading, Wish
from data.mask_survey import RowNotes
from formats import rle, rle_table
from formats.mask_reference import MaskReference, tables_of
from formats.mask_values import MaskNote
from tools.errors import UserError, listing
from tools.names import is_name, plain_name

if TYPE_CHECKING:
    import pandas as pd

    from settings import Settings


_DUST = 0.001  # of a mask's pixels may be noise


@dataclass(frozen=True)
class Hints:
    """What is known of the data before any file is opened: the constants, and what the layout or the table says."""

    wish: Wish
    dialect: str  # of run lengths
    classes: tuple[str, ...]  # that have masks of their own
    channels: int
    merge: str  # CLASSES
    task: str  # TASK, of what CLASSES leaves


def hints_of(settings: "Settings", frame: "pd.DataFrame", match: LayoutMatch) -> Hints:
    """Gather what the settings, the layout and the first table of run lengths say; constants go first."""
    tables = tables_of(frame["mask"])
    dialect = settings.DIALECT if settings.DIALECT != "auto" else match.dialect
    if not dialect and tables:
        dialect = rle_table.guess_dialect(rle_table.read_header(Path(settings.INPUT, tables[0])))
    # of the data; what CLASSES leaves of them is looked at later
    task = "auto" if settings.CLASSES and settings.TASK == "binary" else settings.TASK
    wish = Wish(
        task,
        _ignore(settings.IGNORE),
        settings.MASK_THRESHOLD,
        settings.MASK_CHANNEL,
        f"make folds DATASET={settings.DATASET}",
    )
    channels = settings.IN_CHANNELS or match.channels
    return Hints(wish, dialect, match.classes, channels, settings.CLASSES, settings.TASK)


def _ignore(text: str) -> int | None:
    """Read IGNORE. Raises UserError where it is neither auto nor a value."""
    if text == "auto":
        return None
    if not (text == "-1" or (text.isdecimal() and int(text) <= 65535)):
        raise UserError(f"IGNORE={text}: expected auto, -1 (every value is a class) or a value from 0 to 65535.")
    return int(text)


@dataclass(frozen=True)
class FoundSpec:
    """The DataSpec, all but the images' statistics; what each row's mask holds; the evidence in one line."""

    spec: DataSpec
    rows: list[RowNotes | str]  # a sentence where a file is broken
    said: str
    sources: tuple[str, ...]  # the data's classes that have masks of their own, in the order of a row's planes
    by_hand: bool  # MASK_THRESHOLD was given
    objects: str  # what tells objects apart: files, planes, labels, polygons, rows, or "" where nothing does

    def areas(self, row: int, shape: tuple[int, int], image: str) -> np.ndarray | None:
        """Return the share (S,) of each scored class among a row's labeled pixels, from what was noted of its files.

        None where the files alone do not tell: run lengths, annotations, classes that must not overlap. Raises
        UserError for a mask that is broken, of another size than `shape`, that of `image`, or that has a value of no
        class.
        """
        notes, spec = self.rows[row], self.spec
        if isinstance(notes, str):
            raise UserError(notes)
        if notes.shape is None or (spec.task == "multiclass" and not notes.whole):
            return None
        refuse_size(notes.files[0].path, notes.shape, shape, image)
        if not (spec.is_class_map or self.by_hand):
            _refuse_soft(notes, _cut(spec, notes))
        if notes.whole:
            return _areas_of_file(spec, notes.files[0])
        parts = [spec.sources_of(name) for name in spec.scored_names] if self.sources else [("",)]
        if any(len(names) > 1 for names in parts):
            return None
        planes = [notes.planes[self.sources.index(names[0]) if self.sources else 0] for names in parts]
        return np.array([0.0 if plane is None else plane.share(_cut(spec, notes)) for plane in planes])

    def evidence(self) -> dict[str, Any]:
        """Return what the decision rests on, as train_folds.json keeps it."""
        files = [note for notes in self.rows if isinstance(notes, RowNotes) for note in notes.files]
        return {
            "files": len(files), "jpeg": sum(note.jpeg for note in files), "said": self.said, "objects": self.objects
        }  # fmt: skip


def _cut(spec: DataSpec, notes: RowNotes) -> int:
    """Return the lowest gray that is foreground; the strict reading's where there is no threshold."""
    return spec.threshold or max(note.strict_cut for note in notes.files)


def _refuse_soft(notes: RowNotes, cut: int) -> None:
    """Refuse files that are gray all over, or have 0 and 1, where the others have two levels with soft edges.

    Raises UserError.
    """
    for note in notes.files if cut > 1 else ():
        top = int(note.shown.max(initial=0))
        if (
            len(note.values) == 2
            and 0 < 4 * top < cut
            and note.counts[note.shown > 0].sum() > _DUST * note.counts.sum()
        ):
            raise UserError(
                f"{note.path}: holds 0 and {top}, and the others are cut at {cut}, which would leave it empty; "
                f"multiply it by {255 // top}, or MASK_THRESHOLD=1 takes all but 0 of every file."
            )
        gray = (note.shown > 0.2 * cut) & (note.shown < 1.8 * cut)
        share = note.counts[gray].sum() / note.counts.sum()
        if share > max(0.1, 0.6 * note.counts[note.shown >= cut].sum() / note.counts.sum()):
            raise UserError(
                f"{note.path}: {100 * share:.0f}% of its pixels are grays between the two levels of a binary mask; "
                f"draw it again, or MASK_THRESHOLD={cut} takes it as it is."
            )


def _areas_of_file(spec: DataSpec, note: MaskNote) -> np.ndarray:
    """Return (S,) of one file that is a whole mask. Raises UserError for a value of no class."""
    plane = note.alpha or note if spec.alpha else note
    if not spec.is_class_map:
        if spec.threshold == 1 and not (note.jpeg or spec.alpha):
            inside = plane.values > 0
        else:
            inside = plane.shown >= (spec.threshold or plane.strict_cut)
        return np.array([plane.counts[inside].sum() / plane.counts.sum()])
    keys = spec.class_keys()
    places = keys.places(plane.values, plane.color, note.path)
    places = spec.own_index[places] if spec.merged else places
    labeled = places < len(spec.classes) if spec.task == "multiclass" else np.ones(len(places), bool)
    total = max(1, int(plane.counts[labeled].sum()))
    return np.array([plane.counts[places == index].sum() / total for index in spec.scored])


def find(references: Sequence[str], images: Sequence[str], root: Path, hints: Hints, max_pixels: int) -> FoundSpec:
    """Decode every mask file and decide what the masks mean. Raises UserError: a question, or a misfit."""
    stacked = ["{z}" in image for image in images]
    if any(stacked) and not all(stacked):
        raise UserError(f"{sum(stacked)} of {len(stacked)} images are stacks of slices ({{z}}); all or none can be.")
    base = DataSpec(channels=hints.channels, stacked=any(stacked), rle=hints.dialect)
    table = read_class_table(root)
    maps = [text for text in references if MaskReference.parse(text).kind == "path"]
    if hints.classes and maps:
        raise UserError(
            f"{root}: {len(maps)} masks are single files, such as {maps[0]}, others one a class; all or none can be."
        )
    rows = mask_survey.survey(references, root, hints.classes, max_pixels)
    notes = [note for row in rows if isinstance(row, RowNotes) for note in row.files]
    if hints.wish.task == "auto":
        mask_survey.refuse_repeated(references, rows, root, hints.wish.command)
    whole = bool(rows) and all(isinstance(row, str) or row.whole or row.shape is None for row in rows)
    reading = _reading(base, hints, table if maps and whole else {}, notes, root, whole)
    spec = class_merge.merged(reading.spec, hints.merge, hints.task)
    _refuse_names(spec.classes, root)
    objects = spec.objects or ("planes" if notes and notes[0].planes and not spec.is_class_map else "")
    objects = objects or _objects(references, root, spec)
    return FoundSpec(spec, rows, reading.said, hints.classes, hints.wish.threshold > 0, objects)


def _objects(references: Sequence[str], root: Path, spec: DataSpec) -> str:
    """Say what tells the objects of one class apart, "" where a mask only says where they are."""
    where = next((found for text in references if (found := MaskReference.parse(text)).kind != "empty"), None)
    if where is None:
        return ""
    if where.kind == "run_lengths":
        return "rows" if rle.DIALECTS[spec.rle].per_object else ""
    in_folders = where.kind == "path" and (root / where.path).is_dir()
    return {"annotations": "polygons", "object_files": "files"}.get(where.kind, "files" if in_folders else "")


def _reading(
    base: DataSpec, hints: Hints, table: dict[str, tuple[int, ...]], notes: list[MaskNote], root: Path, whole: bool
) -> Reading:
    wish, where = hints.wish, str(root)
    if table:
        return Reading(_of_table(base, wish, table), f"{len(table)} rows of the table of classes")
    if hints.classes:
        cut = replace(wish, task="binary") if notes else wish
        reading = mask_meaning.read(notes, base, cut, where, maps=False) if notes else Reading(base, "")
        return replace(reading, spec=_of_own_masks(reading.spec, wish.task, hints.classes))
    if wish.task in ("multiclass", "multilabel") and not (notes and whole):
        said = "but the masks are no class maps: one file or table column a class is expected"
        raise UserError(f"TASK={wish.task}, {said}.")
    return mask_meaning.read(notes, base, wish, where, whole) if notes else Reading(base, "")


def _refuse_names(classes: tuple[str, ...], root: Path) -> None:
    """Refuse more classes than a byte holds, and names that no table or file can have."""
    if len(classes) > MOST_CLASSES:
        raise UserError(f"{root}: {len(classes)} classes; at most {MOST_CLASSES} are possible.")
    odd = [repr(name) for name in classes if not is_name(name)]
    if odd:
        raise UserError(f"{root}: class names are printable and begin with no =, + or @; rename:{listing(odd)}")
    safe = {plain_name(name) for name in classes}
    if len(safe) < len(classes):
        raise UserError(f"{root}: some class names differ in their signs only: {', '.join(classes)}.")


def _of_own_masks(base: DataSpec, task: str, classes: tuple[str, ...]) -> DataSpec:
    """Describe classes that have masks of their own, which may overlap."""
    if task == "auto":
        task = "multilabel" if len(classes) > 1 else "binary"
    if task == "binary" and len(classes) > 1:
        raise UserError(f"TASK=binary, but there are {len(classes)} classes: {', '.join(classes)}. TASK=multilabel.")
    names = tuple(name for name in classes if name.lower() != BACKGROUND)
    if not names:
        raise UserError(f"The only class with masks is {classes[0]}, which is never scored; rename it.")
    return replace(base, task=task, classes=(BACKGROUND, *names) if task == "multiclass" else names)


def _of_table(base: DataSpec, wish: Wish, table: dict[str, tuple[int, ...]]) -> DataSpec:
    """Describe class maps by the table of classes."""
    nobodys = [key for name, key in table.items() if name.lower() in NOT_LABELED]
    named = {name: key for name, key in table.items() if name.lower() not in NOT_LABELED}
    if len(nobodys) > 1 or len(named) < 2:
        raise UserError(f"The table of classes needs at least two classes and at most one of {', '.join(NOT_LABELED)}.")
    if wish.task == "binary":
        raise UserError(
            f"TASK=binary, but the table of classes names {', '.join(named)}. Remove it, or TASK=multiclass."
        )
    in_colors = len(next(iter(table.values()))) == 3
    ignore = mask_classes.VOID if wish.ignore is None else wish.ignore
    default = () if in_colors or ignore < 0 or (ignore,) in named.values() else (ignore,)
    kept = {name: key for name, key in named.items() if wish.task != "multilabel" or name != BACKGROUND}
    return replace(
        base,
        task="multilabel" if wish.task == "multilabel" else "multiclass",
        classes=tuple(kept),
        values=() if in_colors else tuple(key[0] for key in kept.values()),
        colors=tuple((key[0], key[1], key[2]) for key in kept.values()) if in_colors else (),
        ignore=nobodys[0] if nobodys else default,
    )


def describe(found: FoundSpec, spec: DataSpec, areas: np.ndarray) -> str:
    """Say for people what the data are and why, and which classes no mask shows."""
    names = ", ".join(spec.classes[:12]) + (f", ... ({len(spec.classes)})" if len(spec.classes) > 12 else "")
    said = [f"Task: {spec.task}" + (f", {len(spec.classes)} classes ({names})" if spec.task != "binary" else "")]
    if spec.task == "multilabel" and spec.ignore:
        said[0] += (
            f"; pixels of {','.join(map(str, spec.ignore))} show none of them (only TASK=multiclass leaves some out)"
        )
    if spec.task == "multiclass" and spec.ignore:
        said[0] += f"; pixels of {','.join(map(str, spec.ignore))} are not labeled"
    if found.said:
        said.append(f"Masks: {found.said}")
    if spec.channels != 3 or spec.bits != 8:
        window = f", {spec.window[0]:.0f} to {spec.window[1]:.0f} become black to white" if spec.bits == 16 else ""
        said.append(
            f"Images: {spec.channels} channels of {spec.bits} bits{window}; "
            f"measured mean {spec.mean}, deviation {spec.std}"
        )
    said += filter(None, [class_merge.describe(spec)])
    unseen = [name for name, share in zip(spec.scored_names, areas.max(0), strict=True) if share == 0]
    if unseen:
        said.append(
            f"No mask shows: {listing(unseen).strip()}" if len(unseen) > 3 else f"No mask shows {', '.join(unseen)}."
        )
    return "\n".join(said)
