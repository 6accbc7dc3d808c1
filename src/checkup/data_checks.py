"""What the decoded images and masks say: broken files, sizes, modes, values, classes, objects that vanish, copies."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from checkup.decoding import SMEARED, DoctorScan, ScannedTest, scan_test_images
from checkup.findings import Finding, problem, warning
from checkup.perfect import Frame
from data.dataspec import DataSpec
from data.images_to_predict import test_names
from data.leak_audit import across_folds, copies
from metrics import measures
from scoring.score_rows import Scale
from tools import threads
from tools.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from settings import Settings

FULL = 0.999  # share of foreground from which a mask is called full
LOW_CEILING = 0.95
STRETCHED = 2.0  # how much a side may be stretched against the other before it is said
OTHER_SIZE = 1.5  # by how much a test image's side is outside of the training images'
SHOWN = 10


def broken(scan: DoctorScan, total: int) -> Finding:
    """List files that cannot be read, all of them."""
    if scan.broken:
        text = f"{len(scan.broken)} of {total} pairs: repair or remove these files, then make folds"
        return problem("broken files", text, scan.broken)
    return Finding("broken files", f"none; {total} pairs were decoded strictly")


def sizes(scan: DoctorScan, frame: Frame, batch: int, cropped: bool) -> Iterator[Finding]:
    """Report sizes and modes, and what IMAGE_SIZE and RESIZE make of them."""
    shapes = Counter(note.shape for note in scan.notes)
    common = ", ".join(f"{width} x {height} px ({count})" for (height, width), count in shapes.most_common(4))
    more = f", and {len(shapes) - 4} more" if len(shapes) > 4 else ""
    text = f"{common}{more}"
    worst = max(max(height / width, width / height) for height, width in (_aspect(s, frame) for s in shapes))
    if frame.resize == "none" and len(shapes) > 1 and batch > 1 and not cropped:
        yield problem("sizes", f"{text}: RESIZE=none needs equal ones in a batch. CROP=256, or RESIZE=fit")
    elif frame.resize == "stretch" and worst >= STRETCHED:
        asked = f"{frame.size[0]},{frame.size[1]}"
        yield warning("sizes", f"{text}: IMAGE_SIZE={asked} stretches one side {worst:.1f} times more. RESIZE=fit")
    else:
        yield Finding("sizes", text, figures={f"{height}x{width}": count for (height, width), count in shapes.items()})
    modes = Counter(note.mode for note in scan.notes)
    yield Finding("modes", ", ".join(f"{mode} ({count})" for mode, count in modes.most_common()), figures=dict(modes))
    plain = [pair.row for pair in scan.pairs if pair.thumbnail.std() < 0.5]
    if plain:
        yield warning("plain images", f"{len(plain)} show one even color: look at them", figures={"rows": plain})


def _aspect(shape: tuple[int, int], frame: Frame) -> tuple[float, float]:
    return frame.size[0] / shape[0], frame.size[1] / shape[1]


def mask_values(scan: DoctorScan, spec: DataSpec) -> Finding:
    """Report the values of masks that say where something is; a class map's are its classes."""
    found = [values for note in scan.notes for values in note.masks]
    kinds = Counter(kind for kind, _ in found)
    if not found:
        what = f"classes {', '.join(map(str, spec.values))}" if spec.values else "colors" if spec.colors else ""
        nobodys = f"; {','.join(map(str, spec.ignore))} is not labeled" if spec.ignore else ""
        return Finding("mask values", what + nobodys if what else "run lengths")
    text = ", ".join(f"{kind} in {count}" for kind, count in kinds.most_common(8)) + " files"
    odd = [kind for kind in kinds if kind not in ("0", "0/1", "0/255")]
    if not odd:
        return Finding("mask values", text, figures=dict(kinds))
    first = dict(reversed(found))
    advice = {SMEARED: "cut at 128; save it as PNG, where an outline stays sharp"}
    other = "all but 0 counts as foreground; where it is a class: TASK=multiclass"
    items = [f"{kind} in {kinds[kind]}, such as {first[kind]}: {advice.get(kind, other)}" for kind in odd[:SHOWN]]
    return warning("mask values", text, items, dict(kinds))


def masks(scan: DoctorScan, spec: DataSpec) -> Iterator[Finding]:
    """Report empty and full masks, and how often each class comes."""
    areas, total = scan.areas, len(scan.notes)
    empty, full = int((areas.sum(1) == 0).sum()), int((areas >= FULL).any(1).sum())
    if empty == total:
        yield problem("masks", f"all {total} are empty; there is nothing to learn. Are the values 0 and 1 (or 255)?")
        return
    text = f"{empty} empty, {full} full of {total}; foreground {_percent(areas.sum(1).mean())} of the pixels"
    figures = {"empty": empty, "full": full, "foreground": float(areas.sum(1).mean())}
    unlabeled = float(np.mean([note.unlabeled for note in scan.notes]))
    if unlabeled:
        text += f", {_percent(unlabeled)} are not labeled"
    if empty > total / 2 and unlabeled > 0.01:
        ignored = ",".join(map(str, spec.ignore))
        cure = f"If {ignored} is the foreground: TASK=binary, or IGNORE=-1"
        yield warning("masks", f"{text}: most show nothing but what is not labeled. {cure}", figures=figures)
        return
    inverted = spec.task == "binary" and areas.mean() > 0.9
    if full or inverted:
        yield warning("masks", f"{text}: look whether these are inverted or forgotten (make samples)", figures=figures)
    else:
        yield Finding("masks", text, figures=figures)
    if len(spec.scored) < 2:
        return
    shown = (areas > 0).sum(0)
    said = [
        f"{name} {_percent(share)} in {count}"
        for name, share, count in zip(spec.scored_names, areas.mean(0), shown, strict=True)
    ]
    figures = dict(zip(spec.scored_names, areas.mean(0).tolist(), strict=True))
    never = [name for name, count in zip(spec.scored_names, shown, strict=True) if count == 0]
    if never:
        yield warning("classes", f"no mask shows {', '.join(never)}; of pixels and in images:", said, figures)
    else:
        yield Finding("classes", f"of pixels and in images: {', '.join(said)}", figures=figures)


