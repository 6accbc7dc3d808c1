"""Rendered game screenshots with the true mask of their user interface: bars, panels, slots, buttons, map and text.

The same seed and number give the same picture.
"""

import cv2
import numpy as np

from scenes.brush import Color, Random, blob, box, clouds, cover, crisp, fill, finish, lay, rgb

SIZE = (180, 320)
_WORDS = ("QUEST", "LEVEL 7", "GOLD 340", "MENU", "MAP", "PLAY", "SCORE", "ITEMS", "X2", "SAVE", "HP", "TIME 42", "BAG")
_SPEECH = ("THE KING TOLD YOU TO FIND OUR LOST SWORD", "GO WITH HIM AND BRING TWELVE GEMS BEFORE DAWN", "NOT NOW")
# panel, its edge, text, and the bars' two colors
_THEMES = (
    ((26, 30, 44), (196, 164, 92), (246, 232, 196), (200, 40, 44), (50, 100, 210)),
    ((232, 220, 190), (120, 84, 50), (70, 44, 26), (214, 66, 50), (76, 160, 60)),
    ((12, 44, 58), (80, 220, 230), (196, 250, 250), (240, 120, 40), (70, 220, 180)),
    ((64, 36, 88), (240, 130, 200), (255, 236, 250), (250, 80, 130), (90, 190, 250)),
    ((54, 58, 60), (20, 22, 24), (240, 240, 236), (96, 190, 60), (236, 190, 50)),
)
_PLACES = (  # sky above, sky below, ground
    ((92, 160, 226), (200, 226, 240), (70, 120, 60)), ((60, 44, 96), (250, 150, 100), (120, 110, 50)),
    ((8, 8, 22), (40, 24, 76), (90, 84, 96)), ((60, 54, 50), (110, 92, 74), (84, 92, 104)),
)  # fmt: skip


