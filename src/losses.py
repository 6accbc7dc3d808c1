"""A text -> a loss on logits: names joined by `+`, each with an optional weight ("0.5*bce + dice").

Every loss takes logits and 0/1 targets (N, C, H, W) and returns the mean over images of a value in float32, so that a
batch split over accumulation steps has the same gradient as the whole one.
"""

import difflib
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from errors import UserError

_SMOOTH = 1.0  # one pixel: keeps the loss finite, and its gradient alive, on an empty mask


def bce(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy, the mean over all pixels."""
    return F.binary_cross_entropy_with_logits(logits, target)


def dice(logits: Tensor, target: Tensor) -> Tensor:
    """1 - soft Dice of each image and class (Milletari et al. 2016, V-Net, without the squares), averaged."""
    probability, target = logits.sigmoid().flatten(2), target.flatten(2)
    overlap = (probability * target).sum(2)  # (N, C)
    return (1 - (2 * overlap + _SMOOTH) / (probability.sum(2) + target.sum(2) + _SMOOTH)).mean()


def iou(logits: Tensor, target: Tensor) -> Tensor:
    """1 - soft IoU of each image and class (Rahman and Wang 2016), averaged."""
    probability, target = logits.sigmoid().flatten(2), target.flatten(2)
    overlap = (probability * target).sum(2)
    return (1 - (overlap + _SMOOTH) / (probability.sum(2) + target.sum(2) - overlap + _SMOOTH)).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"bce": bce, "dice": dice, "iou": iou}


class Loss(torch.nn.Module):
    """The weighted sum that `text` names. Raises UserError for an unknown name or a weight that is no number."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.terms = [self._term(part.strip()) for part in text.split("+")]

    @staticmethod
    def _term(part: str) -> tuple[float, Callable[[Tensor, Tensor], Tensor]]:
        weight, star, name = part.rpartition("*")
        try:
            factor = float(weight) if star else 1.0
        except ValueError:
            factor = math.nan
        if not 0 < factor < math.inf:
            raise UserError(f"LOSS: '{part}' has a weight that is no number above 0; expected such as 0.5*bce + dice.")
        name = name.strip()
        if name not in LOSSES:
            near = difflib.get_close_matches(name, LOSSES, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise UserError(f"LOSS: there is no loss '{name}'.{hint} There are: {', '.join(LOSSES)}.")
        return factor, LOSSES[name]

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """logits (N, C, H, W) and target of 0 and 1, of any float or integer type -> a float32 scalar."""
        logits, target = logits.float(), target.float()  # half precision overflows when it sums an image's pixels
        return sum(weight * loss(logits, target) for weight, loss in self.terms)
