"""Leak audit: near copies of a picture in two folds (recompressed, resized, turned, cropped) make the score a fiction.

Thumbnails only nominate pairs (candidates.py); an aligned comparison at full resolution decides (alignment.py). What it
cannot decide is for a person to look at.
"""

import functools
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from data.leak_audit.alignment import VERSIONS, compare, relation, turned
from data.leak_audit.candidates import Nominee, nominate
from data.leak_audit.spectra import SIDE
from tools import threads

Member = TypeVar("Member", int, str)
Read = Callable[[int], np.ndarray]  # decodes an image by its row, uint8 (H, W, C)
__all__ = ["Pair", "across", "copies", "tie"]

# Disagreement of blocks at full resolution, and that times the thumbnails' residual. Compression speaks at the finest
# scale and another car at all scales, so the product parts them better. 40 rendered cars, 480 and 240 wide: copies to
# 0.0095, two cars from 0.0165 (their disagreement from 0.49). At 96 x 64 pixels JPEG 40 overlaps with alike cars (copy
# to 0.024, two cars from 0.016, their disagreement from 0.38): such copies stay unsure.
SURE, SURE_PRODUCT, UNSURE = 0.3, 0.0125, 0.75


@dataclass(frozen=True)
class Pair:
    """Two rows (first < second) that are copies, or look like it; `score` is their agreement, 0 to 1."""

    first: int
    second: int
    how: str
    sure: bool
    score: float


Track = Callable[[Iterable[Pair | None], int], Iterable[Pair | None]]  # shows how far the pairs are of a total


def _judge(nominee: Nominee, read: Read) -> Pair | None:
    first, second = sorted((nominee.outer, nominee.inner))
    one, two = read(first), read(second)
    if how := relation(one, two):
        return Pair(first, second, how, True, 1.0)
    inner = np.ascontiguousarray(turned(read(nominee.inner), nominee.version))
    disagreement, margins, contrast = compare(read(nominee.outer), inner, nominee.margins)
    if disagreement > UNSURE:
        return None
    version = nominee.version
    if nominee.inner == first and version in (2, 4):
        version = 6 - version  # the way back of a quarter turn
    words = [VERSIONS[version][2]] if version else []
    words += ["cropped"] if np.abs(margins).max() > 0.01 else []
    words += ["brighter or darker"] if not 0.93 < contrast < 1.07 else []
    words += ["recompressed or resized"] if len(words) < 2 else []
    sure = disagreement <= SURE or disagreement * nominee.residual <= SURE_PRODUCT
    return Pair(first, second, ", ".join(words), sure, max(0.0, 1 - disagreement))


def _fingerprint(image: np.ndarray) -> bytes:
    """Make bytes that are equal for all eight versions of an image: sides and each channel's histogram."""
    histograms = [np.bincount(image[..., channel].ravel(), minlength=256) for channel in range(image.shape[2])]
    return hashlib.blake2b(np.concatenate([sorted(image.shape[:2]), *histograms]).tobytes(), digest_size=16).digest()


def _equal(
    thumbnails: np.ndarray, flat: np.ndarray, read: Read, groups: Sequence[int | str]
) -> tuple[list[Pair], list[int]]:
    """Find pixel-equal pairs, each with the first of its kind, of one thumbnail or without texture -> pairs, firsts."""
    alike, pairs, firsts = defaultdict(list), [], []
    for row, thumb in enumerate(thumbnails):
        alike[b"" if flat[row] else thumb.tobytes()].append(row)
    for rows in alike.values():
        if len({groups[row] for row in rows}) == 1:
            firsts.append(rows[0])
            continue
        kinds: dict[bytes, list[tuple[int, np.ndarray]]] = defaultdict(list)
        for row in rows:
            image = read(row)
            kind = kinds[_fingerprint(image)]
            match = next(((first, how) for first, other in kind if (how := relation(other, image))), None)
            if match is None:
                kind.append((row, image))
                firsts.append(row)
            elif groups[match[0]] != groups[row]:
                pairs.append(Pair(match[0], row, match[1], True, 1.0))
    return pairs, sorted(firsts)


def without_texture(thumbnails: np.ndarray) -> np.ndarray:
    """List the rows of thumbnails (N, 64, 64) that are all of one gray: a plain picture's, or a fine pattern's."""
    return np.flatnonzero(thumbnails.reshape(len(thumbnails), SIDE * SIDE).std(axis=1) < 0.5)


