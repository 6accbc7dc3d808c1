"""Lightning's Trainer as this project uses it: our callbacks, our loggers, our order of samples. Knows no settings."""

import copy
import logging
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning import profilers
from pytorch_lightning.callbacks import Callback, EarlyStopping, LearningRateMonitor
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from tools import distributed
from tools.hardware import Precision
from tools.signals import Deadline, Signals
from training import callbacks, checkpoints
from training.loggers import make_loggers

if TYPE_CHECKING:
    from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment

PROFILERS = {
    "simple": profilers.SimpleProfiler,
    "advanced": profilers.AdvancedProfiler,
    "pytorch": profilers.PyTorchProfiler,
}


@dataclass(frozen=True)
class Hardware:
    """What a process computes on, cpu, cuda or mps, and in which precision."""

    device: str = "cpu"
    precision: Precision = "32-true"
    reason: str = ""  # for this precision, in a few words

    @property
    def accelerator(self) -> str:
        """Lightning's name of the device."""
        return {"cuda": "gpu"}.get(self.device, self.device)


@dataclass(frozen=True)
class Update:
    """What an optimizer step is made of."""

    accumulate: int = 1  # batches whose gradients are averaged
    gradient_clip: float = 0.0  # largest norm of their mean; 0: any


@dataclass(frozen=True)
class Length:
    """How much there is to do."""

    epochs: int
    limit: int = 0  # training batches an epoch; 0: all
    held_out: bool = True  # there are validation images


@dataclass(frozen=True)
class Weights:
    """What is done about the weights beside the optimizer's steps, and which are kept."""

    ema: float = 0.0  # decay of their moving average; 0: none
    freeze_encoder: int = 0  # first epochs in which the encoder stays as it is
    keep_best: bool = False  # those of the epoch with the best validation Dice
    patience: int = 0  # epochs without a better Dice before training stops; 0: it never does


@dataclass(frozen=True)
class Reports:
    """What tells of a training beside its line an epoch."""

    logger: str = "tensorboard"  # or wandb, none; metrics.csv comes always
    profiler: str = ""
    hooks: tuple[Callback, ...] = ()  # further callbacks, in rank zero
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the run, which every logger gets


@dataclass(frozen=True)
class Resuming:
    """Where a training goes on from, and what it leaves for going on."""

    resume_from: Path | None = None  # the checkpoint that fit is given
    identity: Mapping[str, Any] = field(default_factory=dict)  # of the run, for its checkpoints (see checkpoints)
    checkpoint_minutes: float = 0.0  # between checkpoints within an epoch; 0: none there
    deadline: Deadline = field(default_factory=lambda: Deadline(0))


@dataclass(frozen=True)
class Processes:
    """Those that train together (DDP), where they are several."""

    cluster: "ClusterEnvironment | None" = None  # of distributed.group
    nodes: int = 1
    sync_batchnorm: bool = False
    leaves_out: bool = False  # some parameters take no part in a step


def make(
    folder: Path,
    length: Length,
    *,
    update: Update = Update(),
    hardware: Hardware = Hardware(),
    weights: Weights = Weights(),
    reports: Reports = Reports(),
    resuming: Resuming | None = None,
    processes: Processes = Processes(),
) -> pl.Trainer:
    """Return a Trainer that writes into the run folder."""
    quieten()
    terminal = sys.stderr.isatty() and distributed.rank() == 0
    resuming = resuming or Resuming()
    loggers = make_loggers(folder, resuming.resume_from, reports.logger)
    for logger in loggers:
        logger.log_hyperparams(dict(reports.settings))
    several = distributed.size() > 1
    return pl.Trainer(
        max_epochs=length.epochs,
        accelerator=hardware.accelerator,
        devices=distributed.size() // processes.nodes,
        num_nodes=processes.nodes,
        # before a validation it gives all ranks the batch statistics of rank zero, which are the ones that are shipped
        strategy=DDPStrategy(find_unused_parameters=processes.leaves_out) if several else "auto",
        sync_batchnorm=processes.sync_batchnorm and hardware.device == "cuda" and several,
        precision=hardware.precision,
        accumulate_grad_batches=update.accumulate,
        gradient_clip_val=update.gradient_clip or None,
        limit_train_batches=length.limit or None,
        limit_val_batches=None if length.held_out else 0,  # datamodule limits: here it would be for each rank
        num_sanity_val_steps=0,
        logger=loggers,
        callbacks=_hooks(folder, weights, reports, resuming, bool(loggers), terminal),
        profiler=_profiler(folder, reports.profiler),
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=terminal,
        use_distributed_sampler=False,  # datamodule owns the order
        log_every_n_steps=1,
        plugins=[checkpoints.Files(resuming.identity), processes.cluster or LightningEnvironment()],
    )


