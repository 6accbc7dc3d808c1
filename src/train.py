"""make train FOLD=0: one fold's network, trained and shipped as model.safetensors + model.json in its run folder."""

import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dataspec
import runs
import settings as settings_module
import splits
from dataspec import DataSpec
from errors import UserError, command

FLAGS = {
    "FOLD": "which fold is held out: 0, 1, ..., or full (train on every row, validate on nothing)",
    "RESUME": "1: go on from checkpoints/last.ckpt",
    "OVERWRITE": "1: throw an existing run away and start again",
}
FIXED = ("data", "network", "training")  # sections that the folds of one experiment share
VARYING = ("SEED", "EXPERIMENT", "TRAIN_FOLDS")  # the seed and the experiment name the run; the table has its hash


def fixed_settings(settings: Any) -> dict[str, Any]:
    """What must be equal in all runs of an experiment."""
    shared = settings_module.snapshot(settings, FIXED)
    values = {name: value for name, value in shared.items() if name not in VARYING}
    return {**values, "folds_sha256": runs.sha256(Path(settings.TRAIN_FOLDS)), "data": data_spec(settings).as_json()}


def data_spec(settings: Any) -> DataSpec:
    """What the pixels mean, as make folds found it. Raises UserError where TASK or IN_CHANNELS say something else."""
    sidecar = Path(settings.TRAIN_FOLDS).with_suffix(".json")
    spec = dataspec.read(sidecar)
    for name, wanted, default, found in (
        ("TASK", settings.TASK, "auto", spec.task),
        ("IN_CHANNELS", settings.IN_CHANNELS, 0, spec.channels),
    ):
        if wanted not in (default, found):
            raise UserError(
                f"{name}={wanted}, but {sidecar} says {found}. Leave it out, or run make folds {name}={wanted}."
            )
    return spec


def normalisation(settings: Any, spec: DataSpec) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of the channels in [0, 1]: the constants, or what make folds measured."""
    measured = settings.NORMALISE == "measured" or (
        settings.NORMALISE == "auto" and (spec.channels != len(settings.MODEL_MEAN) or spec.bits != 8)
    )
    return (spec.mean, spec.std) if measured else (settings.MODEL_MEAN, settings.MODEL_STD)


def open_cache(settings: Any, frame: Any, spec: DataSpec) -> Any:
    """The cache of every row of the folds table, shared by all folds."""
    from dataset import open_cache as open_

    pairs = list(zip(frame["image"], frame["mask"], strict=True))
    return open_(
        Path(settings.OUTPUT, "cache"),
        Path(settings.INPUT),
        pairs,
        settings.IMAGE_SIZE,
        settings.RESIZE,
        settings.MAX_PIXELS,
        spec,
    )


def build_network(settings: Any, spec: DataSpec, encoder_weights: str | None = None) -> Any:
    """The settings' network for these data, fresh."""
    import model_dispatcher

    mean, std = normalisation(settings, spec)
    return model_dispatcher.build(
        settings.MODEL_NAME,
        classes=len(spec.classes),
        channels=spec.channels,
        mean=mean,
        std=std,
        encoder_weights=settings.ENCODER_WEIGHTS if encoder_weights is None else encoder_weights,
        weights_folder=settings.WEIGHTS,
    )


