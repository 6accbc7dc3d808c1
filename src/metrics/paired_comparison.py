"""Is experiment B better than A? A paired comparison over the same images and folds, and one honest sentence.

Two things make a difference uncertain: the images that happen to be there, and the seeds that happened to be drawn.
With one seed a side the second cannot be seen, so the verdict is about those runs; with several a side it is about the
recipes, on these folds. What another division into folds would do to the networks is in neither: one division cannot
tell (Bengio & Grandvalet 2004).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metrics.bootstrap import Total, effective_groups, group_weights, interval
from metrics.variance_components import Run, Side, Spread, of_recipes, of_runs, side, variance
from tools.errors import UserError

LEVEL = 0.95  # of the interval
MOST_SEEDS = 100
POWER = 0.8  # `seeds_needed` finds a true difference of this size in four of five comparisons
ROUNDING = 1e-12
MORE = f"More than {MOST_SEEDS} seeds a side would be needed to tell recipes that differ so little apart."
SAME = "not distinguishable"


@dataclass(frozen=True)
class Verdict:
    """What can be said of B against A. Differences are B - A of the mean over seeds, in the metric's unit."""

    difference: float
    low: float  # the interval's ends, NaN where there is none
    high: float
    word: str  # "better" | "worse" | "not distinguishable": B
    about: str  # "runs" | "recipes"
    scores: tuple[float, float]  # of A and B, means over seeds
    seeds: tuple[int, int]
    folds: dict[int, float]  # fold: difference
    standard_error: float
    shares: dict[str, float]  # of the variance of the difference: "images" stays with any number of seeds, "seeds"
    variances: dict[str, dict[str, float]]  # "a", "b": of a score between "seeds" and between "folds"; repeated seeds
    seeds_needed: int | None  # a side, to tell recipes apart that differ as much; None: see note
    note: str
    higher: bool
    level: float


def compare(
    total: Total,
    a: Sequence[Run],
    b: Sequence[Run],
    folds: np.ndarray,
    groups: np.ndarray,
    higher: bool = True,
    draws: int = 2000,
    seed: int = 0,
) -> Verdict:
    """Compare experiment B with A, each a list with one run a seed over the same N images.

    folds: (N,) ints; groups: (N,), what is resampled together; higher: whether more is better. Raises UserError where
    the images of the two do not correspond.
    """
    _check([*a, *b], folds, groups)
    sides = [side(total, runs, folds, group_weights(groups, draws, seed)) for runs in (a, b)]
    difference, drawn, by_fold = (
        getattr(sides[1], part).mean(0) - getattr(sides[0], part).mean(0) for part in ("scores", "drawn", "folds")
    )
    count, recipes = effective_groups(groups), min(len(a), len(b)) > 1
    if recipes:
        spread = of_recipes(sides, drawn, count)
        low, high = _t_interval(difference, spread, LEVEL)
    else:
        spread = of_runs(total, a, b, sides, drawn, folds, groups, seed)
        low, high = interval(difference, drawn, count, LEVEL)
    word = _word(low, high, higher)
    told = recipes and word != SAME
    needed, why = (None, "") if told else _seeds_needed(float(difference), spread, count, by_fold.size, LEVEL)
    return Verdict(
        difference=float(difference), low=low, high=high, word=word, about="recipes" if recipes else "runs",
        scores=(float(sides[0].scores.mean()), float(sides[1].scores.mean())), seeds=(len(a), len(b)),
        folds=dict(zip(np.unique(folds).tolist(), by_fold.tolist(), strict=True)),
        standard_error=float(np.sqrt(spread.images + spread.seeds)), shares=_shares(spread) if recipes else {},
        variances={name: _variances(one) for name, one in zip("ab", sides, strict=True) if len(one.scores) > 1},
        seeds_needed=needed, note=" ".join(filter(None, (spread.note, why))), higher=higher, level=LEVEL,
    )  # fmt: skip


