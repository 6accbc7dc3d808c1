"""make train FOLD=0: one fold's network, trained and shipped as model.safetensors + model.json in its run folder."""

import contextlib
import functools
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import assembly
import launch
import locks
import provenance
import runs
import settings as settings_module
import shipping
import splits
from dataspec import DataSpec
from errors import UserError, command, listing
from stopping import Deadline, Stopped

FLAGS = {
    "FOLD": "which fold is held out: 0, 1, ..., or full (train on every row, validate on nothing)",
    "RESUME": "1: go on where the run was stopped, from checkpoints/last.ckpt, step by step as if it had not been",
    "OVERWRITE": "1: throw an existing run away and start again",
}
FIXED = ("data", "network", "training")  # sections that the folds of one experiment share
VARYING = ("SEED", "EXPERIMENT", "TRAIN_FOLDS")  # the seed and the experiment name the run; the table has its hash


def fixed_settings(settings: Any) -> dict[str, Any]:
    """What must be equal in all runs of an experiment."""
    shared = settings_module.snapshot(settings, FIXED)
    values = {name: value for name, value in shared.items() if name not in VARYING}
    return {
        **values,
        "folds_sha256": runs.sha256(Path(settings.TRAIN_FOLDS)),
        "data": assembly.data_spec(settings).as_json(),
    }


def fit(settings: Any, fold: str, resume: bool = False, overwrite: bool = False) -> Path:
    """Train one fold and write its run folder; returns it. Raises UserError, before the training wherever possible.

    A training that MAX_MINUTES ended has no model.json: `runs.resumable` says so. Stopped by Ctrl-C or SIGTERM it
    raises KeyboardInterrupt or SystemExit.
    """
    start = time.monotonic()
    folder = runs.run_folder(settings.LOGS, settings.EXPERIMENT, fold, settings.SEED)
    splits.read(Path(settings.TRAIN_FOLDS))  # refuses before the imports where there is no table
    refuse_what_does_nothing(settings, fold)
    import ranks
    from hardware import choose_device, choose_devices

    if settings.DEVICES > 1 and settings.NODES == 1 and ranks.environment() is None:
        have = choose_devices(settings.DEVICE)
        if have[0].startswith("cuda") and len(have) < settings.DEVICES:
            raise UserError(f"DEVICES={settings.DEVICES}, but this computer has {len(have)}: {', '.join(have)}.")
        _launch(settings, fold, resume, overwrite)
        return folder
    with ranks.group(settings.DEVICES, settings.NODES, choose_device(settings.DEVICE)) as cluster:
        try:
            _fit_as_rank(settings, folder, fold, resume, overwrite, start, cluster)
        except RuntimeError as error:
            if not ranks.lost_another(error):
                raise
            cure = "RESUME=1 goes on from the last checkpoint, if there is one"
            raise UserError(f"{launch.LOST}. {cure} ({folder}).") from error
    return folder


def _launch(settings: Any, fold: str, resume: bool, overwrite: bool) -> None:
    """Train in a process for each device; what they say and how they end is as for one."""
    flags = [f"FOLD={fold}", f"RESUME={int(resume)}", f"OVERWRITE={int(overwrite)}"]
    code = launch.run(Path(__file__), [*flags, *settings_module.as_overrides(settings)], settings.DEVICES)
    if code == 128 + signal.SIGINT:
        raise KeyboardInterrupt
    if code:
        raise SystemExit(code)  # rank zero has said why


@dataclass(frozen=True)
class Prepared:
    """What rank zero decided before a training, once for all ranks."""

    resume_from: Path | None
    identity: dict[str, Any]
    origin: dict[str, Any]


