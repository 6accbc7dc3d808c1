"""Thumbnails as frequencies: what lies between margins, mirrored or turned, without going back to pixels."""

import functools

import cv2
import numpy as np

from data.leak_audit.alignment import VERSIONS, gray

SIDE = 64
SOURCE, FINE, COARSE = 24, 12, 8  # lowest frequencies kept of a thumbnail, compared in an alignment, and in the search
STEP, BEYOND, NODES = 0.01, 2, 19  # margins of a crop are tabulated from -0.02 to 0.16 of a side


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Turn uint8 (H, W, C), C of any number, into uint8 (64, 64): gray, averaged over areas, stretched to a square.

    Four rows a cell are enough; making all of them gray would be most of the time.
    """
    shrunk = gray(image[:: max(1, len(image) // (4 * SIDE))])
    while min(shrunk.shape) >= 4 * SIDE:  # halving is much faster than any other ratio; an odd last line is left out
        height, width = (side // 2 for side in shrunk.shape)
        shrunk = cv2.resize(shrunk[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    # cv2 averages areas only where neither side grows
    smaller = min(shrunk.shape[1], SIDE), min(shrunk.shape[0], SIDE)
    shrunk = cv2.resize(shrunk, smaller, interpolation=cv2.INTER_AREA)
    return cv2.resize(shrunk, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


@functools.cache
def _cosines() -> np.ndarray:
    """Return the orthonormal DCT's lowest frequencies, float32 (24, 64)."""
    place = (np.arange(SIDE) + 0.5) / SIDE
    rows = np.cos(np.pi * np.outer(np.arange(SOURCE), place)) * np.sqrt(2 / SIDE)
    rows[0] /= np.sqrt(2)
    return rows.astype(np.float32)


def _stretch(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Turn margins (n,) into (n, 12, 24): the frequencies of what lies between them, from those of the whole side."""
    place = (np.arange(SIDE) + 0.5) / SIDE
    inside = low[:, None] + (1 - low - high)[:, None] * place  # (n, 64)
    waves = np.cos(np.pi * np.arange(SOURCE) * inside[..., None]) * np.sqrt(2 / SIDE)
    waves[..., 0] /= np.sqrt(2)
    return _cosines()[:FINE] @ waves.astype(np.float32)


@functools.cache
def _table() -> np.ndarray:
    """Tabulate `_stretch` and its two derivatives at all nodes of low and high margin, (19, 19, 3, 12, 24)."""
    nodes = (np.arange(NODES) - BEYOND) * STEP
    low, high = (grid.ravel() for grid in np.meshgrid(nodes, nodes, indexing="ij"))
    h = STEP / 2
    parts = [
        _stretch(low, high),
        (_stretch(low + h, high) - _stretch(low - h, high)) / STEP,
        (_stretch(low, high + h) - _stretch(low, high - h)) / STEP,
    ]
    return np.stack(parts, axis=1).reshape(NODES, NODES, 3, FINE, SOURCE)


def spectra_of(thumbnails: np.ndarray) -> np.ndarray:
    """Turn (N, 64, 64) into float32 (N, 24, 24), the lowest frequencies."""
    basis, parts = _cosines(), range(0, len(thumbnails), 1024)
    return np.concatenate([basis @ thumbnails[at : at + 1024].astype(np.float32) @ basis.T for at in parts])


def cropped(spectra: np.ndarray, margins: np.ndarray) -> np.ndarray:
    """Crop (N, 24, 24) by margins (4,) -> unit vectors (N, 8, 8), their mean left out."""
    rows, columns = (_stretch(margins[at : at + 1], margins[at + 1 : at + 2])[0, :COARSE] for at in (0, 2))
    # one large product in place of N small ones, which would take five times as long
    coarse = spectra.reshape(-1, SOURCE * SOURCE) @ np.kron(rows, columns).T
    coarse[:, 0] = 0
    coarse /= np.maximum(np.linalg.norm(coarse, axis=1, keepdims=True), 1e-6)
    return coarse.reshape(-1, COARSE, COARSE)


def invariants(coarse: np.ndarray) -> np.ndarray:
    """Turn (..., 8, 8) into (..., 63), equal for all eight versions of a picture.

    Mirroring changes the signs of odd frequencies, and a quarter turn exchanges the axes as well.
    """
    size, mirror = np.abs(coarse), np.abs(np.swapaxes(coarse, -1, -2))
    u, v = np.triu_indices(COARSE, 1)
    diagonal = np.arange(1, COARSE)
    both, either = (size + mirror)[..., u, v], np.abs(size - mirror)[..., u, v]
    return np.concatenate([size[..., diagonal, diagonal], both / np.sqrt(2), either / np.sqrt(2)], axis=-1)


def turned(spectra: np.ndarray, version: int) -> np.ndarray:
    """Return the spectra (..., K, K) of `turned` pictures."""
    turns, mirrored, _ = VERSIONS[version]
    sign = (1 - 2 * (np.arange(spectra.shape[-1]) % 2)).astype(np.float32)
    result = spectra * sign if mirrored else spectra
    for _ in range(turns):
        result = np.swapaxes(result, -1, -2) * sign[:, None]
    return result


def align(moving: np.ndarray, fixed: np.ndarray, margins: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Fit margins (B, 4) of the spectra `moving` (B, 24, 24) to `fixed` (B, 12, 12); with residuals (B,).

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
