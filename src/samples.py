"""make samples: images and masks as the network gets them, before and after augmentation, as one picture."""

import sys
from pathlib import Path

import settings as settings_module
import splits
from errors import command

FLAGS = {"FOLD": "show this fold's training images (default 0)", "COUNT": "how many (default 8)"}


@command
def main(argv: list[str] | None = None) -> None:
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    frame = splits.read(Path(settings.TRAIN_FOLDS))
    import augmentations
    import pictures
    from assembly import data_spec, open_cache
    from datamodule import epoch_order, split_rows
    from dataset import MaskDataset
    from errors import UserError

    if flags.COUNT and not (flags.COUNT.isdecimal() and int(flags.COUNT) > 0):
        raise UserError(f"COUNT={flags.COUNT} is not a number of images.")
    train_rows, _ = split_rows(frame["kfold"].to_numpy(), flags.FOLD or "0")
    spec = data_spec(settings)
    cache = open_cache(settings, frame, spec)
    augment = augmentations.make(settings.AUGMENT, labels=spec.task == "multiclass")
    plain, augmented = MaskDataset(cache, settings.SEED), MaskDataset(cache, settings.SEED, augment)
    rows = []
    for row in epoch_order(settings.SEED, 0, train_rows)[: int(flags.COUNT or 8)]:
        samples = [plain[0, row, 0], *(augmented[epoch, row, 0] for epoch in range(3))]
        cells = [
            pictures.overlays(
                pictures.as_rgb(sample["image"].permute(1, 2, 0).numpy()),
                spec.class_planes(sample["mask"].numpy()),
                alpha=0.3,
            )
            for sample in samples
        ]
        rows.append((Path(frame["image"][row]).name, cells))
    path = Path(settings.OUTPUT, "samples.png")
    height, width = settings.IMAGE_SIZE
    titles = ["as it is", *(f"epoch {epoch + 1}" for epoch in range(3))]
    note = f"{height} x {width} px, RESIZE={settings.RESIZE}, AUGMENT={settings.AUGMENT}"
    pictures.sheet(path, rows, titles, note=note, legend=pictures.legend(spec.scored_names))
    print(f"{len(rows)} training images of fold {flags.FOLD or '0'} in three epochs -> {path}")


if __name__ == "__main__":
    sys.exit(main())
