"""The language of LOSS: terms joined by `+`, each `[weight*]name[(argument=literal, ...)]`, and what arguments are.

A loss's own arguments are the parameters of its function that have defaults; their annotations hold their ranges.
"""

import ast
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, get_args

from tools.errors import UserError, nearest


@dataclass(frozen=True)
class Within:
    """The range of a number; with `many`, of each of several, which are one a class."""

    low: float
    high: float
    one: bool = True
    many: bool = False

    def __str__(self) -> str:
        single = f"a number from {self.low:g} to {self.high:g}"
        several = f"{'such ' if self.one else ''}numbers one a class, such as (1, 2)"
        if not self.many:
            return single
        if self.one:
            return f"{single}, or {several}"
        return f"{several}, each from {self.low:g} to {self.high:g} and not all 0"

    def holds(self, value: object) -> bool:
        """Return whether `value` is such a number, or several that are not all zero."""
        if isinstance(value, (tuple, list)):
            return self.many and any(value) and all(self._is_number(each) for each in value)
        return self.one and self._is_number(value)

    def _is_number(self, value: object) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and self.low <= value <= self.high


Share = Annotated[float, Within(0, 1)]
Amount = Annotated[float, Within(0.01, 100)]
Exponent = Annotated[float, Within(0.1, 10)]
Weights = Annotated[tuple[float, ...], Within(0, 10_000, one=False, many=True)]


@dataclass(frozen=True)
class Term:
    """One summand: weight > 0, a name that is not looked up yet, and its arguments as they were written."""

    weight: float
    name: str
    arguments: dict[str, object]


def parse(text: str) -> list[Term]:
    """Read the terms of a text. Raises UserError where it is not of this language."""
    return [_parse_term(part) for part in _split(text)]


def _split(text: str) -> list[str]:
    """Return the parts between those `+` that are in no parentheses."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if depth < 0:
            break
        if letter == "+" and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    if depth:
        raise UserError(f"LOSS: the parentheses of '{text}' do not match; expected such as dice + focal(gamma=2).")
    return [part.strip() for part in parts]


def _parse_term(part: str) -> Term:
    head, bracket, rest = part.partition("(")
    weight, star, name = head.rpartition("*")
    try:
        factor = float(weight) if star else 1.0
    except ValueError:
        factor = math.nan
    if not 0 < factor < math.inf:
        raise UserError(f"LOSS: '{part}' has a weight that is no number above 0; expected such as 0.5*ce + dice.")
    return Term(factor, name.strip(), _literals(part, rest) if bracket else {})


def _literals(part: str, rest: str) -> dict[str, object]:
    """Read the values in `a=1, b=(1, 2))`: literals alone, nothing is computed."""
    try:
        call = ast.parse(f"f({rest}", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError
        names = [keyword.arg for keyword in call.keywords]
        if None in names or len(set(names)) < len(names):  # **more, or one twice
            raise ValueError
        return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):  # what literal_eval may raise
        message = f"LOSS: '{part}' is not understood; expected arguments by name with plain values, such as"
        raise UserError(f"{message} focal(gamma=2) or ce(weights=(1, 2)).") from None


def arguments_of(function: Callable) -> dict[str, inspect.Parameter]:
    """Return the arguments that LOSS may set: the parameters with a default."""
    parameters = inspect.signature(function).parameters
    return {name: value for name, value in parameters.items() if value.default is not inspect.Parameter.empty}


def signature(name: str, function: Callable) -> str:
    """Return a loss as one writes it in LOSS, with the defaults: focal(gamma=2, alpha=0)."""
    defaults = {key: parameter.default for key, parameter in arguments_of(function).items()}
    short = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in defaults.items()}
    known = ", ".join(f"{key}={value}" for key, value in short.items())
    return f"{name}({known})" if known else name


def checked_arguments(term: Term, function: Callable) -> dict[str, object]:
    """Return the arguments of `term`, lists as tuples. Raises UserError for one that `function` does not take so."""
    known = arguments_of(function)
    for name, value in term.arguments.items():
        if name not in known:
            usage = f"Expected {signature(term.name, function)}." if known else "It takes none."
            raise UserError(f"LOSS: {term.name} has no argument '{name}'.{nearest(name, known)} {usage}")
        kind = known[name].annotation
        fits = isinstance(value, bool) if kind is bool else get_args(kind)[1].holds(value)
        if not fits:
            wanted = "True or False" if kind is bool else get_args(kind)[1]
            raise UserError(f"LOSS: {term.name} got {name}={value!r}; expected {wanted}.")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in term.arguments.items()}
