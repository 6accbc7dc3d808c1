"""The learning rate range test (Smith 2017): a curve of losses over rates, and a suggestion."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.types import STEP_OUTPUT
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_module import SegmentationModule
from tools import console
from tools.errors import UserError
from tools.files import atomic_write
from training import trainer as trainer_module
from training.trainer import Hardware, Update

SMOOTHING = 0.9  # decay of the exponential mean over the losses
DIVERGED = 4.0  # times the best smoothed loss
CLEAR = 0.05  # share of the first loss by which it has to fall


@dataclass(frozen=True)
class RangeTest:
    """What a range test saw. All but `losses` and `smoothed` are learning rates.

    rates, losses, smoothed: one an optimizer step. suggestion: where the smoothed loss falls most steeply over the
    logarithm of the rate; tenth: a tenth of the rate with the lowest loss, the usual second opinion; both None where
    the loss never clearly falls. diverged_at: where the test was stopped, None where it reached its end.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    suggestion: float | None
    tenth: float | None
    diverged_at: float | None


def range_test(
    module: SegmentationModule,
    batches: pl.LightningDataModule | DataLoader,
    *,
    lowest: float = 1e-7,
    highest: float = 1.0,
    steps: int = 100,
    update: Update | None = None,
    hardware: Hardware | None = None,
) -> RangeTest:
    """Train `module` for `steps` optimizer steps from rate `lowest` to `highest`; its weights are put back afterwards.

    module: its `lr` (above 0) is what the groups' own rates are measured in, so that an encoder keeps its share. Stops
    once the smoothed loss is 4 times the best, or is no number.
    """
    if not 0 < lowest < highest or steps < 2:
        raise ValueError(f"{steps} steps from {lowest} to {highest}")
    before = copy.deepcopy(module.state_dict())
    sweep = _Sweep(np.geomspace(lowest, highest, steps).tolist(), module.optimization.lr)
    hook = module.loss.register_forward_hook(sweep.see)
    trainer = trainer_module.bare(steps, update or Update(), hardware or Hardware(), [sweep])
    try:
        trainer.fit(module, batches)
    except UserError:  # the module refuses to train on a loss that is no number, and that is what is looked for here
        if sweep.finite:
            raise
    finally:
        hook.remove()
        sweep.progress.close()
        module.load_state_dict(before)
    return conclude(sweep.rates[: len(sweep.losses)], sweep.losses, sweep.stopped_at())


class _Sweep(Callback):
    """The rate of each optimizer step, set here instead of by the schedule, and the loss that it met."""

    def __init__(self, rates: list[float], base: float) -> None:
        self.rates, self.base = rates, base
        self.losses: list[float] = []
        self.smoothed = Smoothed()
        self.window: list[float] = []  # losses of the batches of one optimizer step
        self.finite, self.diverged = True, False
        self.shares: list[list[float]] = []  # each group's own rate in units of `base`
        self.progress = console.track(rates, len(rates), "range test")

    def see(self, loss: nn.Module, inputs: tuple[Tensor, ...], value: Tensor) -> None:
        """Look, as a forward hook of the loss, whether it is still a number."""
        self.finite = self.finite and bool(torch.isfinite(value).all())

    def stopped_at(self) -> float | None:
        """Return the rate at which the loss had diverged, None where it had not."""
        if not self.finite:
            return self.rates[len(self.losses)]  # this step has no loss
        return self.rates[len(self.losses) - 1] if self.diverged else None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        trainer.strategy.lr_scheduler_configs = []  # plateau would ask for a validation
        self.shares = [
            [group.get("initial_lr", group["lr"]) / self.base for group in optimizer.param_groups]
            for optimizer in trainer.optimizers
        ]

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        rate = self.rates[len(self.losses)]
        for optimizer, shares in zip(trainer.optimizers, self.shares, strict=True):
            for group, share in zip(optimizer.param_groups, shares, strict=True):
                group["lr"] = rate * share

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: dict[str, Tensor],
        batch_idx: int,
    ) -> None:
        self.window.append(float(trainer.callback_metrics["train_loss_step"]))
        if trainer.global_step <= len(self.losses):
            return  # within an accumulation window
        self.losses.append(float(np.mean(self.window)))
        self.window = []
        next(self.progress)
        self.diverged = self.smoothed.add(self.losses[-1])
        if self.diverged:
            trainer.should_stop = True


