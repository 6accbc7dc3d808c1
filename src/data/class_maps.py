"""Class maps: files in which a pixel's value, or its color, says of which class it is."""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from formats import images, packed_colors
from formats.packed_colors import pack
from tools.errors import UserError


@dataclass(frozen=True)
class ClassKeys:
    """The value, or the color, of each class in a class map, and of the pixels that are of no class."""

    names: tuple[str, ...]
    values: tuple[int, ...]
    colors: tuple[tuple[int, int, int], ...]  # RGB; () where there are values
    ignore: tuple[int, ...]  # the value, or RGB, that is not labeled; () where all are
    nobodys: int  # the index of pixels that are of no class
    zero_is_nobodys: bool  # whether 0, or black, is of no class, unless it is named

    def read(self, path: Path, max_pixels: int) -> np.ndarray:
        """Read a class map -> uint8 (H, W) of class indices, `nobodys` elsewhere. Raises UserError for other values."""
        if self.colors:
            keys, known = pack(images.read_colors(path, max_pixels)), tuple(pack(np.array(self.colors)).tolist())
            ignored = int(pack(np.array(self.ignore))) if self.ignore else -1
        else:
            keys, known = images.read_labels(path, max_pixels), self.values
            ignored = self.ignore[0] if self.ignore else -1
        size = 1 << 24 if self.colors else 1 << 16
        indices = _index_of_key(known, ignored, self.nobodys, self.zero_is_nobodys, size)[keys]
        if (indices < 0).any():
            raise self._strange(path, keys[indices < 0][0])
        return indices.astype(np.uint8)

    def places(self, keys: np.ndarray, color: bool, path: Path) -> np.ndarray:
        """Return the class index (V,) of each value, or packed color, that was noted of `path`. Raises UserError."""
        if self.colors and not color:
            keys = keys * 0x10101
        elif color and not self.colors:
            images.read_labels(path)  # its own sentence: a mask in colors
        known = pack(np.array(self.colors)).tolist() if self.colors else self.values
        index_of = {key: index for index, key in enumerate(known)}
        ignored = int(pack(np.array(self.ignore))) if self.colors and self.ignore else next(iter(self.ignore), -1)
        nobodys = {ignored, 0} if self.zero_is_nobodys else {ignored}
        strange = [key for key in keys.tolist() if key not in index_of and key not in nobodys]
        if strange:
            raise self._strange(path, strange[0])
        return np.array([index_of.get(key, self.nobodys) for key in keys.tolist()])

    def _strange(self, path: Path, key: int) -> UserError:
        return UserError(
            f"{path} holds the {'color' if self.colors else 'value'} {describe(key, bool(self.colors))}, which is no "
            f"class; there are {self._legend()}. Name it in classes.csv, or set IGNORE to it."
        )

    def _legend(self) -> str:
        keys = pack(np.array(self.colors)).tolist() if self.colors else self.values
        shown = [describe(key, bool(self.colors)) for key in keys]
        pairs = [f"{name}={key}" for name, key in zip(self.names, shown, strict=True)]
        return ", ".join(pairs[:12]) + (", ..." if len(pairs) > 12 else "")


@functools.lru_cache(4)
def _index_of_key(known: tuple[int, ...], ignored: int, nobodys: int, zero_is_nobodys: bool, size: int) -> np.ndarray:
    """Make int16 (size,): the class index of each value or packed color, -1 where it is no class's."""
    table = np.full(size, -1, np.int16)
    if zero_is_nobodys:
        table[0] = nobodys
    if ignored >= 0:
        table[ignored] = nobodys
    table[list(known)] = np.arange(len(known))
    return table


def describe(key: int, color: bool) -> str:
    """Write a packed color as r,g,b, a value as it is."""
    return packed_colors.text(int(key)) if color else str(int(key))
