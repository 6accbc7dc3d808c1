"""Class maps by value: which values are classes, which is not labeled, and where that has to be asked."""

from dataclasses import replace

from data.dataspec import BACKGROUND, DataSpec
from data.mask_pool import MaskPool, percent
from data.mask_reading import FEW, SMALL, THIN, Reading, Wish, bars, listed, middle_of, question, span
from tools.errors import UserError

VOID = 255  # the value that class maps have for pixels without a label, by custom
_MINOR = 0.01  # of what 255 covers: classes so small beside it are doubtful
_RARE = 0.02  # of all labeled pixels


def thousands(pool: MaskPool) -> dict[int, list[int]]:
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


def of_small_values(pool: MaskPool, base: DataSpec, wish: Wish, where: str, rest: list[int]) -> Reading:
    """Read 1, 2, ... as classes, and 255 beside them as not labeled, unless the others are dust or hardly there."""
    if VOID not in pool.values or wish.ignore is not None:
        return of_values(pool, base, wish, where, pool.nonzero)
    if pool.is_dust(rest, pool.values[VOID].pixels):
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
    return of_values(pool, base, wish, where, pool.nonzero)


def of_large_values(pool: MaskPool, base: DataSpec, wish: Wish, where: str) -> Reading:
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
        return of_values(pool, base, wish, where, found)
    kept = [value for value in found if value not in doubtful]
    seen = "; ".join(f"{value}: {pool.seen(value)}" for value in doubtful[:4])
    readings = [("every value is a class", "TASK=multiclass IGNORE=-1")]
    if len(doubtful) == 1:
        readings.append((f"{doubtful[0]} is not labeled", f"TASK=multiclass IGNORE={doubtful[0]}"))
    if len(kept) <= 1:
        middle = (max(found) + 1) // 2
        readings.append((f"a soft edge: from {middle} on is foreground", f"MASK_THRESHOLD={middle}"))
    raise question(where, f"the masks hold 0, {listed(found)}, and some are thin or rare ({seen})", readings, wish)


def of_values(pool: MaskPool, base: DataSpec, wish: Wish, where: str, found: list[int]) -> Reading:
    """Make each value a class, but for what is not labeled."""
    if pool.jpeg:
        said = "but the masks are JPEGs or lossy WebPs, which smear a class map's values; save PNGs"
        raise UserError(f"{where}: TASK={wish.task}, {said}.")
    ignore, reason = _ignored(pool, wish, found)
    values = sorted({*found, *([0] if 0 in pool.values else [])} - set(ignore))
    multilabel = wish.task == "multilabel"
    if multilabel:
        values = [value for value in values if value]
    names = tuple(map(name_of, values))
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


def name_of(value: int) -> str:
    """Name the class of a value."""
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
