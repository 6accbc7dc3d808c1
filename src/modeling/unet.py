"""The plain U-Net (Ronneberger et al. 2015), and its expanding path around any backbone of timm or torchvision.

Both map images (N, channels, H, W), H and W multiples of 32, to logits (N, classes, H, W). What they call `encoder` can
be frozen and have a learning rate of its own; `decoder.blocks` go from coarse to fine, each twice the size before.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modeling import backbones
from modeling.backbones import Feature
from tools.errors import UserError

LEVELS = 5  # of the plain U-Net, as in the paper: strides 1, 2, 4, 8, 16
WIDTHS = {1: 16, 2: 32, 4: 64, 8: 128, 16: 256}  # features of the decoder around a backbone, by stride


def double_convolution(inputs: int, outputs: int) -> nn.Sequential:
    """Return two 3 x 3 convolutions with batch norm and ReLU; the size stays (the paper's have no norm, and shrink)."""
    return nn.Sequential(*_convolution(inputs, outputs), *_convolution(outputs, outputs))


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    """Return one of them, started as in the paper: normally distributed with the variance 2 / (inputs of a pixel)."""
    kernel = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(kernel.weight, nonlinearity="relu")
    return kernel, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


class ContractingPath(nn.Module):
    """Double convolutions, each after the first on the maximum of 2 x 2 pixels; returns what each gives."""

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        inputs = [channels, *widths[:-1]]
        self.levels = nn.ModuleList(double_convolution(*pair) for pair in zip(inputs, widths, strict=True))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, channels, H, W) -> (N, widths[i], H / 2**i, W / 2**i) for each level i."""
        features: list[Tensor] = []
        for level in self.levels:
            x = level(F.max_pool2d(x, 2) if features else x)
            features.append(x)
        return features


class UpBlock(nn.Module):
    """A doubling of the size by a transposed convolution, with the encoder's feature beside it, convolved twice."""

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
        self.convolve = double_convolution(outputs + skip, outputs)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        """(N, inputs, h, w) and the encoder's (N, skip, 2 h, 2 w), if it has one -> (N, outputs, 2 h, 2 w)."""
        x = self.up(x)
        return self.convolve(x if skip is None else torch.cat([x, skip], 1))


class ExpandingPath(nn.Module):
    """A decoder from the coarsest feature to the full size, a block for each doubling.

    A block takes the feature of its stride, where there is one. `widths`: the blocks' features by their stride.
    """

    def __init__(self, features: Sequence[Feature], widths: dict[int, int]) -> None:
        super().__init__()
        skips = {feature.stride: feature.channels for feature in features}
        stride = max(skips)
        inputs, blocks, self.strides = skips[stride], [], []
        while stride > 1:
            stride //= 2
            blocks.append(UpBlock(inputs, skips.get(stride, 0), widths[stride]))
            self.strides.append(stride)
            inputs = widths[stride]
        self.blocks = nn.ModuleList(blocks)

    def forward(self, features: dict[int, Tensor]) -> Tensor:
        """Features (N, C, H / stride, W / stride) by their stride -> (N, widths[1], H, W)."""
        x = features[max(features)]
        for stride, block in zip(self.strides, self.blocks, strict=True):
            x = block(x, features.get(stride))
        return x


class UNet(nn.Module):
    """An encoder that returns `features`, an expanding path and a 1 x 1 convolution to the classes' logits."""

    def __init__(self, encoder: nn.Module, features: tuple[Feature, ...], widths: dict[int, int], classes: int) -> None:
        super().__init__()
        self.encoder, self.features = encoder, features
        self.decoder = ExpandingPath(features, widths)
        self.head = nn.Conv2d(widths[1], classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(N, channels, H, W) -> logits (N, classes, H, W)."""
        outputs = self.encoder(images)
        outputs = list(outputs.values()) if isinstance(outputs, dict) else outputs  # torchvision's come by name
        by_stride = {
            feature.stride: output.permute(0, 3, 1, 2) if feature.channels_last else output
            for feature, output in zip(self.features, outputs, strict=True)
        }
        return self.head(self.decoder(by_stride))


def plain(*, channels: int = 3, classes: int = 1, max_features: int = 512) -> UNet:
    """Build the U-Net of the paper with batch norm, padding and half its features by default.

    `max_features` at the bottom, halved at each of the four levels above it: 256 gives 16, 32, 64, 128, 256. Raises
    UserError where that is not a whole number.
    """
    most = 2 ** (LEVELS - 1)
    if max_features < most or max_features % most:
        raise UserError(
            f"MAX_FEATURES={max_features}: expected a multiple of {most}, because each of the {LEVELS - 1} levels "
            "above the bottom has half as many; 256 gives 16, 32, 64, 128, 256."
        )
    widths = {2**level: max_features * 2**level // most for level in range(LEVELS)}
    features = tuple(Feature(stride, width) for stride, width in widths.items())
    return UNet(ContractingPath(channels, list(widths.values())), features, widths, classes)


def unetify(
    encoder: str,
    *,
    channels: int = 3,
    classes: int = 1,
    download_for: Path | None = None,
    options: Mapping[str, Any] = {},
) -> UNet:
    """Build a U-Net's expanding path around backbones.build's `encoder` (tu-<timm name> or tv-<torchvision name>).

    Raises UserError where there is no such backbone, or it has no features of several strides.
    """
    backbone, features = backbones.build(encoder, channels, download_for, options)
    return UNet(backbone, features, WIDTHS, classes)
