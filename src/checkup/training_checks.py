"""Whether the training would learn: augmentation, one real step, its memory, and how long the experiment will take."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checkup import memory, trial
from checkup.disk import gigabytes
from checkup.findings import PROBLEM, Finding, problem, warning
from data.dataspec import DataSpec
from loading import datamodule
from tools.errors import UserError
from training import batch_size

if TYPE_CHECKING:
    from lightning_module import SegmentationModule
    from loading.cache import Cache
    from settings import Settings
    from tools.hardware import Precision

KERNEL_HOURS = 12  # after which Kaggle ends a kernel
SMALL = 2  # images of the step from which a CPU's memory is foreseen


@dataclass(frozen=True)
class Work:
    """What an experiment is: its runs, and of each the images to train and to validate on."""

    folds: tuple[str, ...]
    seeds: int
    train: tuple[int, ...]  # images, for each fold
    valid: tuple[int, ...]


def augmentation(
    settings: "Settings", spec: DataSpec, module: "SegmentationModule", cache: "Cache", device: str
) -> Finding:
    """Say whether the augmentation is random: epochs and workers differ, the same key repeats."""
    textures = [float(cache[row][0].std()) for row in range(len(cache))]
    row = int(np.argmax(textures))
    drawn = settings.AUGMENT != "none" or all(settings.CROP)
    if not drawn:
        return Finding("augmentation", "AUGMENT=none: every epoch shows the same images")
    if textures[row] < 1:
        return warning("augmentation", "the pictures that were tried show one color; they cannot tell")
    if module.augment is not None and settings.AUGMENT_ON == "device" and settings.AUGMENT != "none":
        sample = next(iter(trial.loader(settings, spec, trial.Repeated(cache, [row], 8), 8, 0)))
        wrong = trial.frozen_on_device(module.augment, sample, settings.SEED, device)
        tried = "two epochs and two steps differ, the same step repeats (on the device)"
    else:
        wrong = trial.frozen_on_cpu(settings, spec, cache, row)
        among = "two epochs, two samples and two loader processes differ"
        among = among if min(2, datamodule.workers(settings.WORKERS)) == 2 else "two epochs and two samples differ"
        tried = f"{among}, the same epoch repeats"
    if wrong:
        return problem("augmentation", f"AUGMENT={settings.AUGMENT} is not random as it should be", wrong)
    return Finding("augmentation", f"AUGMENT={settings.AUGMENT}: {tried}")


def first_batch(settings: "Settings", spec: DataSpec, cache: "Cache", size: int) -> trial.Batch:
    """Load a training batch of `size` images, as the loader gives it."""
    return next(iter(trial.loader(settings, spec, trial.Repeated(cache, trial.rows(settings, cache), size), size, 0)))


def step(
    settings: "Settings", module: "SegmentationModule", batch: trial.Batch, device: str, precision: "Precision"
) -> tuple[list[Finding], trial.Watch | None]:
    """Try a step: its loss, gradients and memory; and the watch that timed some, None where none could be made."""
    size = len(batch["image"])
    seen: list[trial.Watch] = []

    def work() -> None:
        warm_up = 3 if device == "cuda" else 1
        seen.append(trial.steps(settings, module, batch, device, precision, warm_up, 40))

    try:
        if device != "cuda":
            too_large = _foreseen(settings, module, batch, device, precision)
            if too_large:
                return [too_large], None
        findings = _on_gpu(work, size) if device == "cuda" else [_on_cpu(work, size)]
    except UserError as error:  # the module's own sentence about a loss that is no number
        said = str(error).split(" RESUME")[0]
        cure = "PRECISION=bf16 or 32, or a lower LR" if precision.startswith("16") else "look at make samples, lower LR"
        return [problem("step", f"{said} ({precision}). {cure}")], None
    if not seen:
        return findings, None
    finite = _finite(seen[0], precision)
    return [finite, *findings], None if finite.level == PROBLEM else seen[0]


def _finite(watch: trial.Watch, precision: str) -> Finding:
    bad = [names for names in watch.not_finite if names]
    tolerated = precision.startswith("16") and len(bad) < len(watch.not_finite)
    count = len(watch.not_finite)
    if bad and not tolerated:
        where = f"of {bad[0][0]}" + (f" and {len(bad[0]) - 1} more" if len(bad[0]) > 1 else "")
        cure = "PRECISION=bf16 or 32" if precision.startswith("16") else "a lower LR, another LOSS"
        text = f"gradients are not finite in {len(bad)} of {count} steps ({where}), {precision}. {cure}"
        return problem("step", text, figures={"losses": watch.losses})
    scaled = f"; the scaler of 16 bits skipped {len(bad)}" if bad else ""
    text = f"loss {watch.losses[0]:.4f}, loss and gradients finite in {precision}, {count} steps looked at{scaled}"
    return Finding("step", text, figures={"losses": watch.losses})


def _on_gpu(work: Callable[[], None], size: int) -> list[Finding]:
    import torch

    torch.cuda.reset_peak_memory_stats()
    total = torch.cuda.get_device_properties(0).total_memory
    if not batch_size.fits_memory(work, torch.cuda.empty_cache):
        cure = "Halve it and double ACCUMULATE; make batch finds what fits"
        return [problem("memory", f"TRAIN_BATCH_SIZE={size} does not fit into {gigabytes(total)}. {cure}")]
    peak = torch.cuda.max_memory_reserved()
    text = f"TRAIN_BATCH_SIZE={size} was tried: {gigabytes(peak)} of {gigabytes(total)}"
    figures = {"peak_bytes": peak, "total_bytes": total}
    if peak > 0.95 * total:
        return [warning("memory", f"{text}, hardly any is left: a little less, see make batch", figures=figures)]
    return [Finding("memory", text, figures=figures)]


def _foreseen(
    settings: "Settings", module: "SegmentationModule", batch: trial.Batch, device: str, precision: "Precision"
) -> Finding | None:
    """Foresee from a step of two images that the batch would not fit: a system kills what is too large."""
    size, free = len(batch["image"]), memory.free()
    small = {name: values[:SMALL] for name, values in batch.items()}
    taken = memory.growth(lambda: trial.steps(settings, module, small, device, precision, 0, 1))
    if taken is None or free is None:
        return None
    fixed = 4 * sum(value.nbytes for value in module.parameters())  # copy, gradients, moments; the average is small
    wanted = fixed + max(0, taken - fixed) * size / SMALL
    if wanted <= 0.9 * free:
        return None
    text = f"a step of {size} images would take some {gigabytes(wanted)}, and {gigabytes(free)} are free"
    return problem("memory", f"{text}; not tried. Smaller TRAIN_BATCH_SIZE, larger ACCUMULATE")


def _on_cpu(work: Callable[[], None], size: int) -> Finding:
    free = memory.free()
    taken = memory.growth(work)
    if taken is None or free is None:
        return Finding("memory", f"TRAIN_BATCH_SIZE={size} was tried and fits; how much it took is not known here")
    text = f"TRAIN_BATCH_SIZE={size} was tried: {gigabytes(taken)} at its peak, {gigabytes(free)} were free"
    figures = {"peak_bytes": taken, "free_bytes": free}
    if taken > 0.8 * free:
        return warning("memory", f"{text}: hardly any is left", figures=figures)
    return Finding("memory", text, figures=figures)


def times(
    settings: "Settings", work: Work, size: int, network: float, validation: float, loading: float, device: str
) -> Iterator[Finding]:
    """Estimate the minutes of an epoch and of the experiment, and what limits.

    network: seconds of a step; validation: of an image without gradients; loading: of a batch.
    """
    processes = datamodule.workers(settings.WORKERS)
    # loader processes work beside a GPU; on a CPU they share the cores with the network, so that times add up
    beside = device != "cpu" and processes > 0
    a_batch = max(network, loading) if beside else network + loading
    # validation loads without augmentation, which is never slower
    an_image = max(validation, loading / size) if beside else validation + loading / size
    epochs = [_epoch(settings, train, valid, size, a_batch, an_image) for train, valid in _pairs(work)]
    runs = len(epochs) * work.seeds
    whole = sum(epochs) * settings.EPOCHS * work.seeds
    share = loading / (network + loading)
    limit = "the network" if network >= loading else "the loader"
    said = f"the network takes {network:.3g} s a batch of {size} ({size / network:.3g} images/s), "
    said += f"the loader {loading:.3g} s with {processes} processes: {limit} limits"
    figures = {"network_seconds": network, "loader_seconds": loading, "validation_seconds_an_image": validation}
    if share > 0.5 and device != "cpu":
        yield warning("speed", f"{said}. More WORKERS, AUGMENT_ON=device or a simpler AUGMENT", figures=figures)
    else:
        yield Finding("speed", said, figures=figures)
    longest = max(epochs) * settings.EPOCHS
    text = f"about {spoken(max(epochs))} an epoch, {spoken(whole)} for {runs} runs of {settings.EPOCHS} epochs"
    figures = {"epoch_seconds": max(epochs), "experiment_seconds": whole, "runs": runs}
    limited = settings.MAX_MINUTES and longest > 60 * settings.MAX_MINUTES
    if longest > 3600 * KERNEL_HOURS or limited:
        ends = (
            f"MAX_MINUTES={settings.MAX_MINUTES:g} stops it" if limited else f"Kaggle ends a kernel at {KERNEL_HOURS} h"
        )
        yield warning("time", f"{text}; a run takes {spoken(longest)}, and {ends}: RESUME=1 goes on", figures=figures)
    else:
        yield Finding("time", f"{text} (the cache, imports and scoring come on top)", figures=figures)


def _pairs(work: Work) -> list[tuple[int, int]]:
    return list(zip(work.train, work.valid, strict=True))


def _epoch(settings: "Settings", train: int, valid: int, size: int, a_batch: float, an_image: float) -> float:
    """Estimate the seconds of an epoch."""
    batches, valid_batches = max(1, train // size), math.ceil(valid / settings.VALID_BATCH_SIZE)
    if settings.LIMIT:
        batches = min(batches, settings.LIMIT)
        valid = min(valid, settings.LIMIT * settings.VALID_BATCH_SIZE) if valid_batches else 0
    return batches * a_batch + valid * an_image


def spoken(seconds: float) -> str:
    """Write seconds for people: 40 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 5400 else f"{seconds / 3600:.3g} h"
