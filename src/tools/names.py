"""What images, classes and folders may be called."""

import re
import unicodedata
from pathlib import Path

from tools.errors import UserError


def check_name(constant: str, name: str) -> None:
    """Refuse what is not a plain folder's name, so that nothing elsewhere is ever written or removed."""
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise UserError(f"{constant}={name} is to be a folder's name: letters, digits and . _ + - only.")


def plain_name(text: str) -> str:
    """A class's name as a file's: letters, digits and . _ + - stay."""
    return re.sub(r"[^\w.+-]", "_", text).strip(".") or "_"


def is_name(text: str) -> bool:
    """Whether an image, a group or a class may be called so: no control characters, and no formula in a table.

    Spreadsheets run a cell that begins with =, + or @ and something after it, and with - where something is called.
    """
    odd = {unicodedata.category(letter) for letter in text} & {"Cc", "Cs", "Zl", "Zp"}
    return bool(text) and not odd and not re.match(r"[=+@].|-[\w+-]*[(|!]", text)


def is_path(text: str) -> bool:
    """The same of a path: as it is written in tables, and by its file's name, which becomes the id in a submission."""
    return is_name(text) and is_name(Path(text).name or text)


def image_name(image: str) -> str:
    """The name that predictions and ids go by: a stack images/a_{z}.png is images/a.png."""
    return image.replace("_{z}", "")
