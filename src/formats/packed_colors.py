"""Colors as one whole number each, red first: how colors are counted, compared and listed."""

import numpy as np

_PLACES = np.array([65536, 256, 1], np.int32)


def pack(colors: np.ndarray) -> np.ndarray:
    """Turn RGB of 8 bits (..., 3) into one int32 each."""
    return colors.astype(np.int32) @ _PLACES


def parts(packed: int) -> tuple[int, int, int]:
    """Return red, green and blue of a packed color."""
    return packed >> 16, packed >> 8 & 255, packed & 255


def text(packed: int) -> str:
    """Write a packed color as r,g,b."""
    return ",".join(map(str, parts(packed)))


def luma(packed: np.ndarray) -> np.ndarray:
    """Return the gray of packed colors (V,), int64, as Pillow's "L" has it."""
    red, green, blue = (packed.astype(np.int64) >> shift & 255 for shift in (16, 8, 0))
    return (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16
