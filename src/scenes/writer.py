"""The one writer of rendered data sets: all pictures drawn side by side, with their tables and the test's answers.

The answers of the test images lie below .answers/, in the form of the training masks; demo.json says which is whose.
"""

import csv
import io
import os
import shutil
import struct
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from tools import console, threads
from tools.errors import UserError
from tools.files import write_json

ANSWERS, DONE = ".answers", "demo.json"
_ALPHA, _NO_ALPHA = (struct.pack("<HHIH", 338, 3, 1, meaning) for meaning in (2, 0))  # TIFF's ExtraSamples
About = dict[str, Any]  # what demo.json holds
Table = tuple[Sequence[str], Iterable[Sequence[str | int]]] | str  # header and rows, or a text
Job = tuple[int, bool]  # the picture's number, which no other has, and whether it is for the test


@dataclass(frozen=True)
class Drawn:
    """One image with its mask: references relative to the root, and the files that they stand for."""

    image: str
    mask: str
    images: dict[str, np.ndarray]
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    rows: list[tuple[str, ...]] = field(default_factory=list)  # of the layout's table
    palette: tuple[int, ...] = ()  # of its mask files, red, green, blue of one index after the other


@dataclass(frozen=True)
class Layout:
    """How a layout's pictures are drawn, of seed, number and whether it is for the test, and its tables made."""

    draw: Callable[[int, int, bool], Drawn]
    tables: Callable[[list[Drawn], list[Drawn]], dict[str, Table]] | None = None  # of training and test: by file name
    together: int = 1  # so many numbers belong together, and none of them to both training and test
    processes: bool = False  # draw in processes: where it is Python that takes long

    def jobs(self, count: int, test_count: int) -> list[Job]:
        """Number the pictures of training, then of the test."""
        first = -(-count // self.together) * self.together
        return [(number, False) for number in range(count)] + [(first + number, True) for number in range(test_count)]


def write(name: str, layout: Layout, root: Path, numbers: dict[str, int]) -> About:
    """Render a data set into `root`; of `numbers` it takes seed, count and test_count.

    Returns what demo.json holds: the layout's name, all numbers, and `answers`, which names for each test image its
    mask's reference (see dataspec.py) relative to .answers. An earlier data set of ours in `root` is replaced. Raises
    UserError for counts below one, and where `root` holds something else.
    """
    count, test_count = numbers["count"], numbers["test_count"]
    if count < 1 or test_count < 1:
        raise UserError(f"{count} training and {test_count} test images: expected at least one of each.")
    refuse_foreign(root)
    temporary = root.with_name(f".{root.name}.{os.getpid()}")
    temporary.mkdir(parents=True)
    try:
        done = _render(layout, temporary, numbers["seed"], layout.jobs(count, test_count))
        train, test = done[:count], done[count:]
        for file, table in (layout.tables(train, test) if layout.tables else {}).items():
            _write_table(temporary / file, table)
        about = {"layout": name, **numbers, "answers": {one.image: one.mask for one in test}}
        write_json(temporary / DONE, about)
        if root.exists():
            shutil.rmtree(root)
        os.replace(temporary, root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return about


def refuse_foreign(root: Path) -> None:
    """Raise UserError where a folder holds what no demo wrote."""
    if root.exists() and not (root / DONE).is_file() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(f"{root} holds data that are not the demo's; nothing was written. Choose another DATASET=name.")


def _render(layout: Layout, root: Path, seed: int, jobs: list[Job]) -> list[Drawn]:
    """Draw and save all jobs; the images and masks are on disk then, and no longer in what is returned."""
    one = partial(_draw_and_save, layout.draw, root, seed)
    with _pool(layout.processes) as pool:
        return list(console.track(pool.map(one, jobs, chunksize=4), len(jobs), "rendering"))


def _pool(processes: bool) -> AbstractContextManager[Executor]:
    return ProcessPoolExecutor(threads.CORES, get_context("forkserver")) if processes else threads.pool()


def _draw_and_save(draw: Callable[[int, int, bool], Drawn], root: Path, seed: int, job: Job) -> Drawn:
    drawn = draw(seed, *job)
    for name, values in drawn.images.items():
        _save(root / name, values)
    for name, values in drawn.masks.items():
        _save(root / (ANSWERS if job[1] else "") / name, values, drawn.palette)
    return replace(drawn, images={}, masks={})


def _save(path: Path, values: np.ndarray, palette: tuple[int, ...] = ()) -> None:
    """Write gray (8 or 16 bits), RGB, RGB with near infrared (TIFF), or indices with their palette."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if palette:
        image.putpalette(palette)
    if (
        path.suffix == ".tif"
    ):  # Pillow calls a fourth channel alpha, cv2 does not say what it is; GDAL says it is neither
        file = io.BytesIO()
        image.save(file, "TIFF")
        path.write_bytes(file.getvalue().replace(_ALPHA, _NO_ALPHA, 1))
    else:
        options: dict[str, dict[str, Any]] = {".jpg": {"quality": 92}, ".png": {"compress_level": 1}}
        image.save(path, **options.get(path.suffix, {}))


def file_name(seed: int, number: int) -> str:
    """Make eight hexadecimal digits, so that neither order nor kind shows in a name."""
    return np.random.default_rng([seed, number, 9]).bytes(4).hex()


def _write_table(path: Path, table: Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        if isinstance(table, str):
            file.write(table)
        else:
            csv.writer(file, lineterminator="\n").writerows([table[0], *table[1]])
