"""One fold's training, from settings to a shipped run folder, in one process or in one a device."""

import contextlib
import functools
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import splits
from data.dataspec import DataSpec
from tools import locks, run_folders
from tools.errors import UserError
from tools.signals import Deadline, Stopped
from training import builders, launch, model_file
from training.preparation import Prepared, prepare, refuse_what_does_nothing

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from pytorch_lightning.plugins.environments import ClusterEnvironment
    from torch import nn

    from lightning_module import SegmentationModule
    from loading.datamodule import MaskDataModule
    from settings import Settings


def fit(settings: "Settings", fold: str, resume: bool = False, overwrite: bool = False) -> Path:
    """Train one fold and write its run folder; returns it. Raises UserError, before the training wherever possible.

    A training that MAX_MINUTES ended has no model.json (`run_folders.resumable`). Stopped by Ctrl-C or SIGTERM it
    raises KeyboardInterrupt or SystemExit.
    """
    start = time.monotonic()
    folder = run_folders.run_folder(settings.LOGS, settings.EXPERIMENT, fold, settings.SEED)
    splits.read(Path(settings.TRAIN_FOLDS))  # refuses before the imports where there is no table
    refuse_what_does_nothing(settings, fold)
    from tools import distributed
    from tools.hardware import choose_device, choose_devices

    if settings.DEVICES > 1 and settings.NODES == 1 and distributed.environment() is None:
        have = choose_devices(settings.DEVICE)
        if have[0].startswith("cuda") and len(have) < settings.DEVICES:
            raise UserError(f"DEVICES={settings.DEVICES}, but this computer has {len(have)}: {', '.join(have)}.")
        _launch(settings, fold, resume, overwrite)
        return folder
    with distributed.group(settings.DEVICES, settings.NODES, choose_device(settings.DEVICE)) as cluster:
        try:
            _fit_as_rank(settings, folder, fold, resume, overwrite, start, cluster)
        except RuntimeError as error:
            if not distributed.lost_another(error):
                raise
            cure = "RESUME=1 goes on from the last checkpoint, if there is one"
            raise UserError(f"{launch.LOST}. {cure} ({folder}).") from error
    return folder


def _launch(settings: "Settings", fold: str, resume: bool, overwrite: bool) -> None:
    """Train in a process for each device; what they say and how they end is as for one."""
    flags = [f"FOLD={fold}", f"RESUME={int(resume)}", f"OVERWRITE={int(overwrite)}"]
    code = launch.run(Path(__file__).parents[1] / "train.py", [*flags, *settings.overrides()], settings.DEVICES)
    if code == 128 + signal.SIGINT:
        raise KeyboardInterrupt
    if code:
        raise SystemExit(code)  # rank zero has said why


def _fit_as_rank(
    settings: "Settings",
    folder: Path,
    fold: str,
    resume: bool,
    overwrite: bool,
    start: float,
    cluster: "ClusterEnvironment | None",
) -> None:
    """The training, as the only process or as one of several; rank zero checks, prepares and writes for all."""
    from modeling.losses.loss_sum import Loss
    from tools import distributed
    from tools.hardware import choose_device, choose_precision

    frame = splits.read(Path(settings.TRAIN_FOLDS))
    train_rows, valid_rows = builders.fold_rows(settings, frame, fold)
    spec = builders.data_spec(settings)
    device, loss = choose_device(settings.DEVICE), Loss(settings.LOSS, spec.task, spec.scored, len(spec.classes))
    precision, reason = choose_precision(settings.PRECISION, device)
    with contextlib.ExitStack() as held:
        alone = locks.exclusive(folder, "Wait for it, or give this one another EXPERIMENT=name or SEED.")
        # in rank zero, which tells the others where it is refused
        distributed.on_rank_zero(lambda: held.enter_context(alone))
        batch = min(settings.TRAIN_BATCH_SIZE, len(train_rows))

        @functools.cache  # at most once, and after the checks that cost nothing
        def build() -> tuple[Any, Any]:
            built = builders.network(settings, spec, batch)
            return built, builders.loaders(settings, spec, frame, train_rows, valid_rows)

        prepared = distributed.on_rank_zero(
            lambda: prepare(settings, frame, folder, fold, device, precision, resume, overwrite, build)
        )
        if prepared is None:
            if distributed.rank() == 0:
                print(f"{folder} is finished already; there is nothing to resume.")
                model_file.refuse_unlearned(settings, len(train_rows), model_file.last_dice(folder), folder)
            return
        network, data = build()
        where = f"{device}, {reason}{_shares(settings)} -> {folder}"
        if distributed.rank() == 0:
            _announce(settings, spec, fold, network, len(train_rows), len(valid_rows), where)
        module = builders.module(settings, spec, network, loss)
        deadline = Deadline(60 * settings.MAX_MINUTES, start)
        trainer = _run(settings, spec, module, data, folder, device, precision, prepared, deadline, cluster)
        if trainer is not None and distributed.rank() == 0:
            model_file.ship(settings, spec, module, folder, fold, trainer, prepared.origin)


