"""How far the outlines of two masks are apart: surface distances in pixels, surface Dice, boundary IoU.

A mask's surface is those of its pixels that have one of their four neighbors outside the mask or outside the image, as
in MONAI. Distances are Euclidean, between the centers of pixels. Pixels that are not labeled are background in both
masks. Whatever lies outside the bounding box of both masks changes nothing, so only that box is looked at.
"""

import math
from collections.abc import Callable

import cv2
import numpy as np

from metrics.overlap import POLICIES

_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def hausdorff(
    prediction: np.ndarray, truth: np.ndarray, labeled: np.ndarray | None = None, empty: str = "one"
) -> float:
    """Return the largest distance from a surface pixel of one mask to the other's surface, in px.

    Masks (H, W), any non-zero pixel being foreground; labeled: bool (H, W), None: all. Two empty masks are 0 apart
    (policy skip: NaN); where only one is empty it is the image's diagonal.
    """
    return _distance(_farthest, prediction, truth, labeled, empty)


def hd95(prediction: np.ndarray, truth: np.ndarray, labeled: np.ndarray | None = None, empty: str = "one") -> float:
    """Return the 95th percentile of the surface distances in px: the larger one of the two directions'.

    Empty masks as in `hausdorff`. Percentiles are interpolated linearly, as MONAI does.
    """
    return _distance(_percentile_95, prediction, truth, labeled, empty)


def assd(prediction: np.ndarray, truth: np.ndarray, labeled: np.ndarray | None = None, empty: str = "one") -> float:
    """Return the average symmetric surface distance in px: the mean over both masks' surface pixels taken together.

    Empty masks as in `hausdorff`.
    """
    return _distance(_average, prediction, truth, labeled, empty)


def surface_dice(
    prediction: np.ndarray,
    truth: np.ndarray,
    labeled: np.ndarray | None = None,
    empty: str = "one",
    tolerance: float = 2.0,
) -> float:
    """Return the share, in [0, 1], of both surfaces' pixels that lie at most `tolerance` px from the other surface.

    Normalized surface Dice of Nikolov et al. 2018, who measure a surface by its length; here it is by its pixels, as in
    MONAI with use_subvoxels=False. Two empty masks are worth what the policy `empty` says (skip: NaN); where only one
    is empty it is 0.
    """
    masks = _cropped(prediction, truth, labeled)
    if not all(mask.any() for mask in masks):
        return 0.0 if any(mask.any() for mask in masks) else POLICIES[empty]
    distances = np.concatenate(_both_ways(*masks))
    return float((distances <= tolerance).mean())


def boundary_iou(
    prediction: np.ndarray,
    truth: np.ndarray,
    labeled: np.ndarray | None = None,
    empty: str = "one",
    dilation: float = 0.02,
) -> float:
    """Return IoU of what is left of both masks within d px of their outlines (Cheng et al. 2021), [0, 1].

    d is `dilation` times the image's diagonal, rounded, at least 1, in steps to the eight neighbors. Two empty masks
    are worth what the policy `empty` says (skip: NaN); where only one is empty it is 0.
    """
    masks = _cropped(prediction, truth, labeled)
    width = max(1, round(dilation * math.hypot(*truth.shape)))
    inner, outer = (_rim(mask, width) for mask in masks)
    union = np.count_nonzero(inner | outer)
    return np.count_nonzero(inner & outer) / union if union else POLICIES[empty]


def region_hausdorff(prediction: np.ndarray, truth: np.ndarray, labeled: np.ndarray | None = None) -> float:
    """Return the largest distance from a pixel of one mask to the nearest of the other, their insides included, in px.

    It is the Hausdorff distance of the masks as sets of points, as scipy's directed_hausdorff takes both ways. 0 for
    two empty masks, the image's diagonal where only one is empty.
    """
    masks = [mask > 0 for mask in _cropped(prediction, truth, labeled)]
    if not all(mask.any() for mask in masks):
        return _apart(truth.shape) if any(mask.any() for mask in masks) else 0.0
    first, second = masks
    return _farthest(_distances(first, second), _distances(second, first))


def _distance(
    reduced: Callable[[np.ndarray, np.ndarray], float],
    prediction: np.ndarray,
    truth: np.ndarray,
    labeled: np.ndarray | None,
    empty: str,
) -> float:
    masks = _cropped(prediction, truth, labeled)
    if all(mask.any() for mask in masks):
        return reduced(*_both_ways(*masks))
    if any(mask.any() for mask in masks):
        return _apart(truth.shape)
    return math.nan if empty == "skip" else 0.0


def _farthest(forth: np.ndarray, back: np.ndarray) -> float:
    return float(max(forth.max(), back.max()))


def _percentile_95(forth: np.ndarray, back: np.ndarray) -> float:
    return float(max(np.percentile(each, 95) for each in (forth, back)))


def _average(forth: np.ndarray, back: np.ndarray) -> float:
    return float(np.concatenate([forth, back]).mean())


def _apart(shape: tuple[int, ...]) -> float:
    """Return what stands for the distance to a mask that is empty: no two pixels of the image are as far apart."""
    return math.hypot(*shape)


def _cropped(prediction: np.ndarray, truth: np.ndarray, labeled: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return both masks as uint8 0 and 1 in the bounding box of their union; without a pixel where both are empty."""
    masks = [mask != 0 if labeled is None else (mask != 0) & labeled for mask in (prediction, truth)]
    left, top, width, height = cv2.boundingRect((masks[0] | masks[1]).view(np.uint8))
    box = np.s_[top : top + height, left : left + width]
    return masks[0][box].astype(np.uint8), masks[1][box].astype(np.uint8)


def _eroded(mask: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Erode a mask; beyond its edges there is background: the box was cut where the masks end, or the image does."""
    return cv2.erode(mask, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)


def _rim(mask: np.ndarray, width: int) -> np.ndarray:
    """Return the pixels of uint8 (H, W) from which `width` steps to the eight neighbors leave the mask, bool."""
    if not mask.size:
        return mask > 0
    side = 2 * width + 1
    return (mask > 0) & (_eroded(mask, np.ones((side, side), np.uint8)) == 0)


def _both_ways(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return px from each surface pixel of the first mask to the second's surface, and back; both have foreground."""
    outlines = [(mask > 0) & (_eroded(mask, _CROSS) == 0) for mask in (first, second)]
    return _distances(outlines[0], outlines[1]), _distances(outlines[1], outlines[0])


def _distances(places: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return float64 (n,): px from each of `places` to the nearest of `points`, both bool (H, W) with a True pixel."""
    rough = cv2.distanceTransform((~points).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[places]
    # Float32 misses some millionths, and 2 px must not be more than a tolerance of 2. Squares of distances are whole
    # numbers; rounding them makes distances of some hundred pixels exact, and longer ones right to 0.001.
    return np.sqrt(np.rint(np.square(rough, dtype=np.float64)))
