"""How far the masks of 16 bits are from those of 32."""

from pathlib import Path

import numpy as np

from prediction import postprocess
from prediction.postprocess import Rule
from prediction.predictor import Half, Predictor
from tools.errors import NotFiniteError

CHECKED = 4  # images that are predicted both ways


def masks_differ(
    predictor: Predictor, half: Half, rules: tuple[Rule, ...], paths: list[Path], max_pixels: int
) -> float:
    """Return 1 - Dice between the masks in 32 bits and those in `half`, over all of these images together.

    1 where `half` gives probabilities that are no numbers.
    """
    spec, masks = predictor.spec, list[list[np.ndarray]]()
    kinds: tuple[Half, ...] = ("", half)
    for kind in kinds:
        models, devices, cut = predictor.models, predictor.devices, (predictor.tile, predictor.overlap)
        plain = Predictor(models, devices, predictor.batch_size, kind, tile=cut[0], overlap=cut[1])
        try:
            answers = [probability for _, probability in plain.predict(paths, max_pixels)]
        except NotFiniteError:
            if not kind:
                raise
            return 1.0
        p8s = map(postprocess.to_p8, answers)
        masks.append([postprocess.to_masks(p8, spec.task, spec.scored, rules).ravel() for p8 in p8s])
    one, other = (np.concatenate(part).astype(bool) for part in masks)
    return float((one != other).sum() / max(1, one.sum() + other.sum()))
