"""Losses that compare regions: soft counts of each image and scored class, one minus a ratio of them, averaged."""

from torch import Tensor

from modeling.losses.grammar import Amount, Exponent, Share
from modeling.losses.target import Target

_SMOOTH = 1.0  # one pixel: keeps the loss finite, and its gradient alive, on an empty mask
_TINY = 1e-7  # keeps the gradient of a power below 1 finite at 0


def dice(logits: Tensor, target: Target, scored: list[int], batch: bool = False) -> Tensor:
    """1 - soft Dice of each image and scored class (Milletari et al. 2016, V-Net, without the squares), averaged.

    `batch`: over the batch, whose images are counted as one; accumulated batches then differ from one large batch.
    """
    probability, truth = target.regions(logits, scored)
    pixels = (0, 2) if batch else 2
    overlap = (probability * truth).sum(pixels)  # (N, S), or (S,) over the batch
    return (1 - (2 * overlap + _SMOOTH) / (probability.sum(pixels) + truth.sum(pixels) + _SMOOTH)).mean()


def squared_dice(logits: Tensor, target: Target, scored: list[int]) -> Tensor:
    """1 - soft Dice with squared probabilities in its denominator (Milletari et al. 2016, V-Net), averaged."""
    probability, truth = target.regions(logits, scored)
    overlap = (probability * truth).sum(2)
    return (1 - (2 * overlap + _SMOOTH) / (probability.square().sum(2) + truth.sum(2) + _SMOOTH)).mean()


def iou(logits: Tensor, target: Target, scored: list[int]) -> Tensor:
    """1 - soft IoU of each image and scored class (Rahman and Wang 2016), averaged."""
    probability, truth = target.regions(logits, scored)
    overlap = (probability * truth).sum(2)
    return (1 - (overlap + _SMOOTH) / (probability.sum(2) + truth.sum(2) - overlap + _SMOOTH)).mean()


def tversky(logits: Tensor, target: Target, scored: list[int], alpha: Amount = 0.3, beta: Amount = 0.7) -> Tensor:
    """1 - Tversky index, in which false positives count `alpha` and false negatives `beta` (Salehi et al. 2017)."""
    return _tversky(logits, target, scored, alpha, beta).mean()


def focal_tversky(
    logits: Tensor,
    target: Target,
    scored: list[int],
    alpha: Amount = 0.3,
    beta: Amount = 0.7,
    gamma: Exponent = 4 / 3,
) -> Tensor:
    """(1 - Tversky index)^(1 / gamma) of each image and scored class (Abraham and Khan 2019), averaged.

    `alpha`, `beta`: of false positives and negatives. Above 1, `gamma` lets what is nearly right weigh more.
    """
    return (_tversky(logits, target, scored, alpha, beta).clamp(min=_TINY) ** (1 / gamma)).mean()


def asymmetric(logits: Tensor, target: Target, scored: list[int], beta: Amount = 1.5) -> Tensor:
    """1 - soft F-beta score; above 1, `beta` weighs false negatives more (Hashemi et al. 2018)."""
    missed = beta**2 / (1 + beta**2)
    return _tversky(logits, target, scored, 1 - missed, missed).mean()


def sensitivity_specificity(logits: Tensor, target: Target, scored: list[int], sensitivity: Share = 0.05) -> Tensor:
    """Squared errors on foreground, with the weight `sensitivity`, and on background (Brosch et al. 2015).

    Each is the mean over such pixels of the image; background has the weight 1 - sensitivity.
    """
    probability, truth = target.regions(logits, scored)
    error, empty = (probability - truth).square(), target.counted() - truth
    missed = (error * truth).sum(2) / truth.sum(2).clamp(min=1)
    false = (error * empty).sum(2) / empty.sum(2).clamp(min=1)
    return (sensitivity * missed + (1 - sensitivity) * false).mean()


def mcc(logits: Tensor, target: Target, scored: list[int]) -> Tensor:
    """1 - Matthews correlation of each image and scored class, 0 to 2 (Abhishek and Hamarneh 2021), averaged.

    One pixel of foreground and one of background are added that are right, so that empty and full masks have a value.
    """
    probability, truth = target.regions(logits, scored)
    absent, empty = 1 - probability, target.counted() - truth
    tp, tn = (probability * truth).sum(2) + _SMOOTH, (absent * empty).sum(2) + _SMOOTH
    fp, fn = (probability * empty).sum(2), (absent * truth).sum(2)
    scale = ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)).sqrt()
    return (1 - (tp * tn - fp * fn) / scale).mean()


def _tversky(logits: Tensor, target: Target, scored: list[int], alpha: float, beta: float) -> Tensor:
    """1 - Tversky index, (N, S)."""
    probability, truth = target.regions(logits, scored)
    overlap = (probability * truth).sum(2)
    false, missed = (probability * (1 - truth)).sum(2), ((1 - probability) * truth).sum(2)
    return 1 - (overlap + _SMOOTH) / (overlap + alpha * false + beta * missed + _SMOOTH)
