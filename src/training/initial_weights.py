"""What a network begins with, and by what its images are normalized."""

from typing import TYPE_CHECKING

import model_dispatcher
from data.dataspec import DataSpec
from modeling import weights_source
from modeling.segmenter import Normalization
from training import warm_start

if TYPE_CHECKING:
    from settings import Settings


def normalization(settings: "Settings", spec: DataSpec, encoder_weights: str) -> tuple[Normalization, str]:
    """Return the channels' mean and deviation, and whose they are, in a few words.

    The constants, what make folds measured or, by NORMALIZE=auto, what the weights or INIT's network were trained with.
    """
    if settings.INIT and settings.NORMALIZE == "auto" and (then := warm_start.normalization(settings, spec)):
        return Normalization(*map(tuple, then)), "as INIT's network knows its images"
    usual, given = settings.defaults(), (settings.MODEL_MEAN, settings.MODEL_STD)
    photographs = spec.channels == len(settings.MODEL_MEAN) and spec.bits == 8
    if settings.NORMALIZE == "auto" and photographs and given == (usual["MODEL_MEAN"], usual["MODEL_STD"]):
        found = _of_weights(settings, encoder_weights)
        if found:
            return found
    if settings.NORMALIZE == "measured" or (settings.NORMALIZE != "constants" and not photographs):
        return Normalization(spec.mean, spec.std), "as make folds measured"
    return Normalization(*given), "by MODEL_MEAN and MODEL_STD"


def described(settings: "Settings", spec: DataSpec) -> str:
    """Say in one line what weights the network begins with, from where, and how its images are normalized."""
    weights = "none" if settings.INIT else settings.ENCODER_WEIGHTS
    source = model_dispatcher.source_of_weights(settings.MODEL_NAME, weights, settings.WEIGHTS)
    kind = "ImageNet weights" if weights == "imagenet" else "Weights"
    begun = f"{kind} from {source.said}" if source else "Random weights"
    if settings.INIT:
        begun = f"The network of INIT={settings.INIT}"
    scale, whose = normalization(settings, spec, weights)
    mean, std = (", ".join(f"{value:.3g}" for value in values) for values in (scale.mean, scale.std))
    return f"{begun}; normalized {whose} (mean {mean}; deviation {std})"


def _of_weights(settings: "Settings", encoder_weights: str) -> tuple[Normalization, str] | None:
    if encoder_weights == "none":
        return None
    source = model_dispatcher.source_of_weights(settings.MODEL_NAME, encoder_weights, settings.WEIGHTS)
    _, encoder = model_dispatcher.parse(settings.MODEL_NAME)
    return weights_source.normalization(encoder, source.place) if source else None
