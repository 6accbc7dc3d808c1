"""What masks in colors mean where no table names them: one color, classes, objects, or a smeared binary mask."""

from dataclasses import replace

import numpy as np

from data.dataspec import BACKGROUND, DataSpec
from data.mask_pool import MaskPool, object_signs, percent
from data.mask_reading import FEW, THIN, Reading, Wish, cut, pairs_of, question
from formats.packed_colors import luma, parts, text
from tools.errors import UserError, listing

VOC = 0xE0E0C0  # PASCAL VOC's color of borders, which are not labeled


def read(pool: MaskPool, base: DataSpec, wish: Wish, where: str) -> Reading:
    """Decide what masks in colors mean, without a table of them."""
    found = pool.nonzero
    if len(found) == 1 and 0 in pool.values:
        return Reading(base, pairs_of(pool))
    open_task = wish.task == "auto"
    blends = [value for value in found if pool.values[value].thickness < THIN]
    smeared = len(blends) > max(2, len(found) // 2)
    strong = [value for value in found if value not in blends and pool.share(value) >= 0.02 * (1 - pool.share(0))]
    if open_task and smeared and len(strong) <= 1 and 0 in pool.values and pool.modes:
        return cut(pool, base, wish, where)
    signs = object_signs(pool)
    if open_task and signs.sure:
        said = f"{len(found)} colors, each an object's ({signs.said})"
        return Reading(replace(base, threshold=1, objects="labels"), said)
    if len(found) > FEW or smeared:
        shown = sorted(pool.values, key=lambda value: -pool.values[value].pixels)[:8]
        lines = [f"{text(value)}: {pool.seen(value)}" for value in shown]
        raise UserError(
            f"{where}: {len(found)} colors, too many for classes (smeared edges?). Name the true ones in classes.csv "
            f"(name,r,g,b) in the data set's folder and draw the masks in them; {wish.command} TASK=binary takes all "
            f"but black as foreground. The most frequent:{listing(lines)}"
        )
    if len(found) == 2 and 0 not in pool.values and open_task:
        middle = int(luma(np.array(found)).sum() + 1) // 2
        raise question(
            where,
            f"the masks have two colors, {' and '.join(map(text, found))}, and none is black",
            [("the lighter one is foreground", f"MASK_THRESHOLD={middle}"), ("both are classes", "TASK=multiclass")],
            wish,
        )
    return _classes_by_color(pool, base, wish)


def _classes_by_color(pool: MaskPool, base: DataSpec, wish: Wish) -> Reading:
    """Make each color a class, black the background."""
    multilabel = wish.task == "multilabel"
    void = wish.ignore is None and not multilabel and VOC in pool.values and pool.values[VOC].thickness < THIN
    values = [value for value in sorted(pool.values) if (value or not multilabel) and not (void and value == VOC)]
    names = tuple(BACKGROUND if value == 0 else f"color_{value:06x}" for value in values)
    spec = replace(
        base,
        task="multilabel" if multilabel else "multiclass",
        classes=names,
        colors=tuple(map(parts, values)),
        ignore=parts(VOC) if void else (),
    )
    shares = ", ".join(f"{text(value)} {percent(pool.share(value))}" for value in values[:8])
    said = f"{len(values)} colors ({shares}); classes.csv with name,r,g,b gives them names"
    if void:
        said += f"; {text(VOC)} are thin borders, as PASCAL VOC has them ({pool.seen(VOC)}; IGNORE=-1: a class)"
    return Reading(spec, said)
