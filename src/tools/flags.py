"""Texts of a command's flags (FOLD=0 RESUME=1): yes or no, whole numbers, lists."""

from tools.errors import UserError


def is_on(text: str) -> bool:
    """Read a yes/no flag: 1, true and yes against 0, false, no and "" (not given). Raises UserError."""
    if text.lower() in ("1", "true", "yes"):
        return True
    if text.lower() in ("", "0", "false", "no"):
        return False
    raise UserError(f"Expected 1 or 0 for a flag, got '{text}'.")
