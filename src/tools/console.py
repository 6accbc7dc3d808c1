"""What a person reads while waiting: a progress bar in a terminal, a line now and then in a log, and small tables."""

import re
import sys
import time
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

Item = TypeVar("Item")


def track(items: Iterable[Item], total: int, label: str) -> Generator[Item, None, None]:
    """Yield the items, showing how many are done, how many a second, and the time left."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, desc=label, leave=False)
        return
    start = said = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - said > 20:
            left = (now - start) / done * (total - done)
            print(f"{label}: {done} of {total}, {done / (now - start):.1f} a second, {left:.0f} s left", flush=True)
            said = now


def table(rows: list[dict[str, Any]]) -> str:
    """Return rows of equal keys as right-aligned columns under their names."""
    names = list(rows[0])
    cells = [
        names,
        *([f"{row[name]:.4f}" if isinstance(row[name], float) else str(row[name]) for name in names] for row in rows),
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    return "\n".join(
        "  " + "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells
    )


def step(title: str, main: Callable[[list[str]], int], argv: list[str]) -> None:
    """Run one script of a path as a user would, its command first; leave with its exit code where it fails."""
    shown = " ".join(quoted(argument) for argument in argv if argument != "OVERWRITE=1")
    print(f"\n{title} {shown}", flush=True)
    code = main(argv)
    if code:
        raise SystemExit(code)


def quoted(argument: str) -> str:
    """Return a NAME=value as one would type it: in quotes where the shell would read it otherwise."""
    return argument if re.fullmatch(r"[\w=.,/+:@%-]*", argument) else "'" + argument.replace("'", "'\\''") + "'"
