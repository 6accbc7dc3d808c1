"""Errors that a user can cause: one sentence with the cure, exit code 2, no traceback."""

import difflib
import errno
import functools
import re
import sys
from collections.abc import Callable, Iterable, Sequence

ALIKE = 3  # sentences of one kind that are told one by one
FULL = (errno.ENOSPC, errno.EDQUOT)  # a full disk, or a quota used up


class UserError(Exception):
    """One sentence for the user: what came, what was expected and what to do. A list may follow it, one item a line."""


class NotFiniteError(UserError):
    """A network's output that is not finite."""


class UnlearnedError(Exception):
    """A test that was run and failed: OVERFIT's after its training, or one of make doctor's. Exit code 1."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `" Did you mean X?"`, or "" where no known name is similar."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {match[0]}?" if match else ""


def listing(items: Sequence[str], most: int = 20) -> str:
    """Return `items` as lines that follow a sentence: at most `most` of them, and the number of the rest."""
    lines = [f"\n  {item}" for item in items[:most]]
    if len(items) > most:
        lines.append(f"\n  ... and {len(items) - most} more")
    return "".join(lines)


def alike(lines: Sequence[str]) -> list[str]:
    """Return each kind of sentence once, with how many more there are: sentences that differ in names and numbers only.

    lines: `path: what is wrong with it`.
    """
    kinds: dict[str, list[str]] = {}
    for line in lines:
        said = line.partition(": ")[2]
        kinds.setdefault(re.sub(r"\S*[/\\]\S*|\d+(\.\d+)?", "#", said), []).append(line)
    told = []
    for same in kinds.values():
        others = [line.partition(": ")[0] for line in same[1:]]
        shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        told += same if len(same) <= ALIKE else [f"{same[0]} And {len(others)} more alike: {shown}"]
    return told


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type's name where there is no message."""
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    return (lines or [type(error).__name__])[0]


def command(main: Callable[..., None]) -> Callable[..., int]:
    """Make a script's `main(argv)` return its exit code: 0, 1 (UnlearnedError), 2 (UserError) or 130 (Ctrl-C)."""

    @functools.wraps(main)
    def wrapped(argv: list[str] | None = None) -> int:
        try:
            main(argv)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except UnlearnedError as error:
            print(f"failed: {error}", file=sys.stderr)
            return 1
        except OSError as error:  # a full disk, a file where a folder should be, no permission
            where = f": {error.filename}" if error.filename else ""
            cure = ". Make room, then give the same command again" if error.errno in FULL else ""
            print(f"error: {error.strerror or error}{where}{cure}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("stopped by Ctrl-C", file=sys.stderr)
            return 130
        return 0

    return wrapped
