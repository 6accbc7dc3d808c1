"""Which sample comes when: a pure function of (seed, epoch), so that workers, ranks and resuming do not matter."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from tools.errors import UserError, nearest


def epoch_order(seed: int, epoch: int, rows: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the order of `rows` in an epoch: a permutation that depends on nothing but its arguments.

    `weights`, one a row: the epoch is as long, but rows come as often as their weights say, give or take one.
    """
    random = np.random.default_rng([seed, epoch])
    if weights is not None:
        # a comb over the shuffled rows' weights (systematic resampling) varies less than drawing each row by itself
        mixed = random.permutation(len(rows))
        edges = np.cumsum(weights[mixed]) * (len(rows) / weights.sum())
        teeth = np.searchsorted(edges, random.random() + np.arange(len(rows)), side="right")
        rows = rows[mixed[np.minimum(teeth, len(rows) - 1)]]
    return rows[random.permutation(len(rows))]


def balance_weights(strata: list[str], shares: dict[str, float]) -> np.ndarray:
    """Return a weight for each row: all strata come equally often, or by their `shares` (1 where unnamed)."""
    counts = Counter(strata)
    return np.array([shares.get(stratum, 1.0) / counts[stratum] for stratum in strata])


def stratum_shares(text: str, strata: list[str]) -> dict[str, float]:
    """Read BALANCE's `name=2,other=1` as shares by stratum, `strata` as {}. Raises UserError."""
    known, shares = sorted(set(strata)), dict[str, float]()
    if text == "strata":
        return shares
    for part in text.split(","):
        name, _, number = part.rpartition("=")
        name = name.strip()
        if not name or name not in known:
            shown = ", ".join(filter(None, known[:20])) or "none: the layout has no subfolders, the table no stratum"
            raise UserError(
                f"BALANCE={text}: no training image has the stratum '{name or part}'.{nearest(name, known)} "
                f"Expected none, strata, or shares such as {known[-1] or 'name'}=2; the strata: {shown}."
            )
        try:
            shares[name] = float(number)
        except ValueError as error:
            raise UserError(f"BALANCE={text}: '{number}' is not a number.") from error
        if not 0 < shares[name] < 1e6:
            raise UserError(f"BALANCE={text}: expected shares above 0.")
    return shares


def foreground_weights(weights: np.ndarray, shown: np.ndarray, share: float) -> np.ndarray:
    """Return `weights` such that `share` of an epoch shows foreground; the same where that much does, or none."""
    inside, outside = weights[shown].sum(), weights[~shown].sum()
    if not inside or not outside or inside >= share * (inside + outside):
        return weights
    return np.where(shown, weights * share / inside, weights * (1 - share) / outside)


class EpochSampler(Sampler):
    """The samples of an epoch: (epoch, row, how often it came before). Lightning calls `set_epoch` before each.

    `start`: the epoch to begin with, and how many samples of it have been seen (where a run is resumed).
    """

    def __init__(
        self, rows: np.ndarray, seed: int, weights: np.ndarray | None = None, start: tuple[int, int] = (0, 0)
    ) -> None:
        self.rows, self.seed, self.weights, self.start, self.epoch = rows, seed, weights, start, start[0]

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        seen: Counter[int] = Counter()
        skipped = self.start[1] if self.epoch == self.start[0] else 0
        for place, row in enumerate(epoch_order(self.seed, self.epoch, self.rows, self.weights).tolist()):
            if place >= skipped:
                yield self.epoch, row, seen[row]
            seen[row] += 1


class RankBatches(Sampler):
    """One rank's share of each batch of `size` samples of `order`: equal shares, and no smaller last batch."""

    def __init__(self, order: EpochSampler, size: int, rank: int, ranks: int) -> None:
        self.sampler = order  # Lightning looks for this name
        self.size, self.share, self.rank = size, size // ranks, rank

    def __len__(self) -> int:
        return len(self.sampler) // self.size

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        batch = []
        for sample in self.sampler:
            batch.append(sample)
            if len(batch) == self.size:
                yield batch[self.rank * self.share : (self.rank + 1) * self.share]
                batch = []


class ShapeBatches(Sampler):
    """Batches of (0, row, 0) of equal shapes, in the rows' order wherever all have one.

    Of several ranks each gets whole batches, as one alone would see them; where there are fewer than ranks, the first
    one comes more than once, and SegmentationModule counts it once. `limit`: batches of all ranks together, 0 all.
    """

    def __init__(
        self,
        rows: np.ndarray,
        shapes: Sequence[Sequence[int]],
        size: int,
        rank: int = 0,
        ranks: int = 1,
        limit: int = 0,
    ) -> None:
        groups: dict[tuple[int, ...], list[tuple[int, int, int]]] = {}
        for row in rows.tolist():
            groups.setdefault(tuple(shapes[row]), []).append((0, row, 0))
        batches = [group[at : at + size] for group in groups.values() for at in range(0, len(group), size)]
        self.batches = batches[: limit or None][rank::ranks] or batches[:1]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        return iter(self.batches)
