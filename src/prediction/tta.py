"""Test-time augmentation: the mean of a network's answers to an image seen from several sides and at several sizes.

| name | views |
|---|---|
| none | the image as it is |
| flips | as it is, left-right, up-down, and both |
| d4 | the symmetries of the square: the flips, and the same of the transposed image (all turns by 90 degrees) |
| scales | 0.75, 1 and 1.25 of the network's frame |

`d4+scales` is each of one with each of the other. With flips or d4 the mean is equivariant: the turned image's answer
is the answer turned, whatever the network (Cohen and Welling 2016 average over the same group inside of it).
"""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tools.errors import UserError, nearest

MEANS = ("probability", "logit")
STEP = 32  # scaled sides are multiples of this, as most networks' strides ask


@dataclass(frozen=True)
class View:
    """One way to look at an image: scaled, then transposed, then flipped along the axes `flip` (-1: left-right)."""

    flip: tuple[int, ...] = ()
    transpose: bool = False
    scale: float = 1.0

    def size(self, frame: tuple[int, int]) -> tuple[int, int]:
        """Return the height and width that the network sees of a `frame` (H, W)."""
        height, width = (_scaled_side(side, self.scale) for side in frame)
        return (width, height) if self.transpose else (height, width)

    def apply(self, x: Tensor) -> Tensor:
        """Look at (N, C, H, W) this way -> (N, C, *size((H, W)))."""
        x = _resized(x, View(scale=self.scale).size(_size_of(x)))
        x = x.transpose(-2, -1) if self.transpose else x
        return x.flip(self.flip) if self.flip else x

    def undo(self, y: Tensor, size: tuple[int, int]) -> Tensor:
        """Turn what the network made of the view, (N, C, h, w), back into the frame's, (N, C, *size).

        The exact inverse of `apply` at scale 1, and bilinear otherwise.
        """
        y = y.flip(self.flip) if self.flip else y
        y = y.transpose(-2, -1) if self.transpose else y
        return _resized(y, size)


_FLIPS = tuple(View(flip) for flip in ((), (-1,), (-2,), (-2, -1)))
SYMMETRIES = {"none": (View(),), "flips": _FLIPS, "d4": (*_FLIPS, *(View(view.flip, True) for view in _FLIPS))}
SCALES = {"scales": (0.75, 1.0, 1.25)}
NAMES = (*SYMMETRIES, *SCALES)


def _scaled_side(side: int, scale: float) -> int:
    """Return the multiple of 32 nearest to the scaled side, of two the one further from `side`; at scale 1 the side."""
    if scale == 1:
        return side
    steps = side * scale / STEP
    return STEP * max(1, math.ceil(steps - 0.5) if scale < 1 else math.floor(steps + 0.5))


def _size_of(x: Tensor) -> tuple[int, int]:
    return x.shape[-2], x.shape[-1]


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize bilinearly, smoothed where it shrinks: the network has not learned from jagged edges."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)


def canonical(text: str) -> str:
    """Return the one name of what `text` stands for: scales+d4 -> d4+scales.

    Raises UserError for what `views` refuses.
    """
    names = text.split("+")
    for name in names:
        if name not in NAMES:
            raise UserError(
                f"TTA={text}: expected {', '.join(NAMES)}, or two of them as in d4+scales.{nearest(name, NAMES)}"
            )
    if len(names) - names.count("scales") > 1 or names.count("scales") > 1:
        raise UserError(f"TTA={text}: expected one of {', '.join(SYMMETRIES)}, with or without +scales, each once.")
    return "+".join(sorted(set(names) - {"none"}, key=NAMES.index)) or "none"


def views(text: str) -> list[View]:
    """Return the views of a name, or of two joined by +. Raises UserError for other names, and for two symmetries."""
    names = canonical(text).split("+")
    symmetry = SYMMETRIES.get(names[0], SYMMETRIES["none"])
    scales = SCALES["scales"] if "scales" in names else (1.0,)
    return [View(view.flip, view.transpose, scale) for scale in scales for view in symmetry]


def refuse_mean(mean: str) -> None:
    """Raise UserError for a mean that is not one of MEANS."""
    if mean not in MEANS:
        raise UserError(f"TTA_MEAN={mean}: expected {' or '.join(MEANS)}.{nearest(mean, MEANS)}")


def predict(
    network: Callable[[Tensor], Tensor], x: Tensor, task: str, views: Sequence[View], mean: str = "probability"
) -> Tensor:
    """Return the mean over `views` of what `network` (images -> logits) says of x (N, channels, H, W): probabilities.

    (N, C, H, W) in [0, 1]; they sum to 1 over the classes where `task` is multiclass. mean: "probability", or "logit":
    averaged before the sigmoid or softmax, where one view that is sure weighs more. A running sum, so that the number
    of views takes no memory. Views that are the same in this frame (scales of a tiny one) count once.
    """
    refuse_mean(mean)
    size = _size_of(x)
    distinct = {(view.flip, view.transpose, view.size(size)): view for view in views}.values()

    def answer(view: View) -> Tensor:
        y = network(view.apply(x))
        return view.undo(_activate(y, task) if mean == "probability" else y, size)

    total = functools.reduce(operator.add, map(answer, distinct))
    average = total if len(distinct) == 1 else total / len(distinct)
    return average if mean == "probability" else _activate(average, task)


def _activate(logits: Tensor, task: str) -> Tensor:
    return logits.softmax(1) if task == "multiclass" else logits.sigmoid()


def refused_sizes(network: nn.Module, shape: tuple[int, ...], views: Sequence[View]) -> list[tuple[int, int]]:
    """Return the (height, width) among `views` that a network cannot take, although it takes `shape` (N, C, H, W).

    Asked after a failure: it tells an encoder of one fixed size (swin, many vision transformers) from a full memory.
    The network is tried on tensors without content, which costs neither memory nor the device's time; nothing is
    refused where that says nothing, because it fails for x's shape too.
    """
    own = shape[-2], shape[-1]
    others = list(dict.fromkeys(view.size(own) for view in views if view.size(own) != own))
    if not others or not takes(network, shape):
        return []
    return [size for size in others if not takes(network, (*shape[:2], *size))]


def takes(network: nn.Module, shape: tuple[int, ...]) -> bool:
    """Return whether a network can take images of this shape (N, C, H, W); tried on tensors without content."""
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    empty = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    try:
        torch.func.functional_call(network, empty, (torch.empty(*shape, device="meta"),))
    except Exception:  # smp's and timm's networks raise what they like for a size that is not theirs
        return False
    return True
