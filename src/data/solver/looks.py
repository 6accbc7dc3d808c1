"""A look at a few files: is it a mask, and where does it show something?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from formats.decode import MOST_HALVINGS, decode
from formats.samples import Samples
from tools.errors import UserError

_MOST, _SIDE = 100_000, 400  # pixels that are looked at; of a JPEG's shorter side
_SOME = 4000
_GRID = 32
_FEW = 16  # values: no photograph has so few
_ALIKE = 0.93  # of what one or the other shows; a field of view is the same in every file


@dataclass(frozen=True, eq=False)
class Look:
    """What one file shows."""

    mask: float  # 0: a photograph, 1: flat areas of few values
    size: tuple[int, int]  # (H, W)
    area: np.ndarray  # bool (32, 32): where it shows something
    share: float  # of the pixels that do


Looker = Callable[[str], Look | None]  # None: it cannot be read


def looker(root: Path, max_pixels: int = 100_000_000) -> Looker:
    """Make a function that looks at a path below `root`, once."""

    @cache
    def look(path: str) -> Look | None:
        try:
            return _look(decode(root / path, max_pixels, _halvings))
        except UserError:  # the strict decode will say it
            return None

    return look


def _halvings(size: tuple[int, int]) -> int:
    """Say how often a large JPEG, whose sides must be even for it, may be halved while it is decoded."""
    often, (height, width) = 0, size
    while often < MOST_HALVINGS and height % 2 == width % 2 == 0 and min(height, width) > 2 * _SIDE:
        often, height, width = often + 1, height // 2, width // 2
    return often


def _look(samples: Samples) -> Look:
    values, often = samples.values, samples.halved or 0
    full = (values.shape[0] << often, values.shape[1] << often)
    size = (values.shape[0], values.shape[1])
    step = max(1, int((size[0] * size[1] / _MOST) ** 0.5))
    colors = values[..., :3] if samples.kind == "rgb" else values[..., :1]
    plain = colors[size[0] % step // 2 :: step, ::step].astype(np.int64)
    packed = plain @ (65536 ** np.arange(plain.shape[2]))
    shows = _shows(packed)
    grid = cv2.resize(shows.astype(np.float32), (_GRID, _GRID), interpolation=cv2.INTER_AREA) > 0
    return Look(_flatness(colors, plain, packed), full, grid, float(shows.mean()))


def _shows(packed: np.ndarray) -> np.ndarray:
    """Mark what is not the background: 0 where there is some, else the value that most pixels have."""
    zeros = packed == 0
    if zeros.mean() >= 0.05:
        return ~zeros
    values, counts = np.unique(packed.ravel()[:: max(1, packed.size // _SOME)], return_counts=True)
    return packed != values[counts.argmax()]


def _has_few_values(packed: np.ndarray) -> bool:
    some = np.unique(packed.ravel()[:: max(1, packed.size // _SOME)])
    return len(some) <= _FEW and len(np.unique(packed)) <= _FEW  # sorting all takes a while


def _flatness(colors: np.ndarray, plain: np.ndarray, packed: np.ndarray) -> float:
    """Say how much this is like a mask, 0 to 1: few values, equal neighbors, or grays that crowd in a few places."""
    if _has_few_values(packed):
        return 1.0
    rows = colors[:: max(1, len(colors) // 64)].astype(np.int64)
    equal = float((rows[:, 1:] == rows[:, :-1]).all(-1).mean()) if rows.shape[1] > 1 else 0.0
    top = 256 if colors.dtype == np.uint8 else max(256, int(plain.max()) + 1)
    crowded = np.sort(np.bincount((plain[..., 0] * 32 // top).ravel(), minlength=32))[-4:].sum() / packed.size
    return max(equal, float(crowded) ** 2)


def overlap(first: Look, second: Look) -> float:
    """Return the share of what one or the other shows that both do; 0 where neither shows anything."""
    either = np.count_nonzero(first.area | second.area)
    return np.count_nonzero(first.area & second.area) / either if either else 0.0


def all_alike(looks: Sequence[Look]) -> bool:
    """Say whether at least three files show the same area, and neither nothing nor all: a field of view, no target."""
    shown = [look for look in looks if 0.02 < look.share < 0.999]
    return len(shown) == len(looks) >= 3 and all(overlap(one, other) >= _ALIKE for one, other in pairwise(shown))
