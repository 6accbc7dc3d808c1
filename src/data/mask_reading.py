"""What masks are said to mean: the wish of the constants, the reading, the question, and the cut of soft masks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from data.dataspec import DataSpec
from data.mask_pool import MaskPool, percent
from formats import packed_colors
from formats.mask_values import MaskNote
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


def asked(where: str, seen: str, lines: list[str]) -> UserError:
    """Ask what was seen means, with a line for each reading."""
    return UserError(f"{where}: {seen}. What do they mean?{listing(lines)}")


def question(where: str, seen: str, readings: list[tuple[str, str]], wish: Wish) -> UserError:
    """Ask which of several readings is right, each with the line to type."""
    return asked(where, seen, [f"{what}: {wish.command} {line}" for what, line in readings])


def inverted(pool: MaskPool, wish: Wish, where: str, threshold: int = 0) -> UserError:
    """Ask whether the light ground is the foreground; `threshold`: of soft masks, which no table of values reads."""
    value = pool.nonzero[-1]
    sought = f"MASK_THRESHOLD={threshold}" if threshold else "TASK=binary"
    rows = f"name,value\\nbackground,{value}\\nforeground,0\\n"
    cure = (
        "invert the files, 255 - gray, saved as PNG"
        if threshold
        else f"printf '{rows}' > '{where}/classes.csv' && {wish.command} CLASSES=foreground TASK=binary"
    )
    lines = [f"the light is foreground: {wish.command} {sought}", f"the dark is foreground: {cure}"]
    seen = f"{value} goes all around the {len(pool.notes)} masks and covers most of them, as if they were inverted"
    return asked(where, seen, lines)


def planes(notes: Sequence[MaskNote], wish: Wish, where: str) -> UserError:
    """Ask whether the planes of arrays are objects or classes, which become class maps in a folder beside."""
    folder, count = notes[0].path.parent, notes[0].planes
    maps = folder.with_name(f"{folder.name}_maps")
    # one-hot planes come first or last; 0 is where no plane is set
    code = (
        f"import pathlib, numpy as np; f = pathlib.Path(r'{maps}'); f.mkdir(exist_ok=True); "
        "[np.save(f / p.name, np.where(a.any(0), a.argmax(0) + 1, 0).astype('uint8')) "
        f"for p in pathlib.Path(r'{folder}').glob('*.npy') for b in [np.load(p)] "
        f"for a in [b if b.shape[0] == {count} else np.moveaxis(b, -1, 0)]]"
    )
    lines = [
        f"each plane is an object: {wish.command} TASK=binary",
        f"each plane is a class: python -c \"{code}\" && {wish.command} MASK_PATH='{maps}'",
    ]
    return asked(where, f"each of the {len(notes)} masks has {count} planes", lines)


def span(pool: MaskPool) -> str:
    """Describe the values of all files."""
    if pool.color:
        return f"{len(pool.values)} colors in {len(pool.notes)} files"
    found = sorted(pool.values)
    return f"{listed(found) if len(found) <= 4 else f'{found[0]} to {found[-1]}'} in {len(pool.notes)} files"


def pairs_of(pool: MaskPool) -> str:
    """Say which value is drawn, and in how many files."""
    values = [packed_colors.text(value) if pool.color else str(value) for value in pool.nonzero]
    counts = [pool.values[value].files for value in pool.nonzero]
    drawn = " and ".join(f"{value} in {count}" for value, count in zip(values, counts, strict=True))
    return f"0, and {drawn} of {len(pool.notes)} files"


def listed(values: list[int]) -> str:
    """Write the first eight values, and the last."""
    return ", ".join(map(str, values[:8])) + (f", ... {values[-1]}" if len(values) > 8 else "")


def bars(pool: MaskPool) -> str:
    """Write the histogram of grays in eight steps, up to the highest one."""
    width = -(-(_top(pool) + 1) // 8)
    steps = [pool.histogram[low : low + width].sum() / pool.pixels for low in range(0, _top(pool) + 1, width)]
    return ", ".join(
        f"{width * step}{f'-{width * (step + 1) - 1}' * (width > 1)} {percent(share)}"
        for step, share in enumerate(steps)
        if share
    )


def middle_of(pool: MaskPool) -> int:
    """Return a cut for masks whose levels tell none: half of the highest gray."""
    return (max(int(note.shown.max(initial=0)) for note in pool.notes) + 1) // 2


def _top(pool: MaskPool) -> int:
    return int(pool.histogram.nonzero()[0].max(initial=0))


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
            f"To cut them anyway: {wish.command} MASK_THRESHOLD={middle_of(pool)}"
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
