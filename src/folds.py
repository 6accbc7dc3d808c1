"""make folds: the training images and masks below INPUT -> OUTPUT/train_folds.csv, checked, balanced and free of leaks.

Every image and mask is decoded once, strictly; what is broken is listed before anything is written.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import settings as settings_module
from data import index_table, mask_picture, scan, spec_of_data, splits
from data.dataspec import DataSpec
from data.folds_table import LABELED, choose, strategy, users_own, write
from data.leak_audit import across_folds, copies
from tools import console
from tools.errors import UserError, command
from tools.flags import following, is_on

if TYPE_CHECKING:
    import pandas as pd

FLAGS = {
    "TABLE": "a CSV of your own: image,mask[,group][,stratum][,kfold], paths relative to INPUT",
    "TIE": "1: put copies of an image into one group instead of refusing them",
    "OVERWRITE": "1: replace a folds table that was made otherwise, or that runs have used",
}


def say_found(index: index_table.IndexTable) -> None:
    """Print where images and masks were found, the first pairs of a layout, and whether names hint at groups."""
    frame, match = index.frame, index.match
    warning = f"Warning: {index.warning}" if index.hint else ""
    if match.layout == "table":
        print("\n".join(filter(None, [warning, match.sentence])))
        return
    print(f"Found {match.sentence}: {len(frame)} pairs. The first ones:")
    for image, mask in zip(frame["image"][:5], frame["mask"][:5], strict=True):
        print(f"  {image}  <->  {mask or 'an empty mask'}")
    print("".join(f"{note}\n" for note in match.notes), end="")
    if warning:
        print(warning)


def warn_of_rare(kfold: np.ndarray, areas: np.ndarray, classes: tuple[str, ...]) -> None:
    """Warn of classes that only some folds have: the other folds cannot be scored on them, or never trained on them."""
    held_out = splits.numbered_folds(kfold)
    for index, name in enumerate(classes):
        shown = splits.numbered_folds(kfold[areas[:, index] > 0])
        if 0 < len(shown) < len(held_out):
            print(
                f"Warning: {len(shown)} of {len(held_out)} folds hold out an image with {name}; the others score none."
            )


def deliver(result: "pd.DataFrame", areas: np.ndarray, spec: DataSpec, about: dict[str, Any], path: Path) -> None:
    """Write the table, its JSON and the picture of its balance, and print where they are."""
    from tools import pictures

    balance = splits.balance(result, areas, spec.scored_names)
    write(result, path, {**about, "balance": balance, "data": spec.as_json()})
    print(console.table(balance))
    warn_of_rare(result["kfold"].to_numpy(), areas, spec.scored_names)
    picture = path.with_name("folds.png")
    pictures.balance(picture, result["kfold"].to_numpy(), areas, result["group"].to_numpy(), spec.scored_names)
    print(
        f"{len(result)} images in {result['group'].nunique()} groups, {about['strategy']} -> {path}\n"
        f"balance as a picture -> {picture}"
    )


def say_submission(settings: "settings_module.Settings", spec: DataSpec) -> None:
    """Print what the submission will look like, or why there can be none, before anything is trained."""
    from prediction import inference_job

    said = inference_job.outlook(settings, spec)
    if said:
        print(said)


@command
def main(argv: list[str] | None = None) -> None:
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    path, root, overwrite, tie = (
        Path(settings.TRAIN_FOLDS),
        Path(settings.INPUT),
        is_on(flags.OVERWRITE),
        is_on(flags.TIE),
    )
    table = flags.TABLE or (str(path) if not overwrite and users_own(path) else "")
    index = index_table.index(settings, table)
    frame, match = index.frame, index.match
    say_found(index)
    given = "kfold" in frame
    if given:
        splits.check(frame, Path(table or settings.INPUT))  # before the long decode
    if given and tie:
        raise UserError("TIE=1 moves copies into one fold, and these folds are given; remove the copies, or the folds.")
    hints = spec_of_data.hints_of(settings, frame, match)
    found = spec_of_data.find(list(frame["mask"]), list(frame["image"]), root, hints, settings.MAX_PIXELS)
    scanned = scan.scan_table(frame, root, found, settings.MAX_PIXELS)
    spec, areas = scanned.spec, scanned.areas
    print(spec_of_data.describe(found, spec, areas))
    pairs, plain = across_folds.find(frame, scanned, root, settings.MAX_PIXELS)
    if tie:
        frame["group"] = copies.tie(list(frame["group"]), pairs)
        print(f"Tied {sum(pair.sure for pair in pairs)} copies into the groups of their originals.")
    made_with = {
        "n_folds": settings.N_FOLDS,
        "seed": settings.FOLDS_SEED,
        "group": settings.GROUP,
        "layout": match.layout,
        "tie": tie,
        "task": spec.task,
        "classes": list(spec.classes),
        "values": spec.as_json()["colours"] or list(spec.values),
        "ignore": list(spec.ignore),
        "channels": spec.channels,
        **({"merge": settings.CLASSES} if settings.CLASSES else {}),
    }
    result, labeled = choose(frame, areas, settings, table=table, overwrite=overwrite, made_with=made_with)
    unsure = across_folds.refuse(result, pairs, given, plain)

    about = {
        "layout": match.layout,
        "dialect": hints.dialect,
        **({"form": match.form} if match.form else {}),
        "strategy": strategy(given, bool(table), len(spec.scored)),
        "made_with": None if table and given else made_with,
        "masks": found.evidence(),
        LABELED: labeled,
    }
    deliver(result, areas, spec, about, path)
    legend = mask_picture.draw(path.with_name("masks.png"), frame, areas, root, spec, settings.MAX_PIXELS)
    print(f"what the masks mean, as a picture ({legend}) -> {path.with_name('masks.png')}")
    say_submission(settings, spec)
    across_folds.show_unsure(result, unsure, root, spec, path.with_name("alike.csv"))
    print(following("train", flags, "FOLD=0"))


if __name__ == "__main__":
    sys.exit(main())
