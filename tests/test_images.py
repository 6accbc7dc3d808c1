"""The one decode function, and the resize in both directions."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import images
from errors import UserError

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)
MASK = (np.random.default_rng(1).random((6, 9)) < 0.5).astype(np.uint8)


def save(path, array, mode=None, **options):
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "wrong.jpg"])
def test_lossless_formats_come_back_by_content_not_by_name(tmp_path, name):
    path = save(tmp_path / name, RGB, format="PNG" if name == "wrong.jpg" else None)
    np.testing.assert_array_equal(images.read_image(path), RGB)


def test_modes_become_rgb_by_the_stated_rules(tmp_path):
    alpha = np.dstack([RGB, np.full(RGB.shape[:2], 7, np.uint8)])
    np.testing.assert_array_equal(images.read_image(save(tmp_path / "rgba.png", alpha)), RGB)
    grey = RGB[..., 0]
    np.testing.assert_array_equal(images.read_image(save(tmp_path / "grey.png", grey)), np.dstack([grey] * 3))
    palette = Image.fromarray(MASK).convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    colours = np.array([[10, 20, 30], [40, 50, 60]], np.uint8)[MASK]
    np.testing.assert_array_equal(images.read_image(save(tmp_path / "palette.png", palette)), colours)


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees to show"
    path = save(tmp_path / "turned.png", RGB, exif=exif)
    np.testing.assert_array_equal(images.read_image(path), np.rot90(RGB, -1))


@pytest.mark.parametrize(
    "kind", ["0/255", "0/1", "1-bit", "palette gif", "white first", "black palette", "rgb", "other value", "full"]
)
def test_binary_masks_of_every_writing_are_equal(tmp_path, kind):
    path, expected = tmp_path / ("m.gif" if "gif" in kind else "m.png"), MASK
    if kind == "palette gif":
        import demo

        demo._palette(MASK).save(path)
    elif kind in ("white first", "black palette"):
        palette = Image.fromarray(1 - MASK if kind == "white first" else MASK).convert("P")
        palette.putpalette([255, 255, 255, 0, 0, 0] if kind == "white first" else [0, 0, 0] * 2)
        save(path, palette)
    elif kind == "full":
        expected = np.ones_like(MASK)
        save(path, expected * np.uint8(255))
    else:
        arrays = {
            "0/255": MASK * 255,
            "0/1": MASK,
            "1-bit": MASK * 255,
            "rgb": np.dstack([MASK * 255] * 3),
            "other value": MASK * 77,
        }
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


def hostile(tmp_path):
    """Name -> a file that must end in a sentence."""
    png, jpeg = io.BytesIO(), io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(png, "PNG")
    Image.fromarray(noise).save(jpeg, "JPEG")
    flipped = bytearray(png.getvalue())
    flipped[len(flipped) // 2] ^= 255
    data = {
        "empty.png": b"",
        "text.png": b"not an image",
        "cut.png": png.getvalue()[:2000],
        "cut.jpg": jpeg.getvalue()[: len(jpeg.getvalue()) * 6 // 10],
        "flipped.png": bytes(flipped),
    }
    for name, content in data.items():
        (tmp_path / name).write_bytes(content)
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "16bit.png")
    frames = [Image.fromarray(noise[..., i]) for i in range(2)]
    frames[0].save(tmp_path / "animated.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(np.zeros((300, 400), np.uint8)).save(tmp_path / "large.png")
    return [*data, "16bit.png", "animated.gif", "large.png", "missing.png"]


def test_hostile_files_end_in_a_sentence_that_names_them(tmp_path):
    names = hostile(tmp_path)
    assert len(names) == 9
    for name in names:
        with pytest.raises(UserError) as error:
            images.read_image(tmp_path / name, max_pixels=100_000)
        assert name in str(error.value)


def test_a_mask_with_several_values_is_refused(tmp_path):
    save(tmp_path / "m.png", np.array([[0, 128, 255]], np.uint8))
    with pytest.raises(UserError, match="has 3: 0, 128, 255"):
        images.read_mask(tmp_path / "m.png")


def test_sizes_that_differ_are_named(tmp_path):
    image, mask = save(tmp_path / "i.png", RGB), save(tmp_path / "m.png", MASK[:5] * 255)
    with pytest.raises(UserError, match=r"m\.png: 9 x 5 pixels, but its image .*i\.png has 9 x 6"):
        images.read_pair(image, mask)


@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from(["stretch", "fit", "none"]))
def test_geometry_round_trip_keeps_shape_and_constants(height, width, resize):
    size = (32, 48)
    image = np.full((height, width, 3), 9, np.uint8)
    frame = images.image_to_network(image, size, resize)
    assert frame.shape == ((height, width, 3) if resize == "none" else (*size, 3))
    assert (frame == 9).all()
    mask = images.mask_to_network(np.ones((height, width), np.uint8), size, resize)
    back = images.from_network(mask.astype(np.float32), (height, width), size, resize)
    assert back.shape == (height, width)
    assert (back == 1).all()


@pytest.mark.parametrize("resize", ["stretch", "fit", "none"])
@pytest.mark.parametrize("shape", [(120, 90), (90, 120), (64, 64), (31, 200)])
def test_a_disc_survives_the_round_trip_in_place(shape, resize):
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    disc = ((y - shape[0] * 0.4) ** 2 + (x - shape[1] * 0.6) ** 2 <= (min(shape) * 0.3) ** 2).astype(np.uint8)
    small = images.mask_to_network(disc, (64, 64), resize)
    back = images.from_network(small.astype(np.float32), shape, (64, 64), resize) >= 0.5
    assert 2 * (back & (disc > 0)).sum() / (back.sum() + disc.sum()) > 0.9
