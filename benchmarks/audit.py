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
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

import audit
import cars
import studio
from images import read_image

BASES = 40
PART = 100  # images that are decoded in turn without and with their thumbnails


def _base(number: int, height: int, width: int) -> np.ndarray:
    return studio.render(cars.make_car(42, number), 1 + number % 16, height, width, 42)[0]


def _crop(image: np.ndarray, height: int, width: int, random: np.random.Generator) -> np.ndarray:
    top, left = random.integers(0, image.shape[0] - height + 1), random.integers(0, image.shape[1] - width + 1)
    part = image[top : top + height, left : left + width]
    return part[:, ::-1] if random.random() < 0.5 else part


def _write_different(number: int, bases: list[np.ndarray], given: argparse.Namespace, path: Path) -> Path:
    random = np.random.default_rng(number)
    chosen = random.choice(len(bases), 2, replace=False)
    one, other = (_crop(bases[at], given.height, given.width, random) for at in chosen)
    cv2.imwrite(str(path), cv2.addWeighted(one, 0.5, other, 0.5, 0), [cv2.IMWRITE_JPEG_QUALITY, 90])
    return path


def _pictures(folder: Path, given: argparse.Namespace) -> list[Path]:
    heights, widths = ([3 * side // 2] * BASES for side in (given.height, given.width))
    with ProcessPoolExecutor() as pool:
        bases = list(tqdm(pool.map(_base, range(BASES), heights, widths), "render", BASES, mininterval=5))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        written = pool.map(lambda at: _write_different(at, bases, given, folder / f"{at}.jpg"), range(given.images))
        return list(tqdm(written, "blend", given.images))


def _timed(task: Callable, files: list[Path]) -> tuple[float, list]:
    start = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(task, files))
    return time.perf_counter() - start, results


def _measure(files: list[Path], name: str) -> None:
    """Both passes in turns over small parts, each first every other time, so that a busier machine slows both."""
    spent, thumbnails = {"decode": 0.0, "both": 0.0}, []
    tasks = {"decode": lambda path: read_image(path).shape, "both": lambda path: audit.thumbnail(read_image(path))}
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

    pairs = audit.copies(np.stack(thumbnails), lambda at: read_image(files[at]), track=track)
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
        files = _pictures(Path(folder), given)
        _measure(files, f"{given.images:,} JPEGs of {given.width} x {given.height}")


if __name__ == "__main__":
    main()
