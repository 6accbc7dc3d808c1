"""Rendered pictures into files, side by side: what one image with its mask is, and tables."""

import csv
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tools import console, threads

ANSWERS = ".answers"  # the folder of the test images' masks
Job = tuple[int, bool]  # the picture's number, which no other has, and whether it is for the test


@dataclass(frozen=True)
class Drawn:
    """One image with its mask: references relative to the root, and the files that they stand for."""

    image: str
    mask: str
    images: dict[str, np.ndarray]
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    rows: list[tuple[str, ...]] = field(default_factory=list)  # of the layout's table


def numbered(count: int, test_count: int, together: int = 1) -> list[Job]:
    """Numbers for training, then for the test; `together` numbers belong together, and none of them to both."""
    first = -(-count // together) * together
    return [(number, False) for number in range(count)] + [(first + number, True) for number in range(test_count)]


def file_name(seed: int, number: int) -> str:
    """Eight hexadecimal digits, so that neither order nor kind shows in a name."""
    return np.random.default_rng([seed, number, 9]).bytes(4).hex()


def render(
    root: Path, jobs: list[Job], draw: Callable[[int, bool], Drawn], palette: Iterable[int] = ()
) -> tuple[list[Drawn], list[Drawn]]:
    """Draw all pictures side by side and write them, the masks of the test below .answers; training and test."""

    def one(job: Job) -> Drawn:
        drawn = draw(*job)
        for name, values in drawn.images.items():
            save(root / name, values)
        for name, values in drawn.masks.items():
            save(root / (ANSWERS if job[1] else "") / name, values, palette)
        return replace(drawn, images={}, masks={})

    with threads.pool() as pool:
        done = list(console.track(pool.map(one, jobs), len(jobs), "rendering"))
    parts: tuple[list[Drawn], list[Drawn]] = ([], [])
    for (_, test), drawn in zip(jobs, done, strict=True):
        parts[test].append(drawn)
    return parts


def save(path: Path, values: np.ndarray, palette: Iterable[int] = ()) -> None:
    """Write grey (8 or 16 bits), RGB, RGB with near infrared (TIFF), or indices with their palette."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        path.write_bytes(_tiff(values))
        return
    image = Image.fromarray(values)
    if palette:
        image.putpalette(list(palette))
    image.save(path, **({"quality": 92} if path.suffix == ".jpg" else {"compress_level": 1}))


def _tiff(values: np.ndarray) -> bytes:
    """uint8 (H, W, 4) as TIFF, red, green, blue and a fourth channel that tag 338, ExtraSamples, does not call alpha.

    Neither Pillow (always alpha) nor cv2 (no tag) writes what GDAL does; Pillow alone reads but the first three.
    """
    height, width, channels = values.shape
    long, short = 4, 3
    tags = (
        *((256, long, width), (257, long, height), (258, short, 8), (259, short, 1), (262, short, 2), (273, long, 16)),
        *((277, short, channels), (278, long, height), (279, long, values.nbytes), (284, short, 1), (338, short, 0)),
    )
    entries = [
        # the bits of four channels have no room in the entry itself: they lie at byte 8
        struct.pack("<HHII", tag, kind, channels, 8) if tag == 258 else struct.pack("<HHII", tag, kind, 1, value)
        for tag, kind, value in tags
    ]
    start = b"II*\0" + struct.pack("<I4H", 16 + values.nbytes, 8, 8, 8, 8)
    return start + values.tobytes() + struct.pack("<H", len(tags)) + b"".join(entries) + bytes(4)


def write_table(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """A CSV in UTF-8; makes the folders on the way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
