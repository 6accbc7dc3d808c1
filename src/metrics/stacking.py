"""How much each member of an ensemble counts: stacked regression (Breiman 1996; van der Laan et al. 2007).

The weights are non-negative, sum to 1 and minimize the Brier score, the mean squared error of the probabilities, of
predictions out of fold. As they sum to 1, the ensemble's error is the weighted sum of the members' errors, so all that
is kept of any number of images is the mean product of each two members' errors, an (M, M) matrix.
"""

import functools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tools.errors import UserError

_BLOCK = 1 << 18  # pixels at a time: their errors are float64
# Added to each member's own score, as a share of the members' mean: equal members then share their weight evenly, and
# the score that is reached is no more than this share above the best one.
_RIDGE = 1e-9


@dataclass(frozen=True)
class Gram:
    """Products of the members' errors, each image's mean over its pixels, summed over `count` images (and classes).

    products: float64 (M, M). Grams of the same members add.
    """

    products: np.ndarray
    count: int

    def __add__(self, other: "Gram") -> "Gram":
        return Gram(self.products + other.products, self.count + other.count)


def gram(maps: np.ndarray, truth: np.ndarray, labeled: np.ndarray | None = None) -> Gram:
    """Return the Gram of one image and class.

    maps: 8-bit probabilities (M, H, W), one a member; truth: bool (H, W); labeled: bool (H, W), the pixels that count;
    None: all. Without a labeled pixel the image counts nowhere. Raises UserError where the sizes differ.
    """
    if maps.shape[1:] != truth.shape:
        raise UserError(
            f"The members' probability maps have {_size(maps.shape[1:])} pixels and the mask has {_size(truth.shape)}; "
            "expected maps at the original size. Predict again."
        )
    flat, target = maps.reshape(len(maps), -1), truth.ravel() != 0
    counted = np.ones(target.size, bool) if labeled is None else labeled.ravel()
    products = np.zeros((len(maps), len(maps)))  # whole numbers up to the division
    for start in range(0, target.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        errors = (flat[:, part].astype(np.float64) - 255.0 * target[part])[:, counted[part]]
        products += errors @ errors.T
    pixels = int(np.count_nonzero(counted))
    return Gram(products / (255**2 * max(1, pixels)), int(pixels > 0))


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def brier(gram: Gram, weights: np.ndarray) -> float:
    """Return the Brier score in [0, 1] of the members' mean with `weights` (M,) that sum to 1, the mean over images."""
    return float(weights @ gram.products @ weights) / max(1, gram.count)


def weights(gram: Gram) -> np.ndarray:
    """Return the weights (M,) of the members, >= 0 and of sum 1, with the lowest Brier score; equal where none errs.

    With errors E the least |E w|^2 over the simplex has the direction of the least |E u|^2 + (1 - sum u)^2 over u >= 0:
    for u = s w that is s^2 |E w|^2 + (1 - s)^2, at its best s a growing function of |E w|^2. So Lawson and Hanson's
    active sets (1974) solve it exactly, with the sum held by one more row.
    """
    from scipy.optimize import nnls

    members = len(gram.products)
    scale = np.trace(gram.products) / members
    if scale == 0:
        return np.full(members, 1 / members)
    values, vectors = np.linalg.eigh(gram.products / scale)
    root = (vectors * np.sqrt(values.clip(0) + _RIDGE)).T  # root' root = products / scale
    solution, _ = nnls(np.vstack([root, np.ones(members)]), np.append(np.zeros(members), 1.0))
    return solution / solution.sum()


def crossfitted(grams: Mapping[int, Gram]) -> dict[int, np.ndarray]:
    """Return for each fold the weights (M,) that the other folds' images ask for: no image has a say in its own.

    Raises UserError for fewer than two folds.
    """
    if len(grams) < 2:
        raise UserError(
            f"Weights of an ensemble are chosen on the other folds, and there are {len(grams)} folds; "
            "expected two or more. Predict more folds, or take equal weights."
        )
    return {
        fold: weights(functools.reduce(operator.add, [grams[other] for other in grams if other != fold]))
        for fold in grams
    }


def blend(maps: Sequence[np.ndarray], weights: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the weighted mean of the members' 8-bit probabilities, each (C, H, W), rounded to uint8 (C, H, W).

    Raises UserError where the maps' sizes differ, or the weights are not as many, negative, or do not sum to 1.
    """
    shapes = {item.shape for item in maps}
    if len(shapes) > 1:
        raise UserError(
            f"The members' probability maps differ in size: {', '.join(sorted(map(_size, shapes)))}; expected the same "
            "image and classes of each. Predict again."
        )
    if len(weights) != len(maps) or min(weights) < 0 or not abs(sum(weights) - 1) <= 1e-6:  # NaN is neither
        given = ", ".join(f"{weight:g}" for weight in weights)
        raise UserError(f"The weights are {given}; expected {len(maps)} numbers of at least 0 that sum to 1.")
    total = np.zeros(maps[0].shape, np.float32)
    for item, weight in zip(maps, weights, strict=True):
        total += np.float32(weight) * item
    return (total + 0.5).astype(np.uint8)
