"""How much longer than decoding all images once does `make folds` take to look for near copies among them?

python benchmarks/audit.py [--images 20000] [--height 1280] [--width 1918]

Renders cars, blends random crops of two of them into JPEGs that are all different pictures, and times, on all cores,
decoding alone (the limit), decoding with a thumbnail of each, and the search with its full-resolution checks.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

import rendered

from data.leak_audit import copies, spectra
from formats.images import read_image

PART = 100  # images that are decoded in turn without and with their thumbnails


def _timed(task: Callable, files: list[Path]) -> tuple[float, list]:
    start = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(task, files))
    return time.perf_counter() - start, results


def _measure(files: list[Path], name: str) -> None:
    """Both passes in turns over small parts, each first every other time, so that a busier machine slows both."""
    spent, thumbnails = {"decode": 0.0, "both": 0.0}, []
    tasks = {"decode": lambda path: read_image(path).shape, "both": lambda path: spectra.thumbnail(read_image(path))}
    for start in tqdm(range(0, len(files), PART), "decode, with and without thumbnails", mininterval=5):
        part = files[start : start + PART]
        for what in list(tasks) if (start // PART) % 2 else reversed(tasks):
            seconds, results = _timed(tasks[what], part)
            spent[what] += seconds
            thumbnails += results if what == "both" else []
    checks, start = [], time.perf_counter()

    def track(items: Iterable, total: int) -> Iterable:
        checks.append(total)
        return items

    pairs = copies.copies(np.stack(thumbnails), lambda at: read_image(files[at]), track=track)
    search = time.perf_counter() - start
    print(f"{name}: decoding alone {spent['decode']:.1f} s")
    print(f"with thumbnails {spent['both']:.1f} s, search {search:.1f} s with {checks[0]} checks; {len(pairs)} pairs")
    print(f"{(spent['both'] + search) / spent['decode']:.3f} of the time of decoding once")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--height", type=int, default=1280)
    parser.add_argument("--width", type=int, default=1918)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        files = rendered.pictures(Path(folder), given.images, given.height, given.width)
        _measure(files, f"{given.images:,} JPEGs of {given.width} x {given.height}")


if __name__ == "__main__":
    main()