def _fit_as_rank(
    settings: Any, folder: Path, fold: str, resume: bool, overwrite: bool, start: float, cluster: Any
) -> None:
    """The training, as the only process or as one of several; rank zero checks, prepares and writes for all."""
    import ranks
    from hardware import choose_device, choose_precision
    from losses import Loss

    frame = splits.read(Path(settings.TRAIN_FOLDS))
    train_rows, valid_rows = assembly.fold_rows(settings, frame, fold)
    spec = assembly.data_spec(settings)
    device, loss = choose_device(settings.DEVICE), Loss(settings.LOSS, spec.task, spec.scored, len(spec.classes))
    precision, reason = choose_precision(settings.PRECISION, device)
    with contextlib.ExitStack() as held:
        alone = locks.alone(folder, "Wait for it, or give this one another EXPERIMENT=name or SEED.")
        ranks.first(lambda: held.enter_context(alone))  # in rank zero, which tells the others where it is refused
        batch = min(settings.TRAIN_BATCH_SIZE, len(train_rows))

        @functools.cache  # at most once, and after the checks that cost nothing
        def build() -> tuple[Any, Any]:
            built = assembly.network(settings, spec, batch)
            return built, assembly.loaders(settings, spec, frame, train_rows, valid_rows)

        prepared = ranks.first(lambda: _prepare(settings, folder, fold, device, precision, resume, overwrite, build))
        if prepared is None:
            if ranks.rank() == 0:
                print(f"{folder} is finished already; there is nothing to resume.")
                shipping.refuse_unlearned(settings, len(train_rows), shipping.last_dice(folder), folder)
            return
        network, data = build()
        where = f"{device}, {reason}{_shares(settings)} -> {folder}"
        if ranks.rank() == 0:
            _announce(settings, spec, fold, network, len(train_rows), len(valid_rows), where)
        module = assembly.module(settings, spec, network, loss)
        deadline = Deadline(60 * settings.MAX_MINUTES, start)
        trainer = _run(settings, spec, module, data, folder, device, precision, prepared, deadline, cluster)
        if trainer is not None and ranks.rank() == 0:
            shipping.ship(settings, spec, module, folder, fold, trainer, prepared.origin)


def _shares(settings: Any) -> str:
    """The arithmetic of several devices."""
    count = settings.DEVICES * settings.NODES
    if count == 1:
        return ""
    batch, windows = settings.TRAIN_BATCH_SIZE, settings.ACCUMULATE
    each = f"{batch // count} images on each of {count} devices x {windows} batches a step"
    return f"; {each} = {batch * windows} images a step, as on one"


def _prepare(
    settings: Any,
    folder: Path,
    fold: str,
    device: str,
    precision: str,
    resume: bool,
    overwrite: bool,
    build: Callable[[], tuple[Any, Any]],
) -> Prepared | None:
    """Check everything, make the cache, open the run folder; None where the run is finished already."""
    import checkpoints

    fixed = fixed_settings(settings)
    runs.check_run(folder, fixed, resume, overwrite, settings_module.DEFAULTS)
    if resume and (folder / runs.MODEL).is_file():
        return None
    resume_from = checkpoints.choose(folder / "checkpoints") if resume else None
    cache = build()[1].cache
    identity = {**fixed, "SEED": settings.SEED, "fold": fold, "data_sha256": cache.data_sha256}
    devices = settings.DEVICES * settings.NODES
    today = provenance.of_today(device, precision, devices, cache.data_sha256, fixed["folds_sha256"])
    origin = {"fold": fold, "settings": settings_module.snapshot(settings), **today}
    if resume_from is not None:
        checkpoints.refuse_another_run(resume_from, identity, settings_module.DEFAULTS)
        origin["sessions"] = _say_what_changed(folder, origin)
    runs.open_run(folder, fixed, resume)
    for suffix in (".csv", ".json"):  # with what the pixels mean, so that the folder can be run again by itself
        text = Path(settings.TRAIN_FOLDS).with_suffix(suffix).read_text(encoding="utf-8")
        runs.write_text((folder / runs.FOLDS).with_suffix(suffix), text)
    runs.write_json(folder / runs.ORIGIN, origin)
    return Prepared(resume_from, identity, origin)


