"""Every check of make doctor in turn, on data that are decoded once."""

import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from checkup import data_checks, decoding, disk, environment, pairs, perfect
from checkup.findings import PROBLEM, WARNING, Finding, Report, problem, warning
from data import splits
from data.leak_audit import across_folds
from tools import run_folders
from tools.errors import UserError
from tools.flags import is_on, whole_numbers
from tools.names import check_name

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from checkup.training_checks import Work
    from data.dataspec import DataSpec
    from lightning_module import SegmentationModule
    from settings import Settings
    from tools.flags import Flags
    from tools.hardware import Precision

SAMPLE = 200
Take = Callable[[Iterable[Finding]], None]  # prints and keeps findings
Result = TypeVar("Result")


@dataclass(frozen=True)
class Examination:
    """What was looked at: the whole table, the rows of it that could be read, with their folds, and how they looked."""

    table: pairs.Table
    frame: "pd.DataFrame"
    scan: decoding.DoctorScan
    quick: bool

    @property
    def share(self) -> float:
        """Divide all pairs by those that were looked at."""
        return len(self.table.frame) / len(self.frame)


def examine_data(settings: "Settings", table: str, quick: bool, report: Report) -> tuple[Examination, float]:
    """Check images, masks and folds, and time decoding alone. Raises UserError where no pair can be read."""
    from scoring import score_rows

    scale = score_rows.scale(settings.METRIC, settings.MEASURES, settings.EMPTY)
    found, findings = pairs.find(settings, table)
    report.take("data", findings)
    frame, root = found.frame, Path(settings.INPUT)
    if quick:
        frame = pairs.sample(frame, SAMPLE)
    of_sample = f", a sample of {len(frame)} of {len(found.frame)}" if len(frame) < len(found.frame) else ""
    seen = perfect.Frame(settings.IMAGE_SIZE, settings.RESIZE)
    columns = list(zip(frame["image"], frame["mask"], strict=True))
    scan, seconds = decoding.scan_for_checks(columns, root, found.spec, seen, scale, settings.MAX_PIXELS)

    def take(checks: Iterable[Finding]) -> None:
        report.take("data", (_of_sample(finding, of_sample) for finding in checks))

    if found.made:
        scan = dataclasses.replace(scan, spec=found.spec)  # as make folds measured it
    take([data_checks.broken(scan, len(frame))])
    if not scan.pairs:
        raise UserError(f"{root}: not one of {len(frame)} pairs can be read.")
    frame = frame.iloc[scan.rows].reset_index(drop=True)
    take(data_checks.sizes(scan, seen, settings.TRAIN_BATCH_SIZE, all(settings.CROP)))
    take([data_checks.mask_values(scan, found.spec)])
    take(data_checks.masks(scan, found.spec))
    take(
        [
            data_checks.vanishing(scan, list(frame["image"]), seen, found.spec),
            data_checks.ceiling(scan, seen, scale),
        ]
    )
    frame = _check_folds(settings, found, frame, scan, take)
    checks, tested = data_checks.test_images(settings, scan.spec, scan, SAMPLE if quick else 0)
    report.take("data", (_of_sample(finding, f", a sample of at most {SAMPLE}" if quick else "") for finding in checks))
    return Examination(found, frame, scan, quick), data_checks.decoding_seconds(seconds, tested)


def _of_sample(finding: Finding, said: str) -> Finding:
    return dataclasses.replace(finding, check=f"{finding.check}{said}")


def _check_folds(
    settings: "Settings", table: pairs.Table, frame: "pd.DataFrame", scan: decoding.DoctorScan, take: Take
) -> "pd.DataFrame":
    """Check the folds and audit them for leaks; the frame with its folds, without them where there can be none."""
    whole, findings = pairs.with_folds(table, frame, scan.areas, settings)
    take(findings)
    if whole is None:
        return frame
    own = [place for place in range(len(whole)) if "for_fold" not in whole or whole["for_fold"].iloc[place] == ""]
    audited = whole.iloc[own].reset_index(drop=True)
    copies, _ = across_folds.find(audited, scan.only(own), Path(settings.INPUT), settings.MAX_PIXELS)
    take(data_checks.leaks(audited, copies, table.given))
    return whole


