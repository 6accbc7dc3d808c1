"""Typed constants from texts, and back: NAME=value is parsed by type and checked against choices or a range."""

import ast
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from tools.errors import UserError, nearest

# a constant's former name -> today's, and what former values are called: NORMALISE=auto knew nothing of weights
FORMER: dict[str, tuple[str, dict[str, str]]] = {"NORMALISE": ("NORMALIZE", {"auto": "data"})}

Constant = str | int | float | tuple[int, ...] | tuple[float, ...]  # what a constant of config.py may be


@dataclass(frozen=True)
class Range:
    """The lowest and the highest value allowed, of a number or of each number in a tuple."""

    low: float
    high: float


@dataclass(frozen=True)
class Ending:
    """The ending that a file's name must have."""

    text: str


def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return constants under today's names; one of a former name keeps what it meant."""
    named = ((FORMER.get(name, (name, {})), value) for name, value in values.items())
    return {name: of.get(value, value) if isinstance(value, str) else value for (name, of), value in named}


def parse(name: str, text: str, default: Constant) -> Any:
    """Return the value that `text` stands for, in the type of `default`. Raises UserError."""
    text = text.strip()
    if isinstance(default, str):
        return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
    expected = "a whole number" if isinstance(default, int) else "a number"
    try:
        value = ast.literal_eval(text)
        if isinstance(default, tuple):
            expected = f"{len(default)} numbers such as {','.join(map(str, default))}"
            value = tuple(value) if isinstance(value, tuple | list) else (value,) * len(default)
            if len(value) != len(default):
                raise ValueError(f"{len(value)} numbers")
            return tuple(_number(item, type(default[0])) for item in value)
        return _number(value, type(default))
    except (ValueError, SyntaxError, TypeError, OverflowError, MemoryError, RecursionError) as error:
        raise UserError(f"{name}={text} is not {expected} (config.py has {name} = {default!r}).") from error


def _number(value: object, kind: type[int] | type[float]) -> Any:
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not math.isfinite(value)
        or kind(value) != value
    ):
        raise ValueError(value)
    return kind(value)


def choices(hint: object) -> tuple[str, ...]:
    """Return the choices of a Literal, () for any other type."""
    return get_args(hint) if get_origin(hint) is Literal else ()


def check(name: str, value: Constant, hint: object) -> None:
    """Check `value` against its type's choices, Range or Ending. Raises UserError."""
    allowed = choices(hint)
    if allowed and value not in allowed:
        shown = ", ".join(choice or "''" for choice in allowed)
        raise UserError(f"{name}={value} is none of: {shown}.{nearest(str(value), allowed)}")
    for rule in getattr(hint, "__metadata__", ()):
        if isinstance(rule, Ending) and not str(value).endswith(rule.text):
            raise UserError(f"{name}={value}: expected the name of a {rule.text} file.")
        if isinstance(rule, Range):
            for number in value if isinstance(value, tuple) else (value,):
                if not isinstance(number, str) and not rule.low <= number <= rule.high:
                    raise UserError(f"{name}={value} is out of range: expected {rule.low} to {rule.high}.")


def lines_of(values: Mapping[str, Any]) -> list[str]:
    """Return NAME=value for each constant, as `parse` reads it."""
    return [
        f"{name}={','.join(map(str, value)) if isinstance(value, list | tuple) else value}"
        for name, value in values.items()
    ]


def expand(values: Mapping[str, Any], as_they_are: Sequence[str]) -> dict[str, Any]:
    """Fill in every `{NAME}`, to any depth, but in `as_they_are`. UserError for an unknown or circular one."""

    def fill(name: str, seen: tuple[str, ...]) -> Any:
        if name in seen:
            raise UserError(f"{' -> '.join((*seen, name))}: these constants contain each other.")
        value = values[name]
        if name in as_they_are or not isinstance(value, str):
            return value

        def insert(match: re.Match) -> str:
            if match[1] not in values:
                raise UserError(f"{name}={value}: config.py has no {match[1]}.{nearest(match[1], values)}")
            return str(fill(match[1], (*seen, name)))

        return re.sub(r"\{(\w*)\}", insert, value)

    return {name: fill(name, ()) for name in values}
