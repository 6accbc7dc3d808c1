"""Room for what the experiment writes: the cache, the checkpoints of all runs, and the loader's shared memory."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from checkup.findings import Finding, problem, warning

if TYPE_CHECKING:
    from settings import Settings

MOMENTS = {"sgd": 1}  # tensors that an optimizer keeps beside each weight; Adam's kin keeps two
SHARED_MEMORY = "shared memory"  # the check's name


@dataclass(frozen=True)
class Needs:
    """Bytes that an experiment of `runs` runs writes."""

    cache: int
    checkpoints: int
    runs: int

    @property
    def total(self) -> int:
        return self.cache + self.checkpoints


def needs(settings: "Settings", pixels: int, depth: int, weights: int, runs: int) -> Needs:
    """Count what is to be written: `pixels` of all rows in the network's frame, each `depth` bytes; `weights` in bytes.

    A run keeps two checkpoints (weights, the optimizer's moments, averaged weights) and the shipped weights; a third
    checkpoint is there while it is written, one run at a time.
    """
    average = 1 if settings.EMA else 0
    checkpoint = weights * (1 + MOMENTS.get(settings.OPTIMIZER, 2) + average)
    shipped = weights * (2 if settings.CHECKPOINT == "best" else 1)
    return Needs(pixels * depth, runs * (2 * checkpoint + shipped) + checkpoint, runs)


def existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that is there."""
    path = path.absolute()
    return path if path.exists() else existing(path.parent)


def writable(settings: "Settings") -> Iterator[Finding]:
    """Say whether OUTPUT and LOGS can be written, tried with a folder that is gone at once."""
    for name in ("OUTPUT", "LOGS"):
        place = existing(Path(getattr(settings, name)))
        try:
            with tempfile.TemporaryDirectory(dir=place, prefix=".doctor"):
                pass
        except OSError as error:
            why = error.strerror or str(error)
            yield problem(name, f"{getattr(settings, name)} cannot be written: {place}: {why}. {name}=another folder")
            continue
        yield Finding(name, f"{getattr(settings, name)} can be written")
    if not os.access(settings.INPUT, os.W_OK):
        yield Finding("INPUT", f"{settings.INPUT} is read-only, which is fine: nothing is written there")


def space(settings: "Settings", wanted: Needs) -> Iterator[Finding]:
    """Compare the free disk with all of it; OUTPUT and LOGS may lie on one disk."""
    places = {"cache": existing(Path(settings.OUTPUT)), "checkpoints": existing(Path(settings.LOGS))}
    one_disk = len({place.stat().st_dev for place in places.values()}) == 1
    sizes = {"cache": wanted.cache, "checkpoints": wanted.checkpoints}
    said = f"the cache takes {gigabytes(wanted.cache)}, {wanted.runs} runs' checkpoints {gigabytes(wanted.checkpoints)}"
    if one_disk:
        yield _room("disk", f"{said} (held-out predictions come on top)", wanted.total, places["cache"])
        return
    for name, place in places.items():
        yield _room(f"disk for the {name}", f"takes {gigabytes(sizes[name])}", sizes[name], place)


def _room(check: str, said: str, wanted: int, place: Path) -> Finding:
    free = shutil.disk_usage(place).free
    figures = {"needed_bytes": wanted, "free_bytes": free}
    text = f"{said}; {gigabytes(free)} are free"
    if free < wanted:
        cure = "Free some, or OUTPUT=folder and LOGS=folder on another disk"
        return problem(check, f"{text} below {place}. {cure}", figures=figures)
    if free < 1.2 * wanted:
        return warning(check, f"{text} below {place}, hardly more", figures=figures)
    return Finding(check, text, figures=figures)


def shared_memory(workers: int, train_bytes: int, valid_bytes: int) -> Finding:
    """Say whether /dev/shm holds the batches that loader processes have ready; containers often give it 64 MB."""
    from tools.hardware import SHARED, fitting_processes

    check = SHARED_MEMORY
    if not workers or not SHARED.is_dir():
        return Finding(check, "not used: no loader processes" if not workers else "no /dev/shm on this system")
    fitting, instead = fitting_processes(workers, train_bytes, valid_bytes)
    figures = {"processes": fitting, "free_bytes": shutil.disk_usage(SHARED).free}
    if instead:
        return warning(check, instead, figures=figures)
    said = f"{workers} loader processes fit into /dev/shm; {gigabytes(figures['free_bytes'])} are free"
    return Finding(check, said, figures=figures)


def gigabytes(count: float) -> str:
    """Write bytes for people: 1.2 GB, 34 MB."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e3:.0f} kB"