def fit(settings: Any, fold: str, resume: bool = False, overwrite: bool = False) -> Path:
    """Train one fold and write its run folder; returns it. Raises UserError, before the training wherever possible."""
    table = Path(settings.TRAIN_FOLDS)
    frame = splits.read(table)
    from datamodule import split_rows
    from hardware import choose_device, choose_precision
    from losses import Loss

    train_rows, valid_rows = split_rows(frame["kfold"].to_numpy(), fold)
    if fold == "full" and (settings.CHECKPOINT == "best" or settings.EARLY_STOPPING):
        raise UserError(
            "FOLD=full validates on nothing, so CHECKPOINT=best and EARLY_STOPPING have nothing to go by; "
            "leave them out."
        )
    spec = data_spec(settings)
    device, loss = choose_device(settings.DEVICE), Loss(settings.LOSS, spec.task, spec.scored)
    precision, reason = choose_precision(settings.PRECISION, device)
    folder = runs.run_folder(settings.LOGS, settings.EXPERIMENT, fold, settings.SEED)
    fixed = fixed_settings(settings)
    runs.check_run(folder, fixed, resume, overwrite)
    if resume and (folder / runs.MODEL).is_file():
        print(f"{folder} is finished already; there is nothing to resume.")
        return folder
    network = _network(settings, spec, min(settings.TRAIN_BATCH_SIZE, len(train_rows)))
    data = _data(settings, spec, frame, train_rows, valid_rows)

    runs.open_run(folder, fixed, resume)
    runs.write_text(folder / runs.FOLDS, table.read_text(encoding="utf-8"))
    runs.write_json(folder / runs.SETTINGS, settings_module.snapshot(settings))
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    classes = "" if spec.task == "binary" else f"{spec.task}, {len(spec.classes)} classes; "
    print(
        f"{settings.EXPERIMENT}, fold {fold}: {len(train_rows)} images to train on, {len(valid_rows)} held out; "
        f"{classes}{settings.MODEL_NAME}, {millions:.1f} M parameters, {settings.IMAGE_SIZE[0]} x "
        f"{settings.IMAGE_SIZE[1]} px; {device}, {reason} -> {folder}",
        flush=True,
    )
    module, start = _module(settings, spec, network, loss), time.monotonic()
    trainer = _run(settings, module, data, folder, device, precision, resume)
    _ship(settings, spec, module, folder, fold, trainer, (time.monotonic() - start) / 60)
    return folder


def _data(settings: Any, spec: DataSpec, frame: Any, train_rows: Any, valid_rows: Any) -> Any:
    """The fold's loaders, from the cache that is made here where it is not there yet."""
    import augmentations
    from datamodule import MaskDataModule, workers

    cache = open_cache(settings, frame, spec)
    shown = (spec.class_planes(cache[row][1]).any() for row in valid_rows)
    if settings.EMPTY == "skip" and len(valid_rows) and not any(shown):
        raise UserError("EMPTY=skip leaves out every held-out image of this fold: all their masks are empty.")
    return MaskDataModule(
        cache,
        train_rows,
        valid_rows,
        augment=augmentations.make(settings.AUGMENT, labels=spec.task == "multiclass"),
        seed=settings.SEED,
        train_batch_size=settings.TRAIN_BATCH_SIZE,
        valid_batch_size=settings.VALID_BATCH_SIZE,
        num_workers=workers(settings.WORKERS),
    )


def _module(settings: Any, spec: DataSpec, network: Any, loss: Any) -> Any:
    import torch

    from lightning_module import SegmentationModule

    return SegmentationModule(
        network.to(memory_format=torch.channels_last),
        loss,
        lr=settings.LR,
        warmup=settings.WARMUP,
        weight_decay=settings.WEIGHT_DECAY,
        task=spec.task,
        classes=spec.classes,
        scored=spec.scored,
        threshold=settings.THRESHOLD,
        empty=settings.EMPTY,
        seed=settings.SEED,
    )


def _network(settings: Any, spec: DataSpec, batch: int) -> Any:
    """The network from its seed, proven on one blank image before any long work; `batch`: images of a training step."""
    import copy

    import pytorch_lightning as pl
    import torch

    pl.seed_everything(settings.SEED, verbose=False)
    network, blank = build_network(settings, spec), torch.zeros(1, spec.channels, *settings.IMAGE_SIZE)
    try:
        with torch.no_grad():
            network.eval()(blank)
            if batch == 1:  # some batch norms have a single value then
                copy.deepcopy(network).train()(blank)
    except (RuntimeError, AssertionError, ValueError) as error:
        cause = f"IMAGE_SIZE={settings.IMAGE_SIZE}" + (" in batches of one image" if batch == 1 else "")
        raise UserError(f"MODEL_NAME={settings.MODEL_NAME} does not take {cause}: {str(error)[:300]}") from error
    return network.train()


