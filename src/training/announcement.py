"""What a training says of itself before its first step: data, network, place, weights, and how rows are balanced."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from data.folds_table import stratum_labels
from training import initial_weights

if TYPE_CHECKING:
    from settings import Settings
    from training.fold_training import FoldTraining

_SHOWN = 12


def described(training: "FoldTraining") -> str:
    """Say what is about to be trained, on what, where it will lie, and what it begins with."""
    settings, spec = training.settings, training.spec
    millions = sum(parameter.numel() for parameter in training.network.parameters()) / 1e6
    classes = "" if spec.task == "binary" else f"{spec.task}, {len(spec.classes)} classes; "
    overfit = "and the same to validate on (OVERFIT: no honest score)"
    held_out = overfit if settings.OVERFIT else f"{len(training.valid_rows)} held out"
    crops = f" in crops of {settings.CROP[0]} x {settings.CROP[1]}" if all(settings.CROP) else ""
    crops += f" {padding}" if (padding := str(training.network.frames)) else ""
    where = f"{training.hardware.device}, {training.hardware.reason}{_shares(settings)} -> {training.folder}"
    lines = [
        f"{settings.EXPERIMENT}, fold {training.fold}: {len(training.train_rows)} images to train on, {held_out}; "
        f"{classes}{settings.MODEL_NAME}, {millions:.1f} M parameters, {settings.IMAGE_SIZE[0]} x "
        f"{settings.IMAGE_SIZE[1]} px{crops}; {where}",
        _begun(training),
    ]
    if settings.BALANCE != "none":
        strata = stratum_labels(training.frame.iloc[training.train_rows], Path(settings.TRAIN_FOLDS))
        lines.append(_balance(settings.BALANCE, strata))
    return "\n".join(lines)


def _begun(training: "FoldTraining") -> str:
    """Say what the network begins with; one that goes on has all in its checkpoint, and INIT's run may be gone."""
    if training.resume and training.settings.INIT:
        return f"The network of INIT={training.settings.INIT}, as its checkpoint has it"
    return initial_weights.described(training.settings, training.spec)


def _balance(text: str, strata: list[str]) -> str:
    """Say how many images each stratum has, and how often they come."""
    counts = sorted(Counter(strata).items())
    if len(counts) == 1:
        return f"BALANCE={text}: all training images are of one stratum, so each comes as often as any other"
    shown = ", ".join(f"{name or 'none'} {count}" for name, count in counts[:_SHOWN])
    often = "each as often as any other" if text == "strata" else "by these shares, 1 where unnamed"
    return f"BALANCE={text}: {len(counts)} strata ({shown}{', ...' * (len(counts) > _SHOWN)}), {often}"


def _shares(settings: "Settings") -> str:
    """Return the arithmetic of several devices, "" for one."""
    count = settings.DEVICES * settings.NODES
    if count == 1:
        return ""
    batch, windows = settings.TRAIN_BATCH_SIZE, settings.ACCUMULATE
    each = f"{batch // count} images on each of {count} devices x {windows} batches a step"
    return f"; {each} = {batch * windows} images a step, as on one"
