"""Leak audit: near copies of a picture in two folds (recompressed, resized, turned, cropped) make the score a fiction.

Thumbnails only nominate pairs, since pictures of a turntable are all alike at that size; an aligned comparison at full
resolution decides, and what it cannot decide is for a person to look at.
"""

import functools
import hashlib
import itertools
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import cv2
import numpy as np

SIDE = 64
SOURCE, FINE, COARSE = 24, 12, 8  # lowest frequencies kept of a thumbnail, compared in an alignment, and in the search
STEP, BEYOND, NODES = 0.01, 2, 19  # margins of a crop are tabulated from -0.02 to 0.16 of a side
DIMENSIONS, NEIGHBOURS = 10, 4
# Residual of two aligned thumbnails. Of rendered cars 480 and 240 wide copies stay below 0.027 (overexposed: 0.04) and
# two cars begin at 0.032; microscopy recompressed to noise reaches 0.15, different microscopy begins at 0.6.
NEAR, FAR, FAR_CHECKS = 0.04, 0.2, 100
LONGEST = 1024  # pixels of the longer side, when compared
# Disagreement of blocks at full resolution, and that times the thumbnails' residual. Compression speaks at the finest
# scale and another car at all scales, so the product parts them better. 40 rendered cars, 480 and 240 wide: copies to
# 0.0095, two cars from 0.0165 (their disagreement from 0.49). At 96 x 64 pixels JPEG 40 overlaps with alike cars (copy
# to 0.024, two cars from 0.016, their disagreement from 0.38): such copies stay unsure.
SURE, SURE_PRODUCT, UNSURE = 0.3, 0.0125, 0.75
UPRIGHT = "the same picture"
VERSIONS = (
    (0, False, UPRIGHT),
    (0, True, "mirrored"),
    (1, False, "turned by 90"),
    (2, False, "turned by 180"),
    (3, False, "turned by 270"),
    (1, True, "mirrored and turned by 90"),
    (2, True, "mirrored and turned by 180"),
    (3, True, "mirrored and turned by 270"),
)
# top, bottom, left, right: the whole picture, and crops such that none of up to 0.08 a side is further than 0.02 away
WINDOWS = np.array([(0.0, 0.0, 0.0, 0.0), *itertools.product((0.02, 0.06), repeat=4)])


@dataclass(frozen=True)
class Pair:
    """Two rows (first < second) that are copies, or look like it; `score` is their agreement, 0 to 1."""

    first: int
    second: int
    how: str
    sure: bool
    score: float


@dataclass(frozen=True)
class _Nominee:
    """Row `inner`, in a version, looks like row `outer` without these margins (top, bottom, left, right; shares)."""

    outer: int
    inner: int
    version: int
    margins: np.ndarray
    residual: float


