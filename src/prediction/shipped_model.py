"""A shipped model: the network of a run folder's model.json with the weights beside it, checked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import model_dispatcher
from data import dataspec
from data.dataspec import DataSpec
from formats.resize import RESIZES
from modeling import encoder_weights
from modeling.segmenter import Normalization, Segmenter
from tools import run_folders
from tools.errors import UserError
from tools.files import sha256

CURE = "Train it again: make train ... OVERWRITE=1"


@dataclass(frozen=True)
class Model:
    """One shipped network with its geometry; `about` is its model.json."""

    network: Segmenter
    spec: DataSpec
    size: tuple[int, int]
    resize: str
    folder: Path
    about: dict[str, Any]


def load(folder: Path, device: str = "cpu") -> Model:
    """Return the model of a run folder, in eval mode on `device`.

    Raises UserError where it is broken or has been changed.
    """
    about, weights = run_folders.read_model(folder), folder / run_folders.WEIGHTS
    if not weights.is_file():
        raise UserError(f"{weights}: no such file. {CURE}")
    spec = dataspec.from_json(about["data"], str(folder / run_folders.MODEL))
    if sha256(weights) != about["weights_sha256"]:
        raise UserError(
            f"{weights} is not the file that {run_folders.MODEL} beside it describes (cut off, or exchanged). {CURE}"
        )
    try:
        network, size, resize = _build(about["network"], spec)
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError, MemoryError) as error:
        raise UserError(f"{folder / run_folders.MODEL} lacks or has a wrong value ({error}). {CURE}") from error
    except UserError as error:
        raise UserError(f"{folder / run_folders.MODEL}: {error}") from error
    state = encoder_weights.read_weights(weights)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        what = _misfit(state, network.state_dict())
        raise UserError(f"{weights} does not fit {about['network']['MODEL_NAME']}: {what}. {CURE}") from error
    network.eval().to(device)
    network.to(memory_format=torch.channels_last)
    return Model(network, spec, size, resize, folder, about)


def _misfit(state: dict[str, Tensor], own: dict[str, Tensor]) -> str:
    """Say how a file's tensors differ from the network's own, in one line."""
    missing, more = [key for key in own if key not in state], [key for key in state if key not in own]
    other = [key for key in own if key in state and state[key].shape != own[key].shape]
    said = [f"it lacks {len(missing)} of {len(own)} tensors, such as {missing[0]}"] if missing else []
    said += [f"it has {len(more)} others, such as {more[0]}"] if more else []
    said += [f"{key} is {tuple(state[key].shape)}, expected {tuple(own[key].shape)}" for key in other[:1]]
    return "; ".join(said) or "its tensors cannot be copied"


def _build(parts: dict[str, Any], spec: DataSpec) -> tuple[Segmenter, tuple[int, int], str]:
    """Return the network that model.json describes, IMAGE_SIZE and RESIZE.

    Raises ValueError beyond the ranges of settings.py.
    """
    (height, width), resize = parts["IMAGE_SIZE"], parts["RESIZE"]
    size, features = (int(height), int(width)), int(parts.get("MAX_FEATURES", 512))  # older models have no such network
    tall, wide = map(int, parts.get("INPUT_SIZE", size))  # older models were made for any size, or for theirs
    mean, std = tuple(map(float, parts["MODEL_MEAN"])), tuple(map(float, parts["MODEL_STD"]))
    within = {
        f"RESIZE {resize}": resize in RESIZES,
        f"IMAGE_SIZE {size}": all(8 <= side <= 20_000 for side in size),
        f"INPUT_SIZE {tall, wide}": all(8 <= side <= 20_000 for side in (tall, wide)),
        f"MODEL_MEAN {mean}": all(-10 <= part <= 10 for part in mean),
        f"MODEL_STD {std}": all(1e-6 <= part <= 10 for part in std),
        f"MAX_FEATURES {features}": 1 <= features <= 8192,
    }
    if wrong := [said for said, fine in within.items() if not fine]:
        raise ValueError(", ".join(wrong))
    network = model_dispatcher.build(
        str(parts["MODEL_NAME"]),
        classes=len(spec.classes),
        channels=spec.channels,
        normalization=Normalization(mean, std),
        decoder=model_dispatcher.Decoder(features),
        size=(tall, wide),
    )
    return network, size, resize


def describe(models: list[Model]) -> list[dict[str, Any]]:
    """Return what a prediction folder's manifest says of its models."""
    keys = ("experiment", "fold", "seed", "weights", "weights_sha256", "folds_sha256")
    return [{"folder": str(model.folder), **{key: model.about.get(key) for key in keys}} for model in models]
