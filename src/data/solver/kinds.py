"""What the folders of paired images say: their kind, a patient's folder, and one data set saved in two formats."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from data.solver import words
from data.solver.names import PARTS, tokens
from formats.images import SUFFIXES


def strata(images: Sequence[str]) -> list[str]:
    """Name the kind of each image by its folders, without those that all have, a patient's, and parts of the data."""
    columns = _columns(images)
    kept = [
        column for column in columns if len(set(column)) > 1 and not (_are_parts(column) or _is_group(column, images))
    ]
    found = ["/".join(parts) for parts in zip(*kept, strict=True)] if kept else []
    return found if 1 < len(set(found)) <= max(2, len(images) // 4) else [""] * len(images)


def group_rule(images: Sequence[str]) -> str:
    """Give the regex of a patient's folder, "" where there is none."""
    depth = next((depth for depth, column in enumerate(_columns(images)) if _is_group(column, images)), None)
    return "" if depth is None else rf"^((?:[^/]+/){{{depth}}}[^/]+)/"


def one_format(texts: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Keep one of two copies in folders named by their format, png_images/ and jpeg_images/; return both parts."""
    copies: dict[str, list[str]] = defaultdict(list)
    for image in texts:
        path = PurePosixPath(image)
        parts = [tokens(part) for part in path.parent.parts]
        if any(f".{token}" in SUFFIXES for part in parts for token in part):
            plain = [" ".join(token for token in part if f".{token}" not in SUFFIXES) for part in parts]
            copies["/".join((*plain, path.stem))].append(image)
    twice = {image for images in copies.values() for image in sorted(images, key=_loss)[1:]}
    kept = {image: mask for image, mask in texts.items() if image not in twice}
    return kept, {image: texts[image] for image in twice}


def _loss(path: str) -> tuple[bool, str]:
    return path.lower().endswith((".jpg", ".jpeg")), path


def _columns(images: Sequence[str]) -> list[tuple[str, ...]]:
    """List the folders of each depth, a name an image; [] where the depths differ."""
    folders = [path.rpartition("/")[0].split("/") for path in images]
    return list(zip(*folders, strict=True)) if len({len(parts) for parts in folders}) == 1 else []


def _are_parts(column: Iterable[str]) -> bool:
    return all(PARTS.keys() & set(tokens(folder)) for folder in set(column))


def _is_group(column: Sequence[str], images: Sequence[str]) -> bool:
    """Say whether these folders are patients: numbered, and called so, or the images in them are called as they are."""
    names = set(column)
    if not 2 < len(names) < len(images) or not all(re.search(r"\d", name) for name in names):
        return False
    called = all(path.rpartition("/")[2].startswith(name) for path, name in zip(images, column, strict=True))
    return called or all(words.count(tokens(name, fine=True), words.SERIES) for name in names)
