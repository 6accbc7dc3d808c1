"""One fold's training, from settings to a shipped run folder, in one process or in one a device."""

import contextlib
import dataclasses
import functools
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import splits
from tools import distributed, locks, run_folders
from tools.errors import UserError
from tools.signals import Deadline, Stopped
from training import builders, launch, model_file, preparation, run_record, weights_origin
from training.preparation import Prepared

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment

    from lightning_module import SegmentationModule
    from loading.datamodule import MaskDataModule
    from modeling.losses.loss_sum import Loss
    from modeling.segmenter import Segmenter
    from settings import Settings
    from training.trainer import Hardware, Processes, Update


class FoldTraining:
    """One fold's training: its rows, data, network, loss and trainer, each made once, when it is first asked for.

    `run` prepares, fits and ships. Where several processes train the fold together, each has such an object, and rank
    zero's prepares and writes for all.
    """

    def __init__(self, settings: "Settings", fold: str, *, resume: bool = False, overwrite: bool = False) -> None:
        """Read the fold's rows and refuse settings that contradict each other. Raises UserError; imports no torch."""
        self.start = time.monotonic()
        settings = preparation.as_begun(settings)
        self.settings, self.fold, self.resume, self.overwrite = settings, fold, resume, overwrite
        self.folder = run_folders.run_folder(settings.LOGS, settings.EXPERIMENT, fold, settings.SEED)
        self.frame = splits.read(Path(settings.TRAIN_FOLDS))
        preparation.refuse_what_does_nothing(settings, fold)
        self.train_rows, self.valid_rows = builders.fold_rows(settings, self.frame, fold)
        self.spec = builders.data_spec(settings)
        self.is_rank_zero = False  # until it trains: who launches ranks is none of them

    def run(self) -> Path:
        """Train the fold, or launch the processes that do; returns its run folder.

        A training that MAX_MINUTES ended has no model.json (`run_folders.resumable`). Raises UserError, before the
        training wherever possible; stopped by Ctrl-C or SIGTERM KeyboardInterrupt or SystemExit.
        """
        from tools.hardware import choose_device

        settings = self.settings
        if settings.DEVICES > 1 and settings.NODES == 1 and distributed.environment() is None:
            self._launch()
            return self.folder
        with distributed.group(settings.DEVICES, settings.NODES, choose_device(settings.DEVICE)) as cluster:
            try:
                self._run_as_rank(cluster)
            except RuntimeError as error:
                if not distributed.lost_another(error):
                    raise
                cure = "RESUME=1 goes on from the last checkpoint, if there is one"
                raise UserError(f"{launch.LOST}. {cure} ({self.folder}).") from error
        return self.folder

    def _run_as_rank(self, cluster: "ClusterEnvironment | None") -> None:
        """Prepare, fit and ship, as the only process or as one of several, alone in the run folder."""
        self.is_rank_zero = distributed.rank() == 0
        # what cannot be is refused before anything is touched
        _ = self.hardware, self.loss, builders.frames(self.settings, self.spec)
        with self._alone_in_folder():
            prepared = distributed.on_rank_zero(self.prepare)
            if prepared is None:
                self._say_finished()
                return
            self.hardware = prepared.hardware
            if self.is_rank_zero:
                from training import announcement

                print(announcement.described(self), flush=True)
            trainer = self.trainer(prepared, cluster)
            ended = self.fit(trainer, prepared)
            if ended and self.is_rank_zero:
                model_file.ship(self, trainer, prepared.origin)

    @functools.cached_property
    def hardware(self) -> "Hardware":
        """What this process computes on."""
        return builders.hardware(self.settings)

    @functools.cached_property
    def data(self) -> "MaskDataModule":
        """The fold's loaders, from the cache, which is made where it is not there yet."""
        _ = self.network  # proven on a blank image, before hours of decoding
        return builders.loaders(self.settings, self.spec, self.frame, self.train_rows, self.valid_rows)

    @functools.cached_property
    def network(self) -> "Segmenter":
        """The network that MODEL_NAME names, from SEED and ENCODER_WEIGHTS or INIT."""
        settings, batch = self.settings, min(self.settings.TRAIN_BATCH_SIZE, len(self.train_rows))
        if self.resume and settings.INIT:  # all is in the checkpoint, and INIT's run may be gone
            settings = dataclasses.replace(settings, INIT="", ENCODER_WEIGHTS="none")
        return builders.network(settings, self.spec, batch, self.fold)

    @functools.cached_property
    def loss(self) -> "Loss":
        """The loss that LOSS names."""
        return builders.loss(self.settings, self.spec)

    @functools.cached_property
    def module(self) -> "SegmentationModule":
        """Network and loss with the optimizer, as Lightning trains them."""
        return builders.module(self.settings, self.spec, self.network, self.loss)

    @property
    def update(self) -> "Update":
        """What an optimizer step is made of."""
        from training.trainer import Update

        return Update(self.settings.ACCUMULATE, self.settings.GRADIENT_CLIP)

    def refuse_seen_weights(self) -> None:
        """Raise UserError where the weights that the network begins with have seen what the fold holds out."""
        builders.begun_from(self.settings, self.frame, self.fold)

    def prepare(self) -> Prepared | None:
        """Check what the run goes on from, make the cache, open the run folder; None where it is finished already."""
        from training import checkpoints

        settings, fixed = self.settings, preparation.fixed_settings(self.settings)
        run_folders.check_run(self.folder, fixed, self.resume, self.overwrite, settings.defaults())
        if self.resume and (self.folder / run_folders.MODEL).is_file():
            return None
        resume_from = checkpoints.choose(self.folder / "checkpoints") if self.resume else None
        recorded = preparation.recorded_origin(self.folder) if self.resume else None
        begun = builders.begun_from(settings, self.frame, self.fold, recorded)
        tables = weights_origin.tables(begun, builders.held_out(settings, self.frame, self.fold))
        if weights_origin.is_unknown(begun):
            print(f"Warning: {begun}. {preparation.UNKNOWN_ORIGIN}", flush=True)
        data_sha256 = self.data.cache.data_sha256
        identity = {**fixed, "SEED": settings.SEED, "fold": self.fold, "data_sha256": data_sha256}
        devices, hardware = settings.DEVICES * settings.NODES, self._settled_hardware()
        today = run_record.of_today(hardware.device, hardware.precision, devices, data_sha256, fixed["folds_sha256"])
        origin = {"fold": self.fold, "settings": settings.snapshot(), **today, **weights_origin.record(begun)}
        if resume_from is not None:
            checkpoints.refuse_another_run(resume_from, identity, settings.defaults())
            origin["sessions"] = preparation.say_what_changed(self.folder, origin)
        run_folders.open_run(self.folder, fixed, self.resume)
        preparation.write_record(self.folder, Path(settings.TRAIN_FOLDS), tables, origin)
        return Prepared(hardware, resume_from, identity, origin)

    def _settled_hardware(self) -> "Hardware":
        """Return the hardware with the precision of the experiment, which PRECISION=auto on a CPU tries first."""
        from training import precision_trial

        settings = self.settings
        if settings.PRECISION != "auto" or self.hardware.device != "cpu":
            return self.hardware
        others = (path for path in self.folder.parent.glob(f"*/{run_folders.MODEL}") if path.parent != self.folder)
        batch = min(settings.TRAIN_BATCH_SIZE, len(self.train_rows)) // (settings.DEVICES * settings.NODES)
        size = builders.input_size(settings)
        return precision_trial.settle(
            self.folder,
            self.overwrite and not any(others),
            lambda: precision_trial.of_step(self.module, max(1, batch), size),
        )

    def logged(self, prepared: Prepared) -> dict[str, Any]:
        """Return what every logger is told of the run: its fold, and the settings that its experiment shares."""
        plain = {name: value for name, value in prepared.identity.items() if name not in ("data", "fold")}
        return {"fold": self.fold, **{name: list(value) if isinstance(value, tuple) else value
                                      for name, value in plain.items()}}  # fmt: skip

    def trainer(self, prepared: Prepared, cluster: "ClusterEnvironment | None") -> "pl.Trainer":
        """Return Lightning's Trainer with the settings' callbacks, writing into the run folder."""
        from training import trainer as trainer_module

        settings = self.settings
        hooks: tuple[pl.Callback, ...] = ()
        if settings.STEP_IMAGES:
            from training.step_images import StepImages

            names = list(self.frame["image"])
            hooks = (StepImages(self.folder / "steps", self.module.validation, settings.STEP_IMAGES, names),)
        return trainer_module.make(
            self.folder,
            trainer_module.Length(settings.EPOCHS, settings.LIMIT, held_out=len(self.valid_rows) > 0),
            update=self.update,
            hardware=self.hardware,
            weights=trainer_module.Weights(
                settings.EMA, settings.FREEZE_ENCODER, settings.CHECKPOINT == "best", settings.EARLY_STOPPING
            ),
            reports=trainer_module.Reports(settings.LOGGER, settings.PROFILER, hooks, self.logged(prepared)),
            resuming=trainer_module.Resuming(
                prepared.resume_from,
                prepared.identity,
                settings.CHECKPOINT_MINUTES,
                Deadline(60 * settings.MAX_MINUTES, self.start),
            ),
            processes=self._processes(cluster),
        )

    def fit(self, trainer: "pl.Trainer", prepared: Prepared) -> bool:
        """Run Lightning's fit; returns False where MAX_MINUTES ended it. Turns what a user can cause into words."""
        import torch

        from training import loggers

        settings = self.settings
        try:
            trainer.fit(self.module, datamodule=self.data, ckpt_path=prepared.resume_from)
        except torch.cuda.OutOfMemoryError as error:
            raise UserError(
                f"The GPU's memory is too small for TRAIN_BATCH_SIZE={settings.TRAIN_BATCH_SIZE} at "
                f"{settings.IMAGE_SIZE}. Halve it and double ACCUMULATE (now {settings.ACCUMULATE}), with OVERWRITE=1; "
                "make batch finds what fits."
            ) from error
        except (Stopped, SystemExit) as stopped:  # SystemExit: Lightning's answer to a second Ctrl-C
            self._say_stopped(trainer, stopped)
            return False
        finally:
            loggers.close(trainer)
        return True

    def _launch(self) -> None:
        """Train in a process for each device; what they say and how they end is as for one."""
        from tools.hardware import choose_devices

        settings, have = self.settings, choose_devices(self.settings.DEVICE)
        if have[0].startswith("cuda") and len(have) < settings.DEVICES:
            raise UserError(f"DEVICES={settings.DEVICES}, but this computer has {len(have)}: {', '.join(have)}.")
        flags = [f"FOLD={self.fold}", f"RESUME={int(self.resume)}", f"OVERWRITE={int(self.overwrite)}"]
        code = launch.run(Path(__file__).parents[1] / "train.py", [*flags, *settings.overrides()], settings.DEVICES)
        if code == 128 + signal.SIGINT:
            raise KeyboardInterrupt
        if code:
            raise SystemExit(code)  # rank zero has said why

    @contextlib.contextmanager
    def _alone_in_folder(self) -> Iterator[None]:
        """Keep other trainings out of the run folder. Rank zero has the lock, and tells the others where it gets none.

        Raises UserError.
        """
        lock = locks.exclusive(self.folder, "Wait for it, or give this one another EXPERIMENT=name or SEED.")
        with contextlib.ExitStack() as held:
            distributed.on_rank_zero(functools.partial(held.enter_context, lock))
            yield

    def _processes(self, cluster: "ClusterEnvironment | None") -> "Processes":
        """Return how this process trains with others."""
        from training.trainer import Processes, leaves_out

        settings, size = self.settings, builders.input_size(self.settings)
        unused = distributed.size() > 1 and (
            settings.FREEZE_ENCODER > 0 or leaves_out(self.module.network, self.spec.channels, size)
        )
        return Processes(cluster, settings.NODES, bool(settings.SYNC_BATCHNORM), unused)

    def _say_finished(self) -> None:
        """Say that there is nothing to resume. Raises UnlearnedError where OVERFIT's test failed."""
        if self.is_rank_zero:
            print(f"{self.folder} is finished already; there is nothing to resume.")
            dice = model_file.last_dice(self.folder)
            model_file.refuse_unlearned(self.settings, len(self.train_rows), dice, self.folder)

    def _say_stopped(self, trainer: "pl.Trainer", stopped: BaseException) -> None:
        """Say where it stands and how it goes on. Raises KeyboardInterrupt or SystemExit but for MAX_MINUTES."""
        at = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}, step {trainer.global_step}"
        again = "RESUME=1 goes on from there"
        if isinstance(stopped, SystemExit):
            kept = run_folders.resumable(self.folder)
            again = "RESUME=1 goes on from the last checkpoint" if kept else "There was no checkpoint yet; start again"
        number = getattr(stopped, "signal_number", signal.SIGINT)
        why = "" if number else f" because MAX_MINUTES={self.settings.MAX_MINUTES:g} are over"
        if trainer.is_global_zero:
            print(f"Stopped{why} in {at}. {again} ({self.folder}).", flush=True)
        if number == signal.SIGINT:
            raise KeyboardInterrupt from stopped
        if number:
            raise SystemExit(128 + number) from stopped
