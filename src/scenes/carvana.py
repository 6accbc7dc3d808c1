"""Carvana's data set with cars of our own, 16 views each: its pictures may not be passed on."""

from functools import partial
from pathlib import Path

import numpy as np

from formats import rle
from scenes import car_studio, cars, writer
from scenes.writer import ANSWERS, Drawn, Table

COLUMNS = rle.DIALECTS["carvana"].columns
_BLACK_AND_WHITE = (0, 0, 0, 255, 255, 255)  # as the masks' GIFs have it: index 1 is the car


def render_data(root: Path, seed: int, cars: int, test_cars: int, width: int) -> writer.About:
    """Render the data set into `root`, pictures of `width` pixels and two thirds of it high; see `writer.write`."""
    layout = writer.Layout(partial(_draw, width), _tables, together=car_studio.VIEWS, processes=True)
    counts = {"count": cars * car_studio.VIEWS, "test_count": test_cars * car_studio.VIEWS}
    numbers = {"seed": seed, "cars": cars, "test_cars": test_cars, "width": width}
    return writer.write("carvana", layout, root, {**numbers, **counts})


def car_name(seed: int, number: int) -> str:
    """Make twelve hexadecimal digits, as Carvana's cars are called."""
    return np.random.default_rng([seed, number, 7]).bytes(6).hex()


def _draw(width: int, seed: int, number: int, test: bool) -> Drawn:
    """Draw one view: train_hq/<car>_<view>.jpg and train_masks/<car>_<view>_mask.gif, or test_hq/<car>_<view>.jpg."""
    car, view = number // car_studio.VIEWS, number % car_studio.VIEWS + 1
    picture, mask = car_studio.render(cars.make_car(seed, car), view, width * 2 // 3, width, seed)
    name = f"{car_name(seed, car)}_{view:02d}"
    image, masks = f"{'test' if test else 'train'}_hq/{name}.jpg", {f"train_masks/{name}_mask.gif": mask}
    row = (f"{name}.jpg", rle.encode(mask, "C"))
    answer = f"rle:test_masks.csv#{name}.jpg"
    return Drawn(image, answer, {image: picture}, {} if test else masks, [row], _BLACK_AND_WHITE)


def _tables(train: list[Drawn], test: list[Drawn]) -> dict[str, Table]:
    """Put run lengths of all masks into tables, and one pixel an image into a sample_submission.csv."""
    sample = sorted((one.rows[0][0], "1 1") for one in test)
    return {
        "train_masks.csv": (COLUMNS, [one.rows[0] for one in train]),
        f"{ANSWERS}/test_masks.csv": (COLUMNS, [one.rows[0] for one in test]),
        "sample_submission.csv": (COLUMNS, sample),
    }
