"""What a training leaves: model.safetensors and model.json, all that scoring reads, and what it reached."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.dataspec import DataSpec
from tools import run_folders
from tools.errors import UnlearnedError, UserError
from tools.files import sha256, write_json
from training import builders, weights_origin

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from lightning_module import SegmentationModule
    from settings import Settings

OVERFIT_DICE = 0.9  # what any network reaches on images that it may learn by heart


def ship(
    settings: "Settings",
    spec: DataSpec,
    module: "SegmentationModule",
    folder: Path,
    fold: str,
    trainer: "pl.Trainer",
    origin: dict[str, Any],
) -> None:
    """Write model.safetensors and model.json, all that scoring and prediction read, and say what was reached."""
    import torch

    from modeling import segmenter
    from training import callbacks

    dice, network = trainer.callback_metrics.get("valid_dice"), callbacks.averaged_network(trainer, module)
    if dice is None:  # resumed after its last epoch
        dice = last_dice(folder)
    weights = "last epoch" + (f", moving average {settings.EMA}" if settings.EMA else "")
    if settings.CHECKPOINT == "best":
        best = next(hook for hook in trainer.callbacks if isinstance(hook, callbacks.BestWeights))
        if best.epoch < 0:
            raise UserError(
                f"CHECKPOINT=best: no epoch of {folder} has a validation Dice (EMPTY=skip leaves out images whose mask "
                "and prediction are empty). Train with CHECKPOINT=last or EMPTY=one, and OVERWRITE=1."
            )
        from modeling import segmenter

        segmenter.load_shipped(network, best.weights)
        weights, dice = f"epoch {best.epoch + 1}, chosen on this fold", best.best
    segmenter.save_network(network, folder / run_folders.WEIGHTS)
    hook = next(hook for hook in trainer.callbacks if isinstance(hook, callbacks.Checkpoints))
    minutes = hook.seconds / 60
    mean, std = builders.normalisation(settings, spec)
    about = {
        "experiment": settings.EXPERIMENT,
        "fold": fold,
        "seed": settings.SEED,
        "overfit": settings.OVERFIT,
        "data": spec.as_json(),
        "network": {
            "MODEL_NAME": settings.MODEL_NAME,
            "MAX_FEATURES": settings.MAX_FEATURES,
            "IMAGE_SIZE": settings.IMAGE_SIZE,
            "RESIZE": settings.RESIZE,
            "MODEL_MEAN": mean,
            "MODEL_STD": std,
        },
        "weights": weights,
        "weights_sha256": sha256(folder / run_folders.WEIGHTS),
        "folds_sha256": sha256(folder / run_folders.FOLDS),
        "epochs": trainer.fit_loop.epoch_progress.current.processed,  # whole ones, in all sessions
        "steps": trainer.global_step,
        "minutes": round(minutes, 2),
        "gpu_gigabytes": round(torch.cuda.max_memory_allocated() / 1e9, 2) if torch.cuda.is_initialized() else None,
        "commit": origin["code"]["commit"],
        "versions": {name: origin["versions"][name] for name in ("python", "torch")},
        "data_sha256": origin["data_sha256"],
        **{name: origin[name] for name in (weights_origin.BEGUN, weights_origin.SAID)},
        "settings": origin["settings"],
    }
    write_json(folder / run_folders.MODEL, about, durable=True)
    _report(settings, fold, None if dice is None else float(dice), trainer, folder, f"{minutes:.1f} minutes", weights)


def _report(
    settings: "Settings", fold: str, dice: float | None, trainer: "pl.Trainer", folder: Path, took: str, weights: str
) -> None:
    """Say what was reached. Raises UnlearnedError where OVERFIT's test fails; `dice` is None without a validation."""
    learnt = len(trainer.datamodule.train_rows)
    what = f"Dice on the {learnt} images it was trained on" if settings.OVERFIT else "validation Dice"
    height, width = settings.IMAGE_SIZE
    reached = f"{what} {dice:.4f} at {height} x {width} px, " if dice is not None else ""
    print(
        f"Trained fold {fold} in {took}: {reached}weights of the {weights} -> {folder / run_folders.WEIGHTS}",
        flush=True,
    )
    refuse_unlearned(settings, learnt, dice, folder)


def last_dice(folder: Path) -> float | None:
    """The validation Dice of the last epoch in metrics.csv, None where there is none."""
    import pandas as pd

    path = folder / "metrics.csv"
    try:
        table = pd.read_csv(path)
    except (FileNotFoundError, pd.errors.EmptyDataError, pd.errors.ParserError):  # a kill may leave it empty
        return None
    values = table["valid_dice"].dropna() if "valid_dice" in table else []
    return float(values.iloc[-1]) if len(values) else None


def refuse_unlearned(settings: "Settings", learnt: int, dice: float | None, folder: Path) -> None:
    """OVERFIT's own test. Raises UnlearnedError where it fails."""
    if settings.OVERFIT and not settings.LIMIT and dice is not None and not dice >= OVERFIT_DICE:
        raise UnlearnedError(
            f"The network did not learn {learnt} images by heart: Dice {dice:.4f}, expected at least {OVERFIT_DICE}. "
            f"Look at {folder / 'steps.gif'}; with AUGMENT=none and more EPOCHS it should get there, or masks and "
            "images do not belong together."
        )
