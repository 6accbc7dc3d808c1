"""mixup and CutMix: a training batch mixed with itself, on whatever device it is."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tools.errors import UserError

KINDS = ("mixup", "cutmix", "both")


@dataclass(frozen=True)
class Mixing:
    """Which mixing, or "none", and the alpha of its shares, Beta(alpha, alpha)."""

    kind: str = "none"
    alpha: float = 0.4


@dataclass(frozen=True)
class Mixed:
    """A mixed batch. Its loss is `share * loss(logits, masks) + (1 - share) * loss(logits, partners)`.

    images float (N, C, H, W), masks and partners uint8 (N, K, H, W) as in dataspec; without partners share is 1.
    """

    images: Tensor
    masks: Tensor
    partners: Tensor | None
    share: float


def mix(images: Tensor, masks: Tensor, kind: str, alpha: float, key: tuple[int, ...]) -> Mixed:
    """Mix each sample of a batch with another one of it; a function of the batch and of `key` alone.

    mixup (Zhang et al. 2018) blends images, `share` of it Beta(alpha, alpha), and keeps both masks. cutmix (Yun et al.
    2019; for segmentation French et al. 2020) pastes a rectangle of the other image and of its mask, one of its own
    for each sample. both: one of the two for the whole batch, by turns of chance. A batch of one has nobody to mix
    with and stays as it is. Raises UserError for another kind, or an alpha that is not above 0.
    """
    if kind not in KINDS:
        raise UserError(f"There is no mixing '{kind}'; there are: {', '.join(KINDS)}.")
    if not 0 < alpha < math.inf:
        raise UserError(f"Mixing got alpha={alpha} for Beta(alpha, alpha); expected a number above 0, such as 0.4.")
    if len(images) < 2:
        return Mixed(images, masks, None, 1.0)
    # a stream of its own, beside those of the augmentations of the same key
    random = np.random.default_rng(np.random.SeedSequence(key, spawn_key=(3,)))
    turn = int(random.integers(1, len(images)))  # by turning the batch nobody meets itself, as a permutation's would
    others, partners = images.roll(turn, 0), masks.roll(turn, 0)
    if kind == "cutmix" or (kind == "both" and random.random() < 0.5):
        inside = _rectangles(images.shape, alpha, random).to(images.device)
        return Mixed(torch.where(inside, others, images), torch.where(inside, partners, masks), None, 1.0)
    share = float(random.beta(alpha, alpha))
    return Mixed(torch.lerp(others, images, share), masks, partners, share)


def _rectangles(shape: torch.Size, alpha: float, random: np.random.Generator) -> Tensor:
    """bool (N, 1, H, W): a rectangle for each sample, in the image's proportions, cut off at its borders.

    1 - Beta(alpha, alpha) of the area before it is cut off (Yun et al. 2019).
    """
    count, _, height, width = shape
    side = np.sqrt(1 - random.beta(alpha, alpha, count))  # share of each of the image's sides

    def within(length: int) -> np.ndarray:
        """bool (N, length) of the pixels whose middle is in the rectangle's range along one axis."""
        center = random.uniform(0, length, count)
        distance = np.abs(np.arange(length) + 0.5 - center[:, None])
        return distance <= side[:, None] * length / 2

    return torch.from_numpy(within(height)[:, None, :, None] & within(width)[:, None, None, :])