def try_training(settings: "Settings", examination: Examination, work: "Work", folder: Path, report: Report) -> None:
    """Build the network, look at the disk, and try loader, augmentation and a real step on a few rows."""
    from checkup import training_checks, trial
    from modeling.losses.loss_sum import Loss
    from tools import hardware
    from training import builders, trainer

    trainer.quieten()
    spec = examination.scan.spec
    size = min(settings.TRAIN_BATCH_SIZE, max(1, min(work.train)))
    loss = Loss(settings.LOSS, spec.task, spec.scored, len(spec.classes))
    device = hardware.choose_device(settings.DEVICE)
    network = builders.network(_without_download(settings), spec, size)
    room = list(_disk(settings, examination, spec, network, work, size))
    report.take("disk", room)
    if any(found.check == disk.SHARED_MEMORY and found.level == WARNING for found in room):
        settings = dataclasses.replace(settings, WORKERS=0)  # the trial does without, rather than with fewer
    rows = pairs.sample(examination.frame, trial.ROWS).reset_index(drop=True)
    cache = trial.small_cache(settings, rows, spec, folder)
    module = builders.module(settings, spec, network, loss)
    precision = _precision(settings, module, size, device, report)
    report.take("training", [training_checks.augmentation(settings, spec, module, cache, device)])
    batch = training_checks.first_batch(settings, spec, cache, size)
    findings, watch = training_checks.step(settings, module, batch, device, precision)
    report.take("training", findings)
    if watch:
        validation = trial.forward_seconds(module, batch["image"], device, precision)
        loading = trial.loader_seconds(settings, spec, cache, size)
        report.take(
            "training", training_checks.times(settings, work, size, watch.step_seconds, validation, loading, device)
        )


def _precision(
    settings: "Settings", module: "SegmentationModule", size: int, device: str, report: Report
) -> "Precision":
    """Return what the training will compute in; PRECISION=auto on a CPU is tried, unless the experiment has it."""
    from tools import hardware
    from training import builders, precision_trial

    if device != "cpu" or settings.PRECISION != "auto":
        return hardware.choose_precision(settings.PRECISION, device)[0]
    known = precision_trial.chosen(Path(settings.LOGS, settings.EXPERIMENT))
    if known:
        report.take("training", [Finding("precision", known.reason)])
        return known.precision
    trial = precision_trial.of_step(module, size, builders.input_size(settings))
    figures = {"seconds_an_image": {"32": trial.plain, "bf16": trial.bf16 if trial.finite else None}}
    report.take("training", [Finding("precision", trial.said, figures=figures)])
    return hardware.NAMES[trial.choice]


def _without_download(settings: "Settings") -> "Settings":
    """Return the same settings, with random weights where ImageNet's would have to be fetched."""
    import model_dispatcher

    without = dataclasses.replace(settings, ENCODER_WEIGHTS="none")
    try:
        weights = settings.ENCODER_WEIGHTS
        source = model_dispatcher.source_of_weights(settings.MODEL_NAME, weights, settings.WEIGHTS)
    except UserError:  # which is a finding already
        return without
    return without if source is None or source.kind == "hub" else settings


def _disk(
    settings: "Settings", examination: Examination, spec: "DataSpec", network: "nn.Module", work: "Work", size: int
) -> Iterator[Finding]:
    """Check disk and shared memory, from the rows and from the network's parameters."""
    from formats.resize import content_box
    from loading.datamodule import workers

    depth, shapes = spec.channels + spec.planes, [note.shape for note in examination.scan.notes]
    frames = [settings.IMAGE_SIZE if settings.RESIZE != "none" else content_box(s, s, "none")[2:] for s in shapes]
    pixels = int(sum(height * width for height, width in frames) * examination.share)
    weights = sum(value.nbytes for value in network.state_dict().values())
    yield from disk.writable(settings)
    yield from disk.space(settings, disk.needs(settings, pixels, depth, weights, len(work.folds) * work.seeds))
    largest = max(height * width for height, width in frames)
    cropped = settings.CROP[0] * settings.CROP[1] if all(settings.CROP) else largest
    valid = min(settings.VALID_BATCH_SIZE, max(work.valid)) * largest * depth
    yield disk.shared_memory(workers(settings.WORKERS), size * cropped * depth, valid)


