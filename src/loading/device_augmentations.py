"""Augmentation of whole batches where the network runs (Kornia 0.9), with the steps and strengths of augmentations.

What differs from the CPU's pipelines: Kornia has no CLAHE that keeps colors (its own takes each channel by itself), so
`light` is brightness and contrast alone; it has no downscaling, which is left out; ColorJitter's four parts come in one
random order for each batch, not for each sample. Draws are others than the CPU's, from the same ranges.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from loading import augmentations


class _Noise(nn.Module):
    """Gaussian noise whose standard deviation each sample draws; Kornia's is the same for all."""

    def __init__(self, std: tuple[float, float], p: float, draw_on: torch.device) -> None:
        super().__init__()
        self.std, self.p, self.draw_on = std, p, draw_on

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] -> the same, clipped."""
        low, high = self.std
        std, chance = low + (high - low) * torch.rand(len(images)), torch.rand(len(images))
        std = torch.where(chance < self.p, std, 0.0).to(images.device).view(-1, 1, 1, 1)
        noise = torch.randn(images.shape, device=self.draw_on).to(images.device)
        return torch.addcmul(images, noise, std).clamp_(0, 1)


def _geometric(step: str, strength: dict[str, Any], size: tuple[int, int], draw_on: torch.device) -> list[nn.Module]:
    """Return Kornia's modules for a step that moves image and mask."""
    import kornia.augmentation as K

    flips = {"horizontal": K.RandomHorizontalFlip, "vertical": K.RandomVerticalFlip}
    if step == "symmetry":  # mirroring along both axes and at most one quarter turn: all eight are equally likely
        quarter = [K.RandomRotation90((1, 1), p=0.5)] if size[0] == size[1] else []
        return [*(flip(p=0.5) for flip in flips.values()), *quarter]
    if step in flips:
        return [flips[step](p=strength["p"])]
    # reflection about the outermost pixels' middles, as on the CPU
    border = {"padding_mode": "reflection", "align_corners": True, "p": strength["p"]}
    if step == "affine":
        scale, shift = strength["scale"], strength["shift"]
        scale = scale if strength["keep_aspect"] else (*scale, *scale)
        return [K.RandomAffine(strength["rotate"], translate=(shift, shift), scale=scale, **border)]
    sigma, alpha = augmentations.elastic_field(strength, min(size))
    height, width = (2 * alpha / max(1, length - 1) for length in size)  # of an image from -1 to 1
    kernel = 2 * round(4 * sigma) + 1
    elastic = K.RandomElasticTransform((kernel, kernel), (sigma, sigma), (width, height), **border)
    elastic.set_rng_device_and_dtype(draw_on, torch.float32)  # a value for each pixel is too much for the CPU
    return [elastic]


def _photometric(step: str, strength: dict[str, Any], channels: int, draw_on: torch.device) -> list[nn.Module]:
    """Return modules for a step that changes the image alone; hue and saturation are those of RGB."""
    import kornia.augmentation as K

    p = strength["p"]
    if step == "color" and channels == 3:
        return [K.ColorJitter(**strength)]
    if step == "saturation":
        return [K.ColorJitter(**strength)] if channels == 3 else []
    if step in ("color", "light"):  # ColorJiggle adds to the brightness, as albumentations' RandomBrightnessContrast
        return [K.ColorJiggle(brightness=strength["brightness"], contrast=strength["contrast"], p=p)]
    if step == "gamma":
        return [K.RandomGamma(strength["gamma"], p=p)]
    if step == "blur":
        kernel = 2 * math.ceil(3 * strength["sigma"][1]) + 1
        return [K.RandomGaussianBlur((kernel, kernel), strength["sigma"], border_type="replicate", p=p)]
    if step == "noise":
        return [_Noise(strength["std"], p, draw_on)]
    if step == "erase":
        return [K.RandomErasing(strength["area"], strength["ratio"], p=p) for _ in range(strength["count"])]
    return []  # downscale


@contextlib.contextmanager
def _drawing_from(key: tuple[int, ...], device: torch.device) -> Iterator[None]:
    """Let torch's generators of the CPU and of `device` follow `key` within it; afterwards they are as before."""
    # spawn_key: a stream of its own, beside that of whatever else is drawn with the same key
    seed = int(np.random.SeedSequence(key, spawn_key=(2,)).generate_state(1, np.uint64)[0])
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would change all other devices' too
        if device.type == "cuda":
            torch.cuda.default_generators[device.index].manual_seed(seed)
        yield


class DeviceAugmentation:
    """A named pipeline for batches: `(images, masks, key) -> (images, masks)`.

    images uint8 (N, C, H, W), masks uint8 (N, K, H, W) as in dataspec.

    The images become float32 in [0, 1], under autocast too; masks stay uint8 and keep their values: class indices
    (`labels`) come from the nearest pixel, planes of 0 and 1 are cut at one half. What comes in from outside is
    reflected. Each sample draws for itself; equal keys give equal results on the same kind of device, and torch's own
    generators stay as they were. Kornia's modules are built at first use: they are neither parameters nor part of a
    checkpoint.
    """

    def __init__(self, name: str, labels: bool, channels: int) -> None:
        self.name, self.labels, self.channels = name, labels, channels
        # by size and the device that draws
        self._built: dict[tuple[tuple[int, int], torch.device], tuple[nn.Module, nn.Module]] = {}

    def __call__(self, images: Tensor, masks: Tensor, key: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        device = images.device
        height, width = images.shape[2:]
        move, change = self._modules((height, width), device if device.type == "cuda" else torch.device("cpu"))
        with torch.no_grad(), torch.autocast(device.type, enabled=False), _drawing_from(key, device):
            pictures, planes = move(images.float().div_(255), masks.float())
            # rounding errors of a warp must not become half a class
            moved = planes.round_() if self.labels else planes >= 0.5
            return change(pictures.clamp_(0, 1)).clamp_(0, 1), moved.to(masks.dtype)

    def _modules(self, size: tuple[int, int], draw_on: torch.device) -> tuple[nn.Module, nn.Module]:
        """Return what moves (images, masks) of `size`, and what changes images alone after it."""
        if (size, draw_on) not in self._built:
            from kornia.augmentation import AugmentationSequential
            from kornia.constants import DataKey

            move: list[Any] = []
            change: list[nn.Module] = []
            for step, strength in augmentations.strengths(self.name).items():
                if step in augmentations.GEOMETRIC:
                    move += _geometric(step, strength, size, draw_on)
                else:
                    change += _photometric(step, strength, self.channels, draw_on)
            nearest = {DataKey.MASK: {"resample": "nearest" if self.labels else "bilinear", "align_corners": True}}
            # apart from each other, because Kornia's container would erase from the mask what is erased from the image
            sequential = AugmentationSequential(*move, data_keys=["input", "mask"], extra_args=nearest)
            self._built[size, draw_on] = sequential, nn.Sequential(*change)
        return self._built[size, draw_on]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_built": {}}


def make(name: str, labels: bool, channels: int) -> DeviceAugmentation | None:
    """Return the pipeline of that name (config.AUGMENT) for batches, None for "none".

    `labels`: masks hold class indices. Raises UserError for an unknown name.
    """
    return DeviceAugmentation(name, labels, channels) if augmentations.strengths(name) else None
