"""One image file -> its samples, upright and as they are stored; strict about broken files.

Nothing else opens an image: decoders disagree on rotation, cut files, palettes and 16 bits, and Pillow alone drops what
it has no mode for, the low bytes of 16-bit colour and a fifth channel. So each format has one way here:

| file | decoded by | checked besides |
|---|---|---|
| JPEG, GIF, BMP, WebP | Pillow; of a JPEG with several pictures (MPO) the first | one frame |
| PNG of 8 bits or fewer, 16-bit grey | Pillow | one frame, every checksum, the end mark |
| PNG, 16-bit colour or alpha | Pillow to check it, OpenCV for the values | the same |
| TIFF of 8 or 16 bits (1) | Pillow for the bytes, put together here | one page (2), every strip whole |
| other TIFF: palette, 1 to 4 bits, JPEG within, YCbCr, LAB, 32-bit integers | Pillow | the same |

(1) Any number of channels, in strips or tiles, interleaved or in planes; uncompressed, LZW, deflate or PackBits.
(2) Smaller copies and transparency masks, as cloud-optimised files have them, are not counted.
EXIF orientation is applied. Integers of 32 bits are taken where the values fit 16; floats and more frames are refused.
"""

import io
import itertools
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from errors import UserError

_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")
_PNG, _TIFF = b"\x89PNG", (b"II*\0", b"MM\0*", b"II+\0")  # the last is BigTIFF
_PREDICTING = (5, 8, 32946)  # TIFF's numbers for LZW and deflate
_LOSSLESS = (1, 32773, *_PREDICTING)
_ORIENTATION, _MOST_CHANNELS = 0x0112, 1024
_CURE = "save it as 8 or 16-bit whole numbers (PNG or TIFF)"


@dataclass(frozen=True)
class Samples:
    """What a file holds, upright."""

    path: Path
    values: np.ndarray  # uint8 or uint16 (H, W, n), an alpha last
    kind: str  # grey, rgb, cmyk, palette, or bands: channels that are no picture by themselves
    palette: np.ndarray | None = None  # uint8 (256, 3)
    step: int = 1  # what one unit of the file became here: 255 of 1 bit, 17 of 4 bits
    jpeg: bool = False

    def colours(self) -> np.ndarray:
        """uint8 or uint16 (H, W, 3): palettes looked up, grey repeated, alpha dropped. UserError for bands."""
        if self.kind == "palette":
            return self.palette[self.values[..., 0]]
        if self.kind == "grey":
            return cv2.cvtColor(np.ascontiguousarray(self.values[..., 0]), cv2.COLOR_GRAY2RGB)
        if self.kind == "rgb":
            return np.ascontiguousarray(self.values[..., :3])
        if self.kind == "cmyk":  # as Pillow does it: light is what neither the ink nor the black takes away
            top = np.iinfo(self.values.dtype).max
            light = (top - self.values).astype(np.uint32)
            return ((light[..., :3] * light[..., 3:4] + top // 2) // top).astype(self.values.dtype)
        count = self.values.shape[2]
        raise UserError(
            f"{self.path}: has {count} channels, which are not grey or colour with a marked alpha; "
            f"of an image, IN_CHANNELS={count} takes them all."
        )

    def grey(self) -> np.ndarray:
        """uint8 or uint16 (H, W): the luma of ITU-R 601, as Pillow's "L". UserError for bands."""
        if self.kind == "grey":
            return np.ascontiguousarray(self.values[..., 0])
        colours = self.colours()
        if colours.dtype == np.uint8:
            return np.array(Image.fromarray(colours).convert("L"))
        luma = colours.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)  # Pillow's weights, of 65536
        return (luma + 32768 >> 16).astype(np.uint16)


def decode(path: Path, max_pixels: int) -> Samples:
    """Decode one file. Raises UserError naming it and what is wrong with it; see the table above."""
    with _opened(path) as (file, magic):
        if magic in _TIFF:
            return _decode_tiff(path, file, max_pixels)
        with _pillow(path, file, max_pixels) as image:
            image.load()
            depth = 8
            if magic == _PNG:
                file.seek(0)
                data = file.read()
                depth = _checked_depth(data)
                if depth == 16 and not image.mode.startswith("I"):
                    values = _upright(_colour16(data), image.getexif().get(_ORIENTATION, 1))
                    return Samples(path, values, "grey" if values.shape[2] == 2 else "rgb")
            return _from_pillow(path, image, depth)


def size_of(path: Path, max_pixels: int) -> tuple[int, int]:
    """(H, W) of the upright image, from the header. Raises UserError."""
    with _opened(path) as (file, magic):
        if magic in _TIFF:
            page = _read_page(path, file, max_pixels)
            size, orientation = (page.height, page.width), page.orientation
        else:
            with _pillow(path, file, max_pixels) as image:
                size, orientation = image.size[::-1], image.getexif().get(_ORIENTATION, 1)
        return size[::-1] if 5 <= orientation <= 8 else size


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, bytes]]:
    """The open file and its first four bytes; whatever a decoder raises on a stranger's bytes becomes a sentence."""
    if not path.is_file():
        raise UserError(f"{path}: {'a folder, expected an image' if path.is_dir() else 'no such file'}.")
    Image.MAX_IMAGE_PIXELS = None  # our own limit refuses instead of warning, and for every format
    try:
        with path.open("rb") as file:
            magic = file.read(4)
            file.seek(0)
            yield file, magic
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(f"{path}: not an image that Pillow can read ({', '.join(_FORMATS)}).") from error
    except Exception as error:
        raise UserError(
            f"{path}: broken or cut off ({error or type(error).__name__}). Fetch it again or remove it."
        ) from error


