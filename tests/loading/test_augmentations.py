"""Augmentation on the CPU: the old pipelines as they were, the new ones' promises, crops."""

import pickle
import random

import albumentations as A
import cv2
import numpy as np
import pytest

from loading import augmentations, random_crops
from tools.errors import UserError

NEW = ["affine", "nails", "strong"]


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def by_hand(name, square):
    """The pipelines as they were before there was a table of strengths."""
    color = A.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05, p=0.5)
    affine = {"border_mode": cv2.BORDER_REFLECT_101, "mask_interpolation": cv2.INTER_LINEAR}
    flips = [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)]
    upright = A.Affine(scale=(0.9, 1.1), rotate=(-7, 7), translate_percent=(-0.06, 0.06), p=0.5, **affine)
    turned = A.Affine(scale=(0.8, 1.25), translate_percent=(-0.1, 0.1), p=0.7, **affine)
    return {
        "flips": flips,
        "upright": [A.HorizontalFlip(p=0.5), upright, color],
        "turns": [*([A.SquareSymmetry(p=1)] if square else flips), turned, color],
    }[name]


@pytest.mark.parametrize("shape", [(48, 64, 3), (64, 64, 3)])
@pytest.mark.parametrize("name", ["flips", "upright", "turns"])
def test_the_first_pipelines_are_what_they_always_were(name, shape):
    image, mask = noise(shape), noise((1, *shape[:2])) // 128
    compose, augment = A.Compose(by_hand(name, shape[0] == shape[1])), augmentations.make(name)
    for row in range(12):
        sequence = np.random.SeedSequence((5, 1, row))
        compose.set_random_state(np.random.default_rng(sequence), random.Random(int(sequence.generate_state(1)[0])))
        expected, got = compose(image=image, masks=list(mask)), augment(image, mask, (5, 1, row))
        assert np.array_equal(got[0], expected["image"]) and np.array_equal(got[1][0], expected["masks"][0])


@pytest.mark.parametrize("shape", [(48, 64), (64, 64), (9, 40)])
@pytest.mark.parametrize("name", NEW)
def test_class_indices_stay_and_any_channels_and_sizes_are_taken(name, shape):
    augment = augmentations.make(name, labels=True)
    labels = np.zeros((1, *shape), np.uint8)
    labels[0, 2:6, 5:30], labels[0, 6:] = 7, 255
    for channels in (1, 2, 3, 5, 13):
        image = noise((*shape, channels))
        for row in range(12):
            picture, moved = augment(image, labels, (0, 0, row))
            assert picture.shape == image.shape and picture.dtype == np.uint8
            assert moved.shape == labels.shape and set(np.unique(moved)) <= {0, 7, 255}


@pytest.mark.parametrize("shape", [(48, 64), (64, 64)])
@pytest.mark.parametrize("name", NEW)
def test_new_pipelines_move_image_and_mask_together(name, shape, monkeypatch):
    steps = augmentations.STRENGTHS[name]
    moving = {step: steps[step] for step in steps if step in augmentations.GEOMETRIC}
    monkeypatch.setitem(augmentations.STRENGTHS, name, moving)
    augment = augmentations.make(name)
    mask = np.zeros((2, *shape), np.uint8)
    mask[0, 10:30, 20:50], mask[1, 35:] = 1, 1
    image = np.stack([mask[0], mask[1], mask[0]], -1) * np.uint8(200)
    moves = 0
    for row in range(40):
        picture, moved = augment(image, mask, (0, 0, row))
        assert set(np.unique(moved)) <= {0, 1}
        for plane in (0, 1):
            assert ((picture[..., plane] > 99) != (moved[plane] > 0)).mean() < 0.01
        moves += not np.array_equal(moved, mask)
    assert moves > 25


@pytest.mark.parametrize("name", NEW)
def test_a_key_decides_everything(name):
    augment, image, mask = augmentations.make(name), noise((32, 48, 3)), noise((1, 32, 48)) // 128
    first = [augment(image, mask, (1, 2, row)) for row in range(20)]
    other = pickle.loads(pickle.dumps(augment))  # as a spawned worker gets it
    for row in reversed(range(20)):
        picture, moved = other(image, mask, (1, 2, row))
        assert np.array_equal(picture, first[row][0]) and np.array_equal(moved, first[row][1])
    assert len({picture.tobytes() for picture, _ in first}) >= (8 if name == "affine" else 15)
    assert any(not np.array_equal(augment(image, mask, (1, 3, row))[0], first[row][0]) for row in range(20))


