"""The Lovasz extension of 1 - IoU: hinge where classes are independent, softmax where a pixel has one."""

import torch
from torch import Tensor

from modeling.losses.target import Target


def lovasz(logits: Tensor, target: Target, scored: list[int], present: bool = False) -> Tensor:
    """Lovasz hinge (binary, multilabel) or softmax of each image and scored class (Berman et al. 2018), averaged.

    `present`: only over the classes that an image shows. Sorts every image's pixels.
    """
    errors, truth = _errors(logits, target, scored)
    return _mean(_extension(errors, truth), truth, present)


def symmetric_lovasz(logits: Tensor, target: Target, scored: list[int], present: bool = False) -> Tensor:
    """The mean of `lovasz` of foreground and of background, with logits and truth inverted (Berman et al. 2018).

    Foreground and background then count alike, as Kaggle's winners have it. `present`: as in `lovasz`.
    """
    errors, truth = _errors(logits, target, scored)
    both = _extension(errors, truth) + _extension(errors, target.counted() - truth)
    return _mean(both / 2, truth, present)


def _errors(logits: Tensor, target: Target, scored: list[int]) -> tuple[Tensor, Tensor]:
    """Errors >= 0, 0 where nothing is labeled, and truth of each image and scored class, (N, S, P) each."""
    probability, truth = target.regions(logits, scored)
    if target.task == "multiclass":
        return (truth - probability).abs(), truth
    signed = logits[:, scored].flatten(2) * (2 * truth - 1)
    return (1 - signed).relu(), truth


def _extension(errors: Tensor, truth: Tensor) -> Tensor:
    """(N, S, P) errors >= 0 and truth -> (N, S), the Lovasz extension of the Jaccard loss at the errors.

    Each error counts as much as the Jaccard loss grows when its pixel joins the wrong ones, the worst pixel first.
    Written out, those steps are 1 / union for a pixel of the truth and overlap / (union (union - 1)) for another; the
    differences of two ratios would lose their digits in a large image.
    """
    errors, order = errors.sort(2, descending=True)
    truth = truth.gather(2, order).long()  # whole numbers, whose running sums repeat exactly on every device
    total = truth.sum(2, keepdim=True)
    overlap, union = total - truth.cumsum(2), total + (1 - truth).cumsum(2)
    steps = torch.where(truth == 1, 1 / union, overlap / (union * (union - 1).clamp(min=1)))
    steps = torch.where(union == 1, 1.0, steps)  # the first wrong pixel where no other is in either mask
    return (errors * steps).sum(2)


def _mean(each: Tensor, truth: Tensor, present: bool) -> Tensor:
    """(N, S) -> scalar: the mean over classes, with `present` only those that an image shows, then over images."""
    if not present:
        return each.mean()
    shown = (truth.sum(2) > 0).float()
    return ((each * shown).sum(1) / shown.sum(1).clamp(min=1)).mean()
