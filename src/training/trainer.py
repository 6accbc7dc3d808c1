"""Lightning's Trainer as this project uses it: our callbacks, our loggers, our order of samples. Knows no settings."""

import logging
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from pytorch_lightning import profilers
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy
from tqdm import tqdm

from tools import distributed
from tools.signals import Deadline, Signals
from training import callbacks, checkpoints
from training.loggers import make_loggers

if TYPE_CHECKING:
    from pytorch_lightning.plugins.environments import ClusterEnvironment

PROFILERS = {
    "simple": profilers.SimpleProfiler,
    "advanced": profilers.AdvancedProfiler,
    "pytorch": profilers.PyTorchProfiler,
}


def make(
    folder: Path,
    *,
    epochs: int,
    device: str = "cpu",
    precision: str = "32-true",
    accumulate: int = 1,
    gradient_clip: float = 0.0,
    ema: float = 0.0,
    keep_best: bool = False,
    patience: int = 0,
    freeze_encoder: int = 0,
    logger: str = "tensorboard",
    hooks: list[Any] | None = None,
    profiler: str = "",
    limit: int = 0,
    held_out: bool = True,
    resume_from: Path | None = None,
    identity: dict[str, Any] | None = None,
    checkpoint_minutes: float = 0.0,
    deadline: Deadline | None = None,
    cluster: "ClusterEnvironment | None" = None,
    nodes: int = 1,
    sync_batchnorm: bool = False,
    leaves_out: bool = False,
) -> pl.Trainer:
    """A Trainer that writes into the run folder.

    `held_out`: there are validation images; `limit`: training batches an epoch, 0 all; `hooks`: further callbacks;
    `resume_from`: the checkpoint that fit is given; `identity`: of the run, for its checkpoints (see checkpoints).
    `cluster`: of ranks.group, with several processes; `leaves_out`: some parameters take no part in a step.
    """
    quieten()
    terminal = sys.stderr.isatty() and distributed.rank() == 0
    hooks = [*(hooks or []), callbacks.EpochLine(tqdm.write if terminal else print)] if distributed.rank() == 0 else []
    loggers = make_loggers(folder, resume_from, logger)
    hooks += [LearningRateMonitor("step")] if loggers else []
    hooks += [callbacks.FrozenEncoder(freeze_encoder)] if freeze_encoder else []
    hooks += [callbacks.AveragedWeights(ema)] if ema else []
    hooks += [callbacks.BestWeights()] if keep_best else []
    hooks += (
        [EarlyStopping("valid_dice", mode="max", patience=patience, check_on_train_epoch_end=False)] if patience else []
    )
    hooks += [callbacks.Bar()] if terminal else []
    # after all others: what they keep is in the checkpoint
    often = 60 * checkpoint_minutes
    hooks += [callbacks.Checkpoints(folder / "checkpoints", Signals(), deadline or Deadline(0), often)]
    return pl.Trainer(
        max_epochs=epochs,
        accelerator={"cuda": "gpu"}.get(device, device),
        devices=distributed.size() // nodes,
        num_nodes=nodes,
        # before a validation it gives all ranks the batch statistics of rank zero, which are the ones that are shipped
        strategy=DDPStrategy(find_unused_parameters=leaves_out) if distributed.size() > 1 else "auto",
        sync_batchnorm=sync_batchnorm and device == "cuda" and distributed.size() > 1,
        precision=precision,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=gradient_clip or None,
        limit_train_batches=limit or None,
        limit_val_batches=None if held_out else 0,  # datamodule limits: here it would be for each rank
        num_sanity_val_steps=0,
        logger=loggers,
        callbacks=hooks,
        profiler=_profiler(folder, profiler),
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=terminal,
        use_distributed_sampler=False,  # datamodule owns the order
        log_every_n_steps=1,
        plugins=[checkpoints.Files(identity or {}), cluster or LightningEnvironment()],
    )


def _profiler(folder: Path, name: str) -> Any:
    """Lightning's profiler of this name, in rank zero: several computers' ranks would write one file."""
    return PROFILERS[name](dirpath=folder, filename="profile") if name and distributed.rank() == 0 else None


def quieten() -> None:
    """Lightning's hints and advertisements; its errors stay."""
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
