"""Around the training steps: averaged weights, checkpoints for resuming, the shipped model, a line per epoch."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, TQDMProgressBar, WeightAveraging
from torch import Tensor

import model_dispatcher
import runs
from errors import UserError


class AveragedWeights(WeightAveraging):
    """Exponential moving average of the weights, scored at validation and shipped at the end.

    The decay rises to its value as (1 + n) / (10 + n), as in TensorFlow's ExponentialMovingAverage, so that a short run
    is not held back by its random start.
    """

    def __init__(self, decay: float) -> None:
        def average(mean: Tensor, new: Tensor, count: Tensor | int) -> Tensor:
            if not mean.is_floating_point():
                return new  # counters of batch norm
            rising = (1 + count) / (10 + torch.as_tensor(count, device=mean.device))  # stays on the device: no waiting
            return torch.lerp(mean, new, (1 - rising.clamp(max=decay)).to(mean.dtype))

        super().__init__(use_buffers=True, avg_fn=average)


def averaged_network(trainer: pl.Trainer, module: pl.LightningModule) -> torch.nn.Module:
    """The network with the averaged weights, or the module's own where there is no averaging.

    Lightning copies the average into the module when training ends, but not where a resumed run has no step left.
    """
    averaged = next((item for item in trainer.callbacks if isinstance(item, AveragedWeights)), None)
    return averaged._average_model.module.network if averaged else module.network


class LastAndPrevious(Callback):
    """checkpoints/{last,previous}.ckpt after each epoch, for resuming only; each is written whole, then renamed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        last, temporary = self.folder / "last.ckpt", self.folder / ".writing.ckpt"
        try:
            trainer.save_checkpoint(temporary, weights_only=False)
            if last.exists():
                os.replace(last, self.folder / "previous.ckpt")
            os.replace(temporary, last)
        finally:
            temporary.unlink(missing_ok=True)  # half of one, where the disk is full


class FrozenEncoder(Callback):
    """Keeps the encoder as it is for the first epochs, so that a fresh decoder's gradients do not spoil its weights.

    Its batch norms keep their statistics too.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not hasattr(module.network.body, "encoder"):
            raise UserError("FREEZE_ENCODER: this network has no encoder that could be frozen; leave it out.")

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        encoder, frozen = module.network.body.encoder, trainer.current_epoch < self.epochs
        encoder.requires_grad_(not frozen)
        encoder.train(not frozen)


class BestWeights(Callback):
    """Keeps the network with the highest validation Dice in checkpoints/best.safetensors (CHECKPOINT=best)."""

    def __init__(self, path: Path) -> None:
        self.path, self.best, self.epoch = path, -1.0, -1

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # the averaged weights have been swapped back by now, so they are fetched from their callback
        dice = float(trainer.callback_metrics["valid_dice"])
        if trainer.sanity_checking or not dice > self.best:
            return
        self.best, self.epoch = dice, trainer.current_epoch
        save_network(averaged_network(trainer, module), self.path)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.epoch = state["best"], state["epoch"]


class EpochLine(Callback):
    """One line an epoch: losses, validation Dice at the network's size, seconds, and the time left."""

    def __init__(self, say: Callable[[str], None] = print) -> None:
        self.say, self.start, self.first = say, 0.0, 0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.start, self.first = time.monotonic(), trainer.current_epoch

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        done, spent = trainer.current_epoch + 1, time.monotonic() - self.start
        left = spent / (done - self.first) * (trainer.max_epochs - done)
        parts = [f"epoch {done}/{trainer.max_epochs}"]
        for name, label in (
            ("train_loss_epoch", "train loss"),
            ("valid_loss", "valid loss"),
            ("valid_dice", "valid Dice"),
            ("valid_iou", "valid IoU"),
        ):
            if name in values:
                parts.append(f"{label} {values[name]:.4f}")
        self.say("  ".join([*parts, f"{spent:.0f} s", f"{left:.0f} s left"]))


class Bar(TQDMProgressBar):
    """Lightning's bar without what the epoch's line and the folder's name say already."""

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        values = super().get_metrics(trainer, pl_module)
        return {name: value for name, value in values.items() if name not in ("v_num", "train_loss_epoch")}


def save_network(network: torch.nn.Module, path: Path) -> None:
    """Write a network's weights and buffers as safetensors, whole or not at all."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    state = model_dispatcher.shipped_state(network)
    with runs.replacing(path) as temporary:
        try:
            save_file({name: value.detach().cpu().contiguous() for name, value in state.items()}, temporary)
        except SafetensorError as error:  # an OSError in words
            raise UserError(f"{path} could not be written ({error}). Make room; RESUME=1 goes on then.") from error