def _run(settings: Any, module: Any, data: Any, folder: Path, device: str, precision: str, resume: bool) -> Any:
    """Lightning's fit; returns the trainer. Turns what a user can cause into sentences."""
    import torch

    import trainer as trainer_module

    last = folder / "checkpoints" / "last.ckpt"
    if resume:
        trainer_module.refuse_broken(last)
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
        profiler=settings.PROFILER,
        limit=settings.LIMIT,
        held_out=len(data.valid_rows) > 0,
        resume=resume,
    )
    try:
        trainer.fit(module, datamodule=data, ckpt_path=last if resume else None)
    except torch.cuda.OutOfMemoryError as error:
        raise UserError(
            f"The GPU's memory is too small for TRAIN_BATCH_SIZE={settings.TRAIN_BATCH_SIZE} at {settings.IMAGE_SIZE}. "
            f"Halve it and double ACCUMULATE (now {settings.ACCUMULATE}), with OVERWRITE=1."
        ) from error
    except SystemExit as stopped:  # Lightning's answer to Ctrl-C
        whole = "RESUME=1 goes on from the last whole epoch" if last.exists() else "No epoch was whole yet; start again"
        print(f"\nStopped. {whole} ({folder}).", flush=True)
        raise KeyboardInterrupt from stopped
    return trainer


def _ship(settings: Any, spec: DataSpec, module: Any, folder: Path, fold: str, trainer: Any, minutes: float) -> None:
    """Write model.safetensors and model.json, all that scoring and prediction read, and say what was reached."""
    import torch

    import callbacks

    dice, network = trainer.callback_metrics.get("valid_dice"), callbacks.averaged_network(trainer, module)
    weights = "last epoch" + (f", moving average {settings.EMA}" if settings.EMA else "")
    if settings.CHECKPOINT == "best":
        best = next(hook for hook in trainer.callbacks if isinstance(hook, callbacks.BestWeights))
        import model_dispatcher

        network.load_state_dict(model_dispatcher.read_weights(best.path))
        weights, dice = f"epoch {best.epoch + 1}, chosen on this fold", best.best
    callbacks.save_network(network, folder / runs.WEIGHTS)
    mean, std = normalisation(settings, spec)
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    about = {
        "experiment": settings.EXPERIMENT,
        "fold": fold,
        "seed": settings.SEED,
        "data": spec.as_json(),
        "network": {
            "MODEL_NAME": settings.MODEL_NAME,
            "IMAGE_SIZE": settings.IMAGE_SIZE,
            "RESIZE": settings.RESIZE,
            "MODEL_MEAN": mean,
            "MODEL_STD": std,
        },
        "weights": weights,
        "weights_sha256": runs.sha256(folder / runs.WEIGHTS),
        "folds_sha256": runs.sha256(folder / runs.FOLDS),
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "minutes": round(minutes, 2),
        "commit": _commit(),
        "versions": versions,
        "settings": settings_module.snapshot(settings),
    }
    runs.write_json(folder / runs.MODEL, about)
    reached = (
        f"validation Dice {float(dice):.4f} at {settings.IMAGE_SIZE[0]} x {settings.IMAGE_SIZE[1]} px, "
        if dice is not None
        else ""
    )
    print(
        f"Trained fold {fold} in {minutes:.1f} minutes: {reached}weights of the {weights} -> {folder / runs.WEIGHTS}",
        flush=True,
    )


def _commit() -> str:
    """The git commit that this code is at, "" outside a repository."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            check=False,
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


@command
def main(argv: list[str] | None = None) -> None:
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    if not flags.FOLD:
        raise UserError(
            "Which fold? make train FOLD=0 (or python src/train.py --fold 0); FOLD=full trains on every row."
        )
    fit(settings, flags.FOLD, settings_module.flag_is_on(flags.RESUME), settings_module.flag_is_on(flags.OVERWRITE))
    if flags.FOLD == "full":
        print("Next: make inference FOLD=full, then make submission FOLD=full")
    else:
        print(f"Next: make tester FOLD={flags.FOLD}")


if __name__ == "__main__":
    sys.exit(main())
