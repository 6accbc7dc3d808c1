"""make lr FOLD=0: the learning rate range test on a fold's training images, as a curve, a table and a rate to type."""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import settings as settings_module
from tools.errors import UserError, command
from tools.files import write_text
from training.fold_training import FoldTraining

if TYPE_CHECKING:
    from training.lr_range_test import RangeTest

FLAGS = {
    "FOLD": "on this fold's training images (default 0; full: on all)",
    "STEPS": "optimizer steps from 1e-7 to 1 (default 100)",
}


@command
def main(argv: list[str] | None = None) -> None:
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    fold = flags.FOLD or "0"
    if flags.STEPS and not (flags.STEPS.isdecimal() and 20 <= int(flags.STEPS) <= 100_000):
        raise UserError(f"STEPS={flags.STEPS}: expected a number of optimizer steps, 20 or more; 100 do in most cases.")
    # with LR=1 the rate of each optimizer group is its share of LR
    training = FoldTraining(dataclasses.replace(settings, LR=1.0), fold)
    training.refuse_seen_weights()
    from training import lr_range_test, trainer

    trainer.quieten()
    result = lr_range_test.range_test(
        training.module,
        training.data,
        steps=int(flags.STEPS or 100),
        update=training.update,
        hardware=training.hardware,
    )
    if not result.losses:
        raise UserError("The loss was no number at the lowest rate already. Try PRECISION=32, or look at make samples.")
    table = Path(settings.OUTPUT, f"lr_{settings.EXPERIMENT}_fold{fold}.csv")
    lines = [f"{rate:.6g},{loss:.6g},{smoothed:.6g}" for rate, loss, smoothed in _rows(result)]
    write_text(table, "\n".join(["learning_rate,loss,smoothed", *lines]) + "\n")
    picture = table.with_suffix(".png")
    batch = settings.TRAIN_BATCH_SIZE * settings.ACCUMULATE
    title = f"{settings.EXPERIMENT}, fold {fold}: {settings.MODEL_NAME}, {settings.OPTIMIZER}, {batch} images a step"
    lr_range_test.draw(picture, result, title)
    _say(result, picture, table, fold)


def _rows(result: "RangeTest") -> Iterator[tuple[float, float, float]]:
    return zip(result.rates, result.losses, result.smoothed, strict=True)


def _say(result: "RangeTest", picture: Path, table: Path, fold: str) -> None:
    from training.lr_range_test import typed

    where = f"it diverged at {typed(result.diverged_at)}" if result.diverged_at else "it never diverged"
    print(f"{len(result.rates)} steps up to {typed(result.rates[-1])}, {where} -> {picture}, {table}")
    if result.suggestion is None or result.tenth is None:
        print(
            "No clear suggestion: the loss does not fall by more than its noise. Try STEPS=300 or a larger "
            "TRAIN_BATCH_SIZE, look at make samples, or keep LR as it is."
        )
        return
    print(
        f"The loss falls most steeply at {typed(result.suggestion)}; a tenth of the rate with the lowest loss is "
        f"{typed(result.tenth)}. The schedule's peak may be either."
    )
    print(f"make train FOLD={fold} LR={typed(result.suggestion)}")


if __name__ == "__main__":
    sys.exit(main())
