"""Rendered scans with their true masks: organs in slices of 16 bits, and cells under a microscope.

The same seed and numbers give the same picture.
"""

import cv2
import numpy as np

from scenes.brush import Random, blob, clouds, cover, crisp, fill, finish, lay, mesh, near

SIZE = (192, 256)
ORGANS = ("liver", "tumour", "kidney")
SLICES = 12  # of a patient, from the chest down


def organs(seed: int, patient: int, level: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A slice through a belly: uint16 (H, W), about 200 (air) to 3000 (bone), and a mask 0/1 (H, W) for each of ORGANS.

    `level` is 0 to SLICES - 1; slices of a patient change smoothly. The tumour grows in the liver and out of it, so
    that their masks overlap; the first and the last slices show none of the organs or some.
    """
    body, random = np.random.default_rng([seed, patient, 5]), np.random.default_rng([seed, patient, level, 6])
    height = level / (SLICES - 1)
    middle = np.array([128, 97]) + body.normal(0, 3, 2)
    wide, high = body.uniform(98, 112), body.uniform(66, 76)
    picture = np.full((*SIZE, 1), 210, np.float32)
    waist = 1 - 0.05 * np.sin(height * np.pi)
    for shrink, value in ((0, 900), (body.uniform(6, 14), 1480), (body.uniform(19, 22), 1010)):  # fat, muscle, fat
        fill(picture, blob(body, middle, (wide * waist - shrink, high * waist - shrink), 0, 0.02), [value])
    _bones(picture, middle, wide * waist, high * waist, height, body)
    texture, found = 0.035 * clouds(random, SIZE, 10)[..., None], dict[str, np.ndarray]()
    for name, place, radii, at, reach, value in _anatomy(body):
        size = np.sqrt(max(0.0, 1 - ((height - at) / reach) ** 2))
        drift = (height - at) * np.array([4.0, 6.0])
        outline = blob(body, middle + place + drift, np.array(radii) * max(size, 0.01), body.uniform(-0.2, 0.2), 0.1)
        covered = cover(SIZE, outline) if size > 0.12 else np.zeros(SIZE, np.float32)
        lay(picture, covered, value * (1 + texture))
        if name == "tumour":  # a bright rim around what is dead inside
            lay(picture, 0.7 * cover(SIZE, (outline - outline.mean(0)) * 0.55 + outline.mean(0)) * covered, [1240])
        found[name] = np.maximum(found.get(name, 0), covered)
    bias = 1 + 0.05 * clouds(body, SIZE, 130, 1)[..., None]
    soft = cv2.GaussianBlur(picture * bias, (0, 0), 0.9) + 55 * random.standard_normal(SIZE, np.float32)
    return np.clip(soft, 0, 4095).astype(np.uint16), {name: crisp(found[name]) for name in ORGANS}


def _anatomy(body: Random) -> list[tuple[str, np.ndarray, tuple[float, float], float, float, float]]:
    """(name, place from the body's middle, radii, height of its middle, its reach in height, value), back to front."""
    liver = np.array([-40, -8]) + body.normal(0, 3, 2)
    grows = body.uniform(-0.3, 0.4) * np.pi
    tumour = liver + np.array([30 * np.cos(grows), 24 * np.sin(grows)]) * body.uniform(0.6, 1.3)
    size, large = body.uniform(8, 15), body.uniform(0.82, 1.08, 2)
    return [
        ("spleen", np.array([66, 10]), (15, 24), body.uniform(0.3, 0.4), 0.34, 1760),
        ("stomach", np.array([34, -20]), (26, 20), body.uniform(0.3, 0.4), 0.36, 1390),
        ("bowel", np.array([26, -14]), (34, 22), 1.0, 0.45, 1440),
        ("gas", np.array([32, -24]), (13, 7), body.uniform(0.5, 0.7), 0.5, 330),
        ("aorta", np.array([8, 22]), (6.5, 6.5), 0.5, 3.0, 1980),
        ("liver", liver, (41 * large[0], 37 * large[1]), body.uniform(0.36, 0.46), body.uniform(0.36, 0.42), 1690),
        ("kidney", np.array([-40, 30]) + body.normal(0, 2, 2), (13, 16), body.uniform(0.62, 0.7), 0.28, 2060),
        ("kidney", np.array([46, 30]) + body.normal(0, 2, 2), (13, 16), body.uniform(0.56, 0.66), 0.28, 2060),
        ("tumour", tumour, (size, size * 0.9), body.uniform(0.36, 0.5), body.uniform(0.2, 0.3), 1900),
    ]


def _bones(picture: np.ndarray, middle: np.ndarray, wide: float, high: float, height: float, body: Random) -> None:
    """A vertebra with its canal, and ribs that wander down the sides from slice to slice."""
    spine = middle + (0, high * 0.56)
    for offset, radii, value in (((0, 0), (16, 12), 2500), ((0, 0), (13, 9), 2050), ((0, 17), (7, 6), 1350)):
        fill(picture, blob(body, spine + offset, radii, 0, 0.03), [value])
    for side in (-1, 1):
        wing = spine + np.array([[side * 9, 12], [side * 30, 17], [side * 28, 21], [side * 8, 20]])
        fill(picture, wing, [2600])
        for rib in range(4):
            right = 0.5 + 0.62 * rib + 0.35 * height
            angle = right if side > 0 else np.pi - right
            place = middle + np.array([(wide - 14) * np.cos(angle), (high - 13) * np.sin(angle)])
            fill(picture, blob(body, place, (9, 4), angle + np.pi / 2), [2900])


def cells(seed: int, number: int, empty_too: bool = False) -> tuple[np.ndarray, list[np.ndarray]]:
    """Cells under a microscope: RGB uint8 (H, W, 3) and a mask, 0/1 (H, W), for each nucleus; no two share a pixel.

    Two thirds glow on black (fluorescence), one third is stained pink and purple. With `empty_too` every eighth
    picture, from the fourth on, has none.
    """
    random = np.random.default_rng([seed, number, 8])
    glowing = random.random() < 0.67
    count = 0 if empty_too and number % 8 == 3 else int(random.integers(6, 34))
    size = float(random.uniform(6.5, 12))
    outlines, masks = _nuclei(random, count, size)
    picture = _glow(random, outlines, size) if glowing else _stain(random, outlines, size)
    return finish(picture, random, 0.7, 3.0), masks


def _nuclei(random: Random, count: int, size: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Outlines that may touch and their masks, each without the pixels of those before it."""
    outlines, masks, taken = [], [], np.zeros(SIZE, np.uint8)
    for _ in range(count * 3):
        radii = size * random.uniform(0.75, 1.3, 2)
        outline = blob(random, random.uniform((4, 4), (252, 188)), radii, random.uniform(0, np.pi), 0.12)
        part, low = near(outline, 1)
        drawn = crisp(cover(taken[part].shape, outline - low))
        if drawn.sum() < 20 or (drawn & taken[part]).sum() > 0.04 * drawn.sum():
            continue
        outlines.append(outline)
        masks.append(np.zeros(SIZE, np.uint8))
        masks[-1][part] = drawn & (1 - taken[part])
        taken[part] |= drawn
        if len(masks) == count:
            break
    return outlines, masks


def _glow(random: Random, outlines: list[np.ndarray], size: float) -> np.ndarray:
    """Bright nuclei with darker nucleoli on black; out of focus, other cells shimmer below them."""
    colour = np.float32([(200, 204, 210), (90, 130, 255), (96, 236, 150)][random.integers(3)])
    light = np.full(SIZE, 0.05, np.float32) + 0.04 * (clouds(random, SIZE, 90, 2) + 0.6)
    far = [blob(random, random.uniform((0, 0), SIZE[::-1]), (size * 1.2, size), 0, 0.1) for _ in range(5)]
    light += 0.16 * cv2.GaussianBlur(cover(SIZE, *far), (0, 0), 5)
    whole = light[..., None]
    chromatin = 1 + 0.28 * clouds(random, SIZE, 5, 2) * cover(SIZE, *outlines)
    for outline in outlines:
        bright = random.uniform(0.3, 0.9)
        fill(whole, outline, [bright])
        for spot in outline.mean(0) + random.uniform(-0.4, 0.4, (2, 2)) * size:
            fill(whole, blob(random, spot, (1.6, 1.3)), [bright * 0.5], 0.5)
    whole *= chromatin[..., None]
    for spot in random.uniform((0, 0), SIZE[::-1], (9, 2)):  # dust
        fill(whole, blob(random, spot, (1.1, 1.1)), [random.uniform(0.4, 1)])
    halo = whole + 0.25 * cv2.GaussianBlur(whole, (0, 0), 4)[..., None]
    return np.clip(halo, 0, 1) * colour


def _stain(random: Random, outlines: list[np.ndarray], size: float) -> np.ndarray:
    """Purple nuclei in pink tissue with fibres, white gaps and red blood cells."""
    pink = np.float32([226, 164, 196]) + random.normal(0, 8, 3).astype(np.float32)
    x, y = mesh(SIZE)
    flow = np.sin((x * 0.4 + y) / 7 + 5 * clouds(random, SIZE, 60, 2))  # fibres
    picture = pink * (1 + 0.05 * flow + 0.07 * clouds(random, SIZE, 22))[..., None]
    gaps = np.clip(clouds(random, SIZE, 50, 3) * 6 - 3.2, 0, 1)
    lay(picture, gaps, (244, 238, 244))
    for place in random.uniform((0, 0), SIZE[::-1], (int(random.integers(3, 12)), 2)):
        fill(picture, blob(random, place, (size * 0.6, size * 0.5)), (222, 92, 110), 0.8)
    purple = np.float32([(104, 66, 142), (84, 58, 128), (128, 84, 158)][random.integers(3)])
    for outline in outlines:
        tone, middle = purple * random.uniform(0.8, 1.3), outline.mean(0)
        fill(picture, outline, tone * 0.72)
        fill(picture, (outline - middle) * 0.84 + middle, tone, 0.85)
    picture *= (1 + 0.2 * clouds(random, SIZE, 4, 2) * cover(SIZE, *outlines))[..., None]
    return picture
