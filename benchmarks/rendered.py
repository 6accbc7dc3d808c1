"""Different pictures of cars, made fast: random crops of two rendered cars, blended. For the benchmarks only."""

import os
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from scenes import car_studio, cars

BASES = 40


Planes = tuple[np.ndarray, np.ndarray]  # colors uint8 (H, W, 3), mask of 0 and 1 (H, W)


def _base(number: int, height: int, width: int) -> Planes:
    """A car, rendered at a quarter of the size, with a camera's noise."""
    car = cars.make_car(42, number)
    image, mask = car_studio.render(car, 1 + number % 16, height // 4, width // 4, 42)[:2]
    large = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    noise = np.random.default_rng(number).normal(0, 2, large.shape)
    outline = cv2.resize((mask > 0).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC) > 0.5
    return np.clip(large + noise, 0, 255).astype(np.uint8), outline.astype(np.uint8)


def _crop(planes: Planes, height: int, width: int, random: np.random.Generator) -> list[np.ndarray]:
    rows, columns = planes[1].shape
    top, left = random.integers(0, rows - height + 1), random.integers(0, columns - width + 1)
    parts = [plane[top : top + height, left : left + width] for plane in planes]
    return [cv2.flip(part, 1) for part in parts] if random.random() < 0.5 else parts


def _different(number: int, bases: list[Planes], height: int, width: int) -> Planes:
    """Image uint8 (H, W, 3) and the mask 0/1 (H, W) of the car that shows more."""
    random = np.random.default_rng(number)
    chosen = random.choice(len(bases), 2, replace=False)
    one, other = (_crop(bases[at], height, width, random) for at in chosen)
    return cv2.addWeighted(one[0], 0.6, other[0], 0.4, 0), one[1]


def _bases(count: int, height: int, width: int) -> list[Planes]:
    heights, widths = ([3 * side // 2] * count for side in (height, width))
    with ProcessPoolExecutor() as pool:
        return list(tqdm(pool.map(_base, range(count), heights, widths), "render", count, mininterval=5))


def pictures(folder: Path, count: int, height: int, width: int, bases: int = BASES) -> list[Path]:
    """Write `count` JPEGs of height x width, all different, and return them."""
    rendered = _bases(bases, height, width)

    def write(number: int) -> Path:
        path = folder / f"{number}.jpg"
        image = _different(number, rendered, height, width)[0]
        cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        return path

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(tqdm(pool.map(write, range(count)), "blend", count, mininterval=5))


def competition(
    root: Path, count: int, height: int, width: int, bases: int = 12, outlines: int = 0
) -> list[tuple[Path, Path]]:
    """`count` pairs in Carvana's layout below `root`, 16 views a car: train_hq/*.jpg and train_masks/*_mask.gif.

    outlines: only so many different masks, linked, because GIFs take long to write; 0: each image its own.
    """
    images, masks = root / "train_hq", root / "train_masks"
    images.mkdir(parents=True)
    masks.mkdir()
    rendered = _bases(bases, height, width)

    def write(number: int) -> tuple[Path, Path]:
        name = f"{number // 16:012x}_{number % 16 + 1:02d}"
        image, mask = _different(number, rendered, height, width)
        cv2.imwrite(str(images / f"{name}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        path = masks / f"{name}_mask.gif"
        if outlines and number >= outlines:
            path.hardlink_to(written[number % outlines][1])
        else:
            picture = Image.fromarray(mask)
            picture.putpalette([0, 0, 0, 255, 255, 255])  # as Carvana's are: indices 0, black, and 1, white
            picture.save(path)
        return images / f"{name}.jpg", path

    written: list[tuple[Path, Path]] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for part in (range(min(count, outlines)), range(min(count, outlines), count)):
            written += tqdm(pool.map(write, part), "blend", len(part), mininterval=5)
    return written