def _say_what_changed(folder: Path, now: dict[str, Any]) -> list[list[str]]:
    """Code, packages or computer other than in the session before may round otherwise: said, not refused.

    Returns what changed from session to session so far, for run.json.
    """
    path = folder / runs.ORIGIN
    if not path.is_file():
        return []
    need = {"code": dict, "versions": dict, "computer": dict}
    then = runs.read_json(path, "Remove it: it is for make reproduce alone.", need)
    differ = provenance.differences(then, now)
    if differ:
        print(
            f"Since the last session of {folder} there changed:{listing(differ)}\nIts weights may be rounded otherwise."
        )
    return [*then.get("sessions", []), differ]


def refuse_what_does_nothing(settings: Any, fold: str) -> None:
    """Settings that contradict each other, or that nothing would come of. Raises UserError."""
    by_dice = {
        "CHECKPOINT=best": settings.CHECKPOINT == "best",
        "EARLY_STOPPING": settings.EARLY_STOPPING > 0,
        "SCHEDULE=plateau": settings.SCHEDULE == "plateau",
    }
    given = [name for name, on in by_dice.items() if on]
    if fold == "full" and given and not settings.OVERFIT:
        raise UserError(f"FOLD=full validates on nothing, so {' and '.join(given)} cannot go by it; leave it out.")
    if any(settings.CROP) and not all(settings.CROP):
        raise UserError(f"CROP={settings.CROP[0]},{settings.CROP[1]}: expected a height and a width, or 0,0 for none.")
    devices = settings.DEVICES * settings.NODES
    if settings.TRAIN_BATCH_SIZE % devices:
        near = -(-settings.TRAIN_BATCH_SIZE // devices) * devices
        raise UserError(
            f"TRAIN_BATCH_SIZE={settings.TRAIN_BATCH_SIZE} cannot be divided among {devices} devices; {near} can."
        )
    if settings.MIX != "none" and settings.TRAIN_BATCH_SIZE < 2:
        raise UserError(
            f"MIX={settings.MIX} mixes the images of a batch, and TRAIN_BATCH_SIZE=1 has one; take 2 or more."
        )
    if settings.FREEZE_ENCODER >= settings.EPOCHS:
        raise UserError(
            f"FREEZE_ENCODER={settings.FREEZE_ENCODER} of EPOCHS={settings.EPOCHS} would never train the encoder; "
            "take fewer."
        )


def _announce(settings: Any, spec: DataSpec, fold: str, network: Any, train: int, valid: int, where: str) -> None:
    """What is about to be trained, on what, and where it will lie, in one line."""
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    classes = "" if spec.task == "binary" else f"{spec.task}, {len(spec.classes)} classes; "
    held_out = f"{valid} held out" if not settings.OVERFIT else "and the same to validate on (OVERFIT: no honest score)"
    crops = f" in crops of {settings.CROP[0]} x {settings.CROP[1]}" if all(settings.CROP) else ""
    print(
        f"{settings.EXPERIMENT}, fold {fold}: {train} images to train on, {held_out}; "
        f"{classes}{settings.MODEL_NAME}, {millions:.1f} M parameters, {settings.IMAGE_SIZE[0]} x "
        f"{settings.IMAGE_SIZE[1]} px{crops}; {where}",
        flush=True,
    )


def _run(
    settings: Any,
    spec: DataSpec,
    module: Any,
    data: Any,
    folder: Path,
    device: str,
    precision: str,
    prepared: Prepared,
    deadline: Deadline,
    cluster: Any,
) -> Any:
    """Lightning's fit; returns the trainer, None where MAX_MINUTES ended it. Turns what a user can cause into words."""
    import torch

    import ranks
    import trainer as trainer_module

    size = settings.CROP if all(settings.CROP) else settings.IMAGE_SIZE
    several = ranks.size() > 1
    trainer = trainer_module.make(
        folder,
        epochs=settings.EPOCHS,
        device=device,
        precision=precision,
        accumulate=settings.ACCUMULATE,
        gradient_clip=settings.GRADIENT_CLIP,
        ema=settings.EMA,
        keep_best=settings.CHECKPOINT == "best",
        patience=settings.EARLY_STOPPING,
        freeze_encoder=settings.FREEZE_ENCODER,
        profiler=settings.PROFILER,
        logger=settings.LOGGER,
        hooks=_step_images(settings, spec, folder),
        limit=settings.LIMIT,
        held_out=len(data.valid_rows) > 0,
        resume_from=prepared.resume_from,
        identity=prepared.identity,
        checkpoint_minutes=settings.CHECKPOINT_MINUTES,
        deadline=deadline,
        cluster=cluster,
        nodes=settings.NODES,
        sync_batchnorm=bool(settings.SYNC_BATCHNORM),
        leaves_out=several
        and (settings.FREEZE_ENCODER > 0 or assembly.leaves_out(module.network, spec.channels, size)),
    )
    try:
        trainer.fit(module, datamodule=data, ckpt_path=prepared.resume_from)
    except torch.cuda.OutOfMemoryError as error:
        raise UserError(
            f"The GPU's memory is too small for TRAIN_BATCH_SIZE={settings.TRAIN_BATCH_SIZE} at {settings.IMAGE_SIZE}. "
            f"Halve it and double ACCUMULATE (now {settings.ACCUMULATE}), with OVERWRITE=1; make batch finds what fits."
        ) from error
    except (Stopped, SystemExit) as stopped:  # SystemExit: Lightning's answer to a second Ctrl-C
        return _say_stopped(settings, folder, trainer, stopped)
    finally:
        trainer_module.close(trainer)
    return trainer


def _say_stopped(settings: Any, folder: Path, trainer: Any, stopped: BaseException) -> None:
    """Where the training stands and how it goes on. Raises KeyboardInterrupt or SystemExit but for MAX_MINUTES."""
    at = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}, step {trainer.global_step}"
    whole = "RESUME=1 goes on from there"
    if isinstance(stopped, SystemExit):
        kept = runs.resumable(folder)
        whole = "RESUME=1 goes on from the last checkpoint" if kept else "There was no checkpoint yet; start again"
    number = getattr(stopped, "signal_number", signal.SIGINT)
    why = "" if number else f" because MAX_MINUTES={settings.MAX_MINUTES:g} are over"
    if trainer.is_global_zero:
        print(f"Stopped{why} in {at}. {whole} ({folder}).", flush=True)
    if number == signal.SIGINT:
        raise KeyboardInterrupt from stopped
    if number:
        raise SystemExit(128 + number) from stopped


