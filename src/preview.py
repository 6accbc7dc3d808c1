"""make samples: images and masks as the network gets them, before and after augmentation, as one picture.

The loaders' augmentation (albumentations) and the device's (Kornia) stand side by side, whichever AUGMENT_ON chooses.
"""

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import settings as settings_module
from data import splits
from data.dataspec import DataSpec
from tools.errors import UserError, command
from tools.flags import following, run_action

if TYPE_CHECKING:
    import numpy as np

    from loading.cache import Cache
    from loading.dataset import Sample
    from loading.device_augmentations import DeviceAugmentation
    from settings import Settings

FLAGS = {"FOLD": "show this fold's training images (default 0)", "COUNT": "how many (default 8)"}
EPOCHS = 2


def _on_device(augment: "DeviceAugmentation", sample: "Sample", key: tuple[int, ...]) -> "Sample":
    """Return the sample after the device's augmentation, as bytes again."""
    from loading.dataset import collate

    batch = collate([sample])
    image, mask = augment(batch["image"], batch["mask"], key)
    pixels = (image[0] * 255).round().byte().permute(1, 2, 0)
    return {"image": pixels.numpy(), "mask": mask[0].numpy(), "row": sample["row"]}


def _augmented(settings: "Settings", spec: DataSpec, cache: "Cache", row: int) -> list["Sample"]:
    """Return a row as it is, then in each epoch after the loaders' augmentation, then after the device's."""
    from loading import device_augmentations
    from loading.dataset import MaskDataset
    from training import builders

    seed, epochs = settings.SEED, range(EPOCHS)
    by_place = (dataclasses.replace(settings, AUGMENT_ON="cpu"), dataclasses.replace(settings, AUGMENT_ON="device"))
    on_cpu, cropped = (MaskDataset(cache, seed, builders.augmentation(chosen, spec)) for chosen in by_place)
    on_device = device_augmentations.make(settings.AUGMENT, labels=spec.task == "multiclass", channels=spec.channels)
    samples = [MaskDataset(cache, seed)[0, row, 0], *(on_cpu[epoch, row, 0] for epoch in epochs)]
    for epoch in epochs:
        sample = cropped[epoch, row, 0]
        samples.append(_on_device(on_device, sample, (seed, epoch, row)) if on_device else sample)
    return samples


def _cells(spec: DataSpec, samples: list["Sample"]) -> list["np.ndarray"]:
    """Draw each sample with its mask over it."""
    from tools import pictures

    return [
        pictures.overlays(pictures.as_rgb(sample["image"]), spec.class_planes(sample["mask"]), alpha=0.3)
        for sample in samples
    ]


@command
def samples(argv: list[str] | None = None) -> None:
    """Do what the module's docstring says."""
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    frame = splits.read(Path(settings.TRAIN_FOLDS))
    from loading.samplers import epoch_order
    from tools import pictures
    from training import builders

    if flags.COUNT and not (flags.COUNT.isdecimal() and int(flags.COUNT) > 0):
        raise UserError(f"COUNT={flags.COUNT} is not a number of images.")
    spec, fold = builders.data_spec(settings), flags.FOLD or "0"
    train_rows, _ = builders.fold_rows(settings, frame, fold)
    cache = builders.open_cache(settings, frame, spec)
    shown = epoch_order(settings.SEED, 0, train_rows)[: int(flags.COUNT or 8)].tolist()
    rows = [(Path(frame["image"][row]).name, _cells(spec, _augmented(settings, spec, cache, row))) for row in shown]
    path = Path(settings.OUTPUT, "samples.png")
    height, width = settings.IMAGE_SIZE
    titles = ["as it is", *(f"{place}, epoch {epoch + 1}" for place in ("cpu", "device") for epoch in range(EPOCHS))]
    crops = f", CROP={settings.CROP[0]},{settings.CROP[1]}" if all(settings.CROP) else ""
    note = f"{height} x {width} px, RESIZE={settings.RESIZE}, AUGMENT={settings.AUGMENT}{crops}"
    pictures.sheet(path, rows, titles, note=note, legend=pictures.legend(spec.scored_names))
    print(f"{len(rows)} training images of fold {fold}, augmented on the CPU and on the device -> {path}")
    print(following("train", flags, f"FOLD={fold}"))


@command
def summary(argv: list[str] | None = None) -> None:
    """make summary: the network's parts with their parameters, and its multiply-adds at IMAGE_SIZE."""
    settings, _ = settings_module.command_line(argv, summary.__doc__, {})
    import torch
    from pytorch_lightning.utilities.model_summary.model_summary import ModelSummary
    from torch.utils.flop_counter import FlopCounterMode

    from training import builders

    there = Path(settings.TRAIN_FOLDS).with_suffix(".json").is_file()
    spec = builders.data_spec(settings) if there else DataSpec()  # before make folds: RGB, one class
    network = builders.build_network(settings, spec, encoder_weights="none").eval()
    module = builders.module(settings, spec, network, builders.loss(settings, spec))
    print(ModelSummary(module, max_depth=4))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, spec.channels, *settings.IMAGE_SIZE))
    operations = counter.get_total_flops() / 2  # the counter says two operations a multiply-add
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    height, width = settings.IMAGE_SIZE
    print(
        f"{settings.MODEL_NAME}: {millions:.2f} M parameters, {operations / 1e9:.2f} G multiply-adds "
        f"for one image of {height} x {width} px"
    )


def main(argv: list[str] | None = None) -> int:
    return run_action(argv, samples, summary=summary)


if __name__ == "__main__":
    sys.exit(main())