def _hooks(
    folder: Path, weights: Weights, reports: Reports, resuming: Resuming, logged: bool, terminal: bool
) -> list[Callback]:
    """Return the callbacks, in the order in which Lightning calls them."""
    hooks: list[Callback] = []
    if distributed.rank() == 0:
        hooks += [*reports.hooks, callbacks.EpochLine(tqdm.write if terminal else print)]
    if logged:
        hooks.append(LearningRateMonitor("step"))
    if weights.freeze_encoder:
        hooks.append(callbacks.FrozenEncoder(weights.freeze_encoder))
    if weights.ema:
        hooks.append(callbacks.AveragedWeights(weights.ema))
    if weights.keep_best:
        hooks.append(callbacks.BestWeights())
    if weights.patience:
        hooks.append(EarlyStopping("valid_dice", mode="max", patience=weights.patience, check_on_train_epoch_end=False))
    if terminal:
        hooks.append(callbacks.Bar())
    often = 60 * resuming.checkpoint_minutes
    # after all others: what they keep is in the checkpoint
    return [*hooks, callbacks.Checkpoints(folder / "checkpoints", Signals(), resuming.deadline, often)]


def bare(
    steps: int, update: Update = Update(), hardware: Hardware = Hardware(), hooks: Sequence[Callback] = ()
) -> pl.Trainer:
    """Return a Trainer of `steps` optimizer steps that writes nothing and validates nothing."""
    return pl.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator=hardware.accelerator,
        devices=1,
        precision=hardware.precision,
        accumulate_grad_batches=update.accumulate,
        gradient_clip_val=update.gradient_clip or None,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=False,
        callbacks=list(hooks),
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
    )


def repeated(batch: dict[str, Tensor], count: int) -> DataLoader:
    """Return a loader that gives the same batch `count` times, for `bare`."""
    batches: Any = [batch] * count  # a list has all that a loader asks of a Dataset
    return DataLoader(batches, batch_size=None)


def leaves_out(network: nn.Module, channels: int, size: tuple[int, int]) -> bool:
    """Return whether some parameters take no part in a training step; DDP has to be told."""
    tried = copy.deepcopy(network).train()
    logits = tried(torch.zeros(2, channels, *size))
    sum(level.sum() for level in (logits if isinstance(logits, list) else [logits])).backward()
    return any(parameter.grad is None for parameter in tried.parameters())


def _profiler(folder: Path, name: str) -> profilers.Profiler | None:
    """Return Lightning's profiler of this name, in rank zero: several computers' ranks would write one file."""
    return PROFILERS[name](dirpath=folder, filename="profile") if name and distributed.rank() == 0 else None


def quieten() -> None:
    """Silence Lightning's hints and advertisements; its errors stay."""
    for name in ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for text in (
        ".*LeafSpec.*",
        ".*does not have many workers.*",
        ".*have no .val_dataloader.*",
        ".*Checkpoint directory.*",
        ".*Experiment logs directory.*",
        ".*Precision .* is not supported.*",
        ".*sync_dist=True.*",  # what is logged is rank zero's, or was gathered
        ".*your dataloader is not resumable.*",  # it is: datamodule begins where the checkpoint's state says
    ):
        warnings.filterwarnings("ignore", message=text)