def copies(
    thumbnails: np.ndarray,
    read: Read,
    groups: Sequence[str] | None = None,
    track: Track = lambda pairs, _: pairs,
) -> list[Pair]:
    """Find all near copies of different groups, sorted by row; thumbnails (N, 64, 64) as `thumbnail` makes them.

    `read(i)` decodes the i-th image, uint8 (H, W, C); it is called for nominated ones only. `track(items, total)` wraps
    the loop over nominated pairs. Of copies that hang together by other pairs already, no further pair is looked for.
    """
    labels: list[int] | list[str] = list(range(len(thumbnails))) if groups is None else list(groups)
    read = functools.lru_cache(maxsize=32)(read)
    flat = np.isin(np.arange(len(thumbnails)), without_texture(thumbnails))
    pairs, firsts = _equal(thumbnails, flat, read, labels)
    rows = np.array([row for row in firsts if not flat[row]], int)
    nominees = nominate(thumbnails[rows], np.unique(labels, return_inverse=True)[1][rows])
    cluster: _Clusters[int] = _Clusters()
    for pair in pairs:
        cluster.join(pair.first, pair.second)
    whole = [replace(one, outer=int(rows[one.outer]), inner=int(rows[one.inner])) for one in nominees]
    for judged in track(_judged(whole, cluster, read), len(whole)):
        if judged:
            pairs.append(judged)
    return sorted(pairs, key=lambda pair: (pair.first, pair.second))


def _judged(nominees: list[Nominee], cluster: "_Clusters[int]", read: Read) -> Iterator[Pair | None]:
    """Judge each nominee, several at a time; None too for those that hang together by then."""
    ahead = 2 * threads.CORES
    with threads.pool() as pool:
        for start in range(0, len(nominees), ahead):
            part = nominees[start : start + ahead]
            apart = [one for one in part if cluster.root(one.outer) != cluster.root(one.inner)]
            for pair in pool.map(lambda one: _judge(one, read), apart):
                if pair and pair.sure:
                    cluster.join(pair.first, pair.second)
                yield pair
            yield from [None] * (len(part) - len(apart))


class _Clusters(Generic[Member]):
    """Sets that grow together (union-find); the smallest member stands for its set."""

    def __init__(self) -> None:
        self.leader: dict[Member, Member] = {}

    def root(self, member: Member) -> Member:
        while (above := self.leader.get(member, member)) != member:
            self.leader[member] = self.leader.get(above, above)
            member = above
        return member

    def join(self, one: Member, other: Member) -> None:
        low, high = sorted((self.root(one), self.root(other)))
        self.leader[high] = low


def tie(groups: list[str], pairs: list[Pair]) -> list[str]:
    """Return the groups after those of each sure pair are made one, named by the first of their names."""
    clusters: _Clusters[str] = _Clusters()
    for pair in pairs:
        if pair.sure:
            clusters.join(groups[pair.first], groups[pair.second])
    return [clusters.root(group) for group in groups]


def across(pairs: list[Pair], folds: list[int]) -> list[Pair]:
    """Pairs whose images lie in different folds, copies of one original included; -1 counts as a fold.

    An image that no pair of its own betrays comes as a pair with the first of its copies in another fold.
    """
    clusters: _Clusters[int] = _Clusters()
    members: dict[int, list[int]] = defaultdict(list)
    leaks = [pair for pair in pairs if folds[pair.first] != folds[pair.second]]
    for pair in pairs:
        if pair.sure:
            clusters.join(pair.first, pair.second)
    scores = {row: pair.score for pair in pairs if pair.sure for row in (pair.first, pair.second)}
    listed = {row for pair in leaks if pair.sure for row in (pair.first, pair.second)}
    for row in sorted(scores):
        members[clusters.root(row)].append(row)
    for rows in members.values():
        for row in rows:
            other = next((other for other in rows if folds[other] != folds[row]), None)
            if row not in listed and other is not None:
                low, high = sorted((row, other))
                leaks.append(Pair(low, high, "copies of one picture", True, min(scores[low], scores[high])))
                listed |= {low, high}
    return sorted(leaks, key=lambda pair: (pair.first, pair.second))
