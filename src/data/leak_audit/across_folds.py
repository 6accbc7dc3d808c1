"""The audit's pairs over the folds of a table: copies are refused, what only looks alike is shown to a person."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.dataspec import DataSpec
from data.leak_audit import copies
from data.scan import DataScan, Notes
from formats import images
from tools import console
from tools.errors import UserError, listing
from tools.files import write_text

if TYPE_CHECKING:
    import pandas as pd


def find(frame: "pd.DataFrame", scan: DataScan[Notes], root: Path, max_pixels: int) -> tuple[list[copies.Pair], int]:
    """Find all near copies among images of different groups, with progress; `frame` has a row for each scanned pair.

    Pictures of one color show nothing that a model could know again: they are left out, and their number is returned.
    """
    names = list(frame["image"])

    def read(row: int) -> np.ndarray:
        levels = scan.pairs[row].levels
        if levels is None:
            return scan.spec.read_image(root / names[row], max_pixels)
        return levels if levels.dtype == np.uint8 else images.through_window(levels, scan.spec.window)

    def track(pairs: Iterable[copies.Pair | None], total: int) -> Iterator[copies.Pair | None]:
        return console.track(pairs, total, "comparing")

    thumbnails = scan.thumbnails
    plain = {int(row) for row in copies.without_texture(thumbnails) if _is_plain(read(row))}
    rows = [row for row in range(len(names)) if row not in plain]
    groups = [frame["group"].iloc[row] for row in rows]
    pairs = copies.copies(thumbnails[rows], lambda at: read(rows[at]), groups, track)
    return [replace(pair, first=rows[pair.first], second=rows[pair.second]) for pair in pairs], len(plain)


def _is_plain(image: np.ndarray) -> bool:
    """Say whether an image (H, W, C) is of one color."""
    return bool((image == image[:1, :1]).all())


def lines(frame: "pd.DataFrame", pairs: list[copies.Pair]) -> list[str]:
    """Describe each pair in a line: both images with their folds, and how they are alike."""
    names, folds = list(frame["image"]), list(frame["kfold"])
    return [
        f"{names[pair.first]} (fold {folds[pair.first]}) and {names[pair.second]} (fold {folds[pair.second]}): "
        f"{pair.how}"
        for pair in pairs
    ]


def refuse(frame: "pd.DataFrame", pairs: list[copies.Pair], given: bool, plain: int = 0) -> list[copies.Pair]:
    """Raise UserError for copies that lie in different folds; returns those that only look alike.

    plain: how many pictures of one color were left out. given: the folds came with the data or the user's table, and
    cannot be changed here.
    """
    over_folds = copies.across(pairs, frame["kfold"].tolist())
    sure = [pair for pair in over_folds if pair.sure]
    if sure:
        shown = listing(lines(frame, sure))
        raise UserError(
            f"{len(sure)} images lie in two folds, so a model would be scored on what it has seen:{shown}\n"
            + (
                "Remove the copies, or give them one fold in a table of your own."
                if given
                else "Tie them into one group: make folds TIE=1 (or remove the copies)."
            )
        )
    inside = sum(pair.sure for pair in pairs)
    same_fold = f"; {inside} pairs of copies, each within one fold" if inside else ""
    print(
        "Leak audit: no group, and no copy of an image (turned, mirrored, resized, recompressed, brightened or cropped "
        f"a little), in two folds{same_fold}{f'; {plain} pictures of one color are left out' * bool(plain)}."
    )
    return [pair for pair in over_folds if not pair.sure]


def show_unsure(frame: "pd.DataFrame", unsure: list[copies.Pair], root: Path, spec: DataSpec, path: Path) -> None:
    """Write pairs that look alike over folds as a list and a picture; nothing where there is none."""
    for old in (path, path.with_suffix(".png")):
        old.unlink(missing_ok=True)
    if not unsure:
        return
    import pandas as pd

    from tools import pictures

    unsure = sorted(unsure, key=lambda pair: -pair.score)
    rows = [
        {
            "first": frame["image"][pair.first],
            "second": frame["image"][pair.second],
            "first_fold": frame["kfold"][pair.first],
            "second_fold": frame["kfold"][pair.second],
            "how": pair.how,
            "agreement": round(pair.score, 4),
        }
        for pair in unsure
    ]
    write_text(path, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))
    shown = [
        (
            f"{Path(row['first']).name} (fold {row['first_fold']}), "
            f"{Path(row['second']).name} (fold {row['second_fold']}): {row['how']}, {row['agreement']:.2f}",
            [pictures.as_rgb(spec.read_image(root / row[name], 10**10)) for name in ("first", "second")],
        )
        for row in rows[:24]
    ]
    pictures.sheet(
        path.with_suffix(".png"), shown, ["fold a", "fold b"], width=360, note="alike, or the same? judge yourself"
    )
    print(
        f"{len(unsure)} pairs of images in two folds look alike; whether they are one scene, a person has to say: "
        f"{path.with_suffix('.png')} ({path}). GROUP or a table of your own keeps them together."
    )
