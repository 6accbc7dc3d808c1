"""The audit between two tables, wherever each lies: which pictures of one are copies of pictures of the other."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data import level_statistics
from data.leak_audit import copies, spectra
from formats import images
from formats.decode import decode
from tools import console, threads
from tools.errors import UserError

NO_LIMIT = 10**10  # pixels: whoever wrote the tables has decoded these files


def copied(now: Sequence[Path], then: Sequence[Path]) -> dict[int, int]:
    """Return which of `now` are surely copies of one of `then`: place in `now` -> place in `then`.

    Equal, recompressed, resized, turned, mirrored, brightened or cropped a little, as across the folds of one table.
    What cannot be read is left out. Each file is decoded once, and what looks alike once more.
    """
    paths = [*now, *then]
    jobs = threads.map_ahead(paths, _thumbnail, 2 * threads.CORES)
    thumbnails = list(console.track(jobs, len(paths), "looking for copies"))
    places = [place for place, thumbnail in enumerate(thumbnails) if thumbnail is not None]
    sides = ["now" if place < len(now) else "then" for place in places]
    if len(set(sides)) < 2:
        return {}
    kept = np.array([thumbnails[place] for place in places])
    pairs = copies.copies(kept, lambda place: _picture(paths[places[place]]), sides)
    return {places[pair.first]: places[pair.second] - len(now) for pair in pairs if pair.sure}


def _thumbnail(path: Path) -> np.ndarray | None:
    try:
        return spectra.thumbnail(_picture(path))
    except UserError:
        return None


def _picture(path: Path) -> np.ndarray:
    """Decode to uint8 (H, W, 3), or to as many channels as a stack or a file of bands has. Raises UserError."""
    if "{z}" in path.name:
        levels = images.read_levels(path, NO_LIMIT, len(images.slices(path)))
    else:
        samples = decode(path, NO_LIMIT)
        levels = samples.values if samples.kind == "bands" else samples.colors()
    return level_statistics.eight_bits(levels)
