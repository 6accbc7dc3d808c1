"""One strict decode of a whole data set: what its pixels mean (a DataSpec), and what folds and audit need of each.

A table of classes, INPUT/classes.csv with `name,value` or `name,r,g,b` (or class_dict.csv, as CamVid has it), names
what a class map holds; a row called ignore, void or unlabelled is not labelled.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.dataspec import BACKGROUND, MOST_CLASSES, DataSpec
from data.leak_audit import spectra
from formats import images, rle_table
from tools import console, threads
from tools.errors import UserError, listing
from tools.names import is_name, plain_name

if TYPE_CHECKING:
    import pandas as pd

CLASS_TABLES = ("classes.csv", "class_dict.csv")
NOT_LABELLED = ("ignore", "ignored", "void", "unlabelled", "unlabeled")
_SAMPLE = 32  # masks that are looked at to tell a class map from a binary mask
_HIGHEST = 50  # grey values up to this one may be classes; an outline's blurred ones spread up to 255


@dataclass(frozen=True)
class Examined:
    """Of each row, in the table's order: the share of each scored class (N, S), and a thumbnail for the leak audit."""

    spec: DataSpec
    areas: np.ndarray
    thumbnails: np.ndarray


def read_classes(root: Path) -> dict[str, tuple[int, ...]]:
    """Class name -> (value,) or (r, g, b) from the table of classes in `root`; {} where there is none.

    Raises UserError for other columns, no numbers, or a name or key that comes twice.
    """
    path = next((root / name for name in CLASS_TABLES if (root / name).is_file()), None)
    if path is None:
        return {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [{str(key).strip().lower(): value for key, value in row.items()} for row in csv.DictReader(file)]
        keys = ("value",) if rows and "value" in rows[0] else ("r", "g", "b")
        found = {_class_name(row["name"]): tuple(int(row[key]) for key in keys) for row in rows}
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise UserError(
            f"{path}: expected the columns name,value or name,r,g,b with whole numbers ({error})."
        ) from error
    ok = all(name.isprintable() and name for name in found) and all(
        0 <= part <= (65535 if len(key) == 1 else 255) for key in found.values() for part in key
    )
    if not found or len(found) < len(rows) or len(set(found.values())) < len(rows) or not ok:
        raise UserError(
            f"{path}: expected a row for each class, each name and value once, values from 0 to 65535, colours to 255."
        )
    return found


def _class_name(text: str) -> str:
    """A class's name as it is written, but for background, which means something."""
    name = str(text).strip()
    return BACKGROUND if name.lower() == BACKGROUND else name


def guess(
    frame: "pd.DataFrame", root: Path, *, task: str, classes: tuple[str, ...], ignore: int, channels: int, dialect: str
) -> DataSpec:
    """The DataSpec of the table's images and masks, all but the statistics.

    `task` is TASK; `classes` names those that have masks of their own. Raises UserError where the task does not fit.
    """
    stacked = frame["image"].str.contains("{z}", regex=False)
    if stacked.any() and not stacked.all():
        raise UserError(
            f"{int(stacked.sum())} of {len(frame)} images are stacks of slices ({{z}}); all or none can be."
        )
    base = DataSpec(channels=channels, stacked=bool(stacked.any()), rle=dialect)
    table, references = read_classes(root), list(frame["mask"])
    maps = [text for text in references if _is_map(text)]
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
    if len(spec.classes) > MOST_CLASSES:
        raise UserError(f"{root}: {len(spec.classes)} classes; at most {MOST_CLASSES} are possible.")
    odd = [repr(name) for name in spec.classes if not is_name(name)]
    if odd:
        raise UserError(f"{root}: class names are printable and begin with no =, + or @; rename:{listing(odd)}")
    safe = {plain_name(name) for name in spec.classes}
    if len(safe) < len(spec.classes):
        raise UserError(f"{root}: some class names differ in their signs only: {', '.join(spec.classes)}.")
    return spec


def _is_map(reference: str) -> bool:
    """Whether a reference is a single file, which may hold several classes."""
    return bool(reference) and not reference.startswith("rle:") and "{class}" not in reference


def _of_own_masks(base: DataSpec, task: str, classes: tuple[str, ...]) -> DataSpec:
    """Each class has masks of its own, which may overlap."""
    if task == "auto":
        task = "multilabel" if len(classes) > 1 else "binary"
    if task == "binary" and len(classes) > 1:
        raise UserError(f"TASK=binary, but there are {len(classes)} classes: {', '.join(classes)}. TASK=multilabel.")
    names = tuple(name for name in classes if name.lower() != BACKGROUND)
    if not names:
        raise UserError(f"The only class with masks is {classes[0]}, which is never scored; rename it.")
    return replace(base, task=task, classes=(BACKGROUND, *names) if task == "multiclass" else names)


def _of_table(base: DataSpec, task: str, table: dict[str, tuple[int, ...]], ignore: int) -> DataSpec:
    nobodys = [key for name, key in table.items() if name.lower() in NOT_LABELLED]
    named = {name: key for name, key in table.items() if name.lower() not in NOT_LABELLED}
    if len(nobodys) > 1 or len(named) < 2:
        raise UserError(
            f"The table of classes needs at least two classes and at most one of {', '.join(NOT_LABELLED)}."
        )
    if task == "binary":
        raise UserError(
            f"TASK=binary, but the table of classes names {', '.join(named)}. Remove it, or TASK=multiclass."
        )
    in_colours = len(next(iter(table.values()))) == 3
    default = () if in_colours or ignore < 0 or (ignore,) in named.values() else (ignore,)
    kept = {name: key for name, key in named.items() if task != "multilabel" or name != BACKGROUND}
    return replace(
        base,
        task="multilabel" if task == "multilabel" else "multiclass",
        classes=tuple(kept),
        values=() if in_colours else tuple(key[0] for key in kept.values()),
        colours=tuple(kept.values()) if in_colours else (),  # type: ignore[arg-type]
        ignore=nobodys[0] if nobodys else default,
    )


def _of_values(base: DataSpec, task: str, paths: list[Path], ignore: int) -> DataSpec:
    """Class maps without a table: what values they have tells. Folders of instance masks are binary."""
    files = [path for path in paths if path.is_file() and path.suffix.lower() not in (".jpg", ".jpeg")]
    sampled = [files[index * len(files) // min(len(files), _SAMPLE)] for index in range(min(len(files), _SAMPLE))]
    if task in ("multiclass", "multilabel") and files:
        images.read_labels(files[0])  # its own sentence, where it is no class map
    if (
        task == "binary"
        or not files
        or (task == "auto" and not _look_like_classes(threads.map_ahead(sampled, _values, 2 * threads.CORES), ignore))
    ):
        if task in ("multiclass", "multilabel"):
            raise UserError(
                f"TASK={task}, but the masks are no class maps: one file or table column a class is expected."
            )
        return base
    with threads.pool() as pool:
        found = sorted(set().union(*console.track(pool.map(_values, files), len(files), "classes")) - {ignore})
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


def _values(path: Path) -> set[int]:
    """The values of a class map; none where it is broken or in colours, which the strict decode will say."""
    try:
        labels = images.read_labels(path)
    except UserError:
        return set()
    return set(np.flatnonzero(np.bincount(labels.ravel())).tolist())


def _look_like_classes(samples: Iterable[set[int]], ignore: int) -> bool:
    """Whether these masks' values are classes: several small ones, or one beside not labelled pixels in one mask.

    A binary mask has 0 and 1 in one file, and may have 0 and 255 in the next.
    """
    sets = list(samples)
    together = set().union(*sets) - {0}
    classes = together - {ignore}
    if len(classes) > 1:
        return max(classes) <= _HIGHEST
    return any(len(values - {0}) > 1 for values in sets)


def examine(frame: "pd.DataFrame", root: Path, spec: DataSpec, max_pixels: int) -> Examined:
    """Decode every pair of the table on all cores. Raises one UserError that lists everything broken."""

    def one(pair: tuple[str, str]) -> tuple[np.ndarray, np.ndarray, np.ndarray] | str:
        try:
            levels = images.read_levels(root / pair[0], max_pixels, spec.channels)
            mask = spec.read_mask(root, pair[1], levels.shape[:2], max_pixels, pair[0])
        except UserError as error:
            return str(error)
        labelled = spec.labelled(mask)
        pixels = mask[0].size if labelled is None else max(1, int(labelled.sum()))
        areas = np.array([np.count_nonzero(plane) for plane in spec.class_planes(mask)]) / pixels  # axis= is slower
        return areas, spectra.thumbnail(eight_bits(levels)), histogram(levels)

    for table in sorted({rle_table.parse_reference(text)[0] for text in frame["mask"] if text.startswith("rle:")}):
        rle_table.read(root / table)  # once, before the threads
    pairs = list(zip(frame["image"], frame["mask"], strict=True))
    problems, areas, thumbnails = [], [], []
    histograms: dict[int, np.ndarray] = {}  # by the number of levels
    with threads.pool() as pool:
        for result in console.track(pool.map(one, pairs), len(pairs), "decoding"):
            if isinstance(result, str):
                problems.append(result)
                continue
            areas.append(result[0])
            thumbnails.append(result[1])
            levels = result[2].shape[1]
            histograms[levels] = histograms.get(levels, 0) + result[2]
    images.refuse_listed(
        problems, "broken or mismatched pairs:", "Repair or remove these files, then run make folds again."
    )
    shares = np.array(areas)
    if not shares.any():
        raise UserError(
            f"{root}: all {len(areas)} masks are empty; there is nothing to learn. Are the values 0 and 1 (or 255)?"
        )
    return Examined(replace(spec, **statistics(histograms)), shares, np.array(thumbnails))


def eight_bits(levels: np.ndarray) -> np.ndarray:
    """16 bits stretched to the image's own range, for the audit, which looks at differences only."""
    if levels.dtype == np.uint8:
        return levels
    low, high = int(levels.min()), int(levels.max())
    return ((levels - low) * (255 / max(1, high - low))).astype(np.uint8)


def histogram(levels: np.ndarray) -> np.ndarray:
    """Counts (C, 256) or (C, 65536) of some 16,000 evenly spread pixels."""
    step = max(1, int((levels.shape[0] * levels.shape[1] / 16384) ** 0.5))
    some, count = levels[::step, ::step], 256 if levels.dtype == np.uint8 else 65536
    return np.stack([np.bincount(some[..., c].ravel(), minlength=count) for c in range(levels.shape[2])])


def statistics(histograms: dict[int, np.ndarray]) -> dict[str, Any]:
    """DataSpec's bits, window, mean and std from the images' counts by level (256 and 65536).

    The window is the range of 16-bit values without the lowest and highest thousandth; mean and deviation are those of
    each channel in [0, 1] after it.
    """
    window = (0.0, 65535.0)
    if 65536 in histograms:
        cumulated = histograms[65536].sum(0).cumsum()
        low, high = np.searchsorted(cumulated, [0.001 * cumulated[-1], 0.999 * cumulated[-1]])
        window = float(low), float(max(high, low + 1))
    values = {256: np.arange(256) / 255, 65536: np.clip((np.arange(65536) - window[0]) / (window[1] - window[0]), 0, 1)}
    total = sum(counts.sum(1) for counts in histograms.values())
    mean = sum((counts * values[levels]).sum(1) for levels, counts in histograms.items()) / total
    square = sum((counts * values[levels] ** 2).sum(1) for levels, counts in histograms.items()) / total
    std = np.sqrt(np.maximum(square - mean**2, 0))
    return {
        "bits": 16 if 65536 in histograms else 8,
        "window": window,
        "mean": tuple(round(float(value), 5) for value in mean),
        "std": tuple(round(max(float(value), 1e-3), 5) for value in std),
    }


def describe(spec: DataSpec, areas: np.ndarray) -> str:
    """What was found, for people, and classes that no mask shows."""
    names = ", ".join(spec.classes[:12]) + (f", ... ({len(spec.classes)})" if len(spec.classes) > 12 else "")
    said = [f"Task: {spec.task}" + (f", {len(spec.classes)} classes ({names})" if spec.task != "binary" else "")]
    if spec.task == "multilabel" and spec.ignore:
        said[0] += (
            f"; pixels of {','.join(map(str, spec.ignore))} show none of them (only TASK=multiclass leaves some out)"
        )
    if spec.task == "multiclass" and spec.ignore:
        said[0] += f"; pixels of {','.join(map(str, spec.ignore))} are not labelled"
    if spec.channels != 3 or spec.bits != 8:
        window = f", {spec.window[0]:.0f} to {spec.window[1]:.0f} become black to white" if spec.bits == 16 else ""
        said.append(
            f"Images: {spec.channels} channels of {spec.bits} bits{window}; "
            f"measured mean {spec.mean}, deviation {spec.std}"
        )
    unseen = [name for name, share in zip(spec.scored_names, areas.max(0), strict=True) if share == 0]
    if unseen:
        said.append(
            f"No mask shows: {listing(unseen).strip()}" if len(unseen) > 3 else f"No mask shows {', '.join(unseen)}."
        )
    return "\n".join(said)
