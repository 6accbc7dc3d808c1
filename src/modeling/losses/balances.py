"""Losses that balance labels by their size: generalized Dice, and the exponential-logarithmic loss.

Their labels are foreground and background of each class in binary and multilabel; in multiclass the scored classes and
what is none of them.
"""

import torch
from torch import Tensor

from modeling.losses.grammar import Amount, Exponent, Share
from modeling.losses.target import Target

_TINY = 1e-6  # where nothing is labeled, 0 / 0 is 1
_FLOOR = 1e-10  # keeps the gradient of a power below 1 finite at 0


def generalized_dice(logits: Tensor, target: Target, scored: list[int]) -> Tensor:
    """1 - Dice pooled over the labels, each weighed by 1 / (its pixels in the image)^2 (Sudre et al. 2017)."""
    return _generalized(*_labels(logits, target, scored), over_batch=False).mean()


def generalized_dice_v2(logits: Tensor, target: Target, scored: list[int]) -> Tensor:
    """Generalized Dice over the batch, whose images are counted as one (Sudre et al. 2017; Ma et al. 2021's second).

    Accumulated batches differ from one large batch.
    """
    return _generalized(*_labels(logits, target, scored), over_batch=True).mean()


def penalty_dice(logits: Tensor, target: Target, scored: list[int], k: Amount = 2.5) -> Tensor:
    """G / (1 + k (1 - G)) of each image's generalized Dice loss G: steepest where G is large (Yang et al. 2019)."""
    loss = _generalized(*_labels(logits, target, scored), over_batch=False)
    return (loss / (1 + k * (1 - loss))).mean()


def exp_log(
    logits: Tensor, target: Target, scored: list[int], gamma: Exponent = 0.3, dice_weight: Share = 0.8
) -> Tensor:
    """(-ln Dice)^gamma and cross-entropy^gamma, weighed dice_weight and 1 - dice_weight (Wong et al. 2018).

    Dice is of each image and scored class. A pixel of the cross-entropy counts 1 / sqrt(the share of its label in the
    image), where the paper takes the whole training set's share; in multiclass all classes are labels of it.
    """
    probability, truth = target.regions(logits, scored)
    dice = (2 * (probability * truth).sum(2) + 1) / (probability.sum(2) + truth.sum(2) + 1)
    each = target.cross_entropies(logits, scored).flatten(2)  # (N, K, P)
    every = list(range(logits.shape[1])) if target.task == "multiclass" else scored
    labels = _labels(logits, target, every)[1]  # (N, K, L, P)
    pixels = target.counted().sum(2)[:, :, None]  # (N, 1, 1)
    rarity = (pixels / labels.sum(3).clamp(min=1)).sqrt()  # (N, K, L)
    weighed = (labels * rarity[..., None]).sum(2) * each.clamp(min=_FLOOR) ** gamma
    cross = weighed.sum(2) / pixels[..., 0].clamp(min=1)
    return dice_weight * (-dice.log()).clamp(min=_FLOOR).pow(gamma).mean() + (1 - dice_weight) * cross.mean()


def _labels(logits: Tensor, target: Target, scored: list[int]) -> tuple[Tensor, Tensor]:
    """Return probabilities and truth, (N, G, L, P) each: of G groups of L labels, of which a pixel has one."""
    probability, truth = target.regions(logits, scored)
    if target.task != "multiclass":
        return torch.stack([probability, 1 - probability], 2), torch.stack([truth, 1 - truth], 2)
    others = [index for index in range(logits.shape[1]) if index not in scored]
    if others:
        other, other_truth = target.regions(logits, others)
        probability = torch.cat([probability, other.sum(1, keepdim=True)], 1)
        truth = torch.cat([truth, other_truth.sum(1, keepdim=True)], 1)
    return probability[:, None], truth[:, None]


def _generalized(probability: Tensor, truth: Tensor, over_batch: bool) -> Tensor:
    """1 - generalized Dice, (N, G) or, over the batch, (G,). A label without a pixel weighs as the rarest one."""
    pixels = (0, 3) if over_batch else 3
    size = truth.sum(pixels)  # (N, G, L) or (G, L)
    weight = torch.where(size > 0, 1 / size.clamp(min=1).square(), 0.0)
    heaviest = weight.amax(-1, keepdim=True)
    # relative to the heaviest, because 1 / pixels^2 of a large image is too small to add anything to
    weight = torch.where(size > 0, weight / heaviest.clamp(min=1e-30), (heaviest > 0).float())
    overlap = (weight * (probability * truth).sum(pixels)).sum(-1)
    total = (weight * (probability.sum(pixels) + size)).sum(-1)
    return 1 - (2 * overlap + _TINY) / (total + _TINY)