def test_what_is_erased_from_the_image_stays_in_the_mask(monkeypatch):
    erase = {**augmentations.STRENGTHS["strong"]["erase"], "p": 1.0}
    monkeypatch.setitem(augmentations.STRENGTHS, "strong", {"erase": erase})
    image, mask = np.full((64, 64, 3), 200, np.uint8), np.ones((1, 64, 64), np.uint8)
    augment, shares = augmentations.make("strong"), []
    for row in range(20):
        picture, moved = augment(image, mask, (0, 0, row))
        assert moved.all() and set(np.unique(picture)) == {0, 200}
        shares.append((picture == 0).mean())
    assert 0.045 < max(shares) < 0.13  # three rectangles of at most 0.04 each


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_hue_and_saturation_are_changed_in_rgb_alone(channels, monkeypatch):
    strength = {**augmentations.STRENGTHS["nails"]["saturation"], "p": 1.0}
    monkeypatch.setitem(augmentations.STRENGTHS, "nails", {"saturation": strength})
    image, mask = noise((20, 20, channels)), np.zeros((1, 20, 20), np.uint8)
    picture, _ = augmentations.make("nails")(image, mask, (0, 0, 0))
    assert np.array_equal(picture, image) == (channels != 3)


def test_clahe_is_for_gray_and_rgb(monkeypatch):
    strength = {**augmentations.STRENGTHS["nails"]["light"], "brightness": 0.0, "contrast": 0.0, "p": 1.0}
    monkeypatch.setitem(augmentations.STRENGTHS, "nails", {"light": strength})
    augment, mask = augmentations.make("nails"), np.zeros((1, 32, 32), np.uint8)
    for channels, fewest, most in ((1, 5, 25), (3, 5, 25), (5, 0, 0)):  # of 30 samples; the others' levels stay
        image = noise((32, 32, channels)) // 4
        changed = sum(not np.array_equal(augment(image, mask, (0, 0, row))[0], image) for row in range(30))
        assert fewest <= changed <= most


def test_none_and_a_typing_error():
    assert augmentations.make("none") is None
    with pytest.raises(UserError, match=r"AUGMENT=stong.*strong"):
        augmentations.make("stong")


def place(height=30, width=40):
    """An image whose two channels are each pixel's row and column."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows, columns], -1).astype(np.uint8)


def test_a_crop_is_a_part_of_the_image_and_the_same_of_the_mask():
    image, corners = place(), set()
    mask = (image.sum(-1) % 7)[None].astype(np.uint8)
    for row in range(60):
        part, cut = random_crops.crop(image, mask, (12, 16), (0, 0, row), 0.0)
        top, left = map(int, part[0, 0])
        assert np.array_equal(part, image[top : top + 12, left : left + 16])
        assert np.array_equal(cut, mask[:, top : top + 12, left : left + 16])
        again = random_crops.crop(image, mask, (12, 16), (0, 0, row), 0.0)
        assert np.array_equal(again[0], part) and np.array_equal(again[1], cut)
        corners.add((top, left))
    assert len(corners) > 40
    assert max(top for top, _ in corners) == 18 and min(left for _, left in corners) <= 1  # the borders are reached


@pytest.mark.parametrize("labels", [False, True])
def test_a_crop_looks_for_rare_classes(labels):
    mask = np.zeros((1 if labels else 2, 60, 80), np.uint8)
    if labels:
        mask[0, :, :40], mask[0, 59, 79], mask[0, 20:30, 60:70] = 1, 2, 255
    else:
        mask[0, :, :40], mask[1, 59, 79] = 1, 1
    image, rare, some = noise((60, 80, 3)), 0, 0
    for row in range(100):
        _, cut = random_crops.crop(image, mask, (10, 10), (3, 0, row), 1.0, labels)
        found = [(cut == 1).any(), (cut == 2).any()] if labels else cut.any((1, 2))
        rare, some = rare + found[1], some + (found[0] or found[1])
    assert some == 100 and 30 < rare < 70  # one pixel of 4800, but one class of two
    half = [random_crops.crop(image, mask, (10, 10), (3, 0, row), 0.4, labels)[1] for row in range(200)]
    share = np.mean([(cut == 2).any() if labels else cut[1].any() for cut in half])
    assert 0.1 < share < 0.3


def test_the_background_is_no_foreground_whatever_its_index():
    mask = np.full((1, 50, 50), 3, np.uint8)
    mask[0, 0, 0] = 0
    for row in range(20):
        assert (random_crops.crop(noise((50, 50, 3)), mask, (5, 5), (0, 0, row), 1.0, True, 3)[1] == 0).any()
    empty = random_crops.crop(noise((50, 50, 3)), mask * 0, (5, 5), (0, 0, 1), 1.0, True)
    assert empty[1].shape == (1, 5, 5) and not empty[1].any()


def test_a_small_image_is_reflected_and_its_mask_with_it():
    image = place(6, 40)
    mask = image[..., 0][None]
    part, cut = random_crops.crop(image, mask, (20, 10), (0, 0, 0), 0.0)
    assert part.shape == (20, 10, 2) and np.array_equal(cut[0], part[..., 0])
    assert part[5:9, 0, 0].tolist() == [2, 1, 0, 1] and (np.diff(part[..., 1].astype(int), axis=1) == 1).all()
