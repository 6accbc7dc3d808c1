"""The rule from probability to mask that scores best, chosen without the fold that it is scored on."""

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from prediction.postprocess import Rule
from scoring.rule_trials import Trials
from scoring.score_rows import Scale

COMPONENTS, WATERSHED = "components", "watershed"  # the ways from a mask to its objects


@dataclass(frozen=True)
class Choice:
    """What was chosen: numbers of `Trials.rules`, one a scored class.

    crossfitted: for each fold, chosen on the others. overall: chosen on all. scores: (S, R), of each rule on all
    images. ways: for each way to objects, where there are several, what would be chosen for each fold in this way.
    """

    crossfitted: dict[int, list[int]]
    overall: list[int]
    scores: np.ndarray
    ways: dict[str, dict[int, list[int]]]


class _Chooser:
    """Chooses one class's rule, always on the folds that are not left out."""

    def __init__(self, tried: Trials, index: int, folds: np.ndarray, scale: Scale, ways: dict[str, np.ndarray]) -> None:
        self.counts, self.values = (part[:, index : index + 1] for part in (tried.counts, tried.values))
        self.folds, self.scale, self.ways = folds, scale, ways
        self.names = sorted(set(folds.tolist()))
        lefts = [left for size in range(3) for left in combinations(self.names, size)]
        weights = np.stack([~np.isin(folds, left) for left in lefts]).astype(float)
        scores = np.stack([self._total(np.full(len(folds), at), weights) for at in range(len(tried.rules))])  # (R, B)
        self.scores = dict(zip(map(frozenset, lefts), scores.T, strict=True))

    def _total(self, chosen: np.ndarray, weights: np.ndarray) -> np.ndarray:
        image = np.arange(len(chosen))
        return self.scale.total(self.counts[image, :, chosen], self.values[image, :, chosen], weights)

    def _worth(self, score: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(score), -np.inf, score if self.scale.measure.higher else -score)

    def best(self, left: frozenset[int], way: str) -> int:
        """Return the rule of this way that is best without the folds `left`; of equally good ones the simplest."""
        numbers = self.ways[way]
        return int(numbers[self._worth(self.scores[left][numbers]).argmax()])

    def choose(self, left: frozenset[int]) -> int:
        """Choose the best rule of the way that scores better, each fold being cut by what was best on the others."""
        rest = [fold for fold in self.names if fold not in left]
        if len(rest) > 1:
            worth = {way: self._worth(self._crossfitted(rest, left, way)) for way in self.ways}
        else:  # one fold alone cannot be cross-fitted
            worth = {way: self._worth(self.scores[left][self.best(left, way)]) for way in self.ways}
        return self.best(left, max(self.ways, key=lambda way: worth[way]))

    def _crossfitted(self, rest: list[int], left: frozenset[int], way: str) -> np.ndarray:
        best = {fold: self.best(left | {fold}, way) for fold in rest}
        chosen = np.array([best.get(fold, 0) for fold in self.folds.tolist()])
        return self._total(chosen, np.isin(self.folds, rest).astype(float)[None])[0]


def search(tried: Trials, folds: np.ndarray, scale: Scale) -> Choice:
    """Choose each class's rule for each fold on the other folds, and one on all.

    Rules that cut touching objects apart stand against those that leave connected components, where the METRIC looks
    at objects: which way is taken is decided by cross-fitted scores, for a fold by those among the other folds alone.
    """
    split = np.array([bool(rule.split) for rule in tried.rules])
    ways = {COMPONENTS: np.flatnonzero(~split)}
    if scale.measure.kind == "objects":
        ways[WATERSHED] = np.flatnonzero(split)
    names = sorted(set(folds.tolist()))
    parts = [_Chooser(tried, index, folds, scale, ways) for index in range(tried.counts.shape[1])]
    return Choice(
        {fold: [part.choose(frozenset([fold])) for part in parts] for fold in names},
        [part.choose(frozenset()) for part in parts],
        np.stack([part.scores[frozenset()] for part in parts]),
        {way: {fold: [part.best(frozenset([fold]), way) for part in parts] for fold in names} for way in ways}
        if len(ways) > 1
        else {},
    )


def pick(tried: Trials, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return counts (N, S, 4) and values (N, S) under the rules `chosen` (N, S), numbers of `tried.rules`."""
    image, index = np.indices(chosen.shape)
    return tried.counts[image, index, chosen], tried.values[image, index, chosen]


def curve(tried: Trials, scores: np.ndarray) -> dict[str, list]:
    """Return METRIC on all images at each plain threshold: thresholds, and the classes' mean scores."""
    plain = sorted(
        (rule.threshold, at) for at, rule in enumerate(tried.rules) if rule == replace(Rule(), threshold=rule.threshold)
    )
    return {
        "thresholds": [threshold for threshold, _ in plain],
        "scores": [float(np.nanmean(scores[:, at])) for _, at in plain],
    }


def by_fold(chosen: dict[int, list[int]], folds: np.ndarray) -> np.ndarray:
    """Return numbers of rules (N, S) of images that lie in these folds."""
    return np.array([chosen[fold] for fold in folds.tolist()])
