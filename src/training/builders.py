"""One run's settings -> the parts of its training: data, network, loss, module. Each is checked before long work.

Only here, and in what checks and runs a whole training, is a function given all settings.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from data import class_merge, dataspec, splits
from data.dataspec import DataSpec
from tools import run_folders
from tools.errors import UserError
from training import loading_plan, warm_start, weights_origin

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from lightning_module import SegmentationModule
    from loading.augmentations import Augmentation
    from loading.cache import Cache
    from loading.datamodule import MaskDataModule
    from loading.random_crops import Cropped
    from modeling.frame_sizes import Frames
    from modeling.losses.loss_sum import Loss
    from modeling.segmenter import Segmenter
    from settings import Settings
    from training.trainer import Hardware


def data_spec(settings: "Settings") -> DataSpec:
    """Read what the pixels mean, as make folds found it. UserError where TASK, IN_CHANNELS or CLASSES say else."""
    sidecar = Path(settings.TRAIN_FOLDS).with_suffix(".json")
    spec = dataspec.read(sidecar)
    for name, wanted, default, actual in (
        ("TASK", settings.TASK, "auto", spec.task),
        ("IN_CHANNELS", settings.IN_CHANNELS, 0, spec.channels),
    ):
        if wanted not in (default, actual):
            raise UserError(
                f"{name}={wanted}, but {sidecar} says {actual}. Leave it out, or run make folds {name}={wanted}."
            )
    class_merge.refuse_others(spec, settings.CLASSES, str(sidecar))
    return spec


def open_cache(settings: "Settings", frame: "pd.DataFrame", spec: DataSpec) -> "Cache":
    """Open the cache of every row of the folds table, shared by all folds."""
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


def build_network(settings: "Settings", spec: DataSpec, encoder_weights: str | None = None) -> "Segmenter":
    """Build the settings' network for these data, fresh."""
    import model_dispatcher
    from training import initial_weights

    if encoder_weights is None:
        encoder_weights = "none" if settings.INIT else settings.ENCODER_WEIGHTS
    return model_dispatcher.build(
        settings.MODEL_NAME,
        classes=len(spec.classes),
        channels=spec.channels,
        normalization=initial_weights.normalization(settings, spec, encoder_weights)[0],
        encoder_weights=encoder_weights,
        weights_folder=settings.WEIGHTS,
        decoder=model_dispatcher.Decoder(settings.MAX_FEATURES, settings.DEEP_SUPERVISION),
        size=input_size(settings),
    )


def frames(settings: "Settings", spec: DataSpec) -> "Frames":
    """Return how the network takes the frames of these settings, tried in a second, without memory for its weights.

    Raises UserError where it takes none, or one size only and the settings make others.
    """
    import model_dispatcher

    found = model_dispatcher.frames_of(settings.MODEL_NAME, spec.channels, input_size(settings))
    if found.only and (settings.RESIZE == "none" or not found.takes(settings.IMAGE_SIZE)):
        raise UserError(
            f"MODEL_NAME={settings.MODEL_NAME}: every image is {found}, and RESIZE=none or a CROP smaller than "
            "IMAGE_SIZE make images of other sizes. Leave them out, or take a network of any size."
        )
    return found


def network(settings: "Settings", spec: DataSpec, batch: int, fold: str = "") -> "Segmenter":
    """Build the network from its seed and try it on a blank image; `batch`: images of a training step.

    `fold`: the one that INIT's weights are loaded for; "": they are not.
    """
    import copy

    import pytorch_lightning as pl
    import torch

    pl.seed_everything(settings.SEED, verbose=False)
    frames(settings, spec)
    size = input_size(settings)
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
    if settings.INIT and fold:
        warm_start.load(built, warm_start.source(settings, fold, spec), settings.INIT)
    return built.train()


def loss(settings: "Settings", spec: DataSpec) -> "Loss":
    """Return the loss that LOSS names, for the data's task and classes. Raises UserError for what it cannot be."""
    from modeling.losses.loss_sum import Loss

    return Loss(settings.LOSS, spec.task, spec.scored, len(spec.classes))


def hardware(settings: "Settings") -> "Hardware":
    """Return the device and precision that DEVICE and PRECISION come to. Raises UserError where they are not there."""
    from tools.hardware import choose_device, choose_precision
    from training.trainer import Hardware

    device = choose_device(settings.DEVICE)
    return Hardware(device, *choose_precision(settings.PRECISION, device))


def input_size(settings: "Settings") -> tuple[int, int]:
    """Return (height, width) of what the network is trained on: crops, or IMAGE_SIZE's frames."""
    return settings.CROP if all(settings.CROP) else settings.IMAGE_SIZE


def fold_rows(settings: "Settings", frame: "pd.DataFrame", fold: str) -> "tuple[np.ndarray, np.ndarray]":
    """Return the rows to train and to validate on: a fold's, or with OVERFIT its first n training images for both."""
    train_rows, valid_rows = splits.split_rows(frame, fold)
    if not settings.OVERFIT:
        return train_rows, valid_rows
    return train_rows[: settings.OVERFIT], train_rows[: settings.OVERFIT]


