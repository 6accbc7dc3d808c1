"""Thumbnails of many pictures -> the few pairs that may be copies, in far less than a comparison of each with each.

Invariant frequencies of each picture, and of crops of it, are neighbours in a tree; what is near is fitted as a
thumbnail. Pictures of a turntable are all alike at that size, so this only nominates.
"""

import functools
import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from likeness import VERSIONS, grey

SIDE = 64
SOURCE, FINE, COARSE = 24, 12, 8  # lowest frequencies kept of a thumbnail, compared in an alignment, and in the search
STEP, BEYOND, NODES = 0.01, 2, 19  # margins of a crop are tabulated from -0.02 to 0.16 of a side
DIMENSIONS, NEIGHBOURS = 10, 4
# Residual of two aligned thumbnails. Of rendered cars 480 and 240 wide copies stay below 0.027 (overexposed: 0.04) and
# two cars begin at 0.032; microscopy recompressed to noise reaches 0.15, different microscopy begins at 0.6.
NEAR, FAR, FAR_CHECKS = 0.04, 0.2, 100
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


def thumbnail(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W, C), C of any number -> uint8 (64, 64): grey, averaged over areas, stretched to a square."""
    shrunk = grey(image)
    while min(shrunk.shape) >= 4 * SIDE:  # halving is much faster than any other ratio; an odd last line is left out
        height, width = (side // 2 for side in shrunk.shape)
        shrunk = cv2.resize(shrunk[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    # cv2 averages areas only where neither side grows
    smaller = min(shrunk.shape[1], SIDE), min(shrunk.shape[0], SIDE)
    shrunk = cv2.resize(shrunk, smaller, interpolation=cv2.INTER_AREA)
    return cv2.resize(shrunk, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


@functools.cache
def _cosines() -> np.ndarray:
    """The orthonormal DCT's lowest frequencies, float32 (24, 64)."""
    place = (np.arange(SIDE) + 0.5) / SIDE
    rows = np.cos(np.pi * np.outer(np.arange(SOURCE), place)) * np.sqrt(2 / SIDE)
    rows[0] /= np.sqrt(2)
    return rows.astype(np.float32)


