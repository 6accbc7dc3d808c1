"""What a data set's masks mean, decided from every file: binary with a cut, classes by value or color, or objects.

Each rule here has a reason to be sure. Where two readings are plausible nothing is guessed: a UserError shows both,
each with the line to type (TASK=, IGNORE=, MASK_THRESHOLD=, MASK_CHANNEL=, classes.csv).
"""

from collections.abc import Sequence
from dataclasses import replace

from data import mask_classes, mask_colors
from data.dataspec import MOST_CLASSES, DataSpec
from data.mask_classes import VOID
from data.mask_pool import MaskPool, object_signs
from data.mask_reading import (
    FEW,
    SMALL,
    THIN,
    Reading,
    Wish,
    cut,
    inverted,
    listed,
    pairs_of,
    planes,
    question,
    span,
)
from formats.mask_values import MaskNote
from tools.errors import UserError


def read(notes: Sequence[MaskNote], base: DataSpec, wish: Wish, where: str, maps: bool) -> Reading:
    """Decide what these files mean; `maps`: each is a whole mask, so that it may be a class map.

    base: what is known of the images. Raises UserError: a question, or a wish that the files do not allow.
    """
    alpha = _from_alpha(notes, wish, where)
    if alpha:
        notes, base = [note.alpha or note for note in notes], replace(base, alpha=True)
    pool = MaskPool.of(notes)
    if maps and wish.task != "binary" and _are_planes_of_classes(notes):
        raise planes(notes, wish, where)
    if wish.threshold:
        reading = _cut_by_hand(pool, base, wish)
    elif not maps or wish.task == "binary":
        reading = _binary(pool, base, wish, where)
    elif pool.color:
        reading = mask_colors.read(pool, base, wish, where)
    elif wish.task in ("multiclass", "multilabel"):
        reading = mask_classes.of_values(pool, base, wish, where, pool.nonzero)
    else:
        reading = _grays(pool, base, wish, where)
    return replace(reading, said=f"{reading.said}, drawn in the alpha channel" if alpha else reading.said)


def _from_alpha(notes: Sequence[MaskNote], wish: Wish, where: str) -> bool:
    """Say whether the masks are drawn in the alpha channel. UserError where that cannot be told."""
    varying = [note for note in notes if note.alpha]
    if wish.channel != "auto" or not varying:
        if wish.channel == "alpha" and not varying:
            raise UserError(f"{where}: MASK_CHANNEL=alpha, but no mask has an alpha channel that varies.")
        return wish.channel == "alpha"
    if all(note.agrees for note in varying):
        return False
    drawn = any(note.nonzero and 2 <= len(note.values) <= FEW for note in notes)
    plain = all(len(note.values) == 1 for note in notes)
    if not drawn and (plain or len(varying) >= 0.5 * len(notes)):
        return True  # one color all over, or a photograph cut out along its object
    raise question(
        where,
        f"{len(varying)} of {len(notes)} masks have an alpha channel that varies, and it differs from their colors",
        [
            ("what is opaque is foreground", "MASK_CHANNEL=alpha"),
            ("the colors or grays are the mask", "MASK_CHANNEL=color"),
        ],
        wish,
    )


def _are_planes_of_classes(notes: Sequence[MaskNote]) -> bool:
    """Say whether arrays have as many planes apart in every file, maybe a class each; objects differ in number."""
    alike = len({note.planes for note in notes}) == 1 and all(note.apart for note in notes)
    return len(notes) >= 3 and alike and notes[0].planes > 1


def _cut_by_hand(pool: MaskPool, base: DataSpec, wish: Wish) -> Reading:
    if wish.task not in ("auto", "binary"):
        raise UserError(f"MASK_THRESHOLD={wish.threshold} cuts binary masks, but TASK={wish.task}; leave one out.")
    return Reading(replace(base, threshold=wish.threshold), f"{span(pool)}, cut at MASK_THRESHOLD={wish.threshold}")


