"""One image file -> its samples, upright and as they are stored; strict about broken files.

Nothing else opens an image: decoders disagree on rotation, cut files, palettes and 16 bits, and Pillow alone drops what
it has no mode for, the low bytes of 16-bit color and a fifth channel. So each format has one way here:

| file | decoded by | checked besides |
|---|---|---|
| JPEG, gray or color | simplejpeg where it is installed and finds nothing amiss, else Pillow: the same pixels | |
| other JPEG, GIF, BMP, WebP | Pillow; of a JPEG with several pictures (MPO) the first | one frame |
| PNG of 8 bits or fewer, 16-bit gray | Pillow | one frame, every checksum, the end mark |
| PNG, 16-bit color or alpha | Pillow to check it, OpenCV for the values | the same |
| TIFF of 8 or 16 bits (1) | Pillow for the bytes, put together here | one page (2), every strip whole |
| .npy | NumPy, see npy.py | no pickle, the length |
| other TIFF: palette, 1 to 4 bits, JPEG within, YCbCr, LAB, 32-bit integers | Pillow | the same |

(1) Any number of channels, in strips or tiles, interleaved or in planes; uncompressed, LZW, deflate or PackBits.
(2) Smaller copies and transparency masks, as cloud-optimized files have them, are not counted.
EXIF orientation is applied. Integers of 32 bits are taken where the values fit 16; floats and more frames are refused.
"""

import io
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from formats import npy, tiff
from formats.dicom import DICOM
from formats.samples import Samples
from tools.errors import UserError

try:
    import simplejpeg
except ImportError:  # Kaggle's image has none
    simplejpeg = None

_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")
_PNG, _TIFF = b"\x89PNG", (b"II*\0", b"MM\0*", b"II+\0")  # the last is BigTIFF
_LOSSLESS = (1, 32773, *tiff.PREDICTING)
_ORIENTATION, _MOST_CHANNELS = 0x0112, 1024
MOST_HALVINGS = 3  # libjpeg's smallest scale is an eighth
_CURE = "save it as 8 or 16-bit whole numbers (PNG or TIFF)"


Halvings = Callable[[tuple[int, int]], int]  # (H, W) of an upright image -> how often both sides may be halved


def _never(_: tuple[int, int]) -> int:
    return 0


def decode(path: Path, max_pixels: int, halvings: Halvings = _never) -> Samples:
    """Decode one file. Raises UserError naming it and what is wrong with it; see the table above.

    halvings: how often both sides, even ones, may be halved, MOST_HALVINGS at most; the decoder of a gray or color
    JPEG does it, by leaving out the high frequencies: less work, and less aliasing than by averaging afterwards.
    """
    note = _NOTE.get()
    if note is None:
        return _decode(path, max_pixels, halvings)
    start = time.thread_time()
    samples = _decode(path, max_pixels, halvings)
    note(samples, time.thread_time() - start)
    return samples


_NOTE: ContextVar[Callable[[Samples, float], None] | None] = ContextVar("note", default=None)  # a thread's own


@contextmanager
def noting(note: Callable[[Samples, float], None]) -> Iterator[None]:
    """Tell `note`, within, of each file that this thread decodes, and of the CPU seconds that it took."""
    token = _NOTE.set(note)
    try:
        yield
    finally:
        _NOTE.reset(token)


def _decode(path: Path, max_pixels: int, halvings: Halvings) -> Samples:
    with _opened(path) as (file, magic):
        if magic in _TIFF:
            return _decode_tiff(path, file, max_pixels)
        if magic == npy.MAGIC:
            return npy.decode(path, file, max_pixels)
        with _pillow(path, file, max_pixels) as image:
            if image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB"):
                return _decode_jpeg(path, file, image, halvings)
            image.load()
            depth = 8
            if magic == _PNG:
                file.seek(0)
                data = file.read()
                depth = _checked_depth(data)
                if depth == 16 and not image.mode.startswith("I"):
                    values = _upright(_color16(data), image.getexif().get(_ORIENTATION, 1))
                    return Samples(path, values, "gray" if values.shape[2] == 2 else "rgb")
            lossy = image.format in ("JPEG", "MPO") or (image.format == "WEBP" and _is_lossy_webp(file))
            return _from_pillow(path, image, depth, lossy)


