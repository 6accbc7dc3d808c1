"""Around the training steps: averaged weights, checkpoints for resuming, the shipped model, a line per epoch."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, TQDMProgressBar, WeightAveraging
from pytorch_lightning.utilities.types import STEP_OUTPUT
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from modeling import segmenter
from tools import distributed, run_folders
from tools.errors import UserError
from tools.signals import Deadline, Signals, Stopped

Hook = TypeVar("Hook", bound=Callback)


def hooks_of(trainer: pl.Trainer, kind: type[Hook]) -> list[Hook]:
    """Return the Trainer's callbacks of a class."""
    every: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it outside of its class
    return [hook for hook in every if isinstance(hook, kind)]


def hook_of(trainer: pl.Trainer, kind: type[Hook]) -> Hook:
    """Return the Trainer's only callback of a class."""
    (hook,) = hooks_of(trainer, kind)
    return hook


class AveragedWeights(WeightAveraging):
    """Exponential moving average of the weights, scored at validation and shipped at the end.

    The decay rises to its value as (1 + n) / (10 + n), as in TensorFlow's ExponentialMovingAverage, so that a short run
    is not held back by its random start.
    """

    def __init__(self, decay: float) -> None:
        def average(means: Sequence[Tensor], news: Sequence[Tensor], count: Tensor | int) -> None:
            """Average all of one kind at once, in place: a large network's step on the CPU is 1 to 2 % shorter."""
            if means[0].is_floating_point():
                seen = int(count)  # costs no waiting: AveragedModel has looked at it before
                get_ema_multi_avg_fn(min(decay, (1 + seen) / (10 + seen)))(means, news, count)
                return
            for mean, new in zip(means, news, strict=True):
                mean.copy_(new)  # counters of batch norm

        super().__init__(use_buffers=True, multi_avg_fn=average)


def averaged_network(trainer: pl.Trainer, module: pl.LightningModule) -> nn.Module:
    """Return the network with the averaged weights, or the module's own where there is no averaging.

    Lightning copies the average into the module when training ends, but not where a resumed run has no step left.
    """
    for averaging in hooks_of(trainer, AveragedWeights):
        if averaging._average_model is not None:
            return averaging._average_model.module.get_submodule("network")
    return module.get_submodule("network")


SAVE, STOP = 1, 2  # what a rank may want at a step


class Checkpoints(Callback):
    """checkpoints/last.ckpt for resuming: after each epoch, every so often between, and before an early stop.

    All at optimizer steps, where nothing is half accumulated. Raises Stopped where a signal asked for it, or where what
    comes next would not end before the deadline.
    """

    def __init__(self, folder: Path, signals: Signals, deadline: Deadline, every: float = 0.0) -> None:
        """`every`: seconds between checkpoints within an epoch; 0: none there but for a stop."""
        self.path, self.signals, self.deadline, self.every = folder / run_folders.LAST, signals, deadline, every
        self.spent = 0.0  # seconds of earlier sessions
        self._start: float | None = None  # of this session; a resumed run may have no step left
        self._saved = self._step_began = self._validation_began = 0.0
        self._steps = 0
        self._ended = False  # by early stopping, which no checkpoint of Lightning's remembers
        self._is_there = False  # a checkpoint, which all ranks know by themselves

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self._ended

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._start = self._saved = self._step_began = time.monotonic()
        self._steps = trainer.global_step
        self.signals.listen()  # only now: Lightning has laid its own handlers by then

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.signals.close()

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        self.signals.close()

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self._is_there:  # of the epoch before, whose figures have been logged by now
            self._stop_if(self._agreed(trainer, self._coming(trainer, 0)))
        self._step_began = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: dict[str, Tensor],
        batch_idx: int,
    ) -> None:
        if trainer.global_step == self._steps:  # within an accumulation window
            return
        self._steps = trainer.global_step
        self.deadline.took("step", time.monotonic() - self._step_began)
        if batch_idx + 1 < trainer.num_training_batches:  # at the epoch's end there is one after the validation
            wish = self._agreed(trainer, self._coming(trainer, batch_idx + 1))
            if wish:
                self._save(trainer)
                self._stop_if(wish)
        self._step_began = time.monotonic()

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._validation_began = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self._validation_began:
            self.deadline.took("validation", time.monotonic() - self._validation_began)
        self._ended = trainer.should_stop
        self._save(trainer)

    def _coming(self, trainer: pl.Trainer, batch: int) -> list[str]:
        """Return what lies between this optimizer step and the next chance to stop; `batch` comes next."""
        ends = batch + trainer.accumulate_grad_batches >= trainer.num_training_batches
        return ["step", "validation"] if ends else ["step"]

    def _agreed(self, trainer: pl.Trainer, coming: list[str]) -> int:
        """Return 0, SAVE, STOP or STOP + a signal's number: the largest that any rank wants; all do the same."""
        wish = SAVE if self.every and time.monotonic() - self._saved >= self.every else 0
        if self.signals.wish or not self.deadline.fits(*coming):
            wish = STOP + self.signals.wish
        return distributed.largest(wish, trainer.strategy.root_device)

    def _stop_if(self, wish: int) -> None:
        if wish >= STOP:
            raise Stopped(wish - STOP)

    def _save(self, trainer: pl.Trainer) -> None:
        began = time.monotonic()
        for logger in trainer.loggers:
            logger.save()  # the curves on the disk reach as far as the checkpoint
        trainer.save_checkpoint(self.path, weights_only=False)
        self._saved, self._is_there = time.monotonic(), True
        self.deadline.took("checkpoint", self._saved - began)

    @property
    def seconds(self) -> float:
        """Seconds of training so far, in all sessions."""
        return self.spent + (time.monotonic() - self._start if self._start is not None else 0.0)

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "ended": self._ended}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.spent, self._ended = state["seconds"], state.get("ended", False)