def _binary(pool: MaskPool, base: DataSpec, wish: Wish, where: str) -> Reading:
    """Read masks that only say where something is: cut between two grays, or whatever is not 0."""
    if not pool.nonzero:
        return Reading(base, "all are empty")
    if pool.jpeg or _is_soft(pool):
        return cut(pool, base, wish, where)
    if VOID in pool.nonzero and len(pool.nonzero) > 1 and not pool.color and pool.together(VOID, *pool.nonzero[:-1]):
        rest = [value for value in pool.nonzero if value != VOID]
        if max(rest) <= SMALL and not pool.is_dust(rest, pool.values[VOID].pixels) and wish.ignore is None:
            raise question(
                where,
                f"TASK=binary, but {listed(rest)} and {VOID} occur together, and {VOID} usually is not labeled",
                [
                    (f"{VOID} is not labeled", "TASK=multiclass"),
                    ("all but 0 is foreground", "TASK=binary IGNORE=-1"),
                ],
                wish,
            )
    if pool.alone() and (not pool.color or len(pool.nonzero) == 1):
        return Reading(base, pairs_of(pool))
    signs = object_signs(pool)
    objects = "labels" if signs.plausible else ""
    numbers = f"each number an object ({signs.said})" if objects else "all but 0 is foreground"
    return Reading(replace(base, threshold=1, objects=objects), f"{span(pool)}, {numbers}")


def _is_soft(pool: MaskPool) -> bool:
    """Say whether these grays are two modes with soft edges between, rather than a few classes or numbers."""
    return len(pool.nonzero) > 1 and (len(pool.nonzero) > 16 or _middle_is_thin(pool)) and pool.modes is not None


def _middle_is_thin(pool: MaskPool) -> bool:
    """Say whether what lies between the two modes are lines or dust of three grays or more, or dust."""
    modes = pool.modes
    if modes is None or max(pool.nonzero) <= SMALL:
        return False
    both, margin = (modes.low, modes.high), (modes.high - modes.low) // 10
    others = [value for value in pool.values if value not in both]
    if pool.color or not others:
        return False
    main = min(pool.values[value].pixels for value in both if value in pool.values)
    if pool.is_dust(others, main):
        return True
    middle = [value for value in others if modes.low + margin < value < modes.high - margin]
    return len(middle) >= 3 and all(pool.values[value].thickness < THIN for value in middle)


def _grays(pool: MaskPool, base: DataSpec, wish: Wish, where: str) -> Reading:
    """Decide what gray masks mean where TASK leaves it open."""
    found = pool.nonzero
    if pool.jpeg or _is_soft(pool):
        reading = cut(pool, base, wish, where)
        if pool.inverted:
            raise inverted(pool, wish, where, reading.spec.threshold or 128)
        return reading
    if len(found) <= 1:
        if pool.inverted:
            raise inverted(pool, wish, where)
        return _one_value(pool, base, where)
    if kinds := mask_classes.thousands(pool):
        names = [(mask_classes.name_of(kind), "+".join(map(mask_classes.name_of, own))) for kind, own in kinds.items()]
        merged = ", ".join(name if name == own else f"{name}={own}" for name, own in names)
        raise question(
            where,
            f"the masks hold {listed(found)}, as if a class times 1000 were added to the number of an object",
            [
                ("the thousands are the class", f"TASK=multiclass IGNORE=-1 CLASSES='{merged}'"),
                ("each number is a class", "TASK=multiclass IGNORE=-1"),
            ],
            wish,
        )
    signs = object_signs(pool)
    if signs.sure or len(found) > MOST_CLASSES:
        said = f"{span(pool)}, each number an object ({signs.said})"
        return Reading(replace(base, threshold=1, objects="labels"), said)
    if found == [1, VOID] and not pool.together(1, VOID):
        return Reading(base, pairs_of(pool))
    rest = [value for value in found if value != VOID]
    if signs.plausible:
        raise question(
            where,
            f"the masks hold {listed(found)} ({signs.said})",
            [("each number is an object", "TASK=binary"), ("each number is a class", "TASK=multiclass")],
            wish,
        )
    if max(rest) <= SMALL:
        return mask_classes.of_small_values(pool, base, wish, where, rest)
    return mask_classes.of_large_values(pool, base, wish, where)


def _one_value(pool: MaskPool, base: DataSpec, where: str) -> Reading:
    if 0 not in pool.values and len(pool.values) == 1:
        raise UserError(f"{where}: every pixel of all {len(pool.notes)} masks is {pool.nonzero[0]}; nothing is drawn.")
    return Reading(base, pairs_of(pool) if pool.nonzero else "all are empty")