def planned(settings: "Settings", frame: "pd.DataFrame", share: float, fold: str, seeds: str) -> "Work":
    """Plan the experiment's runs. Raises UserError for a fold that is not there, or seeds that are no numbers."""
    from checkup.training_checks import Work
    from training import builders
    from training.preparation import refuse_what_does_nothing

    folds = tuple(part.strip() for part in fold.split(",")) if fold else splits.fold_names(frame)
    rows = [builders.fold_rows(settings, frame, one) for one in folds]
    for one in folds:
        refuse_what_does_nothing(settings, one)
        builders.begun_from(settings, frame, one)
    grown = 1.0 if settings.OVERFIT else share
    return Work(
        folds,
        seeds_of(seeds),
        tuple(round(len(train) * grown) for train, _ in rows),
        tuple(round(len(valid) * grown) for _, valid in rows),
    )


def seeds_of(text: str) -> int:
    """Count the seeds that SEEDS=42,43 names. Raises UserError."""
    return len(whole_numbers("SEEDS", text)) if text else 1


def _experiment(settings: "Settings", made: bool) -> Iterator[Finding]:
    """Say whether the experiment's folder would refuse these settings, or has runs already."""
    from training.preparation import fixed_settings

    folder = Path(settings.LOGS, settings.EXPERIMENT)
    try:
        check_name("EXPERIMENT", settings.EXPERIMENT)
        if made:
            run_folders.check_experiment(folder, fixed_settings(settings), settings.defaults())
    except UserError as error:
        yield problem("experiment", str(error))
        return
    done = run_folders.finished_folds(settings.LOGS, settings.EXPERIMENT, settings.SEED)
    if done:
        yield warning(
            "experiment", f"{folder} has a finished fold {', '.join(done)}: make cv skips it, OVERWRITE=1 does not"
        )


def _attempt(report: Report, part: str, check: str, work: Callable[[], Result]) -> Result | None:
    """Return what `work` does; what it refuses is a problem of `part`, as the training would refuse it."""
    try:
        return work()
    except UserError as error:
        report.take(part, [problem(check, str(error))])
        return None


def check_all(settings: "Settings", flags: "Flags", report: Report) -> tuple[bool, float]:
    """Run every check in turn -> whether the folds table is there, and the seconds of decoding alone."""
    quick = is_on(flags.QUICK)
    lightning = environment.lightning()
    report.take("environment", [*environment.versions(settings), lightning])
    trusted = lightning.level != PROBLEM
    if trusted:  # what follows imports Lightning
        report.take("environment", environment.device(settings))
        report.take("environment", [environment.encoder_weights(settings)])
    examination, seconds = examine_data(settings, flags.TABLE, quick, report)
    if not trusted or "kfold" not in examination.frame:
        said = "not tried: " + ("Lightning is not to be imported" if not trusted else "there are no folds")
        report.take("disk", disk.writable(settings))
        report.take("training", [problem("training", said)])
        return examination.table.made, seconds
    report.take("training", _experiment(settings, examination.table.made))
    work = _attempt(
        report,
        "training",
        "settings",
        lambda: planned(settings, examination.frame, examination.share, flags.FOLD, flags.SEEDS),
    )
    if work:
        with tempfile.TemporaryDirectory(prefix="doctor") as folder:
            _attempt(
                report,
                "training",
                "network",
                lambda: try_training(settings, examination, work, Path(folder), report),
            )
    return examination.table.made, seconds
