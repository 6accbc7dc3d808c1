"""The table of classes, INPUT/classes.csv with `name,value` or `name,r,g,b` (or class_dict.csv, as CamVid has it).

It names what a class map holds; a row called ignore, void or unlabeled is not labeled.
"""

import csv
from pathlib import Path

from data.dataspec import BACKGROUND
from tools.errors import UserError

FILES = ("classes.csv", "class_dict.csv")
NOT_LABELED = ("ignore", "ignored", "void", "unlabeled", "unlabeled")


def read_class_table(root: Path) -> dict[str, tuple[int, ...]]:
    """Read class name -> (value,) or (r, g, b) from the table of classes in `root`; {} where there is none.

    Raises UserError for other columns, no numbers, or a name or key that comes twice.
    """
    path = next((root / name for name in FILES if (root / name).is_file()), None)
    if path is None:
        return {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [{str(key).strip().lower(): value for key, value in row.items()} for row in csv.DictReader(file)]
        keys = ("value",) if rows and "value" in rows[0] else ("r", "g", "b")
        found = {_class_name(row["name"]): tuple(int(row[key]) for key in keys) for row in rows}
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise UserError(
            f"{path}: expected the columns name,value or name,r,g,b with whole numbers ({error})."
        ) from error
    ok = all(name.isprintable() and name for name in found) and all(
        0 <= part <= (65535 if len(key) == 1 else 255) for key in found.values() for part in key
    )
    if not found or len(found) < len(rows) or len(set(found.values())) < len(rows) or not ok:
        raise UserError(
            f"{path}: expected a row for each class, each name and value once, values from 0 to 65535, colors to 255."
        )
    return found


def _class_name(text: str) -> str:
    """Return a class's name as it is written, but for background, which means something."""
    name = str(text).strip()
    return BACKGROUND if name.lower() == BACKGROUND else name
