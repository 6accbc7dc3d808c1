"""One step for training and validation, counts, optimiser and schedule. Knows no settings, files or folds."""

import math
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

import metrics
from dataspec import IGNORED
from errors import UserError


def learning_rate_factor(step: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate at optimiser step `step` of `total`.

    A linear rise over `warmup`, then a cosine to zero.
    """
    rise = max(1, round(warmup * total))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, total - rise))))


def decay_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Optimiser groups: weight decay on matrices and kernels, none on norms and biases (1-D)."""
    weights = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    return [{"params": weights, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


class SegmentationModule(pl.LightningModule):
    """Trains `network` (images in [0, 1] -> logits) with `loss` on batches of dataset.MaskDataset.

    In an accumulation window every sample weighs 1 / (samples in the window), the ragged last window included.
    Logs train_loss, valid_loss, valid_dice (mean over images and scored classes), valid_dice_pooled (mean over the
    classes) and, with several, valid_dice_<class>, at the network's size.
    `classes`: all of the network's outputs; `scored`: the indices of those that count.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        *,
        lr: float,
        warmup: float = 0.1,
        weight_decay: float = 1e-2,
        task: str = "binary",
        classes: tuple[str, ...] = ("foreground",),
        scored: tuple[int, ...] = (0,),
        threshold: float = 0.5,
        empty: str = "one",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.network, self.loss = network, loss
        self.save_hyperparameters(ignore=["network", "loss"])
        self._counts: list[np.ndarray] = []

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (N, channels, H, W) -> logits (N, C, H, W)."""
        x = images.float().div_(255).contiguous(memory_format=torch.channels_last)
        return self.network(x)

    def _step(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        logits = self(batch["image"])
        return self.loss(logits, batch["mask"]), logits

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        # what the network itself draws (dropout, drop path) is a function of the step too, so that a resumed run
        # repeats it
        torch.manual_seed(
            int(np.random.SeedSequence([self.hparams.seed, self.trainer.current_epoch, index]).generate_state(1)[0])
        )
        loss, _ = self._step(batch)
        if not torch.isfinite(loss):
            where = f"epoch {self.trainer.current_epoch}, batch {index}"
            raise UserError(
                f"The loss became {loss.item()} at {where}. "
                "Try a lower LR, GRADIENT_CLIP=1 or PRECISION=32; RESUME=1 goes on from the last epoch."
            )
        self.log(
            "train_loss", loss.detach(), on_step=True, on_epoch=True, prog_bar=True, batch_size=len(batch["image"])
        )
        return loss * self._window_share(index)

    def _window_share(self, index: int) -> float:
        """Lightning divides each batch's loss by `accumulate`; in the last window fewer batches may come.

        All are of one size.
        """
        accumulate, batches = self.trainer.accumulate_grad_batches, self.trainer.num_training_batches
        in_window = min(accumulate, batches - index // accumulate * accumulate)
        return accumulate / in_window

    def validation_step(self, batch: dict[str, Tensor], _: int) -> None:
        loss, logits = self._step(batch)
        self.log("valid_loss", loss, batch_size=len(logits), prog_bar=True)
        mask = batch["mask"]
        if self.hparams.task == "multiclass":
            labelled, scored = mask != IGNORED, torch.tensor(self.hparams.scored, device=mask.device).view(1, -1, 1, 1)
            predicted, truth = (logits.argmax(1, keepdim=True) == scored) & labelled, mask == scored
        else:
            predicted, truth = logits.float().sigmoid() >= self.hparams.threshold, mask > 0
        tp, fp, fn = (  # (N, S) each
            (a & b).flatten(2).sum(2) for a, b in ((predicted, truth), (predicted, ~truth), (~predicted, truth))
        )
        self._counts.append(torch.stack([tp, fp, fn]).cpu().numpy())

    def on_validation_epoch_start(self) -> None:
        self._counts = []

    def on_validation_epoch_end(self) -> None:
        counts = np.concatenate(self._counts, axis=1)  # (3, N, S)
        summary = metrics.summarise(*counts, self.hparams.empty)
        self.log("valid_dice", summary["image"]["dice"], prog_bar=True)
        self.log("valid_dice_pooled", summary["pooled"]["dice"])
        if len(self.hparams.scored) > 1:
            for column, index in enumerate(self.hparams.scored):
                one = metrics.summarise(*counts[:, :, column : column + 1], self.hparams.empty)
                self.log(f"valid_dice_{self.hparams.classes[index]}", one["image"]["dice"])

    def configure_optimizers(self) -> dict[str, Any]:
        optimiser = torch.optim.AdamW(decay_groups(self.network, self.hparams.weight_decay), lr=self.hparams.lr)
        total = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: learning_rate_factor(step, total, self.hparams.warmup)
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
