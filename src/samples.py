"""make samples: images and masks as the network gets them, before and after augmentation, as one picture.

The loaders' augmentation (albumentations) and the device's (Kornia) stand side by side, whichever AUGMENT_ON chooses.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import settings as settings_module
import splits
from errors import UserError, command

FLAGS = {"FOLD": "show this fold's training images (default 0)", "COUNT": "how many (default 8)"}
EPOCHS = 2


def _on_device(augment: Any, sample: dict[str, Any], key: tuple[int, ...]) -> dict[str, Any]:
    """The sample after the device's augmentation, as bytes again."""
    from dataset import collate

    batch = collate([sample])
    image, mask = augment(batch["image"], batch["mask"], key)
    pixels = (image[0] * 255).round().byte().permute(1, 2, 0)
    return {**sample, "image": pixels.numpy(), "mask": mask[0].numpy()}


@command
def main(argv: list[str] | None = None) -> None:
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    frame = splits.read(Path(settings.TRAIN_FOLDS))
    import assembly
    import device_augmentations
    import pictures
    from datamodule import epoch_order
    from dataset import MaskDataset

    if flags.COUNT and not (flags.COUNT.isdecimal() and int(flags.COUNT) > 0):
        raise UserError(f"COUNT={flags.COUNT} is not a number of images.")
    spec, seed = assembly.data_spec(settings), settings.SEED
    train_rows, _ = assembly.fold_rows(settings, frame, flags.FOLD or "0")
    cache = assembly.open_cache(settings, frame, spec)
    by_place = [dataclasses.replace(settings, AUGMENT_ON=place) for place in ("cpu", "device")]
    on_cpu, cropped = (MaskDataset(cache, seed, assembly.augmentation(one, spec)) for one in by_place)
    plain = MaskDataset(cache, seed)
    on_device = device_augmentations.make(settings.AUGMENT, labels=spec.task == "multiclass", channels=spec.channels)
    rows = []
    for row in epoch_order(seed, 0, train_rows)[: int(flags.COUNT or 8)].tolist():
        samples = [plain[0, row, 0], *(on_cpu[epoch, row, 0] for epoch in range(EPOCHS))]
        for epoch in range(EPOCHS):
            sample = cropped[epoch, row, 0]
            samples.append(_on_device(on_device, sample, (seed, epoch, row)) if on_device else sample)
        cells = [
            pictures.overlays(
                pictures.as_rgb(sample["image"]),
                spec.class_planes(sample["mask"]),
                alpha=0.3,
            )
            for sample in samples
        ]
        rows.append((Path(frame["image"][row]).name, cells))
    path = Path(settings.OUTPUT, "samples.png")
    height, width = settings.IMAGE_SIZE
    places = ("cpu", "device")
    titles = ["as it is", *(f"{place}, epoch {epoch + 1}" for place in places for epoch in range(EPOCHS))]
    crops = f", CROP={settings.CROP[0]},{settings.CROP[1]}" if all(settings.CROP) else ""
    note = f"{height} x {width} px, RESIZE={settings.RESIZE}, AUGMENT={settings.AUGMENT}{crops}"
    pictures.sheet(path, rows, titles, note=note, legend=pictures.legend(spec.scored_names))
    print(f"{len(rows)} training images of fold {flags.FOLD or '0'}, augmented on the CPU and on the device -> {path}")


if __name__ == "__main__":
    sys.exit(main())