class Smoothed:
    """An exponential mean with bias correction (Kingma and Ba 2015), so that its start is not drawn towards zero."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self._mean = 0.0

    def add(self, loss: float) -> bool:
        """Take one more loss; True where the mean is now DIVERGED times its best."""
        self._mean = SMOOTHING * self._mean + (1 - SMOOTHING) * loss
        self.values.append(self._mean / (1 - SMOOTHING ** (len(self.values) + 1)))
        best = min(self.values)
        # a loss may be negative, or learned to nearly nothing, where any noise would be four times the best
        return self.values[-1] > best + (DIVERGED - 1) * max(abs(best), 0.1 * abs(self.values[0]))


def smooth(losses: Sequence[float]) -> list[float]:
    """The losses' exponential mean, one value each."""
    smoothed = Smoothed()
    for loss in losses:
        smoothed.add(loss)
    return smoothed.values


def conclude(rates: Sequence[float], losses: Sequence[float], diverged_at: float | None) -> RangeTest:
    """What a curve of losses over rising `rates` suggests; nothing where it falls less than its noise explains."""
    smoothed = np.array(smooth(losses))
    suggestion = tenth = None
    start = max(2, len(smoothed) // 10)  # before that the mean has too few losses
    if len(smoothed) > start + 2:
        first, lowest = smoothed[start], start + int(smoothed[start:].argmin())
        steps = np.diff(losses[: max(start, len(losses) // 3)])  # where the rates do next to nothing yet
        noise = float(np.std(steps)) / np.sqrt(2) * np.sqrt((1 - SMOOTHING) / (1 + SMOOTHING))
        if first - smoothed[lowest] > max(CLEAR * abs(first), 4 * noise) and lowest > start + 1:
            slope = np.gradient(smoothed[: lowest + 1], np.log10(rates[: lowest + 1]))
            suggestion = float(rates[start + int(slope[start:].argmin())])
            tenth = float(rates[lowest]) / 10
    return RangeTest(list(rates), list(losses), smoothed.tolist(), suggestion, tenth, diverged_at)


def draw(path: Path, result: RangeTest, title: str) -> None:
    """Write the curve: loss over the learning rate (logarithmic), what it suggests and where it diverged."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.6), layout="constrained")
    axes.plot(result.rates, result.losses, color="#b9c4d0", linewidth=1, label="loss of each step")
    axes.plot(result.rates, result.smoothed, color="#2f6690", linewidth=2.2, label="smoothed")
    for rate, name, color, style in (
        (result.suggestion, "falls most steeply", "#c8442e", "-"),
        (result.tenth, "a tenth of the lowest's", "#d99a2b", "--"),
        (result.diverged_at, "stopped: it diverged", "#808080", ":"),
    ):
        if rate is not None:
            axes.axvline(rate, color=color, linestyle=style, linewidth=1.6, label=f"{name}: {typed(rate)}")
    low, high = min(result.smoothed), max(result.smoothed[: max(1, len(result.smoothed) * 2 // 3)])
    room = max(high - low, 1e-3 * max(1.0, abs(high)))
    axes.set(xscale="log", xlabel="learning rate (per optimizer step, logarithmic)", ylabel="training loss")
    axes.set_ylim(low - 0.25 * room, high + 0.5 * room)
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="best")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=130)
    plt.close(figure)


def typed(rate: float) -> str:
    """Return a rate with two digits, as one would type it: 3.2e-4."""
    mantissa, exponent = f"{rate:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"