def _check(runs: Sequence[Run], folds: np.ndarray, groups: np.ndarray) -> None:
    images = sorted({len(part) for run in runs for part in (*run, folds, groups)})
    if len(images) != 1:
        raise UserError(f"A and B are compared image by image, and here are {images} images: score both on one table.")


def _seeds_needed(difference: float, spread: Spread, groups: float, folds: int, level: float) -> tuple[int | None, str]:
    """Return the fewest seeds a side with which a true `difference` is found with POWER, or None and why."""
    from scipy.stats import t

    if not np.isfinite(difference):
        return None, "No image is left to score."
    if not np.isfinite(spread.images + spread.one_seed):
        return None, ""  # the spread's note says why
    if abs(difference) < ROUNDING:
        return None, "There is no difference to be told."

    def enough(images: float, runs: float, seeds: float) -> bool:
        variance = images + runs
        below = images**2 / (groups - 1) + runs**2 / (2 * folds * (seeds - 1))
        degrees = variance**2 / below if below > 0 else groups - 1
        return abs(difference) >= (t.ppf((1 + level) / 2, degrees) + t.ppf(POWER, degrees)) * np.sqrt(variance)

    if not enough(spread.images, 0.0, np.inf):
        return None, "No number of seeds would tell recipes that differ so little apart on so few images."
    numbers = (n for n in range(2, MOST_SEEDS + 1) if enough(spread.images, spread.one_seed / n, n))
    if needed := next(numbers, None):
        return needed, ""
    return None, MORE


def _t_interval(difference: float, spread: Spread, level: float) -> tuple[float, float]:
    from scipy.stats import t

    half = t.ppf((1 + level) / 2, spread.degrees) * np.sqrt(spread.images + spread.seeds)
    return float(difference - half), float(difference + half)


def _word(low: float, high: float, higher: bool) -> str:
    """Say what B is; NaN is not distinguishable, and neither is a rounding error."""
    if not (low > ROUNDING or high < -ROUNDING):
        return SAME
    return "better" if (low > 0) == higher else "worse"


def _shares(spread: Spread) -> dict[str, float]:
    total = spread.images + spread.seeds
    return {"images": spread.images / total, "seeds": spread.seeds / total} if total > 0 else {}


def _variances(one: Side) -> dict[str, float]:
    return {"seeds": float(one.scores.var(ddof=1)), "folds": variance(one.folds.mean(0))}


def sentence(verdict: Verdict, a_name: str, b_name: str, metric_name: str) -> str:
    """Write a few plain sentences that say no more than the verdict does."""
    names = (a_name, b_name)
    each = zip(names, verdict.scores, verdict.seeds, strict=True)
    scores = ", ".join(f"{name} {score:.4f} ({n} seed{'s' * (n > 1)})" for name, score, n in each)
    ahead = sum(one != 0 and (one > 0) == verdict.higher for one in verdict.folds.values())
    within = f"{verdict.level:.0%} interval {verdict.low:+.4f} to {verdict.high:+.4f}"
    within = within if np.isfinite(verdict.low) else "no interval"
    runs = verdict.about == "runs"
    said = [
        f"{metric_name}: {scores}; {b_name} is ahead in {ahead} of {len(verdict.folds)} folds.",
        f"{'These runs' if runs else 'As recipes'}: {b_name} is {verdict.word} "
        f"{'from' if verdict.word == SAME else 'than'} {a_name}, difference {verdict.difference:+.4f}, {within}.",
    ]
    if runs:
        once = " and of ".join(name for name, n in zip(names, verdict.seeds, strict=True) if n == 1)
        said.append(f"With one seed of {once}, nothing is said about the recipes.")
    if verdict.seeds_needed:
        said.append(f"About {verdict.seeds_needed} seeds a side would tell recipes that differ as much apart.")
    return " ".join(filter(None, (*said, verdict.note)))
