"""Losses that are a mean over pixels: cross-entropies and what weighs their pixels by difficulty.

In multiclass they see every class of the softmax, the background too: without it nothing would push it up or down.
"""

from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from data.dataspec import IGNORED
from modeling.losses.grammar import Share, Weights, Within
from modeling.losses.target import Target, of_each_class
from tools.errors import UserError

Smoothing = Annotated[float, Within(0, 0.9)]
PositiveWeight = Annotated[float | tuple[float, ...], Within(0.0001, 10_000, many=True)]
Gamma = Annotated[float, Within(0, 10)]
WorstShare = Annotated[float, Within(0.0001, 1)]

_TINY = 1e-8  # keeps the gradient of a power below 1 finite at 0


def ce(logits: Tensor, target: Target, scored: list[int], weights: Weights = (), smoothing: Smoothing = 0.0) -> Tensor:
    """Cross-entropy, the mean over all labeled pixels of each image: of the softmax, or binary for each class.

    `weights`, one a class of the network: a weighted mean, within each image. `smoothing`: the share of the truth that
    is spread evenly over the classes (Szegedy et al. 2016).
    """
    if target.task != "multiclass":
        return bce(logits, target, scored, weights, 1.0, smoothing)
    of_class = of_each_class(weights or 1.0, logits, "weights")
    each = F.cross_entropy(
        logits, target.labels, of_class, ignore_index=IGNORED, reduction="none", label_smoothing=smoothing
    )
    share = (target.planes * of_class[:, None, None]).sum(1)  # each pixel's weight, 0 where it is not labeled
    total = share.flatten(1).sum(1)
    return (each.flatten(1).sum(1) / torch.where(total > 0, total, 1.0)).mean()


def bce(
    logits: Tensor,
    target: Target,
    scored: list[int],
    weights: Weights = (),
    positive_weight: PositiveWeight = 1.0,
    smoothing: Smoothing = 0.0,
) -> Tensor:
    """Binary cross-entropy of each class by itself, the mean over all pixels; binary and multilabel.

    `weights`: of each class. `positive_weight`: what a foreground pixel counts, for all classes or one each (Xie and Tu
    2015). `smoothing`: the truth is drawn to one half by this share (Szegedy et al. 2016).
    """
    if weights and logits.shape[1] == 1:
        raise UserError("LOSS: weights of a single class change nothing; say bce(positive_weight=...) for foreground.")
    truth = target.planes[:, scored] * (1 - smoothing) + smoothing / 2
    positive = of_each_class(positive_weight, logits, "positive_weight")[scored, None, None]
    each = F.binary_cross_entropy_with_logits(logits[:, scored], truth, pos_weight=positive, reduction="none")
    of_class = of_each_class(weights or 1.0, logits, "weights")[scored]
    return (each.mean((0, 2, 3)) * of_class).sum() / of_class.sum().clamp(min=_TINY)


def topk(logits: Tensor, target: Target, scored: list[int], k: WorstShare = 0.1) -> Tensor:
    """Cross-entropy of the worst pixels: the share `k` of each image's labeled ones (Wu et al. 2016, bootstrapping).

    In binary and multilabel the worst of each class by itself. Sorts every image's pixels.
    """
    worst = target.cross_entropies(logits, scored).flatten(2).sort(2, descending=True).values
    count = (k * target.counted().sum(2, keepdim=True)).round().clamp(min=1)  # (N, 1, 1)
    taken = torch.arange(worst.shape[2], device=worst.device) < count
    return (worst * taken / count).sum(2).mean()


def focal(logits: Tensor, target: Target, scored: list[int], gamma: Gamma = 2.0, alpha: Share = 0.0) -> Tensor:
    """Cross-entropy times (1 - probability of the truth)^gamma, so that easy pixels count less (Lin et al. 2017).

    `alpha`: the weight of foreground, background has 1 - alpha; 0: both count 1. Not in multiclass.
    """
    if alpha and target.task == "multiclass":
        raise UserError("LOSS: focal's alpha weighs foreground against background, and TASK=multiclass has neither.")
    each = target.cross_entropies(logits, scored)
    each = each * (-torch.expm1(-each)).clamp(min=_TINY) ** gamma
    if alpha:
        each = each * torch.where(target.planes[:, scored] > 0, alpha, 1 - alpha)
    return target.average(each)
