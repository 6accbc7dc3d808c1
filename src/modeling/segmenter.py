"""What surrounds every network: normalization, padding, deep supervision; how it is saved and loaded."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modeling.frame_sizes import Frames
from tools.errors import UserError
from tools.files import atomic_write


def save_network(network: torch.nn.Module, path: Path, about: dict[str, str] | None = None) -> None:
    """Write a network's weights and buffers as safetensors, whole or not at all, and to the disk; `about`: metadata."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    state = shipped_state(network)
    with atomic_write(path, durable=True) as temporary:
        try:
            save_file({name: value.detach().cpu().contiguous() for name, value in state.items()}, temporary, about)
        except SafetensorError as error:  # an OSError in words
            raise UserError(f"{path} could not be written ({error}). Make room; RESUME=1 goes on then.") from error


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of each channel of images in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # of RGB


class Segmenter(nn.Module):
    """A network that normalizes, pads as `frames` says by repeating the border, and crops its body's logits back.

    `auxiliary`: 1 x 1 convolutions to logits for deep supervision (Lee et al. 2015), one for each coarser block of the
    body's decoder, the finest first. They work in training only and are not shipped.
    """

    mean: Tensor  # (1, channels, 1, 1), and so is std
    std: Tensor

    def __init__(
        self,
        body: nn.Module,
        normalization: Normalization,
        auxiliary: tuple[nn.Module, ...] = (),
        frames: Frames = Frames(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__()
        self.body, self.frames = body, frames
        self.register_buffer("mean", torch.tensor(normalization.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(normalization.std).view(1, -1, 1, 1))
        self.auxiliary = nn.ModuleList(auxiliary)

    @property
    def normalization(self) -> Normalization:
        """The mean and deviation that it uses, in the fewest digits that give the same 32 bits."""
        values = (buffer.flatten().cpu().numpy() for buffer in (self.mean, self.std))
        return Normalization(*(tuple(float(str(part)) for part in buffer) for buffer in values))

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Turn images (N, channels, H, W) in [0, 1] into logits (N, C, H, W).

        In training with deep supervision: a list of those and the coarser levels' logits, enlarged to (N, C, H, W).
        Raises UserError where the network takes one size only, and this is another.
        """
        height, width = images.shape[-2:]
        if not self.frames.takes((height, width)):
            raise UserError(
                f"The network gets a frame of {height} x {width} px; it is {self.frames}. Leave out what makes other "
                "frames (TTA=scales, TILE, CROP, RESIZE=none), or take a network of any size."
            )
        tall, wide = self.frames.padded((height, width))
        x = (images - self.mean) / self.std
        if (tall, wide) != (height, width):
            x = F.pad(x, (0, wide - width, 0, tall - height), mode="replicate")
        if self.training and len(self.auxiliary):
            return [logits[..., :height, :width] for logits in self._levels(x)]
        return self.of_padded(x)[..., :height, :width]

    def of_padded(self, x: Tensor) -> Tensor:
        """Return the body's logits of a frame that is normalized and padded already, at its size."""
        logits = self.body(x)
        if logits.shape[-2:] != x.shape[-2:]:  # DPT over patches of 14, see model_dispatcher
            logits = F.interpolate(logits, size=x.shape[-2:], mode="bilinear")
        return logits

    def _levels(self, x: Tensor) -> list[Tensor]:
        """Return the logits of the body and of its coarser blocks, all at the size of `x`, from fine to coarse."""
        logits, outputs = with_blocks(self.body, x)
        coarser = reversed(outputs[-1 - len(self.auxiliary) : -1])
        enlarged = [
            F.interpolate(head(output), size=x.shape[-2:], mode="bilinear")
            for head, output in zip(self.auxiliary, coarser, strict=True)
        ]
        return [logits, *enlarged]


def with_blocks(body: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the body's logits, and what each of its decoder's blocks gave on the way, from coarse to fine.

    The hooks live for this pass only: a copy of the network (the averaged weights) then shares nothing with it.
    """
    outputs: list[Tensor] = []
    blocks = body.get_submodule("decoder.blocks").children()
    hooks = [block.register_forward_hook(lambda _, __, output: outputs.append(output)) for block in blocks]
    try:
        return body(x), outputs
    finally:
        for hook in hooks:
            hook.remove()


def shipped_state(network: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that prediction needs: all but deep supervision's heads. `build` without heads loads these."""
    return {name: value for name, value in network.state_dict().items() if not name.startswith("auxiliary.")}


def load_shipped(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Load `shipped_state`'s tensors into a network, with or without deep supervision's heads, which stay as they are.

    Raises RuntimeError where anything else is missing, left over or of another shape.
    """
    heads = {name: value for name, value in network.state_dict().items() if name.startswith("auxiliary.")}
    network.load_state_dict(heads | state)
