"""The plain ways of doing what this repository does, as tutorials and examples have them: what the table compares with.

Written for these benchmarks after smp's example of binary segmentation, albumentations' guide to segmentation, and the
run-length function that Kaggle's kernels share.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytorch_lightning as pl
import segmentation_models_pytorch as smp
import torch
from PIL import Image

Pair = tuple[Path, Path]


class Pairs(torch.utils.data.Dataset):
    """Opens with Pillow, resizes and normalizes by albumentations, transposes; as float32 (3, H, W) and (1, H, W)."""

    def __init__(self, pairs: list[Pair], size: int, augment: Callable[..., Any] | None = None) -> None:
        self.pairs, self.augment = pairs, augment
        self.resize, self.normalize = A.Compose([A.Resize(size, size)]), A.Compose([A.Normalize()])

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        image = np.array(Image.open(self.pairs[index][0]).convert("RGB"))
        mask = (np.array(Image.open(self.pairs[index][1]).convert("L")) > 0).astype(np.uint8)
        small = self.resize(image=image, mask=mask)
        image, mask = small["image"], small["mask"]
        if self.augment is not None:
            image, masks = self.augment(image, mask[None], (0, 0, index))
            mask = masks[0]
        image = self.normalize(image=image)["image"]
        return {"image": image.transpose(2, 0, 1), "mask": mask[None].astype(np.float32)}


class Module(pl.LightningModule):
    """The example's module: normalizes, Dice loss, Adam; counts its statistics in each step."""

    def __init__(self, encoder: str) -> None:
        super().__init__()
        self.model = smp.Unet(encoder, encoder_weights=None)
        self.loss = smp.losses.DiceLoss(smp.losses.BINARY_MODE, from_logits=True)

    def training_step(self, batch: dict[str, torch.Tensor], _: int) -> torch.Tensor:
        logits = self.model(batch["image"])
        loss = self.loss(logits, batch["mask"])
        smp.metrics.get_stats((logits.sigmoid() > 0.5).long(), batch["mask"].long(), mode="binary")
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=2e-4)


def encode(mask: np.ndarray) -> str:
    """The common loop over pixels: 0/1 (H, W) -> "start length ...", left to right, counted from 1."""
    runs, before = [], -2
    for place in np.where(mask.flatten() == 1)[0]:
        if place > before + 1:
            runs.extend((place + 1, 0))
        runs[-1] += 1
        before = place
    return " ".join(map(str, runs))


def decode(text: str, shape: tuple[int, int]) -> np.ndarray:
    """The common loop over pixels back: 0/1 (H, W)."""
    numbers = list(map(int, text.split()))
    flat = [0] * (shape[0] * shape[1])
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        for place in range(start - 1, start - 1 + length):
            flat[place] = 1
    return np.array(flat, np.uint8).reshape(shape)


@torch.inference_mode()
def predict(network: torch.nn.Module, files: list[Path], size: tuple[int, int]) -> list[str]:
    """One image after the other: open, resize, normalize, forward, resize, cut at one half, run lengths."""
    import cv2

    prepare, texts = A.Compose([A.Resize(*size), A.ToTensorV2()]), []
    for path in files:
        image = np.array(Image.open(path).convert("RGB"))
        x = prepare(image=image)["image"][None].float() / 255
        probability = network(x.to(next(network.parameters()).device)).sigmoid()[0, 0].cpu().numpy()
        mask = cv2.resize(probability, image.shape[1::-1]) > 0.5
        changes = np.where(np.diff(np.concatenate([[0], mask.flatten(), [0]])))[0] + 1
        changes[1::2] -= changes[::2]
        texts.append(" ".join(map(str, changes)))
    return texts
