"""What lies behind the interface of a rendered game screenshot: hills, a dungeon, space, and creatures."""

import numpy as np

from scenes.brush import Colour, Random, band, blob, clouds, cover, fill, lay, mesh, shade

SIZE = (180, 320)


def _ramp(top: Colour, bottom: Colour) -> np.ndarray:
    share = mesh(SIZE)[1][..., None] / SIZE[0]
    return np.float32(top) * (1 - share) + np.float32(bottom) * share


def hills(random: Random) -> np.ndarray:
    """A sky with clouds and a sun over ranges of hills and fir trees."""
    skies = ((92, 160, 226), (200, 226, 240)), ((60, 44, 96), (250, 150, 100)), ((130, 190, 200), (246, 238, 206))
    top, bottom = skies[random.integers(3)]
    picture = _ramp(top, bottom)
    place = random.uniform((30, 16), (290, 70))
    fill(picture, blob(random, place, (13, 13)), (255, 246, 208))
    lay(picture, np.clip(clouds(random, SIZE, 60, 4) * 1.4 - 0.4, 0, 0.8), (252, 250, 248))
    ground = np.array([(70, 120, 60), (120, 110, 50), (60, 100, 110)][random.integers(3)])
    x = np.arange(-8, SIZE[1] + 9, 4.0)
    for depth, height in enumerate(np.linspace(0.48, 0.86, 4)):
        waves = sum(random.normal(0, 7) * np.sin(x / random.uniform(14, 60) + random.uniform(0, 6)) for _ in range(3))
        line = np.stack([x, height * SIZE[0] + waves * (1 - 0.2 * depth)], axis=1)
        share = 0.25 + 0.25 * depth
        colour = np.array(bottom) * (1 - share) + ground * share * (1.15 - 0.1 * depth)
        texture = (6 * depth * clouds(random, SIZE, 12, 2))[..., None]
        fill(picture, np.concatenate([line, [[340, 200], [-20, 200]]]), colour + texture)
        for at in random.integers(0, len(x), 3 * depth):
            size, foot = random.uniform(4, 7) * (depth + 1), line[at] + (0, 3)
            for tier in range(3):
                wide, high = size * (0.5 - 0.1 * tier), size * (0.4 + 0.45 * tier)
                tree = foot + np.array(
                    [[-wide, -high + size * 0.3], [wide, -high + size * 0.3], [0, -high - size * 0.4]]
                )
                fill(picture, tree, colour * (0.55 + 0.06 * tier))
    return picture


def dungeon(random: Random) -> np.ndarray:
    """A wall of bricks with an arch, lit by torches, above a floor of slabs."""
    x, y = mesh(SIZE)
    stone = np.float32([(104, 96, 92), (84, 92, 104), (112, 92, 74)][random.integers(3)])
    row = np.floor(y / 14)
    shift = 13 * (row % 2)
    joint = (np.minimum(y % 14, (x + shift) % 26) < 1.5).astype(np.float32)
    tone = np.sin(row * 12.9 + np.floor((x + shift) / 26) * 78.2) * 0.12
    wall = 1 + tone - 0.45 * joint + 0.14 * clouds(random, SIZE, 9)
    floor_at = float(random.uniform(118, 136))
    depth = 1 / np.maximum(y - floor_at + 12, 1)
    slabs = (((x - 160) * depth * 1.7) % 1 < 0.06) | ((depth * 150) % 1 < 0.09)
    floor = 0.8 + 0.1 * clouds(random, SIZE, 14) - 0.35 * slabs
    picture = stone * np.where(y < floor_at, wall, floor)[..., None]
    middle = random.uniform(70, 250)
    gate = np.concatenate(
        [blob(random, (middle, floor_at - 48), (22, 22))[24:], [[middle + 22, floor_at], [middle - 22, floor_at]]]
    )
    fill(picture, gate, (10, 9, 12))
    light = np.full(SIZE, 0.34, np.float32)
    torches = [(middle + side * random.uniform(44, 60), random.uniform(48, 62)) for side in (-1, 1)]
    for place in torches:
        light += np.exp(-np.hypot(x - place[0], y - place[1]) / 46).astype(np.float32)
    picture *= light[..., None] * np.float32([1.25, 0.95, 0.7])
    for place in torches:
        fill(picture, band(np.array([place, (place[0], place[1] + 18)]), 4), (70, 44, 26))
        for size, colour in ((7, (250, 120, 20)), (4.5, (255, 190, 50)), (2.5, (255, 246, 190))):
            fill(picture, blob(random, (place[0], place[1] - size / 2), (size * 0.7, size), 0, 0.15), colour)
    return picture


def space(random: Random) -> np.ndarray:
    """Stars, a nebula and a planet with its shadow side."""
    picture = _ramp((8, 8, 22), (20, 12, 38))
    for colour in random.uniform(10, 150, (2, 3)):
        picture += np.clip(clouds(random, SIZE, 90, 5), 0, 1)[..., None] ** 1.5 * np.float32(colour)
    rows, columns = random.integers(0, SIZE[0], 110), random.integers(0, SIZE[1], 110)
    picture[rows, columns] = random.uniform(60, 255, (110, 1)) * np.array([1, 0.98, 0.94])
    place, radius = random.uniform((60, 50), (260, 140)), float(random.uniform(22, 52))
    x, y = mesh(SIZE)
    bands = 0.75 + 0.2 * np.sin((y + 0.3 * x) / radius * 9 + 2 * clouds(random, SIZE, 40))
    lit = np.clip(1.1 - np.hypot(x - place[0] + radius * 0.5, y - place[1] + radius * 0.5) / (1.6 * radius), 0.05, 1)
    colour = np.float32(random.uniform(90, 255, 3)) * (bands * lit)[..., None].astype(np.float32)
    fill(picture, blob(random, place, (radius, radius)), colour)
    return picture


def creature(picture: np.ndarray, random: Random) -> None:
    """A round creature with eyes: bright and sharp as the interface, but none of it."""
    foot, size = random.uniform((40, 110), (280, 150)), random.uniform(6, 13)
    colour = random.uniform(60, 250, 3)
    body = cover(SIZE, blob(random, foot - (0, size), (size, size * 1.1), 0, 0.06))
    shade(picture, cover(SIZE, blob(random, foot, (size * 1.1, size * 0.3))), (0, 1), 2.0, 0.5)
    lay(picture, body, (24, 20, 26))
    fill(picture, blob(random, foot - (0, size), (size - 1.2, size * 1.1 - 1.2), 0, 0.04), colour)
    for side in (-0.4, 0.4):
        eye = foot + (side * size, -1.35 * size)
        fill(picture, blob(random, eye, (size * 0.26, size * 0.32)), (255, 255, 255))
        fill(picture, blob(random, eye + (0.6, 0.4), (size * 0.13, size * 0.16)), (10, 10, 10))
