"""One step for training and validation, and counts. Knows no settings, files or folds."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from data.dataspec import IGNORED
from metrics import overlap
from modeling import batch_mixing, optimizers
from tools import distributed
from tools.errors import UserError

UNLOGGED = "unlogged"  # in a checkpoint: what its step gave and no logger has yet
Key = tuple[int, ...]
Augment = Callable[[Tensor, Tensor, Key], tuple[Tensor, Tensor]]


class SegmentationModule(pl.LightningModule):
    """Trains `network` (images in [0, 1] -> logits) with `loss` on batches of dataset.collate.

    `augment`: on the batch's own device, (uint8 images, uint8 masks, key) -> (float32 images in [0, 1], masks). `mix`:
    "none" or a kind of mixing.mix. A network in training that returns a list (deep supervision) has the finest
    logits first; each next counts half as much (Isensee et al. 2021, nnU-Net).

    In an accumulation window every sample weighs 1 / (samples in the window), the ragged last window included.
    Logs train_loss_step, train_loss_epoch, valid_loss, valid_dice and valid_iou (means over images and scored classes),
    valid_dice_pooled (mean over the classes) and, with several, valid_dice_<class>, at the network's size.
    `classes`: all of the network's outputs; `scored`: the indices of those that count.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        *,
        lr: float,
        encoder_lr: float = 1.0,
        optimiser: str = "adamw",
        momentum: float = 0.9,
        weight_decay: float = 1e-2,
        schedule: str = "cosine",
        warmup: float = 0.1,
        cycles: int = 1,
        patience: int = 2,
        augment: Augment | None = None,
        mix: str = "none",
        mix_alpha: float = 0.4,
        task: str = "binary",
        classes: tuple[str, ...] = ("foreground",),
        scored: tuple[int, ...] = (0,),
        threshold: float = 0.5,
        empty: str = "one",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.network, self.loss, self.augment = network, loss, augment
        self.save_hyperparameters(ignore=["network", "loss", "augment"])
        # a validation batch's first row -> its counts (3, N, S) and the sum of its losses
        self._validated: dict[int, tuple[np.ndarray, float]] = {}
        self._plateau: Any = None  # stepped here: Lightning would do it after the epoch's checkpoint is written
        self._plateau_state: dict[str, Any] | None = None
        # our own mean over the epoch: Lightning's forgets, where a run is resumed, what came before
        self._losses: list[Any] = [0.0, 0]  # sum over the epoch's batches, their number
        self._unlogged: dict[str, float] = {}
        self._unlogged_epoch = 0

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self._plateau is not None:
            checkpoint["plateau"] = self._plateau.state_dict()
        checkpoint["losses"] = [distributed.mean(float(self._losses[0])), self._losses[1]]
        # Lightning logs these only after the hooks in which a checkpoint is written
        ended = self._losses[1] == self.trainer.num_training_batches
        names = ("train_loss_epoch",) if ended else ("train_loss_step",)
        found = {name: self.trainer.callback_metrics.get(name) for name in names}
        checkpoint[UNLOGGED] = {name: float(value) for name, value in found.items() if value is not None}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._plateau_state = checkpoint.get("plateau")
        self._losses = list(checkpoint.get("losses", self._losses))
        self._unlogged, self._unlogged_epoch = checkpoint.get(UNLOGGED, {}), checkpoint["epoch"]

    def on_train_start(self) -> None:
        self._log_what_was_not()

    def on_fit_end(self) -> None:
        self._log_what_was_not()  # where a resumed run had no step left

    def _log_what_was_not(self) -> None:
        if self._unlogged:
            for logger in self.trainer.loggers:
                logger.log_metrics({**self._unlogged, "epoch": self._unlogged_epoch}, step=self.trainer.global_step - 1)
                logger.save()
            self._unlogged = {}

    def forward(self, images: Tensor) -> Any:
        """uint8, or float in [0, 1], (N, channels, H, W) -> logits (N, C, H, W), or a list of them in training."""
        x = images if images.is_floating_point() else images.float().div_(255)
        return self.network(x.contiguous(memory_format=torch.channels_last))

    def _loss(self, logits: Any, mask: Tensor) -> Tensor:
        """The loss, with deep supervision the mean over the levels that weighs each half as much as the one before."""
        levels = logits if isinstance(logits, list) else [logits]
        shares = [0.5**level for level in range(len(levels))]
        losses = [share * self.loss(one, mask) for share, one in zip(shares, levels, strict=True)]
        return sum(losses) / sum(shares)

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        key = (self.hparams.seed, self.trainer.current_epoch, index)
        if self.trainer.world_size > 1:  # each rank draws for its own share of the batch
            key = (*key, self.trainer.global_rank)
        # what the network itself draws (dropout, drop path) is a function of the step too, so that a resumed run
        # repeats it
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        loss = self._mixed_loss(batch["image"], batch["mask"], key)
        if not torch.isfinite(loss):
            where = f"epoch {self.trainer.current_epoch}, batch {index}"
            raise UserError(
                f"The loss became {loss.item()} at {where}. "
                "RESUME=1 PRECISION=32 goes on from the last checkpoint; a lower LR or GRADIENT_CLIP needs OVERWRITE=1."
            )
        self.log("train_loss_step", loss.detach(), prog_bar=True)
        if index == 0:
            self._losses = [0.0, 0]
        self._losses = [self._losses[0] + loss.detach(), self._losses[1] + 1]
        return loss * self._window_share(index)

    def on_train_batch_end(self, outputs: Any, batch: Any, index: int) -> None:
        if index + 1 == self.trainer.num_training_batches:
            loss = distributed.mean(float(self._losses[0] / self._losses[1]))
            self.log("train_loss_epoch", loss, on_step=False, on_epoch=True)

    def _mixed_loss(self, images: Tensor, masks: Tensor, key: Key) -> Tensor:
        """The training loss of a batch, augmented on the device and mixed where that is asked for."""
        if self.augment is not None:
            images, masks = self.augment(images, masks, key)
        if self.hparams.mix == "none":
            return self._loss(self(images), masks)
        images = images if images.is_floating_point() else images.float().div_(255)
        mixed = batch_mixing.mix(images, masks, self.hparams.mix, self.hparams.mix_alpha, key)
        logits = self(mixed.images)
        loss = self._loss(logits, mixed.masks)
        if mixed.partners is None:
            return loss
        return mixed.share * loss + (1 - mixed.share) * self._loss(logits, mixed.partners)

    def _window_share(self, index: int) -> float:
        """Lightning divides each batch's loss by `accumulate`; in the last window fewer batches may come.

        All are of one size.
        """
        accumulate, batches = self.trainer.accumulate_grad_batches, self.trainer.num_training_batches
        in_window = min(accumulate, batches - index // accumulate * accumulate)
        return accumulate / in_window

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        mask, logits = batch["mask"], self(batch["image"])
        loss = self._loss(logits, mask)
        if self.hparams.task == "multiclass":
            labelled, scored = mask != IGNORED, torch.tensor(self.hparams.scored, device=mask.device).view(1, -1, 1, 1)
            predicted, truth = (logits.argmax(1, keepdim=True) == scored) & labelled, mask == scored
        else:
            predicted, truth = logits.float().sigmoid() >= self.hparams.threshold, mask > 0
        tp, fp, fn = (  # (N, S) each
            (a & b).flatten(2).sum(2) for a, b in ((predicted, truth), (predicted, ~truth), (~predicted, truth))
        )
        counts = torch.stack([tp, fp, fn]).cpu().numpy()
        self._validated[batch["row"][0].item()] = counts, float(loss) * len(logits)

    def on_validation_epoch_start(self) -> None:
        self._validated = {}

    def on_validation_epoch_end(self) -> None:
        """Every rank's batches, each once, in the order that one alone would have them: the same figures to the end."""
        everything = {first: found for part in distributed.all_gather(self._validated) for first, found in part.items()}
        batches = [everything[first] for first in sorted(everything)]
        counts = np.concatenate([counts for counts, _ in batches], axis=1)  # (3, N, S)
        summary = overlap.summarise(*counts, self.hparams.empty)
        self.log("valid_loss", sum(loss for _, loss in batches) / counts.shape[1], prog_bar=True)
        self.log("valid_dice", summary["image"]["dice"], prog_bar=True)
        self.log("valid_iou", summary["image"]["iou"])
        self.log("valid_dice_pooled", summary["pooled"]["dice"])
        if self._plateau is not None:
            self._plateau.step(summary["image"]["dice"])
        if len(self.hparams.scored) > 1:
            for column, index in enumerate(self.hparams.scored):
                one = overlap.summarise(*counts[:, :, column : column + 1], self.hparams.empty)
                self.log(f"valid_dice_{self.hparams.classes[index]}", one["image"]["dice"])

    def configure_optimizers(self) -> tuple[list, list]:
        chosen = self.hparams
        groups = optimizers.parameter_groups(self.network, chosen.lr, chosen.encoder_lr, chosen.weight_decay)
        # in 16 bits a fused step means to unscale the gradients itself, so that Lightning would refuse to clip them
        fusible = self.trainer.precision == "32-true" or not self.trainer.gradient_clip_val
        optimiser = optimizers.make_optimiser(chosen.optimiser, groups, chosen.lr, chosen.momentum, fusible)
        schedules = optimizers.make_schedule(
            chosen.schedule,
            optimiser,
            int(self.trainer.estimated_stepping_batches),
            warmup=chosen.warmup,
            cycles=chosen.cycles,
        )
        if chosen.schedule == "plateau":
            self._plateau = optimizers.make_plateau(optimiser, chosen.patience)
            if self._plateau_state:  # of the checkpoint, which Lightning loads before it asks for optimisers
                self._plateau.load_state_dict(self._plateau_state)
        return [optimiser], schedules
