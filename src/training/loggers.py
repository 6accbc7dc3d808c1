"""metrics.csv, TensorBoard and W&B of a run, resumed without a gap."""

import csv
import os
import uuid
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger

from lightning_module import UNLOGGED
from tools import distributed
from tools.errors import UserError
from tools.files import atomic_write


def make_loggers(folder: Path, resume_from: Path | None, logger: str) -> list[Logger]:
    """Open metrics.csv, and TensorBoard or W&B, in the run folder. Raises UserError where wandb is not installed.

    A resumed run keeps the curves up to its checkpoint: what came after it comes again. Lightning's CSV logger would
    delete them all, so they lie aside until they are written again: a kill in between loses none.
    """
    curves, aside, steps = folder / "metrics.csv", folder / ".metrics.csv", 0
    before: list[dict[str, str]] = []
    if resume_from is not None:
        state = torch.load(resume_from, map_location="meta", weights_only=True)
        steps = state["global_step"]
        if distributed.rank() == 0:
            if curves.is_file():
                os.replace(curves, aside)
            before = _rows_before(aside, steps, state.get(UNLOGGED, {}))
    table = CSVLogger(folder.parent, name="", version=folder.name)
    writer = table.experiment
    if before:
        with atomic_write(curves) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            rows = csv.DictWriter(file, list(before[0]))
            rows.writeheader()
            rows.writerows(before)
        writer.metrics_keys = list(before[0])
    if distributed.rank() == 0:
        aside.unlink(missing_ok=True)
    if logger == "wandb":
        return [table, _wandb(folder)] if distributed.rank() == 0 else [table]
    if logger == "tensorboard":
        purge: dict[str, Any] = {"purge_step": steps} if steps else {}
        return [table, TensorBoardLogger(folder.parent, name="", version=folder.name, **purge)]
    return [table]


def _rows_before(curves: Path, steps: int, unlogged: dict[str, float]) -> list[dict[str, str]]:
    """Read the rows of metrics.csv of the first `steps` steps, but those with what is `unlogged`: it comes again."""
    if not curves.is_file():
        return []
    with curves.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = [row for row in csv.DictReader(file) if (row.get("step") or "").isdigit() and None not in row]

    def kept(row: dict[str, str]) -> bool:
        step = int(row["step"])
        return step < steps and not (step == steps - 1 and any(row.get(name) for name in unlogged))

    return [row for row in rows if kept(row)]


def _wandb(folder: Path) -> Logger:
    """Open Weights & Biases, a run for each run folder; WANDB_PROJECT and WANDB_MODE=offline are its own variables."""
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
    from pytorch_lightning.loggers import WandbLogger

    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()
