"""Rendered photographs of hands with the true masks of their fingernails.

Pure functions: the same seed and number give the same picture.
"""

import numpy as np

from scenes.brush import Random, band, blob, clouds, cover, crisp, fill, finish, lay, mesh, near, rotation, shade

SIZE = (192, 256)
KINDS = ("plain", "polished", "dark", "cluttered")
Finger = tuple[np.ndarray, float, float, float]  # base, direction in radians, length, width at the base
_SKINS = ((241, 204, 178), (228, 180, 148), (205, 152, 116), (172, 120, 86))
_DARK_SKINS = ((112, 72, 50), (92, 58, 42), (128, 84, 60))
_POLISH = (
    (196, 22, 48), (232, 70, 130), (120, 30, 110), (24, 96, 170), (16, 130, 112), (240, 120, 40), (30, 30, 36),
    (226, 190, 60), (240, 236, 232),
)  # fmt: skip


def nails(seed: int, number: int, kind: str, person: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A hand with fingernails: RGB uint8 (H, W, 3) and the nails' mask, 0/1 (H, W).

    `kind` is one of KINDS; pictures of one `person` share skin and polish (default: each is another person's).
    """
    random = np.random.default_rng([seed, number, KINDS.index(kind), 1])
    owner = np.random.default_rng([seed, number if person is None else person, KINDS.index(kind), 2])
    skins = _DARK_SKINS if kind == "dark" else _SKINS
    skin = (np.array(skins[owner.integers(len(skins))]) * owner.uniform(0.93, 1.05, 3)).astype(np.float32)
    painted = kind == "polished" or (kind == "cluttered" and owner.random() < 0.4)
    polish = np.array(_POLISH[owner.integers(len(_POLISH))], np.float32) if painted else None
    long = float(owner.uniform(1.15, 1.5) if painted else owner.uniform(0.95, 1.15))
    picture, mask = _table_top(random, kind), np.zeros(SIZE, np.float32)
    palm = np.zeros(SIZE, np.float32)
    for finger in _fingers(random):
        part, moved = _moved(finger)
        covered = _draw_finger(picture[part], random, moved, skin, palm[part])
        mask[part] *= 1 - covered
        if not palm.any():  # the hand's back comes first and has no nail
            palm[part] = covered
            continue
        nail = _draw_nail(picture[part], moved, skin, polish, long)
        np.maximum(mask[part], nail, out=mask[part])
    _light(picture, random, kind)
    return finish(picture, random, 0.6, 9.0 if kind == "dark" else 3.5), crisp(mask)


def _table_top(random: Random, kind: str) -> np.ndarray:
    """What the hand lies on, float32 (H, W, 3): paper, wood or cloth, dark cloth, or a table full of small things."""
    x, y = mesh(SIZE)
    base = {"plain": (214, 214, 212), "polished": (186, 160, 140), "dark": (74, 70, 78), "cluttered": (150, 140, 128)}
    colour = np.clip(np.array(base[kind]) + random.normal(0, 13, 3) + random.normal(0, 10), 20, 245)
    turn = float(random.uniform(0, np.pi))
    cosine, sine = float(np.cos(turn)), float(np.sin(turn))
    along, across = x * cosine + y * sine, y * cosine - x * sine
    texture = 6 * clouds(random, SIZE, 70)
    if kind in ("polished", "dark") and random.random() < 0.5:  # the grain of wood
        texture += 14 * np.sin(across / 5 + 3 * clouds(random, SIZE, 120, 2) + along / 60)
    elif kind != "plain":  # a weave
        texture += 7 * np.sign(np.sin(along * 0.9)) * np.sign(np.sin(across * 0.9))
    picture = (colour + texture[..., None]).astype(np.float32)
    for _ in range(int(random.integers(18, 32)) if kind == "cluttered" else int(random.integers(0, 3))):
        _draw_thing(picture, random)
    return picture


def _draw_thing(picture: np.ndarray, random: Random) -> None:
    """A petal, bead or pen: as large and as bright as a nail, but none."""
    centre, colour = random.uniform((0, 0), SIZE[::-1]), np.array(_POLISH[random.integers(len(_POLISH))])
    size, turn = random.uniform(5, 13), random.uniform(0, np.pi)
    if random.random() < 0.2:
        reach = rotation(turn) @ np.array([random.uniform(30, 60), 0])
        outline = band(np.linspace(centre - reach, centre + reach, 9), size * 0.6)
    else:
        outline = blob(random, centre, (size, size * random.uniform(0.45, 1)), turn, 0.12)
    covered = cover(SIZE, outline)
    shade(picture, covered, (2, 3), 2.0, 0.4)
    lay(picture, covered, colour * random.uniform(0.6, 1))
    fill(picture, blob(random, centre - size * 0.25, (size * 0.3, size * 0.2)), (255, 255, 255), 0.5)


def _fingers(random: Random) -> list[Finger]:
    """The hand's back, then three or four fingers."""
    side = random.uniform(0, 2 * np.pi)
    width = random.uniform(25, 33)
    inward = np.array([np.cos(side), np.sin(side)])
    palm = np.array(SIZE[::-1]) / 2 + random.uniform(-14, 14, 2) - inward * random.uniform(88, 104)
    lengths = np.array([0.78, 0.97, 1.05, 0.92]) * random.uniform(96, 112)
    spread, bend = random.uniform(0.07, 0.17), random.uniform(-0.1, 0.1)
    mirrored = 1 if random.random() < 0.5 else -1
    across = np.array([-inward[1], inward[0]]) * mirrored
    fingers = [(palm - inward * 60, side, 86.0, width * 4.0)]
    for place, length in enumerate(lengths[: int(random.integers(3, 5))]):
        step = place - 1.5
        direction = side + mirrored * (step * spread + bend + random.normal(0, 0.02))
        fingers.append(
            (
                palm + across * step * width * 0.98 - inward * 12,
                direction,
                float(length) + 12,
                width * (0.86 if place == 0 else 1),
            )
        )
    return fingers


def _moved(finger: Finger) -> tuple[tuple[slice, slice], Finger]:
    """The part of the picture that a finger and its shadow lie in, and the finger in that part's pixels."""
    base, direction, length, width = finger
    ends = np.stack([base, base + (length + width / 2) * np.array([np.cos(direction), np.sin(direction)])])
    part, low = near(ends, width / 2 + 12)
    return part, (base - low, direction, length, width)


def _frame(finger: Finger, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Of each pixel: pixels along the finger from its base, and half widths across it; float32 (H, W) each."""
    base, direction, length, width = finger
    x, y = mesh(shape)
    x, y, cosine, sine = x - float(base[0]), y - float(base[1]), float(np.cos(direction)), float(np.sin(direction))
    along, across = x * cosine + y * sine, y * cosine - x * sine
    half = width / 2 * (1 - 0.22 * np.clip(along / length, 0, 1))
    return along, across / half


def _placed(finger: Finger, outline: np.ndarray) -> np.ndarray:
    """Points (along, across) of a finger in the picture."""
    return outline @ rotation(finger[1]).T + finger[0]


def _draw_finger(picture: np.ndarray, random: Random, finger: Finger, skin: np.ndarray, palm: np.ndarray) -> np.ndarray:
    """Draw a finger, round like a cylinder, with its shadow, growing out of the palm's cover; returns its cover."""
    length, width = finger[2:]
    tip = width / 2 * 0.78
    angle = np.linspace(-np.pi / 2, np.pi / 2, 17)
    end = np.stack([length - tip + tip * 1.15 * np.cos(angle), tip * np.sin(angle)], axis=1)
    knuckle = 1 + 0.05 * np.sin(np.linspace(0, 3 * np.pi, 12))
    side = np.stack([np.linspace(-10, length - tip, 12), np.linspace(width / 2, tip, 12) * knuckle], axis=1)
    covered = cover(picture.shape[:2], _placed(finger, np.concatenate([side * (1, -1), end, side[::-1]])))
    along, across = _frame(finger, picture.shape[:2])
    covered *= 1 - palm * np.clip(1 - (along / length - 0.05) / 0.25, 0, 1)
    light = 1.06 - 0.34 * (across - 0.12) ** 2 - 0.1 * np.clip((along - length + tip) / tip, 0, 1) ** 2
    for joint in (0.36, 0.66) if palm.any() else ():
        near = along / length - joint - 0.015 * across**2
        creases = np.clip(1 - (near / 0.03) ** 2, 0, 1) * (0.5 + 0.5 * np.cos(near * 240))
        light -= 0.10 * creases * np.clip(1 - across**2, 0, 1)
    light += 0.025 * clouds(random, picture.shape[:2], 16)
    red = np.clip((along / length - 0.75) * 4, 0, 1)[..., None] * np.float32([0.03, -0.07, -0.08])
    shade(picture, covered, (3, 5), 5.0, 0.45)
    lay(picture, covered, np.clip(skin * (1 + red) * light[..., None], 0, 255))
    return covered


def _draw_nail(
    picture: np.ndarray, finger: Finger, skin: np.ndarray, polish: np.ndarray | None, long: float
) -> np.ndarray:
    """Draw the nail of a finger, in polish or bare with its half moon and white edge; returns its cover."""
    length, width = finger[2:]
    half, reach = width * 0.285, width * 0.72 * long
    start = length - width * 0.74
    angle = np.linspace(-np.pi / 2, np.pi / 2, 15)
    front = np.stack([start + reach - half * 0.7 + half * 0.7 * np.cos(angle) ** 0.8, half * np.sin(angle)], axis=1)
    back = np.stack([start + half * 0.8 - half * 0.8 * np.cos(angle), -half * np.sin(angle)], axis=1)
    outline = np.concatenate([front, back])
    middle = np.array([start + reach / 2, 0])
    covered = cover(picture.shape[:2], _placed(finger, outline))
    fold = cover(picture.shape[:2], _placed(finger, (outline - middle) * (1.10, 1.22) + middle - (0.6, 0)))
    along, across = _frame(finger, picture.shape[:2])
    lay(picture, fold * (along < start + reach * 0.72), skin * (0.80, 0.68, 0.66))
    share = (along - start) / reach
    bare = 0.55 * skin + 0.45 * np.float32([246, 196, 190]) * (0.45 + 0.55 * float(skin.mean()) / 200)
    colour = np.broadcast_to(bare if polish is None else polish, picture.shape).copy()
    if polish is None:
        white = np.minimum(1.35 * bare + 12, 250)
        colour += np.clip((share - 0.86) / 0.04, 0, 1)[..., None] * (white - bare)
        moon = np.clip(1.5 - (share**2 / 0.045 + across**2 / 0.12), 0, 1)[..., None] * 0.5
        colour += moon * (white - colour)
    gloss = np.exp(-(((across + 0.2) / 0.1) ** 2)) * np.clip(4 * share * (0.95 - share), 0, 1)
    strength = 0.32 if polish is None else 0.65
    colour = colour * (1.05 - 0.9 * across**2)[..., None]
    colour += strength * gloss[..., None] * (255 * min(1.0, 0.35 + float(skin.mean()) / 200) - colour)
    lay(picture, covered, np.clip(colour, 0, 255))
    return covered


def _light(picture: np.ndarray, random: Random, kind: str) -> None:
    """Uneven light and white balance, and little of it where it is dark."""
    x, y = mesh(SIZE)
    turn = random.uniform(0, 2 * np.pi)
    slope = ((x / SIZE[1] - 0.5) * np.cos(turn) + (y / SIZE[0] - 0.5) * np.sin(turn)) * random.uniform(0.1, 0.45)
    low, high = (0.42, 0.72) if kind == "dark" else (0.85, 1.08)
    warmth = random.normal(0, 0.04)
    tint = np.array([1 + warmth, 1, 1 - warmth]) * random.uniform(low, high)
    picture *= ((1 + slope)[..., None] * tint).astype(np.float32)
