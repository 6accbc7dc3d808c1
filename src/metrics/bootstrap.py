"""How sure a score is: an interval from resampling whole groups (cars, patients), never single images of one.

Views of one car are alike, so images resampled one by one would promise far too much. `tests/test_bootstrap.py`
measures how often an interval holds the truth in simulated worlds.
"""

from collections.abc import Callable, Sequence

import numpy as np

# counts int (N, S, 4), values float (N, S) with NaN for skipped, weights float (B, N) of the images -> scores (B,)
Total = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
Groups = Sequence[str] | Sequence[int] | np.ndarray  # (N,), a name or number for each image

FEWEST = 1.5  # effective groups, below which one of them is all that the score shows
FEW = 6  # groups, below which percentiles of their draws cover too little


def group_weights(groups: Groups, draws: int = 2000, seed: int = 0) -> np.ndarray:
    """Return how often each image occurs in each draw, float64 (draws, N): whole groups drawn with replacement.

    The same arguments always give the same weights.
    """
    names, place = np.unique(np.asarray(groups), return_inverse=True)
    generator = np.random.default_rng(seed)
    times = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)  # (draws, G)
    return times[:, place].astype(np.float64)


def effective_groups(groups: Groups) -> float:
    """Return how many groups of one size would say as much, in [1, G].

    (sum of sizes)^2 / sum of squared sizes (Kish 1965).
    """
    _, sizes = np.unique(np.asarray(groups), return_counts=True)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def interval(estimate: float, drawn: np.ndarray, groups: float, level: float = 0.95) -> tuple[float, float]:
    """Return the two percentiles of `drawn` (B,), scores of resampled groups, that hold the truth in `level` of cases.

    groups: how many were resampled, or their effective number. Percentiles are moved outwards because few groups vary
    less than the world that they come from (the expanded percentile interval of Hesterberg 2015), and towards the
    longer tail of a skewed distribution (the acceleration of BCa, Efron 1987). Of fewer than six groups the draws hold
    no such percentile (a quarter of the truths would be missed with three): then it is Student's t interval with the
    draws' spread, which is wide and may leave the range of the score. Draws without a score (NaN) are left out. With
    one group, or as good as one, or without a score, it is (NaN, NaN).
    """
    from scipy.special import ndtr
    from scipy.stats import t

    kept = drawn[np.isfinite(drawn)]
    if groups < FEWEST or len(kept) < 2 or not np.isfinite(estimate):
        return float("nan"), float("nan")
    outwards = min(t.ppf((1 + level) / 2, groups - 1) * np.sqrt(groups / (groups - 1)), 100.0)  # beyond all draws
    if groups < FEW:
        return float(estimate - outwards * kept.std()), float(estimate + outwards * kept.std())
    acceleration = np.clip(_skewness(kept) / 6, -0.5 / outwards, 0.5 / outwards)  # beyond, the formula breaks down
    steps = np.array([-outwards, outwards])
    low, high = np.quantile(kept, ndtr(steps / (1 - acceleration * steps)))
    return float(low), float(high)


def _skewness(drawn: np.ndarray) -> float:
    """Return the third standardized moment, 0 where nothing varies but by rounding."""
    deviation = drawn - drawn.mean()
    spread = deviation.std()
    return float(((deviation / spread) ** 3).mean()) if spread > 1e-12 else 0.0


def score_interval(
    total: Total,
    counts: np.ndarray,
    values: np.ndarray,
    groups: Groups,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    weights: np.ndarray | None = None,
) -> tuple[float, float, float]:
    """Return the score of counts (N, S, 4) and values (N, S) with its interval over groups (N,): (estimate, low, high).

    weights: those of `group_weights`, where several scores share them.
    """
    estimate = float(total(counts, values, np.ones((1, len(values))))[0])
    drawn = total(counts, values, group_weights(groups, draws, seed) if weights is None else weights)
    return estimate, *interval(estimate, drawn, effective_groups(groups), level)
