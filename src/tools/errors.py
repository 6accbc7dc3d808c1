"""Errors that a user can cause: one sentence with the cure, exit code 2, no traceback."""

import difflib
import errno
import functools
import sys
from collections.abc import Callable, Iterable, Sequence

FULL = (errno.ENOSPC, errno.EDQUOT)  # a full disk, or a share of it


class UserError(Exception):
    """What came, what was expected and what to do about it, in one sentence (a list may follow it, one item a line)."""


class NotFiniteError(UserError):
    """A network gave values that are no numbers."""


class UnlearnedError(Exception):
    """A test was made and failed: OVERFIT's, after its training, or one of make doctor's; exit code 1, no traceback."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`" Did you mean X?"`, or nothing where nothing is near."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {match[0]}?" if match else ""


def listing(items: Sequence[str], most: int = 20) -> str:
    """`items` one a line below a sentence, the rest counted."""
    lines = [f"\n  {item}" for item in items[:most]]
    if len(items) > most:
        lines.append(f"\n  ... and {len(items) - most} more")
    return "".join(lines)


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its kind where it says nothing."""
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    return (lines or [type(error).__name__])[0]


def command(main: Callable[..., None]) -> Callable[..., int]:
    """Make a script's `main(argv)` return its exit code: 0, 1 (UnlearnedError), 2 (UserError), 130 (Ctrl-C)."""

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
