"""Different pictures of cars, made fast: random crops of two rendered cars, blended. For the benchmarks only."""

import os
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

import cars
import studio

BASES = 40


def _base(number: int, height: int, width: int) -> np.ndarray:
    return studio.render(cars.make_car(42, number), 1 + number % 16, height, width, 42)[0]


def _crop(image: np.ndarray, height: int, width: int, random: np.random.Generator) -> np.ndarray:
    top, left = random.integers(0, image.shape[0] - height + 1), random.integers(0, image.shape[1] - width + 1)
    part = image[top : top + height, left : left + width]
    return part[:, ::-1] if random.random() < 0.5 else part


def _write_different(number: int, bases: list[np.ndarray], height: int, width: int, path: Path) -> Path:
    random = np.random.default_rng(number)
    chosen = random.choice(len(bases), 2, replace=False)
    one, other = (_crop(bases[at], height, width, random) for at in chosen)
    cv2.imwrite(str(path), cv2.addWeighted(one, 0.5, other, 0.5, 0), [cv2.IMWRITE_JPEG_QUALITY, 90])
    return path


def pictures(folder: Path, count: int, height: int, width: int) -> list[Path]:
    """Write `count` JPEGs of height x width, all different, and return them."""
    heights, widths = ([3 * side // 2] * BASES for side in (height, width))
    with ProcessPoolExecutor() as pool:
        bases = list(tqdm(pool.map(_base, range(BASES), heights, widths), "render", BASES, mininterval=5))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        written = pool.map(lambda at: _write_different(at, bases, height, width, folder / f"{at}.jpg"), range(count))
        return list(tqdm(written, "blend", count, mininterval=5))
