"""TIFF: the one page of a file, and its 8 or 16-bit samples, any number of them a pixel.

Pillow alone has no mode for most of them; it is given each strip's bytes as a gray picture, which keeps its decoders
and its strictness about cut files. Tag numbers are those of the TIFF 6.0 specification.
"""

import io
import itertools
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from tools.errors import UserError

SAMPLES = 4  # times MAX_PIXELS: a small picture may have many channels, a large one as many as a photograph
MOST_PAGES = 1000
PREDICTING = (5, 8, 32946)  # TIFF's numbers for LZW and deflate


def check_size(path: Path, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise UserError(
            f"{path}: {width} x {height} pixels, more than MAX_PIXELS={max_pixels}; raise it if that is right."
        )


class Page:
    """What a TIFF's directory says of a page; the numbers are the format's own."""

    def __init__(self, index: int, tags: ImageFileDirectory_v2) -> None:
        def numbers(tag: int, *default: int) -> tuple[int, ...]:
            value = tags.get(tag, default)
            return tuple(int(part) for part in value) if isinstance(value, tuple) else (int(value),)

        if 256 not in tags or 257 not in tags or not (273 in tags or 324 in tags):
            raise ValueError("its directory is incomplete")
        self.index = index
        self.width, self.height, self.samples = numbers(256)[0], numbers(257)[0], numbers(277, 1)[0]
        self.bits = set(numbers(258, 1))
        self.formats = set(numbers(339, 1))  # 1 whole numbers, 2 with a sign, 3 float, 4 unknown
        self.photometric = numbers(262, 1)[0]  # 0 white is zero, 1 black is zero, 2 RGB, 5 CMYK
        self.compression, self.predictor = numbers(259, 1)[0], numbers(317, 1)[0]
        self.fill_order, self.orientation = numbers(266, 1)[0], numbers(274, 1)[0]
        self.separate = numbers(284, 1)[0] == 2  # one channel's plane after the other
        self.alpha = numbers(338, 0)[-1:] in ((1,), (2,))  # premultiplied or not
        self.tiled = 322 in tags
        rows = min(numbers(278, self.height)[0], self.height)
        self.block = (numbers(323)[0], numbers(322)[0]) if self.tiled else (rows, self.width)  # a tile's or strip's
        self.offsets, self.counts = numbers(324 if self.tiled else 273), numbers(325 if self.tiled else 279)


def read_page(path: Path, file: BinaryIO, max_pixels: int) -> Page:
    """Read the one page of a TIFF at full size. Raises UserError where there are several, or too many pixels."""
    pages = list(_directories(file))
    # bits 0 and 2 mark smaller copies and transparency masks, as cloud-optimized files have them
    whole = [index for index, page in enumerate(pages) if not int(page.get(254, 0)) & 5] or [0]
    if len(whole) > 1:
        raise UserError(
            f"{path}: {len(whole)} pages; expected a single picture. Save each page as a file of its own: "
            "a_0.png, a_1.png, ... are a stack."
        )
    if not pages:
        raise ValueError("it has no directory")
    page = Page(whole[0], pages[whole[0]])
    check_size(path, page.width, page.height, max_pixels)
    if page.width * page.height * page.samples > SAMPLES * max_pixels:
        raise UserError(
            f"{path}: {page.width} x {page.height} pixels of {page.samples} channels, more than {SAMPLES} times "
            f"MAX_PIXELS={max_pixels}; raise it if that is right."
        )
    check_size(path, *page.block[::-1], max(max_pixels, 1 << 24))  # tiles may be larger than a small image
    return page


def _directories(file: BinaryIO) -> Iterator[ImageFileDirectory_v2]:
    head = file.read(8)
    if head[2:3] == b"+":
        head += file.read(8)
    at = ImageFileDirectory_v2(head).next
    seen: set[int] = set()
    while at and at not in seen:
        if len(seen) == MOST_PAGES:  # overlapping directories in a small file could go on for hours
            raise ValueError(f"it has more than {MOST_PAGES} directories")
        seen.add(at)
        file.seek(at)
        page = ImageFileDirectory_v2(head)
        page.load(file)
        yield page
        at = page.next


def read_samples(page: Page, file: BinaryIO) -> np.ndarray:
    """Read uint8 or uint16 (H, W, samples).

    Strips hold bytes, whatever these mean: they are shown to Pillow as a gray image, one pixel a byte, wide enough.
    """
    file.seek(0)
    wide = file.read(1) == b"M"
    kind = np.dtype(np.uint8 if page.bits == {8} else ">u2" if wide else "<u2")
    per_pixel = 1 if page.separate else page.samples
    rows, columns = page.block
    blocks = -(-page.height // rows) * -(-page.width // columns)
    planes = page.samples if page.separate else 1
    if min(len(page.offsets), len(page.counts)) < blocks * planes:
        raise ValueError("it lacks some of its strips")
    result = []
    for plane in range(planes):
        part = slice(plane * blocks, (plane + 1) * blocks)
        data = [_read(file, offset, count) for offset, count in zip(page.offsets[part], page.counts[part], strict=True)]
        gray = _gray_tiff(page, per_pixel * kind.itemsize, data)
        with Image.open(io.BytesIO(gray), formats=("TIFF",)) as image:
            stored = np.array(image).view(kind).reshape(page.height, page.width, per_pixel)
        result.append(_unpredicted(stored.astype(kind.newbyteorder("=")), page))
    return result[0] if len(result) == 1 else np.concatenate(result, 2)


def _read(file: BinaryIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)


def _gray_tiff(page: Page, factor: int, blocks: list[bytes]) -> bytes:
    """Write a TIFF of 8-bit gray, `factor` times as wide, with these strips or tiles."""
    rows, columns = page.block
    ends = list(itertools.accumulate(map(len, blocks), initial=8))
    offsets, counts = ends[:-1], [len(block) for block in blocks]
    tags = {256: [page.width * factor], 257: [page.height], 258: [8], 259: [page.compression], 262: [1], 277: [1]}
    if page.tiled:
        tags |= {322: [columns * factor], 323: [rows], 324: offsets, 325: counts}
    else:
        tags |= {273: offsets, 278: [rows], 279: counts}
    entries, extra, at = [], b"", ends[-1] + 2 + 12 * len(tags) + 4
    for tag, numbers in sorted(tags.items()):  # each an array of 32-bit numbers; a long one lies behind the entries
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        entries.append(struct.pack("<HHI", tag, 4, len(numbers)))
        entries.append(packed if len(packed) == 4 else struct.pack("<I", at + len(extra)))
        extra += packed if len(packed) > 4 else b""
    directory = struct.pack("<H", len(tags)) + b"".join(entries) + bytes(4)
    return b"".join([b"II*\0", struct.pack("<I", ends[-1]), *blocks, directory, extra])


def _unpredicted(values: np.ndarray, page: Page) -> np.ndarray:
    """Undo predictor 2: within a strip or tile each pixel was stored as the difference to its left neighbor."""
    if page.predictor == 1 or page.compression not in PREDICTING:
        return values
    if page.predictor != 2:
        raise ValueError(f"its predictor {page.predictor} is not known")
    for left in range(0, page.width, page.block[1]):
        part = values[:, left : left + page.block[1]]
        np.cumsum(part, axis=1, dtype=values.dtype, out=part)  # wraps around, as the differences do
    return values
