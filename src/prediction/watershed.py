"""Touching objects of a mask, cut apart along the watershed of its distance transform.

Each pixel's height is its distance to the background, so that an object is a hill and the neck between two touching
ones a pass. The steepest way up from every pixel ends on a summit, and the pixels of one summit are its basin (Cousty
et al., "Watershed cuts", 2009: all pixels at once, no queue). A rough outline has more summits than objects; basins are
joined again unless the pass between them is clearly lower than both summits.

scikit-image 0.26 beside it, on 29 November 2026: dsb2018 at the best SPLIT, and CPU seconds at one SPLIT, over every
second of 160 images of nuclei, for the union of their true masks, that union blurred and noisy, and Otsu's threshold.

    uncut                                                        0.770  0.552  0.430
    this module                                                  0.862  0.638  0.481   0.4 s
    peak_local_max and watershed on the same heights             0.808  0.616  0.471   1.2 s
    h_maxima of their logarithm (the same passes) and watershed  0.860  0.638  0.481   7 s

The lines are this module's in all three: scikit-image's own (watershed_line=True, 8 neighbors) did not end within a
minute for the plain distances of one of the images.
"""

import cv2
import numpy as np

NECK = 0.9  # two hills are one object where the pass is higher than this share of the lower summit
SMOOTHING = 1.0  # px, of the Gaussian over the distances: an outline's steps of single pixels make no summits
_STEPS = 256  # heights are whole numbers of 1 / _STEPS px: equal on every computer, and they leave room for a direction
_STRIP = 32  # rows that are looked at together: they fit into a processor's cache


def apart(mask: np.ndarray, spacing: int) -> np.ndarray:
    """Cut the lines between touching objects out of a mask 0/1 uint8 (H, W); parts touch in none of 8 directions.

    Summits less than `spacing` px apart are of one object. A line is taken from the larger of the two objects that it
    parts, and is as thin as parts that do not touch allow: one pixel, two where it runs diagonally. Nothing else
    changes.
    """
    if not mask.any():
        return mask
    heights = np.pad(_heights(mask), 1)
    basins, summits = _basins(heights)
    pixels = _touching(basins)
    lower, upper = (basins.ravel()[part] for part in pixels)
    passes = np.minimum(*(heights.ravel()[part] for part in pixels))
    objects = _joined(lower, upper, passes, summits, heights, spacing)
    sizes = np.bincount(objects, np.bincount(basins[basins >= 0], minlength=len(summits)), len(summits))
    rank = np.empty(len(summits), np.int64)
    rank[np.argsort(sizes, kind="stable")] = np.arange(len(summits))
    first, second = rank[objects[lower]], rank[objects[upper]]
    framed = np.pad(mask, 1)
    framed.ravel()[np.concatenate([pixels[0][first > second], pixels[1][second > first]])] = 0
    return np.ascontiguousarray(framed[1:-1, 1:-1])


def _heights(mask: np.ndarray) -> np.ndarray:
    """Return smoothed distances to the background, int32 (H, W) in 1 / _STEPS px, at least 1 on the mask, else 0.

    What lies outside the image is no background: an object that the image cuts off has its summit at the image's edge.
    """
    # within 2% of the exact distances, in a fifth of their time
    distances = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_5)
    distances = np.minimum(distances, sum(mask.shape))  # of a mask without background they are huge
    smooth = cv2.GaussianBlur(distances, (0, 0), SMOOTHING)
    return np.maximum((smooth * _STEPS).astype(np.int32), 1) * mask


def _ways(heights: np.ndarray) -> np.ndarray:
    """Return where the way up goes from each pixel, uint8 (H, W): 3 * row + column in the 3 x 3 around it; 4 stays.

    To the highest of itself and its 8 neighbors; of equally high ones to the last in reading order, so that no way
    runs in a circle.
    """
    framed = np.pad(heights, 1)
    ways = np.empty(heights.shape, np.uint8)
    for top in range(0, len(heights), _STRIP):
        keys = framed[top : top + _STRIP + 2] << 4  # with the way's number below, so that one maximum finds both
        rows, columns = len(keys) - 2, heights.shape[1]
        highest = keys[:rows, :columns].copy()
        for way in range(1, 9):
            row, column = divmod(way, 3)
            np.maximum(highest, keys[row : row + rows, column : column + columns] + way, out=highest)
        ways[top : top + rows] = highest & 15
    return ways


def _basins(heights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which summit the way up ends on, int32 (H, W) with -1 for background, and the summits' flat indices.

    `heights` has a frame of background.
    """
    width = heights.shape[1]
    steps = np.array([row * width + column for row in (-1, 0, 1) for column in (-1, 0, 1)])
    where = np.flatnonzero(heights > 0)
    order = np.empty(heights.size, np.int64)
    order[where] = np.arange(len(where))
    end = order[where + steps[_ways(heights).ravel()[where]]]
    while True:  # all pixels at once, each time twice as far
        further = end[end]
        if np.array_equal(further, end):
            break
        end = further
    is_summit = end == np.arange(len(end))
    basins = np.full(heights.shape, -1, np.int32)
    basins.ravel()[where] = (np.cumsum(is_summit) - 1)[end]
    return basins, where[is_summit]


def _touching(basins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of neighboring pixels (8 directions) of two basins, as flat indices."""
    width = basins.shape[1]
    flat, firsts, seconds = basins.ravel(), [], []
    for step in (1, width - 1, width, width + 1):
        here, there = flat[:-step], flat[step:]
        found = np.flatnonzero((here != there) & (np.minimum(here, there) >= 0))
        firsts.append(found)
        seconds.append(found + step)
    return np.concatenate(firsts), np.concatenate(seconds)


def _joined(
    lower: np.ndarray, upper: np.ndarray, passes: np.ndarray, summits: np.ndarray, heights: np.ndarray, spacing: int
) -> np.ndarray:
    """Join basins from the highest pass to the lowest, until nothing more joins -> the object of each, int (B,)."""
    number = len(summits)
    order = np.argsort(-passes, kind="stable")
    keys = (np.minimum(lower, upper).astype(np.int64) * number + np.maximum(lower, upper))[order]
    _, first = np.unique(keys, return_index=True)  # of each pair of basins its highest pass
    first.sort()
    pairs = np.stack([keys[first] // number, keys[first] % number, passes[order][first]], axis=1).tolist()
    tops = heights.ravel()[summits].tolist()
    rows, columns = (axis.tolist() for axis in np.divmod(summits, heights.shape[1]))
    parent = list(range(number))

    def root(basin: int) -> int:
        while parent[basin] != basin:
            parent[basin] = basin = parent[parent[basin]]
        return basin

    before = -1
    while len(pairs) != before:  # a summit that was joined to a higher one may leave that one too near to a third
        before, left = len(pairs), []
        for one, other, height in pairs:
            high, low = sorted((root(one), root(other)), key=lambda basin: (-tops[basin], basin))
            near = (rows[high] - rows[low]) ** 2 + (columns[high] - columns[low]) ** 2 < spacing**2
            if near or height > NECK * tops[low]:
                parent[low] = high
            else:
                left.append((high, low, height))
        pairs = left
    return np.array([root(basin) for basin in range(number)])
