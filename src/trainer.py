"""Lightning's Trainer as this project uses it: our callbacks, our loggers, our order of samples. Knows no settings."""

import logging
import os
import sys
import uuid
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning import profilers
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tqdm import tqdm

import callbacks
from errors import UserError

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
    resume: bool = False,
) -> pl.Trainer:
    """A Trainer that writes into the run folder.

    `held_out`: there are validation images; `limit`: batches an epoch, 0 all; `hooks`: further callbacks.
    """
    quieten()
    terminal = sys.stderr.isatty()
    hooks = [*(hooks or []), callbacks.EpochLine(tqdm.write if terminal else print)]
    loggers = _loggers(folder, resume, logger)
    hooks += [LearningRateMonitor("step")] if loggers else []
    hooks += [callbacks.FrozenEncoder(freeze_encoder)] if freeze_encoder else []
    hooks += [callbacks.AveragedWeights(ema)] if ema else []
    hooks += [callbacks.BestWeights(folder / "checkpoints" / "best.safetensors")] if keep_best else []
    hooks += (
        [EarlyStopping("valid_dice", mode="max", patience=patience, check_on_train_epoch_end=False)] if patience else []
    )
    hooks += [callbacks.Bar()] if terminal else []
    hooks += [callbacks.LastAndPrevious(folder / "checkpoints")]
    return pl.Trainer(
        max_epochs=epochs,
        accelerator={"cuda": "gpu"}.get(device, device),
        devices=1,
        precision=precision,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=gradient_clip or None,
        limit_train_batches=limit or None,
        limit_val_batches=(limit or None) if held_out else 0,
        num_sanity_val_steps=0,
        logger=loggers,
        callbacks=hooks,
        profiler=PROFILERS[profiler](dirpath=folder, filename="profile") if profiler else None,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=terminal,
        use_distributed_sampler=False,  # datamodule owns the order
        log_every_n_steps=1,
    )


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
    ):
        warnings.filterwarnings("ignore", message=text)


def _loggers(folder: Path, resume: bool, logger: str) -> list[Any]:
    """metrics.csv, and TensorBoard or W&B, in the run folder. Raises UserError where wandb is not installed.

    Lightning's CSV logger would delete a resumed run's curves.
    """
    place = {"save_dir": folder.parent, "name": "", "version": folder.name}
    curves = folder / "metrics.csv"
    before = curves.read_text(encoding="utf-8", errors="replace") if resume and curves.is_file() else ""
    table = CSVLogger(**place)
    writer = table.experiment
    if before:
        curves.write_text(before, encoding="utf-8")
        writer.metrics_keys = before.split("\n", 1)[0].strip().split(",")
    if logger == "wandb":
        return [table, _wandb(folder)]
    return [table, TensorBoardLogger(**place)] if logger == "tensorboard" else [table]


def _wandb(folder: Path) -> Any:
    """Weights & Biases, one run for each run folder; WANDB_PROJECT and WANDB_MODE=offline are its own variables."""
    try:
        import wandb  # noqa: F401 (an optional package; Lightning's logger would fail later)
    except ImportError as error:
        raise UserError("LOGGER=wandb: wandb is not installed. pip install wandb, or LOGGER=tensorboard.") from error
    from pytorch_lightning.loggers import WandbLogger

    kept = folder / "wandb_id.txt"  # a resumed run goes on in the same curves; a new one has an empty folder
    if not kept.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        kept.write_text(uuid.uuid4().hex[:8], encoding="utf-8")
    project, run = os.environ.get("WANDB_PROJECT", "maskfold"), kept.read_text(encoding="utf-8")
    return WandbLogger(
        name=f"{folder.parent.name}/{folder.name}", project=project, save_dir=folder, id=run, resume="allow"
    )


def close(trainer: pl.Trainer) -> None:
    """End the W&B run of this training: the next one in the same process would be written into it."""
    for logger in trainer.loggers:
        if type(logger).__name__ == "WandbLogger":
            logger.experiment.finish()


def refuse_broken(checkpoint: Path) -> None:
    """Raise UserError where a checkpoint cannot be read, and say which file to go on from."""
    try:
        state = torch.load(checkpoint, map_location="meta", weights_only=True)
        whole = {"pytorch-lightning_version", "state_dict", "global_step"} <= state.keys()
        reason = "" if whole else "no checkpoint of a training"
    except Exception as error:  # truncated, empty, a text, code: torch has another exception for each
        reason = type(error).__name__
    if reason:
        previous = checkpoint.with_name("previous.ckpt")
        raise UserError(f"{checkpoint} is broken ({reason}). Go on from the one before: copy {previous} over it.")
