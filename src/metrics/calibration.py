"""Whether probabilities mean what they say: observed frequency against predicted probability, counted pixel by pixel.

An 8-bit probability has 256 values, so counts of pixels at each value and truth are all that any figure here needs.
Counts are int64 (..., 256, 2): the pixels of each value that are background and foreground in truth. Those of several
images are added.
"""

import numpy as np

BINS = 15  # as in Guo et al. 2017, On Calibration of Modern Neural Networks; 17 of the 255 steps each
UNSURE = (0.05, 0.95)  # between them lie the pixels about which a network has doubts


def count(p8: np.ndarray, truth: np.ndarray, labeled: np.ndarray | None = None) -> np.ndarray:
    """Count the pixels of uint8 probabilities by their bool truth (S, H, W) -> int64 (S, 256, 2).

    labeled: bool (H, W), which pixels count.
    """
    keys = p8.astype(np.int64) * 2 + truth
    if labeled is not None:
        keys = keys[:, labeled]
    return np.stack([np.bincount(plane.ravel(), minlength=512) for plane in keys]).reshape(-1, 256, 2)


def curve(counts: np.ndarray, bins: int = BINS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each bin's mean predicted probability, observed frequency and pixels, (bins,) each, of counts (256, 2).

    The bins share [0, 1] evenly; without a pixel the first two are NaN.
    """
    values = np.arange(256) / 255
    which = np.minimum((values * bins + 1e-9).astype(int), bins - 1)
    pixels, foreground, total = (
        np.bincount(which, weights, minlength=bins) for weights in (counts.sum(1), counts[:, 1], counts.sum(1) * values)
    )
    nothing = np.full(bins, np.nan)
    mean, observed = (np.divide(part, pixels, out=nothing.copy(), where=pixels > 0) for part in (total, foreground))
    return mean, observed, pixels


def calibration_error(counts: np.ndarray, bins: int = BINS) -> float:
    """Return the expected calibration error of counts (256, 2), in [0, 1]; NaN without a pixel (Naeini et al. 2015).

    The distance between observed frequency and mean predicted probability of foreground, averaged over all pixels.
    """
    mean, observed, pixels = curve(counts, bins)
    full = pixels > 0
    if not full.any():
        return float("nan")
    return float((np.abs(observed - mean)[full] * pixels[full]).sum() / pixels.sum())


def brier(counts: np.ndarray) -> float:
    """Return the mean squared distance of probability and truth, of counts (256, 2); NaN without any (Brier 1950)."""
    values = np.arange(256) / 255
    squared = np.stack([values**2, (1 - values) ** 2], 1)
    return float((squared * counts).sum() / counts.sum()) if counts.sum() else float("nan")


def unsure(counts: np.ndarray) -> np.ndarray:
    """Return the counts (256, 2) of pixels whose probability lies between UNSURE, all others 0."""
    values = np.arange(256) / 255
    inside = (values > UNSURE[0]) & (values < UNSURE[1])
    return counts * inside[:, None]
