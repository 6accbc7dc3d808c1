"""Rendered land from above, with near infrared and a class map.

The same seed and number give the same picture.
"""

import cv2
import numpy as np

from scenes.brush import Random, band, blob, box, clouds, cover, crisp, fill, finish, lay, mesh, rotation, shade

SIZE = (192, 256)
LAND = ("field", "water", "forest", "road", "roof")
NOT_LABELLED = 255
# red, green, blue, near infrared
_CROPS = (
    (132, 150, 74, 168), (96, 132, 62, 186), (186, 172, 112, 118), (160, 130, 98, 92), (118, 146, 96, 176),
    (204, 190, 96, 150), (78, 110, 56, 196), (146, 118, 88, 84),
)  # fmt: skip
_ROOFS = ((172, 84, 62, 104), (150, 70, 58, 98), (120, 118, 122, 96), (188, 176, 164, 120), (92, 84, 86, 70))


def land(seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Fields from above: uint8 (H, W, 4), RGB and near infrared, and a class map, uint8 (H, W).

    Classes are indices of LAND; NOT_LABELLED where clouds or the strip's edge hide the ground.
    """
    random = np.random.default_rng([seed, number, 4])
    picture, labels = _fields(random), np.zeros(SIZE, np.uint8)
    _water(picture, labels, random)
    for _ in range(int(random.integers(1, 4))):
        _wood(picture, labels, random)
    roads = _roads(picture, labels, random)
    _houses(picture, labels, random, roads)
    picture *= (1 + 0.06 * clouds(random, SIZE, 120, 2))[..., None]
    _hidden(picture, labels, random)
    return finish(picture, random, 0.45, 3.0), labels


def _mark(labels: np.ndarray, covered: np.ndarray, value: int) -> None:
    labels[covered >= 0.5] = value


def _fields(random: Random) -> np.ndarray:
    """Plots of several crops with furrows and wheel tracks, float32 (H, W, 4)."""
    x, y = mesh(SIZE)
    turn = float(random.uniform(0, np.pi))
    bent = 5 * clouds(random, SIZE, 150, 1)
    u, v = x * np.cos(turn) + y * np.sin(turn) + bent, y * np.cos(turn) - x * np.sin(turn) + bent
    column = np.floor(u / random.uniform(52, 90))
    row = np.floor((v + 37 * column) / random.uniform(44, 110))
    plot = (column * 7 + row * 13).astype(int)
    plot -= plot.min()
    looks = random.integers(0, len(_CROPS), plot.max() + 1)
    picture = np.float32(_CROPS)[looks][plot] * random.uniform(0.88, 1.08, (plot.max() + 1, 4)).astype(np.float32)[plot]
    lengthways = (random.random(plot.max() + 1) < 0.5)[plot]
    across = np.where(lengthways, u, v)
    depth = random.uniform(0, 0.09, plot.max() + 1)[plot]
    furrows = depth * np.sin(across * 2.1) + 0.05 * clouds(random, SIZE, 14)
    tracks = 0.16 * ((across % 17 < 1) | ((across + 3) % 17 < 1)) * (depth > 0.05)
    picture *= (1 + furrows + tracks)[..., None].astype(np.float32)
    return picture


def _water(picture: np.ndarray, labels: np.ndarray, random: Random) -> None:
    """A river or a lake, or neither."""
    kind = random.random()
    if kind < 0.4:
        outline = band(_across(random, 26), random.uniform(9, 24))
    elif kind < 0.75:
        outline = blob(
            random, random.uniform((30, 30), (226, 162)), random.uniform(18, 48, 2), random.uniform(0, 3), 0.35
        )
    else:
        return
    covered = cover(SIZE, outline)
    shore = cover(SIZE, (outline - outline.mean(0)) * 1.05 + outline.mean(0)) if kind >= 0.4 else covered
    lay(picture, shore, (150, 140, 104, 110))
    deep = np.array([(34, 66, 86, 14), (62, 88, 78, 22), (26, 54, 60, 10)][random.integers(3)])
    lay(picture, covered, deep * (1 + 0.12 * clouds(random, SIZE, 30))[..., None])
    _mark(labels, covered, LAND.index("water"))


def _across(random: Random, sway: float) -> np.ndarray:
    """A smooth line (N, 2) from one side of the picture to another."""
    share = np.linspace(0, 1, 40)
    turn, middle = random.uniform(0, np.pi), random.uniform((70, 50), (186, 142))
    side = sway * np.sin(share * random.uniform(3, 8) + random.uniform(0, 6)) * random.uniform(0.2, 1)
    return np.stack([(share - 0.5) * 420, side], axis=1) @ rotation(turn).T + middle


def _wood(picture: np.ndarray, labels: np.ndarray, random: Random) -> None:
    """A wood of single crowns, each lit from the upper left."""
    edge = blob(random, random.uniform((0, 0), SIZE[::-1]), random.uniform(24, 62, 2), random.uniform(0, 3), 0.4)
    inside = crisp(cover(SIZE, edge)) & (labels == 0)
    spots = np.argwhere(inside)[:, ::-1]
    if not len(spots):
        return
    green = np.float32([(52, 82, 44, 168), (66, 92, 48, 186), (44, 70, 50, 146)][random.integers(3)])
    covered, tone = _crowns(random, spots[random.integers(0, len(spots), len(spots) // 34 + 4)])
    free = labels == 0
    whole = np.maximum(covered, inside) * free
    shade(picture, whole, (3, 3), 1.5, 0.5)
    lay(picture, whole, green * 0.66)
    lay(picture, covered * free, green * tone[..., None])
    _mark(labels, whole, LAND.index("forest"))


def _crowns(random: Random, spots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round crowns at the spots (N, 2): their cover and their brightness, about 1; float32 (H, W) each."""
    fine = [np.zeros((SIZE[0] * 3, SIZE[1] * 3), np.uint8) for _ in range(2)]
    sizes, tones = random.uniform(9, 18, len(spots)).tolist(), random.uniform(75, 115, len(spots)).tolist()
    for twice in random.integers(-4, 5, (2, len(spots), 2)):  # two discs make a crown that is not quite round
        for (x, y), size, tone in zip((spots * 3 + twice).tolist(), sizes, tones, strict=True):
            cv2.circle(fine[0], (x, y), int(size), 255, -1)
            cv2.circle(fine[1], (x, y), int(size), tone, -1)
            cv2.circle(fine[1], (x - 3, y - 3), int(size * 0.55), tone * 1.3, -1)
    covered, light = (cv2.resize(part, SIZE[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) for part in fine)
    return covered / 255, light / 100 / np.maximum(covered / 255, 0.05)


def _roads(picture: np.ndarray, labels: np.ndarray, random: Random) -> list[np.ndarray]:
    """One or two roads with a line and cars; returns their middles (N, 2)."""
    lines = [_across(random, 12) for _ in range(int(random.integers(1, 3)))]
    widths = [random.uniform(5.5, 9.5) for _ in lines]
    grey = np.float32([(138, 136, 134, 112), (110, 110, 114, 92), (176, 164, 142, 128)][random.integers(3)])
    for line, width in zip(lines, widths, strict=True):
        fill(picture, band(line, width + 3), (150, 146, 110, 130), 0.6)
    for line, width in zip(lines, widths, strict=True):
        covered = cover(SIZE, band(line, width))
        lay(picture, covered, grey * (1 + 0.05 * clouds(random, SIZE, 8))[..., None])
        fill(picture, band(line, 0.8), (225, 222, 214, 190), 0.5)
        _mark(labels, covered, LAND.index("road"))
        for at in random.integers(2, len(line) - 2, 3):
            along = line[at + 1] - line[at]
            turn = np.arctan2(along[1], along[0])
            car = box(-2.6, -1.3, 2.6, 1.3, 0.8) @ rotation(turn).T + line[at] + rotation(turn) @ (0, width / 4)
            fill(picture, car, random.uniform(30, 250) + random.uniform(-30, 30, 4))
    return lines


def _houses(picture: np.ndarray, labels: np.ndarray, random: Random, roads: list[np.ndarray]) -> None:
    """Houses with gable roofs along the roads, each with its shadow."""
    for _ in range(int(random.integers(5, 16))):
        line = roads[int(random.integers(len(roads)))]
        at = int(random.integers(4, len(line) - 4))
        along = line[at + 1] - line[at]
        turn = np.arctan2(along[1], along[0])
        long, wide = random.uniform(6, 11), random.uniform(4, 6.5)
        centre = line[at] + rotation(turn) @ (random.uniform(-4, 4), random.choice([-1, 1]) * random.uniform(14, 22))
        place = rotation(turn + random.normal(0, 0.06)).T
        outline = cover(SIZE, box(-long, -wide, long, wide) @ place + centre)
        if (labels[outline > 0] != 0).any():  # on a road, in water or on another house
            continue
        colour = np.float32(_ROOFS[random.integers(len(_ROOFS))]) * random.uniform(0.9, 1.1)
        shade(picture, outline, (3, 3), 0.8, 0.55)
        lay(picture, outline, colour)
        fill(picture, box(-long, 0, long, wide) @ place + centre, colour * 0.72)
        if random.random() < 0.4:
            fill(picture, box(-long * 0.5, -wide * 0.7, long * 0.2, -wide * 0.3) @ place + centre, (40, 48, 70, 40))
        _mark(labels, outline, LAND.index("roof"))


def _hidden(picture: np.ndarray, labels: np.ndarray, random: Random) -> None:
    """What nobody could label: a cloud, and the black edge of the strip."""
    if random.random() < 0.5:
        cloud = blob(random, random.uniform((10, 10), (246, 182)), random.uniform(18, 42, 2), random.uniform(0, 3), 0.4)
        core = cv2.GaussianBlur(cover(SIZE, cloud), (0, 0), 5)
        soft = np.clip(1.5 * core - 0.3 + 0.35 * clouds(random, SIZE, 20, 4) * (core > 0.05), 0, 0.96)
        shade(picture, soft, (14, 14), 8.0, 0.35)
        lay(picture, soft, (238, 240, 244, 226))
        labels[soft > 0.2] = NOT_LABELLED
    if random.random() < 0.5:
        slant, reach = random.uniform(-12, 12), random.uniform(8, 24)
        left = random.random() < 0.5
        edge = np.array([(-1, -1), (reach + slant, -1), (reach - slant, 193), (-1, 193)])
        covered = cover(SIZE, edge if left else np.array([255, 0]) - edge * (1, -1))
        lay(picture, covered, (0, 0, 0, 0))
        labels[covered > 0] = NOT_LABELLED