def _step_images(settings: Any, spec: DataSpec, folder: Path) -> list[Any]:
    """The callback that draws the same few images after each epoch, [] where STEP_IMAGES=0."""
    if not settings.STEP_IMAGES:
        return []
    from step_images import StepImages

    return [StepImages(folder / "steps", spec, settings.STEP_IMAGES)]


@command
def main(argv: list[str] | None = None) -> None:
    launch.end_with_parent()
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    if not flags.FOLD:
        raise UserError(
            "Which fold? make train FOLD=0 (or python src/train.py --fold 0); FOLD=full trains on every row."
        )
    resume, overwrite = (settings_module.flag_is_on(flag) for flag in (flags.RESUME, flags.OVERWRITE))
    folder = fit(settings, flags.FOLD, resume, overwrite)
    if settings.DEVICES * settings.NODES > 1:
        import ranks

        started = ranks.environment()
        if started is None or started.global_rank() > 0:  # rank zero, which launch started, has said it
            return
    if runs.resumable(folder):
        print(f"Next: make train FOLD={flags.FOLD} RESUME=1, with the same settings")
    elif flags.FOLD == "full":
        print("Next: make inference FOLD=full, then make submission FOLD=full")
    else:
        print(f"Next: make tester FOLD={flags.FOLD}")


if __name__ == "__main__":
    sys.exit(main())
