"""Surface distances and rims against MONAI, scipy and the papers' definitions, and what holds for any two masks."""

import math
import warnings

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from scipy import ndimage
from scipy.spatial.distance import directed_hausdorff

from metrics import surface_distances

PAIR = stnp.arrays(np.uint8, (2, 9, 12), elements=st.integers(0, 1), fill=st.integers(0, 1))
SCORES = {"surface_dice": surface_distances.surface_dice, "boundary_iou": surface_distances.boundary_iou}
DISTANCES = {"hausdorff": surface_distances.hausdorff, "hd95": surface_distances.hd95, "assd": surface_distances.assd}
EVERY = SCORES | DISTANCES
EMPTY = np.zeros((30, 40), np.uint8)


def blobs(seed, shape=(90, 130)):
    """Two masks whose smooth outlines differ, some of them cut off by the image's edges."""
    random = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(random.normal(size=(2, *shape)), (0, 7, 7))
    first = noise[0] > 0.02
    return first.astype(np.uint8), (noise[0] + 0.4 * noise[1] > 0.02).astype(np.uint8)


def monai_values(prediction, truth, tolerance=2.0):
    tensors = [torch.from_numpy(mask[None, None]) for mask in (prediction, truth)]
    all_of = {"include_background": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of empty masks
        return {
            "hausdorff": compute_hausdorff_distance(*tensors, **all_of).item(),
            "hd95": compute_hausdorff_distance(*tensors, **all_of, percentile=95).item(),
            "assd": compute_average_surface_distance(*tensors, **all_of, symmetric=True).item(),
            "surface_dice": compute_surface_dice(*tensors, [tolerance], **all_of).item(),
        }


def cheng(prediction, truth, share):
    """Boundary IoU step by step: the mask less what is left of it after d erosions, beyond the image background."""
    steps = max(1, round(share * np.sqrt(truth.shape[0] ** 2 + truth.shape[1] ** 2)))
    square = np.ones((3, 3), bool)
    rims = [mask & ~ndimage.binary_erosion(mask, square, steps, border_value=0) for mask in (prediction > 0, truth > 0)]
    return (rims[0] & rims[1]).sum() / (rims[0] | rims[1]).sum()


def assert_as_monai(prediction, truth, tolerance):
    theirs = monai_values(prediction, truth, tolerance)
    for name, function in DISTANCES.items():
        assert function(prediction, truth) == pytest.approx(theirs[name], rel=1e-6, abs=1e-6), name
    ours = surface_distances.surface_dice(prediction, truth, tolerance=tolerance)
    assert ours == pytest.approx(theirs["surface_dice"], abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(PAIR, st.sampled_from([0.0, 1.0, 1.5, math.sqrt(5), 3.0]))
def test_small_masks_agree_with_monai(pair, tolerance):
    if pair[0].any() and pair[1].any():
        assert_as_monai(*pair, tolerance)


@pytest.mark.parametrize("seed", range(4))
def test_outlines_agree_with_monai(seed):
    assert_as_monai(*blobs(seed), tolerance=2.0)
    assert 0.05 < surface_distances.surface_dice(*blobs(seed)) < 0.95  # a comparison that could fail


def test_the_empty_cases_differ_from_monais_as_the_table_says():
    truth = EMPTY.copy()
    truth[3:6, 4:9] = 1
    one, both = monai_values(EMPTY, truth), monai_values(EMPTY, EMPTY)
    assert one["hausdorff"] == one["assd"] == math.inf
    assert math.isnan(one["hd95"])
    assert one["surface_dice"] == 0
    assert all(math.isnan(value) for value in both.values())


@pytest.mark.parametrize("policy", ["one", "zero", "skip"])
def test_empty_masks(policy):
    truth = EMPTY.copy()
    truth[3:6, 4:9] = 1
    worth = {"one": 1.0, "zero": 0.0, "skip": math.nan}[policy]
    apart = math.nan if policy == "skip" else 0.0
    for name, function in EVERY.items():
        one_empty = 50.0 if name in DISTANCES else 0.0
        assert function(EMPTY, truth, None, policy) == one_empty == function(truth, EMPTY, None, policy), name
        nothing = function(EMPTY, EMPTY, None, policy)
        assert nothing == pytest.approx(apart if name in DISTANCES else worth, nan_ok=True), name


@settings(max_examples=60, deadline=None)
@given(PAIR, st.sampled_from([0.02, 0.1, 0.2]))
def test_boundary_iou_is_the_papers(pair, share):
    if pair.any():
        assert surface_distances.boundary_iou(*pair, dilation=share) == pytest.approx(cheng(*pair, share), abs=1e-12)


@pytest.mark.parametrize("share", [0.005, 0.02, 0.08])
def test_rims_of_outlines_are_the_papers(share):
    pair = blobs(7)
    assert surface_distances.boundary_iou(*pair, dilation=share) == pytest.approx(cheng(*pair, share), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(PAIR)
def test_the_distance_of_regions_is_scipys(pair):
    if not (pair[0].any() and pair[1].any()):
        return
    first, second = (np.argwhere(mask) for mask in pair)
    theirs = max(directed_hausdorff(first, second)[0], directed_hausdorff(second, first)[0])
    assert surface_distances.region_hausdorff(*pair) == pytest.approx(theirs, abs=1e-9)


def test_a_filled_ring_is_far_from_the_ring_only_by_its_inside():
    y, x = np.mgrid[:41, :41]
    radius = np.hypot(y - 20, x - 20)
    disc, ring = (radius <= 15).astype(np.uint8), ((radius <= 15) & (radius > 10)).astype(np.uint8)
    assert surface_distances.region_hausdorff(disc, ring) == pytest.approx(radius[ring > 0].min())
    assert surface_distances.hausdorff(disc, ring) < 6  # from the ring's inner edge to its outer one


@settings(max_examples=40, deadline=None)
@given(PAIR)
def test_either_mask_may_come_first_and_equal_ones_are_perfect(pair):
    for name, function in EVERY.items():
        assert function(pair[0], pair[1]) == pytest.approx(function(pair[1], pair[0])), name
        assert function(pair[0], pair[0]) == (0 if name in DISTANCES else 1), name


@settings(max_examples=40, deadline=None)
@given(PAIR)
def test_bounds(pair):
    assert all(0 <= function(*pair) <= 1 for function in SCORES.values())
    farthest = surface_distances.hausdorff(*pair)
    assert 0 <= surface_distances.assd(*pair) <= farthest <= math.hypot(9, 12)
    assert surface_distances.hd95(*pair) <= farthest
    assert surface_distances.region_hausdorff(*pair) <= math.hypot(9, 12)


@settings(max_examples=40, deadline=None)
@given(PAIR, st.integers(0, 20), st.integers(0, 15))
def test_where_in_the_image_masks_lie_changes_nothing(pair, down, right):
    moved = np.zeros((2, 40, 40), np.uint8)
    moved[:, 2 + down : 11 + down, 2 + right : 14 + right] = pair
    still = np.zeros((2, 40, 40), np.uint8)
    still[:, 2:11, 2:14] = pair
    for name, function in EVERY.items():
        assert function(*moved) == pytest.approx(function(*still)), name


def test_a_larger_tolerance_never_takes_away():
    shares = [surface_distances.surface_dice(*blobs(3), tolerance=tolerance) for tolerance in (0, 1, 2, 4, 8, 200)]
    assert shares == sorted(shares)
    assert shares[0] < 0.5
    assert shares[-1] == 1


def test_pixels_that_are_not_labeled_are_background_in_both():
    prediction, truth = blobs(3)
    labeled = np.ones(truth.shape, bool)
    labeled[:, 60:] = False
    for name, function in EVERY.items():
        expected = function(prediction * labeled, truth * labeled)
        assert function(prediction, truth, labeled) == expected != function(prediction, truth), name
    masked = surface_distances.region_hausdorff(prediction * labeled, truth * labeled)
    assert surface_distances.region_hausdorff(prediction, truth, labeled) == masked


def test_masks_may_be_bool_or_255_and_lie_in_memory_as_run_lengths_leave_them():
    prediction, truth = blobs(2)
    for name, function in EVERY.items():
        assert function(prediction > 0, truth * 255) == function(prediction, truth), name
        assert function(prediction, np.asfortranarray(truth)) == function(prediction, truth), name


def test_distances_are_exact_where_float32_is_not():
    mask = np.zeros((500, 700), np.uint8)
    mask[3, 5] = mask[490, 650] = 1
    far = cv2.distanceTransform(1 - mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    exact = ndimage.distance_transform_edt(1 - mask)
    assert abs(far - exact).max() > 1e-6
    everywhere = np.ones(mask.shape, bool)
    np.testing.assert_allclose(surface_distances._distances(everywhere, mask > 0), exact.ravel(), rtol=0, atol=1e-12)
