"""What masks are said to mean: the wish of the constants, the reading, the question, and the cut of soft masks."""

from dataclasses import dataclass, replace

from data.dataspec import DataSpec
from data.mask_pool import MaskPool, percent
from tools.errors import UserError, listing

SMALL = 50  # gray values up to this one may be classes by themselves; soft edges spread up to 255
FEW = 40  # as many grays or colors may be classes; smeared masks have more
THIN = 0.4  # of a value's pixels lie within: a line of two or three pixels


@dataclass(frozen=True)
class Wish:
    """What the constants ask for, and how to repeat the command."""

    task: str  # TASK
    ignore: int | None  # IGNORE; None: auto, -1: none
    threshold: int  # MASK_THRESHOLD; 0: auto
    channel: str  # MASK_CHANNEL
    command: str = "make folds"  # with the words that name the data set


@dataclass(frozen=True)
class Reading:
    """What the masks mean, and the evidence in one line."""

    spec: DataSpec
    said: str


def question(where: str, seen: str, readings: list[tuple[str, str]], wish: Wish) -> UserError:
    """Ask which of several readings is right, each with the line to type."""
    lines = [f"{what}: {wish.command} {line}" for what, line in readings]
    return UserError(f"{where}: {seen}. What do they mean?{listing(lines)}")


def span(pool: MaskPool) -> str:
    """Describe the values of all files."""
    if pool.color:
        return f"{len(pool.values)} colors in {len(pool.notes)} files"
    found = sorted(pool.values)
    return f"{listed(found) if len(found) <= 4 else f'{found[0]} to {found[-1]}'} in {len(pool.notes)} files"


def pairs_of(pool: MaskPool) -> str:
    """Say which value is drawn, and in how many files."""
    values = [color_of(value) if pool.color else str(value) for value in pool.nonzero]
    counts = [pool.values[value].files for value in pool.nonzero]
    drawn = " and ".join(f"{value} in {count}" for value, count in zip(values, counts, strict=True))
    return f"0, and {drawn} of {len(pool.notes)} files"


def listed(values: list[int]) -> str:
    """Write the first eight values, and the last."""
    return ", ".join(map(str, values[:8])) + (f", ... {values[-1]}" if len(values) > 8 else "")


def color_of(packed: int) -> str:
    """Write a packed color as r,g,b."""
    return f"{packed >> 16},{packed >> 8 & 255},{packed & 255}"


def bars(pool: MaskPool) -> str:
    """Write the histogram of grays in eight steps."""
    eighths = pool.histogram.reshape(8, -1).sum(1)
    shares = ((32 * step, count / eighths.sum()) for step, count in enumerate(eighths) if count)
    return ", ".join(f"{low}-{low + 31} {percent(share)}" for low, share in shares)


def cut(pool: MaskPool, base: DataSpec, wish: Wish, where: str) -> Reading:
    """Cut soft or lossy masks between their two modes. UserError with the histogram where there are no two."""
    modes = pool.modes
    vivid = _vivid(pool)
    if modes is None or len(vivid) > 1:
        colors = f"strong colors ({', '.join(vivid)})"
        seen = colors if len(vivid) > 1 else f"grays without two clear levels: {bars(pool)}"
        raise UserError(
            f"{where}: {len(pool.notes)} masks have {seen}. "
            f"A binary mask has 0 and 255, a class map whole numbers, saved as PNG{' rather than JPEG' * pool.jpeg}. "
            f"To cut them anyway: {wish.command} MASK_THRESHOLD=128"
        )
    edges = f"gray edges: {percent(modes.between)} of the pixels" if modes.between else "a few stray pixels"
    said = f"{span(pool)}, {edges}, cut at {modes.cut}"
    strict = modes.cut == 128 and all(note.jpeg or len(note.nonzero) <= 1 for note in pool.notes)
    return Reading(base if strict else replace(base, threshold=modes.cut), said)


def _vivid(pool: MaskPool) -> list[str]:
    """Name the strong colors of JPEG masks that cover a twentieth of all strong ones."""
    names = ("black", "blue", "green", "cyan", "red", "magenta", "yellow", "white")
    totals = [sum(note.vivid[code] for note in pool.notes if note.vivid) for code in range(8)]
    if sum(totals) < 0.002 * pool.pixels:
        return []
    return [name for name, total in zip(names, totals, strict=True) if name != "black" and total > 0.05 * sum(totals)]
