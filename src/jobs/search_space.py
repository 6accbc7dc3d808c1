"""The search section of a recipe: which constants make search may vary, and over what.

Below a line [search]: NAME = low .. high, NAME = low .. high log, or NAME = a | b | c, each with its reason.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tools.constants import Constant
from tools.errors import UserError, nearest

DIGITS = 3  # significant ones of a sampled float: LR=0.00137 can be read and typed, and more make no difference
Lines = list[tuple[str, str]]  # a recipe's lines, each with its comment
REASONS = {  # sections of config.py that are not searched
    "machine": "it says where things lie and what they run on, and is to change no result",
    "data": "the trials would be scored on other images or another split, so their scores could not be compared",
    "scoring": "the score that decides between the trials has to mean the same in each; make tune finds the rule from "
    "probability to mask, with an honest figure",
}
EXCEPTIONS = {  # constants of the other sections that are not searched either
    "SEED": "the best of many seeds is luck, and its score flatters",
    "EXPERIMENT": "each trial has a folder of its own already",
    "OVERFIT": "its networks are scored on what they learned by heart",
    "CHECKPOINT": "the best epoch is chosen on the fold that decides, so it would always look better",
    "VALID_BATCH_SIZE": "it changes no result",
}


@dataclass(frozen=True)
class Parameter:
    """One constant that is searched: `options` as texts, or numbers from `low` to `high`.

    `text`: what the recipe says; `reason`: its comment there. log: searched on a logarithmic scale; whole: integers.
    """

    name: str
    text: str
    reason: str = ""
    options: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    def written(self, value: Constant) -> str:
        """Return a sampled value as config.py's text."""
        return str(value) if self.options else repr(value)

    def rounded(self, value: Constant) -> Constant:
        """Return a sampled float rounded to what one would type; anything else unchanged."""
        if self.options or self.whole:
            return value
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    def as_json(self) -> dict[str, Any]:
        """Return the parameter as `from_json` reads it."""
        return asdict(self)


def from_json(values: dict[str, Any]) -> Parameter:
    """Return the parameter that `as_json` wrote."""
    return Parameter(**{**values, "options": tuple(values["options"])})


def read(
    recipes: Mapping[str, tuple[Lines, Lines]], typed: Sequence[str], sections: Mapping[str, Sequence[str]]
) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """Merge the search sections of recipes: NAME -> (what is written there, its reason), and the names that are fixed.

    recipes: name -> its lines above and below [search], from left to right; typed: the command line's NAME=value;
    sections: config.py's headings -> the constants below each. Fixed are the names to which a recipe to the right, or
    the command line, gives a value: they are not searched. Raises UserError for a name that is unknown, stands twice in
    a section, or is of a constant whose trials could not be compared.
    """
    found: dict[str, tuple[str, str]] = {}
    fixed: list[str] = []
    section_of = {name: heading for heading, names in sections.items() for name in names}
    for recipe, (values, section) in recipes.items():
        fixed += [name for name in _names(line for line, _ in values) if found.pop(name, None)]
        mine = {}
        for line, reason in section:
            name, text = _split(line, f"recipe {recipe}, [search]: ", list(section_of))
            _refuse_unsearchable(name, section_of[name])
            if name in mine:
                raise UserError(f"recipe {recipe}, [search]: {name} stands there twice; keep one of the lines.")
            mine[name] = text, reason
        found |= mine
    fixed += [name for name in _names(typed) if found.pop(name, None)]
    return found, [name for name in dict.fromkeys(fixed) if name not in found]


def _names(lines: Iterable[str]) -> list[str]:
    return [line.partition("=")[0].strip() for line in lines]


def _split(line: str, where: str, known: Sequence[str]) -> tuple[str, str]:
    name, _, text = (part.strip() for part in line.partition("="))
    if not text:
        raise UserError(f"{where}expected NAME = low .. high, or NAME = a | b, got '{line}'.")
    if name not in known:
        raise UserError(f"{where}config.py has no {name}.{nearest(name.upper(), known)}")
    return name, text


def _refuse_unsearchable(name: str, section: str) -> None:
    reason = EXCEPTIONS.get(name) or REASONS.get(section)
    if reason:
        raise UserError(f"[search]: {name} is not searched: {reason}. Take the line out.")


def parameter(name: str, text: str, reason: str, value_of: Callable[[str, str], Any]) -> Parameter:
    """Return a line of a search section as a Parameter. `value_of`: (name, text) -> the constant's value, or UserError.

    Raises UserError for a text that is neither a range nor a choice, and for bounds or options that the constant
    forbids.
    """
    if "|" in text:
        return _choice(name, text, reason, value_of)
    bounds = re.fullmatch(r"(\S+)\s*\.\.\s*(\S+?)(\s+log)?", text)
    if not bounds:
        raise UserError(
            f"[search]: {name} = {text} is neither a range nor a choice: expected low .. high, low .. high log, "
            "or a | b. A single value stands above [search]."
        )
    low, high = (value_of(name, bound) for bound in bounds.groups()[:2])
    if isinstance(low, str | tuple):
        raise UserError(f"[search]: {name} = {text}: {name} is no single number and has no range; say {name} = a | b.")
    if not low < high:
        raise UserError(f"[search]: {name} = {text}: expected the lower bound first, and another above it.")
    if bounds[3] and low <= 0:
        raise UserError(f"[search]: {name} = {text}: a logarithmic range begins above 0.")
    return Parameter(name, text, reason, low=low, high=high, log=bool(bounds[3]), whole=isinstance(low, int))


def _choice(name: str, text: str, reason: str, value_of: Callable[[str, str], Any]) -> Parameter:
    options = tuple(part.strip() for part in text.split("|"))
    if not all(options):
        raise UserError(f"[search]: {name} = {text}: there is nothing between two bars.")
    values = [value_of(name, option) for option in options]
    twice = [option for at, option in enumerate(options) if values[at] in values[:at]]
    if twice:
        raise UserError(f"[search]: {name} = {text}: {twice[0]} stands there twice.")
    return Parameter(name, text, reason, options)


def place_of(one: Parameter, value: Constant, value_of: Callable[[str, str], Any]) -> Constant | None:
    """Return a constant's value as one that could have been sampled, None where it lies outside of the space."""
    if one.options:
        return next((option for option in one.options if value_of(one.name, option) == value), None)
    return value if isinstance(value, int | float) and one.low <= value <= one.high else None
