"""Regions where a confident network disagrees with the label: possible label errors, for a person to look at.

After confident learning (Northcutt et al. 2021), which counts such disagreements; here they are regions of pixels. The
predictions must be out of fold: a network that trained on a wrong label agrees with it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from data.dataspec import DataSpec
from prediction import postprocess

SURE = 0.95  # a network is confident from this probability on, and of the opposite below 1 - SURE
_HIGH, _LOW = postprocess.level(SURE), int((1 - SURE) * 255)
SMALLEST, SHARE = 2.0, 0.008  # radius of a region: at least this many px, and this share of the image's shorter side


@dataclass(frozen=True)
class Region:
    """A region: what the label says there, what the network says, and how large it is.

    radius: px, of the largest disc within it; a seam along an outline has a small one however long it is. box: top,
    left, height, width in px. size: the radius as a share of the image's mean side, to rank images by.
    """

    label: str
    network: str
    radius: float
    area: int
    box: tuple[int, int, int, int]
    size: float


def find(p8: np.ndarray, mask: np.ndarray, spec: DataSpec) -> list[Region]:
    """Return an image's regions, largest first, of its uint8 probabilities (C, H, W) and its mask (K, H, W).

    The mask is as `spec` reads it.
    """
    planes = _of_one_class_a_pixel(p8, mask, spec) if spec.task == "multiclass" else _class_by_class(p8, mask, spec)
    found = [region for label, network, plane in planes for region in _regions(plane, label, network)]
    return sorted(found, key=lambda region: -region.radius)


def _class_by_class(p8: np.ndarray, mask: np.ndarray, spec: DataSpec) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield what the label says, what the network says, and where, bool (H, W), for each class and both directions."""
    truths = spec.class_planes(mask)
    for index, name in enumerate(spec.scored_names):
        probability, truth = p8[spec.scored[index]], truths[index]
        yield f"no {name}", name, (probability >= _HIGH) & ~truth
        yield name, f"no {name}", (probability <= _LOW) & truth


def _of_one_class_a_pixel(p8: np.ndarray, mask: np.ndarray, spec: DataSpec) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield the same for a class map: where one class is confidently predicted and the label is another one."""
    label, best, labeled = mask[0], p8.argmax(0), spec.labeled(mask)
    wrong = (p8.max(0) >= _HIGH) & (best != label)
    if labeled is not None:
        wrong &= labeled
    for predicted in np.unique(best[wrong]):
        for true in np.unique(label[wrong & (best == predicted)]):
            plane = wrong & (best == predicted) & (label == true)
            yield spec.classes[true], spec.classes[predicted], plane


def _regions(plane: np.ndarray, label: str, network: str) -> list[Region]:
    """Return the connected regions of a plane bool (H, W) that are large enough."""
    if not plane.any():
        return []
    framed = np.pad(plane.astype(np.uint8), 1)  # outside of the image there is no region
    inside = cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1]
    count, labels, stats, _ = cv2.connectedComponentsWithStats(plane.astype(np.uint8), connectivity=8)
    radii = np.zeros(count)
    np.maximum.at(radii, labels[plane], inside[plane])
    smallest, side = max(SMALLEST, SHARE * min(plane.shape)), float(np.sqrt(plane.size))
    found = []
    for index in np.flatnonzero(radii >= smallest):
        left, top, width, height, area = map(int, stats[index])
        radius = float(radii[index])
        found.append(Region(label, network, radius, area, (top, left, height, width), radius / side))
    return found
