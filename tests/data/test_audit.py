"""The leak audit: planted copies are found, different pictures are not called copies, and it stays cheap."""

import time
from functools import cache

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.leak_audit import alignment, candidates, spectra
from data.leak_audit import copies as copies_module
from scenes import car_studio, cars

HEIGHT, WIDTH, CARS, VIEWS = 160, 240, 14, (1, 2, 5, 9, 10)


@cache
def pictures():
    """Rendered cars, (car, view) -> uint8 (160, 240, 3); cars 4 and 29 of this seed are as alike as two can be."""
    numbers = [*range(CARS - 2), 29, 22]
    return {
        (number, view): car_studio.render(cars.make_car(42, number), view, HEIGHT, WIDTH, 42)[0]
        for number in numbers
        for view in VIEWS
    }


def jpeg(image, quality):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def resized(image, factor):
    size = round(image.shape[1] * factor), round(image.shape[0] * factor)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)


def exposed(image, gain, shift=0.0):
    return np.clip(image * np.float32(gain) + shift + 0.5, 0, 255).astype(np.uint8)


def cropped(image, random):
    height, width = image.shape[:2]
    top, bottom, left, right = random.uniform(0, 0.08, 4) * (random.random(4) < 0.7)
    return image[
        round(top * height) : height - round(bottom * height), round(left * width) : width - round(right * width)
    ]


def any_version(image, random):
    return np.ascontiguousarray(alignment.turned(image, int(random.integers(1, 8))))


KINDS = {
    "the same": lambda image, random: image.copy(),
    "JPEG 40": lambda image, random: jpeg(image, 40),
    "JPEG 75": lambda image, random: jpeg(image, 75),
    "0.4 as large": lambda image, random: resized(image, 0.4),
    "0.7 as large": lambda image, random: resized(image, 0.7),
    "1.5 as large": lambda image, random: resized(image, 1.5),
    "brighter": lambda image, random: exposed(image, 1.15),
    "brighter by addition": lambda image, random: exposed(image, 1, 38),
    "darker": lambda image, random: exposed(image, 0.85),
    "darker by subtraction": lambda image, random: exposed(image, 1, -38),
    "more contrast": lambda image, random: exposed(image, 1.15, -0.15 * 128),
    "less contrast": lambda image, random: exposed(image, 0.85, 0.15 * 128),
    "mirrored": lambda image, random: np.ascontiguousarray(image[:, ::-1]),
    "mirrored or turned": any_version,
    "cropped": cropped,
    "cropped at the left": lambda image, random: image[:, round(0.08 * image.shape[1]) :],
    "cropped all around": lambda image, random: image[13:-13, 19:-19],
    "mirrored and recompressed": lambda image, random: jpeg(any_version(image, random), 40),
    "cropped and brighter": lambda image, random: exposed(cropped(image, random), 1.15),
    "cropped and darker": lambda image, random: exposed(cropped(image, random), 0.85),
    "cropped and turned": lambda image, random: any_version(cropped(image, random), random),
}


@cache
def audited(grouped):
    """The pool of all cars' pictures and five copies of each kind -> origin and kind of each, pairs."""
    random, origins, pool = np.random.default_rng(7), list(pictures()), list(pictures().values())
    kinds = [""] * len(pool)
    for kind, plant in KINDS.items():
        for choice in random.choice(len(pictures()), 5, replace=False):
            origins.append(origins[choice])
            pool.append(plant(pool[choice], random))
            kinds.append(kind)
    groups = [
        f"copy {row}" if kind else f"car {origin[0]}"
        for row, (origin, kind) in enumerate(zip(origins, kinds, strict=True))
    ]
    thumbnails = np.stack([spectra.thumbnail(image) for image in pool])
    return origins, kinds, copies_module.copies(thumbnails, lambda row: pool[row], groups if grouped else None)


@pytest.mark.parametrize("kind", KINDS)
def test_every_planted_copy_is_surely_found(kind):
    origins, kinds, pairs = audited(True)
    tied = copies_module.tie([f"{row:04d}" for row in range(len(origins))], pairs)
    rows = [row for row, name in enumerate(kinds) if name == kind]
    assert len(rows) == 5
    assert [row for row in rows if tied[row] != tied[list(pictures()).index(origins[row])]] == []


@pytest.mark.parametrize("grouped", [True, False])
def test_two_cars_or_two_views_are_never_called_copies(grouped):
    origins, _, pairs = audited(grouped)
    different = [pair for pair in pairs if origins[pair.first] != origins[pair.second]]
    assert [pair for pair in different if pair.sure] == []
    assert all(0 <= pair.score <= 1 and pair.first < pair.second for pair in pairs)
    assert pairs == sorted(pairs, key=lambda pair: (pair.first, pair.second))


def test_two_hundred_pairs_of_different_cars_compared_at_full_resolution_are_not_copies():
    """Same and neighboring views, all of them compared, whatever the thumbnails say."""
    names, images = list(pictures()), list(pictures().values())
    alike = [
        (one, two)
        for one in range(len(names))
        for two in range(one + 1, len(names))
        if names[one][0] != names[two][0] and names[one][1] == names[two][1]
    ]
    alike.sort(key=lambda pair: np.abs(images[pair[0]].astype(float) - images[pair[1]]).mean())
    views = [(one, two) for one in range(len(names)) for two in range(one) if names[one][0] == names[two][0]]
    worst = [alignment.compare(images[one], images[two], np.zeros(4))[0] for one, two in alike[:170] + views[:30]]
    assert len(worst) == 200
    assert min(worst) > 1.3 * copies_module.SURE


