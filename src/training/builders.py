"""One run's settings -> the parts of its training: data, network, loaders, module. Each is checked before long work."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import dataspec, splits
from data.dataspec import DataSpec
from tools.errors import UserError, nearest
from training import weights_origin

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from torch import nn

    from loading.cache import Cache
    from settings import Settings


def data_spec(settings: "Settings") -> DataSpec:
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


def normalisation(settings: "Settings", spec: DataSpec) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of the channels in [0, 1]: the constants, or what make folds measured."""
    measured = settings.NORMALISE == "measured" or (
        settings.NORMALISE == "auto" and (spec.channels != len(settings.MODEL_MEAN) or spec.bits != 8)
    )
    return (spec.mean, spec.std) if measured else (settings.MODEL_MEAN, settings.MODEL_STD)


def open_cache(settings: "Settings", frame: "pd.DataFrame", spec: DataSpec) -> Any:
    """The cache of every row of the folds table, shared by all folds."""
    from loading.cache import open_cache as open_

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


def build_network(settings: "Settings", spec: DataSpec, encoder_weights: str | None = None) -> Any:
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
        max_features=settings.MAX_FEATURES,
        deep_supervision=settings.DEEP_SUPERVISION,
    )


def network(settings: "Settings", spec: DataSpec, batch: int) -> Any:
    """The network from its seed, proven on one blank image before any long work; `batch`: images of a training step."""
    import copy

    import pytorch_lightning as pl
    import torch

    pl.seed_everything(settings.SEED, verbose=False)
    size = settings.CROP if all(settings.CROP) else settings.IMAGE_SIZE
    built, blank = build_network(settings, spec), torch.zeros(1, spec.channels, *size)
    try:
        with torch.no_grad():
            built.eval()(blank)
            if batch == 1:  # some batch norms have a single value then
                copy.deepcopy(built).train()(blank)
    except (RuntimeError, AssertionError, ValueError) as error:
        cause = f"{'CROP' if all(settings.CROP) else 'IMAGE_SIZE'}={size}"
        cause += " in batches of one image" if batch == 1 else ""
        raise UserError(f"MODEL_NAME={settings.MODEL_NAME} does not take {cause}: {str(error)[:300]}") from error
    return built.train()


def leaves_out(network: "nn.Module", channels: int, size: tuple[int, int]) -> bool:
    """Whether some parameters take no part in a training step; DDP has to be told."""
    import copy

    import torch

    tried = copy.deepcopy(network).train()
    found = tried(torch.zeros(2, channels, *size))
    sum(level.sum() for level in (found if isinstance(found, list) else [found])).backward()
    return any(parameter.grad is None for parameter in tried.parameters())


def fold_rows(settings: "Settings", frame: "pd.DataFrame", fold: str) -> tuple[Any, Any]:
    """Rows to train and to validate on: a fold's, or with OVERFIT its first n training images for both."""
    train_rows, valid_rows = splits.split_rows(frame, fold)
    if not settings.OVERFIT:
        return train_rows, valid_rows
    return train_rows[: settings.OVERFIT], train_rows[: settings.OVERFIT]


def held_out(settings: "Settings", frame: "pd.DataFrame", fold: str) -> weights_origin.HeldOut:
    """What a training of the fold holds out: nothing with OVERFIT, whose score is of what it was trained on."""
    rows = frame.iloc[splits.split_rows(frame, fold)[1][: 0 if settings.OVERFIT else None]]
    return weights_origin.HeldOut(rows, fold, Path(settings.TRAIN_FOLDS), Path(settings.INPUT), settings.LOGS)


def begun_from(
    settings: "Settings", frame: "pd.DataFrame", fold: str, recorded: weights_origin.Origin | None = None
) -> Any:
    """The Origin of the weights that a training begins with; `recorded`: of one that goes on.

    Raises UserError where they have seen what the fold holds out.
    """
    origin = recorded or _weights_origin(settings)
    return weights_origin.check(origin, held_out(settings, frame, fold))


def _weights_origin(settings: "Settings") -> weights_origin.Origin:
    wanted = settings.ENCODER_WEIGHTS
    if wanted == "none":
        return weights_origin.Origin(weights_origin.RANDOM)
    if wanted == "imagenet":
        import model_dispatcher
        from modeling import encoder_weights

        packed = encoder_weights.packed_weights(model_dispatcher.parse(settings.MODEL_NAME)[1], settings.WEIGHTS)
        if not packed.is_file():
            return weights_origin.Origin(weights_origin.IMAGENET)
        wanted = str(packed)
    there = Path(wanted).is_file()  # a missing one is refused where it is to be read
    return (
        weights_origin.of_file(Path(wanted), settings.LOGS)
        if there
        else weights_origin.Origin(weights_origin.UNKNOWN, wanted)
    )


def augmentation(settings: "Settings", spec: DataSpec) -> Any:
    """What the loaders' processes do to a training sample: its crop, and what is augmented there; None for nothing."""
    from loading import augmentations
    from loading.random_crops import Cropped

    labels = spec.task == "multiclass"
    augment = augmentations.make(settings.AUGMENT, labels) if settings.AUGMENT_ON == "cpu" else None
    if not all(settings.CROP):
        return augment
    background = spec.classes.index("background") if "background" in spec.classes else -1
    return Cropped(settings.CROP, settings.FOREGROUND, labels, background, augment)


