"""YOLO's labels for segmentation: a text an image, a line an object: its class's number and x y x y ... as shares.

The names of the classes stand in data.yaml (or classes.txt) in a folder above. Lines of a box, a class and four
numbers, are refused: a box is no mask.
"""

import functools
import math
from pathlib import Path

import numpy as np

from formats import polygons
from tools.errors import UserError

SLACK = 0.1  # how far a share may lie beyond 0 or 1; it is cut off there


class BoxError(UserError):
    """A line that holds a box and no polygon."""


def objects(path: Path, names: dict[int, str], shape: tuple[int, int]) -> list[tuple[str, np.ndarray]]:
    """List each object's class and mask, uint8 (H, W) of 0 and 1. Raises UserError that names the line."""
    sides, found = np.array([shape[1], shape[0]]), []
    for line, number, points in lines(path):
        mask = polygons.mask_of([points * sides], shape, f"{path}, line {line}")
        found.append((name_of(number, names, f"{path}, line {line}"), mask))
    return found


def lines(path: Path) -> list[tuple[int, int, np.ndarray]]:
    """Read (line, class's number, shares float64 (N, 2)) of each object. Raises UserError, BoxError for a box."""
    try:
        texts = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as text ({error}).") from error
    found = []
    for line, text in enumerate(texts, 1):
        if not text.strip():
            continue
        where, (first, *rest) = f"{path}, line {line}", text.split()
        try:
            number, shares = int(first), [float(part) for part in rest]
        except ValueError as error:
            raise UserError(f"{where}: expected a class's number and x y x y ..., got '{text[:50]}'.") from error
        if len(rest) == 4:
            raise BoxError(f"{where}: a box; boxes are no masks. Expected a polygon, x y of each of its points.")
        if len(rest) % 2 or number < 0:
            raise UserError(f"{where}: expected a class's number and pairs of x and y, got '{text[:50]}'.")
        points = polygons.ring(shares, where)
        if (points < -SLACK).any() or (points > 1 + SLACK).any():
            worst = max(shares, key=lambda share: math.fabs(share - 0.5))
            raise UserError(
                f"{where}: {worst:g} is no share of the image, 0 to 1. Divide x by its width, y by its height."
            )
        found.append((line, number, points))
    return found


def name_of(number: int, names: dict[int, str], where: str) -> str:
    """Name a class, class3 where nothing names them. Raises UserError for a number that has no name beside others."""
    if names and number not in names:
        raise UserError(f"{where}: the class {number} has no name; there are {', '.join(map(str, names.values()))}.")
    return names.get(number, f"class{number}")


def names_above(folder: Path, root: Path) -> dict[int, str]:
    """Read the names of classes from the first data.yaml (or another .yaml with names) or classes.txt above `folder`.

    Raises UserError where such a file is broken.
    """
    while folder.is_relative_to(root):
        if names := _names_in(folder):
            return names
        if folder == root:
            break
        folder = folder.parent
    return {}


def _names_in(folder: Path) -> dict[int, str]:
    for path in _files_with_names(folder, folder.stat().st_mtime_ns):
        state = path.stat()
        if names := _read_names(path, state.st_size, state.st_mtime_ns):
            return names
    return {}


@functools.lru_cache(64)
def _files_with_names(folder: Path, _version: int) -> list[Path]:
    found = [path for path in folder.iterdir() if path.suffix in (".yaml", ".yml") or path.name == "classes.txt"]
    return sorted(found, key=lambda path: (path.suffix == ".txt", path.stem != "data", path.name))


@functools.lru_cache(64)
def _read_names(path: Path, size: int, mtime_ns: int) -> dict[int, str]:  # noqa: ARG001 (as in coco.py)
    import yaml

    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".txt":
            return dict(enumerate(filter(None, map(str.strip, text.splitlines()))))
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: not readable as YAML ({str(error).splitlines()[0]}).") from error
    names = values.get("names") if isinstance(values, dict) else None
    if not names:
        return {}
    try:
        return {
            int(number): str(name) for number, name in (enumerate(names) if isinstance(names, list) else names.items())
        }
    except (AttributeError, ValueError) as error:
        raise UserError(f"{path}: names has to give a name to each class's number ({error}).") from error