def held_out(settings: "Settings", frame: "pd.DataFrame", fold: str) -> weights_origin.HeldOut:
    """Return what a training of the fold holds out: nothing with OVERFIT, which is scored on what it trained on."""
    rows = frame.iloc[splits.split_rows(frame, fold)[1][: 0 if settings.OVERFIT else None]]
    return weights_origin.HeldOut(rows, fold, Path(settings.TRAIN_FOLDS), Path(settings.INPUT), settings.LOGS)


def begun_from(
    settings: "Settings", frame: "pd.DataFrame", fold: str, recorded: weights_origin.Origin | None = None
) -> weights_origin.Origin:
    """Return the Origin of the weights that a training begins with; `recorded`: of one that goes on.

    Raises UserError where they have seen what the fold holds out.
    """
    origin = recorded or _weights_origin(settings, fold)
    try:
        return weights_origin.check(origin, held_out(settings, frame, fold))
    except UserError as error:
        if not settings.INIT:
            raise
        raise UserError(f"INIT={settings.INIT}: {error}") from error


def may_have_seen(settings: "Settings") -> bool:
    """Return whether a training begins with weights that may have seen what it holds out: INIT's, or those of a file.

    ImageNet's of the weights' folder are looked at where they are read.
    """
    return bool(settings.INIT) or settings.ENCODER_WEIGHTS not in ("none", "imagenet")


def _weights_origin(settings: "Settings", fold: str) -> weights_origin.Origin:
    """Return where INIT or ENCODER_WEIGHTS come from, before anything is known of what they have seen."""
    if settings.INIT:
        folder = warm_start.source(settings, fold, data_spec(settings))
        return weights_origin.of_file(folder / run_folders.WEIGHTS, settings.LOGS)
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


def augmentation(settings: "Settings", spec: DataSpec) -> "Cropped | Augmentation | None":
    """Return what the loaders do to a training sample, its crop and what is augmented there; None for nothing."""
    from loading import augmentations
    from loading.random_crops import Cropped

    labels = spec.task == "multiclass"
    augment = augmentations.make(settings.AUGMENT, labels) if settings.AUGMENT_ON == "cpu" else None
    if not all(settings.CROP):
        return augment
    background = spec.classes.index("background") if "background" in spec.classes else -1
    return Cropped(settings.CROP, settings.FOREGROUND, labels, background, augment)


def loaders(
    settings: "Settings", spec: DataSpec, frame: "pd.DataFrame", train_rows: "np.ndarray", valid_rows: "np.ndarray"
) -> "MaskDataModule":
    """Return the fold's loaders, from the cache that is made here where it is not there yet."""
    from loading.datamodule import DataOrder, MaskDataModule
    from tools import distributed

    cache = open_cache(settings, frame, spec)
    shown = (spec.class_planes(cache[row][1]).any() for row in valid_rows)
    if settings.EMPTY == "skip" and len(valid_rows) and not any(shown):
        raise UserError("EMPTY=skip leaves out every held-out image of this fold: all their masks are empty.")
    order = DataOrder(
        seed=settings.SEED,
        train_batch_size=settings.TRAIN_BATCH_SIZE,
        valid_batch_size=settings.VALID_BATCH_SIZE,
        weights=loading_plan.row_weights(settings, spec, frame, cache, train_rows),
        rank=distributed.rank(),
        ranks=distributed.size(),
        limit=settings.LIMIT,
    )
    return MaskDataModule(
        cache,
        train_rows,
        valid_rows,
        order,
        augment=augmentation(settings, spec),
        cropped=all(settings.CROP),
        num_workers=loading_plan.processes(settings, cache, train_rows, valid_rows),
    )


def module(settings: "Settings", spec: DataSpec, network: "Segmenter", loss: "Loss") -> "SegmentationModule":
    """Return the Lightning module around a network, with the settings' optimizer, schedule and device augmentation."""
    import torch

    from lightning_module import SegmentationModule, Validation
    from modeling.batch_mixing import Mixing
    from modeling.optimizers import Optimization, Schedule

    augment = None
    if settings.AUGMENT_ON == "device":
        from loading import device_augmentations

        augment = device_augmentations.make(settings.AUGMENT, labels=spec.task == "multiclass", channels=spec.channels)
    return SegmentationModule(
        network.to(memory_format=torch.channels_last),
        loss,
        Optimization(settings.LR, settings.ENCODER_LR, settings.OPTIMIZER, settings.MOMENTUM, settings.WEIGHT_DECAY),
        Schedule(settings.SCHEDULE, settings.WARMUP, settings.CYCLES, settings.PATIENCE),
        augment=augment,
        mixing=Mixing(settings.MIX, settings.MIX_ALPHA),
        validation=Validation(spec, settings.THRESHOLD, settings.EMPTY),
        seed=settings.SEED,
    )
