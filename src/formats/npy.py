"""NumPy's .npy files as images, class maps and stacks of objects; never a pickled one.

| array | read as |
|---|---|
| (H, W), (H, W, 1), (1, H, W) | gray, or a class map; True is 1 |
| (H, W, n), (n, H, W) | an image of n channels; of a mask (n, H, W), or n other than 3, they are n objects |
| whole numbers of any width, floats that are whole | their values, 0 to 65535; more than 8 bits are read as 16 |
| floats of band_08.npy and the like (contrails) | hundredths, of the labeled time in (H, W, times) |
"""

import re
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.lib import format as npy

from formats.samples import Samples
from formats.tiff import check_size
from tools.errors import UserError

MAGIC = b"\x93NUM"
_BAND = re.compile(r"band_\d+\.npy")  # contrails': brightness in kelvin at eight times, of which the fifth is labeled
_CURE = "Save it as whole numbers, such as np.save(path, (values * 255).round().astype(np.uint8))."


def decode(path: Path, file: BinaryIO, max_pixels: int) -> Samples:
    """Decode an array. Raises UserError for what is no image, ValueError for a file that is cut off."""
    shape, order, dtype = _header(path, file)
    height, width = _size(path, shape)
    check_size(path, width, height, max_pixels)
    data = file.read()
    if len(data) != int(np.prod(shape)) * dtype.itemsize:
        raise ValueError(f"{len(data)} bytes of values, expected {int(np.prod(shape)) * dtype.itemsize}")
    array = np.frombuffer(data, dtype).reshape(shape, order=order)
    if _is_band(path, shape):
        array = np.round(array[..., shape[2] // 2].astype(np.float64) * 100)
    array = array.reshape([side for side in array.shape if side != 1]) if array.ndim > 3 else array
    first = array.ndim == 3 and _first(array.shape)
    array = np.moveaxis(array, 0, 2) if first else array.reshape(height, width, -1)
    values = np.ascontiguousarray(_whole(path, array))
    kind = {1: "gray", 3: "rgb"}.get(values.shape[2], "bands")
    return Samples(path, values, kind, planes=values.shape[2] > 1 and (first or kind == "bands"))


def size_of(path: Path, file: BinaryIO, max_pixels: int) -> tuple[int, int]:
    """Read (H, W) from the header. Raises UserError."""
    height, width = _size(path, _header(path, file)[0])
    check_size(path, width, height, max_pixels)
    return height, width


def _header(path: Path, file: BinaryIO) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype]:
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject or dtype.kind not in "biuf":
        what = "pickled objects, which could run a program" if dtype.hasobject else f"values of the type {dtype}"
        raise UserError(f"{path}: {what}; expected an array of whole numbers. {_CURE}")
    return shape, "F" if fortran else "C", dtype


def _size(path: Path, shape: tuple[int, ...]) -> tuple[int, int]:
    """Find (H, W) in an array's shape. Raises UserError where there is none."""
    sides = [side for side in shape if side != 1] if len(shape) > 3 else list(shape)
    if not 2 <= len(sides) <= 3 or 0 in sides:
        raise UserError(f"{path}: an array of the shape {shape}; expected (H, W), (H, W, n) or (n, H, W).")
    if len(sides) == 2:
        return sides[0], sides[1]
    return (sides[1], sides[2]) if _first(tuple(sides)) else (sides[0], sides[1])


def _first(shape: tuple[int, ...]) -> bool:
    """Say whether the first of three axes is that of channels or objects: the one that is no side of the image."""
    first, middle, last = shape
    if middle in (first, last) and first != last:
        return middle == last
    return first < last


def _is_band(path: Path, shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and bool(_BAND.fullmatch(path.name))


def _whole(path: Path, array: np.ndarray) -> np.ndarray:
    """Turn values into uint8 or uint16. Raises UserError for fractions, and beyond 0 to 65535."""
    if array.dtype in (np.dtype(bool), np.dtype(np.uint8)):
        return array.astype(np.uint8)
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    if not 0 <= low <= high <= 65535:  # not a number fails too
        raise UserError(f"{path}: values from {low} to {high}; expected 0 to 65535. {_CURE}")
    if array.dtype.kind == "f" and (array != np.floor(array)).any():
        raise UserError(f"{path}: floats with fractions, from {low:g} to {high:g}. {_CURE}")
    return array.astype(np.uint8 if array.dtype.itemsize == 1 else np.uint16)
