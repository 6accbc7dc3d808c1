"""Names of images that no table, spreadsheet or folder of predictions could hold, refused."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tools.errors import UserError, listing
from tools.names import is_path


def refuse_odd_names(names: Iterable[str], where: str) -> None:
    """Refuse what a table cannot hold, or a spreadsheet would run: control characters, and =1+1 as a name or an id."""
    odd = [repr(name) for name in dict.fromkeys(names) if name and not is_path(name)]
    if odd:
        raise UserError(
            f"{where}these names hold control characters, or begin like a formula (=, +, @); rename them:{listing(odd)}"
        )


def refuse_twins(names: list[str], where: str) -> None:
    """Refuse names that are equal, or differ in the file ending only: their predictions would have one name."""
    stems = [name.removesuffix(Path(name).suffix) for name in names]
    count = Counter(stems)
    twice = sorted(name for name, stem in zip(names, stems, strict=True) if count[stem] > 1)
    if twice:
        raise UserError(f"{where}these images are listed twice, or differ in the file ending only:{listing(twice)}")