class FrozenEncoder(Callback):
    """A frozen encoder for the first epochs, so that a fresh decoder's gradients do not spoil its weights.

    Its batch norms keep their statistics too.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not hasattr(module.get_submodule("network.body"), "encoder"):
            raise UserError("FREEZE_ENCODER: this network has no encoder that could be frozen; leave it out.")

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.on_train_epoch_start(trainer, module)  # which Lightning leaves out where it goes on within an epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        encoder, frozen = module.get_submodule("network.body.encoder"), trainer.current_epoch < self.epochs
        encoder.requires_grad_(not frozen)
        encoder.train(not frozen)


class BestWeights(Callback):
    """The weights of the epoch with the highest validation Dice (CHECKPOINT=best).

    Kept in the checkpoint rather than in a file beside it: after a kill between the two, a resumed run that rounds
    otherwise would ship the weights of another epoch than it says.
    """

    def __init__(self) -> None:
        self.best, self.epoch = -1.0, -1
        self.weights: dict[str, Tensor] = {}  # on the CPU, in rank zero

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # the averaged weights have been swapped back by now, so they are fetched from their callback
        dice = float(trainer.callback_metrics["valid_dice"])
        if trainer.sanity_checking or not dice > self.best:
            return
        self.best, self.epoch = dice, trainer.current_epoch
        if trainer.is_global_zero:
            state = segmenter.shipped_state(averaged_network(trainer, module))
            self.weights = {name: value.detach().to("cpu", copy=True) for name, value in state.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "epoch": self.epoch, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["epoch"] >= 0 and "weights" not in state:
            raise UserError(
                "The checkpoint is of older code, which kept the best epoch's weights beside it, and they may be of "
                "another epoch. OVERWRITE=1 starts again."
            )
        self.best, self.epoch, self.weights = state["best"], state["epoch"], state.get("weights", {})


class EpochLine(Callback):
    """One line an epoch: losses, validation Dice at the network's size, seconds, and the time left."""

    def __init__(self, say: Callable[[str], None] = print) -> None:
        self.say, self.start, self.first = say, 0.0, 0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.start, self.first = time.monotonic(), trainer.global_step

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        done, spent = trainer.global_step, time.monotonic() - self.start
        left = spent / max(1, done - self.first) * (trainer.estimated_stepping_batches - done)
        parts = [f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"]
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