def loaders(settings: "Settings", spec: DataSpec, frame: "pd.DataFrame", train_rows: Any, valid_rows: Any) -> Any:
    """The fold's loaders, from the cache that is made here where it is not there yet."""
    from loading.datamodule import MaskDataModule, workers
    from tools import distributed
    from tools.hardware import fitting_processes

    cache = open_cache(settings, frame, spec)
    shown = (spec.class_planes(cache[row][1]).any() for row in valid_rows)
    if settings.EMPTY == "skip" and len(valid_rows) and not any(shown):
        raise UserError("EMPTY=skip leaves out every held-out image of this fold: all their masks are empty.")
    frames = [settings.CROP] if all(settings.CROP) else [cache.shapes[row] for row in train_rows]
    sample, held_out = (
        max((height * width for height, width in shapes), default=0) * (cache.channels + cache.planes)
        for shapes in (frames, [cache.shapes[row] for row in valid_rows])
    )
    processes, why = fitting_processes(
        workers(settings.WORKERS),
        sample * min(settings.TRAIN_BATCH_SIZE, len(train_rows)),
        held_out * min(settings.VALID_BATCH_SIZE, len(valid_rows)),
    )
    if why:
        print(why, flush=True)
    return MaskDataModule(
        cache,
        train_rows,
        valid_rows,
        augment=augmentation(settings, spec),
        seed=settings.SEED,
        train_batch_size=settings.TRAIN_BATCH_SIZE,
        valid_batch_size=settings.VALID_BATCH_SIZE,
        num_workers=processes,
        weights=_row_weights(settings, spec, frame, cache, train_rows),
        cropped=all(settings.CROP),
        rank=distributed.rank(),
        ranks=distributed.size(),
        limit=settings.LIMIT,
    )


def _row_weights(
    settings: "Settings", spec: DataSpec, frame: "pd.DataFrame", cache: "Cache", rows: "np.ndarray"
) -> Any:
    """How often each training row comes, by BALANCE and FOREGROUND; None where each comes once."""
    import numpy as np

    from loading.samplers import balance_weights, foreground_weights

    images_by_foreground = settings.FOREGROUND > 0 and not all(settings.CROP)  # with CROP the crops are placed by it
    if settings.BALANCE == "none" and not images_by_foreground:
        return None
    weights = np.ones(len(rows))
    if settings.BALANCE != "none":
        strata = [str(stratum) for stratum in frame["stratum"].iloc[rows]]
        weights = balance_weights(strata, _shares(settings.BALANCE, strata))
    if images_by_foreground:
        shown = np.array([spec.class_planes(cache[row][1]).any() for row in rows])
        weights = foreground_weights(weights, shown, settings.FOREGROUND)
    return weights


def _shares(text: str, strata: list[str]) -> dict[str, float]:
    """BALANCE's `name=2,other=1` as shares by stratum, {} for `strata`. Raises UserError."""
    known, shares = sorted(set(strata)), {}
    if text == "strata":
        return shares
    for part in text.split(","):
        name, _, number = part.rpartition("=")
        name = name.strip()
        if name not in known:
            shown = ", ".join(known[:20])
            raise UserError(
                f"BALANCE={text}: no training image has the stratum '{name}'.{nearest(name, known)} "
                f"Expected none, strata, or shares such as {known[0]}=2; the strata: {shown}."
            )
        try:
            shares[name] = float(number)
        except ValueError as error:
            raise UserError(f"BALANCE={text}: '{number}' is not a number.") from error
        if not 0 < shares[name] < 1e6:
            raise UserError(f"BALANCE={text}: expected shares above 0.")
    return shares


def module(settings: "Settings", spec: DataSpec, built: Any, loss: Any) -> Any:
    """The Lightning module around a network, with the settings' optimiser, schedule and device augmentation."""
    import torch

    from lightning_module import SegmentationModule

    augment = None
    if settings.AUGMENT_ON == "device":
        from loading import device_augmentations

        augment = device_augmentations.make(settings.AUGMENT, labels=spec.task == "multiclass", channels=spec.channels)
    return SegmentationModule(
        built.to(memory_format=torch.channels_last),
        loss,
        lr=settings.LR,
        encoder_lr=settings.ENCODER_LR,
        optimiser=settings.OPTIMIZER,
        momentum=settings.MOMENTUM,
        weight_decay=settings.WEIGHT_DECAY,
        schedule=settings.SCHEDULE,
        warmup=settings.WARMUP,
        cycles=settings.CYCLES,
        patience=settings.PATIENCE,
        augment=augment,
        mix=settings.MIX,
        mix_alpha=settings.MIX_ALPHA,
        task=spec.task,
        classes=spec.classes,
        scored=spec.scored,
        threshold=settings.THRESHOLD,
        empty=settings.EMPTY,
        seed=settings.SEED,
    )
