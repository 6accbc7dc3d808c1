"""Losses that know how far a pixel is from the mask's boundary, by exact Euclidean distance transforms, in pixels.

The distances are found on the CPU, without gradient, for each image and class of a batch: on a GPU the step waits for
them. A mask that is empty or full has no boundary; its distances are 0.
"""

from typing import Annotated

import cv2
import numpy as np
import torch
from torch import Tensor

from modeling.losses.grammar import Within
from modeling.losses.target import Target

DistanceExponent = Annotated[float, Within(0.5, 4)]


def distance_ce(logits: Tensor, target: Target, scored: list[int]) -> Tensor:
    """Cross-entropy times 1 + nearness to the boundary: 2 at it, 1 in the depth (Caliva et al. 2019).

    Nearness falls linearly with the distance, to 0 at the deepest pixel of the foreground or of the background; in
    multiclass of each class. Two distance transforms for each image and class, 1 to 2 ms each at 256 x 256
    pixels, 20 at 512 x 512.
    """
    every = target.task == "multiclass"
    planes = target.planes if every else target.planes[:, scored]
    depth = _depth(planes, target.valid)
    near = _nearness(depth, planes)
    near = near.sum(1, keepdim=True) if every else near + _nearness(depth, 1 - planes)
    return target.average((1 + near) * target.cross_entropies(logits, scored))


def boundary(logits: Tensor, target: Target, scored: list[int]) -> Tensor:
    """The mean of probability times signed distance to the boundary, negative inside (Kervadec et al. 2019).

    In pixels, below 0 where the prediction is good. 0 for an empty or full mask: add it to a loss of regions, as the
    paper does, such as dice + 0.01*boundary. Two distance transforms for each image and scored class.
    """
    planes = target.planes[:, scored]
    depth = _depth(planes, target.valid)
    signed = torch.where(planes > 0, -(depth - 1).clamp(min=0), depth)
    return _average(target.probabilities(logits)[:, scored] * signed, target)


def hausdorff(
    logits: Tensor, target: Target, scored: list[int], exponent: DistanceExponent = 2.0, both: bool = False
) -> Tensor:
    """The mean of squared error times (distance to the true boundary)^exponent (Karimi and Salcudean 2020).

    In pixels^exponent, hundreds at first: add it with a small weight, such as dice + 0.001*hausdorff. `both`: the
    distance to the predicted boundary too, which doubles the cost. 0 for an empty or full mask. Two distance
    transforms for each image and scored class.
    """
    planes, probability = target.planes[:, scored], target.probabilities(logits)[:, scored]
    distance = _depth(planes, target.valid) ** exponent
    if both:
        distance = distance + _depth((probability > 0.5).float(), target.valid) ** exponent
    return _average((probability - planes).square() * distance, target)


def _average(each: Tensor, target: Target) -> Tensor:
    """(N, S, H, W) -> the mean over each image's labeled pixels, over classes and images."""
    return target.average(each.mean(1, keepdim=True))


@torch.no_grad()
def _depth(planes: Tensor, valid: Tensor | None) -> Tensor:
    """(N, S, H, W) of 0 and 1 -> float32 distance from each pixel to the nearest labeled one of the other kind."""
    inside = planes.detach().cpu().numpy() > 0
    labeled = np.ones_like(inside[:, :1]) if valid is None else valid.cpu().numpy() > 0
    outside = ~inside & labeled
    depth = np.zeros(inside.shape, np.float32)
    for index in np.ndindex(*inside.shape[:2]):
        if inside[index].any() and outside[index].any():
            depth[index] = np.where(inside[index], _distance_to(outside[index]), _distance_to(inside[index]))
    return torch.from_numpy(depth).to(planes.device)


def _distance_to(sources: np.ndarray) -> np.ndarray:
    """Pixels from each place to the nearest True one of bool (H, W), of which there is one."""
    return cv2.distanceTransform((~sources).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def _nearness(depth: Tensor, region: Tensor) -> Tensor:
    """1 at the boundary of each region of 0 and 1; 0 at its deepest pixel, outside, and where it has no boundary."""
    deepest = (depth * region).amax((2, 3), keepdim=True)
    near = (deepest - depth) / (deepest - 1).clamp(min=0.1)  # no depth lies between 1 and 1.4
    return torch.where(deepest > 1, near, (deepest > 0).float()) * region