def grey(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W, C) or (H, W) -> uint8 (H, W); three channels are RGB, of others the mean is taken."""
    if image.ndim == 2:
        return image
    if image.shape[2] == 3:
        return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return image[..., 0] if image.shape[2] == 1 else (image.mean(axis=2) + 0.5).astype(np.uint8)


def thumbnail(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W, C), C of any number -> uint8 (64, 64): grey, averaged over areas, stretched to a square."""
    # cv2 averages areas only where neither side grows
    smaller = min(image.shape[1], SIDE), min(image.shape[0], SIDE)
    shrunk = cv2.resize(grey(image), smaller, interpolation=cv2.INTER_AREA)
    return cv2.resize(shrunk, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


def turned(image: np.ndarray, version: int) -> np.ndarray:
    """One of the eight mirrored and turned versions of (H, W[, C])."""
    turns, mirrored, _ = VERSIONS[version]
    return np.rot90(image[:, ::-1] if mirrored else image, turns)


def relation(first: np.ndarray, second: np.ndarray) -> str:
    """How `second` is `first`, to the pixel ("mirrored", ...), or "" where it is another picture."""
    for version, (_, _, name) in enumerate(VERSIONS):
        candidate = turned(second, version)
        if candidate.shape == first.shape and np.array_equal(first, candidate):
            return name
    return ""


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


def _evenly_exposed(thumbnails: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spectra of pairs, outer ones and inner ones, after what one of a pair has cut off is cut off in the other."""
    pair = thumbnails[found[:, [0, 2]]].reshape(len(found), 2, -1)
    dark, light = (pair <= 3).mean(2).max(1), (pair >= 252).mean(2).max(1)
    pair = np.sort(pair, axis=2), pair
    last = pair[0].shape[2] - 1
    low = np.take_along_axis(pair[0], np.rint(dark * last).astype(int)[:, None, None], 2)
    high = np.take_along_axis(pair[0], np.rint((1 - light) * last).astype(int)[:, None, None], 2)
    even = np.clip(pair[1], low, high).reshape(-1, 2, SIDE, SIDE)
    return _spectra(even[:, 0]), _spectra(even[:, 1])


def _nominate(thumbnails: np.ndarray, groups: np.ndarray) -> list[_Nominee]:
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
    for start in range(0, len(doubt), 1024):
        at = doubt[start : start + 1024]
        rows = np.arange(len(at))
        again = np.stack([rows, found[at, 1], rows + len(at)], axis=1)
        even = np.concatenate(_evenly_exposed(thumbnails, found[at]))
        margins[at], residual[at] = _fit(even, again, versions[at], 4)
    order, seen, nominees = np.argsort(residual, kind="stable"), set(), []
    for at in order[: int((residual <= NEAR).sum()) + FAR_CHECKS]:
        outer, inner = int(found[at, 0]), int(found[at, 2])
        if residual[at] <= FAR and (min(outer, inner), max(outer, inner)) not in seen:
            seen.add((min(outer, inner), max(outer, inner)))
            nominees.append(_Nominee(outer, inner, int(versions[at]), margins[at], float(residual[at])))
    return nominees


def _window(image: np.ndarray, margins: np.ndarray, height: int, width: int) -> np.ndarray:
    """What of (H, W[, C]) lies between the margins, resampled to (height, width[, C])."""
    tall, wide = 1 - margins[0] - margins[1], 1 - margins[2] - margins[3]
    rows, columns = image.shape[:2]
    if height < 0.99 * rows * tall or width < 0.99 * columns * wide:  # linear interpolation alone would alias
        rows, columns = (
            max(1, min(side, round(want))) for side, want in ((rows, height / tall), (columns, width / wide))
        )
        image = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
    x, y = wide * columns / width, tall * rows / height
    matrix = np.array([[x, 0, margins[2] * columns + x / 2 - 0.5], [0, y, margins[0] * rows + y / 2 - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _refine(fixed: np.ndarray, moving: np.ndarray, margins: np.ndarray, steps: int) -> np.ndarray:
    """Gauss-Newton on pixels: the margins of grey `moving` (H, W) at which it is `fixed` (h, w), float32."""
    height, width = fixed.shape
    u, v = (
        (np.arange(width, dtype=np.float32) + 0.5) / width,
        ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None],
    )
    for _ in range(steps):
        now = _window(moving, margins, height, width)
        down, along = np.gradient(now)
        down, along = down * height / (1 - margins[0] - margins[1]), along * width / (1 - margins[2] - margins[3])
        usable = (fixed > 3) & (fixed < 252) & (now > 3) & (now < 252)
        if usable.sum() < 50:
            break
        parts = np.stack([down * (1 - v), -down * v, along * (1 - u), -along * u, now, np.ones_like(now)]) * usable
        parts = parts.reshape(6, -1)
        normal = (parts @ parts.T).astype(np.float64)
        normal[np.diag_indices(6)] += 1e-3 * np.trace(normal[:4, :4]) / 4 * np.array([1, 1, 1, 1, 0, 0]) + 1e-3
        solved = np.linalg.solve(normal, (parts @ fixed.ravel()).astype(np.float64))
        change = np.clip(solved[:4] / max(solved[4], 0.2), -0.02, 0.02)
        margins = np.clip(margins + change, -0.05, 0.2)
        if np.abs(change).max() * max(height, width) < 0.02:
            break
    return margins


def _disagreement(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """The mean of the worst twentieth of blocks, and the contrast's change; aligned float32 (h, w, C), blurred.

    A block's value is what remains of it after brightness and contrast are fitted over the picture, relative to the
    block's own deviation: about 1 where the two have nothing in common. Copies agree everywhere; two objects before the
    same background do not where the objects are.
    """
    height, width, channels = first.shape
    share = 24 / max(height, width)
    blocks = tuple(max(1, min(side // 4, round(side * share))) for side in (width, height))

    def means(values: np.ndarray) -> np.ndarray:
        return cv2.resize(values, blocks, interpolation=cv2.INTER_AREA)

    def variances(values: np.ndarray) -> np.ndarray:
        return np.maximum(means(values**2) - means(values) ** 2, 0)

    # compression removes what is faint beside the rest of the picture
    noise = np.clip(0.12 * first.std(), 2, 8)
    left, deviation, contrasts = np.zeros(blocks[::-1]), np.full(blocks[::-1], noise**2), []
    for channel in range(channels):
        one, two = np.ascontiguousarray(first[..., channel]), np.ascontiguousarray(second[..., channel])
        usable = (one > 3) & (one < 252) & (two > 3) & (two < 252)
        if usable.sum() < max(20, 0.02 * usable.size):
            return 9.0, 1.0
        here, there = one[usable], two[usable]
        contrast = np.mean((here - here.mean()) * (there - there.mean())) / max(there.var(), 1e-6)
        rest = one - contrast * two - (here.mean() - contrast * there.mean())
        # what was cut off at 0 or 255 may have been any amount beyond
        rest = np.where((one >= 252) | (two <= 3), np.maximum(rest, 0), rest)
        rest = np.where((one <= 3) | (two >= 252), np.minimum(rest, 0), rest)
        left += means(rest**2) / channels
        deviation += np.maximum(variances(one), contrast**2 * variances(two)) / channels
        contrasts.append(contrast)
    worst = np.sort(np.sqrt(left / deviation), axis=None)
    return float(worst[-max(1, len(worst) // 20) :].mean()), float(np.mean(contrasts))


def compare(outer: np.ndarray, inner: np.ndarray, margins: np.ndarray) -> tuple[float, np.ndarray, float]:
    """Align uint8 (H, W, C) `inner`, the right way up, within `outer` -> disagreement, margins, contrast."""
    seen = (outer.shape[0] * (1 - margins[0] - margins[1]), outer.shape[1] * (1 - margins[2] - margins[3]))
    height, width = min(inner.shape[0], round(seen[0])), min(inner.shape[1], round(seen[1]))
    shrink = min(1, LONGEST / max(height, width))
    height, width = max(1, round(height * shrink)), max(1, round(width * shrink))
    moving, fixed = grey(outer).astype(np.float32), grey(inner).astype(np.float32)
    for longest, steps in ((128, 8), (480, 3)):
        size = min(1, longest / max(height, width))
        shape = max(1, round(width * size)), max(1, round(height * size))
        if min(shape) >= 8:
            margins = _refine(cv2.resize(fixed, shape, interpolation=cv2.INTER_AREA), moving, margins, steps)
    if outer.shape[2] != inner.shape[2]:
        outer, inner = grey(outer)[..., None], grey(inner)[..., None]
    pair = cv2.resize(inner, (width, height), interpolation=cv2.INTER_AREA), _window(outer, margins, height, width)
    one, two = (
        cv2.GaussianBlur(part.astype(np.float32), (0, 0), 1.0).reshape(height, width, -1) for part in pair
    )  # the blur takes away what resampling and compression change
    disagreement, contrast = _disagreement(one, two)
    return disagreement, margins, contrast


def _judge(nominee: _Nominee, read: Callable[[int], np.ndarray]) -> Pair | None:
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
    """Equal for all eight versions of an image: sides and each channel's histogram."""
    histograms = [np.bincount(image[..., channel].ravel(), minlength=256) for channel in range(image.shape[2])]
    return hashlib.blake2b(np.concatenate([sorted(image.shape[:2]), *histograms]).tobytes(), digest_size=16).digest()


def _equal(thumbnails: np.ndarray, flat: np.ndarray, read: Callable, groups: Sequence) -> tuple[list[Pair], list[int]]:
    """Pixel-equal pairs, each with the first of its kind, of one thumbnail or without texture -> pairs, firsts."""
    alike, pairs, firsts = defaultdict(list), [], []
    for row, thumb in enumerate(thumbnails):
        alike[b"" if flat[row] else thumb.tobytes()].append(row)
    for rows in alike.values():
        if len({groups[row] for row in rows}) == 1:
            firsts.append(rows[0])
            continue
        kinds = defaultdict(list)
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


def copies(
    thumbnails: np.ndarray,
    read: Callable[[int], np.ndarray],
    groups: Sequence[str] | None = None,
    track: Callable = lambda items, _: items,
) -> list[Pair]:
    """All near copies of different groups, sorted by row; thumbnails (N, 64, 64) as `thumbnail` makes them.

    `read(i)` decodes the i-th image, uint8 (H, W, C); it is called for nominated ones only. `track(items, total)` wraps
    the loop over nominated pairs. Of copies that hang together by other pairs already, no further pair is looked for.
    """
    labels = list(range(len(thumbnails))) if groups is None else list(groups)
    read = functools.lru_cache(maxsize=8)(read)
    flat = thumbnails.reshape(len(thumbnails), SIDE * SIDE).std(axis=1) < 0.5
    pairs, firsts = _equal(thumbnails, flat, read, labels)
    rows = np.array([row for row in firsts if not flat[row]], int)
    nominees = _nominate(thumbnails[rows], np.unique(labels, return_inverse=True)[1][rows])
    cluster = _Clusters()
    for pair in pairs:
        cluster.join(pair.first, pair.second)
    for nominee in track(nominees, len(nominees)):
        outer, inner = int(rows[nominee.outer]), int(rows[nominee.inner])
        if cluster.root(outer) != cluster.root(inner):
            pair = _judge(replace(nominee, outer=outer, inner=inner), read)
            pairs += [pair] if pair else []
            if pair and pair.sure:
                cluster.join(outer, inner)
    return sorted(pairs, key=lambda pair: (pair.first, pair.second))


class _Clusters:
    """Sets that grow together (union-find); the smallest member stands for its set."""

    def __init__(self) -> None:
        self.leader: dict = {}

    def root(self, member: object) -> object:
        while (above := self.leader.get(member, member)) != member:
            self.leader[member] = self.leader.get(above, above)
            member = above
        return member

    def join(self, one: object, other: object) -> None:
        low, high = sorted((self.root(one), self.root(other)))
        self.leader[high] = low


def tie(groups: list[str], pairs: list[Pair]) -> list[str]:
    """The groups after those of each sure pair are made one, named by the first of their names."""
    clusters = _Clusters()
    for pair in pairs:
        if pair.sure:
            clusters.join(groups[pair.first], groups[pair.second])
    return [clusters.root(group) for group in groups]


def across(pairs: list[Pair], folds: list[int]) -> list[Pair]:
    """Pairs whose images lie in different folds, copies of one original included; -1 counts as a fold.

    An image that no pair of its own betrays comes as a pair with the first of its copies in another fold.
    """
    clusters, members = _Clusters(), defaultdict(list)
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
