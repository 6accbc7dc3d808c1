"""Texts of a command's flags (FOLD=0 RESUME=1): yes or no, whole numbers, lists."""

from types import SimpleNamespace
from typing import TYPE_CHECKING

from tools.errors import UserError


class Flags(SimpleNamespace):
    """A command's flags as they were typed, "" where not given, RECIPE among them."""

    overrides: tuple[str, ...]  # the constants, as they were typed

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> str: ...


def is_on(text: str) -> bool:
    """Read a yes/no flag: 1, true and yes against 0, false, no and "" (not given). Raises UserError."""
    if text.lower() in ("1", "true", "yes"):
        return True
    if text.lower() in ("", "0", "false", "no"):
        return False
    raise UserError(f"Expected 1 or 0 for a flag, got '{text}'.")