@contextmanager
def _pillow(path: Path, file: BinaryIO, max_pixels: int) -> Iterator[Image.Image]:
    """Pillow's image, header read, size and frames checked."""
    with Image.open(file, formats=_FORMATS) as image:
        _check_size(path, *image.size, max_pixels)
        # a JPEG's further pictures are previews and gain maps; a TIFF's pages were counted already
        frames = 1 if image.format in ("MPO", "TIFF") else getattr(image, "n_frames", 1)
        if frames > 1:
            raise UserError(f"{path}: {frames} frames; expected a single picture. Save the one you need as PNG.")
        yield image


def _check_size(path: Path, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise UserError(
            f"{path}: {width} x {height} pixels, more than MAX_PIXELS={max_pixels}; raise it if that is right."
        )


def _checked_depth(data: bytes) -> int:
    """A PNG's bits per sample, after a look at every checksum (Pillow skips those of the pixels) up to the end mark."""
    view, at = memoryview(data), 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(view[at : at + 4], "big")
        if zlib.crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4], "big") or end + 4 > len(data):
            raise ValueError(f"the checksum of the part at byte {at} is wrong")
        if view[at + 4 : at + 8] == b"IEND":
            return data[24]
        at = end + 4
    raise ValueError("it ends too early")


def _colour16(data: bytes) -> np.ndarray:
    """A PNG of 16-bit colour or alpha -> uint16 (H, W, 2 to 4), RGB order."""
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)  # this flag leaves EXIF alone
    if values is None or values.dtype != np.uint16 or values.ndim != 3:
        raise ValueError("OpenCV cannot read its 16-bit colours")
    channels = {2: 3, 4: 2, 6: 4}[data[25]]  # by the header: OpenCV adds an alpha for a transparent colour
    if channels == 2:
        return values[..., [0, 3]]
    return values[..., [2, 1, 0, 3][:channels]]


def _from_pillow(path: Path, image: Image.Image, depth: int) -> Samples:
    orientation, jpeg = image.getexif().get(_ORIENTATION, 1), image.format in ("JPEG", "MPO")
    if image.mode not in _KINDS:
        image = image.convert("RGB")  # YCbCr, LAB, ...
    values, palette = np.array(image), None
    if image.mode[0] == "I":
        if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
            raise UserError(
                f"{path}: values from {values.min()} to {values.max()}; expected 0 to 65535 at most: {_CURE}."
            )
        values = values.astype(np.uint16)
    elif image.mode == "1":
        values, depth = values * np.uint8(255), 1
    elif image.mode in ("P", "PA"):
        flat = image.getpalette("RGB")
        palette = np.array(flat + [0] * (768 - len(flat)), np.uint8).reshape(256, 3)
        # GIF has no grey; writers keep the greys that occur in a palette, another one in each file
        if image.format == "GIF" and palette.any() and (palette == palette[:, :1]).all():
            return Samples(path, _upright(palette[:, :1][values], orientation), "grey")
    step = {1: 255, 2: 85, 4: 17}.get(depth, 1) if image.mode in ("1", "L") else 1
    values = values if values.ndim == 3 else values[..., None]
    return Samples(path, _upright(values, orientation), _KINDS[image.mode], palette, step, jpeg)


_KINDS = {
    **dict.fromkeys(("1", "L", "LA", "I", "I;16", "I;16L", "I;16B", "I;16N"), "grey"),
    **dict.fromkeys(("RGB", "RGBA"), "rgb"),
    **dict.fromkeys(("P", "PA"), "palette"),
    "CMYK": "cmyk",
}


