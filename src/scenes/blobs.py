"""Rendered blobs with their true masks, where a layout needs objects, scans or land: cells, organs, fields from above.

The same seed and numbers give the same picture.
"""

import cv2
import numpy as np

from scenes.brush import blob, clouds, cover, crisp, fill, finish, lay, rgb

SIZE = (192, 256)
ORGANS = ("liver", "tumour", "kidney")
SLICES = 12  # of a patient, from the chest down
NOT_LABELED = 255
_ANATOMY = (  # place from the body's middle, radii, height of the organ's middle, its reach in height, brightness
    ("liver", (-40, -8), (41, 37), 0.41, 0.37, 1690),
    ("kidney", (-40, 34), (13, 16), 0.66, 0.28, 2060),
    ("kidney", (46, 30), (13, 16), 0.61, 0.28, 2060),
    ("tumour", (-6, 2), (13, 12), 0.43, 0.25, 2500),
)
_GROUND = {  # how many of each there are, their radii, red, green, blue and near infrared
    "field": (0, (0, 0), (176, 164, 104, 140)),
    "water": (1, (44, 30), (40, 70, 92, 15)),
    "forest": (2, (40, 30), (50, 84, 46, 190)),
    "road": (1, (400, 6), (140, 138, 136, 95)),
    "roof": (8, (11, 8), (176, 82, 60, 100)),
}
LAND = tuple(_GROUND)
_STAINS = ((200, 204, 210), (90, 130, 255), (96, 236, 150))  # of cells


def cells(seed: int, number: int, empty_too: bool = False) -> tuple[np.ndarray, list[np.ndarray]]:
    """Draw bright cells on black: RGB uint8 (H, W, 3) and a mask, 0/1 (H, W), for each; no two share a pixel.

    With `empty_too` every eighth picture, from the fourth on, has none.
    """
    random = np.random.default_rng([seed, number, 8])
    light, taken = 0.1 + 0.05 * clouds(random, SIZE, 90)[..., None], np.zeros(SIZE, np.uint8)
    masks: list[np.ndarray] = []
    for _ in range(0 if empty_too and number % 8 == 3 else int(random.integers(8, 34))):
        place, radii = random.uniform((4, 4), (252, 188)), random.uniform(6, 13, 2)
        outline = blob(random, place, (radii[0], radii[1]), random.uniform(0, np.pi), 0.12)
        drawn = crisp(cover(SIZE, outline))
        if (drawn & taken).any():
            continue
        fill(light, outline, [random.uniform(0.4, 0.9)])
        masks.append(drawn)
        taken |= drawn
    color = rgb(_STAINS[random.integers(len(_STAINS))])
    return finish(np.clip(light, 0, 1) * color, random, 0.7, 4.0), masks


def organs(seed: int, patient: int, level: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draw a slice through a belly: uint16 (H, W), about 200 (air) to 2500, and a mask 0/1 (H, W) for each of ORGANS.

    `level` is 0 to SLICES - 1; slices of a patient change smoothly. The tumour grows in the liver and out of it, so
    that their masks overlap; the first and the last slices show none of the organs or some.
    """
    body, random = np.random.default_rng([seed, patient, 5]), np.random.default_rng([seed, patient, level, 6])
    height, middle = level / (SLICES - 1), np.array([128, 97]) + body.normal(0, 3, 2)
    picture, found = np.full((*SIZE, 1), 210, np.float32), dict.fromkeys(ORGANS, np.zeros(SIZE, np.float32))
    fill(picture, blob(body, middle, body.uniform((92, 62), (112, 78)), body.uniform(-0.15, 0.15), 0.05), [1010])
    for place in body.uniform((-76, -46), (76, 46), (7, 2)):  # what tells patients apart, and is no organ
        fill(picture, blob(body, middle + place, body.uniform(5, 20, 2), 0, 0.1), [body.uniform(700, 1350)])
    for name, place, radii, at, reach, value in _ANATOMY:
        size = np.sqrt(max(0.0, 1 - ((height - at + body.normal(0, 0.02)) / reach) ** 2))
        outline = blob(body, middle + place + body.normal(0, 3, 2), (radii[0] * size, radii[1] * size), 0, 0.1)
        covered = cover(SIZE, outline) * np.float32(size > 0.12)
        lay(picture, covered, [value])
        found[name] = np.maximum(found[name], covered)
    soft = cv2.GaussianBlur(picture, (0, 0), 0.9) + 55 * random.standard_normal(SIZE, np.float32)
    return np.clip(soft, 0, 4095).astype(np.uint16), {name: crisp(covered) for name, covered in found.items()}


def land(seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw fields from above: uint8 (H, W, 4), RGB and near infrared, and a class map, uint8 (H, W).

    Classes are indices of LAND; NOT_LABELED where a cloud hides the ground.
    """
    random = np.random.default_rng([seed, number, 4])
    texture, labels = 1 + 0.2 * clouds(random, SIZE, 20)[..., None], np.zeros(SIZE, np.uint8)
    picture = rgb(_GROUND["field"][2]) * texture
    for value, (count, radii, look) in enumerate(_GROUND.values()):
        for place in random.uniform((20, 20), (236, 172), (count, 2)):
            covered = cover(SIZE, blob(random, place, radii, random.uniform(0, np.pi), 0.3 if radii[1] > 20 else 0))
            lay(picture, covered, rgb(look) * texture)
            labels[covered >= 0.5] = value
    if random.random() < 0.5:
        cloud = cover(SIZE, blob(random, random.uniform((10, 10), (246, 182)), (36, 24), 0, 0.3))
        lay(picture, cloud, (238, 240, 244, 226))
        labels[cloud > 0] = NOT_LABELED
    return finish(picture, random, 0.45, 3.0), labels
