"""A batch of masks as the losses need it: planes, what is labeled, and means over images."""

import torch
from torch import Tensor
from torch.nn import functional as F

from data.dataspec import IGNORED
from tools.errors import UserError


class Target:
    """A batch of masks as the losses need it.

    planes (N, C, H, W) of 0 and 1, valid (N, 1, H, W) of 0 and 1 or None where every pixel counts; in multiclass
    labels (N, H, W), IGNORED included.
    """

    def __init__(self, mask: Tensor, classes: int, task: str) -> None:
        """mask: uint8 (N, K, H, W) as in dataspec."""
        self.task, self.valid = task, None
        if task != "multiclass":
            self.planes = mask.float()
            return
        ignored = mask == IGNORED
        self.labels = mask[:, 0].long()
        self.valid = (~ignored).float()
        indices = mask.masked_fill(ignored, 0).long()
        self.planes = torch.zeros(len(mask), classes, *mask.shape[2:], device=mask.device)
        self.planes.scatter_(1, indices, 1.0).mul_(self.valid)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Sigmoid where classes are independent, softmax where a pixel has one; 0 where it is not labeled."""
        probability = logits.softmax(1) if self.task == "multiclass" else logits.sigmoid()
        return probability if self.valid is None else probability * self.valid

    def regions(self, logits: Tensor, scored: list[int]) -> tuple[Tensor, Tensor]:
        """Probabilities and planes of the scored classes, (N, S, P) each, P pixels; both 0 where not labeled."""
        return self.probabilities(logits)[:, scored].flatten(2), self.planes[:, scored].flatten(2)

    def counted(self) -> Tensor:
        """(N, 1, P) of 0 and 1: the labeled pixels."""
        valid = torch.ones_like(self.planes[:, :1]) if self.valid is None else self.valid
        return valid.flatten(2)

    def cross_entropies(self, logits: Tensor, scored: list[int]) -> Tensor:
        """Each pixel's: (N, 1, H, W) of the softmax, or (N, S, H, W), binary for each class; 0 where not labeled."""
        if self.task == "multiclass":
            return F.cross_entropy(logits, self.labels, ignore_index=IGNORED, reduction="none")[:, None]
        return F.binary_cross_entropy_with_logits(logits[:, scored], self.planes[:, scored], reduction="none")

    def average(self, each: Tensor) -> Tensor:
        """(N, K, H, W), 0 where not labeled -> the mean over each image's labeled pixels, then over images."""
        if self.valid is None:
            return each.mean()
        return (each.flatten(1).sum(1) / self.valid.flatten(1).sum(1).clamp(min=1)).mean()


def of_each_class(values: float | tuple[float, ...], logits: Tensor, argument: str) -> Tensor:
    """One number a class of the network, (C,), float32. Raises UserError where `values` are another number of them."""
    classes = logits.shape[1]
    if not isinstance(values, tuple):
        values = (values,) * classes
    if len(values) != classes:
        raise UserError(f"LOSS: {argument} has {len(values)} numbers, expected {classes}, one a class.")
    return torch.tensor(values, dtype=torch.float32, device=logits.device)