def _upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation: 2 to 4 mirror, 5 to 8 swap the axes and may mirror."""
    if 5 <= orientation <= 8:
        values, orientation = values.swapaxes(0, 1), {5: 1, 6: 2, 7: 3, 8: 4}[orientation]
    rows, columns = {2: (1, -1), 3: (-1, -1), 4: (-1, 1)}.get(orientation, (1, 1))
    return np.ascontiguousarray(values[::rows, ::columns])


class _Page:
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
        self.fill_order, self.orientation = numbers(266, 1)[0], numbers(_ORIENTATION, 1)[0]
        self.separate = numbers(284, 1)[0] == 2  # one channel's plane after the other
        self.alpha = numbers(338, 0)[-1:] in ((1,), (2,))  # premultiplied or not
        self.tiled = 322 in tags
        rows = min(numbers(278, self.height)[0], self.height)
        self.block = (numbers(323)[0], numbers(322)[0]) if self.tiled else (rows, self.width)  # a tile's or strip's
        self.offsets, self.counts = numbers(324 if self.tiled else 273), numbers(325 if self.tiled else 279)


def _read_page(path: Path, file: BinaryIO, max_pixels: int) -> _Page:
    """The one page of a TIFF at full size. Raises UserError where there are several, or too many pixels."""
    pages = list(_directories(file))
    # bits 0 and 2 mark smaller copies and transparency masks, as cloud-optimised files have them
    whole = [index for index, page in enumerate(pages) if not int(page.get(254, 0)) & 5] or [0]
    if len(whole) > 1:
        raise UserError(
            f"{path}: {len(whole)} pages; expected a single picture. Save each page as a file of its own: "
            "a_0.png, a_1.png, ... are a stack."
        )
    if not pages:
        raise ValueError("it has no directory")
    page = _Page(whole[0], pages[whole[0]])
    _check_size(path, page.width, page.height, max_pixels)
    _check_size(path, *page.block[::-1], max(max_pixels, 1 << 24))  # tiles may be larger than a small image
    return page


def _directories(file: BinaryIO) -> Iterator[ImageFileDirectory_v2]:
    head = file.read(8)
    if head[2:3] == b"+":
        head += file.read(8)
    at, seen = ImageFileDirectory_v2(head).next, set()
    while at and at not in seen:
        seen.add(at)
        file.seek(at)
        page = ImageFileDirectory_v2(head)
        page.load(file)
        yield page
        at = page.next


def _decode_tiff(path: Path, file: BinaryIO, max_pixels: int) -> Samples:
    page = _read_page(path, file, max_pixels)
    signed = page.formats == {2} and page.samples == 1 and page.bits in ({16}, {32})
    if not (page.formats <= {1, 4} or signed) or max(page.bits) > 32 or not 0 < page.samples <= _MOST_CHANNELS:
        what = "float" if page.formats & {3, 6} else "signed" if 2 in page.formats else "large"
        raise UserError(f"{path}: {page.samples} x {max(page.bits)} bits, {what} values; {_CURE}.")
    end = file.seek(0, io.SEEK_END)
    if any(offset + count > end for offset, count in zip(page.offsets, page.counts, strict=False)):
        raise ValueError("its pixels reach beyond its end")
    file.seek(0)
    plain = page.photometric in (0, 1, 2, 5) and page.compression in _LOSSLESS and page.fill_order == 1
    if plain and page.bits in ({8}, {16}) and not signed:
        return _from_samples(path, page, _tiff_samples(page, file))
    with suppress(UnidentifiedImageError), _pillow(path, file, max_pixels) as image:
        image.seek(page.index)
        # Pillow leaves out channels and low bytes that it has no mode for
        if len(image.getbands()) == page.samples and (page.samples == 1 or max(page.bits) <= 8):
            image.load()
            return _from_pillow(path, image, max(page.bits))
    raise UserError(
        f"{path}: {page.samples} x {max(page.bits)} bits, compression {page.compression}, colours by rule "
        f"{page.photometric}: Pillow cannot read such a TIFF; {_CURE}, uncompressed or with LZW or deflate."
    )


def _from_samples(path: Path, page: _Page, values: np.ndarray) -> Samples:
    if page.photometric == 0:
        values = np.iinfo(values.dtype).max - values
    colours = page.samples - page.alpha
    kind = {1: "grey", 3: "rgb"}.get(colours, "bands")
    if page.photometric == 5:
        kind = "cmyk" if colours == 4 else "bands"
    return Samples(path, _upright(values, page.orientation), kind)


def _tiff_samples(page: _Page, file: BinaryIO) -> np.ndarray:
    """uint8 or uint16 (H, W, samples).

    Strips hold bytes, whatever these mean: they are shown to Pillow as a grey image, one pixel a byte, wide enough.
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
        grey = _grey_tiff(page, per_pixel * kind.itemsize, data)
        with Image.open(io.BytesIO(grey), formats=("TIFF",)) as image:
            stored = np.array(image).view(kind).reshape(page.height, page.width, per_pixel)
        result.append(_unpredicted(stored.astype(kind.newbyteorder("=")), page))
    return result[0] if len(result) == 1 else np.concatenate(result, 2)


def _read(file: BinaryIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)


def _grey_tiff(page: _Page, factor: int, blocks: list[bytes]) -> bytes:
    """A TIFF of 8-bit grey, `factor` times as wide, with these strips or tiles."""
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


def _unpredicted(values: np.ndarray, page: _Page) -> np.ndarray:
    """Undo predictor 2: within a strip or tile each pixel was stored as the difference to its left neighbour."""
    if page.predictor == 1 or page.compression not in _PREDICTING:
        return values
    if page.predictor != 2:
        raise ValueError(f"its predictor {page.predictor} is not known")
    for left in range(0, page.width, page.block[1]):
        part = values[:, left : left + page.block[1]]
        np.cumsum(part, axis=1, dtype=values.dtype, out=part)  # wraps around, as the differences do
    return values
