"""What a data set's masks mean, decided from every file: binary with a cut, classes by value or color, or objects.

Each rule here has a reason to be sure. Where two readings are plausible nothing is guessed: a UserError shows both,
each with the line to type (TASK=, IGNORE=, MASK_THRESHOLD=, MASK_CHANNEL=, classes.csv).
"""

from collections.abc import Sequence
from dataclasses import replace

from data import mask_colors
from data.dataspec import BACKGROUND, MOST_CLASSES, DataSpec
from data.mask_pool import MaskPool, object_signs, percent
from data.mask_reading import (
    FEW,
    SMALL,
    THIN,
    Reading,
    Wish,
    bars,
    cut,
    inverted,
    listed,
    middle_of,
    pairs_of,
    planes,
    question,
    span,
)
from formats.mask_values import MaskNote
from tools.errors import UserError

VOID = 255  # the value that class maps have for pixels without a label, by custom
_DUST = 0.005  # of the main value's pixels: stray ones, if none lies within a region
_MINOR = 0.01  # of what 255 covers: classes so small beside it are doubtful
_RARE = 0.02  # of all labeled pixels


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
        reading = _classes(pool, base, wish, where, pool.nonzero)
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
        if max(rest) <= SMALL and not _is_dust(pool, rest, VOID) and wish.ignore is None:
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
    margin = (modes.high - modes.low) // 10
    main = (
        min(pool.values[value].pixels for value in (modes.low, modes.high) if value in pool.values)
        if not pool.color
        else 0
    )
    others = [value for value in pool.values if value not in (modes.low, modes.high)]
    if pool.color or not others:
        return False
    if all(pool.values[value].inner == 0 and pool.values[value].pixels <= _DUST * main for value in others):
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
    if kinds := _thousands(pool):
        names = [(_name(kind), "+".join(map(_name, own))) for kind, own in kinds.items()]
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
        return _small_values(pool, base, wish, where, rest)
    return _large_values(pool, base, wish, where)


