"""How often each level occurs in the images' channels, and what follows: bits, window, mean and deviation."""

from dataclasses import replace

import numpy as np

from data.dataspec import DataSpec


def eight_bits(levels: np.ndarray) -> np.ndarray:
    """Stretch 16 bits to the image's own range, for the leak audit, which looks at differences only."""
    if levels.dtype == np.uint8:
        return levels
    low, high = int(levels.min()), int(levels.max())
    return ((levels - low) * (255 / max(1, high - low))).astype(np.uint8)


def histogram(levels: np.ndarray) -> np.ndarray:
    """Count the levels, (C, 256) or (C, 65536), of some 16,000 evenly spread pixels."""
    step = max(1, int((levels.shape[0] * levels.shape[1] / 16384) ** 0.5))
    some, count = levels[::step, ::step], 256 if levels.dtype == np.uint8 else 65536
    return np.stack([np.bincount(some[..., c].ravel(), minlength=count) for c in range(levels.shape[2])])


def measured(spec: DataSpec, histograms: dict[int, np.ndarray]) -> DataSpec:
    """Set a DataSpec's bits, window, mean and std from the images' counts by level (256 and 65536).

    The window is the range of 16-bit values without the lowest and highest thousandth; mean and deviation are those of
    each channel in [0, 1] after it.
    """
    window = (0.0, 65535.0)
    if 65536 in histograms:
        cumulated = histograms[65536].sum(0).cumsum()
        low, high = np.searchsorted(cumulated, [0.001 * cumulated[-1], 0.999 * cumulated[-1]])
        window = float(low), float(max(high, low + 1))
    values = {256: np.arange(256) / 255, 65536: np.clip((np.arange(65536) - window[0]) / (window[1] - window[0]), 0, 1)}
    total = sum(counts.sum(1) for counts in histograms.values())
    mean = sum((counts * values[levels]).sum(1) for levels, counts in histograms.items()) / total
    square = sum((counts * values[levels] ** 2).sum(1) for levels, counts in histograms.items()) / total
    std = np.sqrt(np.maximum(square - mean**2, 0))
    return replace(
        spec,
        bits=16 if 65536 in histograms else 8,
        window=window,
        mean=tuple(round(float(value), 5) for value in mean),
        std=tuple(round(max(float(value), 1e-3), 5) for value in std),
    )
