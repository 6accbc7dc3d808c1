"""The steps of training and validation, and the counts of pixels. Knows no settings, files or folds."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import STEP_OUTPUT, OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from data.dataspec import IGNORED, DataSpec
from metrics import overlap
from modeling import batch_mixing, optimizers
from modeling.batch_mixing import Mixing
from modeling.optimizers import Optimization, Schedule
from tools import distributed
from tools.errors import UserError

UNLOGGED = "unlogged"  # in a checkpoint: what its step gave and no logger has yet
Key = tuple[int, ...]
Augment = Callable[[Tensor, Tensor, Key], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Validation:
    """The rules by which the network's output is scored after each epoch."""

    spec: DataSpec = field(default_factory=DataSpec)  # what the network's outputs are, and which of them are scored
    threshold: float = 0.5  # a pixel is foreground from this probability on; multiclass takes the likeliest class
    empty: str = "one"  # Dice of an empty prediction on an empty mask: a policy of metrics.overlap


class SegmentationModule(pl.LightningModule):
    """The training of `network` (images in [0, 1] -> logits) with `loss` on batches of dataset.collate.

    `augment`: on the batch's own device, (uint8 images, uint8 masks, key) -> (float32 images in [0, 1], masks). A
    network in training that returns a list (deep supervision) has the finest logits first; each next counts half as
    much (Isensee et al. 2021, nnU-Net).

    In an accumulation window every sample weighs 1 / (samples in the window), the ragged last window included.
    Logs train_loss_step, train_loss_epoch, valid_loss, valid_dice and valid_iou (means over images and scored classes),
    valid_dice_pooled (mean over the classes) and, with several, valid_dice_<class>, at the network's size.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        optimization: Optimization,
        schedule: Schedule | None = None,
        *,
        augment: Augment | None = None,
        mixing: Mixing | None = None,
        validation: Validation = Validation(),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.network, self.loss, self.augment = network, loss, augment
        self.optimization, self.schedule = optimization, schedule or Schedule()
        self.mixing, self.validation, self.seed = mixing or Mixing(), validation, seed
        self.save_hyperparameters(self._plain_values())
        # a validation batch's first row -> its counts (3, N, S) and the sum of its losses
        self._validated: dict[int, tuple[np.ndarray, float]] = {}
        # stepped here: Lightning would do it after the epoch's checkpoint is written
        self._plateau: ReduceLROnPlateau | None = None
        self._plateau_state: dict[str, Any] | None = None
        # our own mean over the epoch: Lightning's forgets, where a run is resumed, what came before
        self._loss_sum: float | Tensor = 0.0  # over the epoch's batches so far
        self._loss_count = 0
        self._unlogged: dict[str, float] = {}
        self._unlogged_epoch = 0

    def _plain_values(self) -> dict[str, Any]:
        """Return the hyperparameters for loggers, hparams.yaml and checkpoints, under the names that they always had.

        They are plain values, because a checkpoint is read without unpickling anything else.
        """
        values = asdict(self.optimization) | asdict(self.schedule)
        values |= {"optimizer": values.pop("optimizer"), "schedule": values.pop("name")}
        values |= {"mix": self.mixing.kind, "mix_alpha": self.mixing.alpha, "seed": self.seed}
        spec = self.validation.spec
        values |= {"task": spec.task, "classes": list(spec.classes), "scored": list(spec.scored)}
        return values | {"threshold": self.validation.threshold, "empty": self.validation.empty}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self._plateau is not None:
            checkpoint["plateau"] = self._plateau.state_dict()
        checkpoint["losses"] = [distributed.mean(float(self._loss_sum)), self._loss_count]
        # Lightning logs it only after the hooks in which a checkpoint is written
        name = "train_loss_epoch" if self._loss_count == self.trainer.num_training_batches else "train_loss_step"
        value = self.trainer.callback_metrics.get(name)
        checkpoint[UNLOGGED] = {} if value is None else {name: float(value)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._plateau_state = checkpoint.get("plateau")
        self._loss_sum, self._loss_count = checkpoint.get("losses", (self._loss_sum, self._loss_count))
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

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Return logits (N, C, H, W), in training perhaps a list of them, of images (N, channels, H, W).

        Images are uint8, or float in [0, 1].
        """
        x = images if images.is_floating_point() else images.float().div_(255)
        return self.network(x.contiguous(memory_format=torch.channels_last))

    def loss_of(self, logits: Tensor | list[Tensor], mask: Tensor) -> Tensor:
        """Return the loss; with deep supervision a mean over the levels, each weighing half of the one before."""
        levels = logits if isinstance(logits, list) else [logits]
        shares = [0.5**level for level in range(len(levels))]
        losses = [share * self.loss(level, mask) for share, level in zip(shares, levels, strict=True)]
        return sum(losses[1:], losses[0]) / sum(shares)

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        key: Key = (self.seed, self.trainer.current_epoch, index)
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
            self._loss_sum, self._loss_count = 0.0, 0
        self._loss_sum, self._loss_count = self._loss_sum + loss.detach(), self._loss_count + 1
        return loss * self._window_share(index)

    def on_train_batch_end(self, outputs: STEP_OUTPUT, batch: dict[str, Tensor], index: int) -> None:
        if index + 1 == self.trainer.num_training_batches:
            loss = distributed.mean(float(self._loss_sum / self._loss_count))
            self.log("train_loss_epoch", loss, on_step=False, on_epoch=True)

    def _mixed_loss(self, images: Tensor, masks: Tensor, key: Key) -> Tensor:
        """Return the training loss of a batch, augmented on the device and mixed where that is asked for."""
        if self.augment is not None:
            images, masks = self.augment(images, masks, key)
        if self.mixing.kind == "none":
            return self.loss_of(self(images), masks)
        images = images if images.is_floating_point() else images.float().div_(255)
        mixed = batch_mixing.mix(images, masks, self.mixing.kind, self.mixing.alpha, key)
        logits = self(mixed.images)
        loss = self.loss_of(logits, mixed.masks)
        if mixed.partners is None:
            return loss
        return mixed.share * loss + (1 - mixed.share) * self.loss_of(logits, mixed.partners)

    def _window_share(self, index: int) -> float:
        """Return the factor of a batch's loss, which Lightning divides by `accumulate`.

        The last window of an epoch may have fewer batches. All batches have the same size.
        """
        accumulate, batches = self.trainer.accumulate_grad_batches, self.trainer.num_training_batches
        in_window = min(accumulate, batches - index // accumulate * accumulate)
        return accumulate / in_window

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        mask, logits, spec = batch["mask"], self(batch["image"]), self.validation.spec
        loss = self.loss_of(logits, mask)
        if spec.task == "multiclass":
            labeled, scored = mask != IGNORED, torch.tensor(spec.scored, device=mask.device).view(1, -1, 1, 1)
            predicted, truth = (logits.argmax(1, keepdim=True) == scored) & labeled, mask == scored
        else:
            predicted, truth = logits.float().sigmoid() >= self.validation.threshold, mask > 0
        tp, fp, fn = (  # (N, S) each
            (a & b).flatten(2).sum(2) for a, b in ((predicted, truth), (predicted, ~truth), (~predicted, truth))
        )
        counts = torch.stack([tp, fp, fn]).cpu().numpy()
        self._validated[int(batch["row"][0])] = counts, float(loss) * len(logits)

    def on_validation_epoch_start(self) -> None:
        self._validated = {}

    def on_validation_epoch_end(self) -> None:
        """Score every rank's batches, each once, in the order of a single process: the same figures to the last bit."""
        by_first_row: dict[int, tuple[np.ndarray, float]] = {}
        for validated in distributed.all_gather(self._validated):
            by_first_row |= validated
        batches = [by_first_row[row] for row in sorted(by_first_row)]
        counts = np.concatenate([counts for counts, _ in batches], axis=1)  # (3, N, S)
        spec, empty = self.validation.spec, self.validation.empty
        tp, fp, fn = counts
        summary = overlap.summarize(tp, fp, fn, empty)
        self.log("valid_loss", sum(loss for _, loss in batches) / counts.shape[1], prog_bar=True)
        self.log("valid_dice", summary["image"]["dice"], prog_bar=True)
        self.log("valid_iou", summary["image"]["iou"])
        self.log("valid_dice_pooled", summary["pooled"]["dice"])
        if self._plateau is not None:
            self._plateau.step(summary["image"]["dice"])
        if len(spec.scored) > 1:
            for column, index in enumerate(spec.scored):
                only = slice(column, column + 1)
                of_class = overlap.summarize(tp[:, only], fp[:, only], fn[:, only], empty)
                self.log(f"valid_dice_{spec.classes[index]}", of_class["image"]["dice"])

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        groups = optimizers.parameter_groups(self.network, self.optimization)
        # in 16 bits a fused step means to unscale the gradients itself, so that Lightning would refuse to clip them
        fusible = self.trainer.precision == "32-true" or not self.trainer.gradient_clip_val
        optimizer = optimizers.make_optimizer(self.optimization, groups, fusible)
        steps = int(self.trainer.estimated_stepping_batches)
        rates = optimizers.make_schedule(self.schedule, optimizer, steps)
        if self.schedule.name == "plateau":
            self._plateau = optimizers.make_plateau(optimizer, self.schedule.patience)
            if self._plateau_state:  # of the checkpoint, which Lightning loads before it asks for optimizers
                self._plateau.load_state_dict(self._plateau_state)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rates, "interval": "step"}}
