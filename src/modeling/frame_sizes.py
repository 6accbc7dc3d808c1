"""Which frames a timm encoder takes: with what options, padded to multiples of what, of any size or of one only.

Nothing is looked up in a list of families. A trial on torch's meta device, which has shapes and neither memory nor
arithmetic, tells in a second also of a network of billions of parameters.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from tools.errors import UserError

DIVISOR = 32  # sides that every convolutional encoder accepts
Size = tuple[int, int]  # height, width
Options = dict[str, Any]  # of timm.create_model
# how timm's windows and vision transformers are told to take images of any size; most encoders do by themselves
ANY_SIZE: tuple[Options, ...] = ({}, {"strict_img_size": False}, {"dynamic_img_size": True})
NEAR = (32, 28, 64)  # 28: patches of 14, an even number along a side
FAR = (128, 224, 256, 384)  # 32 x windows of 4, 7, 8 and 12: much of a frame may be padding


@dataclass(frozen=True)
class Frames:
    """The frames that a network takes: sides are padded to multiples of `divisor` (of height, of width).

    `only`: the padded frame has to be `divisor` itself, as position embeddings or windows were made for that size.
    """

    options: Options = field(default_factory=dict)
    divisor: Size = (DIVISOR, DIVISOR)
    only: bool = False

    def padded(self, size: Size) -> Size:
        """Return the height and width that the network itself gets of a frame."""
        return size[0] + -size[0] % self.divisor[0], size[1] + -size[1] % self.divisor[1]

    def takes(self, size: Size) -> bool:
        """Return whether a frame of this size can be padded to one that the network takes."""
        return not self.only or self.padded(size) == self.divisor

    def __str__(self) -> str:
        height, width = self.divisor
        if self.only:
            return f"padded to {height} x {width} px, the only size that it takes"
        return "" if self.divisor == (DIVISOR, DIVISOR) else f"padded to multiples of {height} px"


def find(name: str, build: Callable[[Options], nn.Module], channels: int, size: Size) -> Frames:
    """Return how frames of `size` (height, width) are given to the network that `build(options)` makes.

    Any size is preferred to this one only, and little padding to much. Raises UserError where no trial works.
    """
    trials: dict[str, nn.Module | Exception] = {}  # by options: a network, or why there is none

    def network(options: Options) -> nn.Module | Exception:
        if str(options) not in trials:
            trials[str(options)] = _on_meta(build, options)
        return trials[str(options)]

    with torch.random.fork_rng(devices=[]):  # what is built then begins as if nothing had been tried
        plain = network({})
        if isinstance(plain, UserError):
            raise plain  # whatever the size
        reasons: list[str] = []
        for frames in _candidates(size, plain):
            built = network(frames.options)
            reason = said(built) if isinstance(built, Exception) else _reason(built, channels, frames, size)
            if not reason:
                return frames
            reasons.append(reason)
    for error in trials.values():
        if isinstance(error, UserError):
            raise error
    raise UserError(
        f"MODEL_NAME={name} takes no image of {size[0]} x {size[1]} px, padded or not ({reasons[0]}). "
        f"{_other_sizes(plain)}"
    )


def _candidates(size: Size, plain: nn.Module | Exception) -> Iterator[Frames]:
    """Yield what to try, the best first: any size, this one only, any size with much padding, the weights' own size."""
    for near in NEAR:
        yield from (Frames(options, (near, near)) for options in ANY_SIZE)
    for near in NEAR:
        padded = Frames(divisor=(near, near)).padded(size)
        yield Frames({"img_size": padded}, padded, only=True)
    for far in FAR:
        yield from (Frames(options, (far, far)) for options in ANY_SIZE)
    own = _own_size(plain)
    if own and own[0] >= size[0] and own[1] >= size[1]:
        yield Frames({}, own, only=True)


def _own_size(network: nn.Module | Exception) -> Size | None:
    """Return the size that a network's weights are published for, None where nothing says so."""
    model = getattr(getattr(network, "encoder", network), "model", network)
    about: Any = getattr(model, "pretrained_cfg", None)
    size = about.get("input_size") if isinstance(about, dict) else None
    return (int(size[1]), int(size[2])) if size else None


def _other_sizes(network: nn.Module | Exception) -> str:
    own = _own_size(network)
    take = f"Take IMAGE_SIZE={own[0]},{own[1]}, which its weights are made for, or a" if own else "Take a"
    return f"{take}nother encoder, such as smp_unet_tu-convnext_tiny, or smp_dpt_tu-vit_small_patch14_dinov2."


def _on_meta(build: Callable[[Options], nn.Module], options: Options) -> nn.Module | Exception:
    """Build without memory, in eval mode; or return why it cannot be built with these options."""
    try:
        with torch.device("meta"):
            return build(options).eval()
    except Exception as error:  # timm and smp raise what they like
        return error


def _reason(network: nn.Module, channels: int, frames: Frames, size: Size) -> str:
    """Return why a network does not take these frames, "" where it does; of any size: a higher frame is tried too."""
    height, width = frames.padded(size)
    sizes = [(height, width)] if frames.only else [(height, width), (height + frames.divisor[0], width)]
    try:
        with torch.no_grad():
            for one in sizes:
                network(torch.zeros(1, channels, *one, device="meta"))
    except Exception as error:
        return said(error)
    return ""


def said(error: Exception) -> str:
    """Return an error's reason in one line."""
    return " ".join(str(error).split())[:120] or type(error).__name__