def screen(seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a screenshot of a game: RGB uint8 (H, W, 3) and the mask of its user interface, 0/1 (H, W)."""
    random = np.random.default_rng([seed, number, 3])
    picture = _scenery(random)
    for _ in range(int(random.integers(1, 5))):
        _creature(picture, random)
    interface = _Interface(finish(picture, random, 0.5, 2.0).astype(np.float32), random)
    interface.draw()
    return finish(interface.picture, random, 0, 0.6), crisp(interface.mask)


def _scenery(random: Random) -> np.ndarray:
    """Draw ranges of hills below a sky, by day or night, or rocks in a cave: float32 (H, W, 3)."""
    top, bottom, ground = (rgb(color) for color in _PLACES[random.integers(len(_PLACES))])
    share = np.linspace(0, 1, SIZE[0], dtype=np.float32)[:, None, None]
    picture = np.broadcast_to(top * (1 - share) + bottom * share, (*SIZE, 3)).copy()
    lay(picture, np.clip(clouds(random, SIZE, 60, 4) * 1.4 - 0.4, 0, 0.8), 0.5 * bottom + 126)
    x = np.arange(-8, SIZE[1] + 9, 4.0)
    for depth, height in enumerate(np.linspace(0.48, 0.86, 4)):
        waves = sum(random.normal(0, 7) * np.sin(x / random.uniform(14, 60) + random.uniform(0, 6)) for _ in range(3))
        hill = np.concatenate([np.stack([x, height * SIZE[0] + waves], axis=1), [[340, 200], [-20, 200]]])
        color = bottom * (0.75 - 0.25 * depth) + ground * (0.25 + 0.25 * depth)
        fill(picture, hill, color + 6 * (1 + depth) * clouds(random, SIZE, 12, 2)[..., None])
    return picture


def _creature(picture: np.ndarray, random: Random) -> None:
    """Draw a round creature with eyes: bright and sharp as the interface, but none of it."""
    place, size = random.uniform((40, 100), (280, 140)), random.uniform(6, 13)
    fill(picture, blob(random, place, (size, size * 1.1)), (24, 20, 26))
    fill(picture, blob(random, place, (size - 1.2, size * 1.1 - 1.2)), random.uniform(60, 250, 3))
    for side in (-0.4, 0.4):
        eye = place + (side * size, -0.35 * size)
        fill(picture, blob(random, eye, (size * 0.26, size * 0.32)), (255, 255, 255))
        fill(picture, blob(random, eye + (0.6, 0.4), (size * 0.13, size * 0.16)), (10, 10, 10))


class _Interface:
    """Draws a game's interface over a picture and notes what it covers in `mask`."""

    def __init__(self, picture: np.ndarray, random: Random) -> None:
        self.picture, self.random, self.mask = picture, random, np.zeros(SIZE, np.float32)
        theme = _THEMES[random.integers(len(_THEMES))]
        self.panel, self.edge, self.ink, *self.bars = (rgb(part) for part in theme)
        self.radius, self.opacity = float(random.choice([0, 3, 6])), float(random.uniform(0.72, 1))

    def draw(self) -> None:
        """Draw one interface: always bars and slots, buttons or a bottom panel, and some of the rest."""
        random = self.random
        margin, mirrored = int(random.integers(4, 10)), random.random() < 0.3
        self._status(SIZE[1] - 96 - margin if mirrored else margin, margin)
        if random.random() < 0.75:
            self._map(margin if mirrored else SIZE[1] - 44 - margin, margin)
        (self._slots, self._dialogue, self._buttons)[int(random.integers(3))](margin)
        if random.random() < 0.5:
            self._list(margin if random.random() < 0.5 else SIZE[1] - 78 - margin, 68, int(random.integers(3, 6)))
        if random.random() < 0.6:
            self._list(SIZE[1] // 2 - 39, margin, 1)

    def _put(self, outline: np.ndarray, color: Color, opacity: float = 1.0) -> None:
        covered = cover(SIZE, outline)
        lay(self.picture, opacity * covered, color)
        np.maximum(self.mask, covered, out=self.mask)

    def _framed(self, left: float, top: float, width: float, height: float) -> None:
        self._put(box(left - 0.5, top - 0.5, left + width - 0.5, top + height - 0.5, self.radius), self.edge)
        inner = box(left + 1, top + 1, left + width - 2, top + height - 2, max(0, self.radius - 1.5))
        fill(self.picture, inner, self.panel, self.opacity)

    def _text(self, left: int, top: int, text: str = "") -> None:
        word = text or _WORDS[self.random.integers(len(_WORDS))]
        dots = cv2.putText(np.zeros(SIZE, np.uint8), word, (left, top + 7), cv2.FONT_HERSHEY_PLAIN, 0.6, 255)
        lay(self.picture, dots / np.float32(255), self.ink)

    def _list(self, left: int, top: int, rows: int) -> None:
        """Draw a panel with words in it."""
        self._framed(left, top, 78, 5 + rows * 9)
        for row in range(rows):
            self._text(left + 6 + 8 * (row > 0), top + 3 + row * 9)

    def _status(self, left: int, top: int) -> None:
        """Draw a portrait with two bars beside it."""
        self._framed(left, top, 26, 26)
        self._put(blob(self.random, (left + 12.5, top + 17), (8, 7)), self.bars[1])
        self._put(blob(self.random, (left + 12.5, top + 10), (5, 5.5)), (236, 196, 160))
        for row, color in enumerate(self.bars):
            y, full = top + 2 + 12 * row, float(self.random.uniform(0.2, 1))
            self._framed(left + 28, y, 66, 9)
            self._put(box(left + 30, y + 1.5, left + 30 + 61 * full, y + 6.5), color)

    def _map(self, left: int, top: int) -> None:
        self._framed(left, top, 44, 44)
        land = np.where(clouds(self.random, SIZE, 18)[..., None] > 0.1, rgb((110, 150, 80)), (80, 120, 170))
        self._put(box(left + 2, top + 2, left + 41, top + 41, max(0, self.radius - 2)), land)

    def _slots(self, margin: int) -> None:
        """Draw a row of slots with things in them."""
        count, side = int(self.random.integers(5, 9)), int(self.random.integers(19, 25))
        for place in range(count):
            x, y = (SIZE[1] - count * (side + 2)) // 2 + place * (side + 2), SIZE[0] - side - margin
            self._framed(x, y, side, side)
            shape = blob(self.random, (x + side / 2, y + side / 2), (side * 0.3, side * 0.22), place, 0.2)
            self._put(shape, self.random.uniform(60, 250, 3))

    def _dialogue(self, margin: int) -> None:
        """Draw a wide panel of text at the bottom."""
        self._framed(24, SIZE[0] - 42 - margin, SIZE[1] - 48, 42)
        for row, line in enumerate(_SPEECH):
            self._text(32, SIZE[0] - 36 - margin + row * 11, line)

    def _buttons(self, margin: int) -> None:
        """Draw a phone's round buttons at the right and its stick at the left."""
        for place in range(int(self.random.integers(2, 5))):
            angle = np.pi * (0.95 + 0.2 * place)
            center = (SIZE[1] - 26 - margin + 30 * np.cos(angle), SIZE[0] - 26 - margin + 30 * np.sin(angle))
            self._put(blob(self.random, center, (11, 11)), self.edge)
            self._put(blob(self.random, center, (9.5, 9.5)), self.bars[place % 2])
        for radius, color in ((26, self.panel), (12, self.edge)):
            self._put(blob(self.random, (34 + margin, SIZE[0] - 34 - margin), (radius, radius)), color, self.opacity)
