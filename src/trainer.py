"""Lightning's Trainer as this project uses it: our callbacks, our loggers, our order of samples. Knows no settings."""

import csv
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
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy
from tqdm import tqdm

import callbacks
import checkpoints
import ranks
import runs
from errors import UserError
from lightning_module import UNLOGGED
from stopping import Deadline, Signals

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
    cluster: Any = None,
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
    terminal = sys.stderr.isatty() and ranks.rank() == 0
    hooks = [*(hooks or []), callbacks.EpochLine(tqdm.write if terminal else print)] if ranks.rank() == 0 else []
    loggers = _loggers(folder, resume_from, logger)
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
        devices=ranks.size() // nodes,
        num_nodes=nodes,
        # before a validation it gives all ranks the batch statistics of rank zero, which are the ones that are shipped
        strategy=DDPStrategy(find_unused_parameters=leaves_out) if ranks.size() > 1 else "auto",
        sync_batchnorm=sync_batchnorm and device == "cuda" and ranks.size() > 1,
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
    return PROFILERS[name](dirpath=folder, filename="profile") if name and ranks.rank() == 0 else None


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


def _loggers(folder: Path, resume_from: Path | None, logger: str) -> list[Any]:
    """metrics.csv, and TensorBoard or W&B, in the run folder. Raises UserError where wandb is not installed.

    A resumed run keeps the curves up to its checkpoint: what came after it comes again. Lightning's CSV logger would
    delete them all, so they lie aside until they are written again: a kill in between loses none.
    """
    place = {"save_dir": folder.parent, "name": "", "version": folder.name}
    curves, aside, steps = folder / "metrics.csv", folder / ".metrics.csv", 0
    before: list[dict[str, str]] = []
    if resume_from is not None:
        state = torch.load(resume_from, map_location="meta", weights_only=True)
        steps = state["global_step"]
        if ranks.rank() == 0:
            if curves.is_file():
                os.replace(curves, aside)
            before = _rows_before(aside, steps, state.get(UNLOGGED, {}))
    table = CSVLogger(**place)
    writer = table.experiment
    if before:
        with runs.replacing(curves) as whole, whole.open("w", newline="", encoding="utf-8") as file:
            rows = csv.DictWriter(file, list(before[0]))
            rows.writeheader()
            rows.writerows(before)
        writer.metrics_keys = list(before[0])
    if ranks.rank() == 0:
        aside.unlink(missing_ok=True)
    if logger == "wandb":
        return [table, _wandb(folder)] if ranks.rank() == 0 else [table]
    purged = {"purge_step": steps} if steps else {}
    return [table, TensorBoardLogger(**place, **purged)] if logger == "tensorboard" else [table]


def _rows_before(curves: Path, steps: int, unlogged: dict[str, float]) -> list[dict[str, str]]:
    """The rows of metrics.csv of the first `steps` steps, but for those with what is `unlogged`: it comes again."""
    if not curves.is_file():
        return []
    with curves.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = [row for row in csv.DictReader(file) if (row.get("step") or "").isdigit() and None not in row]

    def kept(row: dict[str, str]) -> bool:
        step = int(row["step"])
        return step < steps and not (step == steps - 1 and any(row.get(name) for name in unlogged))

    return [row for row in rows if kept(row)]


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
