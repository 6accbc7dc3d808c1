"""Rules for the names of images, classes and folders."""

import re
import unicodedata
from pathlib import Path

from tools.errors import UserError


def check_name(constant: str, name: str) -> None:
    """Refuse a name that is no plain folder's, so that nothing elsewhere is ever written or removed."""
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise UserError(f"{constant}={name} is to be a folder's name: letters, digits and . _ + - only.")


def plain_name(text: str) -> str:
    """Return a class's name as part of a file's name: letters, digits and . _ + - stay."""
    return re.sub(r"[^\w.+-]", "_", text).strip(".") or "_"


def is_name(text: str) -> bool:
    """Return whether an image, group or class may have this name: no control characters, and no formula in a table.

    Spreadsheets run a cell that begins with =, + or @ and something after it, or with - before a function call.
    """
    odd = {unicodedata.category(letter) for letter in text} & {"Cc", "Cs", "Zl", "Zp"}
    return bool(text) and not odd and not re.match(r"[=+@].|-[\w+-]*[(|!]", text)


def is_path(text: str) -> bool:
    """Return whether an image may have this path: as tables write it, and by its file name, the id in a submission."""
    return is_name(text) and is_name(Path(text).name or text)


def image_name(image: str) -> str:
    """Return the name that predictions and ids use for an image: images/a.png for a stack images/a_{z}.png."""
    return image.replace("_{z}", "")
