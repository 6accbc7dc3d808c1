"""Texts of a command's flags (FOLD=0 RESUME=1): yes or no, whole numbers, lists."""

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING

from tools.console import quoted
from tools.errors import UserError

Command = Callable[[list[str]], int]  # words -> exit code


class Flags(SimpleNamespace):
    """A command's flags as they were typed, "" where not given, RECIPE among them."""

    overrides: tuple[str, ...]  # the constants, as they were typed

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> str: ...


def following(target: str, flags: Flags, *more: str) -> str:
    """Return the line of the command that comes next, with every word of this one that it needs too.

    target: such as `train`; more: its own words, such as FOLD=0.
    """
    recipe = [f"RECIPE={flags.RECIPE}"] if flags.RECIPE else []
    return " ".join(["Next: make", target, *map(quoted, [*more, *recipe, *flags.overrides])])


def run_action(argv: list[str] | None, usual: Command, **actions: Command) -> int:
    """Call the command that the first word names, or the usual one, with the words that are left; return its code."""
    words = sys.argv[1:] if argv is None else argv
    action = actions.get(words[0].replace("-", "_")) if words else None
    return action(words[1:]) if action else usual(words)


def is_on(text: str) -> bool:
    """Read a yes/no flag: 1, true and yes against 0, false, no and "" (not given). Raises UserError."""
    if text.lower() in ("1", "true", "yes"):
        return True
    if text.lower() in ("", "0", "false", "no"):
        return False
    raise UserError(f"Expected 1 or 0 for a flag, got '{text}'.")


def whole_number(name: str, text: str, default: int, low: int = 1, high: int | None = 10_000) -> int:
    """Read a whole number from `low` to `high` (None: no limit), `default` where none is given. Raises UserError."""
    if not text:
        return default
    if not (text.isdecimal() and text.isascii() and low <= int(text) <= (int(text) if high is None else high)):
        span = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise UserError(f"{name}={text}: expected a whole number {span}.")
    return int(text)


def listed(name: str, text: str) -> list[str]:
    """Read "0,1,2" as ["0", "1", "2"]. Raises UserError for an empty part, or one that comes twice."""
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise UserError(f"{name}={text}: expected names or numbers with a comma between them, such as {name}=0,1.")
    twice = [part for part in parts if parts.count(part) > 1]
    if twice:
        raise UserError(f"{name}={text} names {twice[0]} twice.")
    return parts


def whole_numbers(name: str, text: str) -> list[int]:
    """Read "0,1,2" as [0, 1, 2]. Raises UserError for anything else, and for a number that comes twice."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and part.isascii() for part in parts) or len(set(parts)) < len(parts):
        raise UserError(f"{name}={text}: expected whole numbers with commas, each once, such as 42,43,44.")
    return [int(part) for part in parts]
