"""The one decode function, and the resize in both directions."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from data.dataspec import DataSpec
from formats import decode, images
from formats.resize import (
    content_box,
    coverage_to_network,
    from_network,
    image_to_network,
    labels_to_network,
    mask_to_network,
)
from tools.errors import UserError

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)
MASK = (np.random.default_rng(1).random((6, 9)) < 0.5).astype(np.uint8)
WIDE = np.random.default_rng(2).integers(0, 65536, (37, 41, 6)).astype(np.uint16)  # 16 bits, six channels
NOISE = np.random.default_rng(3).integers(0, 256, (64, 64, 3)).astype(np.uint8)
PALETTE = [10, 20, 30, 40, 50, 60]


def save(path, array, mode=None, **options):
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def with_palette(indices, palette):
    image = Image.fromarray(indices).convert("P")
    image.putpalette(palette)
    return image


def png(path, values, color, depth=16, chunks=()):
    """A PNG of uint8 or uint16 (H, W, n), or of `depth` bits packed by the caller, written by hand."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2" if depth == 16 else "u1").tobytes() for row in values)
    header = (b"IHDR", struct.pack(">IIBBBBB", width * (8 // depth if depth < 8 else 1), height, depth, color, 0, 0, 0))
    parts = [header, *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(body))
    return path


def tiff(
    path,
    values,
    *,
    photometric=1,
    extra=(),
    planes=False,
    tile=0,
    pack=None,
    predictor=1,
    order="<",
    big=False,
    more=None,
    strip=8,
):
    """A TIFF of (H, W, n), written by hand: what Pillow and OpenCV cannot write."""
    height, width, count = values.shape
    stored = values.astype(values.dtype.newbyteorder(order))
    blocks = []
    for part in np.moveaxis(stored, 2, 0)[..., None] if planes else [stored]:
        for top in range(0, height, tile or strip):
            for left in range(0, width, tile or width):
                block = part[top : top + (tile or strip), left : left + (tile or width)]
                if tile:  # tiles are whole at the edges too
                    block = np.pad(
                        block, ((0, tile - block.shape[0]), (0, tile - block.shape[1]), (0, 0)), mode="reflect"
                    )
                if predictor == 2:
                    block = np.concatenate([block[:, :1], np.diff(block.astype(values.dtype), axis=1)], 1).astype(
                        stored.dtype
                    )
                blocks.append((zlib.compress if pack == 8 else bytes)(block.tobytes()))
    starts = [16 + sum(map(len, blocks[:i])) for i in range(len(blocks))]
    where = {322: [tile], 323: [tile], 324: starts, 325: list(map(len, blocks))} if tile else {
        273: starts, 278: [strip], 279: list(map(len, blocks))}  # fmt: skip
    tags = {256: [width], 257: [height], 258: [values.dtype.itemsize * 8] * count, 259: [pack or 1], 262: [photometric],
            277: [count], 284: [2 if planes else 1], 317: [predictor], **where, **(more or {})}  # fmt: skip
    tags |= {338: list(extra)} if extra else {}
    letter, head = ("Q", "<HHQ") if big else ("I", "<HHI")
    word = struct.calcsize("<" + letter)
    at = 16 + sum(map(len, blocks))
    end, entries, tail = at + (8 if big else 2) + len(tags) * (4 + 2 * word) + word, b"", b""
    for tag, numbers in sorted(tags.items()):
        data = struct.pack(f"{order}{len(numbers)}I", *numbers)
        entries += struct.pack(head.replace("<", order), tag, 4, len(numbers))
        entries += data.ljust(word, b"\0") if len(data) <= word else struct.pack(order + letter, end + len(tail))
        tail += data if len(data) > word else b""
    start = b"II" if order == "<" else b"MM"
    start += struct.pack(order + "HHHQ", 43, 8, 0, at) if big else struct.pack(order + "HIQ", 42, at, 0)
    number = struct.pack(order + ("Q" if big else "H"), len(tags))
    path.write_bytes(b"".join([start, *blocks, number, entries, bytes(word), tail]))
    return path


def luma(colors):
    return np.array(Image.fromarray(np.ascontiguousarray(colors)).convert("L"))


def thrice(gray):
    return np.dstack([gray] * 3)


def pictures():
    """Mode -> Pillow's image, (H, W, 3) and (H, W) as they are expected, and its channels as stored."""
    gray, alpha = RGB[..., 0], RGB[..., 1]
    rgba, palette = np.dstack([RGB, alpha]), with_palette(MASK, PALETTE)
    looked_up = np.array(PALETTE, np.uint8).reshape(2, 3)[MASK]
    cmyk = Image.fromarray(RGB).convert("CMYK")
    cmyk.putpixel((0, 0), (10, 20, 30, 40))
    ycbcr = Image.fromarray(RGB).convert("YCbCr")
    lab = ImageCms.profileToProfile(
        Image.fromarray(RGB), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    found = {
        "1": (Image.fromarray(MASK * np.uint8(255)).convert("1"), thrice(MASK * 255), MASK * 255, None),
        "L": (Image.fromarray(gray), thrice(gray), gray, None),
        "LA": (Image.fromarray(np.dstack([gray, alpha])), thrice(gray), gray, np.dstack([gray, alpha])),
        "RGB": (Image.fromarray(RGB), RGB, luma(RGB), None),
        "RGBA": (Image.fromarray(rgba), RGB, luma(RGB), rgba),
        "P": (palette, looked_up, luma(looked_up), None),
    }
    for name, image in {"CMYK": cmyk, "YCbCr": ycbcr, "LAB": lab}.items():
        rgb = np.array(image.convert("RGB"))
        found[name] = (image, rgb, luma(rgb), np.array(image) if name == "CMYK" else None)
    return found


PICTURES = pictures()
FORMATS = {
    "png": ("1", "L", "LA", "RGB", "RGBA", "P"),
    "tif": ("1", "L", "LA", "RGB", "RGBA", "P", "CMYK", "YCbCr", "LAB"),
    "bmp": ("1", "L", "RGB", "P"),
    "gif": ("1", "L", "P"),
    "webp": ("RGB", "RGBA"),
}


CASES = [(ending, mode, "raw") for ending, modes in FORMATS.items() for mode in modes if mode != "YCbCr"]
CASES += [("tif", mode, pack) for mode in FORMATS["tif"] for pack in ("tiff_lzw", "tiff_adobe_deflate", "packbits")]
CASES += [("tif", "1", "group4")]


@pytest.mark.parametrize(("ending", "mode", "pack"), CASES)
def test_every_mode_in_every_format_by_the_stated_rules(tmp_path, ending, mode, pack):
    image, rgb, gray, stored = PICTURES[mode]
    options = {"webp": {"lossless": True, "exact": True}, "tif": {"compression": pack}}.get(ending, {})
    path = save(tmp_path / f"a.{ending}", image, **options)
    within = mode == "YCbCr"  # of compressed ones libtiff makes RGB, which rounds otherwise than Pillow
    np.testing.assert_allclose(images.read_image(path), rgb, atol=within)
    np.testing.assert_allclose(images.read_image(path, channels=1), gray[..., None], atol=within)
    np.testing.assert_allclose(images.read_colors(path), rgb, atol=within)
    assert images.read_size(path) == rgb.shape[:2]
    count = stored.shape[2] if stored is not None else 1 if mode in ("1", "L") else 3
    for channels in (2, 4, 5):
        if channels == count:
            np.testing.assert_array_equal(images.read_image(path, channels=channels), stored)
        else:
            with pytest.raises(UserError, match=f"has {count} channels, but IN_CHANNELS={channels}"):
                images.read_image(path, channels=channels)


def test_files_are_decoded_by_content_not_by_name(tmp_path):
    np.testing.assert_array_equal(images.read_image(save(tmp_path / "a.jpg", RGB, format="PNG")), RGB)
    np.testing.assert_array_equal(images.read_image(save(tmp_path / "a.png", RGB, format="TIFF")), RGB)


def test_a_palettes_transparency_is_dropped(tmp_path):
    path = save(tmp_path / "a.png", PICTURES["P"][0], transparency=1)
    np.testing.assert_array_equal(images.read_image(path), PICTURES["P"][1])


def test_jpegs_come_out_as_they_went_in(tmp_path):
    slope = np.dstack([np.full((64, 48), 200), *np.broadcast_arrays(np.arange(48) * 5, np.arange(64)[:, None])])
    slope = slope.astype(np.uint8)
    for mode in ("RGB", "CMYK", "YCbCr"):  # Pillow writes CMYK as Adobe does, inverted
        got = images.read_image(save(tmp_path / f"{mode}.jpg", slope, mode, quality=95))
        assert np.abs(got.astype(int) - slope).mean() < 2, mode
    assert b"Adobe" in (tmp_path / "CMYK.jpg").read_bytes()[:100]
    assert np.abs(images.read_image(tmp_path / "RGB.jpg", channels=1)[..., 0].astype(int) - luma(slope)).mean() < 2
    assert images.read_image(tmp_path / "CMYK.jpg", channels=4).shape == (64, 48, 4)
    two = tmp_path / "two.jpg"  # a phone's: the picture, then a preview
    Image.fromarray(slope).save(two, "MPO", save_all=True, append_images=[Image.fromarray(slope[:8, :8])], quality=95)
    np.testing.assert_array_equal(images.read_image(two), images.read_image(tmp_path / "RGB.jpg"))


PNG16 = {"gray": (0, [0]), "gray + alpha": (4, [0, 3]), "rgb": (2, [0, 1, 2]), "rgba": (6, [0, 1, 2, 3])}


@pytest.mark.parametrize("kind", PNG16)
def test_16_bit_pngs_keep_every_bit(tmp_path, kind):
    color, columns = PNG16[kind]
    values = WIDE[..., columns]
    path = png(tmp_path / "a.png", values, color)
    rgb = thrice(values[..., 0]) if color in (0, 4) else values[..., :3]
    got = images.read_levels(path, 10**6, 3)
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, rgb)
    gray = images.read_levels(path, 10**6, 1)[..., 0]
    if color in (0, 4):
        np.testing.assert_array_equal(gray, values[..., 0])
        np.testing.assert_array_equal(images.read_labels(path), values[..., 0])
    else:
        np.testing.assert_allclose(gray, rgb @ [0.299, 0.587, 0.114], atol=1)
    if len(columns) in (2, 4):
        np.testing.assert_array_equal(images.read_levels(path, 10**6, len(columns)), values)
    np.testing.assert_array_equal(images.read_image(path), np.rint(rgb / 257).astype(np.uint8))


def test_a_transparent_color_adds_no_channel(tmp_path):
    path = png(tmp_path / "a.png", WIDE[..., :3], 2, chunks=[(b"tRNS", WIDE[0, 0, :3].astype(">u2").tobytes())])
    np.testing.assert_array_equal(images.read_levels(path, 10**6, 3), WIDE[..., :3])
    with pytest.raises(UserError, match="has 3 channels"):
        images.read_levels(path, 10**6, 4)


WAYS = {
    "plain": {},
    "big endian": {"order": ">"},
    "BigTIFF": {"big": True},
    "one strip": {"strip": 1000},
    "tiles": {"tile": 16},
    "planes": {"planes": True},
    "planes of tiles": {"planes": True, "tile": 32},
    "deflate": {"pack": 8},
    "predictor": {"pack": 8, "predictor": 2},
    "predictor, tiles, big endian": {"pack": 8, "predictor": 2, "tile": 16, "order": ">"},
    "predictor, planes": {"pack": 8, "predictor": 2, "planes": True},
}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("way", WAYS)
def test_tiffs_of_any_number_of_channels_keep_every_bit(tmp_path, way, count):
    for values in (WIDE[..., :count], (WIDE[..., :count] >> 8).astype(np.uint8)):
        path = tiff(tmp_path / "a.tif", values, extra=(0,) * (count - 1), **WAYS[way])
        got = images.read_levels(path, 10**6, count)
        assert got.dtype == values.dtype
        np.testing.assert_array_equal(got, values)
        if count in (2, 4, 5, 6):
            for channels in (1, 3):
                with pytest.raises(UserError, match=f"has {count} channels.* IN_CHANNELS={count} takes them all"):
                    images.read_levels(path, 10**6, channels)


def test_tiffs_of_other_writers(tmp_path):
    for count in (1, 3, 4):
        values = np.ascontiguousarray(WIDE[..., :count])
        stored = values if count == 1 else values[..., [2, 1, 0, 3][:count]]
        assert cv2.imwrite(str(tmp_path / "a.tif"), stored)  # LZW with a predictor
        np.testing.assert_array_equal(images.read_levels(tmp_path / "a.tif", 10**6, count), values)
    rgba = tiff(tmp_path / "b.tif", WIDE[..., :4], photometric=2, extra=(2,))  # marked as alpha
    np.testing.assert_array_equal(images.read_levels(rgba, 10**6, 3), WIDE[..., :3])
    np.testing.assert_array_equal(images.read_levels(rgba, 10**6, 4), WIDE[..., :4])
    two = tiff(tmp_path / "two.tif", WIDE[..., :3], extra=(0, 2))  # two bands and an alpha
    np.testing.assert_array_equal(images.read_levels(two, 10**6, 3), WIDE[..., :3])
    ink = tiff(tmp_path / "c.tif", WIDE[..., :4], photometric=5)
    light = 65535 - WIDE[..., :4].astype(float)
    np.testing.assert_array_equal(images.read_levels(ink, 10**6, 4), WIDE[..., :4])
    np.testing.assert_allclose(images.read_levels(ink, 10**6, 3), light[..., :3] * light[..., 3:] / 65535, atol=0.6)
    white_is_zero = tiff(tmp_path / "d.tif", WIDE[..., :1], photometric=0)
    np.testing.assert_array_equal(images.read_levels(white_is_zero, 10**6, 1), 65535 - WIDE[..., :1])
    small = save(tmp_path / "e.tif", WIDE[..., 0].astype(np.int32))  # 32 bits, values that fit 16
    np.testing.assert_array_equal(images.read_labels(small), WIDE[..., 0])


def test_tiffs_that_pillow_would_cut_down_are_refused(tmp_path):
    for values, tags in ((WIDE[..., :3], {266: [2]}), (WIDE[..., :3], {259: [50000]}), (NOISE, {339: [2] * 3})):
        path = tiff(tmp_path / "a.tif", values, photometric=2, more=tags)
        with pytest.raises(UserError, match=r"a\.tif.* save it as 8 or 16-bit whole numbers"):
            images.read_image(path)
    four = save(tmp_path / "b.tif", np.dstack([NOISE, NOISE[..., 0]]), compression="jpeg")
    four.write_bytes(
        four.read_bytes().replace(struct.pack("<HHIHH", 338, 3, 1, 2, 0), struct.pack("<HHIHH", 338, 3, 1, 0, 0))
    )
    with pytest.raises(UserError, match="4 x 8 bits"):  # the fourth is no alpha, and would be left out
        images.read_image(four)


def test_only_max_pixels_limits_the_size(tmp_path, monkeypatch):
    for path in (save(tmp_path / "a.png", RGB), tiff(tmp_path / "a.tif", WIDE, extra=(0,) * 5)):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        images.read_levels(path, 10**4, 3 if path.suffix == ".png" else 6)


def test_smaller_copies_in_a_tiff_are_no_pages(tmp_path):
    path = tmp_path / "a.tif"
    copy = Image.fromarray(RGB[::2, ::2])
    copy.encoderinfo = {"tiffinfo": {254: 1}}
    Image.fromarray(RGB).save(path, save_all=True, append_images=[copy])
    np.testing.assert_array_equal(images.read_image(path), RGB)


@pytest.mark.parametrize("window", [(0, 65535), (100, 355), (1000.5, 3000.25), (70000, 80000), (6.8, 7.2), (5, 5)])
def test_a_window_is_linear_and_clipped(tmp_path, window):
    low, high = window
    path = png(tmp_path / "a.png", np.arange(65536).reshape(256, 256, 1), 0)
    got = images.read_image(path, channels=1, window=window).ravel().astype(float)
    expected = np.clip((np.arange(65536) - low) / max(high - low, 1e-9), 0, 1) * 255
    assert np.abs(got - expected).max() <= 0.5 + 1e-6
    eight = save(tmp_path / "b.png", RGB)
    np.testing.assert_array_equal(images.read_image(eight, window=window), RGB)  # 8 bits stay as they are


@pytest.mark.parametrize("orientation", range(9))
def test_exif_orientation_is_applied_to_images_and_masks(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation

    def expected(values):
        planes = []
        for plane in np.moveaxis(np.atleast_3d(values).astype(np.int32), 2, 0):
            image = Image.fromarray(np.ascontiguousarray(plane))
            image.getexif()[0x0112] = orientation
            planes.append(np.array(ImageOps.exif_transpose(image)))
        return np.dstack(planes)

    sixteen = WIDE[:6, :9, :3]
    pairs = [(save(tmp_path / f"a.{end}", RGB, exif=exif, **options), RGB) for end, options in
             {"png": {}, "tif": {}, "webp": {"lossless": True}}.items()]  # fmt: skip
    pairs.append((png(tmp_path / "b.png", sixteen, 2, chunks=[(b"eXIf", exif.tobytes()[6:])]), sixteen))
    pairs.append((tiff(tmp_path / "b.tif", sixteen, more={0x0112: [orientation]}), sixteen))
    pairs.append((save(tmp_path / "p.tif", PICTURES["P"][0], exif=exif), PICTURES["P"][1]))
    for path, values in pairs:
        np.testing.assert_array_equal(images.read_levels(path, 10**6, 3), expected(values), str(path))
        assert images.read_size(path) == expected(values).shape[:2]
    for name in ("m.png", "m.tif"):
        path = save(tmp_path / name, MASK * np.uint8(255), exif=exif)
        np.testing.assert_array_equal(images.read_mask(path), expected(MASK)[..., 0])
        np.testing.assert_array_equal(images.read_labels(path), expected(MASK)[..., 0] * 255)
    smooth = np.repeat(np.arange(0, 240, 10, np.uint8)[:, None], 16, 1)
    jpeg = images.read_image(save(tmp_path / "a.jpg", smooth, quality=98, exif=exif), channels=1)
    assert np.abs(jpeg.astype(int) - expected(smooth)).max() < 8


def stack(folder, numbers, array=RGB):
    for number in numbers:
        save(folder / f"a_{number}.png", array + np.uint8(int(number)))
    return folder / "a_{z}.png"


def test_a_stack_is_read_in_the_order_of_its_numbers(tmp_path):
    gray = RGB[..., 0] // 2
    path = stack(tmp_path, ["2", "10", "01", "100"], gray)
    for name in ("a_2.jpg", "a_.png", "a_x.png", "ba_3.png", "a_3.png.bak"):
        (tmp_path / name).write_text("not a slice")
    assert [file.name for file in images.slices(path)] == ["a_01.png", "a_2.png", "a_10.png", "a_100.png"]
    got = images.read_image(path, channels=4)
    np.testing.assert_array_equal(got, np.dstack([gray + np.uint8(add) for add in (1, 2, 10, 100)]))
    assert images.read_size(path) == gray.shape


def test_a_stack_of_16_bits_in_color_files(tmp_path):
    for number in range(2):
        png(tmp_path / f"a{number}.png", WIDE[..., [number] * 3], 2)
    np.testing.assert_array_equal(images.read_levels(tmp_path / "a{z}.png", 10**6, 2), WIDE[..., :2])


def test_a_stack_that_is_none_says_what_is_there(tmp_path):
    path = stack(tmp_path, "123")
    with pytest.raises(UserError, match=r"3 slices \(a_1\.png, a_2\.png, a_3\.png\), but IN_CHANNELS=4"):
        images.read_levels(path, 10**6, 4)
    stack(tmp_path, "4", RGB[:3])
    with pytest.raises(UserError, match=r"a_4\.png: 9 x 3 pixels, but a_1\.png beside it has 9 x 6"):
        images.read_levels(path, 10**6, 4)
    png(tmp_path / "a_4.png", WIDE[:6, :9, :1], 0)
    with pytest.raises(UserError, match=r"a_4\.png: 16 bits, but a_1\.png beside it has 8"):
        images.read_levels(path, 10**6, 4)
    stack(tmp_path, ["04"])
    with pytest.raises(UserError, match="have the same number"):
        images.slices(path)
    for missing in ("b_{z}.png", "nowhere/a_{z}.png"):
        with pytest.raises(UserError, match=r"no slices|no such folder"):
            images.slices(tmp_path / missing)


def test_class_maps_give_the_stored_values(tmp_path):
    labels = (RGB[..., 0] % 4).astype(np.uint8)
    files = {
        "gray.png": save(tmp_path / "gray.png", labels),
        "palette.png": save(tmp_path / "palette.png", with_palette(labels, [9, 9, 9, 8, 0, 0, 0, 7, 0, 5, 5, 5])),
        "palette.gif": save(tmp_path / "palette.gif", with_palette(labels, [9, 9, 9, 8, 0, 0, 0, 7, 0, 5, 5, 5])),
        "gray.gif": save(tmp_path / "gray.gif", labels * np.uint8(20)),
        "alpha.png": save(tmp_path / "alpha.png", np.dstack([labels, RGB[..., 1]])),
        "rgb.png": save(tmp_path / "rgb.png", thrice(labels)),
        "rgba.png": save(tmp_path / "rgba.png", np.dstack([labels] * 3 + [RGB[..., 1]])),
        "wide.png": png(tmp_path / "wide.png", labels[..., None], 0),
        "wide rgb.png": png(tmp_path / "wide rgb.png", thrice(labels), 2),
        "int.tif": save(tmp_path / "int.tif", labels.astype(np.int32)),
        "lzw.tif": save(tmp_path / "lzw.tif", labels, compression="tiff_lzw"),
    }
    for name, path in files.items():
        got = images.read_labels(path)
        assert got.dtype == (np.uint16 if "wide" in name or "int" in name else np.uint8)
        # GIF has no gray: Pillow stores 0, 20, 40, ... as indices 0, 1, 2, ... of a gray palette
        np.testing.assert_array_equal(got, labels * (20 if name == "gray.gif" else 1), name)
    np.testing.assert_array_equal(images.read_labels(save(tmp_path / "1.png", MASK * np.uint8(255), "1")), MASK)
    two = np.arange(12, dtype=np.uint8).reshape(2, 6) % 4  # four values of two bits in a byte
    packed = two.reshape(-1, 4)[:, :, None] << np.array([6, 4, 2, 0])[:, None]
    bits = png(tmp_path / "2bits.png", packed.sum(1).astype(np.uint8), 0, depth=2)
    np.testing.assert_array_equal(images.read_labels(bits), two.reshape(3, 4))
    np.testing.assert_array_equal(images.read_image(bits, channels=1)[..., 0], two.reshape(3, 4) * 85)


def test_a_class_map_in_colors_asks_for_their_table(tmp_path):
    path = save(tmp_path / "m.png", np.array([[[7, 7, 7], [1, 2, 3]]], np.uint8))
    with pytest.raises(UserError, match=r"r,g,b = 1,2,3 at row 0, column 1.*classes\.csv"):
        images.read_labels(path)
    np.testing.assert_array_equal(images.read_colors(path), [[[7, 7, 7], [1, 2, 3]]])
    with pytest.raises(UserError, match="16 bits a channel"):
        images.read_colors(png(tmp_path / "w.png", WIDE[..., :3], 2))


@pytest.mark.parametrize("kind", [
    "0/255", "0/1", "1-bit", "palette gif", "white first", "black palette", "rgb", "other value", "full", "16 bits",
    "16-bit rgb", "32 bits", "tif", "alpha"])  # fmt: skip
def test_binary_masks_of_every_writing_are_equal(tmp_path, kind):
    path = tmp_path / ("m.gif" if "gif" in kind else "m.tif" if kind in ("32 bits", "tif") else "m.png")
    expected = np.ones_like(MASK) if kind == "full" else MASK
    arrays = {
        "0/255": MASK * 255,
        "0/1": MASK,
        "1-bit": MASK * 255,
        "rgb": thrice(MASK * 255),
        "other value": MASK * 77,
        "full": expected * 255,
        "alpha": np.dstack([MASK * 255, RGB[..., 0]]),
        "tif": MASK * 255,
    }
    if kind == "palette gif":
        with_palette(MASK, [0, 0, 0, 255, 255, 255]).save(path)
    elif kind in ("white first", "black palette"):
        white = kind == "white first"
        save(path, with_palette(1 - MASK if white else MASK, [255, 255, 255, 0, 0, 0] if white else [0, 0, 0] * 2))
    elif kind.startswith("16"):
        rgb = "rgb" in kind
        png(path, np.dstack([MASK.astype(np.uint16) * 40000] * (3 if rgb else 1)), 2 if rgb else 0)
    elif kind == "32 bits":
        save(path, MASK.astype(np.int32) * 60000)
    else:
        save(path, arrays[kind].astype(np.uint8), "1" if kind == "1-bit" else None)
    np.testing.assert_array_equal(images.read_mask(path), expected)


def test_a_jpegs_smeared_mask_is_cut_at_the_middle(tmp_path):
    mask = np.zeros((64, 64), np.uint8)
    mask[13:47, 13:47] = 1
    path = save(tmp_path / "m.jpg", mask * np.uint8(255), quality=60)
    assert len(np.unique(np.asarray(Image.open(path)))) > 2
    assert (images.read_mask(path) != mask).mean() < 0.01


def test_a_folder_of_instances_is_their_union(tmp_path):
    first, second = np.zeros_like(MASK), np.zeros_like(MASK)
    first[0, 0], second[5, 8] = 255, 255
    save(tmp_path / "a.png", first)
    save(tmp_path / "b.png", second)
    assert images.read_mask(tmp_path).sum() == 2
    save(tmp_path / "c.png", np.zeros((3, 3), np.uint8))
    with pytest.raises(UserError, match=r"c\.png: 3 x 3 pixels, but a\.png beside it has 9 x 6"):
        images.read_mask(tmp_path)


def encoded(ending, **options):
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(ending, ending.upper()), **options)
    return buffer.getvalue()


CUT = {
    "a.jpg": encoded("jpg"),
    "progressive.jpg": encoded("jpg", progressive=True),
    "a.png": encoded("png"),
    "a.gif": encoded("gif"),
    "a.webp": encoded("webp"),
    "a.bmp": encoded("bmp"),
    **{f"{pack}.tif": encoded("tif", compression=pack) for pack in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg")},
}


@pytest.mark.parametrize("share", [0.1, 0.6, 0.95])
@pytest.mark.parametrize("name", CUT)
def test_a_file_that_is_cut_off_is_refused(tmp_path, name, share):
    path = tmp_path / name
    path.write_bytes(CUT[name])
    assert images.read_image(path).shape == NOISE.shape
    path.write_bytes(CUT[name][: int(len(CUT[name]) * share)])
    for read in (images.read_image, images.read_mask, images.read_labels):
        with pytest.raises(UserError, match=r"broken or cut off|not an image") as error:
            read(path)
        assert str(path) in str(error.value)


@pytest.mark.parametrize("way", WAYS)
def test_a_tiff_of_many_channels_that_is_cut_or_lacks_a_strip_is_refused(tmp_path, way):
    path = tiff(tmp_path / "a.tif", WIDE, extra=(0,) * 5, **WAYS[way])
    data = path.read_bytes()
    whole = images.read_levels(path, 10**6, 6)
    for share in (0.3, 0.6, 0.99):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(UserError):
            images.read_levels(path, 10**6, 6)
    if "deflate" in way or "predictor" in way:
        spoiled = bytearray(data)
        spoiled[200:210] = bytes(10)
        path.write_bytes(spoiled)
        with pytest.raises(UserError):
            images.read_levels(path, 10**6, 6)
    path.write_bytes(data)
    np.testing.assert_array_equal(images.read_levels(path, 10**6, 6), whole)


def test_a_tiff_whose_pixels_lie_elsewhere_is_refused(tmp_path):
    for tags in (
        {273: [10**9]},
        {273: [16]},
        {278: [0]},
        {279: []},
        {257: [10**5]},
        {277: [2000]},
        {322: [0], 323: [0]},
    ):
        path = tiff(tmp_path / "a.tif", WIDE, extra=(0,) * 5, more=tags)
        with pytest.raises(UserError, match=r"a\.tif"):
            images.read_levels(path, 10**7, 6)


def hostile(tmp_path):
    """Name -> words of the sentence that it must end in."""
    whole = encoded("png")
    at = whole.index(b"IDAT")
    length = struct.unpack(">I", whole[at - 4 : at])[0]
    changes = {"checksum.png": at + 4 + length, "flipped.png": len(whole) // 2}
    for name, position in changes.items():
        spoiled = bytearray(whole)
        spoiled[position] ^= 1
        (tmp_path / name).write_bytes(spoiled)
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_bytes(b"not an image")
    (tmp_path / "text.tif").write_bytes(b"II*\0 not an image")
    (tmp_path / "endless.png").write_bytes(whole[: whole.index(b"IEND") - 4])
    (tmp_path / "folder.png").mkdir()
    frames = [Image.fromarray(NOISE[..., i]) for i in range(2)]
    for name in ("pages.tif", "animated.gif", "animated.webp", "animated.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    save(tmp_path / "large.png", np.zeros((300, 400), np.uint8))
    tiff(tmp_path / "large.tif", np.zeros((300, 400, 5), np.uint16), pack=8)
    png(tmp_path / "large16.png", np.zeros((300, 400, 3), np.uint16), 2)
    bomb = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    bomb = struct.pack(">I", 13) + b"IHDR" + bomb + struct.pack(">I", zlib.crc32(b"IHDR" + bomb))
    (tmp_path / "bomb.png").write_bytes(whole[:8] + bomb + whole[33:])
    save(tmp_path / "float.tif", np.zeros((4, 4), np.float32))
    save(tmp_path / "big.tif", np.full((4, 4), 65536, np.int32))
    save(tmp_path / "negative.tif", np.full((4, 4), -1, np.int32))
    tiff(tmp_path / "floats.tif", np.zeros((4, 4, 3), np.uint32), more={339: [3, 3, 3]})
    return {
        "checksum.png": "checksum", "flipped.png": "broken or cut off", "empty.png": "not an image",
        "text.png": "not an image", "text.tif": "broken or cut off", "endless.png": "ends too early",
        "folder.png": "a folder, expected an image", "missing.png": "no such file", "pages.tif": "2 pages",
        "animated.gif": "2 frames", "animated.webp": "2 frames", "animated.png": "2 frames",
        "large.png": "400 x 300 pixels, more than MAX_PIXELS=100000", "large.tif": "400 x 300 pixels, more than",
        "large16.png": "400 x 300 pixels, more than", "bomb.png": "60000 x 60000 pixels, more than",
        "float.tif": "float values", "floats.tif": "float values", "big.tif": "65536", "negative.tif": "-1",
    }  # fmt: skip


def test_hostile_files_end_in_a_sentence_that_names_them(tmp_path):
    for name, words in hostile(tmp_path).items():
        for read in (images.read_image, images.read_labels, images.read_colors, images.read_gray):
            if read is images.read_gray and ("large" in name or "bomb" in name):
                continue  # it reads what we wrote, of any size
            with pytest.raises(UserError, match=words) as error:
                read(tmp_path / name, *(() if read is images.read_gray else (100_000,)))
            assert name in str(error.value)


@settings(max_examples=60)
@given(st.data())
def test_flipped_bytes_give_a_picture_or_a_sentence(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    samples = [*CUT.values(), tiff(folder / "six.tif", WIDE, tile=16, pack=8, predictor=2).read_bytes()]
    spoiled = bytearray(data.draw(st.sampled_from(samples)))
    for _ in range(data.draw(st.integers(1, 4))):
        end = data.draw(st.sampled_from([40, 400, len(spoiled)]))
        start = data.draw(st.sampled_from([0, max(0, len(spoiled) - 300)]))
        spoiled[min(start + data.draw(st.integers(0, end - 1)), len(spoiled) - 1)] = data.draw(st.integers(0, 255))
    path = folder / "flipped"
    path.write_bytes(spoiled)
    for read in (
        images.read_image,
        images.read_labels,
        images.read_size,
        lambda path: images.read_levels(path, 10**6, 6),
    ):
        try:
            read(path)
        except UserError as error:
            assert "flipped" in str(error)


def test_a_map_that_is_not_8_bit_gray_is_refused(tmp_path):
    np.testing.assert_array_equal(images.read_gray(save(tmp_path / "a.png", RGB[..., 0])), RGB[..., 0])
    png(tmp_path / "wide.png", WIDE[..., :1], 0)
    save(tmp_path / "rgb.png", RGB)
    for name in ("wide.png", "rgb.png"):
        with pytest.raises(UserError, match="a probability map is 8-bit gray"):
            images.read_gray(tmp_path / name)


def test_a_mask_with_several_values_is_refused(tmp_path):
    save(tmp_path / "m.png", np.array([[0, 128, 255]], np.uint8))
    with pytest.raises(UserError, match="has 3: 0, 128, 255"):
        images.read_mask(tmp_path / "m.png")


def test_sizes_that_differ_are_named(tmp_path):
    save(tmp_path / "i.png", RGB), save(tmp_path / "m.png", MASK[:5] * 255)
    with pytest.raises(UserError, match=r"m\.png: 9 x 5 pixels, but its image .*i\.png has 9 x 6"):
        DataSpec().read_pair(tmp_path, "i.png", "m.png")


@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from(["stretch", "fit", "none"]))
def test_geometry_round_trip_keeps_shape_and_constants(height, width, resize):
    size = (32, 48)
    image = np.full((height, width, 3), 9, np.uint8)
    frame = image_to_network(image, size, resize)
    assert frame.shape == ((height, width, 3) if resize == "none" else (*size, 3))
    assert (frame == 9).all()
    mask = mask_to_network(np.ones((height, width), np.uint8), size, resize)
    back = from_network(mask.astype(np.float32), (height, width), size, resize)
    assert back.shape == (height, width)
    assert (back == 1).all()


@pytest.mark.parametrize("resize", ["stretch", "fit", "none"])
@pytest.mark.parametrize("shape", [(120, 90), (90, 120), (64, 64), (31, 200)])
def test_a_disc_survives_the_round_trip_in_place(shape, resize):
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    disc = ((y - shape[0] * 0.4) ** 2 + (x - shape[1] * 0.6) ** 2 <= (min(shape) * 0.3) ** 2).astype(np.uint8)
    small = mask_to_network(disc, (64, 64), resize)
    back = from_network(small.astype(np.float32), shape, (64, 64), resize) >= 0.5
    assert 2 * (back & (disc > 0)).sum() / (back.sum() + disc.sum()) > 0.9


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 8, 65])
@pytest.mark.parametrize("resize", ["stretch", "fit", "none"])
@pytest.mark.parametrize("size", [(16, 40), (90, 70)])
def test_any_number_of_channels_is_resized_as_each_alone(size, resize, channels):
    image = np.random.default_rng(channels).integers(0, 256, (40, 50, channels)).astype(np.uint8)
    frame = image_to_network(image, size, resize)
    assert frame.shape == (*((40, 50) if resize == "none" else size), channels)
    alone = np.dstack([image_to_network(image[..., [c]], size, resize) for c in range(channels)])
    assert np.abs(frame.astype(int) - alone).max() <= 1  # OpenCV rounds one channel a little differently


RESIZED = st.sampled_from(["stretch", "fit", "none"])
SIDE = st.integers(1, 50)


@given(SIDE, SIDE, st.integers(0, 255), RESIZED)
def test_a_constant_class_map_stays_constant(height, width, value, resize):
    size = (24, 36)
    frame = labels_to_network(np.full((height, width), value, np.uint8), size, resize)
    assert frame.dtype == np.uint8
    assert frame.shape == ((height, width) if resize == "none" else size)
    top, left, high, wide = content_box((height, width), size, resize)
    assert (frame[top : top + high, left : left + wide] == value).all()
    frame[top : top + high, left : left + wide] = 255
    assert (frame == 255).all()


@given(SIDE, SIDE, st.lists(st.integers(0, 255), min_size=1, max_size=6), RESIZED, st.integers(0, 2**32 - 1))
def test_no_class_appears_that_was_not_there(height, width, values, resize, seed):
    labels = np.random.default_rng(seed).choice(np.array(values, np.uint8), (height, width))
    frame = labels_to_network(labels, (24, 36), resize, ignore=254)
    assert set(np.unique(frame)) <= {*np.unique(labels), 254}
    top, left, high, wide = content_box((height, width), (24, 36), resize)
    assert set(np.unique(frame[top : top + high, left : left + wide])) <= set(np.unique(labels))


@given(SIDE, SIDE, RESIZED, st.integers(0, 2**32 - 1))
def test_two_classes_are_a_mask_but_for_ties(height, width, resize, seed):
    size = (24, 36)
    mask = (np.random.default_rng(seed).random((height, width)) < 0.5).astype(np.uint8)
    top, left, high, wide = content_box((height, width), size, resize)
    inside = np.s_[top : top + high, left : left + wide]
    tie = np.abs(coverage_to_network(mask, size, resize)[inside] - 127.5) <= 1
    same = labels_to_network(mask, size, resize)[inside] == mask_to_network(mask, size, resize)[inside]
    assert (same | tie).all()


def test_each_small_pixel_takes_the_class_that_covers_most_of_it():
    labels = np.repeat(np.repeat([[0, 1], [2, 255]], 4, 0), 4, 1).astype(np.uint8)
    labels[0, :3], labels[4:6, :4], labels[4, 4:] = 3, 255, 3  # 3 of 16, half and a quarter of a small pixel
    expected = [[0, 1], [2, 255]]  # 2 shares its pixel with what is not labeled: it wins the tie
    np.testing.assert_array_equal(labels_to_network(labels, (2, 2), "stretch"), expected)
    half = np.array([[0, 5]], np.uint8)
    np.testing.assert_array_equal(labels_to_network(half, (1, 1), "stretch"), [[5]])
    np.testing.assert_array_equal(labels_to_network(half, (1, 1), "stretch", ignore=5), [[0]])


def jpeg(path: Path, image: np.ndarray, **options) -> Path:
    Image.fromarray(image).save(path, "JPEG", **options)
    return path


@pytest.mark.parametrize(
    "options",
    [
        {"subsampling": 0},
        {"subsampling": 1},
        {"subsampling": 2},
        {"subsampling": 2, "progressive": True},
        {"keep_rgb": True},
        {"restart_marker_rows": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("gray", [False, True])
def test_a_jpeg_has_the_same_pixels_with_and_without_simplejpeg(tmp_path, monkeypatch, options, orientation, gray):
    y, x = np.mgrid[0:53, 0:75]
    image = np.dstack([y * 4, x * 3, (x * y) % 256]).astype(np.uint8)
    image = image[..., 1] if gray else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = jpeg(tmp_path / "a.jpg", image, quality=80, exif=exif, **options)
    asked, fast = [], decode.simplejpeg.decode_jpeg
    monkeypatch.setattr(
        decode.simplejpeg, "decode_jpeg", lambda *args, **options: asked.append(1) or fast(*args, **options)
    )
    one = images.read_image(path)
    monkeypatch.setattr(decode, "simplejpeg", None)
    other = images.read_image(path)
    assert asked == [1] and one.shape == ((75, 53, 3) if orientation == 6 else (53, 75, 3))
    np.testing.assert_array_equal(one, other)


FRAMES = [((32, 48), "stretch"), ((128, 192), "stretch"), ((40, 40), "fit"), ((8, 8), "none"), ((12, 12), "stretch")]


@pytest.mark.parametrize("fast", [True, False], ids=["simplejpeg", "Pillow"])
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("gray", [False, True])
def test_a_large_jpeg_is_halved_by_its_decoder_for_each_frame(tmp_path, monkeypatch, fast, orientation, gray):
    y, x = np.mgrid[0:256, 0:384]
    image = 127 + 100 * np.dstack([np.sin(y / 21), np.cos(x / 33), np.sin((x + y) / 27)])
    image = image[..., 0] if gray else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = image if orientation == 1 else np.rot90(image)  # 6 is shown turned clockwise
    path = jpeg(tmp_path / "a.jpg", turned.astype(np.uint8), quality=92, exif=exif)
    spec, whole, decoded = DataSpec(channels=1 if gray else 3), images.read_image(path, channels=1 if gray else 3), []
    with decode.noting(lambda samples, _: decoded.append((samples.halved, samples.values.shape[:2]))):
        shape, both = spec.read_frames(path, FRAMES)
        first = [spec.read_frames(path, [frame])[1][0] for frame in FRAMES]
    monkeypatch.setattr(decode, "simplejpeg", decode.simplejpeg if fast else None)
    assert shape == whole.shape[:2] == (256, 384)
    eighth, half, own = (3, (32, 48)), (1, (128, 192)), (0, (256, 384))
    assert decoded == [eighth, half, own, eighth, half, eighth, own, eighth]  # beside others each once
    for (size, resize), frame, alone in zip(FRAMES, both, first, strict=True):
        expected = image_to_network(whole, size, resize)
        assert frame.shape == expected.shape
        np.testing.assert_array_equal(frame, alone)
        np.testing.assert_array_equal(frame, spec.read_frames(path, [(size, resize)])[1][0])  # by either decoder
        assert np.abs(frame.astype(int) - expected).mean() < 1


def test_only_a_jpeg_with_even_sides_is_halved_by_its_decoder(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (97, 128, 3)).astype(np.uint8)
    odd = jpeg(tmp_path / "odd.jpg", noise)
    Image.fromarray(noise[:96]).save(tmp_path / "a.png")
    Image.fromarray(noise[:96]).convert("CMYK").save(tmp_path / "cmyk.jpg")
    for path in (odd, tmp_path / "a.png", tmp_path / "cmyk.jpg"):
        decoded, whole = [], images.read_image(path)
        with decode.noting(lambda samples, _, decoded=decoded: decoded.append(samples.halved)):
            shape, frames = DataSpec().read_frames(path, [((24, 32), "stretch"), ((48, 64), "stretch")])
        assert shape == whole.shape[:2] and len(decoded) == 1 and not decoded[0]
        for frame, size in zip(frames, ((24, 32), (48, 64)), strict=True):
            np.testing.assert_array_equal(frame, image_to_network(whole, size, "stretch"))


SIMPLEJPEG = decode.simplejpeg


def test_of_a_broken_jpeg_pillows_word_counts(tmp_path, monkeypatch):
    whole = jpeg(
        tmp_path / "a.jpg", np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    ).read_bytes()
    for name, content in {"cut": whole[:-200], "flipped": whole[:900] + b"\xff\xd9" + whole[902:]}.items():
        path = tmp_path / f"{name}.jpg"
        path.write_bytes(content)
        for read in (images.read_image, lambda path: DataSpec().read_frames(path, [((16, 16), "stretch")])[1][0]):
            said = []
            for module in (SIMPLEJPEG, None):
                monkeypatch.setattr(decode, "simplejpeg", module)
                try:
                    said.append(read(path).tobytes())
                except UserError as error:
                    said.append(str(error))
            assert said[0] == said[1] and (name == "flipped" or "broken or cut off" in said[0])


@given(st.integers(1, 3), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_whole_blocks_are_averaged_and_nothing_moves(exponent, extra, seed):
    factor, size = 2**exponent, (12, 8)
    blocks = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    image = blocks.repeat(factor, 0).repeat(factor, 1)
    np.testing.assert_array_equal(image_to_network(image, size, "stretch"), blocks)
    y, x = np.mgrid[0 : 12 * factor + extra, 0 : 8 * factor + extra].astype(float)
    slope = (255 * (y + 0.5) / y.shape[0] / 2 + 255 * (x + 0.5) / x.shape[1] / 2).astype(np.uint8)
    frame = image_to_network(slope[..., None], size, "stretch")[..., 0].astype(float)
    y, x = np.mgrid[0:12, 0:8]
    assert np.abs(frame - (255 * (y + 0.5) / 12 / 2 + 255 * (x + 0.5) / 8 / 2))[1:-1, 1:-1].max() < 3


def test_fine_stripes_become_gray_not_other_stripes():
    for width, factor in ((1024, 4), (960, 3.75), (1000, 3.9)):
        stripes = np.zeros((width, width, 1), np.uint8)
        stripes[:, ::2] = 255
        side = round(width / factor)
        frame = image_to_network(stripes, (side, side), "stretch").astype(float)
        assert np.abs(frame - 127.5).max() < 30
