"""Rendered photographs of hands with the true masks of their fingernails.

Pure functions: the same seed and number give the same picture.
"""

from dataclasses import dataclass

import numpy as np

from scenes.brush import Random, blob, clouds, cover, crisp, fill, finish, lay, rgb, rotation, shade

SIZE = (192, 256)
KINDS = ("plain", "polished", "dark", "cluttered")
_TABLES = {"plain": (214, 214, 212), "polished": (186, 160, 140), "dark": (74, 70, 78), "cluttered": (150, 140, 128)}
_SKINS = ((233, 190, 160), (224, 172, 138), (198, 144, 108), (170, 116, 82))
_DARK_SKINS = ((116, 76, 54), (98, 62, 44), (132, 88, 64))
_POLISH = (
    (196, 22, 48), (232, 50, 130), (150, 20, 130), (250, 240, 244), (255, 120, 150), (30, 50, 220), (255, 130, 20),
)  # fmt: skip
_THINGS = ((60, 110, 90), (70, 90, 130), (120, 120, 60), (90, 90, 96))  # what else lies there


@dataclass(frozen=True)
class Finger:
    """A finger: its base, its direction in radians, its length and its width, in pixels."""

    base: np.ndarray
    direction: float
    length: float
    width: float

    def placed(self, outline: np.ndarray) -> np.ndarray:
        """Move points (along, across) of the finger to where they are in the picture."""
        return outline @ rotation(self.direction).T + self.base

    def light(self, edge: float) -> np.ndarray:
        """Light the finger as a cylinder, float32 (H, W, 1): about 1 along its middle, less by `edge` at its sides."""
        y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
        across = (y - self.base[1]) * np.cos(self.direction) - (x - self.base[0]) * np.sin(self.direction)
        return (1.05 - edge * np.clip(across * 2 / self.width, -1, 1) ** 2)[..., None].astype(np.float32)


def nails(seed: int, number: int, kind: str, person: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Draw a hand with fingernails: RGB uint8 (H, W, 3) and the nails' mask, 0/1 (H, W).

    `kind` is one of KINDS; pictures of one `person` share skin and polish (default: each is another person's).
    """
    random = np.random.default_rng([seed, number, KINDS.index(kind), 1])
    owner = np.random.default_rng([seed, number if person is None else person, KINDS.index(kind), 2])
    skin, nail = _looks(owner, kind)
    picture, mask = _table_top(random, kind), np.zeros(SIZE, np.float32)
    palm, *fingers = _fingers(random)
    _draw_finger(picture, palm, skin)
    for finger in fingers:
        mask *= 1 - _draw_finger(picture, finger, skin)
        np.maximum(mask, _draw_nail(picture, finger, skin, nail), out=mask)
    light, grain = (random.uniform(0.55, 0.8), 6.0) if kind == "dark" else (random.uniform(0.88, 1.05), 3.5)
    picture *= np.float32(light) * (1 + 0.1 * clouds(random, SIZE, 200, 1))[..., None]
    return finish(picture, random, 0.6, grain), crisp(mask)


def _looks(owner: Random, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Choose the colors of skin and nails: of polish, or a pale pink."""
    skins = _DARK_SKINS if kind == "dark" else _SKINS
    skin = rgb(skins[owner.integers(len(skins))]) * owner.uniform(0.95, 1.05)
    polish = rgb(_POLISH[owner.integers(len(_POLISH))])
    bare = 0.25 * skin + 0.75 * rgb((255, 214, 220))
    return skin, polish if kind == "polished" or (kind == "cluttered" and owner.random() < 0.4) else bare


def _table_top(random: Random, kind: str) -> np.ndarray:
    """Draw what the hand lies on, float32 (H, W, 3), with a few small things on it, or many."""
    color = np.clip(np.array(_TABLES[kind]) + random.normal(0, 10, 3), 20, 245)
    picture = rgb(color) + 6 * clouds(random, SIZE, 70)[..., None]
    for _ in range(14 if kind == "cluttered" else int(random.integers(0, 3))):
        place, size = random.uniform((0, 0), SIZE[::-1]), random.uniform(5, 11)
        covered = cover(SIZE, blob(random, place, (size, 0.7 * size), random.uniform(0, 3), 0.12))
        shade(picture, covered, 3.0, 0.4)
        lay(picture, covered, rgb(_THINGS[random.integers(len(_THINGS))]) * random.uniform(0.8, 1.2))
    return picture


def _fingers(random: Random) -> list[Finger]:
    """Place the hand's back, which comes from the picture's edge, then three or four fingers."""
    side, width, spread = random.uniform(0, 2 * np.pi), random.uniform(30, 37), random.uniform(0.05, 0.12)
    inward, across = np.array([np.cos(side), np.sin(side)]), np.array([-np.sin(side), np.cos(side)])
    palm = np.array(SIZE[::-1]) / 2 + random.uniform(-14, 14, 2) - inward * random.uniform(84, 98)
    fingers = [Finger(palm - inward * 60, side, 108.0, width * 4.2)]
    mirrored = random.choice([-1, 1])
    for place, length in enumerate((0.8, 0.97, 1.05, 0.92)[: int(random.integers(3, 5))]):
        step = mirrored * (place - 1.5)
        base = palm + across * step * width - inward * 12
        direction = side + step * spread + random.normal(0, 0.02)
        fingers.append(Finger(base, float(direction), length * random.uniform(104, 118), width))
    return fingers


def _draw_finger(picture: np.ndarray, finger: Finger, skin: np.ndarray) -> np.ndarray:
    """Draw a finger, round like a cylinder, with its shadow; returns its cover."""
    tip = finger.width / 2 * 0.86
    angle = np.linspace(-np.pi / 2, np.pi / 2, 17)
    end = np.stack([finger.length - tip + tip * np.cos(angle), tip * np.sin(angle)], axis=1)
    root = np.array([[-10, finger.width / 2], [-10, -finger.width / 2]])
    covered = cover(SIZE, finger.placed(np.concatenate([end, root])))
    shade(picture, covered, 5.0, 0.45)
    lay(picture, covered, np.clip(skin * finger.light(0.34), 0, 255))
    return covered


def _draw_nail(picture: np.ndarray, finger: Finger, skin: np.ndarray, color: np.ndarray) -> np.ndarray:
    """Draw the nail of a finger in the fold of its skin, with a gleam; returns its cover."""
    middle, half, reach = finger.length - finger.width * 0.36, finger.width * 0.33, finger.width * 0.42
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    outline = np.sign(circle) * np.abs(circle) ** 0.8 * (reach, half)
    fill(picture, finger.placed(outline * 1.12 + (middle - 1, 0)), skin * 0.66)
    covered = cover(SIZE, finger.placed(outline + (middle, 0)))
    lay(picture, covered, np.clip(color * finger.light(0.3), 0, 255))
    fill(picture, finger.placed(circle * (reach * 0.5, 1.2) + (middle, -half * 0.3)), (255, 255, 255), 0.4)
    return covered