def _percent(share: float) -> str:
    return f"{100 * share:.2g}%"


def vanishing(scan: DoctorScan, names: list[str], frame: Frame, spec: DataSpec) -> Finding:
    """Report objects of which nothing is left at IMAGE_SIZE."""
    count, gone = (np.array([getattr(note, key) for note in scan.notes]) for key in ("objects", "vanished"))
    total, lost, size = int(count.sum()), int(gone.sum()), f"{frame.size[0]} x {frame.size[1]} px"
    if frame.resize == "none":
        size = "the images' own size"
    figures = {"objects": total, "vanished": lost}
    if not lost:
        return Finding("tiny objects", f"none of {total} objects vanishes at {size}", figures=figures)
    rows = np.argsort(-gone.sum(1), kind="stable")[:3]
    worst = [f"{names[row]}: {int(gone[row].sum())} of {int(count[row].sum())}" for row in rows if gone[row].sum()]
    by_class = [
        f"{name}: {int(of_class)} of {int(all_of)}"
        for name, of_class, all_of in zip(spec.scored_names, gone.sum(0), count.sum(0), strict=True)
        if of_class
    ]
    text = f"{lost} of {total} objects in {int((gone.sum(1) > 0).sum())} images vanish at {size}: no network can find"
    cure = "a larger IMAGE_SIZE, or CROP of RESIZE=none"
    items = (by_class if len(spec.scored) > 1 else []) + worst
    return warning("tiny objects", f"{text} them. {cure[0].upper()}{cure[1:]}", items, figures)


def ceiling(scan: DoctorScan, frame: Frame, scale: Scale) -> Finding:
    """Say what a perfect network scores at IMAGE_SIZE."""
    counts, values = (np.array([getattr(note, key) for note in scan.notes]) for key in ("counts", "values"))
    best = float(scale.total(counts, values, np.ones((1, len(counts))))[0])
    measure = measures.get(scale.metric)
    size = "the images' own size" if frame.resize == "none" else f"{frame.size[0]} x {frame.size[1]} px"
    text = f"{scale.metric} {best:.4f}{' ' * bool(measure.unit)}{measure.unit} at {size}: a perfect network's"
    if measure.higher and best < LOW_CEILING:
        return warning("ceiling", f"{text}. A larger IMAGE_SIZE raises it", figures={scale.metric: best})
    return Finding("ceiling", text, figures={scale.metric: best})


def leaks(frame: "pd.DataFrame", pairs: list[copies.Pair], given: bool) -> Iterator[Finding]:
    """Report copies that lie in two folds, and what only looks alike."""
    over_folds = copies.across(pairs, frame["kfold"].tolist())
    sure, unsure = (across_folds.lines(frame, [pair for pair in over_folds if pair.sure is is_sure])
                    for is_sure in (True, False))  # fmt: skip
    if sure:
        cure = "one fold for both in your table, or remove the copies" if given else "make folds TIE=1"
        text = f"{len(sure)} copies lie in two folds: a model would be scored on what it has seen. {cure}"
        yield problem("leaks", text, sure)
    else:
        yield Finding("leaks", "no copy of an image (turned, resized, recompressed, cropped a little) in two folds")
    if unsure:
        text = f"{len(unsure)} pairs in two folds look alike; one scene, or two? See make folds' alike.png"
        yield warning("look-alikes", text, unsure[:SHOWN])


def test_images(
    settings: "Settings", spec: DataSpec, scan: DoctorScan, most: int
) -> tuple[Iterator[Finding], ScannedTest | None]:
    """Say whether there are test images that can be read, of sizes that the training images have."""
    try:
        folder, names = test_names(settings.INPUT, settings.TEST_PATH, spec.stacked)
    except UserError as error:
        return iter([warning("test images", f"{error} A training needs none.")]), None
    count = min(most, len(names)) if most else len(names)
    some = [folder / names[position * len(names) // count] for position in range(count)]
    tested = scan_test_images(some, spec, settings.MAX_PIXELS)
    return _tested(tested, folder, len(some), [note.shape for note in scan.notes]), tested


def _tested(tested: ScannedTest, folder: Path, count: int, train: list[tuple[int, int]]) -> Iterator[Finding]:
    if tested.broken:
        text = f"{len(tested.broken)} of {count} in {folder} cannot be read, and make inference will stop at them"
        yield warning("test images", text, tested.broken)
    if not tested.shapes:
        return
    low, high = np.min(train, 0) / OTHER_SIZE, np.max(train, 0) * OTHER_SIZE
    other = sum(bool((np.array(shape) < low).any() or (np.array(shape) > high).any()) for shape in tested.shapes)
    widths, heights = [width for _, width in tested.shapes], [height for height, _ in tested.shapes]
    span = f"{min(widths)} to {max(widths)} x {min(heights)} to {max(heights)} px"
    if other:
        text = f"{other} of {len(tested.shapes)} are much smaller or larger than any training image ({span})"
        yield warning("test sizes", f"{text}: objects may look other there")
    else:
        yield Finding("test images", f"{len(tested.shapes)} in {folder}, {span}, like the training images")


def decoding_seconds(scanning: float, tested: ScannedTest | None) -> float:
    """Estimate what decoding alone takes on all cores, from the CPU seconds that it took while scanning."""
    return (scanning + (tested.seconds if tested else 0.0)) / threads.CORES