def _is_lossy_webp(file: BinaryIO) -> bool:
    file.seek(12)
    while head := file.read(8):
        if head[:4] in (b"VP8 ", b"VP8L"):
            return head[:4] == b"VP8 "
        file.seek(int.from_bytes(head[4:], "little") + 1 & ~1, 1)
    return False


def _decode_jpeg(path: Path, file: BinaryIO, image: Image.Image, halvings: Halvings) -> Samples:
    """Decode gray or color, by the fast decoder, or by Pillow to the same values."""
    orientation = image.getexif().get(_ORIENTATION, 1)
    width, height = image.size
    halved = halvings((width, height) if 5 <= orientation <= 8 else (height, width))
    small = width >> halved, height >> halved
    values = _fast_jpeg(file, image, small)
    if values is None:
        image.draft(image.mode, small)
        values = np.array(image)
        values = values if values.ndim == 3 else values[..., None]
    if values.shape[:2] != small[::-1]:
        raise ValueError(f"{values.shape[1]} x {values.shape[0]} pixels came, expected {small[0]} x {small[1]}")
    return Samples(path, _upright(values, orientation), _KINDS[image.mode], jpeg=True, halved=halved)


def _fast_jpeg(file: BinaryIO, image: Image.Image, size: tuple[int, int]) -> np.ndarray | None:
    """Decode uint8 (H, W, 1 or 3) as Pillow does, in less than half the time; None where Pillow has to look itself.

    Both use libjpeg-turbo; Pillow keeps colors in four bytes a pixel, feeds it small blocks, and copies the result.
    """
    if simplejpeg is None:
        return None
    file.seek(0)
    small = {} if size == image.size else {"min_width": size[0], "min_height": size[1]}
    try:
        values = simplejpeg.decode_jpeg(file.read(), "RGB" if image.mode == "RGB" else "GRAY", **small)
    except ValueError:  # broken, cut off, or just unusual: Pillow's word is what counts, here as on Kaggle
        file.seek(0)
        return None
    return values if values.shape[1::-1] == size else None


def size_of(path: Path, max_pixels: int) -> tuple[int, int]:
    """Read (H, W) of the upright image from the header. Raises UserError."""
    with _opened(path) as (file, magic):
        if magic == npy.MAGIC:
            return npy.size_of(path, file, max_pixels)
        if magic in _TIFF:
            page = tiff.read_page(path, file, max_pixels)
            size, orientation = (page.height, page.width), page.orientation
        else:
            with _pillow(path, file, max_pixels) as image:
                size, orientation = image.size[::-1], image.getexif().get(_ORIENTATION, 1)
        return size[::-1] if 5 <= orientation <= 8 else size


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, bytes]]:
    """Open a file and read its first four bytes; whatever a decoder raises on a stranger's bytes becomes a sentence."""
    if not path.is_file():
        raise UserError(f"{path}: {'a folder, expected an image' if path.is_dir() else 'no such file'}.")
    Image.MAX_IMAGE_PIXELS = None  # our own limit refuses instead of warning, and for every format
    try:
        with path.open("rb") as file:
            magic = file.read(4)
            file.seek(128)
            if file.read(4) == b"DICM":
                raise UserError(f"{path}: {DICOM.format(folder=path.parent)}")
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
    """Open Pillow's image, header read, size and frames checked."""
    with Image.open(file, formats=_FORMATS) as image:
        tiff.check_size(path, *image.size, max_pixels)
        # a JPEG's further pictures are previews and gain maps; a TIFF's pages were counted already
        frames = 1 if image.format in ("MPO", "TIFF") else getattr(image, "n_frames", 1)
        if frames > 1:
            raise UserError(f"{path}: {frames} frames; expected a single picture. Save the one you need as PNG.")
        yield image


