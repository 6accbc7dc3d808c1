"""What the images and masks of a table mean, found by looking at them: task, classes, values, channels."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data import class_merge
from data.class_table import NOT_LABELED, read_class_table
from data.dataspec import BACKGROUND, MOST_CLASSES, DataSpec
from data.layout_match import LayoutMatch
from formats import images, rle_table
from formats.mask_reference import MaskReference, tables_of
from tools import console, threads
from tools.errors import UserError, listing
from tools.names import is_name, plain_name

if TYPE_CHECKING:
    import pandas as pd

    from settings import Settings

_SAMPLE = 32  # masks that are looked at to tell a class map from a binary mask
_HIGHEST = 50  # gray values up to this one may be classes; an outline's blurred ones spread up to 255


@dataclass(frozen=True)
class Hints:
    """What is known of the data before any file is opened: the constants, and what the layout or the table says."""

    task: str  # TASK
    ignore: int  # IGNORE
    dialect: str  # of run lengths
    classes: tuple[str, ...]  # that have masks of their own
    channels: int
    merge: str = ""  # CLASSES


def hints_of(settings: "Settings", frame: "pd.DataFrame", match: LayoutMatch) -> Hints:
    """Gather what the settings, the layout and the first table of run lengths say; constants go first."""
    tables = tables_of(frame["mask"])
    dialect = settings.DIALECT if settings.DIALECT != "auto" else match.dialect
    if not dialect and tables:
        dialect = rle_table.guess_dialect(rle_table.read_header(Path(settings.INPUT, tables[0])))
    channels = settings.IN_CHANNELS or match.channels
    return Hints(settings.TASK, settings.IGNORE, dialect, match.classes, channels, settings.CLASSES)


def guess_spec(frame: "pd.DataFrame", root: Path, hints: Hints) -> DataSpec:
    """Find the DataSpec of a table's images and masks, all but the statistics.

    Raises UserError where the task does not fit.
    """
    task, ignore, classes = hints.task, hints.ignore, hints.classes
    task = "auto" if hints.merge and task == "binary" else task  # of the data; what is left of them is looked at below
    stacked = frame["image"].str.contains("{z}", regex=False)
    if stacked.any() and not stacked.all():
        raise UserError(
            f"{int(stacked.sum())} of {len(frame)} images are stacks of slices ({{z}}); all or none can be."
        )
    base = DataSpec(channels=hints.channels, stacked=bool(stacked.any()), rle=hints.dialect)
    table = read_class_table(root)
    maps = [text for text in frame["mask"] if MaskReference.parse(text).kind == "path"]
    if classes and maps:
        raise UserError(
            f"{root}: {len(maps)} masks are single files, such as {maps[0]}, others one a class; all or none can be."
        )
    if classes:
        spec = _of_own_masks(base, task, classes)
    elif table and maps:
        spec = _of_table(base, task, table, ignore)
    else:
        spec = _of_values(base, task, [root / text for text in maps], ignore)
    spec = class_merge.merged(spec, hints.merge, hints.task)
    _refuse_names(spec.classes, root)
    return spec


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


def _of_table(base: DataSpec, task: str, table: dict[str, tuple[int, ...]], ignore: int) -> DataSpec:
    """Describe class maps by the table of classes."""
    nobodys = [key for name, key in table.items() if name.lower() in NOT_LABELED]
    named = {name: key for name, key in table.items() if name.lower() not in NOT_LABELED}
    if len(nobodys) > 1 or len(named) < 2:
        raise UserError(f"The table of classes needs at least two classes and at most one of {', '.join(NOT_LABELED)}.")
    if task == "binary":
        raise UserError(
            f"TASK=binary, but the table of classes names {', '.join(named)}. Remove it, or TASK=multiclass."
        )
    in_colors = len(next(iter(table.values()))) == 3
    default = () if in_colors or ignore < 0 or (ignore,) in named.values() else (ignore,)
    kept = {name: key for name, key in named.items() if task != "multilabel" or name != BACKGROUND}
    return replace(
        base,
        task="multilabel" if task == "multilabel" else "multiclass",
        classes=tuple(kept),
        values=() if in_colors else tuple(key[0] for key in kept.values()),
        colors=tuple((key[0], key[1], key[2]) for key in kept.values()) if in_colors else (),
        ignore=nobodys[0] if nobodys else default,
    )


def _of_values(base: DataSpec, task: str, paths: list[Path], ignore: int) -> DataSpec:
    """Tell class maps without a table by the values that they have; folders of instance masks are binary."""
    files = [path for path in paths if path.is_file() and path.suffix.lower() not in (".jpg", ".jpeg")]
    if not _are_class_maps(files, task, ignore):
        if task in ("multiclass", "multilabel"):
            raise UserError(
                f"TASK={task}, but the masks are no class maps: one file or table column a class is expected."
            )
        return base
    with threads.pool() as pool:
        every = console.track(pool.map(_values, files), len(files), "classes")
        found = sorted({value for values in every for value in values} - {ignore})
    names = tuple(BACKGROUND if value == 0 else f"class{value}" for value in found)
    if task == "multilabel":
        found, names = [value for value in found if value], tuple(name for name in names if name != BACKGROUND)
    if not set(names) - {BACKGROUND}:
        raise UserError(
            f"TASK={task}, but the {len(files)} masks hold no value but 0 and IGNORE={ignore}; "
            "IGNORE=-1 makes it a class."
        )
    return replace(
        base,
        task="multilabel" if task == "multilabel" else "multiclass",
        classes=names,
        values=tuple(found),
        ignore=(ignore,) if ignore >= 0 else (),
    )


def _are_class_maps(files: list[Path], task: str, ignore: int) -> bool:
    """Decide whether these masks are class maps: as the task says, or by the values of some of them."""
    if task in ("multiclass", "multilabel") and files:
        images.read_labels(files[0])  # its own sentence, where it is no class map
    if task != "auto" or not files:
        return task != "binary" and bool(files)
    count = min(len(files), _SAMPLE)
    sampled = [files[index * len(files) // count] for index in range(count)]
    return _look_like_classes(threads.map_ahead(sampled, _values, 2 * threads.CORES), ignore)


def _values(path: Path) -> set[int]:
    """Collect the values of a class map; none where it is broken or in colors, which the strict decode will say."""
    try:
        labels = images.read_labels(path)
    except UserError:
        return set()
    return set(np.flatnonzero(np.bincount(labels.ravel())).tolist())


def _look_like_classes(samples: Iterable[set[int]], ignore: int) -> bool:
    """Decide whether these masks' values are classes: several small ones, or one beside pixels that are not labeled.

    A binary mask has 0 and 1 in one file, and may have 0 and 255 in the next.
    """
    sets = list(samples)
    together = {value for values in sets for value in values} - {0}
    classes = together - {ignore}
    if len(classes) > 1:
        return max(classes) <= _HIGHEST
    return any(len(values - {0}) > 1 for values in sets)


def describe(spec: DataSpec, areas: np.ndarray) -> str:
    """Say for people what the data are, and which classes no mask shows."""
    names = ", ".join(spec.classes[:12]) + (f", ... ({len(spec.classes)})" if len(spec.classes) > 12 else "")
    said = [f"Task: {spec.task}" + (f", {len(spec.classes)} classes ({names})" if spec.task != "binary" else "")]
    if spec.task == "multilabel" and spec.ignore:
        said[0] += (
            f"; pixels of {','.join(map(str, spec.ignore))} show none of them (only TASK=multiclass leaves some out)"
        )
    if spec.task == "multiclass" and spec.ignore:
        said[0] += f"; pixels of {','.join(map(str, spec.ignore))} are not labeled"
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