def _shares(settings: "Settings") -> str:
    """The arithmetic of several devices."""
    count = settings.DEVICES * settings.NODES
    if count == 1:
        return ""
    batch, windows = settings.TRAIN_BATCH_SIZE, settings.ACCUMULATE
    each = f"{batch // count} images on each of {count} devices x {windows} batches a step"
    return f"; {each} = {batch * windows} images a step, as on one"


def _announce(
    settings: "Settings", spec: DataSpec, fold: str, network: "nn.Module", train: int, valid: int, where: str
) -> None:
    """What is about to be trained, on what, and where it will lie, in one line."""
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    classes = "" if spec.task == "binary" else f"{spec.task}, {len(spec.classes)} classes; "
    held_out = f"{valid} held out" if not settings.OVERFIT else "and the same to validate on (OVERFIT: no honest score)"
    crops = f" in crops of {settings.CROP[0]} x {settings.CROP[1]}" if all(settings.CROP) else ""
    print(
        f"{settings.EXPERIMENT}, fold {fold}: {train} images to train on, {held_out}; "
        f"{classes}{settings.MODEL_NAME}, {millions:.1f} M parameters, {settings.IMAGE_SIZE[0]} x "
        f"{settings.IMAGE_SIZE[1]} px{crops}; {where}",
        flush=True,
    )


def _run(
    settings: "Settings",
    spec: DataSpec,
    module: "SegmentationModule",
    data: "MaskDataModule",
    folder: Path,
    device: str,
    precision: str,
    prepared: Prepared,
    deadline: Deadline,
    cluster: "ClusterEnvironment | None",
) -> Any:
    """Lightning's fit; returns the trainer, None where MAX_MINUTES ended it. Turns what a user can cause into words."""
    import torch

    from tools import distributed
    from training import loggers
    from training import trainer as trainer_module

    size = settings.CROP if all(settings.CROP) else settings.IMAGE_SIZE
    several = distributed.size() > 1
    trainer = trainer_module.make(
        folder,
        epochs=settings.EPOCHS,
        device=device,
        precision=precision,
        accumulate=settings.ACCUMULATE,
        gradient_clip=settings.GRADIENT_CLIP,
        ema=settings.EMA,
        keep_best=settings.CHECKPOINT == "best",
        patience=settings.EARLY_STOPPING,
        freeze_encoder=settings.FREEZE_ENCODER,
        profiler=settings.PROFILER,
        logger=settings.LOGGER,
        hooks=_step_images(settings, spec, folder),
        limit=settings.LIMIT,
        held_out=len(data.valid_rows) > 0,
        resume_from=prepared.resume_from,
        identity=prepared.identity,
        checkpoint_minutes=settings.CHECKPOINT_MINUTES,
        deadline=deadline,
        cluster=cluster,
        nodes=settings.NODES,
        sync_batchnorm=bool(settings.SYNC_BATCHNORM),
        leaves_out=several
        and (settings.FREEZE_ENCODER > 0 or builders.leaves_out(module.network, spec.channels, size)),
    )
    try:
        trainer.fit(module, datamodule=data, ckpt_path=prepared.resume_from)
    except torch.cuda.OutOfMemoryError as error:
        raise UserError(
            f"The GPU's memory is too small for TRAIN_BATCH_SIZE={settings.TRAIN_BATCH_SIZE} at {settings.IMAGE_SIZE}. "
            f"Halve it and double ACCUMULATE (now {settings.ACCUMULATE}), with OVERWRITE=1; make batch finds what fits."
        ) from error
    except (Stopped, SystemExit) as stopped:  # SystemExit: Lightning's answer to a second Ctrl-C
        return _say_stopped(settings, folder, trainer, stopped)
    finally:
        loggers.close(trainer)
    return trainer


def _say_stopped(settings: "Settings", folder: Path, trainer: "pl.Trainer", stopped: BaseException) -> None:
    """Where the training stands and how it goes on. Raises KeyboardInterrupt or SystemExit but for MAX_MINUTES."""
    at = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}, step {trainer.global_step}"
    whole = "RESUME=1 goes on from there"
    if isinstance(stopped, SystemExit):
        kept = run_folders.resumable(folder)
        whole = "RESUME=1 goes on from the last checkpoint" if kept else "There was no checkpoint yet; start again"
    number = getattr(stopped, "signal_number", signal.SIGINT)
    why = "" if number else f" because MAX_MINUTES={settings.MAX_MINUTES:g} are over"
    if trainer.is_global_zero:
        print(f"Stopped{why} in {at}. {whole} ({folder}).", flush=True)
    if number == signal.SIGINT:
        raise KeyboardInterrupt from stopped
    if number:
        raise SystemExit(128 + number) from stopped


def _step_images(settings: "Settings", spec: DataSpec, folder: Path) -> list[Any]:
    """The callback that draws the same few images after each epoch, [] where STEP_IMAGES=0."""
    if not settings.STEP_IMAGES:
        return []
    from training.step_images import StepImages

    return [StepImages(folder / "steps", spec, settings.STEP_IMAGES)]