def _thousands(pool: MaskPool) -> dict[int, list[int]]:
    """Group values such as 7, 26000, 26001 by class, as Cityscapes numbers objects; {} where they are others."""
    kinds: dict[int, list[int]] = {}
    for value in pool.values:
        kinds.setdefault(value if value < 1000 else value // 1000, []).append(value)
    small = [value for value in pool.values if value < 1000]
    if len(kinds) == len(pool.values) or len(small) > FEW or max(small, default=0) > VOID:
        return {}
    for note in pool.notes:
        large = sorted(value for value in note.nonzero if value >= 1000)
        if any(value % 1000 > 1 and value - 1 not in large for value in large):
            return {}  # they do not count up from 0 or 1
    return {kind: sorted(own) for kind, own in sorted(kinds.items())}


def _one_value(pool: MaskPool, base: DataSpec, where: str) -> Reading:
    if 0 not in pool.values and len(pool.values) == 1:
        raise UserError(f"{where}: every pixel of all {len(pool.notes)} masks is {pool.nonzero[0]}; nothing is drawn.")
    return Reading(base, pairs_of(pool) if pool.nonzero else "all are empty")


def _small_values(pool: MaskPool, base: DataSpec, wish: Wish, where: str, rest: list[int]) -> Reading:
    """Read 1, 2, ... as classes, and 255 beside them as not labeled, unless the others are dust or hardly there."""
    if VOID not in pool.values or wish.ignore is not None:
        return _classes(pool, base, wish, where, pool.nonzero)
    if _is_dust(pool, rest, VOID):
        said = f"{span(pool)}, stray pixels: {percent(pool.share(*rest))} of all, cut at 128"
        return Reading(replace(base, threshold=128), said)
    thick = pool.values[VOID].thickness >= THIN
    if thick and pool.share(*rest) < _MINOR * pool.share(VOID):
        raise question(
            where,
            f"{listed(rest)} cover {percent(pool.share(*rest))} of the pixels, 255 covers {percent(pool.share(VOID))}",
            [
                ("255 is not labeled", "TASK=multiclass IGNORE=255"),
                ("255 is a class", "TASK=multiclass IGNORE=-1"),
                ("all from 128 on is the foreground", "MASK_THRESHOLD=128"),
            ],
            wish,
        )
    return _classes(pool, base, wish, where, pool.nonzero)


def _large_values(pool: MaskPool, base: DataSpec, wish: Wish, where: str) -> Reading:
    """Read grays such as 0, 128, 255 as classes, where there are few and each has regions of its own."""
    found, command = pool.nonzero, wish.command
    if len(found) > FEW:
        raise UserError(
            f"{where}: {len(found)} grays without two clear levels: {bars(pool)}. Soft masks are cut by "
            f"{command} MASK_THRESHOLD={middle_of(pool)}, class maps of so many values need {command} TASK=multiclass"
        )
    if pool.alone():
        raise question(
            where,
            f"each mask has 0 and one other value, but it is {listed(found)} in different files",
            [
                ("whatever is not 0 is foreground", "TASK=binary"),
                ("each value is a class", "TASK=multiclass IGNORE=-1"),
            ],
            wish,
        )
    doubtful = [value for value in found if pool.values[value].thickness < THIN or pool.share(value) < 1e-4]
    if not doubtful or wish.ignore is not None:
        return _classes(pool, base, wish, where, found)
    kept = [value for value in found if value not in doubtful]
    seen = "; ".join(f"{value}: {pool.seen(value)}" for value in doubtful[:4])
    readings = [("every value is a class", "TASK=multiclass IGNORE=-1")]
    if len(doubtful) == 1:
        readings.append((f"{doubtful[0]} is not labeled", f"TASK=multiclass IGNORE={doubtful[0]}"))
    if len(kept) <= 1:
        middle = (max(found) + 1) // 2
        readings.append((f"a soft edge: from {middle} on is foreground", f"MASK_THRESHOLD={middle}"))
    raise question(where, f"the masks hold 0, {listed(found)}, and some are thin or rare ({seen})", readings, wish)


def _is_dust(pool: MaskPool, values: list[int], main: int) -> bool:
    """Say whether these values are stray pixels beside the main one: few, and none lies within a region of its own."""
    return all(
        pool.values[value].inner == 0 and pool.values[value].pixels <= _DUST * pool.values[main].pixels
        for value in values
    )


def _classes(pool: MaskPool, base: DataSpec, wish: Wish, where: str, found: list[int]) -> Reading:
    """Make each value a class, but for what is not labeled."""
    if pool.jpeg:
        said = "but the masks are JPEGs or lossy WebPs, which smear a class map's values; save PNGs"
        raise UserError(f"{where}: TASK={wish.task}, {said}.")
    ignore, reason = _ignored(pool, wish, found)
    values = sorted({*found, *([0] if 0 in pool.values else [])} - set(ignore))
    multilabel = wish.task == "multilabel"
    if multilabel:
        values = [value for value in values if value]
    names = tuple(map(_name, values))
    if not set(names) - {BACKGROUND}:
        said = ", ".join(map(str, [0, *ignore]))
        raise UserError(
            f"TASK={wish.task}, but the {len(pool.notes)} masks hold no value but {said}; IGNORE=-1 makes it a class."
        )
    spec = replace(
        base, task="multilabel" if multilabel else "multiclass", classes=names, values=tuple(values), ignore=ignore
    )
    shares = ", ".join(f"{value} {percent(pool.share(value))}" for value in values[:8])
    return Reading(spec, f"{shares}{', ...' * (len(values) > 8)} of the pixels" + reason)


def _name(value: int) -> str:
    return BACKGROUND if value == 0 else f"class{value}"


def _ignored(pool: MaskPool, wish: Wish, found: list[int]) -> tuple[tuple[int, ...], str]:
    """Decide which value is not labeled, and say why."""
    if wish.ignore is not None:
        return ((wish.ignore,) if wish.ignore >= 0 else ()), ""
    rest = [value for value in found if value != VOID]
    if not rest or max(rest) > SMALL:
        thin = VOID in pool.values and rest and pool.values[VOID].thickness < THIN and pool.share(VOID) < _RARE
        return ((VOID,), f"; {VOID} is thin and rare ({pool.seen(VOID)})") if thin else ((), "")
    if VOID not in pool.values:
        return (VOID,), ""
    return (VOID,), f"; {VOID} stands beside small classes ({pool.seen(VOID)}; IGNORE=-1 makes it a class)"