def _stretch(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Margins (n,) -> (n, 12, 24): the frequencies of what lies between them, from those of the whole side."""
    place = (np.arange(SIDE) + 0.5) / SIDE
    inside = low[:, None] + (1 - low - high)[:, None] * place  # (n, 64)
    waves = np.cos(np.pi * np.arange(SOURCE) * inside[..., None]) * np.sqrt(2 / SIDE)
    waves[..., 0] /= np.sqrt(2)
    return _cosines()[:FINE] @ waves.astype(np.float32)


@functools.cache
def _table() -> np.ndarray:
    """`_stretch` and its two derivatives at all nodes of low and high margin, (19, 19, 3, 12, 24)."""
    nodes = (np.arange(NODES) - BEYOND) * STEP
    low, high = (grid.ravel() for grid in np.meshgrid(nodes, nodes, indexing="ij"))
    h = STEP / 2
    parts = [
        _stretch(low, high),
        (_stretch(low + h, high) - _stretch(low - h, high)) / STEP,
        (_stretch(low, high + h) - _stretch(low, high - h)) / STEP,
    ]
    return np.stack(parts, axis=1).reshape(NODES, NODES, 3, FINE, SOURCE)


def _spectra(thumbnails: np.ndarray) -> np.ndarray:
    """(N, 64, 64) -> float32 (N, 24, 24), the lowest frequencies."""
    basis, parts = _cosines(), range(0, len(thumbnails), 1024)
    return np.concatenate([basis @ thumbnails[at : at + 1024].astype(np.float32) @ basis.T for at in parts])


def _cropped(spectra: np.ndarray, margins: np.ndarray) -> np.ndarray:
    """(N, 24, 24) without margins (n, 4), all with each -> unit vectors (N, n, 8, 8), their mean left out."""
    rows, columns = (_stretch(margins[:, at], margins[:, at + 1])[:, :COARSE] for at in (0, 2))
    coarse = rows @ spectra[:, None] @ columns.transpose(0, 2, 1)
    coarse[..., 0, 0] = 0
    return coarse / np.maximum(np.linalg.norm(coarse, axis=(-1, -2), keepdims=True), 1e-6)


def invariants(coarse: np.ndarray) -> np.ndarray:
    """(..., 8, 8) -> (..., 63), equal for all eight versions of a picture.

    Mirroring changes the signs of odd frequencies, and a quarter turn exchanges the axes as well.
    """
    size, mirror = np.abs(coarse), np.abs(np.swapaxes(coarse, -1, -2))
    u, v = np.triu_indices(COARSE, 1)
    diagonal = np.arange(1, COARSE)
    both, either = (size + mirror)[..., u, v], np.abs(size - mirror)[..., u, v]
    return np.concatenate([size[..., diagonal, diagonal], both / np.sqrt(2), either / np.sqrt(2)], axis=-1)


def _turned_spectra(spectra: np.ndarray, version: int) -> np.ndarray:
    """The spectra (..., K, K) of `turned` pictures."""
    turns, mirrored, _ = VERSIONS[version]
    sign = (1 - 2 * (np.arange(spectra.shape[-1]) % 2)).astype(np.float32)
    result = spectra * sign if mirrored else spectra
    for _ in range(turns):
        result = np.swapaxes(result, -1, -2) * sign[:, None]
    return result


def _axes(thumbnails: np.ndarray) -> tuple[np.ndarray, float]:
    """Discriminant axes (63, 10), in which pictures lie far apart and their copies close, and how far copies lie.

    Fisher's criterion: spread over the pictures against spread over crops and overexposure of one picture.
    """
    from scipy.linalg import eigh

    random = np.random.default_rng(0)
    sample = thumbnails[random.permutation(len(thumbnails))[:400]]
    plain, bright = _spectra(sample), _spectra(np.minimum(sample * 1.15, 255))
    moved = []
    for draw in range(24):
        margins = random.uniform(0, 0.08, (1, 4))
        window = _cropped(plain, np.where(margins < 0.04, 0.02, 0.06))
        moved.append(invariants(_cropped(bright if draw % 3 == 0 else plain, margins)) - invariants(window))
    changes = np.concatenate(moved).reshape(-1, COARSE * COARSE - 1)
    whole = invariants(_cropped(plain, WINDOWS[:1]))[:, 0]
    within = changes.T @ changes / len(changes)
    within += np.eye(len(within)) * (0.03 * np.trace(within) / len(within) + 1e-7)
    centred = whole - whole.mean(0)
    axes = eigh(centred.T @ centred / len(whole), within)[1][:, : -DIMENSIONS - 1 : -1].astype(np.float32)
    return axes, 1.3 * float(np.quantile(np.linalg.norm(changes @ axes, axis=1), 0.995))


def _neighbours(spectra: np.ndarray, thumbnails: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Candidates, int (M, 3): outer, window, inner; each pair once, few a picture."""
    from scipy.spatial import cKDTree

    count, (axes, radius) = len(spectra), _axes(thumbnails)
    points = invariants(_cropped(spectra, WINDOWS[:1]))[:, 0] @ axes
    tree, found = cKDTree(points), []
    slack = 1.0 if count > 5000 else 0.0  # a third of the time, and seldom another neighbour
    for number, window in enumerate(WINDOWS):
        rows = np.arange(count)
        queries = points if number == 0 else invariants(_cropped(spectra, window[None]))[:, 0] @ axes
        wanted = max(NEIGHBOURS, 20_000 // count)  # a small set can afford more
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
    """How many equal members stand before each."""
    order = np.argsort(members, kind="stable")
    result = np.empty(len(members), int)
    result[order] = np.arange(len(members)) - np.searchsorted(members[order], members[order])
    return result


def _thinned(found: np.ndarray, count: int) -> np.ndarray:
    """Each outer and inner at their two nearest windows, if they are among the nearest few of one of the two.

    Two, because the descriptor of a picture that is nearly its own mirror image cannot tell left from right.
    """
    found = found[np.argsort(found[:, 3], kind="stable")].astype(np.int64)
    found = found[_rank(found[:, 0] * count + found[:, 2]) < 2]
    few = 2 * max(NEIGHBOURS, 20_000 // count)
    return found[(_rank(found[:, 0]) < few) | (_rank(found[:, 2]) < few), :3]


def _align(moving: np.ndarray, fixed: np.ndarray, margins: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Margins (B, 4) of the spectra `moving` (B, 24, 24) where they fit `fixed` (B, 12, 12) best, and residuals (B,).

    Gauss-Newton over the four margins and the contrast; the residual is a share of the fixed picture's deviation.
    """
    if not len(fixed):
        return margins, np.ones(0)
    table, target = _table(), fixed.reshape(-1, FINE * FINE)[:, 1:]
    norm, residual = np.maximum(np.linalg.norm(target, axis=1), 1e-6), np.ones(len(fixed))
    for _ in range(steps):
        node = np.clip(np.rint(margins / STEP).astype(int) + BEYOND, 0, NODES - 1)
        rows, columns = table[node[:, 0], node[:, 1]], table[node[:, 2], node[:, 3]]  # (B, 3, 12, 24)
        right = moving @ columns[:, 0].transpose(0, 2, 1)
        left = rows[:, 0] @ moving
        down = rows.reshape(-1, 3 * FINE, SOURCE) @ right
        along = left[:, None] @ columns[:, 1:].transpose(0, 1, 3, 2)
        flat = down.reshape(-1, 3, FINE * FINE), along.reshape(-1, 2, FINE * FINE)
        parts = np.concatenate(flat, axis=1)[..., 1:]
        normal = parts @ parts.transpose(0, 2, 1)
        normal += np.eye(5) * (1e-4 * np.trace(normal, axis1=1, axis2=2)[:, None, None] / 5 + 1e-3)
        solved = np.linalg.solve(normal, parts @ target[..., None])[..., 0]
        contrast = np.maximum(solved[:, :1], 0.1)
        change = np.clip(solved[:, 1:] / contrast, -0.03, 0.03)
        weights = np.concatenate([contrast, contrast * change], axis=1)
        residual = np.linalg.norm(target - (weights[:, None] @ parts)[:, 0], axis=1) / norm
        margins = (node - BEYOND) * STEP + change
    return margins, residual


def _fit(spectra: np.ndarray, found: np.ndarray, versions: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """`_align` of candidates (M, 3) in their versions (M,), in slices on all cores."""
    small = np.ascontiguousarray(spectra[:, :FINE, :FINE])

    def one(at: int) -> tuple[np.ndarray, np.ndarray]:
        rows, version = found[at : at + 1024], versions[at : at + 1024]
        fixed = small[rows[:, 2]]
        for number in range(1, len(VERSIONS)):
            fixed[version == number] = _turned_spectra(fixed[version == number], number)
        return _align(spectra[rows[:, 0]], fixed, WINDOWS[rows[:, 1]], steps)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = list(pool.map(one, range(0, max(len(found), 1), 1024)))
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _likely_versions(spectra: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The candidates once or twice, (M', 3), each with one of its two most similar versions (M',)."""
    similar = np.empty((len(found), len(VERSIONS)), np.float32)
    whole = _cropped(spectra, WINDOWS[:1])[:, 0]
    for number, window in enumerate(WINDOWS):
        at = np.flatnonzero(found[:, 1] == number)
        outer, inner = _cropped(spectra[found[at, 0]], window[None])[:, 0], whole[found[at, 2]]
        for version in range(len(VERSIONS)):
            similar[at, version] = (outer * _turned_spectra(inner, version)).sum((-1, -2))
    order = np.argsort(-similar, axis=1)[:, :2]
    best = np.take_along_axis(similar, order, axis=1)
    row, column = np.nonzero((best > 0.5) & (best > best[:, :1] - 0.15))
    return found[row], order[row, column]


def _evenly_exposed(
    thumbnails: np.ndarray, ordered: np.ndarray, cut: np.ndarray, found: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Spectra of pairs, outer ones and inner ones, after what one of a pair has cut off is cut off in the other.

    ordered (N, 4096): each thumbnail's pixels by value; cut (N, 2): the shares of them that are dark and light.
    """
    pair = found[:, [0, 2]]
    share, last = cut[pair].max(1), ordered.shape[1] - 1  # (B, 2)
    low = ordered[pair, np.rint(share[:, :1] * last).astype(int)][..., None]
    high = ordered[pair, np.rint((1 - share[:, 1:]) * last).astype(int)][..., None]
    even = np.clip(thumbnails[pair].reshape(len(pair), 2, -1), low, high).reshape(-1, 2, SIDE, SIDE)
    return _spectra(even[:, 0]), _spectra(even[:, 1])


def nominate(thumbnails: np.ndarray, groups: np.ndarray) -> list[Nominee]:
    """Pairs of different groups that agree as thumbnails, best first; thumbnails (N, 64, 64), groups int (N,)."""
    if len(thumbnails) < 2:
        return []
    spectra = _spectra(thumbnails)
    found, versions = _likely_versions(spectra, _neighbours(spectra, thumbnails, groups))
    residual = _fit(spectra, found, versions, 1)[1]  # most are soon seen not to come together
    found, versions = found[residual < 0.8], versions[residual < 0.8]
    margins, residual = _fit(spectra, found, versions, 4)
    cut = np.stack([(thumbnails <= 3).mean((1, 2)), (thumbnails >= 252).mean((1, 2))], axis=1)
    differs = (np.abs(cut[found[:, 0]] - cut[found[:, 2]]) > 0.01).any(1)
    doubt = np.flatnonzero((residual > NEAR) & (residual < 0.3) & differs)
    ordered = np.sort(thumbnails.reshape(len(thumbnails), -1), axis=1) if len(doubt) else thumbnails
    for start in range(0, len(doubt), 4096):
        at = doubt[start : start + 4096]
        rows = np.arange(len(at))
        again = np.stack([rows, found[at, 1], rows + len(at)], axis=1)
        even = np.concatenate(_evenly_exposed(thumbnails, ordered, cut, found[at]))
        margins[at], residual[at] = _fit(even, again, versions[at], 4)
    order, seen, nominees = np.argsort(residual, kind="stable"), set(), []
    for at in order[: int((residual <= NEAR).sum()) + FAR_CHECKS]:
        outer, inner = int(found[at, 0]), int(found[at, 2])
        if residual[at] <= FAR and (min(outer, inner), max(outer, inner)) not in seen:
            seen.add((min(outer, inner), max(outer, inner)))
            nominees.append(Nominee(outer, inner, int(versions[at]), margins[at], float(residual[at])))
    return nominees
