"""Thumbnails of many pictures -> the few pairs that may be copies, in far less than a comparison of each with each.

Invariant frequencies of each picture, and of crops of it, are neighbors in a tree; what is near is fitted as a
thumbnail. Pictures of a turntable are all alike at that size, so this only nominates.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from data.leak_audit.alignment import VERSIONS
from data.leak_audit.spectra import COARSE, FINE, SIDE, align, cropped, invariants, spectra_of, turned
from tools import threads

DIMENSIONS, NEIGHBORS = 10, 4
# Residual of two aligned thumbnails. Of rendered cars 480 and 240 wide copies stay below 0.027 (overexposed: 0.04) and
# two cars begin at 0.032; microscopy recompressed to noise reaches 0.15, different microscopy begins at 0.6.
NEAR, FAR, FAR_CHECKS = 0.04, 0.2, 100
# What candidates must reach before more work goes into them. Of 930 planted copies among 20,000 thumbnails that end
# below FAR the least similar began at 0.94, and the furthest had 0.3 left after one step.
SIMILAR, FITS = 0.88, ((1, 0.4), (1, 0.35), (2, 0.3))
# top, bottom, left, right: the whole picture, and crops such that none of up to 0.08 a side is further than 0.02 away
WINDOWS = np.array([(0.0, 0.0, 0.0, 0.0), *itertools.product((0.02, 0.06), repeat=4)])


@dataclass(frozen=True)
class Nominee:
    """Row `inner`, in a version, looks like row `outer` without these margins (top, bottom, left, right; shares)."""

    outer: int
    inner: int
    version: int
    margins: np.ndarray
    residual: float


def _axes(thumbnails: np.ndarray) -> tuple[np.ndarray, float]:
    """Find discriminant axes (63, 10), in which pictures lie far apart and their copies close, and how far copies lie.

    Fisher's criterion: spread over the pictures against spread over crops and overexposure of one picture.
    """
    from scipy.linalg import eigh

    random = np.random.default_rng(0)
    sample = thumbnails[random.permutation(len(thumbnails))[:400]]
    plain, bright = spectra_of(sample), spectra_of(np.minimum(sample * 1.15, 255))
    moved = []
    for draw in range(24):
        margins = random.uniform(0, 0.08, 4)
        window = cropped(plain, np.where(margins < 0.04, 0.02, 0.06))
        moved.append(invariants(cropped(bright if draw % 3 == 0 else plain, margins)) - invariants(window))
    changes = np.concatenate(moved).reshape(-1, COARSE * COARSE - 1)
    whole = invariants(cropped(plain, WINDOWS[0]))
    within = changes.T @ changes / len(changes)
    within += np.eye(len(within)) * (0.03 * np.trace(within) / len(within) + 1e-7)
    centered = whole - whole.mean(0)
    axes = eigh(centered.T @ centered / len(whole), within)[1][:, : -DIMENSIONS - 1 : -1].astype(np.float32)
    return axes, 1.3 * float(np.quantile(np.linalg.norm(changes @ axes, axis=1), 0.995))


def _neighbors(spectra: np.ndarray, thumbnails: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Find candidates, int (M, 3): outer, window, inner; each pair once, few a picture."""
    from scipy.spatial import cKDTree

    count, (axes, radius) = len(spectra), _axes(thumbnails)
    points = invariants(cropped(spectra, WINDOWS[0])) @ axes
    tree, found = cKDTree(points), []
    slack = 2.0 if count > 5000 else 0.0  # a quarter of the time, and seldom another neighbor
    for number, window in enumerate(WINDOWS):
        rows = np.arange(count)
        queries = points if number == 0 else invariants(cropped(spectra, window)) @ axes
        wanted = max(NEIGHBORS, 20_000 // count)  # a small set can afford more
        while len(rows) and wanted <= max(64, 20_000 // count):
            distance, inner = tree.query(
                queries[rows], min(wanted, count), eps=slack, distance_upper_bound=radius, workers=-1
            )
            distance, inner = distance.reshape(len(rows), -1), inner.reshape(len(rows), -1)
            reached = np.isfinite(distance)
            foreign = reached & (groups[np.where(reached, inner, 0)] != groups[rows][:, None])
            at, column = np.nonzero(foreign)
            found.append(np.stack([rows[at], np.full(len(at), number), inner[at, column], distance[at, column]], 1))
            rows = rows[reached.all(1) & ~foreign.any(1)]  # its own group filled the list: look further
            wanted = 4 * wanted if wanted < count else 10**9
    return _thinned(np.concatenate(found), count)


def _rank(members: np.ndarray) -> np.ndarray:
    """Count how many equal members stand before each."""
    order = np.argsort(members, kind="stable")
    result = np.empty(len(members), int)
    result[order] = np.arange(len(members)) - np.searchsorted(members[order], members[order])
    return result


def _thinned(found: np.ndarray, count: int) -> np.ndarray:
    """Keep each outer and inner at their two nearest windows, if they are among the nearest few of one of the two.

    Two, because the descriptor of a picture that is nearly its own mirror image cannot tell left from right.
    """
    found = found[np.argsort(found[:, 3], kind="stable")].astype(np.int64)
    found = found[_rank(found[:, 0] * count + found[:, 2]) < 2]
    few = 2 * max(NEIGHBORS, 20_000 // count)
    return found[(_rank(found[:, 0]) < few) | (_rank(found[:, 2]) < few), :3]


def _fit(
    spectra: np.ndarray, found: np.ndarray, versions: np.ndarray, margins: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Align candidates (M, 3) in their versions (M,) from margins (M, 4) on, in slices on all cores."""
    small = np.ascontiguousarray(spectra[:, :FINE, :FINE])

    def one(at: int) -> tuple[np.ndarray, np.ndarray]:
        rows, version = found[at : at + 1024], versions[at : at + 1024]
        fixed = small[rows[:, 2]]
        for number in range(1, len(VERSIONS)):
            fixed[version == number] = turned(fixed[version == number], number)
        return align(spectra[rows[:, 0]], fixed, margins[at : at + 1024], steps)

    with threads.pool() as pool:
        parts = list(pool.map(one, range(0, max(len(found), 1), 1024)))
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _likely_versions(spectra: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give the candidates once or twice, (M', 3), each with one of its two most similar versions (M',)."""
    similar = np.empty((len(found), len(VERSIONS)), np.float32)
    # a version exchanges the axes or does not, and changes signs
    quarter = np.array([turns % 2 for turns, _, _ in VERSIONS])
    ones = np.ones((COARSE, COARSE), np.float32)
    signs = np.stack([turned(ones, version).ravel() for version in range(len(VERSIONS))])
    whole = cropped(spectra, WINDOWS[0])
    for number, window in enumerate(WINDOWS):
        at = np.flatnonzero(found[:, 1] == number)
        outer, inner = cropped(spectra, window)[found[at, 0]], whole[found[at, 2]]
        for odd, product in enumerate((outer * inner, outer * np.swapaxes(inner, -1, -2))):
            similar[np.ix_(at, quarter == odd)] = product.reshape(len(at), COARSE * COARSE) @ signs[quarter == odd].T
    order = np.argsort(-similar, axis=1)[:, :2]
    best = np.take_along_axis(similar, order, axis=1)
    row, column = np.nonzero((best > SIMILAR) & (best > best[:, :1] - 0.15))
    return found[row], order[row, column]


def _evenly_exposed(
    thumbnails: np.ndarray, ordered: np.ndarray, cut: np.ndarray, found: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Make spectra of pairs, outer ones and inner ones, after what one of a pair has cut off is cut off in the other.

    ordered (N, 4096): each thumbnail's pixels by value; cut (N, 2): the shares of them that are dark and light.
    """
    pair = found[:, [0, 2]]
    share, last = cut[pair].max(1), ordered.shape[1] - 1  # (B, 2)
    low = ordered[pair, np.rint(share[:, :1] * last).astype(int)][..., None]
    high = ordered[pair, np.rint((1 - share[:, 1:]) * last).astype(int)][..., None]
    even = np.clip(thumbnails[pair].reshape(len(pair), 2, -1), low, high).reshape(-1, 2, SIDE, SIDE)
    return spectra_of(even[:, 0]), spectra_of(even[:, 1])


def nominate(thumbnails: np.ndarray, groups: np.ndarray) -> list[Nominee]:
    """Nominate pairs of different groups that agree as thumbnails (N, 64, 64), best first; groups int (N,)."""
    if len(thumbnails) < 2:
        return []
    spectra = spectra_of(thumbnails)
    found, versions = _likely_versions(spectra, _neighbors(spectra, thumbnails, groups))
    margins = WINDOWS[found[:, 1]]
    for steps, limit in FITS:  # most are soon seen not to come together
        margins, residual = _fit(spectra, found, versions, margins, steps)
        near = residual < limit
        found, versions, margins, residual = found[near], versions[near], margins[near], residual[near]
    cut = np.stack([(thumbnails <= 3).mean((1, 2)), (thumbnails >= 252).mean((1, 2))], axis=1)
    differs = (np.abs(cut[found[:, 0]] - cut[found[:, 2]]) > 0.01).any(1)
    doubt = np.flatnonzero((residual > NEAR) & (residual < 0.2) & differs)
    # kind: bytes are sorted by radix, ten times as fast
    ordered = np.sort(thumbnails.reshape(len(thumbnails), -1), axis=1, kind="stable") if len(doubt) else thumbnails
    for start in range(0, len(doubt), 4096):
        at = doubt[start : start + 4096]
        rows = np.arange(len(at))
        again = np.stack([rows, found[at, 1], rows + len(at)], axis=1)
        even = np.concatenate(_evenly_exposed(thumbnails, ordered, cut, found[at]))
        margins[at], residual[at] = _fit(even, again, versions[at], margins[at], 3)
    order, seen, nominees = np.argsort(residual, kind="stable"), set(), []
    for at in order[: int((residual <= NEAR).sum()) + FAR_CHECKS]:
        outer, inner = int(found[at, 0]), int(found[at, 2])
        if residual[at] <= FAR and (min(outer, inner), max(outer, inner)) not in seen:
            seen.add((min(outer, inner), max(outer, inner)))
            nominees.append(Nominee(outer, inner, int(versions[at]), margins[at], float(residual[at])))
    return nominees
