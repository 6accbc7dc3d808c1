"""Rendered game screenshots with the true mask of their user interface: bars, panels, slots, buttons, map and text.

The same seed and number give the same picture.
"""

import numpy as np

from scenes import scenery
from scenes.brush import Colour, Random, blob, box, clouds, cover, crisp, fill, finish, lay, mesh
from scenes.scenery import SIZE

# A font of 3 x 5 dots: each character's five rows from the top, a row's dots as the bits of an octal digit.
_FONT = dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", """
    25755 65656 34443 65556 74647 74644 34553 55755 72227 11152 55655 44447 57755 65555 25552 65644 25563 65655 34216
    72222 55557 55552 55775 55255 55222 71247 75557 26227 71747 71717 55711 74717 74757 71122 75757 75717
    """.split(), strict=True))  # fmt: skip  # noqa: SIM905
_WORDS = ("QUEST", "LEVEL 7", "GOLD 340", "MENU", "MAP", "PLAY", "SCORE", "ITEMS", "X2", "SAVE", "HP", "TIME 42", "BAG")
_SPEECH = "THE A KING TOLD YOU TO FIND OUR LOST SWORD UNDER TOWER BEFORE DAWN GO WITH HIM BRING 12 GEMS".split()  # noqa: SIM905
# panel, its edge, text, and the bars' two colours
_THEMES = (
    ((26, 30, 44), (196, 164, 92), (246, 232, 196), (200, 40, 44), (50, 100, 210)),
    ((232, 220, 190), (120, 84, 50), (70, 44, 26), (214, 66, 50), (76, 160, 60)),
    ((12, 44, 58), (80, 220, 230), (196, 250, 250), (240, 120, 40), (70, 220, 180)),
    ((64, 36, 88), (240, 130, 200), (255, 236, 250), (250, 80, 130), (90, 190, 250)),
    ((54, 58, 60), (20, 22, 24), (240, 240, 236), (96, 190, 60), (236, 190, 50)),
)


def screen(seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """A screenshot of a game: RGB uint8 (H, W, 3) and the mask of its user interface, 0/1 (H, W)."""
    random = np.random.default_rng([seed, number, 3])
    picture = (scenery.hills, scenery.dungeon, scenery.space)[int(random.integers(3))](random)
    for _ in range(int(random.integers(1, 5))):
        scenery.creature(picture, random)
    picture = finish(picture, random, 0.5, 2.0).astype(np.float32)
    interface = _Interface(picture, random)
    interface.draw()
    return finish(picture, random, 0, 0.6), crisp(interface.mask)


class _Interface:
    """Draws a game's interface over a picture and notes what it covers in `mask`."""

    def __init__(self, picture: np.ndarray, random: Random) -> None:
        self.picture, self.random, self.mask = picture, random, np.zeros(SIZE, np.float32)
        self.panel, self.edge, self.ink, *self.bars = (
            np.float32(part) for part in _THEMES[random.integers(len(_THEMES))]
        )
        self.radius = float(random.choice([0, 3, 6]))
        self.opacity = float(random.uniform(0.72, 1))

    def draw(self) -> None:
        """One interface: always bars and slots or a bottom panel, and some of the rest."""
        random = self.random
        margin = int(random.integers(4, 10))
        mirrored = random.random() < 0.3
        self._status(SIZE[1] - 96 - margin if mirrored else margin, margin)
        if random.random() < 0.75:
            self._map(margin + 22 if mirrored else SIZE[1] - 22 - margin, margin + 22, round_one=random.random() < 0.5)
        (self._slots, self._dialogue, self._buttons)[int(random.integers(3))](margin)
        if random.random() < 0.5:
            self._window(margin, 66) if random.random() < 0.5 else self._window(SIZE[1] - 78 - margin, 70)
        if random.random() < 0.6:
            self._plate(SIZE[1] // 2 - 34, margin, 68, 13, self._word())

    def _put(self, outline: np.ndarray, colour: Colour, opacity: float = 1.0) -> None:
        covered = cover(SIZE, outline)
        lay(self.picture, opacity * covered, colour)
        np.maximum(self.mask, covered, out=self.mask)

    def _framed(self, left: float, top: float, width: float, height: float, radius: float | None = None) -> None:
        radius = self.radius if radius is None else radius
        outer = box(left - 0.5, top - 0.5, left + width - 0.5, top + height - 0.5, radius)
        inner = box(left + 1, top + 1, left + width - 2, top + height - 2, max(0, radius - 1.5))
        rise = 14 * (0.5 - (mesh(SIZE)[1][:, :1] - top) / height)[..., None]  # lighter at the top
        self._put(outer, self.edge)
        fill(self.picture, inner, np.broadcast_to(np.clip(self.panel + rise, 0, 255), self.picture.shape), self.opacity)

    def _text(self, left: int, top: int, text: str, size: int = 1) -> None:
        for place, letter in enumerate(text):
            for row, digit in enumerate(_FONT.get(letter, "")):
                for column in range(3):
                    if int(digit, 8) >> (2 - column) & 1:
                        y, x = top + row * size, left + (place * 4 + column) * size
                        self.picture[y : y + size, x : x + size] = self.ink

    def _word(self) -> str:
        return _WORDS[self.random.integers(len(_WORDS))]

    def _plate(self, left: int, top: int, width: int, height: int, text: str, size: int = 1) -> None:
        """A panel with a word in its middle."""
        self._framed(left, top, width, height)
        self._text(left + (width - len(text) * 4 * size) // 2 + 1, top + (height - 5 * size) // 2, text, size)

    def _status(self, left: int, top: int) -> None:
        """A portrait with two bars beside it."""
        self._framed(left, top, 26, 26)
        self._put(blob(self.random, (left + 12.5, top + 17), (8, 7)), self.bars[1])
        self._put(blob(self.random, (left + 12.5, top + 10), (5, 5.5)), (236, 196, 160))
        for row, colour in enumerate(self.bars):
            y, full = top + 2 + 12 * row, float(self.random.uniform(0.2, 1))
            self._framed(left + 28, y, 66, 9, 2)
            self._put(box(left + 30, y + 1.5, left + 30 + 61 * full, y + 6.5), colour)
            self._put(box(left + 30, y + 1.5, left + 30 + 61 * full, y + 3), colour * 0.6 + 100)

    def _map(self, x: int, y: int, round_one: bool) -> None:
        self._framed(x - 22, y - 22, 44, 44, 22 if round_one else self.radius)
        height = clouds(self.random, (40, 40), 18)[..., None]
        land = np.zeros_like(self.picture)
        land[y - 20 : y + 20, x - 20 : x + 20] = np.where(height > 0.1, (110, 150, 80), (80, 120, 170)) + 30 * height
        self._put(box(x - 19.5, y - 19.5, x + 18.5, y + 18.5, 19 if round_one else max(0, self.radius - 2)), land)
        for place in self.random.uniform(-12, 12, (4, 2)):
            self._put(blob(self.random, (x, y) + place, (1.7, 1.7)), self.bars[0])

    def _slots(self, margin: int) -> None:
        """A row of slots with things in them."""
        count, side = int(self.random.integers(5, 9)), int(self.random.integers(19, 25))
        left = (SIZE[1] - count * (side + 2)) // 2
        for place in range(count):
            x, y = left + place * (side + 2), SIZE[0] - side - margin
            self._framed(x, y, side, side)
            if self.random.random() < 0.75:
                shape = blob(
                    self.random,
                    (x + side / 2 - 0.5, y + side / 2 - 0.5),
                    (side * 0.3, side * 0.22),
                    self.random.uniform(0, 3),
                    0.2,
                )
                self._put(shape, self.random.uniform(60, 250, 3))
            self._text(x + 3, y + 3, str(place + 1))

    def _dialogue(self, margin: int) -> None:
        """A wide panel of text at the bottom, with a button in it."""
        height = int(self.random.integers(38, 52))
        top = SIZE[0] - height - margin
        self._framed(24, top, SIZE[1] - 48, height)
        for row in range((height - 12) // 8):
            words = self.random.choice(_SPEECH, int(self.random.integers(6, 10)))
            self._text(32, top + 7 + row * 8, " ".join(words)[:52])
        self._plate(SIZE[1] - 66, top + height - 16, 36, 12, "OK")

    def _buttons(self, margin: int) -> None:
        """A phone's round buttons at the right and its stick at the left."""
        for place in range(int(self.random.integers(2, 5))):
            angle, radius = np.pi * (0.95 + 0.2 * place), 11.0
            centre = np.array([SIZE[1] - 26 - margin, SIZE[0] - 26 - margin]) + 30 * np.array(
                [np.cos(angle), np.sin(angle)]
            )
            self._put(blob(self.random, centre, (radius, radius)), self.edge)
            self._put(blob(self.random, centre, (radius - 1.5, radius - 1.5)), self.bars[place % 2])
            self._text(int(centre[0]) - 3, int(centre[1]) - 4, "ABXY"[place], 2)
        centre = np.array([34 + margin, SIZE[0] - 34 - margin])
        for radius, colour in ((26, self.panel), (12, self.edge)):
            self._put(blob(self.random, centre, (radius, radius)), colour, self.opacity)

    def _window(self, left: int, top: int) -> None:
        """A list: a heading and some lines."""
        rows = int(self.random.integers(2, 5))
        self._framed(left, top, 78, 16 + rows * 9)
        self._text(left + 6, top + 5, self._word())
        for row in range(rows):
            self._put(box(left + 6, top + 14 + row * 9, left + 11, top + 19 + row * 9), self.bars[row % 2])
            self._text(left + 16, top + 14 + row * 9, self._word())
