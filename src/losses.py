"""A text -> a loss on logits: names joined by `+`, each with an optional weight ("0.5*ce + dice").

Every loss takes logits (N, C, H, W), a Target and the indices of the scored classes, and returns the mean over images
of a value in float32, so that a batch split over accumulation steps has the same gradient as the whole one.
"""

import difflib
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from dataspec import IGNORED
from errors import UserError

_SMOOTH = 1.0  # one pixel: keeps the loss finite, and its gradient alive, on an empty mask


class Target:
    """A batch of masks as the losses need it.

    planes (N, C, H, W) of 0 and 1, valid (N, 1, H, W) of 0 and 1 or None where every pixel counts.
    """

    def __init__(self, mask: Tensor, classes: int, task: str) -> None:
        """mask: uint8 (N, K, H, W) as in dataspec."""
        self.task, self.valid = task, None
        if task != "multiclass":
            self.planes = mask.float()
            return
        ignored = mask == IGNORED
        self.labels = mask[:, 0].long()  # (N, H, W), IGNORED included
        self.valid = (~ignored).float()
        indices = mask.masked_fill(ignored, 0).long()
        self.planes = torch.zeros(len(mask), classes, *mask.shape[2:], device=mask.device)
        self.planes.scatter_(1, indices, 1.0).mul_(self.valid)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Sigmoid where classes are independent, softmax where a pixel has one; 0 where it is not labelled."""
        probability = logits.softmax(1) if self.task == "multiclass" else logits.sigmoid()
        return probability if self.valid is None else probability * self.valid


def ce(logits: Tensor, target: Target, _: list[int]) -> Tensor:
    """Cross-entropy, the mean over all labelled pixels of each image: binary for each class, or of the softmax."""
    if target.task != "multiclass":
        return F.binary_cross_entropy_with_logits(logits, target.planes)
    each = F.cross_entropy(logits, target.labels, ignore_index=IGNORED, reduction="none").flatten(1)
    return (each.sum(1) / target.valid.flatten(1).sum(1).clamp(min=1)).mean()


def dice(logits: Tensor, target: Target, scored: list[int]) -> Tensor:
    """1 - soft Dice of each image and scored class (Milletari et al. 2016, V-Net, without the squares), averaged."""
    probability, truth = (x[:, scored].flatten(2) for x in (target.probabilities(logits), target.planes))
    overlap = (probability * truth).sum(2)  # (N, S)
    return (1 - (2 * overlap + _SMOOTH) / (probability.sum(2) + truth.sum(2) + _SMOOTH)).mean()


def iou(logits: Tensor, target: Target, scored: list[int]) -> Tensor:
    """1 - soft IoU of each image and scored class (Rahman and Wang 2016), averaged."""
    probability, truth = (x[:, scored].flatten(2) for x in (target.probabilities(logits), target.planes))
    overlap = (probability * truth).sum(2)
    return (1 - (overlap + _SMOOTH) / (probability.sum(2) + truth.sum(2) - overlap + _SMOOTH)).mean()


LOSSES: dict[str, Callable[[Tensor, Target, list[int]], Tensor]] = {"ce": ce, "bce": ce, "dice": dice, "iou": iou}


class Loss(torch.nn.Module):
    """The weighted sum that `text` names, for a task. `scored`: the classes but the background, None for all.

    Raises UserError for an unknown name, a weight that is no number, or bce where a pixel has one of several classes.
    """

    def __init__(self, text: str, task: str = "binary", scored: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.task, self.scored = task, scored
        self.terms = [self._term(part.strip()) for part in text.split("+")]

    def _term(self, part: str) -> tuple[float, Callable[[Tensor, Target, list[int]], Tensor]]:
        weight, star, name = part.rpartition("*")
        try:
            factor = float(weight) if star else 1.0
        except ValueError:
            factor = math.nan
        if not 0 < factor < math.inf:
            raise UserError(f"LOSS: '{part}' has a weight that is no number above 0; expected such as 0.5*ce + dice.")
        name = name.strip()
        if name not in LOSSES:
            near = difflib.get_close_matches(name, LOSSES, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise UserError(f"LOSS: there is no loss '{name}'.{hint} There are: {', '.join(LOSSES)}.")
        if name == "bce" and self.task == "multiclass":
            raise UserError("LOSS: bce takes each class by itself, and TASK=multiclass has one class a pixel; say ce.")
        return factor, LOSSES[name]

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """logits (N, C, H, W) and mask (N, K, H, W) as in dataspec -> a float32 scalar."""
        logits = logits.float()  # half precision overflows when it sums an image's pixels
        target = Target(mask, logits.shape[1], self.task)
        scored = list(range(logits.shape[1])) if self.scored is None else list(self.scored)
        return sum(weight * loss(logits, target, scored) for weight, loss in self.terms)