def _checked_depth(data: bytes) -> int:
    """Read a PNG's bits per sample, after checking every checksum (Pillow skips those of pixels) up to the end mark."""
    view, at = memoryview(data), 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(view[at : at + 4], "big")
        if zlib.crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4], "big") or end + 4 > len(data):
            raise ValueError(f"the checksum of the part at byte {at} is wrong")
        if view[at + 4 : at + 8] == b"IEND":
            return data[24]
        at = end + 4
    raise ValueError("it ends too early")


def _color16(data: bytes) -> np.ndarray:
    """Decode a PNG of 16-bit color or alpha -> uint16 (H, W, 2 to 4), RGB order."""
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)  # this flag leaves EXIF alone
    if values is None or values.dtype != np.uint16 or values.ndim != 3:
        raise ValueError("OpenCV cannot read its 16-bit colors")
    channels = {2: 3, 4: 2, 6: 4}[data[25]]  # by the header: OpenCV adds an alpha for a transparent color
    if channels == 2:
        return values[..., [0, 3]]
    return values[..., [2, 1, 0, 3][:channels]]


def _from_pillow(path: Path, image: Image.Image, depth: int, lossy: bool) -> Samples:
    orientation = image.getexif().get(_ORIENTATION, 1)
    if image.mode not in _KINDS:
        image = image.convert("RGB")  # YCbCr, LAB, ...
    values, palette, grays = np.array(image), None, False
    if image.mode[0] == "I":
        if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
            raise UserError(
                f"{path}: values from {values.min()} to {values.max()}; expected 0 to 65535 at most: {_CURE}."
            )
        values = values.astype(np.uint16)
    elif image.mode == "1":
        values, depth = values * np.uint8(255), 1
    elif image.mode in ("P", "PA"):
        flat = image.getpalette("RGB") or []
        palette = np.array(flat + [0] * (768 - len(flat)), np.uint8).reshape(256, 3)
        # writers keep the grays that occur, another palette in each file
        grays = image.format == "GIF" and bool(palette.any() and (palette == palette[:, :1]).all())
    step = {1: 255, 2: 85, 4: 17}.get(depth, 1) if image.mode in ("1", "L") else 1
    values = values if values.ndim == 3 else values[..., None]
    return Samples(path, _upright(values, orientation), _KINDS[image.mode], palette, grays, step, lossy)


_KINDS = {
    **dict.fromkeys(("1", "L", "LA", "I", "I;16", "I;16L", "I;16B", "I;16N"), "gray"),
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


def _decode_tiff(path: Path, file: BinaryIO, max_pixels: int) -> Samples:
    page = tiff.read_page(path, file, max_pixels)
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
        return _from_samples(path, page, tiff.read_samples(page, file))
    with suppress(UnidentifiedImageError), _pillow(path, file, max_pixels) as image:
        image.seek(page.index)
        # Pillow leaves out channels and low bytes that it has no mode for
        if len(image.getbands()) == page.samples and (page.samples == 1 or max(page.bits) <= 8):
            image.load()
            return _from_pillow(path, image, max(page.bits), lossy=False)
    raise UserError(
        f"{path}: {page.samples} x {max(page.bits)} bits, compression {page.compression}, colors by rule "
        f"{page.photometric}: Pillow cannot read such a TIFF; {_CURE}, uncompressed or with LZW or deflate."
    )


def _from_samples(path: Path, page: tiff.Page, values: np.ndarray) -> Samples:
    if page.photometric == 0:
        values = np.iinfo(values.dtype).max - values
    colors = page.samples - page.alpha
    kind = {1: "gray", 3: "rgb"}.get(colors, "bands")
    if page.photometric == 5:
        kind = "cmyk" if colors == 4 else "bands"
    return Samples(path, _upright(values, page.orientation), kind)
