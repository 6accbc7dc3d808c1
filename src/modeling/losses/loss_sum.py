"""A text -> a loss on logits: names joined by `+`, with weights and arguments ("0.5*dice + focal(gamma=2)").

Every loss takes logits (N, C, H, W), a Target and the indices of the scored classes, and returns the mean over images
of a value in float32, so that a batch split over accumulation steps has the same gradient as the whole one; those that
count over the batch say so. Pixels that are not labeled count nowhere. smp's losses are means over batches or know
neither scored classes nor what is not labeled, so these are written after the papers and tested against smp and MONAI.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from modeling.losses import grammar
from modeling.losses.balances import exp_log, generalized_dice, generalized_dice_v2, penalty_dice
from modeling.losses.distances import boundary, distance_ce, hausdorff
from modeling.losses.lovasz_extension import lovasz, symmetric_lovasz
from modeling.losses.pixels import bce, ce, focal, topk
from modeling.losses.regions import (
    asymmetric,
    dice,
    focal_tversky,
    iou,
    mcc,
    sensitivity_specificity,
    squared_dice,
    tversky,
)
from modeling.losses.target import Target
from tools.errors import UserError, nearest

_TERMS = (
    *(ce, bce, topk, focal, distance_ce),
    *(dice, squared_dice, generalized_dice, generalized_dice_v2, penalty_dice, iou, tversky, focal_tversky),
    *(asymmetric, sensitivity_specificity, mcc, exp_log, lovasz, symmetric_lovasz, boundary, hausdorff),
)
LOSSES: dict[str, Callable[..., Tensor]] = {term.__name__: term for term in _TERMS}
# what runs and recipes of before call them
FORMER = {"generalised_dice": "generalized_dice", "generalised_dice_v2": "generalized_dice_v2"}


def describe() -> list[tuple[str, str, str]]:
    """Return of each loss its name, the first line of its docstring, and how it is written with its defaults."""
    return [
        (name, (loss.__doc__ or "").splitlines()[0], grammar.signature(name, loss)) for name, loss in LOSSES.items()
    ]


class Loss(torch.nn.Module):
    """The weighted sum that `text` names, for a task. `scored`: the classes but the background, None for all.

    `classes`: how many the network has; 0 where that is not known yet: then the first batch checks lengths.
    Raises UserError for an unknown name or argument, a weight or value that cannot be, a loss that is not the task's.
    """

    def __init__(
        self, text: str, task: str = "binary", scored: tuple[int, ...] | None = None, classes: int = 0
    ) -> None:
        super().__init__()
        self.task, self.scored = task, scored
        self.terms = [(term.weight, self._bound(term)) for term in grammar.parse(text)]
        classes = 1 if task == "binary" else classes
        if classes:  # what an argument contradicts shows here, before any training
            planes = 1 if task == "multiclass" else classes
            self(torch.zeros(1, classes, 2, 2), torch.zeros(1, planes, 2, 2, dtype=torch.uint8))

    def _bound(self, term: grammar.Term) -> Callable[[Tensor, Target, list[int]], Tensor]:
        """Return the function that `term` names, with its arguments."""
        name = FORMER.get(term.name, term.name)
        if name not in LOSSES:
            hint = nearest(term.name, LOSSES)
            raise UserError(f"LOSS: there is no loss '{term.name}'.{hint} There are: {', '.join(LOSSES)}.")
        if term.name == "bce" and self.task == "multiclass":
            raise UserError("LOSS: bce takes each class by itself, and TASK=multiclass has one class a pixel; say ce.")
        function = LOSSES[name]
        return functools.partial(function, **grammar.checked_arguments(term, function))

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Turn logits (N, C, H, W) and mask (N, K, H, W) as in dataspec into a float32 scalar."""
        logits = logits.float()  # half precision overflows when it sums an image's pixels
        target = Target(mask, logits.shape[1], self.task)
        scored = list(range(logits.shape[1])) if self.scored is None else list(self.scored)
        values = [weight * loss(logits, target, scored) for weight, loss in self.terms]
        return sum(values[1:], values[0])