@given(st.integers(0, 2**32 - 1), st.integers(0, 7))
@settings(max_examples=40, deadline=None)
def test_the_descriptor_is_the_same_for_all_eight_versions(seed, version):
    thumb = np.random.default_rng(seed).integers(0, 256, (64, 64)).astype(np.uint8)
    lowest = spectra.spectra_of(np.stack([thumb, alignment.turned(thumb, version)]))
    coarse = spectra.cropped(lowest, candidates.WINDOWS[0])
    np.testing.assert_allclose(*spectra.invariants(coarse), atol=1e-4)
    np.testing.assert_allclose(spectra.turned(lowest[0], version), lowest[1], atol=0.05)


def found(images, groups=None):
    thumbnails = np.stack([spectra.thumbnail(image) for image in images])
    return copies_module.copies(thumbnails, lambda row: images[row], groups)


def test_every_mirrored_and_turned_copy_has_its_name_and_nothing_else_is_found():
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (8, 11, 3)).astype(np.uint8)
    versions = [np.ascontiguousarray(alignment.turned(image, version)) for version in range(8)]
    pairs = found([*versions, random.integers(0, 256, (8, 11, 3)).astype(np.uint8), random.permutation(image)])
    assert copies_module.tie(list("abcdefghij"), pairs) == list("aaaaaaaaij")
    assert all(pair.how == alignment.relation(versions[pair.first], versions[pair.second]) for pair in pairs)


def test_a_folder_of_equal_copies_is_compared_with_the_first_only():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    calls, start = [], time.process_time()
    pairs = copies_module.copies(np.stack([spectra.thumbnail(image)] * 1000), lambda row: calls.append(row) or image)
    assert [(pair.first, pair.second) for pair in pairs] == [(0, row) for row in range(1, 1000)]
    assert len(calls) <= 1000
    assert time.process_time() - start < 5


def test_pictures_without_texture_are_copies_only_to_the_pixel():
    black, gray = np.zeros((30, 40, 3), np.uint8), np.full((30, 40, 3), 90, np.uint8)
    speck = black.copy()
    speck[3, 4] = 1
    images = [black, gray, speck, black.copy(), black[:20], np.ascontiguousarray(speck[:, ::-1]), black[:, :30]]
    pairs = {(pair.first, pair.second): pair for pair in found(images)}
    assert set(pairs) == {(0, 3), (2, 5)}
    assert pairs[2, 5].how == "mirrored"
    assert pairs[2, 5].sure


@pytest.mark.parametrize(
    "shape", [(1, 1, 3), (3, 200, 3), (200, 3, 3), (50, 40, 1), (50, 40, 4), (50, 40, 7), (2, 2, 2)]
)
def test_any_size_and_any_number_of_channels(shape):
    random = np.random.default_rng(3)
    images = [random.integers(0, 256, shape).astype(np.uint8) for _ in range(5)]
    assert spectra.thumbnail(images[0]).shape == (64, 64)
    assert spectra.thumbnail(images[0]).dtype == np.uint8
    pairs = found([*images, np.ascontiguousarray(images[0][::-1]), images[1].copy()])
    assert copies_module.tie(list("abcdefg"), [pair for pair in pairs if pair.score == 1]) == list("abcdeab")


def test_an_empty_and_a_single_set():
    assert copies_module.copies(np.zeros((0, 64, 64), np.uint8), lambda row: None) == []
    assert found([pictures()[0, 1]]) == []


def test_a_gray_copy_of_a_color_picture():
    image = pictures()[0, 2]
    pairs = found([image, cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], pictures()[1, 2]])
    assert [(pair.first, pair.second, pair.sure) for pair in pairs] == [(0, 1, True)]


def test_pairs_of_one_group_are_left_out():
    image = pictures()[0, 1]
    copies = [image, jpeg(image, 60), image.copy(), pictures()[1, 5]]
    assert found(copies, ["a", "a", "a", "b"]) == []
    assert copies_module.tie(["a", "b", "b", "c"], found(copies, ["a", "b", "b", "c"])) == ["a", "a", "a", "c"]


def pair(first, second, sure=True):
    return copies_module.Pair(first, second, "mirrored", sure, 0.9)


def test_only_sure_pairs_tie_groups_and_they_chain():
    pairs = [pair(0, 1), pair(1, 2), pair(3, 4, sure=False)]
    assert copies_module.tie(["d", "b", "c", "a", "e"], pairs) == ["b", "b", "b", "a", "e"]


def test_copies_of_one_original_are_across_folds_although_never_compared():
    leaks = copies_module.across([pair(0, 1), pair(0, 2), pair(3, 4, sure=False), pair(5, 6)], [0, 0, 1, 0, 1, 2, 2])
    assert [(leak.first, leak.second) for leak in leaks] == [(0, 2), (1, 2), (3, 4)]
    assert [leak.sure for leak in leaks] == [True, True, False]
    assert leaks[1].how == "copies of one picture"


def test_an_unsure_pair_makes_no_chain():
    assert copies_module.across([pair(0, 1, sure=False), pair(1, 2)], [0, 1, 1]) == [pair(0, 1, sure=False)]


@pytest.mark.parametrize("channels", [2, 5, 9])
def test_near_copies_of_stacks_are_found(channels):
    random = np.random.default_rng(0)
    base = cv2.GaussianBlur(random.integers(0, 255, (96, 128, channels)).astype(np.float32).mean(2), (0, 0), 3)
    base = np.clip((base - base.min()) * (255 / np.ptp(base)), 0, 255).astype(np.uint8)
    stack = np.repeat(base[..., None], channels, axis=2)
    darker = (stack * 0.9).astype(np.uint8)
    thumbnails = np.stack([spectra.thumbnail(image) for image in (stack, darker)])
    pairs = copies_module.copies(thumbnails, lambda row: (stack, darker)[row])
    assert [(pair.first, pair.second, pair.sure) for pair in pairs] == [(0, 1, True)]
