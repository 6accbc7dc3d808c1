"""What a training leaves: model.safetensors and model.json, all that scoring reads, and what it reached."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools import run_folders
from tools.errors import UnlearnedError, UserError
from tools.files import sha256, write_json
from training import builders, weights_origin

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from torch import nn

    from modeling.segmenter import Segmenter
    from settings import Settings
    from training.fold_training import FoldTraining

OVERFIT_DICE = 0.9  # what any network reaches on images that it may learn by heart


def ship(training: "FoldTraining", trainer: "pl.Trainer", origin: dict[str, Any]) -> None:
    """Write model.safetensors and model.json, all that scoring and prediction read, and say what was reached.

    `origin`: run.json's. Raises UserError where CHECKPOINT=best has no epoch to choose, UnlearnedError where OVERFIT's
    test fails.
    """
    from modeling import segmenter
    from training import callbacks

    settings, folder = training.settings, training.folder
    network = callbacks.averaged_network(trainer, training.module)
    weights, dice = _chosen_weights(training, trainer, network)
    segmenter.save_network(network, folder / run_folders.WEIGHTS)
    minutes = callbacks.hook_of(trainer, callbacks.Checkpoints).seconds / 60
    manifest = {
        "experiment": settings.EXPERIMENT,
        "fold": training.fold,
        "seed": settings.SEED,
        "overfit": settings.OVERFIT,
        "data": training.spec.as_json(),
        "network": _network_settings(settings, training.network),
        "weights": weights,
        "weights_sha256": sha256(folder / run_folders.WEIGHTS),
        "folds_sha256": sha256(folder / run_folders.FOLDS),
        **_effort(trainer, minutes),
        "precision": origin["computer"]["precision"],
        "commit": origin["code"]["commit"],
        "versions": {name: origin["versions"][name] for name in ("python", "torch")},
        "data_sha256": origin["data_sha256"],
        **{name: origin[name] for name in (weights_origin.BEGUN, weights_origin.SAID)},
        "settings": origin["settings"],
    }
    write_json(folder / run_folders.MODEL, manifest, durable=True)
    learned = len(training.train_rows)
    what = f"Dice on the {learned} images it was trained on" if settings.OVERFIT else "validation Dice"
    height, width = settings.IMAGE_SIZE
    reached = f"{what} {dice:.4f} at {height} x {width} px, " if dice is not None else ""
    print(
        f"Trained fold {training.fold} in {minutes:.1f} minutes: {reached}weights of the {weights} -> "
        f"{folder / run_folders.WEIGHTS}",
        flush=True,
    )
    refuse_unlearned(settings, learned, dice, folder)


def _chosen_weights(training: "FoldTraining", trainer: "pl.Trainer", network: "nn.Module") -> tuple[str, float | None]:
    """Say which epoch's weights are shipped, and return their validation Dice too; CHECKPOINT=best loads them."""
    from modeling import segmenter
    from training import callbacks

    if training.settings.CHECKPOINT == "best":
        best = callbacks.hook_of(trainer, callbacks.BestWeights)
        if best.epoch < 0:
            raise UserError(
                f"CHECKPOINT=best: no epoch of {training.folder} has a validation Dice (EMPTY=skip leaves out images "
                "whose mask and prediction are empty). Train with CHECKPOINT=last or EMPTY=one, and OVERWRITE=1."
            )
        segmenter.load_shipped(network, best.weights)
        return f"epoch {best.epoch + 1}, chosen on this fold", best.best
    dice = trainer.callback_metrics.get("valid_dice")
    average = f", moving average {training.settings.EMA}" if training.settings.EMA else ""
    # None: resumed after its last epoch
    return f"last epoch{average}", last_dice(training.folder) if dice is None else float(dice)


def _network_settings(settings: "Settings", network: "Segmenter") -> dict[str, Any]:
    """Return what prediction has to know to build the network and to give it images."""
    normalization = network.normalization  # its own: a resumed run's came with its checkpoint
    return {
        "MODEL_NAME": settings.MODEL_NAME,
        "MAX_FEATURES": settings.MAX_FEATURES,
        "IMAGE_SIZE": settings.IMAGE_SIZE,
        "INPUT_SIZE": builders.input_size(settings),  # what the network was made for
        "RESIZE": settings.RESIZE,
        "MODEL_MEAN": normalization.mean,
        "MODEL_STD": normalization.std,
    }


def _effort(trainer: "pl.Trainer", minutes: float) -> dict[str, Any]:
    """Return how long the training was, in all sessions, and the most memory that a GPU of it took."""
    import torch

    progress: Any = trainer.fit_loop.epoch_progress.current  # a tracker that counts `processed`, which its type lacks
    return {
        "epochs": progress.processed,  # whole ones
        "steps": trainer.global_step,
        "minutes": round(minutes, 2),
        "gpu_gigabytes": round(torch.cuda.max_memory_allocated() / 1e9, 2) if torch.cuda.is_initialized() else None,
    }


def last_dice(folder: Path) -> float | None:
    """Return the validation Dice of the last epoch in metrics.csv, None where there is none."""
    import pandas as pd

    path = folder / "metrics.csv"
    try:
        table = pd.read_csv(path)
    except (FileNotFoundError, pd.errors.EmptyDataError, pd.errors.ParserError):  # a kill may leave it empty
        return None
    values = table["valid_dice"].dropna().tolist() if "valid_dice" in table else []
    return float(values[-1]) if values else None


def refuse_unlearned(settings: "Settings", learned: int, dice: float | None, folder: Path) -> None:
    """Make OVERFIT's own test. Raises UnlearnedError where it fails."""
    if settings.OVERFIT and not settings.LIMIT and dice is not None and not dice >= OVERFIT_DICE:
        raise UnlearnedError(
            f"The network did not learn {learned} images by heart: Dice {dice:.4f}, expected at least {OVERFIT_DICE}. "
            f"Look at {folder / 'steps.gif'}; with AUGMENT=none and more EPOCHS it should get there, or masks and "
            "images do not belong together."
        )
